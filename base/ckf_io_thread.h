/* SPDX-License-Identifier: MIT */
/*
 * Direct reads from a disk and writes to it, several in flight, by io_uring and in a thread of
 * their own: what is copied from or to the page cache wants many threads, a disk wants many
 * requests.
 */
#ifndef CKF_IO_THREAD_H
#define CKF_IO_THREAD_H

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
	/* Called for each by the thread of the I/O thread, or by whoever stops it. */
	void (*done)(struct ckf_transfer *t);
	struct ckf_transfer *next; /* under the lock of the I/O thread */
};

struct ckf_io_thread;

/* -ENOSYS where there is no io_uring, or -errno: then it goes without. */
int ckf_io_thread_start(struct ckf_io_thread **out);
/* Cancels what has not begun, waits for the rest, joins. Takes NULL. */
void ckf_io_thread_stop(struct ckf_io_thread *p);

void ckf_io_thread_submit(struct ckf_io_thread *p, struct ckf_transfer *t);

#endif
