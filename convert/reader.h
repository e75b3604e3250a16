/* SPDX-License-Identifier: MIT */
/*
 * Direct reads from a disk, several in flight, by io_uring and in a thread of their own: what is
 * copied from the page cache wants many threads, a disk wants many reads.
 */
#ifndef CKF_CONVERT_READER_H
#define CKF_CONVERT_READER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

/* One read, of whole pages to whole pages. */
struct ckf_read {
	int fd; /* opened with O_DIRECT; closed when all is read */
	struct iovec iov;
	uint64_t off;
	int ret; /* 0, -errno, or -EBADMSG when the file ends before */
	/* Called by the thread of the reader, which forgets the read before. */
	void (*done)(struct ckf_read *rd);
	struct ckf_read *next; /* under the lock of the reader */
};

struct ckf_reader;

/* -ENOSYS where there is no io_uring, or -errno: then reading goes without. */
int ckf_reader_start(struct ckf_reader **out);
/* Forgets the reads that have not begun, waits for the others, joins. Takes NULL. */
void ckf_reader_stop(struct ckf_reader *r);

void ckf_reader_submit(struct ckf_reader *r, struct ckf_read *rd);

#endif
