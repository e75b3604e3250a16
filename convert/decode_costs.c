/* SPDX-License-Identifier: MIT */
/* How fast the data at hand decodes: ckf_decode_costs.h says how that is found out. */
#include <errno.h>
#include <string.h>

#include "base/ckf_threads.h"
#include "ckf_decode_costs.h"
#include "encode_scratch.h"
#include "prefilter.h"

#define ROUNDS 4
/* Of the data that the model's speeds are for: as long as a sample, for the same caches. */
#define MODEL_CHUNKS 4
#define MODEL_BYTES CKF_SCRATCH_SAMPLE_BYTES
/* One of these to the next: the fourth root of 2, in 1/1024. */
#define STEP 1218u
#define ONE 1024u
/* Data that differs by more than this is not believed to. That it decodes quickly less than that it
 * does not: a codec that turns out slow costs every restore, raw chunks never do. */
#define MAX_STEPS_SLOWER 16
#define MAX_STEPS_FASTER 7

static uint64_t real_now(void *arg)
{
	(void)arg;
	return ckf_cpu_ns();
}

const struct ckf_clock ckf_clock_real = { .now_ns = real_now };

unsigned int ckf_decode_class(uint64_t stored_bytes, uint64_t decoded_bytes)
{
	/* Squares, so that half an octave is a factor of 2. Chunks have less than 2^32 bytes. */
	uint64_t stored = stored_bytes * stored_bytes, decoded = decoded_bytes * decoded_bytes;
	unsigned int n = 0;

	while (n < CKF_DECODE_CLASSES - 1 && stored <= decoded / 2) {
		decoded /= 2;
		n++;
	}
	return n;
}

uint64_t ckf_decode_costs_speed(const struct ckf_decode_costs *c, uint32_t codec,
				uint64_t stored_bytes, uint64_t decoded_bytes)
{
	return c->speed[codec][ckf_decode_class(stored_bytes, decoded_bytes)];
}

int ckf_decode_time(struct ckf_codec_ctx *codecs, const struct ckf_clock *clock, uint32_t codec,
		    const void *stored, size_t stored_bytes, void *dst, size_t decoded_bytes,
		    uint64_t *ns)
{
	volatile uint64_t sink;
	int ret = 0;

	*ns = UINT64_MAX;
	for (int i = 0; i < ROUNDS && !ret; i++) {
		uint64_t start = clock->now_ns(clock->arg), took;

		ret = ckf_decode(codecs, codec, stored, stored_bytes, dst, decoded_bytes);
		sink = ckf_hash64(dst, decoded_bytes);
		took = clock->now_ns(clock->arg) - start;
		if (took < *ns)
			*ns = took;
	}
	(void)sink;
	return ret;
}

static int add_sample(struct ckf_decode_class *to, struct ckf_worker *w,
		      const struct ckf_clock *clock, uint32_t codec, const uint8_t *data,
		      size_t bytes)
{
	uint8_t *stored = w->scratch, *dst = stored + CKF_SCRATCH_SECOND_OFF;
	int64_t n = ckf_encode(w->codec, codec, 0, data, bytes, stored, bytes - 1);
	uint64_t ns;
	int ret;

	if (n <= 0)
		return (int)n;
	ret = ckf_decode_time(w->codec, clock, codec, stored, (size_t)n, dst, bytes, &ns);
	if (ret)
		return ret;
	to += ckf_decode_class((uint64_t)n, bytes);
	to->bytes += bytes;
	to->ns += ns;
	return 0;
}

int ckf_decode_costs_sample(struct ckf_decode_costs *c, struct ckf_worker *w,
			    const struct ckf_clock *clock, const uint8_t *data, uint32_t nr_pages)
{
	size_t bytes = (size_t)nr_pages * CKF_PAGE_BYTES;
	int ret = 0;

	for (uint32_t codec = CKF_CODEC_LZ4; codec < CKF_CODEC_END && !ret; codec++) {
		if (ckf_prefilter_rejects(w, codec, data, nr_pages))
			continue;
		ret = add_sample(c->classes[codec], w, clock, codec, data, bytes);
	}
	return ret;
}

