/* SPDX-License-Identifier: MIT */
/*
 * Raw chunks that are larger than a read of the fill, and so are read, put into place and checked
 * part by part: those of small fills, and where memory is short.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "around.h"
#include "fill_world.h"

#define MOST_PAGES 100

/* Of one chunk, in the order of their places. Pages are left out, come twice, and are cut by the
 * ends of parts; a piece of one page lies between two. */
static const struct {
	uint16_t at;
	uint16_t first;
	uint16_t nr;
} pieces[] = { { 3, 40, 30 }, { 40, 0, 11 }, { 60, 8, 1 }, { 62, 7, 2 }, { 70, 72, 28 } };

struct shape {
	uint16_t chunk_pages;
	uint64_t more_pages; /* of the same target: with many the fill is no longer small */
	uint32_t flags;	     /* CKF_FILL_ */
};

static const struct shape shapes[] = {
	{ 100, 0, 0 },
	{ 100, 0, CKF_FILL_NO_URING },
	{ 100, 0, CKF_FILL_FRUGAL },
	{ 100, 400, CKF_FILL_FRUGAL },
	{ 100, 400, CKF_FILL_NO_URING },
};

static void make_world(struct world *w, const struct shape *s)
{
	static char pages[MOST_PAGES * CKF_PAGE_BYTES];
	uint32_t chunk;

	world_begin(w, 501);
	img_target(&w->b, CKF_TARGET_TASK, 1, 0, 0);
	world_random_pages(&w->seed, pages, s->chunk_pages, false);
	chunk = img_chunk(&w->b, CKF_CODEC_RAW, pages, s->chunk_pages);
	for (size_t i = 0; i < sizeof(pieces) / sizeof(*pieces); i++)
		world_put(w, pieces[i].at, chunk, pieces[i].first, pieces[i].nr, pages, 0);
	for (uint64_t page = 0; page < s->more_pages; page += MOST_PAGES) {
		world_random_pages(&w->seed, pages, MOST_PAGES, false);
		world_put(w, 200 + page, img_chunk(&w->b, CKF_CODEC_RAW, pages, MOST_PAGES), 0,
			  MOST_PAGES, pages, 0);
	}
	img_lanes(&w->b, sizeof(pieces) / sizeof(*pieces));
	world_end(w, false);
}

/* Memory of the kind that the flags say; where it is the parent's, some of it is right already. */
static struct ckf_dest make_dest(const struct world *w, uint32_t dest_flags)
{
	struct ckf_dest d = { .start = WORLD_BASE,
			      .end = WORLD_BASE + WORLD_BYTES,
			      .addr = world_map_area(),
			      .prot = PROT_READ | PROT_WRITE,
			      .flags = dest_flags };

	if (dest_flags & CKF_DEST_FRESH)
		return d;
	memset(d.addr, WORLD_BACKGROUND, WORLD_BYTES);
	for (uint64_t p = 0; p < WORLD_PAGES; p += 3)
		if (dest_flags & CKF_DEST_SHARED && w->covered[p])
			memcpy(d.addr + p * CKF_PAGE_BYTES, w->model + p * CKF_PAGE_BYTES,
			       CKF_PAGE_BYTES);
	return d;
}

static int fill(struct world *w, const struct shape *s, uint32_t dest_flags, struct ckf_error *err)
{
	struct ckf_dest d = make_dest(w, dest_flags);
	struct ckf_fill_stats stats = { .size = sizeof(stats) };
	int ret;

	ret = world_fill(w, &d, 1, s->flags, 1, &stats, err);
	if (!ret) {
		world_assert_area(w, d.addr, dest_flags & CKF_DEST_FRESH ? 0 : WORLD_BACKGROUND);
		assert_true(stats.read_bytes >= s->chunk_pages * (uint64_t)CKF_PAGE_BYTES);
	}
	munmap(d.addr, WORLD_BYTES);
	return ret;
}

static void test_same(void **state)
{
	static const uint32_t kinds[] = { CKF_DEST_FRESH, 0, CKF_DEST_SHARED,
					  CKF_DEST_FRESH | CKF_DEST_HUGE };

	(void)state;
	for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
		struct ckf_error err = { 0 };
		struct world w;

		make_world(&w, &shapes[i]);
		for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds); k++) {
			drop_cache(w.dir_fd);
			if (fill(&w, &shapes[i], kinds[k], &err))
				fail_msg("shape %zu, dest %x: %s", i, kinds[k], err.msg);
		}
		world_fini(&w);
	}
}

/* The checksum is that of all parts, of pages that no piece has as well. */
static void test_flip(void **state)
{
	static const uint16_t flipped[] = { 0, 9, 35, 71, 99 };

	(void)state;
	for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
		uint64_t pack_off;
		struct world w;
		int fd;

		make_world(&w, &shapes[i]);
		pack_off = w.img->idx->chunks[w.img->idx->ops[0].chunk].pack_off;
		fd = openat(w.dir_fd, CKF_PACK_NAME, O_RDWR);
		assert_true(fd >= 0);
		for (size_t k = 0; k < sizeof(flipped) / sizeof(*flipped); k++) {
			const off_t off =
				(off_t)(pack_off + flipped[k] * (uint64_t)CKF_PAGE_BYTES + 5);
			char c;

			assert_int_equal(pread(fd, &c, 1, off), 1);
			c ^= 4;
			assert_int_equal(pwrite(fd, &c, 1, off), 1);
			assert_int_equal(fill(&w, &shapes[i], CKF_DEST_FRESH, NULL), -EBADMSG);
			assert_int_equal(fill(&w, &shapes[i], CKF_DEST_SKIP | CKF_DEST_CHECK, NULL),
					 -EBADMSG);
			c ^= 4;
			assert_int_equal(pwrite(fd, &c, 1, off), 1);
		}
		close(fd);
		assert_int_equal(fill(&w, &shapes[i], CKF_DEST_FRESH, NULL), 0);
		world_fini(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same),
		cmocka_unit_test(test_flip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
