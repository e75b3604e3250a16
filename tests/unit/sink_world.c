/* SPDX-License-Identifier: MIT */
/* Makes images for tests of ckf_fill_sink(), and compares device memory with what they hold. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "loader/ckf_fill_sink.h"
#include "around.h"
#include "mem_sink.h"
#include "sink_world.h"

#define AREA_PAGES (SW_AREA_BYTES / CKF_PAGE_BYTES)
#define LANE_OPS 24

#define A_BYTES (3ull << 20)
#define B_BYTES (5ull << 20)
#define C_BYTES (SW_AREA_BYTES - A_BYTES - B_BYTES)

static uint32_t new_chunk(struct sink_world *w, uint64_t *seed, uint32_t codec, uint16_t nr)
{
	size_t bytes = (size_t)nr * CKF_PAGE_BYTES;
	uint64_t *pages = malloc(bytes);
	uint32_t chunk;

	assert_non_null(pages);
	for (size_t i = 0; i < bytes / 8; i++)
		pages[i] = img_rand(seed) | (codec == CKF_CODEC_RAW ? 0 : 0xfefefefefefefefeull);
	chunk = img_chunk(&w->b, codec, pages, nr);
	free(pages);
	return chunk;
}

static uint32_t random_chunk(struct sink_world *w, uint64_t *seed, uint16_t nr)
{
	static const uint32_t codecs[] = { CKF_CODEC_RAW, CKF_CODEC_RAW, CKF_CODEC_LZ4,
					   CKF_CODEC_ZSTD };

	return new_chunk(w, seed, codecs[img_rand(seed) % 4], nr);
}

/*
 * Ops over the whole area: a raw chunk that is read in whole pieces, without a rest; then whole
 * chunks, parts of them, chunks seen before, zeros.
 */
static void random_plan(struct sink_world *w, uint64_t seed)
{
	const uint32_t zero = img_chunk(&w->b, CKF_CODEC_ZERO, NULL, 64);
	uint32_t chunk = 0, old = 0;
	uint16_t nr, old_nr = 0;
	uint64_t page = SW_EXACT_PAGES;

	img_op(&w->b, SW_BASE, new_chunk(w, &seed, CKF_CODEC_RAW, SW_EXACT_PAGES), 0,
	       SW_EXACT_PAGES);
	while (page < AREA_PAGES) {
		uint16_t first = 0;

		nr = (uint16_t)(1 + img_rand(&seed) % (img_rand(&seed) % 4 ? 20 : 400));
		switch (img_rand(&seed) % 5) {
		case 0:
			chunk = zero;
			nr = (uint16_t)(nr % 64 + 1);
			break;
		case 1:
			if (!old_nr)
				continue;
			chunk = old;
			nr = old_nr;
			break;
		case 2:
			chunk = random_chunk(w, &seed, nr);
			first = nr / 3;
			break;
		default:
			chunk = old = random_chunk(w, &seed, nr);
			old_nr = nr;
		}
		if (page + nr - first > AREA_PAGES)
			nr = (uint16_t)(AREA_PAGES - page + first);
		img_op(&w->b, SW_BASE + page * CKF_PAGE_BYTES, chunk, first,
		       (uint16_t)(nr - first));
		page += nr - first;
	}
}

/* What the area must hold, by the plan and the pack. */
static void make_model(struct sink_world *w)
{
	const struct ckf_index *idx = w->img->idx;
	struct ckf_codec_ctx *ctx;
	void *stored = aligned_alloc(CKF_PAGE_BYTES, 4u << 20);
	uint8_t *pages = malloc(4u << 20);
	int *fds;

	w->model = malloc(SW_AREA_BYTES);
	assert_true(stored && pages && w->model && !ckf_codec_ctx_new(&ctx));
	assert_int_equal(ckf_image_open_packs(w->img, w->dir_fd, &fds, NULL), 0);
	for (uint64_t i = 0; i < idx->nr_ops; i++) {
		const struct ckf_op *op = &idx->ops[i];

		assert_int_equal(ckf_image_read_chunk(w->img, fds[idx->chunks[op->chunk].base],
						      op->chunk, ctx, stored, pages, NULL),
				 0);
		memcpy(w->model + (ckf_op_addr(op) - SW_BASE),
		       pages + ckf_pages_to_bytes(op->first_page),
		       ckf_pages_to_bytes(op->nr_pages));
	}
	ckf_codec_ctx_free(ctx);
	free(stored);
	free(pages);
	ckf_image_close_packs(w->img, fds);
}

static void add_dest(struct sink_world *w, unsigned int i, uint64_t start, uint64_t bytes, int sink)
{
	w->dests[i] = (struct ckf_sink_dest){
		.start = start,
		.end = start + bytes,
		.sink = w->sinks[sink],
	};
	assert_int_equal(mem_sink_ops.alloc(w->sinks[sink], bytes, &w->dests[i].mem, NULL), 0);
}

