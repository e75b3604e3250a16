/* SPDX-License-Identifier: MIT */
/*
 * Codec lz4: one block per chunk, without a frame. Level 1, the default, is the fast encoder, the
 * levels above it are those of LZ4HC.
 */
#include "codec.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include <lz4.h>
#include <lz4hc.h>

/* io is bounded by ckf_encode() to CKF_MAX_CHUNK_PAGES: the casts to int keep the values. */
static int64_t lz4_encode(struct ckf_codec_ctx *ctx, int level, const struct ckf_codec_io *io)
{
	if (level <= 1)
		return LZ4_compress_default(io->src, io->dst, (int)io->src_bytes,
					    (int)io->dst_bytes);
	if (!ctx->lz4hc_state)
		ctx->lz4hc_state = malloc((size_t)LZ4_sizeofStateHC());
	if (!ctx->lz4hc_state)
		return -ENOMEM;
	return LZ4_compress_HC_extStateHC(ctx->lz4hc_state, io->src, io->dst, (int)io->src_bytes,
					  (int)io->dst_bytes, level);
}

static int lz4_decode(struct ckf_codec_ctx *ctx, const struct ckf_codec_io *io)
{
	int n;

	(void)ctx;
	if (io->src_bytes > INT_MAX || io->dst_bytes > INT_MAX)
		return -EBADMSG;
	n = LZ4_decompress_safe(io->src, io->dst, (int)io->src_bytes, (int)io->dst_bytes);
	return n >= 0 && (size_t)n == io->dst_bytes ? 0 : -EBADMSG;
}

const struct ckf_codec_type ckf_codec_lz4 = {
	.name = "lz4",
	.min_level = 1,
	.max_level = LZ4HC_CLEVEL_MAX,
	.encode = lz4_encode,
	.decode = lz4_decode,
};
