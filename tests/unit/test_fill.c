/* SPDX-License-Identifier: MIT */
/*
 * The loader: every byte of a plan arrives, by every road (io_uring or not, direct or not, huge
 * pages or not, any number of threads), nothing else is touched, and nothing is left behind.
 *
 * The model is made beside the image: for each page of the target, the bytes that must be there.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <linux/userfaultfd.h>
#include <cmocka.h>

#include "loader/ckf_image.h"
#include "loader/ckf_read.h"
#include "around.h"
#include "fill_world.h"

static void run_all_roads(bool dense, bool based, uint64_t seed)
{
	static const uint32_t flags[] = { 0,
					  CKF_FILL_NO_URING,
					  CKF_FILL_NO_DIRECT,
					  CKF_FILL_NO_URING | CKF_FILL_NO_DIRECT,
					  CKF_FILL_NO_HUGE,
					  CKF_FILL_NO_MOVE };
	unsigned int tasks, fds;
	struct world w;

	world_make(&w, seed, dense, based, CKF_TARGET_TASK);
	tasks = count_entries("/proc/self/task");
	fds = count_entries("/proc/self/fd");
	for (unsigned int threads = 1; threads <= 4; threads += threads == 1 ? 1 : 2)
		for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
			struct ckf_fill_stats stats = { .size = sizeof(stats) };
			struct ckf_error err = { 0 };
			char *area = world_map_area();
			struct ckf_dest d = { .start = WORLD_BASE,
					      .end = WORLD_BASE + WORLD_BYTES,
					      .addr = area,
					      .prot = PROT_READ | PROT_WRITE,
					      .flags = CKF_DEST_FRESH | CKF_DEST_HUGE };

			drop_cache(w.dir_fd);
			drop_cache(w.base_fd);
			if (world_fill(&w, &d, 1, flags[i], threads, &stats, &err))
				fail_msg("flags %x threads %u: %s", flags[i], threads, err.msg);
			world_assert_area(&w, area, 0);
			assert_int_equal(stats.workers, threads);
			assert_int_equal(stats.uring, have_uring() && threads > 1 &&
							      !(flags[i] & CKF_FILL_NO_URING));
			if (!dense || flags[i] & CKF_FILL_NO_HUGE)
				assert_int_equal(stats.huge_pages, 0);
			assert_int_equal(count_entries("/proc/self/task"), tasks);
			assert_int_equal(count_entries("/proc/self/fd"), fds);
			munmap(area, WORLD_BYTES);
		}
	world_fini(&w);
}

static void test_sparse(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 3; seed++)
		run_all_roads(false, false, seed);
}

/* Half of the chunks come out of another pack. */
static void test_bases(void **state)
{
	(void)state;
	for (uint64_t seed = 5; seed <= 6; seed++)
		run_all_roads(seed == 6, true, seed);
}

/* A base that went away, or that is damaged, after the image was opened. */
static void test_base_broken(void **state)
{
	struct ckf_error err = { 0 };
	char *area = world_map_area(), byte;
	struct ckf_dest d = { .start = WORLD_BASE, .end = WORLD_BASE + WORLD_BYTES, .addr = area };
	struct world w;
	uint64_t at;
	int fd;

	(void)state;
	world_make(&w, 7, false, true, CKF_TARGET_TASK);
	fd = openat(w.base_fd, CKF_PACK_NAME, O_RDWR);
	at = w.b.idx.chunks[w.b.idx.nr_chunks - 1].pack_off + 5;
	assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
	close(fd);
	assert_int_equal(world_fill(&w, &d, 1, 0, 3, NULL, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "of base 1 (base)"));
	assert_int_equal(unlinkat(w.base_fd, CKF_PACK_NAME, 0), 0);
	memset(&err, 0, sizeof(err));
	assert_int_equal(world_fill(&w, &d, 1, 0, 3, NULL, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "base 1, image "));
	munmap(area, WORLD_BYTES);
	world_fini(&w);
}

