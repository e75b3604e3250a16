/* SPDX-License-Identifier: MIT */
/*
 * The client's side of filling device memory from an image: started at the first moment of a
 * restore, waited for when a process is to get its memory. For one thread.
 */
#ifndef CKF_GPU_FILL_H
#define CKF_GPU_FILL_H

#include <stdbool.h>

#include "ckf_process.h"

struct ckf_gpu_fill;

/* True when the directory has images of device memory. */
bool ckf_gpu_images_probe(int dir_fd);

/*
 * Asks gpud (a socket of ckf_gpud_connect(), which may be used for other requests meanwhile) to
 * fill memory for all images of device memory in dir_fd, and returns while it works; what it
 * refuses within a moment is returned at once.
 */
int ckf_gpu_fill_start(int gpud, int dir_fd, struct ckf_gpu_fill **out, struct ckf_error *err);

struct ckf_gpu_fill_stats {
	uint64_t bytes;
	uint64_t ns; /* from the request until it was filled */
};

/*
 * Waits until gpud has found that the images fit this machine, and tells p which devices take the
 * place of others.
 */
int ckf_gpu_fill_accepted(struct ckf_gpu_fill *f, struct ckf_gpu_process *p, struct ckf_error *err);

/*
 * Waits until gpud has made all memory and gives that of the process image_pid to p, which may map
 * it; but it must not run before ckf_gpu_fill_wait(). 0 also when there is none.
 */
int ckf_gpu_fill_memory(struct ckf_gpu_fill *f, uint32_t image_pid, struct ckf_gpu_process *p,
			struct ckf_error *err);

/*
 * Waits until the memory of the process image_pid is filled and checked. 0 also when there is none.
 * stats may be NULL.
 */
int ckf_gpu_fill_wait(struct ckf_gpu_fill *f, uint32_t image_pid, struct ckf_gpu_fill_stats *stats,
		      struct ckf_error *err);

/* Ends it; memory that nobody got is freed. Takes NULL. */
void ckf_gpu_fill_close(struct ckf_gpu_fill *f);

/*
 * A program or library of ckfast's own installation: name, relative to the folder above the one
 * that the running program is in, such as "bin/ckfast". -ENOENT when it is not there.
 */
int ckf_gpu_find_own(const char *name, char *buf, size_t bytes, struct ckf_error *err);

/* The helper for ckf_gpud_connect(): $CKFAST_GPUD_HELPER, or our own program in buf, or NULL. */
const char *ckf_gpu_find_helper(char *buf, size_t bytes);

#endif
