/* SPDX-License-Identifier: MIT */
/* The table of codecs, and what holds for all of them. */
#include "codec.h"

#include <errno.h>
#include <stdlib.h>

#include <zstd.h>

#include "ckf_index.h"

static const struct ckf_codec_type *const types[CKF_CODEC_END] = {
	[CKF_CODEC_ZERO] = &ckf_codec_zero, [CKF_CODEC_RAW] = &ckf_codec_raw,
	[CKF_CODEC_LZ4] = &ckf_codec_lz4,   [CKF_CODEC_ZSTD] = &ckf_codec_zstd,
	[CKF_CODEC_BF16] = &ckf_codec_bf16,
};

int ckf_codec_ctx_new(struct ckf_codec_ctx **out)
{
	*out = calloc(1, sizeof(**out));
	return *out ? 0 : -ENOMEM;
}

void ckf_codec_ctx_free(struct ckf_codec_ctx *ctx)
{
	if (!ctx)
		return;
	ZSTD_freeCCtx(ctx->zstd_encoder);
	ZSTD_freeDCtx(ctx->zstd_decoder);
	free(ctx->lz4hc_state);
	free(ctx->planes);
	free(ctx);
}

int64_t ckf_encode(struct ckf_codec_ctx *ctx, uint32_t codec, int level, const void *src,
		   size_t src_bytes, void *dst, size_t dst_bytes)
{
	struct ckf_codec_io io = { src, src_bytes, dst, dst_bytes };
	const struct ckf_codec_type *type;

	if (codec >= CKF_CODEC_END || !types[codec]->encode || !ctx)
		return -EINVAL;
	type = types[codec];
	if (level && (level < type->min_level || level > type->max_level))
		return -EINVAL;
	if (!src_bytes || src_bytes % CKF_PAGE_BYTES ||
	    src_bytes > ckf_pages_to_bytes(CKF_MAX_CHUNK_PAGES))
		return -EINVAL;
	if (io.dst_bytes >= src_bytes)
		io.dst_bytes = src_bytes - 1;
	if (!io.dst_bytes)
		return 0;
	return type->encode(ctx, level, &io);
}

int ckf_decode(struct ckf_codec_ctx *ctx, uint32_t codec, const void *src, size_t stored_bytes,
	       void *dst, size_t dst_bytes)
{
	const struct ckf_codec_io io = { src, stored_bytes, dst, dst_bytes };

	if (codec >= CKF_CODEC_END)
		return -EOPNOTSUPP;
	return types[codec]->decode(ctx, &io);
}

void ckf_codec_levels(uint32_t codec, int *min, int *max)
{
	*min = 0;
	*max = 0;
	if (codec < CKF_CODEC_END) {
		*min = types[codec]->min_level;
		*max = types[codec]->max_level;
	}
}

const char *ckf_codec_name(uint32_t codec)
{
	return codec < CKF_CODEC_END ? types[codec]->name : "?";
}
