/* SPDX-License-Identifier: MIT */
/*
 * CKF_FILL_FRUGAL: the same bytes as without it, by one worker, with hardly any memory beside that
 * of the target. The real limits of cgroups are in tests/e2e/082-limits.sh.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "loader/budget.h"
#include "loader/ckf_read.h"
#include "around.h"
#include "fill_world.h"

#define THREADS 4

/* What a fill may take for itself: a read, what is left of a compressed chunk, the state of the
 * decoders, and an error of the kernel's counter. */
#define SPARE_BYTES (640u << 10)

/* The whole area as a dest, of new memory of the kind that the world's target is. */
static struct ckf_dest new_dest(const struct world *w, uint32_t flags)
{
	const int shared = w->img->idx->targets[0].kind == CKF_TARGET_SHMEM;
	struct ckf_dest d = { .start = WORLD_BASE,
			      .end = WORLD_BASE + WORLD_BYTES,
			      .addr = world_map_area(),
			      .prot = PROT_READ | PROT_WRITE,
			      .flags = flags };

	if (shared)
		assert_ptr_equal(mmap(d.addr, WORLD_BYTES, PROT_READ | PROT_WRITE,
				      MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
				 d.addr);
	return d;
}

/* world_fill(), as of one of many tasks, whose reads together keep a disk busy. */
static int fill_of_many(struct world *w, struct ckf_dest *d, uint32_t flags,
			struct ckf_fill_stats *stats, struct ckf_error *err)
{
	int ret;

	w->img->many_readers = true;
	ret = world_fill(w, d, 1, flags, THREADS, stats, err);
	w->img->many_readers = false;
	return ret;
}

static bool is_direct_possible(const struct world *w)
{
	int fd = openat(w->dir_fd, CKF_PACK_NAME, O_RDONLY | O_DIRECT);
	bool cached = fd < 0 || ckf_fd_is_cached(fd, w->img->idx->pack_bytes);

	if (fd >= 0)
		close(fd);
	return !cached;
}

/* Fresh memory, with the flag and without. */
static void same_as_plain(struct world *w, bool many)
{
	static const uint32_t flags[] = { CKF_FILL_FRUGAL, CKF_FILL_FRUGAL | CKF_FILL_NO_URING,
					  CKF_FILL_FRUGAL | CKF_FILL_NO_DIRECT,
					  CKF_FILL_FRUGAL | CKF_FILL_NO_MOVE };
	struct ckf_dest plain = new_dest(w, CKF_DEST_FRESH | CKF_DEST_HUGE);
	bool direct;

	assert_int_equal(world_fill(w, &plain, 1, 0, THREADS, NULL, NULL), 0);
	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
		struct ckf_dest d = new_dest(w, CKF_DEST_FRESH | CKF_DEST_HUGE);
		struct ckf_fill_stats stats = { .size = sizeof(stats) };
		struct ckf_error err = { 0 };

		/* What the kernel makes huge of its own accord is no matter of the fill. */
		(void)madvise(d.addr, WORLD_BYTES, MADV_NOHUGEPAGE);
		drop_cache(w->dir_fd);
		direct = is_direct_possible(w) && !(flags[i] & CKF_FILL_NO_DIRECT);
		if (many ? fill_of_many(w, &d, flags[i], &stats, &err)
			 : world_fill(w, &d, 1, flags[i], THREADS, &stats, &err))
			fail_msg("flags %x: %s", flags[i], err.msg);
		assert_int_equal(stats.workers, 1);
		assert_int_equal(stats.huge_pages, 0);
		assert_int_equal(stats.direct, many && direct);
		world_assert_resident(w, d.addr, false);
		world_assert_area(w, d.addr, 0);
		assert_memory_equal(d.addr, plain.addr, WORLD_BYTES);
		munmap(d.addr, WORLD_BYTES);
	}
	munmap(plain.addr, WORLD_BYTES);
}

/* Small pages with holes between, huge ranges, shared memory; half of them with a base. */
static void test_same(void **state)
{
	struct world w;

	(void)state;
	for (uint64_t seed = 101; seed < 109; seed++) {
		world_make(&w, seed, seed % 2, seed % 4 < 2,
			   seed < 105 ? CKF_TARGET_TASK : CKF_TARGET_SHMEM);
		same_as_plain(&w, false);
		same_as_plain(&w, true);
		world_fini(&w);
	}
}

/* Memory that holds something: all of it is written over, or, where it is the parent's, what
 * differs. */
