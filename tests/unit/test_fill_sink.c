/* SPDX-License-Identifier: MIT */
/*
 * Device memory: every byte of a plan, or of a plain dump, arrives on the device that it belongs
 * to, by every road; nothing else is touched; nothing is left behind, whatever fails and when.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "loader/ckf_fill_sink.h"
#include "loader/ckf_gpu_read.h"
#include "loader/ckf_image.h"
#include "loader/ckf_kept.h"
#include "around.h"
#include "img_builder.h"
#include "mem_sink.h"

#define BASE 0x7f0000000000ull
#define AREA_BYTES (12ull << 20)
#define AREA_PAGES (AREA_BYTES / CKF_PAGE_BYTES)
#define SLOT_BYTES (2u << 20)
#define LANE_OPS 24

/*
 * Two devices and three ranges: A on the first device, B right behind it on the second, and C on
 * the first again. Ops cross the border of A and B.
 */
#define A_BYTES (3ull << 20)
#define B_BYTES (5ull << 20)
#define C_BYTES (AREA_BYTES - A_BYTES - B_BYTES)
#define NR_DESTS 3
#define EXACT_PAGES 256 /* two pieces of what a thread reads at a time, without a rest */

struct world {
	char dir[64];
	int dir_fd;
	int base_fd; /* a base of half the chunks, of worlds with an even seed; else -1 */
	struct img_builder b;
	struct ckf_image *img;
	uint8_t *model;
	struct ckf_sink *sinks[2];
	struct ckf_sink_dest dests[NR_DESTS];
	unsigned int tasks;
	unsigned int fds;
};

static uint32_t new_chunk(struct world *w, uint64_t *seed, uint32_t codec, uint16_t nr)
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

static uint32_t random_chunk(struct world *w, uint64_t *seed, uint16_t nr)
{
	static const uint32_t codecs[] = { CKF_CODEC_RAW, CKF_CODEC_RAW, CKF_CODEC_LZ4,
					   CKF_CODEC_ZSTD };

	return new_chunk(w, seed, codecs[img_rand(seed) % 4], nr);
}

/*
 * Ops over the whole area: a raw chunk that is read in whole pieces, without a rest; then whole
 * chunks, parts of them, chunks seen before, zeros.
 */
static void random_plan(struct world *w, uint64_t seed)
{
	const uint32_t zero = img_chunk(&w->b, CKF_CODEC_ZERO, NULL, 64);
	uint32_t chunk = 0, old = 0;
	uint16_t nr, old_nr = 0;
	uint64_t page = EXACT_PAGES;

	img_op(&w->b, BASE, new_chunk(w, &seed, CKF_CODEC_RAW, EXACT_PAGES), 0, EXACT_PAGES);
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
		img_op(&w->b, BASE + page * CKF_PAGE_BYTES, chunk, first, (uint16_t)(nr - first));
		page += nr - first;
	}
}

/* What the area must hold, by the plan and the pack. */
static void make_model(struct world *w)
{
	const struct ckf_index *idx = w->img->idx;
	struct ckf_codec_ctx *ctx;
	void *stored = aligned_alloc(CKF_PAGE_BYTES, 4u << 20);
	uint8_t *pages = malloc(4u << 20);
	int *fds;

	w->model = malloc(AREA_BYTES);
	assert_true(stored && pages && w->model && !ckf_codec_ctx_new(&ctx));
	assert_int_equal(ckf_image_open_packs(w->img, w->dir_fd, &fds, NULL), 0);
	for (uint64_t i = 0; i < idx->nr_ops; i++) {
		const struct ckf_op *op = &idx->ops[i];

		assert_int_equal(ckf_image_read_chunk(w->img, fds[idx->chunks[op->chunk].base],
						      op->chunk, ctx, stored, pages, NULL),
				 0);
		memcpy(w->model + (ckf_op_addr(op) - BASE),
		       pages + ckf_pages_to_bytes(op->first_page),
		       ckf_pages_to_bytes(op->nr_pages));
	}
	ckf_codec_ctx_free(ctx);
	free(stored);
	free(pages);
	ckf_image_close_packs(w->img, fds);
}

