/* SPDX-License-Identifier: MIT */
/* Where chunks go in a pack that is being made: by the rules, in few bytes, and near each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "convert/build.h"
#include "convert/stream.h"
#include "dump_maker.h"

#define EXTENT CKF_MIN_EXTENT_BYTES
#define BASE 0x7f0000000000ull

static struct ckf_new_chunk chunk(uint32_t tag, uint8_t codec, uint32_t stored_bytes)
{
	return (struct ckf_new_chunk){
		.chunk.codec = codec,
		.chunk.stored_bytes = stored_bytes,
		.chunk.nr_pages = (uint16_t)ckf_bytes_to_pages(stored_bytes),
		.tag = tag,
	};
}

static struct ckf_new_chunk raw(uint32_t tag, uint16_t nr_pages)
{
	return chunk(tag, CKF_CODEC_RAW, (uint32_t)ckf_pages_to_bytes(nr_pages));
}

static void begin(struct ckf_build *b)
{
	assert_int_equal(ckf_build_init(b, EXTENT, 1, NULL), 0);
	ckf_build_begin(b, 0);
}

/* The chunks are those of these tags, one after the other, and at these places. */
static void expect(const struct ckf_build *b, const struct ckf_new_chunk *c, uint32_t nr,
		   const uint32_t *tags, const uint64_t *offs)
{
	for (uint32_t i = 0; i < nr; i++) {
		assert_int_equal(c[i].tag, tags[i]);
		assert_true(c[i].chunk.pack_off == offs[i]);
		assert_int_equal(c[i].number, b->nr_chunks - nr + i);
		assert_memory_equal(&b->chunks[c[i].number], &c[i].chunk, sizeof(c[i].chunk));
	}
}

/* Chunks of a kind follow each other, and the next block goes on with the kind of the last. */
static void test_kinds(void **state)
{
	struct ckf_new_chunk one[] = { chunk(0, CKF_CODEC_ZSTD, 100), raw(1, 2),
				       chunk(2, CKF_CODEC_LZ4, 5000), raw(3, 1),
				       chunk(4, CKF_CODEC_BF16, 1) };
	struct ckf_new_chunk two[] = { chunk(0, CKF_CODEC_LZ4, 7), raw(1, 1) };
	struct ckf_build b;

	(void)state;
	begin(&b);
	assert_int_equal(ckf_build_chunks(&b, one, 5, NULL), 0);
	expect(&b, one, 5, (uint32_t[]){ 0, 2, 4, 1, 3 },
	       (uint64_t[]){ 4096, 4196, 9196, 12288, 20480 });
	assert_int_equal(ckf_build_chunks(&b, two, 2, NULL), 0);
	expect(&b, two, 2, (uint32_t[]){ 1, 0 }, (uint64_t[]){ 24576, 28672 });
	assert_int_equal(ckf_build_chunks(&b, NULL, 0, NULL), 0);
	assert_int_equal(ckf_build_finish(&b, NULL), 0);
	assert_int_equal(b.pack_bytes, 32768);
	assert_int_equal(b.stored_bytes, 100 + 5000 + 1 + 7 + 4 * 4096);
	ckf_build_fini(&b);
}

/* At the end of an extent comes what fits, of whatever kind; what does not begins the next one. */
static void test_extent(void **state)
{
	struct ckf_new_chunk fill = chunk(0, CKF_CODEC_ZSTD, EXTENT - 4096 - 6000);
	struct ckf_new_chunk rest[] = { chunk(0, CKF_CODEC_ZSTD, 6001), raw(1, 1),
					chunk(2, CKF_CODEC_ZSTD, 2000),
					chunk(3, CKF_CODEC_LZ4, 1) };
	struct ckf_new_chunk all = chunk(0, CKF_CODEC_ZSTD, EXTENT - 10000);
	struct ckf_build b;

	(void)state;
	begin(&b);
	assert_int_equal(ckf_build_chunks(&b, &fill, 1, NULL), 0);
	assert_int_equal(ckf_build_chunks(&b, rest, 4, NULL), 0);
	expect(&b, rest, 4, (uint32_t[]){ 2, 3, 0, 1 },
	       (uint64_t[]){ EXTENT - 6000, EXTENT - 4000, EXTENT, EXTENT + 8192 });
	ckf_build_fini(&b);
	/* An extent may be filled to its last byte. */
	begin(&b);
	all.chunk.stored_bytes = EXTENT - 4096;
	rest[0] = chunk(0, CKF_CODEC_LZ4, 1);
	assert_int_equal(ckf_build_chunks(&b, &all, 1, NULL), 0);
	assert_int_equal(ckf_build_chunks(&b, rest, 1, NULL), 0);
	assert_true(all.chunk.pack_off == 4096 && rest[0].chunk.pack_off == EXTENT);
	ckf_build_fini(&b);
}

