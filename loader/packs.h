/* SPDX-License-Identifier: MIT */
/*
 * The packs that one worker of a fill reads: that of the image, and those of its bases. Each is
 * opened when it is needed first. Private to the loader.
 */
#ifndef CKF_PACKS_H
#define CKF_PACKS_H

#include <sys/uio.h>

#include "ckf_image.h"

/* How to read each pack, by base of the chunks; the same for all workers. */
struct ckf_packs_io {
	bool direct[CKF_MAX_BASES + 1]; /* from the disk, by direct reads */
	bool any_direct;
	bool uring;
	bool no_ahead; /* the kernel reads no further ahead than it does by itself */
};

struct ckf_packs {
	const struct ckf_image *img;
	int dir_fd;
	const struct ckf_packs_io *io;
	struct ckf_packs_fds {
		int fd;	      /* direct or buffered */
		int buffered; /* always buffered */
	} * fds;	      /* by base of the chunks; -1 until it is needed */
	bool direct;	      /* a pack is open for direct reads */
};

/*
 * Direct reads and io_uring hide the latency of a disk. A pack in memory has none: it is copied
 * from the page cache, and tmpfs is nothing but page cache.
 */
int ckf_packs_choose(const struct ckf_image *img, int dir_fd, uint32_t fill_flags,
		     struct ckf_packs_io *io, struct ckf_error *err);

/* io stays the caller's. -ENOMEM. fini in any case; takes a zeroed struct. */
int ckf_packs_init(struct ckf_packs *p, const struct ckf_image *img, int dir_fd,
		   const struct ckf_packs_io *io);
void ckf_packs_fini(struct ckf_packs *p);

/* The fd to read the pack of a base with, and one that goes through the page cache; or -errno. */
int ckf_packs_fd(struct ckf_packs *p, unsigned int base, struct ckf_error *err);
int ckf_packs_buffered_fd(struct ckf_packs *p, unsigned int base, struct ckf_error *err);

/* One read of a pack, in whole pages, into the iovs. */
struct ckf_packs_read {
	const struct iovec *iovs;
	unsigned int nr_iovs;
	unsigned int base;
	uint64_t off;
	size_t bytes;
};

/*
 * What is left to do when a read has ended with res, bytes or -errno. One that came back short, or
 * was refused, is ended through the page cache, piece by piece: what the file system wants of a
 * direct read must not keep the data from coming.
 */
int ckf_packs_finish(struct ckf_packs *p, const struct ckf_packs_read *rd, int res,
		     struct ckf_error *err);
/* The error of a read. Returns ret. */
int ckf_packs_error(const struct ckf_packs *p, const struct ckf_packs_read *rd, int ret,
		    struct ckf_error *err);

#endif
