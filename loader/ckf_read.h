/* SPDX-License-Identifier: MIT */
/* What all who read an image share: its files, and where chunks lie in a pack. */
#ifndef CKF_READ_H
#define CKF_READ_H

#include "format/ckf_codec.h"
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

#define CKF_PACK_NAME_BYTES 256 /* longer paths are cut off */
/* How messages call the pack of a base, or of the image itself (0). buf, or a constant. */
const char *ckf_pack_name(const struct ckf_index *idx, unsigned int base,
			  char buf[CKF_PACK_NAME_BYTES]);

/* Decodes a chunk that is not raw to dst, which has room for its pages. Does not check it. */
int ckf_chunk_decode(const struct ckf_index *idx, uint64_t chunk, struct ckf_codec_ctx *ctx,
		     const char *stored, char *dst, struct ckf_error *err);
/* 0 when hash, which is that of its pages, is the chunk's checksum; or else the error. */
int ckf_chunk_check(const struct ckf_index *idx, uint64_t chunk, uint64_t hash,
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
