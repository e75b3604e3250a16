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
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "loader/ckf_fill_sink.h"
#include "loader/ckf_gpu_read.h"
#include "loader/ckf_image.h"
#include "around.h"
#include "mem_sink.h"
#include "sink_world.h"

static void test_roads(void **state)
{
	static const uint32_t flags[] = { 0, CKF_FILL_NO_URING, CKF_FILL_NO_DIRECT,
					  CKF_FILL_NO_URING | CKF_FILL_NO_DIRECT };

	(void)state;
	for (uint64_t seed = 1; seed <= 3; seed++) {
		struct sink_world w;

		sw_init(&w, seed);
		/* One slot for each device: workers have to wait for each other. */
		sw_open_sinks(&w, (unsigned int)seed * 2 - 1);
		for (unsigned int i = 0; i < 16; i++) {
			unsigned int threads = i / 4 % 2 ? 4 : 1;
			struct ckf_fill_stats stats = { .size = sizeof(stats) };
			struct ckf_error err = { 0 };

			sw_add_dests(&w);
			if (i < 8)
				sw_drop_caches(&w);
			sw_count_all(&w);
			if (sw_fill(&w, flags[i % 4], threads, &stats, &err))
				fail_msg("road %u: %s", i, err.msg);
			sw_assert_clean(&w);
			sw_assert_dests(&w);
			assert_int_equal(stats.filled_bytes + stats.zero_bytes, SW_AREA_BYTES);
			assert_true(stats.zero_bytes > 0 && stats.read_bytes > 0);
			if (i < 8)
				assert_int_equal(stats.uring, have_uring() && !(flags[i % 4] &
										CKF_FILL_NO_URING));
			if (flags[i % 4] & CKF_FILL_NO_DIRECT)
				assert_false(stats.direct);
			assert_true(stats.workers == threads ||
				    stats.workers == w.img->idx->nr_lanes);
			sw_free_dests(&w);
		}
		sw_close_sinks(&w);
		sw_fini(&w);
	}
}

/* One worker uses all streams of a device: each may be an engine. */
static void test_streams(void **state)
{
	struct sink_world w;

	(void)state;
	sw_init(&w, 1);
	sw_open_sinks(&w, 4);
	sw_add_dests(&w);
	sw_count_all(&w);
	assert_int_equal(sw_fill(&w, 0, 1, NULL, NULL), 0);
	sw_assert_clean(&w);
	sw_assert_dests(&w);
	for (int i = 0; i < 2; i++)
		assert_int_equal(mem_sink_streams(w.sinks[i]), 3);
	sw_free_dests(&w);
	sw_close_sinks(&w);
	sw_fini(&w);
}

struct hooks {
	unsigned int wanted; /* as many as there are lanes, up to 4 */
	unsigned int allowed;
	bool refused;
	atomic_uint asked; /* worker_ok() */
	unsigned int after;
};

static unsigned int before_workers(void *arg, unsigned int wanted)
{
	struct hooks *h = arg;

	assert_int_equal(wanted, h->wanted);
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
			struct sink_world w;

			sw_init(&w, 5);
			h.wanted = w.img->idx->nr_lanes < 4 ? (unsigned int)w.img->idx->nr_lanes
							    : 4;
			sw_open_sinks(&w, 4);
			sw_add_dests(&w);
			assert_int_equal(ckf_fill_sink(w.img, &w.img->idx->targets[0],
						       &mem_sink_ops, w.dests, SW_NR_DESTS, &o,
						       NULL, &err),
					 0);
			sw_assert_dests(&w);
			assert_int_equal(h.after, 1);
			assert_int_equal(h.asked, allowed > 1 ? allowed : 0);
			sw_free_dests(&w);
			sw_close_sinks(&w);
			sw_fini(&w);
		}
	}
}

