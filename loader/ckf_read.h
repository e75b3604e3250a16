/* SPDX-License-Identifier: MIT */
/* What all who read an image share: its files, and where chunks lie in a pack. */
#ifndef CKF_READ_H
#define CKF_READ_H

#include "format/ckf_index.h"

/* The pages of a pack that a stored chunk lies on: where they begin, and where they end. */
static inline uint64_t ckf_chunk_first(const struct ckf_chunk *c)
{
	return c->pack_off - c->pack_off % CKF_PAGE_BYTES;
}

static inline uint64_t ckf_chunk_end(const struct ckf_chunk *c)
{
	return ckf_align_up(c->pack_off + c->stored_bytes, CKF_PAGE_BYTES);
}

/*
 * The error of a chunk that does not decode (ret from ckf_decode) or whose decoded bytes have
 * the checksum got in place of the right one (ret -EBADMSG and got non-zero). Returns ret.
 */
int ckf_chunk_error(const struct ckf_index *idx, uint64_t chunk, int ret, uint64_t got,
		    struct ckf_error *err);

/*
 * Opens a regular file of an image, and nothing else. *size: its length. -ENOENT, and
 * -EINVAL where O_DIRECT is among flags and refused, leave err alone.
 */
int ckf_image_open_regular(int dir_fd, const char *name, int flags, uint64_t *size,
			   struct ckf_error *err);

/*
 * True when what is in the file is copied from memory: it lies in tmpfs, or nearly all
 * of its bytes are in the page cache.
 */
bool ckf_fd_is_cached(int fd, uint64_t bytes);
/* True when all of the range, of whole pages, is in the page cache at this moment. */
bool ckf_range_is_cached(int fd, uint64_t off, uint64_t bytes);

#endif
