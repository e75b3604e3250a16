/* SPDX-License-Identifier: MIT */
/* The model of a restore, and the choice of codecs that follows from it. */
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "ckfast.h"
#include "convert/encode.h"
#include "dump_maker.h"
#include "img_builder.h"

#define NR_PAGES 64u
#define BYTES ((size_t)NR_PAGES * CKF_PAGE_BYTES)

static int setup(void **state)
{
	*state = ckf_worker_new(CKF_ENCODE_SCRATCH_BYTES);
	return *state ? 0 : -1;
}

static int teardown(void **state)
{
	ckf_worker_free(*state);
	return 0;
}

enum content {
	NOISE,
	TEXT,
	WEIGHTS16,
	WEIGHTS32,
	NR_CONTENTS,
};

static void make_content(enum content what, uint8_t *p)
{
	uint64_t seed = 5;

	for (size_t i = 0; i < BYTES; i += 4) {
		uint32_t v = (uint32_t)img_rand(&seed);
		uint32_t exponent = 118 + (uint32_t)__builtin_ctz(v | 1 << 9);

		if (what == TEXT)
			v = 0x20202020 | (v & 0x03030303 & -(v >> 31));
		if (what == WEIGHTS16 || what == WEIGHTS32)
			v = (v & 0x807fffff) | exponent << 23;
		if (what == WEIGHTS16)
			v = (v & 0xffff007f) | exponent << 7;
		memcpy(p + i, &v, sizeof(v));
	}
}

/* Encodes, checks that it comes back, and tells what was taken. */
static uint32_t chosen(struct ckf_worker *w, const struct ckf_encode_opts *opts, enum content what)
{
	uint8_t *src = malloc(BYTES), *data = malloc(BYTES), *back = malloc(BYTES);
	struct ckf_encoded out;
	uint32_t codec;

	assert_true(src && data && back);
	make_content(what, src);
	memcpy(data, src, BYTES);
	assert_int_equal(ckf_encode_chunk(w, opts, data, NR_PAGES, &out), 0);
	assert_true(out.stored_bytes > 0 && out.stored_bytes <= BYTES);
	assert_int_equal(ckf_decode(w->codec, out.codec, data, out.stored_bytes, back, BYTES), 0);
	assert_memory_equal(src, back, BYTES);
	if (out.codec != CKF_CODEC_RAW)
		assert_true(out.stored_bytes <= BYTES - BYTES / 32);
	codec = out.codec;
	free(src);
	free(data);
	free(back);
	return codec;
}

static void test_auto(void **state)
{
	static const uint32_t want[CKF_PROFILE_END][NR_CONTENTS] = {
		[CKF_PROFILE_RAM] = { CKF_CODEC_RAW, CKF_CODEC_RAW, CKF_CODEC_RAW, CKF_CODEC_RAW },
		[CKF_PROFILE_NVME] = { CKF_CODEC_RAW, CKF_CODEC_LZ4, CKF_CODEC_BF16,
				       CKF_CODEC_BF16 },
		[CKF_PROFILE_SSD] = { CKF_CODEC_RAW, CKF_CODEC_ZSTD, CKF_CODEC_BF16,
				      CKF_CODEC_BF16 },
		[CKF_PROFILE_NETWORK] = { CKF_CODEC_RAW, CKF_CODEC_ZSTD, CKF_CODEC_BF16,
					  CKF_CODEC_BF16 },
	};
	struct ckf_decode_costs costs;
	struct ckf_encode_opts opts = {
		.codec = CKF_CODEC_AUTO,
		.goal = CKF_GOAL_FAST,
		.costs = &costs,
	};

	ckf_decode_costs_default(&costs);
	for (uint32_t p = CKF_PROFILE_RAM; p < CKF_PROFILE_END; p++) {
		ckf_profile_get(p, &opts.storage);
		for (uint32_t what = 0; what < NR_CONTENTS; what++)
			assert_int_equal(chosen(*state, &opts, what), want[p][what]);
	}
}

