/* SPDX-License-Identifier: MIT */
/*
 * Reads and writes in flight, of one thread. Two backends, io_uring and plain preadv and pwritev;
 * the second completes each while it is submitted.
 */
#ifndef CKF_IO_H
#define CKF_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct ckf_io;

/*
 * depth: requests in flight at most. want_uring: try io_uring, and go on without where the kernel
 * has none or forbids it. -ENOMEM.
 */
int ckf_io_new(unsigned int depth, bool want_uring, struct ckf_io **out);

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
