/* SPDX-License-Identifier: MIT */
/*
 * Direct reads from a disk and writes to it, several in flight, by io_uring and in a thread of
 * their own: what is copied from or to the page cache wants many threads, a disk wants many
 * requests.
 */
#ifndef CKF_CONVERT_TRANSFER_H
#define CKF_CONVERT_TRANSFER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

/* One read or write, of whole pages to or from whole pages. */
struct ckf_transfer {
	int fd;	    /* mostly opened with O_DIRECT, which is taken away where it is refused */
	bool write; /* to the file */
	struct iovec iov;
	uint64_t off;
	/* 0, -errno, -EBADMSG when the file ends before, or -ECANCELED when it never began. */
	int ret;
	/* Called for each by the thread of the porter, or by whoever stops it. */
	void (*done)(struct ckf_transfer *t);
	struct ckf_transfer *next; /* under the lock of the porter */
};

struct ckf_porter;

/* -ENOSYS where there is no io_uring, or -errno: then it goes without. */
int ckf_porter_start(struct ckf_porter **out);
/* Cancels what has not begun, waits for the rest, joins. Takes NULL. */
void ckf_porter_stop(struct ckf_porter *p);

void ckf_porter_submit(struct ckf_porter *p, struct ckf_transfer *t);

#endif