static void test_dense(void **state)
{
	(void)state;
	for (uint64_t seed = 11; seed <= 13; seed++)
		run_all_roads(true, false, seed);
}

/* Memory that is not fresh is overwritten, zeros too; what no op covers stays. */
static void test_not_fresh(void **state)
{
	struct world w;
	char *area = world_map_area();
	struct ckf_dest d = { .start = WORLD_BASE, .end = WORLD_BASE + WORLD_BYTES, .addr = area };

	(void)state;
	world_init(&w, 21, false);
	memset(area, WORLD_BACKGROUND, WORLD_BYTES);
	assert_int_equal(world_fill(&w, &d, 1, 0, 2, NULL, NULL), 0);
	world_assert_area(&w, area, WORLD_BACKGROUND);
	munmap(area, WORLD_BYTES);
	world_fini(&w);
}

/* Equal pages of shared memory are not written, so that they stay shared; others are. */
static void test_shared(void **state)
{
	struct world w;
	char *area = world_map_area();
	struct ckf_dest d = { .start = WORLD_BASE,
			      .end = WORLD_BASE + WORLD_BYTES,
			      .addr = area,
			      .flags = CKF_DEST_SHARED };
	struct ckf_fill_stats stats = { .size = sizeof(stats) };

	(void)state;
	world_init(&w, 31, false);
	memcpy(area, w.model, WORLD_BYTES);
	for (uint64_t i = 0; i < WORLD_PAGES; i += 7)
		area[i * CKF_PAGE_BYTES + 5] ^= 1;
	for (uint64_t i = 0; i < WORLD_PAGES; i++)
		if (!w.covered[i])
			memset(area + i * CKF_PAGE_BYTES, WORLD_BACKGROUND, CKF_PAGE_BYTES);
	assert_int_equal(world_fill(&w, &d, 1, 0, 2, &stats, NULL), 0);
	world_assert_area(&w, area, WORLD_BACKGROUND);
	assert_true(stats.shared_bytes > stats.filled_bytes);
	assert_true(stats.filled_bytes > 0);
	/* All equal, and read-only: nothing may be written. */
	assert_int_equal(mprotect(area, WORLD_BYTES, PROT_READ), 0);
	stats = (struct ckf_fill_stats){ .size = sizeof(stats) };
	assert_int_equal(world_fill(&w, &d, 1, 0, 2, &stats, NULL), 0);
	assert_int_equal(stats.filled_bytes, 0);
	munmap(area, WORLD_BYTES);
	world_fini(&w);
}

/* Dests that split ops and chunks; every other one is left alone. */
static void test_skip(void **state)
{
	struct ckf_dest d[WORLD_PAGES / 64];
	struct world w;
	char *area = world_map_area();

	(void)state;
	world_init(&w, 41, true);
	memset(area, WORLD_BACKGROUND, WORLD_BYTES);
	for (uint64_t i = 0; i < WORLD_PAGES / 64; i++) {
		d[i] = (struct ckf_dest){ .start = WORLD_BASE + i * 64 * CKF_PAGE_BYTES,
					  .end = WORLD_BASE + (i + 1) * 64 * CKF_PAGE_BYTES,
					  .addr = area + i * 64 * CKF_PAGE_BYTES };
		if (i % 2) {
			d[i].flags = CKF_DEST_SKIP | (i % 4 == 1 ? CKF_DEST_CHECK : 0);
			d[i].addr = NULL;
			memset(w.covered + i * 64, 0, 64);
		}
	}
	assert_int_equal(world_fill(&w, d, WORLD_PAGES / 64, 0, 2, NULL, NULL), 0);
	world_assert_area(&w, area, WORLD_BACKGROUND);
	munmap(area, WORLD_BYTES);
	world_fini(&w);
}