static void test_not_fresh(void **state)
{
	static const uint32_t flags[] = { 0, CKF_DEST_SHARED };
	struct world w;

	(void)state;
	world_init(&w, 111, false);
	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
		struct ckf_dest d = new_dest(&w, flags[i]);
		struct ckf_fill_stats stats = { .size = sizeof(stats) };

		memset(d.addr, WORLD_BACKGROUND, WORLD_BYTES);
		for (uint64_t p = 0; flags[i] && p < WORLD_PAGES; p++)
			if (w.covered[p] && p % 5)
				memcpy(d.addr + p * CKF_PAGE_BYTES, w.model + p * CKF_PAGE_BYTES,
				       CKF_PAGE_BYTES);
		assert_int_equal(world_fill(&w, &d, 1, CKF_FILL_FRUGAL, THREADS, &stats, NULL), 0);
		assert_int_equal(stats.workers, 1);
		world_assert_area(&w, d.addr, WORLD_BACKGROUND);
		if (flags[i])
			assert_in_range(stats.filled_bytes, 1, stats.shared_bytes);
		munmap(d.addr, WORLD_BYTES);
	}
	world_fini(&w);
}

/* Pages that compress to next to nothing. */
static void dull_pages(char *p, unsigned int nr, unsigned int salt)
{
	for (unsigned int i = 0; i < nr; i++)
		memset(p + (size_t)i * CKF_PAGE_BYTES, (int)(1 + (salt + i) % 255), CKF_PAGE_BYTES);
}

/*
 * Chunks whose buffers would show: raw ones that join to long reads, and others that are far larger
 * than one read of a frugal fill; zeros between them.
 */
static void large_plan(struct world *w)
{
	static const struct {
		uint32_t codec;
		uint16_t nr;
	} kinds[] = { { CKF_CODEC_RAW, 8 },   { CKF_CODEC_RAW, 512 },  { CKF_CODEC_LZ4, 512 },
		      { CKF_CODEC_RAW, 16 },  { CKF_CODEC_ZSTD, 512 }, { CKF_CODEC_RAW, 17 },
		      { CKF_CODEC_BF16, 64 }, { CKF_CODEC_LZ4, 4 } };
	char *pages = malloc(512 * (size_t)CKF_PAGE_BYTES);
	uint32_t zero = img_chunk(&w->b, CKF_CODEC_ZERO, NULL, 64), chunk;
	uint64_t page = 0;

	assert_non_null(pages);
	img_target(&w->b, CKF_TARGET_TASK, 1, 0, 0);
	for (unsigned int i = 0; page + 600 < WORLD_PAGES; i++) {
		const uint32_t codec = kinds[i / 24 % 8].codec;
		const uint16_t nr = kinds[i / 24 % 8].nr;

		if (nr >= 64)
			i += 23; /* one of the long ones, 24 of the short ones */
		if (codec == CKF_CODEC_RAW)
			world_random_pages(&w->seed, pages, nr, false);
		else
			dull_pages(pages, nr, i);
		chunk = img_chunk(&w->b, codec, pages, nr);
		world_put(w, page, chunk, 0, nr, pages, 0);
		page += nr;
		if (i % 24 == 23) {
			world_put(w, page, zero, 0, 64, NULL, 0);
			page += 64;
		}
	}
	free(pages);
	img_lanes(&w->b, 0);
}

static void no_stall(void *arg)
{
	(void)arg;
	fail();
}

/* As CRIU does it: a watch wants a thread, and that may use io_uring. */
static void fill_watched(struct world *w, const struct ckf_dest *d, uint32_t flags,
			 struct ckf_fill_stats *stats)
{
	struct ckf_fill_opts o = { .size = sizeof(o),
				   .dir_fd = -1,
				   .threads = 1,
				   .flags = flags,
				   .timeout_ms = 100000,
				   .stalled = no_stall };

	assert_int_equal(ckf_fill(w->img, &w->img->idx->targets[0], d, 1, &o, stats, NULL), 0);
}

/* A line of /proc/self/status, in bytes. */
static uint64_t status_bytes(const char *key)
{
	unsigned long long kib = 0;
	size_t len = strlen(key);
	char line[128];
	FILE *f = fopen("/proc/self/status", "r");

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, key, len) && sscanf(line + len, ": %llu kB", &kib) == 1)
			break;
	fclose(f);
	return kib << 10;
}

/* From now on VmHWM counts anew. */
static bool reset_peak(void)
{
	int fd = open("/proc/self/clear_refs", O_WRONLY);
	bool ok = fd >= 0 && write(fd, "5", 1) == 1;

	if (fd >= 0)
		close(fd);
	return ok;
}