static void add_dest(struct world *w, unsigned int i, uint64_t start, uint64_t bytes, int sink)
{
	w->dests[i] = (struct ckf_sink_dest){
		.start = start,
		.end = start + bytes,
		.sink = w->sinks[sink],
	};
	assert_int_equal(mem_sink_ops.alloc(w->sinks[sink], bytes, &w->dests[i].mem, NULL), 0);
}

static void add_dests(struct world *w)
{
	add_dest(w, 0, BASE, A_BYTES, 0);
	add_dest(w, 1, BASE + A_BYTES, B_BYTES, 1);
	add_dest(w, 2, BASE + A_BYTES + B_BYTES, C_BYTES, 0);
}

static void free_dests(struct world *w)
{
	for (unsigned int i = 0; i < NR_DESTS; i++)
		mem_sink_ops.free(w->dests[i].mem);
}

static void open_sinks(struct world *w, unsigned int nr_slots)
{
	struct ckf_sink_opts o = {
		.size = sizeof(o),
		.slot_bytes = SLOT_BYTES,
		.nr_slots = nr_slots,
		.nr_streams = 2,
	};

	for (int i = 0; i < 2; i++)
		assert_int_equal(mem_sink_ops.open(&o, &w->sinks[i], NULL), 0);
}

static void close_sinks(struct world *w)
{
	for (int i = 0; i < 2; i++)
		mem_sink_ops.close(w->sinks[i]);
}

static void world_begin(struct world *w, uint64_t seed)
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

static void world_end(struct world *w, bool based)
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

static void world_init(struct world *w, uint64_t seed)
{
	world_begin(w, seed);
	random_plan(w, seed);
	world_end(w, seed % 2 == 0);
}

static void world_fini(struct world *w)
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

/* All bytes of the dests are those of the model. */
static void assert_dests(const struct world *w)
{
	for (unsigned int i = 0; i < NR_DESTS; i++) {
		const struct ckf_sink_dest *d = &w->dests[i];
		const uint8_t *got = mem_sink_bytes(d->mem);
		const uint8_t *want = w->model + (d->start - BASE);

		for (uint64_t off = 0; off < d->end - d->start; off += CKF_PAGE_BYTES)
			if (memcmp(got + off, want + off, CKF_PAGE_BYTES))
				fail_msg("dest %u differs at %llu", i, (unsigned long long)off);
	}
}

static int fill(struct world *w, uint32_t flags, unsigned int threads, struct ckf_fill_stats *stats,
		struct ckf_error *err)
{
	struct ckf_fill_opts o = {
		.size = sizeof(o), .dir_fd = -1, .threads = threads, .flags = flags
	};

	return ckf_fill_sink(w->img, &w->img->idx->targets[0], &mem_sink_ops, w->dests, NR_DESTS,
			     &o, stats, err);
}

static void drop_caches(struct world *w)
{
	drop_cache(w->dir_fd);
	drop_cache(w->base_fd);
}

static void count_all(struct world *w)
{
	w->tasks = count_entries("/proc/self/task");
	w->fds = count_entries("/proc/self/fd");
}

static void assert_clean(struct world *w)
{
	assert_true(mem_sink_idle(w->sinks[0]) && mem_sink_idle(w->sinks[1]));
	assert_true(few_threads(w->tasks));
	assert_int_equal(count_entries("/proc/self/fd"), w->fds);
}

