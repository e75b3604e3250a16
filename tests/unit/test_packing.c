/* SPDX-License-Identifier: MIT */
/*
 * Pages files that CRIU has compressed: every page is found and decoded, whatever the blocks are,
 * and what is wrong with them is told.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <lz4.h>

#include "convert/img.h"
#include "convert/unpack.h"
#include "format/ckf_codec.h"
#include "dump_maker.h"

#define MAX_PAGES 3000u
#define NAME "pages-1.img"

/* A compressed pages file, and the pages that it holds. */
struct env {
	char path[64];
	int dir;
	struct ckf_packing *packing;
	uint8_t *pages;
	uint64_t nr_pages;
	uint8_t *file;
	uint64_t file_bytes;
	uint64_t seed;
};

static int setup(void **state)
{
	struct env *e = calloc(1, sizeof(*e));

	assert_non_null(e);
	dm_tempdir(e->path);
	e->dir = open(e->path, O_RDONLY | O_DIRECTORY);
	e->packing = ckf_packing_new();
	e->pages = malloc(MAX_PAGES * CKF_PAGE_BYTES);
	e->file = malloc(3 * MAX_PAGES * CKF_PAGE_BYTES);
	assert_non_null(e->packing);
	assert_non_null(e->pages);
	assert_non_null(e->file);
	e->seed = dm_seed();
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	close(e->dir);
	dm_remove(e->path);
	ckf_packing_free(e->packing);
	free(e->pages);
	free(e->file);
	free(e);
	return 0;
}

/* Stores a block at the end of the file; its size. */
static uint32_t put_block(struct env *e, const uint8_t *src, uint64_t bytes)
{
	uint8_t *dst = e->file + e->file_bytes;
	int n = LZ4_compress_default((const char *)src, (char *)dst, (int)bytes, (int)bytes);
	bool zero = ckf_is_zero(src, bytes);

	if (zero || n <= 0 || (uint64_t)n >= bytes) {
		n = zero ? 0 : (int)bytes;
		memcpy(dst, src, (size_t)n);
	}
	e->file_bytes += (uint64_t)n;
	return (uint32_t)n;
}

static void align(struct env *e)
{
	while (e->file_bytes % CKF_PAGE_BYTES)
		e->file[e->file_bytes++] = 0xee;
}

/* An entry of nr pages in blocks; block_pages 0: plain. */
static void put_entry(struct env *e, uint64_t nr, uint32_t block_pages, bool aligned)
{
	struct ckf_packing_entry entry = { .nr_pages = nr,
					   .block_pages = block_pages,
					   .aligned = aligned };
	uint8_t *src = e->pages + e->nr_pages * CKF_PAGE_BYTES;
	static uint32_t sizes[MAX_PAGES];

	assert_true(e->nr_pages + nr <= MAX_PAGES);
	for (uint64_t i = 0; i < nr; i++) {
		uint32_t kind = dm_rand(&e->seed) % 4;

		dm_page(kind ? dm_rand(&e->seed) : 0, src + i * CKF_PAGE_BYTES);
	}
	if (aligned)
		align(e);
	for (uint64_t i = 0; block_pages && i < nr; i += block_pages) {
		uint64_t n = nr - i < block_pages ? nr - i : block_pages;

		sizes[entry.nr_sizes++] = put_block(e, src + i * CKF_PAGE_BYTES,
						    n * CKF_PAGE_BYTES);
	}
	if (!block_pages) {
		memcpy(e->file + e->file_bytes, src, nr * CKF_PAGE_BYTES);
		e->file_bytes += nr * CKF_PAGE_BYTES;
	}
	entry.sizes = sizes;
	assert_int_equal(ckf_packing_add(e->packing, &entry), 0);
	e->nr_pages += nr;
	assert_int_equal(e->packing->nr_pages, e->nr_pages);
	assert_int_equal(e->packing->file_bytes, e->file_bytes);
}

static struct ckf_file_part open_file(struct env *e)
{
	struct ckf_file_part part = { .fd = -1 };

	dm_write(e->dir, NAME, e->file, e->file_bytes);
	assert_int_equal(ckf_open_of_dump(CKF_DIR(e->dir), NAME, &part), 0);
	return part;
}

