/* SPDX-License-Identifier: MIT */
/*
 * Conversions of dumps that lie on a disk and not in the page cache: they give the same image by
 * whatever road the pages are read, and leave in the page cache only what they may need again.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "ckfast.h"
#include "format/ckf_codec.h"
#include "around.h"
#include "dump_maker.h"

#define BASE 0x7f0000000000ull
/* More blocks of 2 MiB than are ever under way with one thread. */
#define FILE_PAGES 6144u
#define NR_FILES 4

struct env {
	char base[64];
	char path[128];
	int dir;
	const char *letters; /* of the files, in their order */
};

static int setup(void **state)
{
	struct env *e = calloc(1, sizeof(*e));

	assert_non_null(e);
	dm_tempdir(e->base);
	e->dir = dm_mkdir(e->base, "dump", e->path, sizeof(e->path));
	dm_inventory(e->dir);
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	close(e->dir);
	dm_remove(e->base);
	free(e);
	return 0;
}

static const char *pages_name(uint32_t id, char buf[32])
{
	snprintf(buf, 32, "pages-%u.img", id);
	return buf;
}

/* How long the pages files are: those of small letters are short. */
static uint32_t nr_pages_of(char letter)
{
	return letter < 'a' ? FILE_PAGES : FILE_PAGES / 4;
}

/* Processes 1, 2…, each with the pages that its letter stands for. */
static void make_dump(struct env *e, const char *letters)
{
	static uint32_t values[FILE_PAGES];
	char name[32];

	e->letters = letters;
	for (uint32_t id = 1; id <= NR_FILES; id++) {
		char c = letters[id - 1];
		struct dm_entry entry = { BASE, nr_pages_of(c), DM_PRESENT };

		for (uint32_t i = 0; i < nr_pages_of(c); i++)
			values[i] = 1 + i + FILE_PAGES * (uint32_t)(c - 'A');
		snprintf(name, sizeof(name), "pagemap-%u.img", id);
		dm_pagemap(e->dir, name, id, DM_42, &entry, 1);
		dm_pages(e->dir, id, values, nr_pages_of(c));
	}
}

/* Pages of a pages file, from the one on, that are in the page cache. */
static uint32_t cached(const struct env *e, uint32_t id, uint32_t first)
{
	static unsigned char here[FILE_PAGES];
	uint32_t nr_pages = nr_pages_of(e->letters[id - 1]), n = 0;
	char name[32];
	int fd = openat(e->dir, pages_name(id, name), O_RDONLY);
	void *map = mmap(NULL, nr_pages * CKF_PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0);

	assert_true(map != MAP_FAILED);
	assert_int_equal(mincore(map, nr_pages * CKF_PAGE_BYTES, here), 0);
	munmap(map, nr_pages * CKF_PAGE_BYTES);
	close(fd);
	for (uint32_t i = first; i < nr_pages; i++)
		n += here[i] & 1;
	return n;
}

/* All pages from the one on were kept, but for the few that the kernel may have taken back since.
 */
static void assert_kept(const struct env *e, uint32_t id, uint32_t first)
{
	const uint32_t all = nr_pages_of(e->letters[id - 1]) - first;

	assert_in_range(cached(e, id, first), all - all / 16, all);
}

/* False where there is nothing to test: what is in memory stays there, or is not read directly. */
static bool make_cold(const struct env *e)
{
	static _Alignas(CKF_PAGE_BYTES) uint8_t page[CKF_PAGE_BYTES];
	bool cold = have_uring();
	char name[32];

	for (uint32_t id = 1; id <= NR_FILES && cold; id++) {
		int fd;

		drop_file(e->dir, pages_name(id, name));
		fd = openat(e->dir, name, O_RDONLY | O_DIRECT);
		/* Some take the flag, and copy all the same. */
		cold = fd >= 0 && read(fd, page, sizeof(page)) == sizeof(page) && !cached(e, id, 0);
		if (fd >= 0)
			close(fd);
	}
	return cold;
}

static void convert(const struct env *e, const char *name, const struct ckf_convert_opts *opts)
{
	struct ckf_error err = { 0 };
	char fast[160];

	snprintf(fast, sizeof(fast), "%s/%s", e->base, name);
	if (ckf_convert(e->path, fast, opts, NULL, &err))
		fail_msg("%s: %s", name, err.msg);
}

/* The checksum of a file of the image. */
static uint64_t sum_of(const struct env *e, const char *fast, const char *name)
{
	char path[256];
	struct stat st;
	uint64_t sum;
	void *map;
	int fd;

	snprintf(path, sizeof(path), "%s/%s/%s", e->base, fast, name);
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	assert_true(map != MAP_FAILED);
	sum = ckf_hash64(map, (size_t)st.st_size);
	munmap(map, (size_t)st.st_size);
	close(fd);
	return sum;
}

static void test_same_image(void **state)
{
	struct env *e = *state;
	struct ckf_convert_opts opts = {
		.size = sizeof(opts), .codec = CKF_CODEC_LZ4, .threads = 2, .force = true
	};

	make_dump(e, "AABC");
	convert(e, "warm", &opts);
	for (unsigned int i = 0; i < 6; i++) {
		opts.threads = i < 4 ? 2 : i * 4 - 15;
		opts.no_uring = i & 1;
		opts.no_direct = i & 2;
		if (!make_cold(e))
			skip();
		convert(e, "cold", &opts);
		assert_true(sum_of(e, "cold", CKF_IDX_NAME) == sum_of(e, "warm", CKF_IDX_NAME));
		assert_true(sum_of(e, "cold", CKF_PACK_NAME) == sum_of(e, "warm", CKF_PACK_NAME));
	}
}

static void convert_cold(struct env *e, const char *letters)
{
	const struct ckf_convert_opts opts = {
		.size = sizeof(opts), .codec = CKF_CODEC_RAW, .threads = 1, .force = true
	};

	make_dump(e, letters);
	if (!make_cold(e))
		skip();
	convert(e, "fast", &opts);
}

/* What others may be equal to is in the page cache afterwards, and they are not. */
static void test_kept(void **state)
{
	struct env *e = *state;

	convert_cold(e, "AABC");
	assert_kept(e, 1, 0);
	assert_int_equal(cached(e, 2, 0), 0);
	/* Equal ones came before, so that B may have its own. But the first blocks were begun
	 * before it was clear that they are not of those. */
	assert_kept(e, 3, FILE_PAGES / 2);
	assert_int_equal(cached(e, 4, 0), 0);
}

static void only_first_is_kept(struct env *e, const char *letters)
{
	convert_cold(e, letters);
	assert_kept(e, 1, 0);
	for (uint32_t id = 2; id <= NR_FILES; id++)
		assert_int_equal(cached(e, id, 0), 0);
}

/* What is found again goes past the page cache, also where all that was kept before was of use. */
static void test_found(void **state)
{
	only_first_is_kept(*state, "AAAB");
}

/* Files of one length that have nothing in common: only the first is tried. */
static void test_apart(void **state)
{
	only_first_is_kept(*state, "ABCD");
}

/* Nothing is as long as the first. */
static void test_alone(void **state)
{
	struct env *e = *state;

	convert_cold(e, "Abcd");
	assert_int_equal(cached(e, 1, 0), 0);
	assert_kept(e, 2, 0);
	assert_int_equal(cached(e, 3, 0), 0);
	assert_int_equal(cached(e, 4, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_same_image, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(test_found, setup, teardown),
		cmocka_unit_test_setup_teardown(test_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(test_alone, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