static void test_roads(void **state)
{
	static const uint32_t flags[] = { 0, CKF_FILL_NO_URING, CKF_FILL_NO_DIRECT,
					  CKF_FILL_NO_URING | CKF_FILL_NO_DIRECT };

	(void)state;
	for (uint64_t seed = 1; seed <= 3; seed++) {
		struct world w;

		world_init(&w, seed);
		/* One slot for each device: workers have to wait for each other. */
		open_sinks(&w, (unsigned int)seed * 2 - 1);
		for (unsigned int i = 0; i < 16; i++) {
			unsigned int threads = i / 4 % 2 ? 4 : 1;
			struct ckf_fill_stats stats = { .size = sizeof(stats) };
			struct ckf_error err = { 0 };

			add_dests(&w);
			if (i < 8)
				drop_caches(&w);
			count_all(&w);
			if (fill(&w, flags[i % 4], threads, &stats, &err))
				fail_msg("road %u: %s", i, err.msg);
			assert_clean(&w);
			assert_dests(&w);
			assert_int_equal(stats.filled_bytes + stats.zero_bytes, AREA_BYTES);
			assert_true(stats.zero_bytes > 0 && stats.read_bytes > 0);
			if (i < 8)
				assert_int_equal(stats.uring, have_uring() && !(flags[i % 4] &
										CKF_FILL_NO_URING));
			if (flags[i % 4] & CKF_FILL_NO_DIRECT)
				assert_false(stats.direct);
			assert_true(stats.workers == threads ||
				    stats.workers == w.img->idx->nr_lanes);
			free_dests(&w);
		}
		close_sinks(&w);
		world_fini(&w);
	}
}

/* Pages that chunks share are read with the first of them; a slot takes the longest chunk whole. */
struct hooks {
	unsigned int allowed;
	bool refused;
	atomic_uint asked; /* worker_ok() */
	unsigned int after;
};

static unsigned int before_workers(void *arg, unsigned int wanted)
{
	struct hooks *h = arg;

	assert_int_equal(wanted, 4);
	return h->allowed;
}

static void after_workers(void *arg)
{
	((struct hooks *)arg)->after++;
}

static int worker_ok(void *arg, int tid)
{
	struct hooks *h = arg;

	atomic_fetch_add(&h->asked, 1);
	return tid == getpid() || h->refused ? -1 : 0;
}

/* The caller says how many workers there are, and which: without any it does the work itself. */
static void test_hooks(void **state)
{
	(void)state;
	for (unsigned int allowed = 0; allowed <= 3; allowed++) {
		for (int refused = 0; refused < 2; refused++) {
			struct hooks h = { .allowed = allowed, .refused = refused };
			struct ckf_fill_opts o = { .size = sizeof(o),
						   .dir_fd = -1,
						   .threads = 4,
						   .worker_ok = worker_ok,
						   .before_workers = before_workers,
						   .after_workers = after_workers,
						   .arg = &h };
			struct ckf_error err = { 0 };
			struct world w;

			world_init(&w, 5);
			open_sinks(&w, 4);
			add_dests(&w);
			assert_int_equal(ckf_fill_sink(w.img, &w.img->idx->targets[0],
						       &mem_sink_ops, w.dests, NR_DESTS, &o, NULL,
						       &err),
					 0);
			assert_dests(&w);
			assert_int_equal(h.after, 1);
			assert_int_equal(h.asked, allowed > 1 ? allowed : 0);
			free_dests(&w);
			close_sinks(&w);
			world_fini(&w);
		}
	}
}

