/* SPDX-License-Identifier: MIT */
/* Opening files, and reading and writing all of what was asked for. */
#ifndef CKF_IO_UTIL_H
#define CKF_IO_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/*
 * Opens a regular file for reading, with flags such as O_NOFOLLOW or O_DIRECT. *size, unless it is
 * NULL: its length. An fd, or -errno: -ELOOP for a symbolic link that is not followed, -EOPNOTSUPP
 * for anything else that is no regular file. Does not wait for the writer of a FIFO.
 */
int ckf_open_regular(int dir_fd, const char *name, int flags, uint64_t *size);

/* Reads exactly bytes at off: 0, -errno, or -EBADMSG when the file ends before. */
int ckf_pread_all(int fd, void *buf, size_t bytes, uint64_t off);
/* Writes exactly that: 0 or -errno. */
int ckf_pwrite_all(int fd, const void *buf, size_t bytes, uint64_t off);

/* Copies the bytes of iov[0..nr) that begin skip after its start; it has them all. */
void ckf_iov_copy(const struct iovec *iov, unsigned int nr, uint64_t skip, void *dst, size_t bytes);

/* True when the file has that part, and nothing was ever written there: it reads as zeros. */
bool ckf_is_hole(int fd, uint64_t off, uint64_t bytes);

#endif
