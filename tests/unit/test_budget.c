/* SPDX-License-Identifier: MIT */
/* What all fills of a restore may take: workers, memory beside that of the tasks, and ids. */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/ckf_threads.h"
#include "loader/fill.h"
#include "loader/readers.h"

#define MIB ((uint64_t)1 << 20)
#define FAR (1024 * 1024 * MIB)
#define TAKEN (4 * MIB)

/* An image of tasks of so many MiB each, with a lane of the plan for every 4 MiB. */
static void make_sizes(struct ckf_image *img, struct ckf_index *idx, const unsigned int *mib,
		       unsigned int nr)
{
	memset(idx, 0, sizeof(*idx));
	idx->nr_targets = nr;
	idx->max_chunk_pages = 128;
	idx->targets = calloc(nr, sizeof(*idx->targets));
	idx->ops = calloc(nr, sizeof(*idx->ops));
	idx->chunks = calloc(2, sizeof(*idx->chunks));
	assert_true(idx->targets && idx->ops && idx->chunks);
	for (unsigned int i = 0; i < nr; i++) {
		struct ckf_target *t = &idx->targets[i];

		t->kind = CKF_TARGET_TASK;
		t->id = i + 1;
		t->nr_pages = mib[i] * MIB / CKF_PAGE_BYTES;
		t->nr_lanes = mib[i] > 4 ? mib[i] / 4 : 1;
	}
	img->idx = idx;
}

static void free_sizes(struct ckf_index *idx)
{
	free(idx->targets);
	free(idx->ops);
	free(idx->chunks);
}

static struct ckf_budget check(const struct ckf_image *img, uint64_t headroom_bytes,
			       unsigned int asked, unsigned int cpus)
{
	const struct ckf_budget_opts opts = {
		.size = sizeof(opts),
		.headroom_bytes = headroom_bytes,
		.caller_bytes = TAKEN,
		.asked = asked,
		.cpus = cpus,
	};
	struct ckf_budget b = { .size = sizeof(b) };

	assert_int_equal(ckf_budget_check(img, &opts, &b, NULL), 0);
	return b;
}

/* The least headroom with which the budget is no smaller than with any. */
static uint64_t enough(const struct ckf_image *img, unsigned int asked, unsigned int cpus)
{
	struct ckf_budget b = check(img, FAR, asked, cpus);

	assert_false(b.frugal);
	assert_int_equal(b.workers, asked ? asked : cpus);
	b = check(img, b.want_bytes, asked, cpus);
	assert_false(b.frugal);
	assert_int_equal(b.workers, asked ? asked : cpus);
	return b.want_bytes;
}

/* Of the tasks' own memory make_sizes() says nothing, so all of it is what the workers take. */
static void test_budget_sizes(void **state)
{
	static const unsigned int one[] = { 310 }, small[] = { 5 }, none[] = { 0 };
	static const unsigned int cpus[] = { 1, 2, 16, 64 };
	struct ckf_image img = { 0 };
	struct ckf_index idx;
	struct ckf_budget b;
	bool cached = true;

	(void)state;
	make_sizes(&img, &idx, one, 1);
	/* 310 MiB are worth 19 workers: no more are reckoned with on any number of CPUs. */
	assert_true(enough(&img, 0, 64) == enough(&img, 0, 19));
	assert_in_range(enough(&img, 0, 64), 19 * 8 * MIB, 19 * 16 * MIB);
	for (unsigned int i = 0; i + 1 < 3; i++)
		assert_true(enough(&img, 0, cpus[i]) < enough(&img, 0, cpus[i + 1]));
	/* Those that were asked for are as many as there are lanes. */
	assert_true(enough(&img, 4, 64) == enough(&img, 0, 4));
	assert_true(enough(&img, 1000, 1) == enough(&img, 77, 1));
	for (unsigned int i = 0; i < 4; i++) {
		/* A byte less, and there is a worker less. */
		b = check(&img, enough(&img, 0, cpus[i]) - 1, 0, cpus[i]);
		assert_int_equal(b.workers, cpus[i] < 19 ? (cpus[i] > 1 ? cpus[i] - 1 : 1) : 18);
		assert_int_equal(b.frugal, cpus[i] == 1);
		b = check(&img, enough(&img, 0, 1), 0, cpus[i]);
		assert_int_equal(b.workers, 1);
		assert_false(b.frugal);
		b = check(&img, TAKEN, 0, cpus[i]);
		assert_int_equal(b.workers, 1);
		assert_true(b.frugal);
	}
	/* From the page cache a worker reads once at a time: one fits where eight reads would not.
	 */
	img.cached = &cached;
	assert_in_range(enough(&img, 0, 2) - enough(&img, 0, 1), 4 * MIB, 7 * MIB);
	b = check(&img, enough(&img, 0, 1), 0, 64);
	assert_false(b.frugal);
	cached = false;
	b = check(&img, TAKEN + 7 * MIB, 0, 64);
	assert_true(b.frugal);
	img.cached = NULL;
	b = check(&img, FAR, 0, 0);
	assert_int_equal(b.workers, ckf_cpus());
	free_sizes(&idx);
	make_sizes(&img, &idx, small, 1);
	assert_true(enough(&img, 0, 64) == TAKEN + 5 * MIB);
	free_sizes(&idx);
	make_sizes(&img, &idx, none, 1);
	assert_true(enough(&img, 0, 64) == TAKEN);
	free_sizes(&idx);
}