static void test_tight(void **state)
{
	static const uint32_t flags[] = { 0, CKF_FILL_NO_URING, CKF_FILL_NO_DIRECT };
	struct world w;
	uint8_t *pages = malloc(SLOT_BYTES);
	uint64_t addr = BASE;
	uint32_t chunk, zero;
	uint16_t nr;

	(void)state;
	assert_non_null(pages);
	world_begin(&w, 31);
	zero = img_chunk(&w.b, CKF_CODEC_ZERO, NULL, 1);
	assert_int_equal(ckf_pages_to_bytes(w.b.idx.max_chunk_pages), SLOT_BYTES);
	for (unsigned int i = 0; i < IMG_TIGHT_CHUNKS; i++, addr += ckf_pages_to_bytes(nr)) {
		chunk = img_tight_chunk(&w.b, i, pages, &nr);
		img_op(&w.b, addr, chunk, 0, nr);
	}
	for (; addr < BASE + AREA_BYTES; addr += CKF_PAGE_BYTES)
		img_op(&w.b, addr, zero, 0, 1);
	world_end(&w, false);
	open_sinks(&w, 4);
	for (unsigned int i = 0; i < 2 * 3; i++) {
		struct ckf_fill_stats stats = { .size = sizeof(stats) };
		struct ckf_error err = { 0 };

		add_dests(&w);
		if (i < 3)
			drop_caches(&w);
		count_all(&w);
		if (fill(&w, flags[i % 3], 1, &stats, &err))
			fail_msg("road %u: %s", i, err.msg);
		assert_clean(&w);
		assert_dests(&w);
		/* The longest has a slot and a read of its own. */
		assert_in_range(stats.read_bytes, w.b.idx.pack_bytes - CKF_PAGE_BYTES,
				w.b.idx.pack_bytes + CKF_PAGE_BYTES);
		free_dests(&w);
	}
	close_sinks(&w);
	world_fini(&w);
	free(pages);
}

static void flip(int fd, off_t off)
{
	uint8_t byte;

	assert_int_equal(pread(fd, &byte, 1, off), 1);
	byte ^= 4;
	assert_int_equal(pwrite(fd, &byte, 1, off), 1);
}

/* All of it is in the page cache then, so that threads read it piece by piece. */
static void read_pack(const struct world *w)
{
	int fd = openat(w->dir_fd, CKF_PACK_NAME, O_RDONLY);
	static char buf[1 << 20];

	while (read(fd, buf, sizeof(buf)) > 0)
		;
	close(fd);
}

static void fails_at_chunk(struct world *w, uint64_t chunk, bool cold)
{
	struct ckf_error err = { 0 };

	add_dests(w);
	if (cold)
		drop_caches(w);
	else
		read_pack(w);
	count_all(w);
	assert_int_equal(fill(w, 0, 1 + chunk % 3, NULL, &err), -EBADMSG);
	assert_clean(w);
	assert_non_null(strstr(err.msg, "chunks["));
	free_dests(w);
}

/* A byte of the pack that changed is told, on all roads, and before the fill says that all is well.
 */
static void test_bad_checksum(void **state)
{
	struct world w;
	int fd;

	(void)state;
	world_init(&w, 5);
	open_sinks(&w, 4);
	fd = openat(w.dir_fd, CKF_PACK_NAME, O_RDWR);
	for (uint64_t i = 0; i < w.img->idx->nr_chunks; i++) {
		const struct ckf_chunk *c = &w.img->idx->chunks[i];
		off_t off = (off_t)(c->pack_off + c->stored_bytes - 1);

		if (c->codec == CKF_CODEC_ZERO)
			continue;
		flip(fd, off);
		fails_at_chunk(&w, i, i % 2);
		if (c->nr_pages == EXACT_PAGES)
			fails_at_chunk(&w, i, i % 2 == 0);
		flip(fd, off);
	}
	close(fd);
	close_sinks(&w);
	world_fini(&w);
}

/* Every call fails once: an error, no slot and no copy left; the next try succeeds. */
static void fail_each(struct world *w, enum mem_sink_call call,
		      int (*run)(struct world *w, unsigned int threads, struct ckf_error *err))
{
	unsigned int calls;

	mem_sink_fail(call, 0);
	add_dests(w);
	assert_int_equal(run(w, 3, NULL), 0);
	calls = mem_sink_count(call);
	free_dests(w);
	assert_true(calls > 0);
	for (unsigned int n = 1; n <= calls; n++) {
		struct ckf_error err = { 0 };

		mem_sink_fail(call, n);
		add_dests(w);
		count_all(w);
		assert_int_equal(run(w, 1 + n % 3, &err), -EIO);
		assert_clean(w);
		assert_non_null(strstr(err.msg, "injected"));
		mem_sink_fail(call, 0);
		assert_int_equal(run(w, 2, NULL), 0);
		assert_dests(w);
		free_dests(w);
	}
}

