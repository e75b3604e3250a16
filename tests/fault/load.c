/* SPDX-License-Identifier: MIT */
/* Opening, filling and verifying an image. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "loader/ckf_image.h"
#include "tests/unit/dump_maker.h"
#include "tests/unit/img_builder.h"
#include "world.h"

#define HUGE_PAGES (CKF_HUGE_BYTES / CKF_PAGE_BYTES)
#define LANE_OPS 3
#define SKIPPED 0xa5 /* in memory that a fill must leave alone */

static uint64_t place(uint32_t page)
{
	return AREA_BASE + ckf_pages_to_bytes(page);
}

struct maker {
	struct world *w;
	struct img_builder b;
	uint8_t *pages[16]; /* by chunk; NULL for zeros */
};

static uint32_t add_chunk(struct maker *m, uint32_t codec, uint16_t nr_pages)
{
	uint8_t *pages = img_pages(codec * 100 + nr_pages, nr_pages);
	uint32_t chunk;

	/* Floats with one exponent. */
	for (size_t i = 1; codec == CKF_CODEC_BF16 && i < ckf_pages_to_bytes(nr_pages); i += 2)
		pages[i] = 0x3f;
	chunk = img_chunk(&m->b, codec, pages, nr_pages);
	m->pages[chunk] = pages;
	return chunk;
}

/* An op, and in the model what it is to put there. */
static void put(struct maker *m, uint32_t page, uint32_t chunk, uint16_t first, uint16_t nr)
{
	uint8_t *dst = m->w->model + ckf_pages_to_bytes(page);

	img_op(&m->b, place(page), chunk, first, nr);
	if (page < AREA_CHECK)
		memcpy(dst, m->pages[chunk] + ckf_pages_to_bytes(first), ckf_pages_to_bytes(nr));
}

/* The rest of the first extent is padding: two workers of verify get one extent each. */
static void next_extent(struct maker *m)
{
	const uint64_t have = m->b.idx.pack_bytes;

	m->b.idx.pack_bytes = m->b.idx.extent_bytes;
	m->b.pack = realloc(m->b.pack, m->b.idx.pack_bytes);
	need(m->b.pack, "no memory");
	memset(m->b.pack + have, 0, m->b.idx.pack_bytes - have);
}

/*
 * Each way in which a chunk gets to its place: raw in one read or in pieces, packed whole or in
 * part, zeros, huge pages (two ranges that are one), shared pages equal or not, checked only.
 */
static void make_image(struct maker *m)
{
	struct img_builder *b = &m->b;
	uint32_t zero, raw, lz4, zstd, bf16, huge, late, file;

	zero = img_chunk(b, CKF_CODEC_ZERO, NULL, 3);
	m->pages[zero] = calloc(3, CKF_PAGE_BYTES);
	need(m->pages[zero], "no memory");
	raw = add_chunk(m, CKF_CODEC_RAW, 4);
	lz4 = add_chunk(m, CKF_CODEC_LZ4, 8);
	zstd = add_chunk(m, CKF_CODEC_ZSTD, 9);
	bf16 = add_chunk(m, CKF_CODEC_BF16, 6);
	huge = add_chunk(m, CKF_CODEC_LZ4, 256);
	next_extent(m);
	late = add_chunk(m, CKF_CODEC_RAW, 5);
	img_file(b, "inventory.img", "inventory", 9);
	file = img_file(b, "pagemap-1.img", "x", 1);
	img_pages_file(b, "pages-1.img", (uint32_t[]){ raw, zero, huge, late }, 4);
	img_link(b, "parent", "../pre");
	img_target(b, CKF_TARGET_TASK, 1, file, 0);
	for (uint32_t page = 0; page < AREA_SMALL; page += 256)
		put(m, page, huge, 0, 256);
	put(m, AREA_SMALL, raw, 0, 4);
	put(m, AREA_SMALL + 4, late, 0, 2);
	put(m, AREA_SMALL + 8, late, 2, 3);
	put(m, AREA_SMALL + 12, zero, 0, 3);
	put(m, AREA_SMALL + 15, lz4, 0, 8);
	put(m, AREA_SMALL + 24, bf16, 0, 6);
	put(m, AREA_SMALL + 30, zstd, 2, 5);
	put(m, AREA_SMALL + 40, raw, 1, 2);
	put(m, AREA_SHARED, raw, 0, 4);
	put(m, AREA_SHARED + 4, zero, 0, 3);
	put(m, AREA_CHECK, zstd, 0, 9);
	img_lanes(b, LANE_OPS);
	img_huge(b, 0, place(0), 2);
}

