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

#include "../../convert/ckf_convert.h"
#include "../../convert/encode.h"
#include "dump_maker.h"
#include "img_builder.h"

#define NR_PAGES 64u
#define BYTES ((size_t)NR_PAGES * CKF_PAGE_BYTES)

static int setup(void **state)
{
	struct ckf_worker *w = calloc(1, sizeof(*w));

	if (!w || ckf_codec_ctx_new(&w->codec))
		return -1;
	w->scratch = aligned_alloc(CKF_PAGE_BYTES, CKF_ENCODE_SCRATCH_BYTES);
	*state = w;
	return w->scratch ? 0 : -1;
}

static int teardown(void **state)
{
	struct ckf_worker *w = *state;

	ckf_codec_ctx_free(w->codec);
	free(w->scratch);
	free(w);
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
	struct ckf_encode_opts opts = { .codec = CKF_CODEC_AUTO };

	for (uint32_t p = CKF_PROFILE_RAM; p < CKF_PROFILE_END; p++) {
		ckf_profile_get(p, &opts.storage);
		for (uint32_t what = 0; what < NR_CONTENTS; what++)
			assert_int_equal(chosen(*state, &opts, what), want[p][what]);
	}
}

/* A codec that was asked for is taken where it saves something, whatever the model says. */
static void test_forced(void **state)
{
	struct ckf_encode_opts opts = { .codec = CKF_CODEC_RAW };

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
	assert_true(ckf_model_chunk_ps(&s, CKF_CODEC_RAW, 8192, 8192) == 8192000);
	assert_true(ckf_model_chunk_ps(&s, CKF_CODEC_LZ4, 4097, 8192) == 4097000);
	/* Decoding counts, with half of it for each core. */
	s.bytes_per_s = UINT64_MAX;
	slow = ckf_model_chunk_ps(&s, CKF_CODEC_ZSTD, 8192, 1 << 20);
	assert_true(slow >= (1ull << 20) * 1000000000000 / v->decode[CKF_CODEC_ZSTD] / 2);
	s.nr_cores = 1;
	assert_true(ckf_model_chunk_ps(&s, CKF_CODEC_ZSTD, 8192, 1 << 20) / 2 == slow);
	assert_true(slow > ckf_model_chunk_ps(&s, CKF_CODEC_RAW, 8192, 1 << 20));
	/* The largest chunk at the lowest speed stays below 2^64. */
	s.bytes_per_s = 1;
	assert_true(ckf_model_chunk_ps(&s, CKF_CODEC_RAW, 4 << 20, 4 << 20) ==
		    (4ull << 20) * 1000000000000);
}

static void test_profiles(void **state)
{
	struct ckf_storage s;

	(void)state;
	/* Each disk is its own profile. */
	for (uint32_t p = CKF_PROFILE_NVME; p < CKF_PROFILE_END; p++) {
		ckf_profile_get(p, &s);
		assert_int_equal(ckf_profile_of_disk(s.bytes_per_s), p);
		assert_int_equal(s.profile, p);
		assert_int_equal(s.nr_cores, CKF_MODEL_CORES);
	}
	assert_int_equal(ckf_profile_of_disk(UINT64_MAX), CKF_PROFILE_NVME);
	assert_int_equal(ckf_profile_of_disk(0), CKF_PROFILE_NETWORK);
	assert_string_equal(ckf_profile_name(CKF_PROFILE_NETWORK), "network");
	assert_string_equal(ckf_profile_name(CKF_PROFILE_END), "number");
	assert_string_equal(ckf_profile_name(UINT32_MAX), "number");
}

static void test_restore(void **state)
{
	const struct ckf_speeds *v = &ckf_model_speeds;
	struct ckf_restore_work w;
	struct img_builder b;
	double nothing, core_s = 1 / (double)v->fill + 1 / (double)v->decode[CKF_CODEC_RAW];

	(void)state;
	img_sample(&b);
	assert_int_equal(ckf_model_work(&b.idx, &w), 0);
	assert_int_equal(w.nr_tasks, 3);
	/* Task 2 has 4 pages from task 1 and takes none of them twice. */
	assert_true(w.decoded_bytes[CKF_CODEC_RAW] > 3 * 512 * CKF_PAGE_BYTES);
	/* Two chunks of 512 pages are in two places each, and are read once. */
	assert_true(w.read_bytes > 2 * 512 * CKF_PAGE_BYTES);
	assert_true(w.read_bytes < 3 * 512 * CKF_PAGE_BYTES);
	img_fini(&b);

	w = (struct ckf_restore_work){ .nr_tasks = 1 };
	nothing = ckf_model_restore_s(&w, 1000000000, 2);
	w.decoded_bytes[CKF_CODEC_ZERO] = 1ull << 40;
	assert_true(ckf_model_restore_s(&w, 1000000000, 2) == nothing);
	w.read_bytes = w.decoded_bytes[CKF_CODEC_RAW] = 2000000000;
	assert_true(fabs(ckf_model_restore_s(&w, 1000000000, 2) - nothing - 2) < 1e-6);
	assert_true(fabs(ckf_model_restore_s(&w, UINT64_MAX, 1) - nothing - 2e9 * core_s) < 1e-6);
	assert_true(fabs(ckf_model_restore_s(&w, UINT64_MAX, 2) - nothing - 1e9 * core_s) < 1e-6);
	w.nr_tasks = 9;
	assert_true(ckf_model_restore_s(&w, 1000000000, 2) > nothing + 2);
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
	assert_true(s.profile >= CKF_PROFILE_NVME && s.profile <= CKF_PROFILE_NETWORK);
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
	assert_true(!s.decode[CKF_CODEC_ZERO] && s.fill);
	for (uint32_t c = CKF_CODEC_RAW; c < CKF_CODEC_END; c++)
		assert_true(s.decode[c]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_auto),	   cmocka_unit_test(test_forced),
		cmocka_unit_test(test_chunk_cost), cmocka_unit_test(test_profiles),
		cmocka_unit_test(test_restore),	   cmocka_unit_test(test_measure),
		cmocka_unit_test(test_calibrate),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