enum way {
	ALONE,
	WATCHED,
	ONE_OF_MANY,
	NR_WAYS
};

/* The most that was resident during a fill, beyond what was before and the target itself. */
static uint64_t beyond(struct world *w, uint32_t flags, enum way way)
{
	struct ckf_dest d = new_dest(w, CKF_DEST_FRESH);
	struct ckf_fill_stats stats = { .size = sizeof(stats) };
	uint64_t before, peak;

	(void)madvise(d.addr, WORLD_BYTES, MADV_NOHUGEPAGE);
	if (!reset_peak())
		skip();
	drop_cache(w->dir_fd);
	before = status_bytes("VmRSS");
	if (way == WATCHED)
		fill_watched(w, &d, flags, &stats);
	else if (way == ONE_OF_MANY)
		assert_int_equal(fill_of_many(w, &d, flags, &stats, NULL), 0);
	else
		assert_int_equal(world_fill(w, &d, 1, flags, 1, &stats, NULL), 0);
	peak = status_bytes("VmHWM");
	world_assert_area(w, d.addr, 0);
	munmap(d.addr, WORLD_BYTES);
	before += stats.filled_bytes;
	return peak > before ? peak - before : 0;
}

static void test_resident(void **state)
{
	struct world w;

	(void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip(); /* they keep memory of their own for what is used */
#endif
	world_begin(&w, 121);
	large_plan(&w);
	world_end(&w, false);
	for (enum way way = 0; way < NR_WAYS; way++) {
		uint64_t frugal = beyond(&w, CKF_FILL_FRUGAL, way);
		uint64_t plain = beyond(&w, 0, way);

		print_message("%llu KiB beyond the target, and %llu without the flag\n",
			      (unsigned long long)frugal >> 10, (unsigned long long)plain >> 10);
		assert_in_range(frugal, 0, SPARE_BYTES);
		assert_true(plain > SPARE_BYTES);
	}
	world_fini(&w);
}

/* Zeros need room, too: only a frugal fill leaves them out. */
static void test_needed(void **state)
{
	uint64_t bytes = 0;
	struct world w;

	(void)state;
	world_begin(&w, 121);
	large_plan(&w);
	world_end(&w, false);
	for (uint64_t i = 0; i < WORLD_PAGES; i++)
		bytes += w.covered[i] ? CKF_PAGE_BYTES : 0;
	assert_in_range(budget_needed(w.img), bytes, bytes + bytes / 128);
	world_fini(&w);
}

static void test_watched(void **state)
{
	struct ckf_fill_stats stats = { .size = sizeof(stats) };
	struct ckf_dest d;
	struct world w;

	(void)state;
	world_init(&w, 131, true);
	d = new_dest(&w, CKF_DEST_FRESH | CKF_DEST_HUGE);
	drop_cache(w.dir_fd);
	fill_watched(&w, &d, CKF_FILL_FRUGAL, &stats);
	assert_int_equal(stats.workers, 1);
	assert_false(stats.uring || stats.direct);
	world_assert_area(&w, d.addr, 0);
	munmap(d.addr, WORLD_BYTES);
	world_fini(&w);
}

/* Every other MiB of the pack comes into the page cache. Returns how many bytes that are. */
static uint64_t cache_half(const struct world *w)
{
	static char buf[1 << 20];
	int fd = openat(w->dir_fd, CKF_PACK_NAME, O_RDONLY);
	uint64_t sum = 0;
	ssize_t got = 1;

	assert_true(fd >= 0);
	/* No more than is asked for. */
	assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM), 0);
	for (off_t off = 0; got > 0; off += 2 * (off_t)sizeof(buf)) {
		got = pread(fd, buf, sizeof(buf), off);
		sum += got > 0 ? (uint64_t)got : 0;
	}
	close(fd);
	return sum;
}

static uint64_t pages_cached(const struct world *w)
{
	uint64_t n = 0;
	int fd = openat(w->dir_fd, CKF_PACK_NAME, O_RDONLY);

	assert_true(fd >= 0);
	for (uint64_t off = 0; off + CKF_PAGE_BYTES <= w->img->idx->pack_bytes;
	     off += CKF_PAGE_BYTES)
		n += ckf_range_is_cached(fd, off, CKF_PAGE_BYTES);
	close(fd);
	return n;
}

