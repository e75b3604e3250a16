/* SPDX-License-Identifier: MIT */
/* Cutting pages into chunks: bounds, zero runs, and that contents alone decide. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "convert/cut.h"
#include "dump_maker.h"

#define MAX_PIECES 65536

struct pieces {
	struct ckf_cut_piece p[MAX_PIECES];
	size_t nr;
};

/* hash 0 stands for a zero page. */
static void cut_all(const uint64_t *hash, size_t nr, struct pieces *out)
{
	struct ckf_cut c;

	ckf_cut_init(&c);
	out->nr = 0;
	for (size_t i = 0; i < nr; i++) {
		out->nr += ckf_cut_page(&c, hash[i], !hash[i], &out->p[out->nr]);
		assert_true(ckf_cut_pending(&c) < CKF_CUT_MAX_PAGES);
	}
	out->nr += ckf_cut_flush(&c, &out->p[out->nr]);
	assert_int_equal(ckf_cut_pending(&c), 0);
}

/* All pages are in a piece, in order, and zero pieces have nothing but zero pages. */
static void check_cover(const uint64_t *hash, size_t nr, const struct pieces *got)
{
	size_t at = 0;

	for (size_t i = 0; i < got->nr; i++) {
		const struct ckf_cut_piece *p = &got->p[i];
		bool all_zero = true;

		assert_in_range(p->nr_pages, 1, CKF_CUT_MAX_PAGES);
		assert_true(at + p->nr_pages <= nr);
		for (size_t k = 0; k < p->nr_pages; k++)
			all_zero &= !hash[at + k];
		assert_int_equal(all_zero, p->zero);
		at += p->nr_pages;
	}
	assert_int_equal(at, nr);
}

static uint64_t random_hash(uint64_t *state)
{
	return ((uint64_t)dm_rand(state) << 32 | dm_rand(state)) | 1ull << 63;
}

static void test_bounds(void **state)
{
	static uint64_t hash[1000];
	static struct pieces got;

	(void)state;
	/* No page ends a chunk: the longest ones. */
	for (size_t i = 0; i < 1000; i++)
		hash[i] = 1;
	cut_all(hash, 1000, &got);
	check_cover(hash, 1000, &got);
	assert_int_equal(got.nr, 4);
	assert_int_equal(got.p[0].nr_pages, 256);
	assert_int_equal(got.p[3].nr_pages, 1000 - 3 * 256);
	/* Every page would: the shortest ones. */
	for (size_t i = 0; i < 1000; i++)
		hash[i] = 64;
	cut_all(hash, 1000, &got);
	check_cover(hash, 1000, &got);
	assert_int_equal(got.p[0].nr_pages, 8);
	assert_int_equal(got.nr, 1000 / 8);
	cut_all(hash, 0, &got);
	assert_int_equal(got.nr, 0);
}

static void test_zero_runs(void **state)
{
	static uint64_t hash[2000];
	static struct pieces got;

	(void)state;
	/* Seven zeros stay in their chunk, eight do not. */
	for (size_t i = 0; i < 100; i++)
		hash[i] = 1;
	memset(hash + 20, 0, 7 * sizeof(*hash));
	memset(hash + 40, 0, 8 * sizeof(*hash));
	cut_all(hash, 100, &got);
	check_cover(hash, 100, &got);
	assert_int_equal(got.nr, 3);
	assert_int_equal(got.p[0].nr_pages, 40);
	assert_true(got.p[1].zero);
	assert_int_equal(got.p[1].nr_pages, 8);
	/* A long run is all cut out, to its last page. */
	memset(hash, 0, sizeof(hash));
	hash[600] = 1;
	cut_all(hash, 602, &got);
	check_cover(hash, 602, &got);
	assert_int_equal(got.nr, 5);
	assert_int_equal(got.p[2].nr_pages, 600 - 512);
	assert_int_equal(got.p[3].nr_pages, 1);
	/* At the end any number is cut out; at the start a few begin the first chunk. */
	hash[600] = 0;
	hash[3] = 1;
	cut_all(hash, 6, &got);
	check_cover(hash, 6, &got);
	assert_int_equal(got.nr, 2);
	assert_int_equal(got.p[0].nr_pages, 4);
	assert_int_equal(got.p[1].nr_pages, 2);
	/* Zeros that would make the chunk too long begin the next one. */
	for (size_t i = 0; i < 600; i++)
		hash[i] = 1;
	memset(hash + 252, 0, 6 * sizeof(*hash));
	cut_all(hash, 600, &got);
	check_cover(hash, 600, &got);
	assert_int_equal(got.p[0].nr_pages, 252);
}