static void test_outside(void **state)
{
	struct world w;
	char *area = world_map_area();
	struct ckf_dest d = { .start = WORLD_BASE,
			      .end = WORLD_BASE + WORLD_BYTES / 2,
			      .addr = area };
	struct ckf_error err = { 0 };

	(void)state;
	world_init(&w, 51, false);
	assert_int_equal(world_fill(&w, &d, 1, 0, 2, NULL, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "corrupt ops["));
	assert_non_null(strstr(err.msg, "lies in no mapping"));
	munmap(area, WORLD_BYTES);
	world_fini(&w);
}

/* Fails for a flipped byte in the chunk, with the flags of the dest. */
static void fails_at(struct world *w, uint64_t chunk, uint32_t flags)
{
	const struct ckf_chunk *c = &w->img->idx->chunks[chunk];
	char *area = world_map_area();
	struct ckf_dest d = { .start = WORLD_BASE,
			      .end = WORLD_BASE + WORLD_BYTES,
			      .addr = flags & CKF_DEST_SKIP ? NULL : area,
			      .prot = PROT_READ | PROT_WRITE,
			      .flags = flags };
	struct ckf_error err = { 0 };
	int fd = openat(w->dir_fd, CKF_PACK_NAME, O_RDWR);
	off_t off = (off_t)(c->pack_off + c->stored_bytes / 2);
	char byte;

	for (int i = 0; i < 2; i++) {
		assert_int_equal(pread(fd, &byte, 1, off), 1);
		byte ^= 0x10;
		assert_int_equal(pwrite(fd, &byte, 1, off), 1);
		assert_int_equal(
			world_fill(w, &d, 1, chunk % 3 ? 0 : CKF_FILL_NO_URING, 2, NULL, &err),
			i ? 0 : -EBADMSG);
	}
	assert_non_null(strstr(err.msg, "corrupt chunks["));
	close(fd);
	munmap(area, WORLD_BYTES);
}

/* A flipped byte is found, also in chunks that are only checked, or read to their place. */
static void test_flip(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 61, false);
	for (uint64_t i = 1; i < w.img->idx->nr_chunks; i += 11)
		fails_at(&w, i, i % 2 ? CKF_DEST_SKIP | CKF_DEST_CHECK : 0);
	world_fini(&w);
	world_init(&w, 63, true);
	for (uint64_t i = 1; i < w.img->idx->nr_chunks; i++)
		fails_at(&w, i, CKF_DEST_FRESH | CKF_DEST_HUGE);
	world_fini(&w);
}

/* The flags of the mapping at area, as smaps has them. */
static void vm_flags(const char *area, char *flags, int size)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	bool in = false;

	assert_non_null(f);
	flags[0] = 0;
	while (fgets(flags, size, f)) {
		unsigned long start, end;

		if (sscanf(flags, "%lx-%lx ", &start, &end) == 2)
			in = start <= (unsigned long)area && end > (unsigned long)area;
		if (in && !strncmp(flags, "VmFlags:", 8))
			break;
	}
	assert_false(feof(f));
	fclose(f);
}

/* Huge pages come without anything of it showing up in the flags of the mapping. */
static void test_no_trace(void **state)
{
	static const uint32_t flags[] = { 0, CKF_FILL_NO_MOVE };
	struct world w;

	(void)state;
	world_init(&w, 71, true);
	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
		struct ckf_fill_stats stats = { .size = sizeof(stats) };
		char before[256], after[256];
		char *area = world_map_area();
		struct ckf_dest d = { .start = WORLD_BASE,
				      .end = WORLD_BASE + WORLD_BYTES,
				      .addr = area,
				      .prot = PROT_READ | PROT_WRITE,
				      .flags = CKF_DEST_FRESH | CKF_DEST_HUGE };

		vm_flags(area, before, sizeof(before));
		assert_int_equal(world_fill(&w, &d, 1, flags[i], 2, &stats, NULL), 0);
		world_assert_area(&w, area, 0);
		vm_flags(area, after, sizeof(after));
		assert_string_equal(before, after);
		if (!stats.huge_pages)
			print_message("this kernel makes no huge pages with flags %x\n", flags[i]);
		munmap(area, WORLD_BYTES);
	}
	world_fini(&w);
}