/* From memory too, a codec must not cost much more than raw, however slow the storage. */
static void test_warm(void **state)
{
	struct ckf_decode_costs costs;
	struct ckf_encode_opts opts = { .codec = CKF_CODEC_AUTO, .costs = &costs };

	for (uint32_t p = CKF_PROFILE_RAM; p < CKF_PROFILE_END; p++) {
		ckf_profile_get(p, &opts.storage);
		ckf_decode_costs_default(&costs);
		for (uint32_t what = 0; what < NR_CONTENTS; what++)
			assert_int_equal(chosen(*state, &opts, what), CKF_CODEC_RAW);
		/* Data that decodes as fast as it is copied, as what hardly differs does. */
		for (unsigned int k = 0; k < CKF_DECODE_CLASSES; k++)
			costs.speed[CKF_CODEC_LZ4][k] = 40000000000;
		costs.fastest[CKF_CODEC_LZ4] = 40000000000;
		assert_int_equal(chosen(*state, &opts, TEXT), CKF_CODEC_LZ4);
		assert_int_equal(chosen(*state, &opts, NOISE), CKF_CODEC_RAW);
	}
}

static void test_small(void **state)
{
	struct ckf_encode_opts opts = { .codec = CKF_CODEC_AUTO, .goal = CKF_GOAL_SMALL };
	struct ckf_decode_costs costs;

	ckf_decode_costs_default(&costs);
	opts.costs = &costs;
	assert_int_equal(chosen(*state, &opts, NOISE), CKF_CODEC_RAW);
	assert_int_equal(chosen(*state, &opts, TEXT), CKF_CODEC_ZSTD);
	assert_int_equal(chosen(*state, &opts, WEIGHTS16), CKF_CODEC_BF16);
}

/* This data decodes at a speed that makes a codec a loss where the model's would not. */
static void test_slow_data(void **state)
{
	struct ckf_decode_costs costs;
	struct ckf_encode_opts opts = {
		.codec = CKF_CODEC_AUTO,
		.goal = CKF_GOAL_FAST,
		.costs = &costs,
		.storage = { .bytes_per_s = 3400000000, .nr_cores = 2 },
	};

	ckf_decode_costs_default(&costs);
	assert_int_equal(chosen(*state, &opts, WEIGHTS16), CKF_CODEC_BF16);
	for (unsigned int k = 0; k < CKF_DECODE_CLASSES; k++)
		costs.speed[CKF_CODEC_BF16][k] = 1000000000;
	costs.fastest[CKF_CODEC_BF16] = 1000000000;
	assert_int_equal(chosen(*state, &opts, WEIGHTS16), CKF_CODEC_RAW);
}

static void test_undo(void **state)
{
	static const enum content contents[] = { TEXT, WEIGHTS16 };
	uint8_t *src = malloc(BYTES), *data = malloc(BYTES);
	struct ckf_encode_opts opts = { .codec = CKF_CODEC_ZSTD };
	struct ckf_encoded out;

	assert_true(src && data);
	for (int i = 0; i < 2; i++) {
		make_content(contents[i], src);
		memcpy(data, src, BYTES);
		assert_int_equal(ckf_encode_chunk(*state, &opts, data, NR_PAGES, &out), 0);
		assert_int_equal(out.codec, CKF_CODEC_ZSTD);
		assert_int_equal(ckf_encode_undo(*state, data, NR_PAGES, &out), 0);
		assert_int_equal(out.codec, CKF_CODEC_RAW);
		assert_int_equal(out.stored_bytes, BYTES);
		assert_memory_equal(src, data, BYTES);
	}
	free(src);
	free(data);
}

/* Of the model's data, four chunks are decoded four times each, between two looks at the clock. */
#define LOOKS_PER_MODEL (4 * 4 * 2)

/*
 * A clock that goes on by step_ns each time it is read; disturbed, by 20 times that for three of
 * the model's four chunks.
 */
struct fake_clock {
	uint64_t now_ns;
	uint64_t step_ns;
	bool disturbed;
	unsigned int looks;
};

static uint64_t fake_now(void *arg)
{
	struct fake_clock *f = arg;
	bool slow = f->disturbed && f->looks++ % LOOKS_PER_MODEL < LOOKS_PER_MODEL / 4 * 3;

	f->now_ns += slow ? 20 * f->step_ns : f->step_ns;
	return f->now_ns;
}

/*
 * Each decoding takes one step: four chunks of 64 KiB of the model's data, and one sample that is
 * four times as long. So the model's speed is that of 64 KiB in a step.
 */