static void check_read(struct env *e, struct ckf_unpack *u, uint64_t page, uint64_t nr)
{
	uint8_t *got = malloc(nr * CKF_PAGE_BYTES + 1);
	struct ckf_error err = { 0 };

	assert_non_null(got);
	if (ckf_unpack_read(u, page, nr, got, &err))
		fail_msg("%s", err.msg);
	assert_memory_equal(got, e->pages + page * CKF_PAGE_BYTES, nr * CKF_PAGE_BYTES);
	free(got);
}

/* Every block, one after the other, and each page on its own. */
static void check_all(struct env *e)
{
	struct ckf_file_part part = open_file(e);
	struct ckf_packed at, found;
	struct ckf_unpack u;
	uint64_t page = 0;

	ckf_packing_find(e->packing, 0, &at);
	do {
		assert_int_equal(at.page, page);
		for (; page < at.page + at.nr_pages; page++) {
			ckf_packing_find(e->packing, page, &found);
			assert_int_equal(found.page, at.page);
			assert_int_equal(found.nr_pages, at.nr_pages);
			assert_int_equal(found.off, at.off);
			assert_int_equal(found.bytes, at.bytes);
			assert_int_equal(found.block, at.block);
		}
	} while (ckf_packing_next(e->packing, &at));
	assert_int_equal(page, e->nr_pages);

	ckf_unpack_init(&u, e->packing, &part, NAME);
	check_read(e, &u, 0, e->nr_pages);
	for (page = 0; page < e->nr_pages; page++)
		check_read(e, &u, page, 1);
	for (unsigned int i = 0; i < 200; i++) {
		page = dm_rand(&e->seed) % e->nr_pages;
		check_read(e, &u, page, dm_rand(&e->seed) % (e->nr_pages - page + 1));
	}
	ckf_unpack_fini(&u);
	close(part.fd);
}

static void test_kinds(void **state)
{
	static const uint32_t block_pages[] = { 1, 2, 7, 64, 1024 };

	for (size_t i = 0; i < sizeof(block_pages) / sizeof(block_pages[0]); i++) {
		struct env *e;
		void *mine;

		setup(&mine);
		e = mine;
		put_entry(e, 70, 0, false);
		assert_false(e->packing->packed);
		put_entry(e, 200, block_pages[i], false);
		put_entry(e, 1, block_pages[i], false);
		put_entry(e, 30, 0, true);
		put_entry(e, 30, 0, false);
		put_entry(e, 130, block_pages[i], true);
		put_entry(e, 5, 1, false);
		assert_true(e->packing->packed);
		check_all(e);
		teardown(&mine);
	}
	(void)state;
}

static void test_random(void **state)
{
	struct env *e = *state;

	for (unsigned int i = 0; i < 40; i++) {
		static const uint32_t block_pages[] = { 0, 1, 1, 3, 64 };
		uint32_t kind = block_pages[dm_rand(&e->seed) % 5];

		put_entry(e, 1 + dm_rand(&e->seed) % 60, kind, dm_rand(&e->seed) % 3 == 0);
	}
	check_all(e);
}

static void refused(struct env *e, const char *word)
{
	struct ckf_file_part part = open_file(e);
	uint8_t *got = malloc(e->nr_pages * CKF_PAGE_BYTES);
	struct ckf_error err = { 0 };
	struct ckf_unpack u;

	assert_non_null(got);
	ckf_unpack_init(&u, e->packing, &part, NAME);
	assert_int_equal(ckf_unpack_read(&u, 0, e->nr_pages, got, &err), -EBADMSG);
	if (!strstr(err.msg, word))
		fail_msg("no \"%s\" in \"%s\"", word, err.msg);
	ckf_unpack_fini(&u);
	close(part.fd);
	free(got);
}

/* A block of two pages that decodes to bytes bytes. */
static void put_odd_block(struct env *e, int bytes)
{
	static uint8_t zeros[4 * CKF_PAGE_BYTES];
	char dst[1000];
	uint32_t size = (uint32_t)LZ4_compress_default((char *)zeros, dst, bytes, sizeof(dst));
	struct ckf_packing_entry entry = {
		.nr_pages = 2, .block_pages = 2, .sizes = &size, .nr_sizes = 1
	};

	assert_true(size > 0);
	memcpy(e->file + e->file_bytes, dst, size);
	e->file_bytes += size;
	e->nr_pages += 2;
	assert_int_equal(ckf_packing_add(e->packing, &entry), 0);
}