static int run_image(struct world *w, unsigned int threads, struct ckf_error *err)
{
	return fill(w, 0, threads, NULL, err);
}

static void test_failures(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 6);
	open_sinks(&w, 3);
	for (int call = MEM_SINK_TAKE; call < MEM_SINK_CALLS; call++)
		fail_each(&w, (enum mem_sink_call)call, run_image);
	close_sinks(&w);
	world_fini(&w);
}

/* Somebody else has all slots, until the watch over the workers says that nothing happens. */
static struct ckf_sink_slot held[2][4];

static void release(void *arg)
{
	struct world *w = arg;

	for (int i = 0; i < 8; i++)
		if (held[i / 4][i % 4].addr)
			mem_sink_ops.slot_put(w->sinks[i / 4], &held[i / 4][i % 4]);
	memset(held, 0, sizeof(held));
}

static void test_stalled(void **state)
{
	struct world w;
	struct ckf_fill_opts o = {
		.size = sizeof(o), .dir_fd = -1, .timeout_ms = 20, .stalled = release, .arg = &w
	};

	(void)state;
	for (o.threads = 1; o.threads <= 3; o.threads += 2) {
		world_init(&w, 9);
		open_sinks(&w, 4);
		for (int i = 0; i < 8; i++)
			assert_int_equal(
				mem_sink_ops.slot_take(w.sinks[i / 4], &held[i / 4][i % 4], NULL),
				0);
		add_dests(&w);
		assert_int_equal(ckf_fill_sink(w.img, &w.img->idx->targets[0], &mem_sink_ops,
					       w.dests, NR_DESTS, &o, NULL, NULL),
				 0);
		assert_null(held[0][0].addr);
		assert_dests(&w);
		free_dests(&w);
		close_sinks(&w);
		world_fini(&w);
	}
}

/* What the caller or the plan may do wrong. */
static void test_refused(void **state)
{
	struct ckf_sink_opts small = { .size = sizeof(small),
				       .slot_bytes = 16 * CKF_PAGE_BYTES,
				       .nr_slots = 2,
				       .nr_streams = 1 };
	struct ckf_fill_opts o = { .size = sizeof(o.size), .dir_fd = -1 };
	struct ckf_error err = { 0 };
	struct world w;

	(void)state;
	world_init(&w, 7);
	open_sinks(&w, 3);
	add_dests(&w);
	assert_int_equal(ckf_fill_sink(w.img, &w.img->idx->targets[0], &mem_sink_ops, w.dests,
				       NR_DESTS, &o, NULL, NULL),
			 -EINVAL);
	w.dests[1].end -= CKF_PAGE_BYTES;
	assert_int_equal(fill(&w, 0, 2, NULL, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "no memory was made"));
	w.dests[1].end += 2 * CKF_PAGE_BYTES;
	assert_int_equal(fill(&w, 0, 2, NULL, NULL), -EINVAL);
	w.dests[1].end -= CKF_PAGE_BYTES;
	free_dests(&w);
	close_sinks(&w);
	for (int i = 0; i < 2; i++)
		assert_int_equal(mem_sink_ops.open(&small, &w.sinks[i], NULL), 0);
	add_dests(&w);
	err.code = 0;
	assert_int_equal(fill(&w, 0, 2, NULL, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "smaller than a chunk"));
	free_dests(&w);
	close_sinks(&w);
	world_fini(&w);
}

/* A plain dump of the same memory: three allocations, of which one is on another device. */
static struct ckf_gpu_device devices[2];
static struct ckf_gpu_alloc allocs[] = {
	{ .addr = BASE, .bytes = 4ull << 20 },
	{ .addr = BASE + (4ull << 20), .bytes = 6ull << 20 },
	{ .addr = BASE + (10ull << 20), .bytes = 2ull << 20 },
};
static const struct ckf_gpu_dump dump = {
	.pid = 1,
	.devices = devices,
	.nr_devices = 2,
	.allocs = allocs,
	.nr_allocs = 3,
	.bytes = AREA_BYTES,
};

