/* SPDX-License-Identifier: MIT */
/*
 * Reads in flight: one reader belongs to one thread. Two backends, io_uring and plain preadv; the
 * second completes each read while it is submitted.
 */
#ifndef CKF_IO_H
#define CKF_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct ckf_io;

/*
 * depth: reads in flight at most. want_uring: try io_uring, and go on without where the kernel has
 * none or forbids it. -ENOMEM.
 */
int ckf_io_new(unsigned int depth, bool want_uring, struct ckf_io **out);

/* True when io_uring is in use. */
bool ckf_io_is_uring(const struct ckf_io *io);

/*
 * Starts a read; iov stays the caller's and must live until its completion. tag comes back from
 * ckf_io_wait(). At most depth reads may be in flight. 0 or -errno (nothing is then in flight).
 */
int ckf_io_submit(struct ckf_io *io, int fd, const struct iovec *iov, unsigned int nr_iov,
		  uint64_t off, void *tag);

/* Waits for one completion: *res is the number of bytes read, or -errno. Only with reads in flight.
 */
int ckf_io_wait(struct ckf_io *io, void **tag, int *res);

/* Waits for all reads in flight, dropping their results, and frees. Takes NULL. */
void ckf_io_free(struct ckf_io *io);

#endif