static int run_open(struct world *w, struct ckf_error *err)
{
	w->opened = NULL;
	return ckf_image_open(w->image_fd, &w->opened, err);
}

static bool same_index(struct ckf_index *a, struct ckf_index *b)
{
	size_t a_bytes, b_bytes;
	void *pa, *pb;
	bool same;

	need(!ckf_index_encode(a, &pa, &a_bytes, NULL), "cannot encode");
	need(!ckf_index_encode(b, &pb, &b_bytes, NULL), "cannot encode");
	same = a_bytes == b_bytes && !memcmp(pa, pb, a_bytes);
	free(pa);
	free(pb);
	return same;
}

static const char *check_open(struct world *w, int ret, bool may_leave)
{
	const char *bad = NULL;

	(void)may_leave;
	if (ret)
		return w->opened ? "an image in spite of the error" : NULL;
	if (!same_index(w->opened->idx, w->image->idx))
		bad = "another index";
	ckf_image_close(w->opened);
	return bad;
}

/* At the same place modulo 2 MiB as in the target. */
static void map_area(struct world *w)
{
	w->map_bytes = AREA_BYTES + CKF_HUGE_BYTES;
	w->map = mmap(NULL, w->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		      0);
	need(w->map != MAP_FAILED, "no memory");
	w->area = (char *)ckf_align_up((uintptr_t)w->map, CKF_HUGE_BYTES);
}

/* As before a fill: of what is shared a part is equal to what it should be, all else is fresh. */
static void reset_area(const struct world *w)
{
	const uint64_t shared = ckf_pages_to_bytes(AREA_SHARED);
	const uint64_t check = ckf_pages_to_bytes(AREA_CHECK);

	need(!madvise(w->area, AREA_BYTES, MADV_DONTNEED), "cannot reset memory");
	memcpy(w->area + shared, w->model + shared, ckf_pages_to_bytes(2));
	memset(w->area + check, SKIPPED, AREA_BYTES - check);
}

static struct ckf_dest dest(const struct world *w, uint32_t first, uint32_t end, uint32_t flags)
{
	char *addr = w->area + ckf_pages_to_bytes(first);

	return (struct ckf_dest){ .start = place(first),
				  .end = place(end),
				  .addr = flags & CKF_DEST_SKIP ? NULL : addr,
				  .prot = PROT_READ | PROT_WRITE,
				  .flags = flags };
}

static int fill(struct world *w, unsigned int threads, uint32_t flags, struct ckf_error *err)
{
	const uint32_t huge = CKF_DEST_FRESH | CKF_DEST_HUGE;
	const struct ckf_dest dests[] = {
		dest(w, 0, HUGE_PAGES, huge),
		dest(w, HUGE_PAGES, AREA_SHARED, huge),
		dest(w, AREA_SHARED, AREA_CHECK, CKF_DEST_SHARED),
		dest(w, AREA_CHECK, AREA_PAGES, CKF_DEST_SKIP | CKF_DEST_CHECK),
	};
	const struct ckf_fill_opts opts = {
		.size = sizeof(opts), .dir_fd = -1, .threads = threads, .flags = flags
	};

	return ckf_fill(w->image, &w->image->idx->targets[0], dests,
			sizeof(dests) / sizeof(dests[0]), &opts, NULL, err);
}

