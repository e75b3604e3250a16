/* SPDX-License-Identifier: MIT */
/*
 * Conversions under a hash that tells nothing apart: all chunks look like an earlier one, and only
 * comparing their bytes shows that they are others. This program is linked with both functions
 * wrapped, so that whatever takes an equal hash for equal bytes gives back wrong pages here.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "ckfast.h"
#include "format/ckf_codec.h"
#include "format/ckf_sum.h"
#include "dump_maker.h"

#define ADDR 0x7f0000000000ull
#define NR_PAGES 700u

uint64_t __real_ckf_hash64(const void *p, size_t bytes);
uint64_t __wrap_ckf_hash64(const void *p, size_t bytes);
uint64_t __wrap_ckf_sum_key(const uint64_t *page_hashes, uint32_t nr_pages, int verbatim);

static struct {
	bool same_length; /* else chunks of different lengths look alike, too */
	char root[64];
} env;

/* Pages: one value for all that have the same length, apart from zeros, which are no chunks. */
uint64_t __wrap_ckf_hash64(const void *p, size_t bytes)
{
	if (!bytes || bytes % CKF_PAGE_BYTES || ckf_is_zero(p, bytes))
		return __real_ckf_hash64(p, bytes);
	return bytes;
}

uint64_t __wrap_ckf_sum_key(const uint64_t *page_hashes, uint32_t nr_pages, int verbatim)
{
	(void)page_hashes;
	(void)verbatim;
	return env.same_length ? nr_pages : 1;
}

static int setup(void **state)
{
	(void)state;
	dm_tempdir(env.root);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	dm_remove(env.root);
	return 0;
}

/* Two pages files: the values from first on, with zeros in between and every 7th run of 32 pages
 * again; and the same values backwards. */
static void make_dump(const char *name, uint32_t first)
{
	const struct dm_entry entry = { ADDR, NR_PAGES, DM_PRESENT };
	const struct ckf_vma vma = { .start = ADDR, .end = ADDR + NR_PAGES * CKF_PAGE_BYTES };
	const struct ckf_task tasks[2] = {
		{ .pid = 5, .comm = "a", .vmas = (struct ckf_vma *)&vma, .nr_vmas = 1 },
		{ .pid = 6, .ppid = 5, .comm = "b", .vmas = (struct ckf_vma *)&vma, .nr_vmas = 1 },
	};
	uint32_t values[NR_PAGES], backwards[NR_PAGES];
	char path[128];
	int dir = dm_mkdir(env.root, name, path, sizeof(path));

	for (uint32_t i = 0; i < NR_PAGES; i++) {
		uint32_t value = i / 32 % 7 == 6 ? i % 32 : i;

		values[i] = i % 100 < 5 ? 0 : first + value;
		backwards[NR_PAGES - 1 - i] = values[i];
	}
	dm_inventory(dir);
	dm_tasks(dir, tasks, 2);
	dm_pagemap(dir, "pagemap-5.img", 1, DM_42, &entry, 1);
	dm_pagemap(dir, "pagemap-6.img", 2, DM_42, &entry, 1);
	dm_pages(dir, 1, values, NR_PAGES);
	dm_pages(dir, 2, backwards, NR_PAGES);
	close(dir);
}

static void *read_file(const char *dir, const char *name, size_t bytes)
{
	char path[160];
	void *buf = malloc(bytes);
	int fd;

	assert_non_null(buf);
	snprintf(path, sizeof(path), "%s/%s/%s", env.root, dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(read(fd, buf, bytes), bytes);
	close(fd);
	return buf;
}

static void same_pages(const char *dump, const char *other)
{
	static const char *const names[] = { "pages-1.img", "pages-2.img" };

	for (size_t i = 0; i < 2; i++) {
		size_t bytes = (size_t)NR_PAGES * CKF_PAGE_BYTES;
		char *want = read_file(dump, names[i], bytes),
		     *got = read_file(other, names[i], bytes);

		for (uint32_t page = 0; page < NR_PAGES; page++)
			if (memcmp(want + page * CKF_PAGE_BYTES, got + page * CKF_PAGE_BYTES,
				   CKF_PAGE_BYTES))
				fail_msg("%s of %s: page %u is another", names[i], other, page);
		free(want);
		free(got);
	}
}

/* Converts dump to fast, on a base if there is one, and expects that extract gives back dump. */
static void there_and_back(const char *dump, const char *fast, const char *base, int codec,
			   struct ckf_convert_stats *stats)
{
	char dump_path[128], fast_path[128], base_path[128], back_path[128];
	const char *const bases[] = { base_path };
	struct ckf_convert_opts opts = {
		.size = sizeof(opts), .codec = codec, .threads = 2, .force = true
	};
	struct ckf_error err = { 0 };

	snprintf(dump_path, sizeof(dump_path), "%s/%s", env.root, dump);
	snprintf(fast_path, sizeof(fast_path), "%s/%s", env.root, fast);
	snprintf(back_path, sizeof(back_path), "%s/back", env.root);
	if (base) {
		snprintf(base_path, sizeof(base_path), "%s/%s", env.root, base);
		opts.bases = bases;
		opts.nr_bases = 1;
	}
	if (ckf_convert(dump_path, fast_path, &opts, stats, &err))
		fail_msg("convert: %s", err.msg);
	opts.bases = NULL;
	opts.nr_bases = 0;
	if (ckf_extract(fast_path, back_path, &opts, &err))
		fail_msg("extract: %s", err.msg);
	same_pages(dump, "back");
}

static void test_earlier_chunks(void **state)
{
	struct ckf_convert_stats stats = { .size = sizeof(stats) };

	(void)state;
	make_dump("dump", 1);
	for (int same_length = 0; same_length < 2; same_length++) {
		env.same_length = same_length;
		there_and_back("dump", "fast", NULL, CKF_CODEC_RAW, &stats);
		there_and_back("dump", "fast", NULL, CKF_CODEC_LZ4, &stats);
		there_and_back("dump", "fast", NULL, CKF_CODEC_AUTO, &stats);
	}
}

static void test_bases(void **state)
{
	struct ckf_convert_stats stats = { .size = sizeof(stats) };

	(void)state;
	env.same_length = true;
	make_dump("dump1", 1);
	make_dump("dump2", 5001);
	there_and_back("dump1", "base", NULL, CKF_CODEC_RAW, &stats);
	there_and_back("dump2", "fast", "base", CKF_CODEC_RAW, &stats);
	assert_int_equal(stats.base_bytes, 0);
	/* What is in the base is found in spite of all that looks like it. */
	there_and_back("dump1", "fast", "base", CKF_CODEC_RAW, &stats);
	assert_true(stats.base_bytes > 0);
	assert_int_equal(stats.stored_bytes, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_earlier_chunks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bases, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
