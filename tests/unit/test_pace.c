/* SPDX-License-Identifier: MIT */
/*
 * pace.h: a machine is made up, in which a huge page and as much in small ones cost what the test
 * says, and what a fill would spend is compared with what it would have spent with small pages, or
 * huge ones, alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/ckf_threads.h"
#include "base/ckf_types.h"
#include "loader/pace.h"

#define WARM_HUGE 95000
#define COLD_HUGE 3500000
#define WARM_SMALL 250000
#define COLD_SMALL 4000000

struct cost {
	uint64_t ns[FILL_NR_WAYS];
};

struct sums {
	uint64_t spent;
	unsigned int nr[FILL_NR_WAYS];
};

/* Small pages are told about in pieces, one of four. */
static void tell_small(struct fill_pace *p, uint64_t ns)
{
	for (unsigned int i = 0; i < 8; i++)
		fill_pace_tell(p, FILL_WAY_SMALL, CKF_HUGE_BYTES / 8, ns / 8);
}

static void run(struct fill_pace *p, const struct cost *c, unsigned int segs, struct sums *s)
{
	for (unsigned int i = 0; i < segs; i++) {
		enum fill_way way = fill_pace_choose(p);

		if (way == FILL_WAY_SMALL)
			tell_small(p, c->ns[way]);
		else
			fill_pace_tell(p, way, CKF_HUGE_BYTES, c->ns[way]);
		s->spent += c->ns[way];
		s->nr[way]++;
	}
}

/* Memory is there: nothing but huge pages, and nothing is tried. */
static void test_warm(void **state)
{
	const struct cost c = { { WARM_HUGE, WARM_SMALL } };
	struct fill_pace p = { 0 };
	struct sums s = { 0 };

	(void)state;
	/* Small pages elsewhere in the fill are no reason. */
	tell_small(&p, WARM_HUGE / 2);
	run(&p, &c, 4096, &s);
	assert_int_equal(s.nr[FILL_WAY_SMALL], 0);
}

/* The host has to give each huge page: small ones, but for a few percent of the time. */
static void test_cold(void **state)
{
	const struct cost c = { { COLD_HUGE, WARM_SMALL } };
	struct fill_pace p = { 0 };
	struct sums s = { 0 };

	(void)state;
	run(&p, &c, 2, &s);
	assert_int_equal(s.nr[FILL_WAY_HUGE], 1);
	run(&p, &c, 4094, &s);
	assert_in_range(s.nr[FILL_WAY_HUGE], 2, 16);
	assert_in_range(s.spent, 0, 4096ull * WARM_SMALL / 100 * 105);
}

/* A small fill loses one huge page, and no more. */
static void test_cold_small_fill(void **state)
{
	const struct cost c = { { COLD_HUGE, WARM_SMALL } };
	struct fill_pace p = { 0 };
	struct sums s = { 0 };

	(void)state;
	run(&p, &c, 200, &s);
	assert_int_equal(s.nr[FILL_WAY_HUGE], 1);
}

/* What lies ready runs out, first for huge pages, then for small ones, and comes again. */
static void test_streaks(void **state)
{
	static const struct cost turns[] = {
		{ { WARM_HUGE, WARM_SMALL } }, { { COLD_HUGE, WARM_SMALL } },
		{ { COLD_HUGE, COLD_SMALL } }, { { COLD_HUGE, WARM_SMALL } },
		{ { WARM_HUGE, COLD_SMALL } }, { { WARM_HUGE, WARM_SMALL } },
	};
	const unsigned int segs = 300;
	uint64_t best = 0, small = 0;
	struct fill_pace p = { 0 };
	struct sums s = { 0 };

	(void)state;
	for (unsigned int i = 0; i < sizeof(turns) / sizeof(*turns); i++) {
		const uint64_t *ns = turns[i].ns;

		best += segs * (ns[0] < ns[1] ? ns[0] : ns[1]);
		small += segs * ns[FILL_WAY_SMALL];
		run(&p, &turns[i], segs, &s);
	}
	assert_in_range(s.spent, best, best / 100 * 110);
	assert_in_range(s.spent, 0, small);
}

/* Where huge pages are neither cheap nor slow, the small ones are looked at, and the better way
 * taken. */
static void test_between(void **state)
{
	static const struct cost costs[] = { { { 500000, 900000 } },
					     { { 900000, 500000 } },
					     { { 500000, 500000 } } };
	static const enum fill_way want[] = { FILL_WAY_HUGE, FILL_WAY_SMALL, FILL_WAY_HUGE };

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		struct fill_pace p = { 0 };
		struct sums s = { 0 };
		const uint64_t *ns = costs[i].ns;

		run(&p, &costs[i], 2000, &s);
		assert_true(s.nr[want[i]] > 1400);
		assert_in_range(s.spent, 0, 2000 * (ns[0] < ns[1] ? ns[0] : ns[1]) / 100 * 105);
	}
}

/* Nothing is told of nothing, and costs of 0 are known ones. */
static void test_edges(void **state)
{
	struct fill_pace p = { 0 };

	(void)state;
	fill_pace_tell(&p, FILL_WAY_SMALL, 0, 1000);
	assert_int_equal(atomic_load(&p.ns[FILL_WAY_SMALL]), 0);
	fill_pace_tell(&p, FILL_WAY_SMALL, CKF_HUGE_BYTES, 0);
	assert_int_equal(atomic_load(&p.ns[FILL_WAY_SMALL]), 1);
	fill_pace_tell(&p, FILL_WAY_HUGE, CKF_HUGE_BYTES, COLD_HUGE);
	assert_int_equal(fill_pace_choose(&p), FILL_WAY_SMALL);
	assert_true(ckf_cpu_ns() <= ckf_cpu_ns());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_warm),
		cmocka_unit_test(test_cold),
		cmocka_unit_test(test_cold_small_fill),
		cmocka_unit_test(test_streaks),
		cmocka_unit_test(test_between),
		cmocka_unit_test(test_edges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