/* Pages that chunks share are read with the first of them; a slot takes the longest chunk whole. */
static void test_tight(void **state)
{
	static const uint32_t flags[] = { 0, CKF_FILL_NO_URING, CKF_FILL_NO_DIRECT };
	struct sink_world w;
	uint8_t *pages = malloc(SW_SLOT_BYTES);
	uint64_t addr = SW_BASE;
	uint32_t chunk, zero;
	uint16_t nr;

	(void)state;
	assert_non_null(pages);
	sw_begin(&w, 31);
	zero = img_chunk(&w.b, CKF_CODEC_ZERO, NULL, 1);
	assert_int_equal(ckf_pages_to_bytes(w.b.idx.max_chunk_pages), SW_SLOT_BYTES);
	for (unsigned int i = 0; i < IMG_TIGHT_CHUNKS; i++, addr += ckf_pages_to_bytes(nr)) {
		chunk = img_tight_chunk(&w.b, i, pages, &nr);
		img_op(&w.b, addr, chunk, 0, nr);
	}
	for (; addr < SW_BASE + SW_AREA_BYTES; addr += CKF_PAGE_BYTES)
		img_op(&w.b, addr, zero, 0, 1);
	sw_end(&w, false);
	sw_open_sinks(&w, 4);
	for (unsigned int i = 0; i < 2 * 3; i++) {
		struct ckf_fill_stats stats = { .size = sizeof(stats) };
		struct ckf_error err = { 0 };

		sw_add_dests(&w);
		if (i < 3)
			sw_drop_caches(&w);
		sw_count_all(&w);
		if (sw_fill(&w, flags[i % 3], 1, &stats, &err))
			fail_msg("road %u: %s", i, err.msg);
		sw_assert_clean(&w);
		sw_assert_dests(&w);
		/* The longest has a slot and a read of its own. */
		assert_in_range(stats.read_bytes, w.b.idx.pack_bytes - CKF_PAGE_BYTES,
				w.b.idx.pack_bytes + CKF_PAGE_BYTES);
		sw_free_dests(&w);
	}
	sw_close_sinks(&w);
	sw_fini(&w);
	free(pages);
}

/* All of it is in the page cache then, so that threads read it piece by piece. */
static void read_pack(const struct sink_world *w)
{
	int fd = openat(w->dir_fd, CKF_PACK_NAME, O_RDONLY);
	static char buf[1 << 20];

	while (read(fd, buf, sizeof(buf)) > 0)
		;
	close(fd);
}

static void fails_at_chunk(struct sink_world *w, uint64_t chunk, bool cold)
{
	struct ckf_error err = { 0 };

	sw_add_dests(w);
	if (cold)
		sw_drop_caches(w);
	else
		read_pack(w);
	sw_count_all(w);
	assert_int_equal(sw_fill(w, 0, 1 + chunk % 3, NULL, &err), -EBADMSG);
	sw_assert_clean(w);
	assert_non_null(strstr(err.msg, "chunks["));
	sw_free_dests(w);
}

/* A byte of the pack that changed is told, on all roads, and before the fill says that all is well.
 */
static void test_bad_checksum(void **state)
{
	struct sink_world w;
	int fd;

	(void)state;
	sw_init(&w, 5);
	sw_open_sinks(&w, 4);
	fd = openat(w.dir_fd, CKF_PACK_NAME, O_RDWR);
	for (uint64_t i = 0; i < w.img->idx->nr_chunks; i++) {
		const struct ckf_chunk *c = &w.img->idx->chunks[i];
		off_t off = (off_t)(c->pack_off + c->stored_bytes - 1);

		if (c->codec == CKF_CODEC_ZERO)
			continue;
		sw_flip(fd, off);
		fails_at_chunk(&w, i, i % 2);
		if (c->nr_pages == SW_EXACT_PAGES)
			fails_at_chunk(&w, i, i % 2 == 0);
		sw_flip(fd, off);
	}
	close(fd);
	sw_close_sinks(&w);
	sw_fini(&w);
}

