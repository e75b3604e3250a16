/* SPDX-License-Identifier: MIT */
/*
 * What a codec is to codec.c. To add one: a new codec_<name>.c with its struct ckf_codec_type, a
 * line in the table of codec.c, and its number in include/ckfast.h and SPEC.md. HACKING.md has the
 * whole list.
 */
#ifndef CKF_CODEC_PRIVATE_H
#define CKF_CODEC_PRIVATE_H

#include "ckf_codec.h"

/* A range of bytes to read, and one to write. */
struct ckf_codec_io {
	const void *src;
	size_t src_bytes;
	void *dst;
	size_t dst_bytes;
};

struct ckf_codec_type {
	const char *name;
	int min_level; /* both 0: no levels */
	int max_level;
	/* NULL: not by ckf_encode(). Number of bytes, 0 when dst is too small, or -errno. */
	int64_t (*encode)(struct ckf_codec_ctx *ctx, int level, const struct ckf_codec_io *io);
	/* 0, -EBADMSG unless src gives exactly dst_bytes, or -errno. */
	int (*decode)(struct ckf_codec_ctx *ctx, const struct ckf_codec_io *io);
};

extern const struct ckf_codec_type ckf_codec_zero;
extern const struct ckf_codec_type ckf_codec_raw;
extern const struct ckf_codec_type ckf_codec_lz4;
extern const struct ckf_codec_type ckf_codec_zstd;
extern const struct ckf_codec_type ckf_codec_bf16;

/*
 * A level of zstd for other codecs: no search for repeats, only codes by how often each byte is
 * there.
 */
#define CKF_ZSTD_LITERALS 1000

/* Library state, made when first needed: most contexts only ever decode one codec. */
struct ckf_codec_ctx {
	struct ZSTD_CCtx_s *zstd_encoder;
	struct ZSTD_DCtx_s *zstd_decoder;
	void *lz4hc_state;
	uint8_t *planes; /* of floats, apart */
	size_t planes_bytes;
};

#endif
