/* SPDX-License-Identifier: MIT */
/* Makes images for tests of ckf_fill(), and compares memory with what they hold. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "fill_world.h"

void world_random_pages(uint64_t *seed, char *p, unsigned int nr, bool compressible)
{
	for (size_t i = 0; i < (size_t)nr * CKF_PAGE_BYTES; i += 8) {
		uint64_t v = img_rand(seed);

		if (compressible)
			v &= 0x0101010101010101ull;
		memcpy(p + i, &v, 8);
	}
	p[0] = 1;
}

/* One chunk of a random kind whose pages are at *pages (malloc()ed). */
static uint32_t random_chunk(struct world *w, uint16_t nr, char **pages)
{
	static const uint32_t codecs[] = { CKF_CODEC_RAW, CKF_CODEC_RAW, CKF_CODEC_LZ4,
					   CKF_CODEC_ZSTD, CKF_CODEC_BF16 };
	uint32_t codec = codecs[img_rand(&w->seed) % 5];

	*pages = malloc((size_t)nr * CKF_PAGE_BYTES);
	assert_non_null(*pages);
	world_random_pages(&w->seed, *pages, nr, codec != CKF_CODEC_RAW);
	return img_chunk(&w->b, codec, *pages, nr);
}

void world_put(struct world *w, uint64_t page, uint32_t chunk, uint16_t first, uint16_t nr,
	       const char *pages, uint32_t flags)
{
	img_op(&w->b, (WORLD_BASE + page * CKF_PAGE_BYTES) | flags, chunk, first, nr);
	if (pages)
		memcpy(w->model + page * CKF_PAGE_BYTES, pages + first * CKF_PAGE_BYTES,
		       (size_t)nr * CKF_PAGE_BYTES);
	else
		memset(w->model + page * CKF_PAGE_BYTES, 0, (size_t)nr * CKF_PAGE_BYTES);
	memset(w->covered + page, 1, nr);
}

/*
 * Fills the area with ops: whole chunks, parts of chunks, chunks in pieces with holes between, the
 * same chunk twice, zeros. dense: no holes, so that the area may be huge.
 */
static void random_plan(struct world *w, uint32_t zero, bool dense)
{
	uint64_t page = 0;
	char *pages = NULL, *old = NULL;
	uint32_t chunk = 0, old_chunk = 0;
	uint16_t nr, old_nr = 0, half;

	while (page + 600 < WORLD_PAGES) {
		nr = (uint16_t)(1 + img_rand(&w->seed) % 256);
		switch (img_rand(&w->seed) % 6) {
		case 0:
			world_put(w, page, zero, 0, nr > 64 ? 64 : nr, NULL, 0);
			page += nr > 64 ? 64 : nr;
			break;
		case 1: /* a chunk seen before */
			if (!old)
				continue;
			world_put(w, page, old_chunk, 0, old_nr, old, 0);
			page += old_nr;
			break;
		case 2: /* in two pieces, with a hole between */
			chunk = random_chunk(w, nr, &pages);
			half = nr / 2 ? nr / 2 : 1;
			world_put(w, page, chunk, 0, half, pages, 0);
			page += half + (dense ? 0u : 3u);
			if (half < nr)
				world_put(w, page, chunk, half, (uint16_t)(nr - half), pages, 0);
			page += nr - half;
			free(pages);
			break;
		case 3: /* only a part of it */
			chunk = random_chunk(w, nr, &pages);
			world_put(w, page, chunk, nr / 3, (uint16_t)(nr - nr / 3), pages, 0);
			page += nr - nr / 3;
			free(pages);
			break;
		default:
			chunk = random_chunk(w, nr, &pages);
			world_put(w, page, chunk, 0, nr, pages, 0);
			page += nr;
			free(old);
			old = pages;
			old_chunk = chunk;
			old_nr = nr;
		}
		if (!dense)
			page += img_rand(&w->seed) % 5;
	}
	free(old);
}

static void make_base(struct world *w)
{
	assert_int_equal(mkdirat(w->dir_fd, "base", 0700), 0);
	w->base_fd = openat(w->dir_fd, "base", O_RDONLY | O_DIRECTORY);
	assert_true(w->base_fd >= 0);
	img_to_base(&w->b, w->base_fd, "base");
}