/* Every call fails once: an error, no slot and no copy left; the next try succeeds. */
static void fail_each(struct sink_world *w, enum mem_sink_call call,
		      int (*run)(struct sink_world *w, unsigned int threads, struct ckf_error *err))
{
	unsigned int calls;

	mem_sink_fail(call, 0);
	sw_add_dests(w);
	assert_int_equal(run(w, 3, NULL), 0);
	calls = mem_sink_count(call);
	sw_free_dests(w);
	assert_true(calls > 0);
	for (unsigned int n = 1; n <= calls; n++) {
		struct ckf_error err = { 0 };

		mem_sink_fail(call, n);
		sw_add_dests(w);
		sw_count_all(w);
		assert_int_equal(run(w, 1 + n % 3, &err), -EIO);
		sw_assert_clean(w);
		assert_non_null(strstr(err.msg, "injected"));
		mem_sink_fail(call, 0);
		assert_int_equal(run(w, 2, NULL), 0);
		sw_assert_dests(w);
		sw_free_dests(w);
	}
}

static int run_image(struct sink_world *w, unsigned int threads, struct ckf_error *err)
{
	return sw_fill(w, 0, threads, NULL, err);
}

static void test_failures(void **state)
{
	struct sink_world w;

	(void)state;
	sw_init(&w, 6);
	sw_open_sinks(&w, 3);
	for (int call = MEM_SINK_TAKE; call < MEM_SINK_CALLS; call++)
		fail_each(&w, (enum mem_sink_call)call, run_image);
	sw_close_sinks(&w);
	sw_fini(&w);
}

/* Somebody else has all slots, until the watch over the workers says that nothing happens. */
static struct ckf_sink_slot held[2][4];

static void release(void *arg)
{
	struct sink_world *w = arg;

	for (int i = 0; i < 8; i++)
		if (held[i / 4][i % 4].addr)
			mem_sink_ops.slot_put(w->sinks[i / 4], &held[i / 4][i % 4]);
	memset(held, 0, sizeof(held));
}