static void test_bad_blocks(void **state)
{
	static const int odd[] = { 1, CKF_PAGE_BYTES, 2 * CKF_PAGE_BYTES - 1,
				   2 * CKF_PAGE_BYTES + 1, 4 * CKF_PAGE_BYTES };

	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		void *mine;

		setup(&mine);
		put_odd_block(mine, odd[i]);
		refused(mine, "do not decode to exactly 2 pages");
		teardown(&mine);
	}
	(void)state;
}

static void test_short(void **state)
{
	struct env *e = *state;
	struct ckf_error err = { 0 };
	struct ckf_unpack u = { .packing = e->packing };
	uint8_t page[CKF_PAGE_BYTES];

	put_entry(e, 40, 0, false);
	put_entry(e, 40, 4, false);
	put_entry(e, 40, 0, true);
	e->file_bytes--;
	refused(e, "the file ends before the pages of its pagemap do");
	e->file_bytes = 41 * CKF_PAGE_BYTES;
	refused(e, "the file ends before the pages of its pagemap do");
	e->file_bytes = 0;
	refused(e, "the file ends before the pages of its pagemap do");
	u.name = NAME;
	assert_int_equal(ckf_unpack_read(&u, 120, 1, page, &err), -EBADMSG);
	assert_int_equal(ckf_unpack_read(&u, UINT64_MAX - 5, 1, page, &err), -EBADMSG);
}

/* Whether a gap before zeros alone is in the file does not matter at its end. */
static void test_gap_at_end(void **state)
{
	static const uint32_t none[2];
	const struct ckf_packing_entry zeros = {
		.nr_pages = 5, .aligned = true, .block_pages = 4, .sizes = none, .nr_sizes = 2
	};
	struct env *e = *state;
	struct ckf_pagemap pm = { .packing = e->packing };
	uint64_t bytes;

	do {
		put_entry(e, 7, 2, false);
	} while (e->file_bytes % CKF_PAGE_BYTES == 0);
	bytes = e->file_bytes;
	assert_int_equal(ckf_packing_add(e->packing, &zeros), 0);
	memset(e->pages + e->nr_pages * CKF_PAGE_BYTES, 0, 5 * CKF_PAGE_BYTES);
	e->nr_pages += 5;
	check_all(e);
	assert_true(ckf_pagemap_fits(&pm, bytes));
	assert_true(ckf_pagemap_fits(&pm, ckf_align_up(bytes, CKF_PAGE_BYTES)));
	assert_false(ckf_pagemap_fits(&pm, bytes - 1));
	assert_false(ckf_pagemap_fits(&pm, ckf_align_up(bytes, CKF_PAGE_BYTES) + 1));
}

static void test_too_many(void **state)
{
	struct env *e = *state;
	struct ckf_packing_entry entry = { .nr_pages = CKF_MAX_FILE_PAGES };

	assert_int_equal(ckf_packing_add(e->packing, &entry), 0);
	entry.nr_pages = 1;
	assert_int_equal(ckf_packing_add(e->packing, &entry), -E2BIG);
}

static void test_table(void **state)
{
	struct ckf_packings *t = NULL;
	const struct ckf_origin a = { .level = 1, .pages_id = 5 };
	const struct ckf_origin b = { .pages_id = 9 }, c = { .pages_id = 5 };
	const struct ckf_origin gpu = { .pages_id = 9, .kind = CKF_ORIGIN_GPU };
	struct ckf_packing *p = ckf_packing_new();

	(void)state;
	assert_int_equal(ckf_packings_new(&t), 0);
	assert_null(ckf_packings_find(t, &a));
	assert_int_equal(ckf_packings_add(t, &a, NULL), 0);
	assert_int_equal(ckf_packings_add(t, &b, p), 0);
	assert_int_equal(ckf_packings_add(t, &c, ckf_packing_new()), 0);
	assert_null(ckf_packings_find(t, &a));
	assert_ptr_equal(ckf_packings_find(t, &b), p);
	assert_non_null(ckf_packings_find(t, &c));
	assert_null(ckf_packings_find(t, &gpu));
	/* A plain file may be there twice: nothing depends on it. */
	assert_int_equal(ckf_packings_add(t, &a, NULL), 0);
	assert_int_equal(ckf_packings_add(t, &a, ckf_packing_new()), -EEXIST);
	assert_int_equal(ckf_packings_add(t, &b, NULL), -EEXIST);
	ckf_packings_free(t);
}