/* The file gets holes where the model is zero, but for single pages. */
static int make_file(struct world *w)
{
	char name[] = "/dev/shm/ckf-sink-XXXXXX";
	int fd = mkstemp(name);

	assert_true(fd >= 0 && !unlink(name));
	memset(w->model + (1u << 20), 0, 3u << 20);
	memset(w->model + (9u << 20) + 3 * CKF_PAGE_BYTES, 0, CKF_PAGE_BYTES);
	assert_int_equal(ftruncate(fd, AREA_BYTES), 0);
	for (uint64_t off = 0; off < AREA_BYTES; off += CKF_PAGE_BYTES)
		if (!ckf_is_zero(w->model + off, CKF_PAGE_BYTES) || off == 2u << 20)
			assert_int_equal(pwrite(fd, w->model + off, CKF_PAGE_BYTES, (off_t)off),
					 CKF_PAGE_BYTES);
	return fd;
}

static int file_fd;

static int run_file(struct world *w, unsigned int threads, struct ckf_error *err)
{
	struct ckf_fill_opts o = { .size = sizeof(o), .dir_fd = -1, .threads = threads };
	struct ckf_fill_stats stats = { .size = sizeof(stats) };
	int ret = ckf_fill_sink_file(file_fd, &dump, &mem_sink_ops, w->dests, NR_DESTS, &o, &stats,
				     err);

	if (!ret) {
		assert_int_equal(stats.filled_bytes + stats.zero_bytes, AREA_BYTES);
		assert_int_equal(stats.read_bytes, stats.filled_bytes);
		assert_true(stats.zero_bytes >= 2u << 20);
	}
	return ret;
}

static void test_file(void **state)
{
	struct ckf_error err = { 0 };
	struct world w;

	(void)state;
	world_init(&w, 8);
	file_fd = make_file(&w);
	for (unsigned int slots = 1; slots <= 4; slots += 3) {
		open_sinks(&w, slots);
		for (unsigned int threads = 1; threads <= 3; threads++) {
			add_dests(&w);
			count_all(&w);
			assert_int_equal(run_file(&w, threads, NULL), 0);
			assert_clean(&w);
			assert_dests(&w);
			free_dests(&w);
		}
		close_sinks(&w);
	}
	open_sinks(&w, 2);
	for (int call = MEM_SINK_TAKE; call < MEM_SINK_CALLS; call++)
		fail_each(&w, (enum mem_sink_call)call, run_file);
	add_dests(&w);
	w.dests[2].end -= CKF_PAGE_BYTES;
	assert_int_equal(run_file(&w, 1, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "no memory was made"));
	assert_int_equal(ftruncate(file_fd, AREA_BYTES - CKF_PAGE_BYTES), 0);
	err.code = 0;
	assert_int_equal(run_file(&w, 1, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "R-gpu: length"));
	free_dests(&w);
	close_sinks(&w);
	close(file_fd);
	world_fini(&w);
}

static atomic_uint uploads_left; /* until one fails */

static int upload(struct ckf_sink *sink, unsigned int stream, struct ckf_sink_mem *mem,
		  uint64_t mem_off, const void *src, uint64_t bytes, struct ckf_error *err)
{
	(void)sink;
	assert_true(stream < 2);
	if (!atomic_fetch_sub(&uploads_left, 1))
		return ckf_error_set(err, -EIO, "made to fail");
	memcpy(mem_sink_bytes(mem) + mem_off, src, bytes);
	return 0;
}

static const struct ckf_kept_ops kept_ops = { .sink = &mem_sink_ops, .upload = upload };

static bool is_kept(const struct world *w, const struct ckf_kept *k)
{
	struct ckf_packs_seen *seen;
	bool is;

	assert_int_equal(ckf_packs_see(w->img, &seen, NULL), 0);
	is = ckf_kept_is_of(k, w->img, seen);
	free(seen);
	return is;
}