static void test_random(void **state)
{
	static uint64_t hash[20000];
	static struct pieces got;
	uint64_t seed = dm_seed();
	size_t data = 0;

	(void)state;
	for (int round = 0; round < 20; round++) {
		size_t nr = dm_rand(&seed) % 20000;

		for (size_t i = 0; i < nr;) {
			bool zero = !(dm_rand(&seed) % 3);
			size_t n = 1 + dm_rand(&seed) % (round % 2 ? 20 : 600);

			for (; n && i < nr; n--)
				hash[i++] = zero ? 0 : random_hash(&seed);
		}
		cut_all(hash, nr, &got);
		check_cover(hash, nr, &got);
	}
	for (size_t i = 0; i < 20000; i++)
		hash[i] = random_hash(&seed);
	cut_all(hash, 20000, &got);
	for (size_t i = 0; i < got.nr; i++)
		data += !got.p[i].zero;
	/* 8 pages at least, and 8 more on average. */
	assert_in_range(20000 / data, 12, 20);
}

/* Different pages in front move the borders only up to the first one that both have. */
static void test_shift(void **state)
{
	static uint64_t a[6000], b[6100];
	static struct pieces pa, pb;
	uint64_t seed = dm_seed();
	size_t common = 0, ends[6000];

	(void)state;
	for (size_t i = 0; i < 6000; i++)
		a[i] = b[i + 77] = random_hash(&seed);
	for (size_t i = 0; i < 77; i++)
		b[i] = random_hash(&seed);
	cut_all(a, 6000, &pa);
	cut_all(b, 6077, &pb);
	memset(ends, 0, sizeof(ends));
	for (size_t i = 0, at = 0; i < pa.nr; i++) {
		at += pa.p[i].nr_pages;
		if (at < 6000)
			ends[at] = 1;
	}
	for (size_t i = 0, at = 0; i < pb.nr; i++) {
		at += pb.p[i].nr_pages;
		common += at >= 77 && at - 77 < 6000 && ends[at - 77];
	}
	assert_true(common >= pa.nr / 2);
}

static void test_flush(void **state)
{
	struct ckf_cut_piece p[2];
	struct ckf_cut c;

	(void)state;
	ckf_cut_init(&c);
	assert_int_equal(ckf_cut_flush(&c, p), 0);
	assert_int_equal(ckf_cut_page(&c, 1, false, p), 0);
	assert_int_equal(ckf_cut_page(&c, 0, true, p), 0);
	assert_int_equal(ckf_cut_flush(&c, p), 2);
	assert_int_equal(p[0].nr_pages, 1);
	assert_false(p[0].zero);
	assert_int_equal(p[1].nr_pages, 1);
	assert_true(p[1].zero);
	/* A border in a zero run: what follows is a short run of its own. */
	for (int i = 0; i < 20; i++)
		assert_int_equal(ckf_cut_page(&c, 0, true, p), 0);
	assert_int_equal(ckf_cut_flush(&c, p), 1);
	assert_int_equal(p[0].nr_pages, 20);
	assert_int_equal(ckf_cut_page(&c, 0, true, p), 0);
	assert_int_equal(ckf_cut_page(&c, 1, false, p), 0);
	assert_int_equal(ckf_cut_flush(&c, p), 1);
	assert_int_equal(p[0].nr_pages, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bounds), cmocka_unit_test(test_zero_runs),
		cmocka_unit_test(test_random), cmocka_unit_test(test_shift),
		cmocka_unit_test(test_flush),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