static int run_fill_1(struct world *w, struct ckf_error *err)
{
	return fill(w, 1, 0, err);
}

static int run_fill_3(struct world *w, struct ckf_error *err)
{
	return fill(w, 3, 0, err);
}

static int run_fill_3_cached(struct world *w, struct ckf_error *err)
{
	return fill(w, 3, CKF_FILL_NO_DIRECT | CKF_FILL_NO_HUGE, err);
}

static int run_fill_3_plain(struct world *w, struct ckf_error *err)
{
	return fill(w, 3, CKF_FILL_NO_URING, err);
}

static int run_fill_3_collapse(struct world *w, struct ckf_error *err)
{
	return fill(w, 3, CKF_FILL_NO_MOVE, err);
}

static const char *check_fill(struct world *w, int ret, bool may_leave)
{
	const char *bad = NULL;

	(void)may_leave;
	if (!ret && memcmp(w->area, w->model, AREA_BYTES) != 0)
		bad = "the memory has something else in it";
	reset_area(w);
	return bad;
}

static int run_verify_1(struct world *w, struct ckf_error *err)
{
	return ckf_verify(w->image, CKF_OPTS(ckf_verify_opts, .threads = 1), NULL, err);
}

static int run_verify_3(struct world *w, struct ckf_error *err)
{
	return ckf_verify(w->image, CKF_OPTS(ckf_verify_opts, .threads = 3), NULL, err);
}

static const char *check_nothing(struct world *w, int ret, bool may_leave)
{
	(void)w;
	(void)ret;
	(void)may_leave;
	return NULL;
}

/* Scratch memory is a gain, and so are the buffers of more than one worker. */
#define FILL_MAY_PASS (1ull << FAULT_MMAP)

const struct op load_ops[] = {
	{ "open", 0, 0, NULL, run_open, check_open },
	{ "fill-1", 0, FILL_MAY_PASS, NULL, run_fill_1, check_fill },
	{ "fill-3", 0, FILL_MAY_PASS, NULL, run_fill_3, check_fill },
	{ "fill-3-cached", 0, FILL_MAY_PASS, NULL, run_fill_3_cached, check_fill },
	{ "fill-3-plain", 0, FILL_MAY_PASS, NULL, run_fill_3_plain, check_fill },
	{ "fill-3-collapse", 0, FILL_MAY_PASS, NULL, run_fill_3_collapse, check_fill },
	{ "verify-1", 0, 0, NULL, run_verify_1, check_nothing },
	{ "verify-3", 0, 0, NULL, run_verify_3, check_nothing },
	{ 0 },
};

void load_init(struct world *w)
{
	struct maker m = { .w = w };
	char path[128];
	int base_fd;

	w->model = calloc(AREA_PAGES, CKF_PAGE_BYTES);
	need(w->model, "no memory");
	memset(w->model + ckf_pages_to_bytes(AREA_CHECK), SKIPPED,
	       ckf_pages_to_bytes(AREA_PAGES - AREA_CHECK));
	img_init(&m.b);
	make_image(&m);
	/* Half of the chunks are in another pack. */
	base_fd = dm_mkdir(w->base, "base", path, sizeof(path));
	img_to_base(&m.b, base_fd, "../base");
	close(base_fd);
	w->image_fd = dm_mkdir(w->base, "image", path, sizeof(path));
	need(!img_write(&m.b, w->image_fd), "cannot write the image");
	need(!ckf_image_open(w->image_fd, &w->image, NULL), "cannot open the image");
	for (size_t i = 0; i < sizeof(m.pages) / sizeof(m.pages[0]); i++)
		free(m.pages[i]);
	img_fini(&m.b);
	map_area(w);
	reset_area(w);
}

void load_fini(struct world *w)
{
	munmap(w->map, w->map_bytes);
	ckf_image_close(w->image);
	close(w->image_fd);
	free(w->model);
}
