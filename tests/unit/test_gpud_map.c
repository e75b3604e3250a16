/* SPDX-License-Identifier: MIT */
/* gpu/daemon/gpud_map.c: which GPU of a machine stands for which GPU of an image. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "gpu/daemon/gpud.h"

#define MIB (1u << 20)

/*
 * GPUs have letters: small ones are of another kind than capital ones, and from x on they have the
 * same name, but more memory.
 */
static void name_gpu(char letter, uint8_t uuid[16], char *name, uint64_t *total)
{
	memset(uuid, letter, 16);
	sprintf(name, letter < 'a' ? "large" : "small");
	*total = (letter < 'x' ? 64 : 128) * MIB;
}

/*
 * image: the GPUs of the dump, with a * behind those that have memory; machine: those that gpud
 * sees. Gives what became of it: "AB" for A that B stands for, "!" when it is refused.
 */
static const char *assigned(const char *image, const char *machine, bool *moved)
{
	struct ckf_gpu_device devices[8] = { 0 };
	struct ckf_gpu_alloc allocs[8] = { 0 };
	struct ckf_cuda_dev devs[8] = { 0 };
	struct ckf_cuda_pool pool = { .devs = devs };
	struct ckf_gpu_dump dump = { .devices = devices, .allocs = allocs }, *dumps[] = { &dump };
	struct ckf_error err = { 0 };
	struct gpud_map map;
	static char out[32];
	char *at = out;

	for (; *machine; machine++) {
		struct ckf_cuda_dev *d = &devs[pool.nr_devs++];

		name_gpu(*machine, d->uuid, d->name, &d->total_bytes);
	}
	for (; *image; image++) {
		struct ckf_gpu_device *d = &devices[dump.nr_devices];

		name_gpu(*image, d->uuid, d->name, &d->total_bytes);
		if (image[1] == '*') {
			allocs[dump.nr_allocs].device = dump.nr_devices;
			allocs[dump.nr_allocs++].bytes = 2 * MIB;
			image++;
		}
		dump.nr_devices++;
	}
	*out = 0;
	*moved = false;
	if (gpud_map_new(&pool, dumps, 1, &map, &err) == -ENODEV) {
		assert_non_null(strstr(err.msg, "none like it is left"));
		return "!";
	}
	for (unsigned int i = 0; i < map.nr; i++) {
		const struct gpud_place *p = &map.places[i];

		if (p->bytes) {
			assert_true(p->found && p->ordinal < pool.nr_devs);
			assert_memory_equal(devs[p->ordinal].uuid, p->new_uuid, 16);
		}
		if (p->found)
			at += sprintf(at, "%s%c%c", i ? " " : "", p->old_uuid[0], p->new_uuid[0]);
	}
	*moved = map.moved;
	gpud_map_free(&map);
	return out;
}

static void test_assign(void **state)
{
	static const struct {
		const char *image, *machine, *want;
		bool moved;
	} cases[] = {
		{ "A*", "A", "AA", false },
		{ "A*B", "BA", "AA BB", false },
		{ "A*B*", "BA", "AA BB", false },
		/* Another machine, also with more than were wanted, or fewer than there were. */
		{ "A*B*", "CD", "AC BD", true },
		{ "A*B", "CDE", "AC BD", true },
		{ "AB*", "C", "AB BC", true },
		/* One is broken, one takes its place. */
		{ "A*B*", "BC", "AC BB", true },
		/* gpud sees only the other one: they change places, also where others stay. */
		{ "A*B", "B", "AB BA", true },
		{ "AB*C", "AC", "AB BA CC", true },
		/* Memory first. */
		{ "AB*", "A", "AB BA", true },
		{ "A*b*", "CD", "!", false },
		{ "A*b*", "dC", "AC bd", true },
		{ "a*", "x", "!", false },
		{ "x*", "a", "!", false },
		{ "x*a*", "by", "xy ab", true },
		{ "A*B*", "B", "!", false },
		{ "A*", "", "!", false },
	};
	bool moved;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_string_equal(assigned(cases[i].image, cases[i].machine, &moved),
				    cases[i].want);
		assert_int_equal(moved, cases[i].moved);
	}
}

/* Two processes had memory of the same GPU: that is one, with what both had. */
static void test_two_dumps(void **state)
{
	struct ckf_gpu_device devices[2] = { 0 };
	struct ckf_gpu_alloc alloc = { .bytes = 2 * MIB };
	struct ckf_cuda_dev devs[2] = { 0 };
	struct ckf_cuda_pool pool = { .devs = devs, .nr_devs = 2 };
	struct ckf_gpu_dump one = { .devices = devices, .nr_devices = 1 };
	struct ckf_gpu_dump two = { .devices = devices, .nr_devices = 2 };
	struct ckf_gpu_dump *dumps[] = { &one, &two };
	struct gpud_map map;

	(void)state;
	one.allocs = two.allocs = &alloc;
	one.nr_allocs = two.nr_allocs = 1;
	for (unsigned int i = 0; i < 2; i++) {
		name_gpu((char)('A' + (int)i), devices[i].uuid, devices[i].name,
			 &devices[i].total_bytes);
		name_gpu((char)('C' + (int)i), devs[i].uuid, devs[i].name, &devs[i].total_bytes);
	}
	assert_int_equal(gpud_map_new(&pool, dumps, 2, &map, NULL), 0);
	assert_int_equal(map.nr, 2);
	assert_int_equal(map.places[0].bytes, 4 * MIB);
	assert_int_equal(map.places[1].bytes, 0);
	assert_int_equal(gpud_map_ordinal(&map, &one, 0), 0);
	assert_int_equal(gpud_map_ordinal(&map, &two, 0), 0);
	assert_memory_equal(map.places[0].new_uuid, devs[0].uuid, 16);
	assert_memory_equal(map.places[1].new_uuid, devs[1].uuid, 16);
	gpud_map_free(&map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_assign),
		cmocka_unit_test(test_two_dumps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
