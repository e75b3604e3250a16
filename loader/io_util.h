/* SPDX-License-Identifier: MIT */
/* Small helpers that the files of loader/ share. */
#ifndef CKF_IO_UTIL_H
#define CKF_IO_UTIL_H

#include <pthread.h>
#include <sys/uio.h>

#include "../format/ckf_index.h"

/* Reads exactly bytes at off: 0, -errno, or -EBADMSG when the file ends before. */
int ckf_pread_all(int fd, void *buf, size_t bytes, uint64_t off);
/* Writes exactly that: 0 or -errno. */
int ckf_pwrite_all(int fd, const void *buf, size_t bytes, uint64_t off);

/* Copies the bytes of iov[0..nr) that begin skip after its start; it has them all. */
void ckf_iov_copy(const struct iovec *iov, unsigned int nr, uint64_t skip, void *dst, size_t bytes);

/* The pages of a pack that a stored chunk lies on: where they begin, and where they end. */
static inline uint64_t ckf_chunk_first(const struct ckf_chunk *c)
{
	return c->pack_off - c->pack_off % CKF_PAGE_BYTES;
}

static inline uint64_t ckf_chunk_end(const struct ckf_chunk *c)
{
	return ckf_align_up(c->pack_off + c->stored_bytes, CKF_PAGE_BYTES);
}

/* True when the file has that part, and nothing was ever written there: it reads as zeros. */
bool ckf_is_hole(int fd, uint64_t off, uint64_t bytes);

/*
 * The error of a chunk that does not decode (ret from ckf_decode) or whose decoded bytes have
 * the checksum got in place of the right one (ret -EBADMSG and got non-zero). Returns ret.
 */
int ckf_chunk_error(const struct ckf_index *idx, uint64_t chunk, int ret, uint64_t got,
		    struct ckf_error *err);

uint64_t ckf_now_ns(void);

/* A condition for ckf_cond_wait_ms(): by CLOCK_MONOTONIC, which nobody sets. */
void ckf_cond_init(pthread_cond_t *cond);
/* Waits no longer than timeout_ms: false when that has passed. */
bool ckf_cond_wait_ms(pthread_cond_t *cond, pthread_mutex_t *lock, unsigned int timeout_ms);

/* Starts a thread in which all signals are blocked, for they are the caller's: 0 or -errno. */
int ckf_thread_start(pthread_t *thread, void *(*run)(void *), void *arg);

/*
 * image.c: opens a regular file of an image, and nothing else. *size: its length. -ENOENT, and
 * -EINVAL where O_DIRECT is among flags and refused, leave err alone.
 */
int ckf_image_open_regular(int dir_fd, const char *name, int flags, uint64_t *size,
			   struct ckf_error *err);

/*
 * cached.c: true when what is in the file is copied from memory: it lies in tmpfs, or nearly all
 * of its bytes are in the page cache.
 */
bool ckf_fd_is_cached(int fd, uint64_t bytes);

#endif