static void fill_kept(struct world *w, const struct ckf_kept *k, unsigned int threads)
{
	struct ckf_fill_opts o = { .size = sizeof(o), .dir_fd = -1, .threads = threads };
	struct ckf_fill_stats stats = { .size = sizeof(stats) };
	struct ckf_error err = { 0 };

	add_dests(w);
	count_all(w);
	atomic_store(&uploads_left, UINT32_MAX);
	if (ckf_fill_kept(k, w->img, &w->img->idx->targets[0], &kept_ops, w->dests, NR_DESTS, &o,
			  &stats, &err))
		fail_msg("from kept chunks: %s", err.msg);
	assert_clean(w);
	assert_dests(w);
	assert_int_equal(stats.filled_bytes + stats.zero_bytes, AREA_BYTES);
	assert_int_equal(stats.read_bytes, 0);
	atomic_store(&uploads_left, threads - 1);
	assert_int_equal(ckf_fill_kept(k, w->img, &w->img->idx->targets[0], &kept_ops, w->dests,
				       NR_DESTS, &o, NULL, NULL),
			 -EIO);
	assert_clean(w);
	free_dests(w);
}

static int at_once(void *arg)
{
	(void)arg;
	return 1;
}

static struct ckf_kept *keep(const struct world *w, void **mem)
{
	struct ckf_kept *k;

	assert_int_equal(ckf_kept_new(w->img, &k, NULL), 0);
	assert_true(ckf_kept_bytes(k) > 0);
	*mem = malloc(ckf_kept_bytes(k));
	assert_non_null(*mem);
	assert_int_equal(ckf_kept_load(k, w->img, *mem, 2, at_once, NULL, NULL), -ECANCELED);
	assert_int_equal(ckf_kept_load(k, w->img, *mem, 3, NULL, NULL, NULL), 0);
	return k;
}

/* Chunks that are kept fill the same, until anybody has written to a pack. */
static void test_kept(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 3; seed++) {
		struct ckf_error err = { 0 };
		struct ckf_kept *k;
		struct world w;
		void *mem;
		int fd;

		world_init(&w, seed);
		open_sinks(&w, 1);
		k = keep(&w, &mem);
		assert_true(is_kept(&w, k));
		fill_kept(&w, k, 1);
		fill_kept(&w, k, 4);
		fd = openat(w.base_fd >= 0 ? w.base_fd : w.dir_fd, CKF_PACK_NAME, O_RDWR);
		flip(fd, CKF_PAGE_BYTES);
		assert_int_equal(ckf_kept_load(k, w.img, mem, 2, NULL, NULL, &err), -EBADMSG);
		assert_non_null(strstr(err.msg, "chunks["));
		flip(fd, CKF_PAGE_BYTES);
		assert_false(is_kept(&w, k));
		close(fd);
		ckf_kept_free(k);
		free(mem);
		close_sinks(&w);
		world_fini(&w);
	}
}

/* An image of the same packs, other chunks of which it wants. */
static void test_not_kept(void **state)
{
	struct ckf_target *t;
	struct ckf_kept *k;
	struct world w;
	uint64_t nr_ops;

	(void)state;
	world_init(&w, 1);
	t = &w.img->idx->targets[0];
	nr_ops = t->nr_ops;
	t->nr_ops = 1;
	assert_int_equal(ckf_kept_new(w.img, &k, NULL), 0);
	assert_true(is_kept(&w, k));
	t->nr_ops = nr_ops;
	assert_false(is_kept(&w, k));
	ckf_kept_free(k);
	t->kind = CKF_TARGET_TASK;
	assert_int_equal(ckf_kept_new(w.img, &k, NULL), -ENOENT);
	ckf_kept_free(k);
	world_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_roads),	 cmocka_unit_test(test_bad_checksum),
		cmocka_unit_test(test_failures), cmocka_unit_test(test_refused),
		cmocka_unit_test(test_kept),	 cmocka_unit_test(test_not_kept),
		cmocka_unit_test(test_file),	 cmocka_unit_test(test_stalled),
		cmocka_unit_test(test_tight),	 cmocka_unit_test(test_hooks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