static void find_fastest(struct ckf_decode_costs *c)
{
	for (uint32_t codec = 0; codec < CKF_CODEC_END; codec++) {
		c->fastest[codec] = 0;
		for (unsigned int k = 0; k < CKF_DECODE_CLASSES; k++) {
			if (c->speed[codec][k] > c->fastest[codec])
				c->fastest[codec] = c->speed[codec][k];
		}
	}
}

void ckf_decode_costs_default(struct ckf_decode_costs *c)
{
	memset(c, 0, sizeof(*c));
	for (uint32_t codec = CKF_CODEC_RAW; codec < CKF_CODEC_END; codec++) {
		for (unsigned int k = 0; k < CKF_DECODE_CLASSES; k++)
			c->speed[codec][k] = ckf_model_speeds.decode[codec];
	}
	find_fastest(c);
}

static bool is_faster(const struct ckf_decode_class *a, const struct ckf_decode_class *b)
{
	return !b->ns || (double)a->bytes * (double)b->ns > (double)b->bytes * (double)a->ns;
}

/*
 * The data that the model's speed is of, decoded here. All of it is alike: the chunk that decodes
 * fastest is the one that nothing got in the way of.
 */
static int sample_model(struct ckf_worker *w, const struct ckf_clock *clock, uint32_t codec,
			struct ckf_decode_class *best)
{
	uint8_t *data = w->scratch + CKF_SCRATCH_SAMPLE_OFF;
	uint64_t seed = 1;
	int ret = 0;

	*best = (struct ckf_decode_class){ 0 };
	for (int i = 0; i < MODEL_CHUNKS && !ret; i++) {
		struct ckf_decode_class by_class[CKF_DECODE_CLASSES] = { 0 };

		ckf_calibrate_data(codec, data, MODEL_BYTES, &seed);
		ret = add_sample(by_class, w, clock, codec, data, MODEL_BYTES);
		for (unsigned int k = 0; k < CKF_DECODE_CLASSES; k++)
			if (by_class[k].ns && is_faster(&by_class[k], best))
				*best = by_class[k];
	}
	return ret;
}

/* speed times what the data is to the model's, rounded to a step. */
static uint64_t scale(uint64_t speed, const struct ckf_decode_class *data,
		      const struct ckf_decode_class *model)
{
	double ratio = (double)data->bytes / (double)data->ns * (double)model->ns /
		       (double)model->bytes;
	const double step = (double)STEP / ONE, half = (double)(STEP + ONE) / (2 * ONE);

	for (int i = 0; i < MAX_STEPS_FASTER && ratio > half; i++) {
		ratio /= step;
		speed = speed * STEP / ONE;
	}
	for (int i = 0; i < MAX_STEPS_SLOWER && ratio < 1 / half; i++) {
		ratio *= step;
		speed = speed * ONE / STEP;
	}
	return speed;
}

int ckf_decode_costs_finish(struct ckf_decode_costs *c, struct ckf_worker *w,
			    const struct ckf_clock *clock)
{
	struct ckf_decode_class model;
	int ret = 0;

	for (uint32_t codec = CKF_CODEC_LZ4; codec < CKF_CODEC_END && !ret; codec++) {
		model = (struct ckf_decode_class){ 0 };
		for (unsigned int k = 0; k < CKF_DECODE_CLASSES && !ret; k++) {
			const struct ckf_decode_class *data = &c->classes[codec][k];

			if (data->ns && !model.ns)
				ret = sample_model(w, clock, codec, &model);
			if (data->ns && model.ns && !ret)
				c->speed[codec][k] = scale(ckf_model_speeds.decode[codec], data,
							   &model);
		}
	}
	find_fastest(c);
	return ret;
}