static void sample_disturbed(struct ckf_worker *w, struct ckf_decode_costs *c, uint64_t sample_ns,
			     uint64_t model_ns, bool disturbed)
{
	struct fake_clock fake = { .step_ns = sample_ns };
	const struct ckf_clock clock = { .now_ns = fake_now, .arg = &fake };
	uint8_t *data = malloc(BYTES);

	assert_non_null(data);
	make_content(WEIGHTS16, data);
	ckf_decode_costs_default(c);
	assert_int_equal(ckf_decode_costs_sample(c, w, &clock, data, NR_PAGES), 0);
	fake.step_ns = model_ns;
	fake.disturbed = disturbed;
	assert_int_equal(ckf_decode_costs_finish(c, w, &clock), 0);
	free(data);
}

static void sample(struct ckf_worker *w, struct ckf_decode_costs *c, uint64_t sample_ns,
		   uint64_t model_ns)
{
	sample_disturbed(w, c, sample_ns, model_ns, false);
}

static void test_costs(void **state)
{
	const uint64_t model = ckf_model_speeds.decode[CKF_CODEC_BF16];
	const unsigned int k = ckf_decode_class(2, 3);
	struct ckf_decode_costs c, again;

	/* As fast, a third, three times as fast; each to the next step. */
	sample(*state, &c, 4000, 1000);
	assert_true(c.speed[CKF_CODEC_BF16][k] == model);
	sample(*state, &c, 12000, 1000);
	assert_true(c.speed[CKF_CODEC_BF16][k] > model / 4);
	assert_true(c.speed[CKF_CODEC_BF16][k] < model / 10 * 4);
	assert_true(c.fastest[CKF_CODEC_BF16] == model);
	sample(*state, &c, 4000, 3000);
	assert_true(c.speed[CKF_CODEC_BF16][k] > model / 10 * 25);
	assert_true(c.speed[CKF_CODEC_BF16][k] < model * 4);
	assert_true(c.fastest[CKF_CODEC_BF16] == c.speed[CKF_CODEC_BF16][k]);
	/* A little more or less is the same. Classes without samples keep the model's speed. */
	sample(*state, &again, 4150, 3000);
	assert_memory_equal(again.speed, c.speed, sizeof(c.speed));
	assert_true(c.speed[CKF_CODEC_BF16][CKF_DECODE_CLASSES - 1] == model);
	assert_true(c.speed[CKF_CODEC_LZ4][k] == ckf_model_speeds.decode[CKF_CODEC_LZ4]);
	/* Who else runs while three of the model's four chunks are timed makes nothing look fast.
	 */
	sample_disturbed(*state, &c, 4000, 1000, true);
	assert_true(c.speed[CKF_CODEC_BF16][k] == model);
	/* That data decodes twenty times as fast is not believed. */
	sample(*state, &c, 4000, 20000);
	assert_true(c.speed[CKF_CODEC_BF16][k] < model * 4);
	/* A clock that stands still, and one that jumps. */
	sample(*state, &c, 0, 0);
	assert_true(c.speed[CKF_CODEC_BF16][k] == model);
	sample(*state, &c, UINT64_MAX / 64, 1);
	assert_true(c.speed[CKF_CODEC_BF16][k] > 0);
	sample(*state, &c, 1, UINT64_MAX / 64);
	assert_true(c.speed[CKF_CODEC_BF16][k] < UINT64_MAX / 1024);
}

static void test_class(void **state)
{
	(void)state;
	assert_int_equal(ckf_decode_class(4096, 4096), 0);
	assert_int_equal(ckf_decode_class(3000, 4096), 0);
	assert_int_equal(ckf_decode_class(2800, 4096), 1);
	assert_int_equal(ckf_decode_class(2048, 4096), 2);
	assert_int_equal(ckf_decode_class(1, UINT32_MAX), CKF_DECODE_CLASSES - 1);
}

/* A codec that was asked for is taken where it saves something, whatever the model says. */
static void test_forced(void **state)
{
	struct ckf_decode_costs costs;
	struct ckf_encode_opts opts = { .codec = CKF_CODEC_RAW, .costs = &costs };

	ckf_decode_costs_default(&costs);
	ckf_profile_get(CKF_PROFILE_RAM, &opts.storage);
	for (; opts.codec < CKF_CODEC_END; opts.codec++) {
		uint32_t all = (uint32_t)opts.codec;

		assert_int_equal(chosen(*state, &opts, NOISE), CKF_CODEC_RAW);
		assert_int_equal(chosen(*state, &opts, TEXT), all);
	}
}

