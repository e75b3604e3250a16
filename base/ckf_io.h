/* SPDX-License-Identifier: MIT */
/* Reads and writes in flight, of one thread. */
#ifndef CKF_IO_H
#define CKF_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct ckf_io;

enum ckf_io_mode {
	CKF_IO_PLAIN, /* preadv and pwritev: each is done while it is submitted */
	CKF_IO_URING,
	CKF_IO_URING_NO_THREADS, /* what would block is done by ckf_io_wait() */
};

/*
 * depth: requests in flight at most. io_uring is left out where the kernel has none or forbids it.
 * -ENOMEM.
 */
int ckf_io_new(unsigned int depth, enum ckf_io_mode mode, struct ckf_io **out);

/* True when io_uring is in use. */
bool ckf_io_is_uring(const struct ckf_io *io);

/*
 * Starts a read; iov stays the caller's and must live until its completion. tag comes back from
 * ckf_io_wait(). At most depth requests may be in flight. 0 or -errno (nothing is then in flight).
 */
int ckf_io_submit(struct ckf_io *io, int fd, const struct iovec *iov, unsigned int nr_iov,
		  uint64_t off, void *tag);
/* The same for a write. */
int ckf_io_submit_write(struct ckf_io *io, int fd, const struct iovec *iov, unsigned int nr_iov,
			uint64_t off, void *tag);

/*
 * Waits for one completion: *res is the number of bytes read or written, or -errno. Only with
 * requests in flight.
 */
int ckf_io_wait(struct ckf_io *io, void **tag, int *res);

/* Waits for all requests in flight, dropping their results, and frees. Takes NULL. */
void ckf_io_free(struct ckf_io *io);

#endif
