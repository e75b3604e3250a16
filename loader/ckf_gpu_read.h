/* SPDX-License-Identifier: MIT */
/* Reads the table of a process's device memory from a dump, or from a fast image, which keeps it.
 */
#ifndef CKF_GPU_READ_H
#define CKF_GPU_READ_H

#include "base/ckf_dir.h"
#include "format/ckf_gpu_dump.h"

#define CKF_GPU_NAME_BYTES 32
/* "ckfast-gpu-PID.img" and "ckfast-gpu-pages-PID.img". Both return buf. */
const char *ckf_gpu_name(uint32_t pid, char buf[CKF_GPU_NAME_BYTES]);
const char *ckf_gpu_pages_name(uint32_t pid, char buf[CKF_GPU_NAME_BYTES]);

/*
 * Reads and checks ckfast-gpu-PID.img. -ENOENT, which leaves err alone: there is none. -EBADMSG,
 * -EOPNOTSUPP, -ENOMEM, -EIO…. Free with ckf_gpu_dump_free().
 */
int ckf_gpu_dump_read(int dir_fd, uint32_t pid, struct ckf_gpu_dump **out, struct ckf_error *err);
/* The same from an open file, for callers with other rules about links. */
int ckf_gpu_dump_read_part(const struct ckf_file_part *part, uint32_t pid,
			   struct ckf_gpu_dump **out, struct ckf_error *err);

#endif