static void test_stalled(void **state)
{
	struct sink_world w;
	struct ckf_fill_opts o = {
		.size = sizeof(o), .dir_fd = -1, .timeout_ms = 20, .stalled = release, .arg = &w
	};

	(void)state;
	for (o.threads = 1; o.threads <= 3; o.threads += 2) {
		sw_init(&w, 9);
		sw_open_sinks(&w, 4);
		for (int i = 0; i < 8; i++)
			assert_int_equal(
				mem_sink_ops.slot_take(w.sinks[i / 4], &held[i / 4][i % 4], NULL),
				0);
		sw_add_dests(&w);
		assert_int_equal(ckf_fill_sink(w.img, &w.img->idx->targets[0], &mem_sink_ops,
					       w.dests, SW_NR_DESTS, &o, NULL, NULL),
				 0);
		assert_null(held[0][0].addr);
		sw_assert_dests(&w);
		sw_free_dests(&w);
		sw_close_sinks(&w);
		sw_fini(&w);
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
	struct sink_world w;

	(void)state;
	sw_init(&w, 7);
	sw_open_sinks(&w, 3);
	sw_add_dests(&w);
	assert_int_equal(ckf_fill_sink(w.img, &w.img->idx->targets[0], &mem_sink_ops, w.dests,
				       SW_NR_DESTS, &o, NULL, NULL),
			 -EINVAL);
	w.dests[1].end -= CKF_PAGE_BYTES;
	assert_int_equal(sw_fill(&w, 0, 2, NULL, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "no memory was made"));
	w.dests[1].end += 2 * CKF_PAGE_BYTES;
	assert_int_equal(sw_fill(&w, 0, 2, NULL, NULL), -EINVAL);
	w.dests[1].end -= CKF_PAGE_BYTES;
	sw_free_dests(&w);
	sw_close_sinks(&w);
	for (int i = 0; i < 2; i++)
		assert_int_equal(mem_sink_ops.open(&small, &w.sinks[i], NULL), 0);
	sw_add_dests(&w);
	err.code = 0;
	assert_int_equal(sw_fill(&w, 0, 2, NULL, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "smaller than a chunk"));
	sw_free_dests(&w);
	sw_close_sinks(&w);
	sw_fini(&w);
}

/* A plain dump of the same memory: three allocations, of which one is on another device. */
static struct ckf_gpu_device devices[2];
static struct ckf_gpu_alloc allocs[] = {
	{ .addr = SW_BASE, .bytes = 4ull << 20 },
	{ .addr = SW_BASE + (4ull << 20), .bytes = 6ull << 20 },
	{ .addr = SW_BASE + (10ull << 20), .bytes = 2ull << 20 },
};
static const struct ckf_gpu_dump dump = {
	.pid = 1,
	.devices = devices,
	.nr_devices = 2,
	.allocs = allocs,
	.nr_allocs = 3,
	.bytes = SW_AREA_BYTES,
};

/* The file gets holes where the model is zero, but for single pages. */
static int make_file(struct sink_world *w)
{
	char name[] = "/dev/shm/ckf-sink-XXXXXX";
	int fd = mkstemp(name);

	assert_true(fd >= 0 && !unlink(name));
	memset(w->model + (1u << 20), 0, 3u << 20);
	memset(w->model + (9u << 20) + 3 * CKF_PAGE_BYTES, 0, CKF_PAGE_BYTES);
	assert_int_equal(ftruncate(fd, SW_AREA_BYTES), 0);
	for (uint64_t off = 0; off < SW_AREA_BYTES; off += CKF_PAGE_BYTES)
		if (!ckf_is_zero(w->model + off, CKF_PAGE_BYTES) || off == 2u << 20)
			assert_int_equal(pwrite(fd, w->model + off, CKF_PAGE_BYTES, (off_t)off),
					 CKF_PAGE_BYTES);
	return fd;
}

static int file_fd;

static int run_file(struct sink_world *w, unsigned int threads, struct ckf_error *err)
{
	struct ckf_fill_opts o = { .size = sizeof(o), .dir_fd = -1, .threads = threads };
	struct ckf_fill_stats stats = { .size = sizeof(stats) };
	int ret = ckf_fill_sink_file(file_fd, &dump, &mem_sink_ops, w->dests, SW_NR_DESTS, &o,
				     &stats, err);

	if (!ret) {
		assert_int_equal(stats.filled_bytes + stats.zero_bytes, SW_AREA_BYTES);
		assert_int_equal(stats.read_bytes, stats.filled_bytes);
		assert_true(stats.zero_bytes >= 2u << 20);
	}
	return ret;
}

static void test_file(void **state)
{
	struct ckf_error err = { 0 };
	struct sink_world w;

	(void)state;
	sw_init(&w, 8);
	file_fd = make_file(&w);
	for (unsigned int slots = 1; slots <= 4; slots += 3) {
		sw_open_sinks(&w, slots);
		for (unsigned int threads = 1; threads <= 3; threads++) {
			sw_add_dests(&w);
			sw_count_all(&w);
			assert_int_equal(run_file(&w, threads, NULL), 0);
			sw_assert_clean(&w);
			sw_assert_dests(&w);
			sw_free_dests(&w);
		}
		sw_close_sinks(&w);
	}
	sw_open_sinks(&w, 2);
	for (int call = MEM_SINK_TAKE; call < MEM_SINK_CALLS; call++)
		fail_each(&w, (enum mem_sink_call)call, run_file);
	sw_add_dests(&w);
	w.dests[2].end -= CKF_PAGE_BYTES;
	assert_int_equal(run_file(&w, 1, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "no memory was made"));
	assert_int_equal(ftruncate(file_fd, SW_AREA_BYTES - CKF_PAGE_BYTES), 0);
	err.code = 0;
	assert_int_equal(run_file(&w, 1, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "R-gpu: length"));
	sw_free_dests(&w);
	sw_close_sinks(&w);
	close(file_fd);
	sw_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_roads),	     cmocka_unit_test(test_streams),
		cmocka_unit_test(test_bad_checksum), cmocka_unit_test(test_failures),
		cmocka_unit_test(test_refused),	     cmocka_unit_test(test_file),
		cmocka_unit_test(test_stalled),	     cmocka_unit_test(test_tight),
		cmocka_unit_test(test_hooks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