/* What pagemaps say of blocks. */
static void test_pagemap(void **state)
{
	static const uint32_t sizes[] = { 10, 0, 4096, 4096, 8192, 8193, UINT32_MAX };
	static const struct {
		struct dm_entry e;
		struct dm_blocks b;
		int code;
		const char *word;
	} cases[] = {
		{ { 0x1000, 3, DM_PRESENT }, { sizes, 3, 1, 4106, 0 }, 0, "" },
		{ { 0x1000, 5, DM_PRESENT | DM_ALIGNED | DM_LAZY },
		  { sizes, 3, 2, 4106, 0 },
		  0,
		  "" },
		{ { 0x1000, 3, DM_PRESENT }, { sizes, 2, 1, 10, 0 }, -EBADMSG, "2 blocks of 1" },
		{ { 0x1000, 3, DM_PRESENT }, { sizes, 4, 1, 8202, 0 }, -EBADMSG, "4 blocks of 1" },
		{ { 0x1000, 3, DM_PRESENT }, { sizes, 0, 1, 0, 0 }, -EBADMSG, "0 blocks of 1" },
		{ { 0x1000, 3, DM_PRESENT }, { sizes, 3, 1, 4105, 0 }, -EBADMSG, "4106 bytes" },
		{ { 0x1000, 3, DM_PRESENT }, { sizes, 3, 0, 4106, 0 }, -EBADMSG, "of 0 pages" },
		{ { 0x1000, 3, DM_PRESENT }, { sizes, 3, 1025, 9, 0 }, -EBADMSG, "of 1025 pages" },
		{ { 0x1000, 4, DM_PRESENT }, { sizes + 4, 2, 2, 16385, 0 }, -EBADMSG, "block 1" },
		{ { 0x1000, 3, DM_PRESENT }, { sizes + 3, 2, 2, 12288, 0 }, -EBADMSG, "block 1" },
		{ { 0x1000, 1, DM_PRESENT }, { sizes + 6, 1, 1, 1, 0 }, -EBADMSG, "4294967295" },
		{ { 0x1000, 1ull << 40, DM_PRESENT },
		  { sizes, 1, 1, 10, 0 },
		  -EBADMSG,
		  "1 blocks" },
		{ { 0x1000, 3, DM_PARENT }, { sizes, 3, 1, 4106, 0 }, -EBADMSG, "in the parent" },
		{ { 0x1000, 3, DM_PRESENT },
		  { sizes, 3, 1, 4106, 4 },
		  -EOPNOTSUPP,
		  "field 6.4 is that of a newer CRIU" },
	};
	struct env *e = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ckf_error err = { 0 };
		struct ckf_pagemap pm;

		dm_packed_pagemap(e->dir, "pagemap-1.img", 1, &cases[i].e, &cases[i].b, 1);
		assert_int_equal(
			ckf_pagemap_read(CKF_DIR(e->dir), "pagemap-1.img", false, &pm, &err),
			cases[i].code);
		if (!strstr(err.msg, cases[i].word))
			fail_msg("no \"%s\" in \"%s\"", cases[i].word, err.msg);
		if (cases[i].code)
			continue;
		assert_true(ckf_pagemap_fits(&pm, cases[i].b.total));
		assert_false(ckf_pagemap_fits(&pm, cases[i].b.total + 1));
		assert_false(ckf_pagemap_fits(&pm, cases[i].b.total - 1));
		assert_int_equal(pm.nr_local_pages, cases[i].e.nr_pages);
		ckf_pagemap_fini(&pm);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),
		cmocka_unit_test_setup_teardown(test_random, setup, teardown),
		cmocka_unit_test(test_bad_blocks),
		cmocka_unit_test_setup_teardown(test_short, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gap_at_end, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_many, setup, teardown),
		cmocka_unit_test(test_table),
		cmocka_unit_test_setup_teardown(test_pagemap, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