/* Ranges of 2 MiB that the plan fills all over. */
static uint64_t full_ranges(const struct world *w)
{
	const uint64_t step = CKF_HUGE_BYTES / CKF_PAGE_BYTES;
	uint64_t nr = 0;

	for (uint64_t i = 0; i + step <= WORLD_PAGES; i += step)
		nr += !memchr(w->covered + i, 0, step);
	return nr;
}

static void fill_shared(struct world *w, uint32_t flags, unsigned int threads)
{
	struct ckf_fill_stats stats = { .size = sizeof(stats) };
	char *area = world_map_area();
	struct ckf_dest d = { .start = WORLD_BASE,
			      .end = WORLD_BASE + WORLD_BYTES,
			      .addr = area,
			      .flags = CKF_DEST_FRESH | CKF_DEST_HUGE };

	area = mmap(area, WORLD_BYTES, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	assert_ptr_equal(area, d.addr);
	assert_int_equal(world_fill(w, &d, 1, flags, threads, &stats, NULL), 0);
	world_assert_area(w, area, 0);
	if (flags & CKF_FILL_NO_HUGE)
		assert_int_equal(stats.huge_pages, 0);
	else if (stats.huge_pages < full_ranges(w)) /* the kernel may refuse */
		print_message("%llu huge pages of %llu\n", (unsigned long long)stats.huge_pages,
			      (unsigned long long)full_ranges(w));
	else
		assert_int_equal(stats.huge_pages, full_ranges(w));
	munmap(area, WORLD_BYTES);
}

/* Shared memory gets huge pages where it is filled all over, and only there. */
static void test_shared_memory(void **state)
{
	struct world w;

	(void)state;
	for (uint64_t seed = 91; seed < 95; seed++) {
		world_make(&w, seed, seed % 2, false, CKF_TARGET_SHMEM);
		for (unsigned int threads = 1; threads <= 3; threads++) {
			fill_shared(&w, 0, threads);
			fill_shared(&w, CKF_FILL_NO_HUGE, threads);
		}
		world_fini(&w);
	}
}

/* Enough for the buffers of one worker, and not for a piece of scratch memory. */
#define SPACE_BYTES (5ull << 20)

static uint64_t address_space(void)
{
	unsigned long long pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%llu", &pages), 1);
	fclose(f);
	return ckf_pages_to_bytes(pages);
}

static void put_zeros(struct world *w, uint64_t page, uint32_t zero, uint64_t nr)
{
	for (uint64_t part; nr; nr -= part, page += part) {
		part = nr < 64 ? nr : 64;
		world_put(w, page, zero, 0, (uint16_t)part, NULL, 0);
	}
}

/*
 * Three huge pages: two of nothing but zeros, one of data and zeros. Then zeros in small pages: a
 * long run, and single pages with holes or data beside them.
 */
static void zeros_init(struct world *w, uint32_t kind)
{
	char *pages = malloc(256 * (size_t)CKF_PAGE_BYTES);
	uint32_t zero, data;

	assert_non_null(pages);
	world_begin(w, 0);
	world_random_pages(&w->seed, pages, 256, false);
	zero = img_chunk(&w->b, CKF_CODEC_ZERO, NULL, 64);
	data = img_chunk(&w->b, CKF_CODEC_RAW, pages, 256);
	img_target(&w->b, kind, 1, 0, 0);
	put_zeros(w, 0, zero, 1024);
	world_put(w, 1024, data, 0, 256, pages, 0);
	put_zeros(w, 1280, zero, 256 + 200);
	for (uint64_t i = 0; i < 200; i++) {
		put_zeros(w, 2048 + i * 3, zero, 1);
		if (i % 2)
			world_put(w, 2049 + i * 3, data, (uint16_t)i, 1, pages, 0);
	}
	img_lanes(&w->b, WORLD_LANE_OPS);
	if (kind == CKF_TARGET_TASK)
		img_huge(&w->b, 0, WORLD_BASE, 3);
	world_end(w, false);
	free(pages);
}

static void fill_zeros(struct world *w, uint32_t flags)
{
	const struct ckf_target *t = &w->img->idx->targets[0];
	const uint64_t huge = flags & CKF_FILL_NO_HUGE ? 0 : 3;
	char *area = world_map_area();
	struct ckf_fill_stats stats = { .size = sizeof(stats) };
	struct ckf_dest d = { .start = WORLD_BASE,
			      .end = WORLD_BASE + WORLD_BYTES,
			      .addr = area,
			      .prot = PROT_READ | PROT_WRITE,
			      .flags = CKF_DEST_FRESH | CKF_DEST_HUGE };

	if (t->kind == CKF_TARGET_SHMEM)
		assert_ptr_equal(mmap(area, WORLD_BYTES, PROT_READ | PROT_WRITE,
				      MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
				 area);
	/* What the kernel makes huge of its own accord is no matter of the fill. */
	(void)madvise(area + huge * CKF_HUGE_BYTES, WORLD_BYTES - huge * CKF_HUGE_BYTES,
		      MADV_NOHUGEPAGE);
	assert_int_equal(world_fill(w, &d, 1, flags, 2, &stats, NULL), 0);
	world_assert_resident(w, area, true);
	world_assert_area(w, area, 0);
	assert_int_equal(stats.filled_bytes + stats.zero_bytes, ckf_pages_to_bytes(t->nr_pages));
	if (stats.huge_pages < huge) /* the kernel may refuse */
		print_message("%llu huge pages of %llu\n", (unsigned long long)stats.huge_pages,
			      (unsigned long long)huge);
	else
		assert_int_equal(stats.huge_pages, huge);
	munmap(area, WORLD_BYTES);
}

/*
 * The address space is too small for scratch memory, unless a single worker finds its buffers in
 * the heap: all is there nevertheless, in small pages, zeros too.
 */
static void test_no_scratch(void **state)
{
	struct rlimit old, tight;
	struct world w;

	(void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip(); /* they want address space of their own */
#endif
	assert_int_equal(getrlimit(RLIMIT_AS, &old), 0);
	zeros_init(&w, CKF_TARGET_TASK);
	for (unsigned int threads = 1; threads <= 4; threads++) {
		struct ckf_fill_stats stats = { .size = sizeof(stats) };
		char *area = world_map_area();
		struct ckf_dest d = { .start = WORLD_BASE,
				      .end = WORLD_BASE + WORLD_BYTES,
				      .addr = area,
				      .prot = PROT_READ | PROT_WRITE,
				      .flags = CKF_DEST_FRESH | CKF_DEST_HUGE };
		int ret;

		(void)madvise(area, WORLD_BYTES, MADV_NOHUGEPAGE);
		tight = old;
		tight.rlim_cur = address_space() + SPACE_BYTES;
		assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
		ret = world_fill(&w, &d, 1, 0, threads, &stats, NULL);
		assert_int_equal(setrlimit(RLIMIT_AS, &old), 0);
		assert_int_equal(ret, 0);
		assert_true(threads == 1 || !stats.huge_pages);
		world_assert_resident(&w, area, true);
		world_assert_area(&w, area, 0);
		munmap(area, WORLD_BYTES);
	}
	world_fini(&w);
}

/* Pages of zero chunks are there, in huge pages where all of one is filled. */
static void test_zeros(void **state)
{
	struct world w;

	(void)state;
	for (uint32_t kind = CKF_TARGET_TASK; kind <= CKF_TARGET_SHMEM; kind++) {
		zeros_init(&w, kind);
		fill_zeros(&w, 0);
		fill_zeros(&w, CKF_FILL_NO_MOVE);
		fill_zeros(&w, CKF_FILL_NO_HUGE);
		world_fini(&w);
	}
}

/* What this process has had read from disks; 0 where the kernel does not count. */
static uint64_t disk_bytes(void)
{
	unsigned long long n = 0;
	char line[64];
	FILE *f = fopen("/proc/self/io", "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "read_bytes: %llu", &n) == 1)
			break;
	if (f)
		fclose(f);
	return n;
}

#define TWICE_PAGES 256
#define TWICE_BYTES (TWICE_PAGES * (uint64_t)CKF_PAGE_BYTES)
#define TWICE_CHUNKS 16

/* Two tasks with the same chunks, and one more that each has alone. */
static void twice_init(struct world *w)
{
	char *pages = malloc(TWICE_PAGES * (size_t)CKF_PAGE_BYTES);
	uint32_t chunks[TWICE_CHUNKS];

	assert_non_null(pages);
	world_begin(w, 0);
	for (unsigned int i = 0; i < TWICE_CHUNKS; i++) {
		world_random_pages(&w->seed, pages, TWICE_PAGES, false);
		chunks[i] = img_chunk(&w->b, CKF_CODEC_RAW, pages, TWICE_PAGES);
	}
	free(pages);
	for (uint32_t t = 0; t < 2; t++) {
		img_target(&w->b, CKF_TARGET_TASK, t + 1, 0, 0);
		for (uint64_t i = 0; i < TWICE_CHUNKS - 1; i++)
			img_op(&w->b, WORLD_BASE + i * TWICE_PAGES * CKF_PAGE_BYTES,
			       chunks[i || !t ? i : TWICE_CHUNKS - 1], 0, TWICE_PAGES);
		img_lanes(&w->b, WORLD_LANE_OPS);
	}
	world_end(w, false);
}

/* Both tasks, one after the other; what the disk brought for the second one. */
static uint64_t fill_twice(struct world *w, bool *counted)
{
	uint64_t read[3];

	drop_cache(w->dir_fd);
	read[0] = disk_bytes();
	for (unsigned int t = 0; t < 2; t++) {
		char *area = world_map_area();
		struct ckf_dest d = { .start = WORLD_BASE,
				      .end = WORLD_BASE + WORLD_BYTES,
				      .addr = area };
		struct ckf_fill_opts o = { .size = sizeof(o), .dir_fd = -1, .threads = 2 };

		assert_int_equal(ckf_fill(w->img, &w->img->idx->targets[t], &d, 1, &o, NULL, NULL),
				 0);
		read[t + 1] = disk_bytes();
		munmap(area, WORLD_BYTES);
	}
	*counted = read[1] - read[0] >= (TWICE_CHUNKS - 1) * TWICE_BYTES;
	return read[2] - read[1];
}

/*
 * What two tasks need comes from the disk once. Somebody else may empty the page cache in between,
 * so once is enough.
 */
static void test_shared_chunks(void **state)
{
	bool once = false, counted = true;
	struct world w;

	(void)state;
	twice_init(&w);
	assert_int_equal(ckf_image_find_shared_chunks(w.img, NULL), 0);
	assert_int_equal(w.img->shared_chunks[0], 0xfe);
	assert_int_equal(w.img->shared_chunks[1], 0x7f);
	for (int i = 0; i < 5 && !once && counted; i++)
		once = fill_twice(&w, &counted) < 2 * TWICE_BYTES;
	if (!counted)
		print_message("reads of the disk are not counted here\n");
	else
		assert_true(once);
	world_fini(&w);
}

/*
 * A worker that hangs is noticed: here it waits for a page that nobody brings, until the callback
 * gives up the registration.
 */
struct hang {
	int uffd;
	struct uffdio_range range;
	unsigned int calls;
};

/* Somebody sets the clock of the day, one hour back: the loader must not go by it. */
static time_t set_back_s;

int clock_gettime(clockid_t id, struct timespec *ts)
{
	int ret = (int)syscall(SYS_clock_gettime, id, ts);

	if (!ret && id == CLOCK_REALTIME)
		ts->tv_sec -= set_back_s;
	return ret;
}

static void stalled(void *arg)
{
	struct hang *h = arg;

	h->calls++;
	ioctl(h->uffd, UFFDIO_UNREGISTER, &h->range);
}

static void test_stalled(void **state)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct world w;
	char *area = world_map_area();
	struct hang h = { .range = { (uintptr_t)area, WORLD_BYTES } };
	struct uffdio_register reg = { .range = h.range, .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct ckf_dest d = { .start = WORLD_BASE, .end = WORLD_BASE + WORLD_BYTES, .addr = area };
	struct ckf_fill_opts o = { .size = sizeof(o),
				   .dir_fd = -1,
				   .threads = 2,
				   .timeout_ms = 200,
				   .stalled = stalled,
				   .arg = &h };

	(void)state;
	h.uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	if (h.uffd < 0 || ioctl(h.uffd, UFFDIO_API, &api))
		skip();
	world_init(&w, 81, false);
	assert_int_equal(ioctl(h.uffd, UFFDIO_REGISTER, &reg), 0);
	set_back_s = 3600;
	assert_int_equal(ckf_fill(w.img, &w.img->idx->targets[0], &d, 1, &o, NULL, NULL), 0);
	set_back_s = 0;
	assert_int_equal(h.calls, 1);
	close(h.uffd);
	world_assert_area(&w, area, 0);
	munmap(area, WORLD_BYTES);
	world_fini(&w);
}

static void tight_plan(struct world *w)
{
	uint8_t *pages = malloc(ckf_pages_to_bytes(w->b.idx.max_chunk_pages));
	uint64_t page = 0;
	uint32_t chunk;
	uint16_t nr;

	assert_non_null(pages);
	for (unsigned int i = 0; i < IMG_TIGHT_CHUNKS; i++, page += nr) {
		chunk = img_tight_chunk(&w->b, i, pages, &nr);
		world_put(w, page, chunk, 0, nr, (char *)pages, 0);
	}
	free(pages);
}

/* Pages that chunks share are read with the first of them, and not once more for each. */
static void test_tight(void **state)
{
	static const uint32_t flags[] = { 0, CKF_FILL_NO_DIRECT, CKF_FILL_NO_HUGE };
	struct world w;

	(void)state;
	world_begin(&w, 31);
	img_target(&w.b, CKF_TARGET_TASK, 1, 0, 0);
	tight_plan(&w);
	img_lanes(&w.b, WORLD_LANE_OPS);
	world_end(&w, false);
	for (unsigned int i = 0; i < 2 * 3; i++) {
		const struct ckf_chunk *c = w.img->idx->chunks;
		struct ckf_fill_stats stats = { .size = sizeof(stats) };
		struct ckf_error err = { 0 };
		char *area = world_map_area();
		struct ckf_dest d = { .start = WORLD_BASE,
				      .end = WORLD_BASE + WORLD_BYTES,
				      .addr = area };

		assert_true(c[1].pack_off % CKF_PAGE_BYTES);
		c += IMG_TIGHT_LONGEST;
		assert_int_equal(ckf_chunk_end(c) - ckf_chunk_first(c),
				 ckf_pages_to_bytes(w.img->idx->max_chunk_pages + 1u));
		drop_cache(w.dir_fd);
		if (world_fill(&w, &d, 1, flags[i / 2], 1 + i % 2, &stats, &err))
			fail_msg("road %u: %s", i, err.msg);
		world_assert_area(&w, area, 0);
		/* Three lanes, and a read of its own for the longest: each may begin on a page
		 * again. */
		assert_in_range(stats.read_bytes, w.b.idx.pack_bytes - CKF_PAGE_BYTES,
				w.b.idx.pack_bytes + 3 * CKF_PAGE_BYTES);
		munmap(area, WORLD_BYTES);
	}
	world_fini(&w);
}

/*
 * Few pages out of many chunks that lie side by side: what is read is much more than what is
 * filled, and the buffers of a small fill are sized by neither of them.
 */
static void small_init(struct world *w)
{
	static const uint32_t codecs[] = { CKF_CODEC_RAW, CKF_CODEC_ZSTD, CKF_CODEC_LZ4,
					   CKF_CODEC_RAW };
	char *pages = malloc(60 * (size_t)CKF_PAGE_BYTES);
	uint32_t zero;

	assert_non_null(pages);
	world_begin(w, 47);
	zero = img_chunk(&w->b, CKF_CODEC_ZERO, NULL, 1);
	img_target(&w->b, CKF_TARGET_TASK, 1, 0, 0);
	for (uint16_t i = 0; i < 28; i++) {
		uint16_t nr = i % 3 ? 20 : 60;
		uint32_t chunk;

		world_random_pages(&w->seed, pages, nr, codecs[i % 4] != CKF_CODEC_RAW);
		chunk = img_chunk(&w->b, codecs[i % 4], pages, nr);
		world_put(w, 3 * i, chunk, i % nr, 1, pages, 0);
	}
	world_put(w, 3 * 28, zero, 0, 1, NULL, 0);
	img_lanes(&w->b, WORLD_LANE_OPS);
	world_end(w, false);
	free(pages);
}

/* In the calling thread and through the page cache, whatever could be had. */
static void test_small(void **state)
{
	static const uint32_t flags[] = { 0, CKF_FILL_FRUGAL, CKF_FILL_NO_URING };
	struct world w;

	(void)state;
	small_init(&w);
	for (unsigned int i = 0; i < 2 * 3; i++) {
		struct ckf_fill_stats stats = { .size = sizeof(stats) };
		struct ckf_error err = { 0 };
		char *area = world_map_area();
		struct ckf_dest d = { .start = WORLD_BASE,
				      .end = WORLD_BASE + WORLD_BYTES,
				      .addr = area,
				      .flags = CKF_DEST_FRESH };

		drop_cache(w.dir_fd);
		if (i == 3)
			assert_int_equal(ckf_image_find_cached(w.img, &err), 0);
		if (world_fill(&w, &d, 1, flags[i % 3], 4, &stats, &err))
			fail_msg("flags %x: %s", flags[i % 3], err.msg);
		world_assert_resident(&w, area, flags[i % 3] != CKF_FILL_FRUGAL);
		world_assert_area(&w, area, 0);
		assert_int_equal(stats.workers, 1);
		assert_false(stats.uring || stats.direct);
		munmap(area, WORLD_BYTES);
	}
	world_fini(&w);
}

/* A fill relies on what was found out for all, and looks by itself only where nothing was. */
static void test_cached(void **state)
{
	struct ckf_fill_stats stats = { .size = sizeof(stats) };
	struct ckf_error err = { 0 };
	struct ckf_dest d;
	struct world w;

	(void)state;
	world_make(&w, 5, false, true, CKF_TARGET_TASK);
	assert_int_equal(ckf_image_find_cached(w.img, &err), 0);
	for (unsigned int i = 0; i < 2; i++) {
		d = (struct ckf_dest){ .start = WORLD_BASE,
				       .end = WORLD_BASE + WORLD_BYTES,
				       .addr = world_map_area() };
		w.img->cached[0] = w.img->cached[1] = i;
		stats.direct = false;
		assert_int_equal(world_fill(&w, &d, 1, 0, 2, &stats, &err), 0);
		world_assert_area(&w, d.addr, 0);
		assert_false(i && stats.direct);
		munmap(d.addr, WORLD_BYTES);
	}
	world_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sparse),	      cmocka_unit_test(test_dense),
		cmocka_unit_test(test_not_fresh),     cmocka_unit_test(test_shared),
		cmocka_unit_test(test_skip),	      cmocka_unit_test(test_outside),
		cmocka_unit_test(test_flip),	      cmocka_unit_test(test_no_trace),
		cmocka_unit_test(test_shared_memory), cmocka_unit_test(test_shared_chunks),
		cmocka_unit_test(test_stalled),	      cmocka_unit_test(test_bases),
		cmocka_unit_test(test_base_broken),   cmocka_unit_test(test_tight),
		cmocka_unit_test(test_no_scratch),    cmocka_unit_test(test_zeros),
		cmocka_unit_test(test_small),	      cmocka_unit_test(test_cached),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