/* Each task has one worker, small ones a small one; the others are shared. */
static void test_budget_tree(void **state)
{
	static const unsigned int tree[] = { 1, 1, 1, 64, 1, 1 };
	struct ckf_image img = { 0 };
	struct ckf_index idx;
	uint64_t first, each;

	(void)state;
	make_sizes(&img, &idx, tree, 6);
	first = enough(&img, 0, 1);
	each = enough(&img, 0, 2) - first;
	assert_true(first == TAKEN + 5 * MIB + each);
	assert_true(enough(&img, 0, 64) == first + 3 * each);
	free_sizes(&idx);
}

static void test_spare(void **state)
{
	static const unsigned int one[] = { 310 };
	struct ckf_image img = { 0 };
	struct ckf_index idx;
	uint64_t want;

	(void)state;
	make_sizes(&img, &idx, one, 1);
	want = enough(&img, 0, 2);
	assert_true(check(&img, want + 7, 0, 2).spare_bytes == 7);
	assert_true(check(&img, want, 0, 2).spare_bytes == 0);
	assert_true(check(&img, want - 7, 0, 2).spare_bytes == 0);
	free_sizes(&idx);
}

/* The least of what several cgroups leave. */
static void test_lower(void **state)
{
	const struct ckf_budget wide = { .workers = 8, .spare_bytes = 100 };
	const struct ckf_budget few = { .workers = 3, .spare_bytes = 200 };
	const struct ckf_budget tight = { .workers = 5, .spare_bytes = 10, .frugal = 1 };
	struct ckf_budget all = { 0 };

	(void)state;
	ckf_budget_lower(&all, &wide);
	assert_int_equal(all.workers, 8);
	assert_int_equal(all.spare_bytes, 100);
	assert_int_equal(all.frugal, 0);
	ckf_budget_lower(&all, &few);
	assert_int_equal(all.workers, 3);
	assert_int_equal(all.spare_bytes, 100);
	ckf_budget_lower(&all, &tight);
	assert_int_equal(all.workers, 3);
	assert_int_equal(all.spare_bytes, 10);
	assert_int_equal(all.frugal, 1);
	ckf_budget_lower(&all, &wide);
	assert_int_equal(all.workers, 3);
	assert_int_equal(all.spare_bytes, 10);
	assert_int_equal(all.frugal, 1);
}

static void test_take_spare(void **state)
{
	struct ckf_budget all = { .spare_bytes = 100 };

	(void)state;
	assert_true(ckf_budget_take_spare(&all, 60));
	assert_false(ckf_budget_take_spare(&all, 41));
	assert_true(ckf_budget_take_spare(&all, 40));
	assert_int_equal(all.spare_bytes, 0);
	assert_false(ckf_budget_take_spare(&all, 1));
	assert_true(ckf_budget_take_spare(&all, 0));
}

static void test_workers(void **state)
{
	const struct ckf_budget all = { .workers = 6 };

	(void)state;
	assert_int_equal(ckf_budget_workers(&all, 4, 0, CKF_UNLIMITED, 10), 4);
	assert_int_equal(ckf_budget_workers(&all, 9, 0, CKF_UNLIMITED, 10), 6);
	assert_int_equal(ckf_budget_workers(&all, 9, 4, CKF_UNLIMITED, 10), 2);
	assert_int_equal(ckf_budget_workers(&all, 9, 6, CKF_UNLIMITED, 10), 0);
	assert_int_equal(ckf_budget_workers(&all, 9, 7, CKF_UNLIMITED, 10), 0);
	/* The tree comes first, and those that are busy have theirs already. */
	assert_int_equal(ckf_budget_workers(&all, 9, 0, 13, 10), 3);
	assert_int_equal(ckf_budget_workers(&all, 9, 2, 13, 10), 1);
	assert_int_equal(ckf_budget_workers(&all, 9, 3, 13, 10), 0);
	assert_int_equal(ckf_budget_workers(&all, 9, 0, 10, 10), 0);
	assert_int_equal(ckf_budget_workers(&all, 9, 0, 0, 10), 0);
	assert_int_equal(ckf_budget_workers(&all, 9, 5, 2, 0), 0);
}

