/* SPDX-License-Identifier: MIT */
/*
 * Codecs: one table entry per codec, one file per codec (codec_<name>.c).
 *
 * A codec context holds the scratch state of a library and belongs to one thread at a time.
 * Decoders take hostile input: they never read or write outside of the given buffers.
 */
#ifndef CKF_CODEC_H
#define CKF_CODEC_H

#include "ckf_disk.h"
#include "base/ckf_error.h"

struct ckf_codec_ctx;

/* -ENOMEM. Free with ckf_codec_ctx_free(), which takes NULL. */
int ckf_codec_ctx_new(struct ckf_codec_ctx **out);
void ckf_codec_ctx_free(struct ckf_codec_ctx *ctx);

/*
 * Encodes src_bytes (a multiple of the page size, at most CKF_MAX_CHUNK_PAGES pages) at src into
 * dst of dst_bytes. Returns the number of bytes stored, 0 when the result would not fit into
 * dst_bytes (or would not be smaller than the source), or -errno. level: the codec's own, 0 for
 * its default. Only for CKF_CODEC_LZ4, CKF_CODEC_ZSTD and CKF_CODEC_BF16.
 */
int64_t ckf_encode(struct ckf_codec_ctx *ctx, uint32_t codec, int level, const void *src,
		   size_t src_bytes, void *dst, size_t dst_bytes);

/*
 * Decodes stored_bytes at src into exactly dst_bytes at dst. Works for every codec; zero clears
 * dst, raw copies. 0, -EBADMSG when src does not decode to exactly dst_bytes, -ENOMEM, -EOPNOTSUPP.
 * dst may have been written to when it fails. ctx may be NULL for zero, raw and lz4.
 */
int ckf_decode(struct ckf_codec_ctx *ctx, uint32_t codec, const void *src, size_t stored_bytes,
	       void *dst, size_t dst_bytes);

/* XXH3-64, the checksum of SPEC.md. */
uint64_t ckf_hash64(const void *p, size_t bytes);
/* XXH3-64 over zeros, without a buffer of them. */
uint64_t ckf_hash64_zeros(size_t bytes);
/* True when all bytes are zero. p is 8-byte aligned and bytes a multiple of 64. */
bool ckf_is_zero(const void *p, size_t bytes);

#endif