void world_begin(struct world *w, uint64_t seed)
{
	memset(w, 0, sizeof(*w));
	w->seed = seed;
	w->base_fd = -1;
	print_message("seed %llu\n", (unsigned long long)seed);
	snprintf(w->dir, sizeof(w->dir), "/var/tmp/ckf-fill-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	w->dir_fd = open(w->dir, O_RDONLY | O_DIRECTORY);
	assert_true(w->dir_fd >= 0);
	w->model = malloc(WORLD_BYTES);
	w->covered = calloc(WORLD_PAGES, 1);
	assert_non_null(w->model);
	assert_non_null(w->covered);
	memset(w->model, WORLD_BACKGROUND, WORLD_BYTES);
	img_init(&w->b);
	w->b.packed = seed % 2;
	img_file(&w->b, "pagemap-1.img", "x", 1);
}

void world_end(struct world *w, bool based)
{
	if (based)
		make_base(w);
	assert_int_equal(img_write(&w->b, w->dir_fd), 0);
	assert_int_equal(ckf_image_open(w->dir_fd, &w->img, NULL), 0);
}

void world_make(struct world *w, uint64_t seed, bool dense, bool based, uint32_t kind)
{
	uint32_t zero;

	world_begin(w, seed);
	zero = img_chunk(&w->b, CKF_CODEC_ZERO, NULL, 64);
	img_target(&w->b, kind, 1, 0, 0);
	random_plan(w, zero, dense);
	img_lanes(&w->b, WORLD_LANE_OPS);
	if (dense && kind == CKF_TARGET_TASK)
		img_huge(&w->b, 0, WORLD_BASE, 6);
	world_end(w, based);
}

void world_init(struct world *w, uint64_t seed, bool dense)
{
	world_make(w, seed, dense, false, CKF_TARGET_TASK);
}

void world_fini(struct world *w)
{
	ckf_image_close(w->img);
	img_fini(&w->b);
	if (w->base_fd >= 0) {
		unlinkat(w->base_fd, CKF_IDX_NAME, 0);
		unlinkat(w->base_fd, CKF_PACK_NAME, 0);
		close(w->base_fd);
		unlinkat(w->dir_fd, "base", AT_REMOVEDIR);
	}
	unlinkat(w->dir_fd, CKF_IDX_NAME, 0);
	unlinkat(w->dir_fd, CKF_PACK_NAME, 0);
	unlinkat(w->dir_fd, "pagemap-1.img", 0);
	close(w->dir_fd);
	rmdir(w->dir);
	free(w->model);
	free(w->covered);
}

char *world_map_area(void)
{
	uint64_t bytes = WORLD_BYTES + CKF_HUGE_BYTES;
	char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *aligned;

	assert_ptr_not_equal(p, MAP_FAILED);
	aligned = (char *)(((uintptr_t)p + CKF_HUGE_BYTES - 1) & ~(uintptr_t)(CKF_HUGE_BYTES - 1));
	if (aligned > p)
		munmap(p, (size_t)(aligned - p));
	munmap(aligned + WORLD_BYTES, (size_t)(p + bytes - (aligned + WORLD_BYTES)));
	return aligned;
}

int world_fill(struct world *w, const struct ckf_dest *dests, size_t nr, uint32_t flags,
	       unsigned int threads, struct ckf_fill_stats *stats, struct ckf_error *err)
{
	struct ckf_fill_opts o = {
		.size = sizeof(o), .dir_fd = -1, .threads = threads, .flags = flags
	};

	return ckf_fill(w->img, &w->img->idx->targets[0], dests, nr, &o, stats, err);
}

void world_assert_resident(const struct world *w, char *area, bool zeros)
{
	unsigned char *there = malloc(WORLD_PAGES);

	assert_non_null(there);
	assert_int_equal(mincore(area, WORLD_BYTES, there), 0);
	for (uint64_t i = 0; i < WORLD_PAGES; i++) {
		const char *page = w->model + i * CKF_PAGE_BYTES;
		bool want = w->covered[i] && (zeros || !ckf_is_zero(page, CKF_PAGE_BYTES));

		if ((there[i] & 1) != want)
			fail_msg("page %llu is %s", (unsigned long long)i,
				 want ? "not there" : "there");
	}
	free(there);
}

void world_assert_area(struct world *w, const char *area, int background)
{
	char page[CKF_PAGE_BYTES];

	memset(page, background, sizeof(page));
	for (uint64_t i = 0; i < WORLD_PAGES; i++) {
		const char *want = w->covered[i] ? w->model + i * CKF_PAGE_BYTES : page;

		if (memcmp(area + i * CKF_PAGE_BYTES, want, CKF_PAGE_BYTES))
			fail_msg("page %llu differs", (unsigned long long)i);
	}
}