static void test_far_id(void **state)
{
	static const int ids[] = { 7, 400, 1000, 1000, 1002 };

	(void)state;
	assert_int_equal(ckf_far_id(NULL, 0, 32767), 300 + 32467 / 2);
	assert_int_equal(ckf_far_id(ids, 5, 32767), 1002 + 31765 / 2);
	assert_int_equal(ckf_far_id(ids, 5, 1100), 400 + 600 / 2);
	/* Of two gaps that are as wide, the first. */
	assert_int_equal(ckf_far_id(ids, 2, 500), 300 + 100 / 2);
	assert_int_equal(ckf_far_id(NULL, 0, 300), 0);
	assert_int_equal(ckf_far_id(ids, 1, 10), 0);
}

static bool is_direct(bool many, uint32_t flags, bool cached)
{
	struct ckf_index idx = { .nr_bases = 0 };
	const struct ckf_image img = { .idx = &idx, .cached = &cached, .many_readers = many };
	struct ckf_packs_io io;

	assert_int_equal(ckf_packs_choose(&img, -1, flags, &io, NULL), 0);
	assert_int_equal(io.no_ahead, !!(flags & CKF_FILL_FRUGAL));
	return io.direct[0];
}

/* Where memory is short, reads are direct only if there are as many as keep a disk busy. */
static void test_direct(void **state)
{
	(void)state;
	for (int many = 0; many < 2; many++) {
		assert_true(is_direct(many, 0, false));
		assert_false(is_direct(many, 0, true));
		assert_false(is_direct(many, CKF_FILL_NO_DIRECT, false));
		assert_int_equal(is_direct(many, CKF_FILL_FRUGAL, false), many);
		assert_false(is_direct(many, CKF_FILL_FRUGAL, true));
		assert_false(is_direct(many, CKF_FILL_FRUGAL | CKF_FILL_NO_DIRECT, false));
	}
}

/* Whether tasks that read so many MiB each are many readers. Of those whose bit is set in odd, all
 * is the parent's, or zeros. */
static bool are_many(const unsigned int *mib, unsigned int nr, unsigned int odd, bool zeros)
{
	struct ckf_index idx;
	struct ckf_image img;
	bool many;

	make_sizes(&img, &idx, mib, nr);
	idx.chunks[0].codec = zeros ? CKF_CODEC_ZERO : CKF_CODEC_RAW;
	idx.chunks[1].codec = CKF_CODEC_RAW;
	for (unsigned int i = 0; i < nr; i++) {
		const bool is_odd = odd & 1u << i;

		idx.ops[i].place = is_odd && !zeros ? CKF_OP_INHERIT : 0;
		idx.ops[i].chunk = !is_odd;
		idx.ops[i].nr_pages = (uint16_t)(mib[i] * MIB / CKF_PAGE_BYTES);
		idx.targets[i].first_op = i;
		idx.targets[i].nr_ops = 1;
	}
	many = ckf_many_readers(&idx);
	free_sizes(&idx);
	return many;
}

static void test_readers(void **state)
{
	static const unsigned int even[] = { 32, 32, 32, 32 }, large[] = { 128, 32, 32, 32, 32 };

	(void)state;
	for (unsigned int nr = 1; nr <= 4; nr++)
		assert_int_equal(are_many(even, nr, 0, false), nr > 2);
	assert_false(are_many(large, 5, 0, false));
	for (int zeros = 0; zeros < 2; zeros++) {
		assert_true(are_many(even, 4, 1, zeros));
		assert_false(are_many(even, 4, 3, zeros));
		assert_false(are_many(even, 4, 15, zeros));
		/* The large one is none. */
		assert_true(are_many(large, 5, 1, zeros));
	}
}

/* Fills that are small read through the page cache, and do not count. */
static void test_small_readers(void **state)
{
	static const unsigned int mib[] = { 8, 8, 8, 8 };
	struct ckf_index idx;
	struct ckf_image img;

	(void)state;
	make_sizes(&img, &idx, mib, 4);
	idx.chunks[0].codec = CKF_CODEC_RAW;
	for (uint16_t nr = 128; nr < 130; nr++) {
		for (unsigned int i = 0; i < 4; i++) {
			idx.ops[i].nr_pages = nr;
			idx.targets[i].first_op = i;
			idx.targets[i].nr_ops = 1;
		}
		assert_int_equal(ckf_many_readers(&idx), nr > 128);
	}
	free_sizes(&idx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_budget_sizes), cmocka_unit_test(test_budget_tree),
		cmocka_unit_test(test_spare),	     cmocka_unit_test(test_lower),
		cmocka_unit_test(test_take_spare),   cmocka_unit_test(test_workers),
		cmocka_unit_test(test_far_id),	     cmocka_unit_test(test_readers),
		cmocka_unit_test(test_direct),	     cmocka_unit_test(test_small_readers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