/* Whatever comes: in order, without overlap, raw chunks on pages, no border crossed. */
static void test_random(void **state)
{
	static struct ckf_new_chunk c[64];
	uint64_t seed = dm_seed(), end = CKF_PAGE_BYTES, bytes = 0;
	struct ckf_build b;

	(void)state;
	begin(&b);
	for (int block = 0; block < 200; block++) {
		uint32_t nr = (uint32_t)(dm_rand(&seed) % 64), seen = 0;

		for (uint32_t i = 0; i < nr; i++) {
			uint16_t pages = (uint16_t)(1 + dm_rand(&seed) % 64);

			c[i] = raw(i, pages);
			if (dm_rand(&seed) % 2)
				c[i] = chunk(i, CKF_CODEC_ZSTD,
					     (uint32_t)(1 + dm_rand(&seed) % (pages * 4096u - 1)));
			bytes += c[i].chunk.stored_bytes;
		}
		assert_int_equal(ckf_build_chunks(&b, c, nr, NULL), 0);
		for (uint32_t i = 0; i < nr; i++) {
			uint64_t off = c[i].chunk.pack_off;

			assert_true(off >= end);
			end = off + c[i].chunk.stored_bytes;
			assert_true(off / EXTENT == (end - 1) / EXTENT);
			assert_true(c[i].chunk.codec != CKF_CODEC_RAW || off % 4096 == 0);
			seen += c[i].tag;
		}
		assert_int_equal(seen, nr * (nr - (nr > 0)) / 2);
	}
	/* Half a page where the kind changes, and what is left of extents of 4 MiB. */
	assert_true(end < bytes + bytes / 100);
	ckf_build_fini(&b);
}

/* Pages that CRIU's restorer reads itself stay apart from their neighbours in the same chunk. */
static void test_direct(void **state)
{
	struct ckf_vma vmas[] = {
		{ .start = BASE, .end = BASE + 2 * CKF_PAGE_BYTES },
		{ .start = BASE + 2 * CKF_PAGE_BYTES,
		  .end = BASE + 4 * CKF_PAGE_BYTES,
		  .flags = MAP_HUGETLB },
		{ .start = BASE + 4 * CKF_PAGE_BYTES, .end = BASE + 6 * CKF_PAGE_BYTES },
	};
	struct ckf_run run = { .vaddr = BASE, .nr_pages = 6 };
	const struct ckf_task task = { .pid = 1, .vmas = vmas, .nr_vmas = 3 };
	const struct ckf_pagemap pm = { .kind = CKF_TARGET_TASK,
					.id = 1,
					.runs = &run,
					.nr_runs = 1,
					.nr_pages = 6,
					.nr_local_pages = 6 };
	struct ckf_new_chunk fresh = raw(0, 6);
	struct ckf_cursor cur;
	struct ckf_stream *s;
	struct ckf_build b;

	(void)state;
	assert_int_equal(ckf_stream_local(&pm, 6, &task, &s, NULL), 0);
	ckf_cursor_init(&cur, s);
	begin(&b);
	assert_int_equal(ckf_build_chunks(&b, &fresh, 1, NULL), 0);
	assert_int_equal(ckf_build_use(&b, &cur, fresh.number, 6, NULL), 0);
	assert_int_equal(b.targets[0].nr_pages, 6);
	assert_int_equal(b.nr_ops, 3);
	for (uint32_t i = 0; i < 3; i++) {
		const uint64_t flags = i == 1 ? CKF_OP_DIRECT : 0;

		assert_true(b.ops[i].place == ((BASE + i * 2 * CKF_PAGE_BYTES) | flags));
		assert_int_equal(b.ops[i].first_page, 2 * i);
		assert_int_equal(b.ops[i].nr_pages, 2);
	}
	ckf_stream_free(s);
	ckf_build_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_extent),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_direct),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
