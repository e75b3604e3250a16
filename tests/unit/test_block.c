/* SPDX-License-Identifier: MIT */
/* What becomes of a whole block when its chunks are encoded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "convert/block.h"
#include "dump_maker.h"

#define NR_PARTS 16u
#define PART_PAGES 16u
#define PART_BYTES ((size_t)PART_PAGES * CKF_PAGE_BYTES)

struct world {
	struct ckf_worker *worker;
	struct ckf_decode_costs costs;
	struct ckf_pipeline_opts opts;
	struct ckf_shared shared;
	struct ckf_block block;
	uint8_t *before;
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	if (!w)
		return -1;
	w->worker = ckf_worker_new(CKF_ENCODE_SCRATCH_BYTES);
	w->before = malloc(NR_PARTS * PART_BYTES);
	w->block.data = aligned_alloc(CKF_PAGE_BYTES, NR_PARTS * PART_BYTES);
	w->block.parts = calloc(NR_PARTS, sizeof(*w->block.parts));
	/* As if all of it decoded as fast as it is copied. */
	ckf_decode_costs_default(&w->costs);
	for (unsigned int k = 0; k < CKF_DECODE_CLASSES; k++)
		w->costs.speed[CKF_CODEC_LZ4][k] = 40000000000;
	w->costs.fastest[CKF_CODEC_LZ4] = 40000000000;
	w->shared.opts = &w->opts;
	w->shared.encode.codec = CKF_CODEC_AUTO;
	w->shared.encode.costs = &w->costs;
	ckf_profile_get(CKF_PROFILE_NVME, &w->shared.encode.storage);
	w->block.s = &w->shared;
	*state = w;
	return w->worker && w->before && w->block.data && w->block.parts ? 0 : -1;
}

static int teardown(void **state)
{
	struct world *w = *state;

	ckf_worker_free(w->worker);
	free(w->before);
	free(w->block.data);
	free(w->block.parts);
	free(w);
	return 0;
}

/* A block of noise, of which every nth chunk is one that shrinks to next to nothing. */
static void encode(struct world *w, unsigned int nth, enum ckf_encode_goal goal)
{
	struct ckf_block *b = &w->block;
	uint64_t seed = 5;

	w->shared.encode.goal = goal;
	b->nr_parts = NR_PARTS;
	b->ret = 0;
	for (size_t i = 0; i < NR_PARTS * PART_BYTES; i++)
		b->data[i] = (uint8_t)dm_rand(&seed);
	for (uint32_t i = 0; i < NR_PARTS; i++) {
		b->parts[i] = (struct ckf_part){
			.first = i * PART_PAGES,
			.nr_pages = PART_PAGES,
			.match = CKF_DEDUP_NONE,
			.rec = CKF_DEDUP_NONE,
			.base = -1,
		};
		if (i % nth == 0)
			memset(b->data + i * PART_BYTES + 1, 7, PART_BYTES - 1);
	}
	memcpy(w->before, b->data, NR_PARTS * PART_BYTES);
	ckf_block_encode(&b->job, w->worker);
	assert_int_equal(b->ret, 0);
}

static unsigned int nr_packed(const struct world *w)
{
	unsigned int n = 0;

	for (uint32_t i = 0; i < NR_PARTS; i++)
		n += w->block.parts[i].stored.codec != CKF_CODEC_RAW;
	return n;
}

/* Few chunks that shrink stay raw, and whole, among those that do not; many do not. */
static void test_smooth(void **state)
{
	struct world *w = *state;

	encode(w, 8, CKF_GOAL_FAST_WARM);
	assert_int_equal(nr_packed(w), 0);
	assert_memory_equal(w->block.data, w->before, NR_PARTS * PART_BYTES);
	encode(w, 2, CKF_GOAL_FAST_WARM);
	assert_int_equal(nr_packed(w), NR_PARTS / 2);
	/* Elsewhere the bytes count. */
	encode(w, 8, CKF_GOAL_FAST);
	assert_int_equal(nr_packed(w), NR_PARTS / 8);
	encode(w, 8, CKF_GOAL_SMALL);
	assert_int_equal(nr_packed(w), NR_PARTS / 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_smooth, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
