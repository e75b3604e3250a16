/* SPDX-License-Identifier: MIT */
/*
 * Codec bf16: floats as planes of bytes, each plane coded apart (SPEC.md 4.2.1).
 *
 * The plane of the exponents shrinks to a third. That of sign and mantissa is as good as random and
 * stays as it is, so that reading it is part of putting the words together. The exponents are coded
 * by zstd without a search for repeats, which leaves Huffman codes alone: what zstd finds in
 * weights are repeats by chance, that cost more time than they save bytes.
 */
#include "codec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "index.h"
#include "ckf_planes.h"

struct disk_plane {
	ckf_le32 stored_bytes;
	uint8_t codec;
	uint8_t reserved[3];
};

struct disk_head {
	uint8_t word_bytes;
	uint8_t reserved[7];
	struct disk_plane planes[]; /* word_bytes of them */
};

static_assert(sizeof(struct disk_plane) == 8, "SPEC.md 4.2.1");
static_assert(sizeof(struct disk_head) == 8, "SPEC.md 4.2.1");

static size_t head_bytes(uint32_t word_bytes)
{
	return sizeof(struct disk_head) + word_bytes * sizeof(struct disk_plane);
}

/* Room for the planes of a chunk; it stays with the context. */
static uint8_t *get_room(struct ckf_codec_ctx *ctx, size_t bytes)
{
	if (ctx->planes_bytes < bytes) {
		free(ctx->planes);
		ctx->planes = malloc(bytes);
		ctx->planes_bytes = ctx->planes ? bytes : 0;
	}
	return ctx->planes;
}

/* Codes one plane to dst, which has room for room bytes. What it took, 0: no room, or -errno. */
static int64_t put_plane(struct ckf_codec_ctx *ctx, const struct ckf_codec_io *io, bool pays,
			 struct disk_plane *head)
{
	struct ckf_codec_io coded = *io;
	int64_t n = 0;

	/* One part in 16 is the least that is worth decoding. */
	if (coded.dst_bytes > io->src_bytes / 16 * 15)
		coded.dst_bytes = io->src_bytes / 16 * 15;
	if (pays && coded.dst_bytes)
		n = ckf_codec_zstd.encode(ctx, CKF_ZSTD_LITERALS, &coded);
	if (n < 0)
		return n;
	head->codec = n ? CKF_CODEC_ZSTD : CKF_CODEC_RAW;
	if (!n) {
		if (io->src_bytes > io->dst_bytes)
			return 0;
		memcpy(io->dst, io->src, io->src_bytes);
		n = (int64_t)io->src_bytes;
	}
	head->stored_bytes = ckf_put32((uint32_t)n);
	return n;
}

static int64_t bf16_encode(struct ckf_codec_ctx *ctx, int level, const struct ckf_codec_io *io)
{
	struct disk_head *head = io->dst;
	uint8_t *planes[CKF_PLANES_MAX], *room = get_room(ctx, io->src_bytes);
	struct ckf_planes_guess guess;
	size_t nr_words, used;

	(void)level;
	if (!room)
		return -ENOMEM;
	ckf_planes_look(io->src, io->src_bytes, &guess);
	used = head_bytes(guess.word_bytes);
	if (guess.bits == CKF_PLANES_BITS(8) || used > io->dst_bytes)
		return 0;
	nr_words = io->src_bytes / guess.word_bytes;
	for (uint32_t p = 0; p < guess.word_bytes; p++)
		planes[p] = room + p * nr_words;
	ckf_planes_best()->split(guess.word_bytes, io->src, nr_words, planes);
	memset(head, 0, used);
	head->word_bytes = (uint8_t)guess.word_bytes;
	for (uint32_t p = 0; p < guess.word_bytes; p++) {
		struct ckf_codec_io plane = { planes[p], nr_words, (uint8_t *)io->dst + used,
					      io->dst_bytes - used };
		int64_t n = put_plane(ctx, &plane, guess.plane_bits[p] < CKF_PLANES_BITS(8),
				      &head->planes[p]);

		if (n <= 0)
			return n;
		used += (size_t)n;
	}
	return (int64_t)used;
}

/* Finds one plane: in src if it is raw there, else decoded into room. */
static int get_plane(struct ckf_codec_ctx *ctx, uint32_t codec, const struct ckf_codec_io *io,
		     const uint8_t **plane)
{
	if (codec == CKF_CODEC_RAW) {
		*plane = io->src;
		return io->src_bytes == io->dst_bytes ? 0 : -EBADMSG;
	}
	*plane = io->dst;
	if (codec != CKF_CODEC_ZSTD || io->src_bytes >= io->dst_bytes)
		return -EBADMSG;
	return ckf_codec_zstd.decode(ctx, io);
}

static int bf16_decode(struct ckf_codec_ctx *ctx, const struct ckf_codec_io *io)
{
	const struct disk_head *head = io->src;
	const uint8_t *planes[CKF_PLANES_MAX];
	size_t nr_words, used, stored;
	uint8_t *room;
	int ret;

	if (!ctx)
		return -EINVAL;
	if (io->src_bytes < sizeof(*head) || (head->word_bytes != 2 && head->word_bytes != 4) ||
	    io->src_bytes < head_bytes(head->word_bytes))
		return -EBADMSG;
	if (!ckf_bytes_zero(head->reserved, sizeof(head->reserved)) || !io->dst_bytes ||
	    io->dst_bytes % CKF_PAGE_BYTES)
		return -EBADMSG;
	used = head_bytes(head->word_bytes);
	nr_words = io->dst_bytes / head->word_bytes;
	room = get_room(ctx, io->dst_bytes);
	if (!room)
		return -ENOMEM;
	for (uint32_t p = 0; p < head->word_bytes; p++) {
		const struct disk_plane *d = &head->planes[p];

		stored = ckf_get32(d->stored_bytes);
		if (!ckf_bytes_zero(d->reserved, sizeof(d->reserved)) ||
		    stored > io->src_bytes - used)
			return -EBADMSG;
		ret = get_plane(ctx, d->codec,
				&(struct ckf_codec_io){ (const uint8_t *)io->src + used, stored,
							room + p * nr_words, nr_words },
				&planes[p]);
		if (ret)
			return ret;
		used += stored;
	}
	if (used != io->src_bytes)
		return -EBADMSG;
	ckf_planes_best()->merge(head->word_bytes, planes, nr_words, io->dst);
	return 0;
}

const struct ckf_codec_type ckf_codec_bf16 = {
	.name = "bf16",
	.encode = bf16_encode,
	.decode = bf16_decode,
};