void sw_add_dests(struct sink_world *w)
{
	add_dest(w, 0, SW_BASE, A_BYTES, 0);
	add_dest(w, 1, SW_BASE + A_BYTES, B_BYTES, 1);
	add_dest(w, 2, SW_BASE + A_BYTES + B_BYTES, C_BYTES, 0);
}

void sw_free_dests(struct sink_world *w)
{
	for (unsigned int i = 0; i < SW_NR_DESTS; i++)
		mem_sink_ops.free(w->dests[i].mem);
}

void sw_open_sinks(struct sink_world *w, unsigned int nr_slots)
{
	struct ckf_sink_opts o = {
		.size = sizeof(o),
		.slot_bytes = SW_SLOT_BYTES,
		.nr_slots = nr_slots,
		.nr_streams = 2,
	};

	for (int i = 0; i < 2; i++)
		assert_int_equal(mem_sink_ops.open(&o, &w->sinks[i], NULL), 0);
}

void sw_close_sinks(struct sink_world *w)
{
	for (int i = 0; i < 2; i++)
		mem_sink_ops.close(w->sinks[i]);
}

void sw_begin(struct sink_world *w, uint64_t seed)
{
	memset(w, 0, sizeof(*w));
	w->base_fd = -1;
	print_message("seed %llu\n", (unsigned long long)seed);
	snprintf(w->dir, sizeof(w->dir), "/var/tmp/ckf-sink-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	w->dir_fd = open(w->dir, O_RDONLY | O_DIRECTORY);
	img_init(&w->b);
	w->b.packed = seed % 3 < 2;
	img_file(&w->b, "ckfast-gpu-1.img", "x", 1);
	img_target(&w->b, CKF_TARGET_DEVICE, 1, 0, 0);
}

void sw_end(struct sink_world *w, bool based)
{
	img_lanes(&w->b, LANE_OPS);
	if (based) {
		assert_int_equal(mkdirat(w->dir_fd, "base", 0700), 0);
		w->base_fd = openat(w->dir_fd, "base", O_RDONLY | O_DIRECTORY);
		img_to_base(&w->b, w->base_fd, "base");
	}
	assert_int_equal(img_write(&w->b, w->dir_fd), 0);
	assert_int_equal(ckf_image_open(w->dir_fd, &w->img, NULL), 0);
	make_model(w);
	mem_sink_fail(MEM_SINK_ANY, 0);
}

void sw_init(struct sink_world *w, uint64_t seed)
{
	sw_begin(w, seed);
	random_plan(w, seed);
	sw_end(w, seed % 2 == 0);
}

void sw_fini(struct sink_world *w)
{
	ckf_image_close(w->img);
	img_fini(&w->b);
	unlinkat(w->dir_fd, CKF_IDX_NAME, 0);
	unlinkat(w->dir_fd, CKF_PACK_NAME, 0);
	unlinkat(w->dir_fd, "ckfast-gpu-1.img", 0);
	if (w->base_fd >= 0) {
		unlinkat(w->base_fd, CKF_IDX_NAME, 0);
		unlinkat(w->base_fd, CKF_PACK_NAME, 0);
		close(w->base_fd);
		unlinkat(w->dir_fd, "base", AT_REMOVEDIR);
	}
	close(w->dir_fd);
	rmdir(w->dir);
	free(w->model);
}

void sw_assert_dests(const struct sink_world *w)
{
	for (unsigned int i = 0; i < SW_NR_DESTS; i++) {
		const struct ckf_sink_dest *d = &w->dests[i];
		const uint8_t *got = mem_sink_bytes(d->mem);
		const uint8_t *want = w->model + (d->start - SW_BASE);

		for (uint64_t off = 0; off < d->end - d->start; off += CKF_PAGE_BYTES)
			if (memcmp(got + off, want + off, CKF_PAGE_BYTES))
				fail_msg("dest %u differs at %llu", i, (unsigned long long)off);
	}
}

int sw_fill(struct sink_world *w, uint32_t flags, unsigned int threads,
	    struct ckf_fill_stats *stats, struct ckf_error *err)
{
	struct ckf_fill_opts o = {
		.size = sizeof(o), .dir_fd = -1, .threads = threads, .flags = flags
	};

	return ckf_fill_sink(w->img, &w->img->idx->targets[0], &mem_sink_ops, w->dests, SW_NR_DESTS,
			     &o, stats, err);
}

void sw_drop_caches(struct sink_world *w)
{
	drop_cache(w->dir_fd);
	drop_cache(w->base_fd);
}

void sw_count_all(struct sink_world *w)
{
	w->tasks = count_entries("/proc/self/task");
	w->fds = count_entries("/proc/self/fd");
}

void sw_assert_clean(struct sink_world *w)
{
	assert_true(mem_sink_idle(w->sinks[0]) && mem_sink_idle(w->sinks[1]));
	assert_true(few_threads(w->tasks));
	assert_int_equal(count_entries("/proc/self/fd"), w->fds);
}

void sw_flip(int fd, off_t off)
{
	uint8_t byte;

	assert_int_equal(pread(fd, &byte, 1, off), 1);
	byte ^= 4;
	assert_int_equal(pwrite(fd, &byte, 1, off), 1);
}
