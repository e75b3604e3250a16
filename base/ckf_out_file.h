/* SPDX-License-Identifier: MIT */
/*
 * A file that many threads write at once: the pack of an image, the pages file of a dump.
 *
 * Any thread may write; no two write the same bytes. On tmpfs what is written goes through
 * a mapping, and the file grows by whole windows of 2 MiB: whoever knows its length sets it in the
 * end.
 */
#ifndef CKF_OUT_FILE_H
#define CKF_OUT_FILE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

enum ckf_out_window {
	CKF_OUT_FREE = 0, /* nobody has begun to write to it */
	CKF_OUT_CLAIMED,  /* a thread is trying to make it a huge page */
	CKF_OUT_HUGE,
	CKF_OUT_SMALL,
};

struct ckf_out_file {
	int fd;
	bool dense;
	bool tmpfs;
	atomic_bool map; /* write through the mapping */
	char *area;	 /* NULL: none; what is reserved for the mapping */
	size_t area_bytes;
	char *windows; /* the file, mapped */
	uint64_t mapped_bytes;
	pthread_mutex_t lock;
	pthread_cond_t settled; /* a window is no longer CKF_OUT_CLAIMED */
	/* Under lock. */
	uint64_t file_bytes; /* the length that it was given so far */
	uint8_t *how;	     /* by window of the mapping: enum ckf_out_window */
};

/*
 * fd, open for reading and writing, stays the caller's. dense: all of the file gets written but for
 * the holes that are named, from its start to its end by and large; if not, it has its length
 * already, and what is not written stays a hole. max_bytes: the length that it is not expected to
 * pass; it may, only slower.
 */
void ckf_out_file_init(struct ckf_out_file *f, int fd, bool dense, uint64_t max_bytes);
void ckf_out_file_fini(struct ckf_out_file *f);

/* Before anything is written: this part of a dense file will not be, and stays a hole. */
void ckf_out_file_hole(struct ckf_out_file *f, uint64_t off, uint64_t bytes);

/* Writes all of iov, which is used up, at off: 0 or -errno. */
int ckf_out_file_writev(struct ckf_out_file *f, struct iovec *iov, unsigned int nr, uint64_t off);
int ckf_out_file_write(struct ckf_out_file *f, const void *buf, size_t bytes, uint64_t off);

#endif