static void test_chunk_cost(void **state)
{
	const struct ckf_speeds *v = &ckf_model_speeds;
	struct ckf_storage s = { .bytes_per_s = 1000000000, .nr_cores = 2 };
	uint64_t slow;

	(void)state;
	/* Reading counts, byte by byte. */
	assert_true(ckf_model_chunk_ps(&s, v->decode[CKF_CODEC_RAW], 8192, 8192) == 8192000);
	assert_true(ckf_model_chunk_ps(&s, v->decode[CKF_CODEC_LZ4], 4097, 8192) == 4097000);
	/* Decoding counts, with half of it for each core. */
	s.bytes_per_s = UINT64_MAX;
	slow = ckf_model_chunk_ps(&s, v->decode[CKF_CODEC_ZSTD], 8192, 1 << 20);
	assert_true(slow >= (1ull << 20) * 1000000000000 / v->decode[CKF_CODEC_ZSTD] / 2);
	s.nr_cores = 1;
	assert_true(ckf_model_chunk_ps(&s, v->decode[CKF_CODEC_ZSTD], 8192, 1 << 20) / 2 == slow);
	assert_true(slow > ckf_model_chunk_ps(&s, v->decode[CKF_CODEC_RAW], 8192, 1 << 20));
	/* The largest chunk at the lowest speed stays below 2^64. */
	s.bytes_per_s = 1;
	assert_true(ckf_model_chunk_ps(&s, v->decode[CKF_CODEC_RAW], 4 << 20, 4 << 20) ==
		    (4ull << 20) * 1000000000000);
}

static void test_profiles(void **state)
{
	struct ckf_storage s;

	(void)state;
	for (uint32_t p = CKF_PROFILE_NVME; p < CKF_PROFILE_END; p++) {
		ckf_profile_get(p, &s);
		assert_int_equal(s.profile, p);
		assert_int_equal(s.nr_cores, CKF_MODEL_CORES);
	}
	/* Half an octave apart; each step is its own. */
	assert_true(ckf_storage_round(0) == 1);
	assert_true(ckf_storage_round(UINT64_MAX) >= 1000000000000000000);
	for (uint64_t v = 1000; v < 8000000000; v = v * 5 / 4) {
		uint64_t step = ckf_storage_round(v);

		assert_true(step <= v + v / 5 && step >= v - v / 5);
		assert_true(ckf_storage_round(step + step / 20) == step);
		assert_true(ckf_storage_round(step - step / 20) == step);
	}
	assert_string_equal(ckf_profile_name(CKF_PROFILE_NETWORK), "network");
	assert_string_equal(ckf_profile_name(CKF_PROFILE_END), "number");
	assert_string_equal(ckf_profile_name(UINT32_MAX), "number");
}

