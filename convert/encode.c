/* SPDX-License-Identifier: MIT */
/*
 * The choice of a codec per chunk: by the time that a restore takes, as ckf_model.h has it. A codec
 * that saves next to nothing is not chosen: it would cost time, and raw chunks are read straight
 * into place.
 */
#include <string.h>

#include "ckfast.h"
#include "encode.h"
#include "encode_scratch.h"
#include "prefilter.h"

/* What a codec must save at least: one byte of so many. */
#define SAVE_ONE_OF 32
/* Storage that is slower than this is worth a level of zstd that takes longer to encode. */
#define SLOW_BYTES_PER_S 1000000000ull
#define SLOW_ZSTD_LEVEL 3
#define SMALL_ZSTD_LEVEL 19

/* The best so far. Its bytes are in one half of the scratch, the other one is for the next try. */
struct choice {
	struct ckf_worker *w;
	const struct ckf_encode_opts *opts;
	const uint8_t *data;
	uint32_t nr_pages;
	size_t max_bytes; /* that a codec may need */
	uint8_t codec;
	size_t stored_bytes;
	uint64_t cost;
	uint8_t *stored;
	uint8_t *spare;
};

static size_t chunk_bytes(const struct choice *c)
{
	return (size_t)c->nr_pages * CKF_PAGE_BYTES;
}

/* What the goal has least of. UINT64_MAX: that must not be. */
static uint64_t cost_of(const struct choice *c, uint64_t decode_speed, size_t stored_bytes)
{
	const struct ckf_encode_opts *o = c->opts;

	if (o->goal == CKF_GOAL_SMALL)
		return stored_bytes;
	if (o->goal == CKF_GOAL_FAST_WARM &&
	    !ckf_model_fits_warm(decode_speed, stored_bytes, chunk_bytes(c)))
		return UINT64_MAX;
	return ckf_model_chunk_ps(&o->storage, decode_speed, stored_bytes, chunk_bytes(c));
}

/* Not even nothing to read would make up for decoding. */
static bool is_too_slow(const struct choice *c, uint32_t codec)
{
	return cost_of(c, c->opts->costs->fastest[codec], 0) > c->cost;
}

/* Encodes, and keeps the result if a restore is faster with it, or as fast and reads less. */
static int try_codec(struct choice *c, uint8_t codec, int level)
{
	size_t bytes = chunk_bytes(c);
	uint8_t *spare = c->spare;
	uint64_t speed, cost;
	int64_t n;

	if (is_too_slow(c, codec) || ckf_prefilter_rejects(c->w, codec, c->data, c->nr_pages))
		return 0;
	n = ckf_encode(c->w->codec, codec, level, c->data, bytes, spare, c->max_bytes);
	if (n <= 0)
		return (int)n;
	speed = ckf_decode_costs_speed(c->opts->costs, codec, (uint64_t)n, bytes);
	cost = cost_of(c, speed, (size_t)n);
	if (cost > c->cost || (cost == c->cost && (size_t)n >= c->stored_bytes))
		return 0;
	c->codec = codec;
	c->cost = cost;
	c->stored_bytes = (size_t)n;
	c->spare = c->stored;
	c->stored = spare;
	return 0;
}

/* What decodes fast first: it shows what a slower one has to beat. */
static int choose_auto(struct choice *c)
{
	int level = c->opts->storage.bytes_per_s < SLOW_BYTES_PER_S ? SLOW_ZSTD_LEVEL : 1;
	int ret;

	if (c->opts->goal == CKF_GOAL_SMALL)
		level = SMALL_ZSTD_LEVEL;
	c->cost = cost_of(c, ckf_model_speeds.decode[CKF_CODEC_RAW], chunk_bytes(c));
	ret = try_codec(c, CKF_CODEC_BF16, 0);
	/* zstd makes less of all that LZ4 can. */
	if (!ret && c->opts->goal != CKF_GOAL_SMALL)
		ret = try_codec(c, CKF_CODEC_LZ4, 0);
	if (!ret)
		ret = try_codec(c, CKF_CODEC_ZSTD, level);
	return ret;
}

static int choose(struct choice *c)
{
	int64_t n;

	if (c->opts->codec == CKF_CODEC_RAW)
		return 0;
	if (c->opts->codec == CKF_CODEC_AUTO)
		return choose_auto(c);
	n = ckf_encode(c->w->codec, (uint32_t)c->opts->codec, c->opts->level, c->data,
		       chunk_bytes(c), c->spare, c->max_bytes);
	if (n <= 0)
		return (int)n;
	c->codec = (uint8_t)c->opts->codec;
	c->stored_bytes = (size_t)n;
	c->stored = c->spare;
	return 0;
}

int ckf_encode_chunk(struct ckf_worker *w, const struct ckf_encode_opts *opts, uint8_t *data,
		     uint32_t nr_pages, struct ckf_encoded *out)
{
	size_t bytes = (size_t)nr_pages * CKF_PAGE_BYTES;
	struct choice c = {
		.w = w,
		.opts = opts,
		.data = data,
		.nr_pages = nr_pages,
		.max_bytes = bytes - bytes / SAVE_ONE_OF,
		.codec = CKF_CODEC_RAW,
		.stored_bytes = bytes,
		.stored = w->scratch,
		.spare = w->scratch + CKF_SCRATCH_SECOND_OFF,
	};
	int ret;

	ret = choose(&c);
	if (ret)
		return ret;
	out->codec = c.codec;
	out->stored_bytes = (uint32_t)c.stored_bytes;
	if (c.codec == CKF_CODEC_RAW)
		return 0;
	memcpy(data, c.stored, c.stored_bytes);
	return 0;
}

int ckf_encode_undo(struct ckf_worker *w, uint8_t *data, uint32_t nr_pages, struct ckf_encoded *out)
{
	size_t bytes = (size_t)nr_pages * CKF_PAGE_BYTES;
	int ret = ckf_decode(w->codec, out->codec, data, out->stored_bytes, w->scratch, bytes);

	if (ret)
		return ret;
	memcpy(data, w->scratch, bytes);
	out->codec = CKF_CODEC_RAW;
	out->stored_bytes = (uint32_t)bytes;
	return 0;
}
