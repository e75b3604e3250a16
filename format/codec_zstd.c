/* SPDX-License-Identifier: MIT */
/*
 * Codec zstd: one frame per chunk, without a dictionary.
 *
 * Frames are decoded in one pass straight into the destination. That needs no window buffer,
 * whatever window the frame asks for: a hostile frame cannot make the library allocate.
 */
#include "codec.h"

#include <errno.h>
#include <string.h>

/* For ZSTD_c_literalCompressionMode, which the shared library has too. */
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>
#include <zstd_errors.h>

#define ZSTD_DEFAULT_LEVEL 1

/*
 * Parameters that leave nothing to be found: matches of 7 bytes, a table of few entries, and steps
 * that get longer at once. Literals would then not be coded, unless asked for. Compression with a
 * level does not look at them. A library that refuses one makes larger frames, but right ones.
 */
static void set_literals_only(ZSTD_CCtx *c)
{
	ZSTD_CCtx_setParameter(c, ZSTD_c_strategy, ZSTD_fast);
	ZSTD_CCtx_setParameter(c, ZSTD_c_minMatch, 7);
	ZSTD_CCtx_setParameter(c, ZSTD_c_hashLog, ZSTD_HASHLOG_MIN);
	ZSTD_CCtx_setParameter(c, ZSTD_c_targetLength, ZSTD_TARGETLENGTH_MAX);
	ZSTD_CCtx_setParameter(c, ZSTD_c_literalCompressionMode, ZSTD_ps_enable);
}

static int64_t zstd_encode(struct ckf_codec_ctx *ctx, int level, const struct ckf_codec_io *io)
{
	size_t n;

	if (!ctx->zstd_encoder) {
		ctx->zstd_encoder = ZSTD_createCCtx();
		if (!ctx->zstd_encoder)
			return -ENOMEM;
		set_literals_only(ctx->zstd_encoder);
	}
	if (level == CKF_ZSTD_LITERALS)
		n = ZSTD_compress2(ctx->zstd_encoder, io->dst, io->dst_bytes, io->src,
				   io->src_bytes);
	else
		n = ZSTD_compressCCtx(ctx->zstd_encoder, io->dst, io->dst_bytes, io->src,
				      io->src_bytes, level ? level : ZSTD_DEFAULT_LEVEL);
	if (!ZSTD_isError(n))
		return (int64_t)n;
	switch (ZSTD_getErrorCode(n)) {
	case ZSTD_error_dstSize_tooSmall:
		return 0;
	case ZSTD_error_memory_allocation:
		return -ENOMEM;
	default:
		return -EIO;
	}
}

/*
 * True when io->src is one frame of the current format and nothing else. The library would also
 * decode several frames in a row, skip over skippable ones, and may know formats of old versions.
 */
static bool zstd_one_frame(const struct ckf_codec_io *io)
{
	unsigned long long content_bytes;
	ckf_le32 magic;

	if (io->src_bytes < sizeof(magic))
		return false;
	memcpy(&magic, io->src, sizeof(magic));
	if (ckf_get32(magic) != ZSTD_MAGICNUMBER)
		return false;
	content_bytes = ZSTD_getFrameContentSize(io->src, io->src_bytes);
	if (content_bytes != ZSTD_CONTENTSIZE_UNKNOWN && content_bytes != io->dst_bytes)
		return false;
	/* An error code is larger than any src_bytes. */
	return ZSTD_findFrameCompressedSize(io->src, io->src_bytes) == io->src_bytes;
}

static int zstd_decode(struct ckf_codec_ctx *ctx, const struct ckf_codec_io *io)
{
	size_t n;

	if (!ctx)
		return -EINVAL;
	if (!zstd_one_frame(io))
		return -EBADMSG;
	if (!ctx->zstd_decoder)
		ctx->zstd_decoder = ZSTD_createDCtx();
	if (!ctx->zstd_decoder)
		return -ENOMEM;
	n = ZSTD_decompressDCtx(ctx->zstd_decoder, io->dst, io->dst_bytes, io->src, io->src_bytes);
	return n == io->dst_bytes ? 0 : -EBADMSG;
}

const struct ckf_codec_type ckf_codec_zstd = {
	.name = "zstd",
	.min_level = 1,
	.max_level = 19,
	.encode = zstd_encode,
	.decode = zstd_decode,
};