static void test_restore(void **state)
{
	const struct ckf_speeds *v = &ckf_model_speeds;
	struct ckf_restore_work w;
	const struct ckf_storage disk = { .bytes_per_s = 1000000000 };
	const struct ckf_storage quick = { .bytes_per_s = UINT64_MAX };
	struct ckf_storage ram;
	struct img_builder b;
	double nothing, core_s = 1 / (double)v->fill + 1 / (double)v->decode[CKF_CODEC_RAW];

	(void)state;
	ckf_profile_get(CKF_PROFILE_RAM, &ram);
	img_sample(&b);
	assert_int_equal(ckf_model_work(&b.idx, &w), 0);
	assert_int_equal(w.nr_tasks, 3);
	/* Task 2 has 4 pages from task 1 and takes none of them twice. */
	assert_true(w.decoded_bytes[CKF_CODEC_RAW] > 3 * 512 * CKF_PAGE_BYTES);
	/* Two chunks of 512 pages are in two places each, and are read once. */
	assert_true(w.read_bytes > 2 * 512 * CKF_PAGE_BYTES);
	assert_true(w.read_bytes < 3 * 512 * CKF_PAGE_BYTES);
	/* But copied for each place. */
	assert_true(w.copied_bytes > 3 * 512 * CKF_PAGE_BYTES);
	img_fini(&b);

	w = (struct ckf_restore_work){ 0 };
	nothing = ckf_model_fill_s(v, &w, &disk, 2);
	w.decoded_bytes[CKF_CODEC_ZERO] = 1ull << 40;
	assert_true(ckf_model_fill_s(v, &w, &disk, 2) == nothing);
	w.read_bytes = w.decoded_bytes[CKF_CODEC_RAW] = 2000000000;
	assert_true(fabs(ckf_model_fill_s(v, &w, &disk, 2) - nothing - 2) < 1e-6);
	assert_true(fabs(ckf_model_fill_s(v, &w, &quick, 1) - nothing - 2e9 * core_s) < 1e-6);
	assert_true(fabs(ckf_model_fill_s(v, &w, &quick, 2) - nothing - 1e9 * core_s) < 1e-6);
	/* Out of the page cache the same cores copy, each time that it is wanted. */
	w.copied_bytes = 4000000000;
	assert_true(fabs(ckf_model_fill_s(v, &w, &ram, 2) - nothing - 1e9 * core_s -
			 2e9 / (double)v->copy) < 1e-6);
	assert_true(fabs(ckf_model_fill_s(v, &w, &quick, 2) - nothing - 1e9 * core_s) < 1e-6);
	/* A task costs a part of a process, and more than one where the CPUs are few. */
	nothing = ckf_model_tasks_s(2, 0.001, 64);
	assert_true(ckf_model_tasks_s(3, 0.001, 64) - nothing > 0.0001);
	assert_true(ckf_model_tasks_s(3, 0.001, 64) - nothing < 0.001);
	assert_true(ckf_model_tasks_s(3, 0.001, 1) - ckf_model_tasks_s(2, 0.001, 1) > 0.002);
	assert_true(ckf_model_tasks_s(2, 0.01, 64) > nothing);
	/* The first child waits for its parent, however many CPUs there are. */
	assert_true(nothing - ckf_model_tasks_s(1, 0.001, 64) > 0.002);
	/* Files of CRIU come from the storage, too, unless all is in memory. */
	w.nr_files = 0;
	nothing = ckf_model_cold_s(&w, &disk);
	assert_true(nothing > 0.01 && nothing < 0.1);
	w.nr_files = 6000;
	assert_true(ckf_model_cold_s(&w, &disk) - nothing > 0.1);
	assert_true(ckf_model_cold_s(&w, &ram) == 0);
}

static void test_measure(void **state)
{
	struct ckf_storage s = { 0 };
	char path[64];
	int dir, nr = 0;
	bool measured;
	DIR *d;

	(void)state;
	dm_tempdir(path);
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(dir >= 0);
	measured = ckf_storage_measure(dir, &s);
	assert_int_equal(measured, s.measured);
	assert_true(s.bytes_per_s && s.nr_cores);
	assert_int_equal(s.profile, measured ? CKF_PROFILE_NUMBER : CKF_PROFILE_NVME);
	close(dir);
	d = opendir(path);
	while (readdir(d))
		nr++;
	closedir(d);
	assert_int_equal(nr, 2); /* . and .. */
	/* No directory: nothing is known. */
	assert_false(ckf_storage_measure(-1, &s));
	assert_int_equal(s.profile, CKF_PROFILE_NVME);
	assert_false(s.measured);
	assert_false(ckf_storage_is_ram(-1));
	dm_remove(path);
}

static void test_calibrate(void **state)
{
	struct ckf_speeds s;

	(void)state;
	assert_int_equal(ckf_calibrate(&s, NULL), 0);
	assert_true(!s.decode[CKF_CODEC_ZERO] && s.fill && s.copy);
	for (uint32_t c = CKF_CODEC_RAW; c < CKF_CODEC_END; c++)
		assert_true(s.decode[c]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_auto),	   cmocka_unit_test(test_forced),
		cmocka_unit_test(test_warm),	   cmocka_unit_test(test_small),
		cmocka_unit_test(test_slow_data),  cmocka_unit_test(test_undo),
		cmocka_unit_test(test_costs),	   cmocka_unit_test(test_class),
		cmocka_unit_test(test_chunk_cost), cmocka_unit_test(test_profiles),
		cmocka_unit_test(test_restore),	   cmocka_unit_test(test_measure),
		cmocka_unit_test(test_calibrate),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