/* What is in the page cache is taken from there, and nothing more comes into it. */
static void test_half_cached(void **state)
{
	static const uint32_t flags[] = { 0, CKF_FILL_NO_URING };
	uint64_t half, before;
	struct world w;

	(void)state;
	world_begin(&w, 151);
	large_plan(&w);
	world_end(&w, false);
	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
		struct ckf_dest d = new_dest(&w, CKF_DEST_FRESH);
		struct ckf_fill_stats stats = { .size = sizeof(stats) };

		drop_cache(w.dir_fd);
		if (pages_cached(&w)) {
			world_fini(&w);
			skip(); /* in memory anyway */
		}
		half = cache_half(&w);
		before = pages_cached(&w);
		if (!before) {
			world_fini(&w);
			skip(); /* the kernel does not tell */
		}
		fill_watched(&w, &d, flags[i], &stats);
		assert_true(stats.direct);
		assert_in_range(stats.cached_bytes, 1, half);
		assert_true(stats.read_bytes > half);
		/* A direct read that would have to wait for the queue is done otherwise. */
		if (!stats.uring)
			assert_int_equal(pages_cached(&w), before);
		world_assert_area(&w, d.addr, 0);
		munmap(d.addr, WORLD_BYTES);
	}
	world_fini(&w);
}

/* What goes straight into place is checked nevertheless. */
static void test_flip(void **state)
{
	struct world w;
	char c;
	int fd;

	(void)state;
	world_begin(&w, 141);
	large_plan(&w);
	world_end(&w, false);
	fd = openat(w.dir_fd, CKF_PACK_NAME, O_RDWR);
	assert_true(fd >= 0);
	for (uint64_t i = 1; i < w.img->idx->nr_chunks; i++) {
		const struct ckf_chunk *k = &w.img->idx->chunks[i];
		off_t off = (off_t)(k->pack_off + k->stored_bytes / 2);
		struct ckf_dest d;

		if (k->nr_pages < 64)
			continue;
		d = new_dest(&w, CKF_DEST_FRESH);
		assert_int_equal(pread(fd, &c, 1, off), 1);
		c ^= 0x10;
		assert_int_equal(pwrite(fd, &c, 1, off), 1);
		assert_int_equal(world_fill(&w, &d, 1, CKF_FILL_FRUGAL, 1, NULL, NULL), -EBADMSG);
		c ^= 0x10;
		assert_int_equal(pwrite(fd, &c, 1, off), 1);
		munmap(d.addr, WORLD_BYTES);
	}
	close(fd);
	world_fini(&w);
}

/*
 * Chunks of one page, and an index that says so: no read is longer than the buffer for it. Some are
 * compressed, and need one.
 */
static void test_one_page_chunks(void **state)
{
	static const struct {
		uint32_t flags;
		bool many;
	} ways[] = { { 0, false },
		     { CKF_FILL_FRUGAL, false },
		     { CKF_FILL_NO_URING, false },
		     { CKF_FILL_FRUGAL, true } };
	static const uint16_t sizes[] = { 24, 100, 600, 4000 };
	char page[CKF_PAGE_BYTES];

	(void)state;
	for (unsigned int i = 0; i < 4 * 4; i++) {
		const uint32_t flags = ways[i % 4].flags;
		struct ckf_fill_stats stats = { .size = sizeof(stats) };
		struct ckf_error err = { 0 };
		struct ckf_dest d;
		struct world w;

		world_begin(&w, 900 + i);
		w.b.idx.max_chunk_pages = 1;
		img_target(&w.b, CKF_TARGET_TASK, 1, 0, 0);
		for (uint16_t k = 0; k < sizes[i / 4]; k++) {
			const bool dull = k % 40 > 36;

			if (dull)
				dull_pages(page, 1, k);
			else
				world_random_pages(&w.seed, page, 1, false);
			world_put(&w, k,
				  img_chunk(&w.b, dull ? CKF_CODEC_LZ4 : CKF_CODEC_RAW, page, 1), 0,
				  1, page, 0);
		}
		img_lanes(&w.b, sizes[i / 4]);
		world_end(&w, false);
		d = new_dest(&w, CKF_DEST_FRESH);
		drop_cache(w.dir_fd);
		if (ways[i % 4].many ? fill_of_many(&w, &d, flags, &stats, &err)
				     : world_fill(&w, &d, 1, flags, 2, &stats, &err))
			fail_msg("%u pages, flags %x: %s", sizes[i / 4], flags, err.msg);
		world_assert_area(&w, d.addr, 0);
		munmap(d.addr, WORLD_BYTES);
		world_fini(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_page_chunks), cmocka_unit_test(test_same),
		cmocka_unit_test(test_not_fresh),	cmocka_unit_test(test_resident),
		cmocka_unit_test(test_watched),		cmocka_unit_test(test_flip),
		cmocka_unit_test(test_needed),		cmocka_unit_test(test_half_cached),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
