/* SPDX-License-Identifier: MIT */
/* The threads of a fill: no more than the caller allows, and none that the kernel makes for reads.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "loader/ckf_image.h"
#include "base/ckf_io.h"
#include "around.h"
#include "fill_world.h"

#define FILE_BYTES (4u << 20)
#define READ_BYTES (256u << 10)
#define DEPTH 8

struct rules {
	unsigned int allowed; /* of all that are asked for */
	unsigned int given;
	unsigned int wanted; /* when it was asked first */
	_Atomic unsigned int ended;
};

static unsigned int before_workers(void *arg, unsigned int wanted)
{
	struct rules *r = arg;

	unsigned int left = r->allowed - r->given;

	if (!r->ended)
		r->wanted = wanted;
	r->given += left < wanted ? left : wanted;
	return left < wanted ? left : wanted;
}

/* Those that were there before a test: a sanitizer may have one of its own. */
static unsigned int tasks;

static int setup(void **state)
{
	(void)state;
	tasks = count_entries("/proc/self/task");
	return 0;
}

static void after_workers(void *arg)
{
	((struct rules *)arg)->ended++;
}

static void test_allowed(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 7, false);
	for (unsigned int allowed = 0; allowed <= 4; allowed++) {
		char *area = world_map_area();
		struct ckf_dest d = { .start = WORLD_BASE,
				      .end = WORLD_BASE + WORLD_BYTES,
				      .addr = area,
				      .flags = CKF_DEST_FRESH };
		struct rules r = { .allowed = allowed };
		struct ckf_fill_opts o = { .size = sizeof(o),
					   .dir_fd = -1,
					   .threads = 4,
					   .before_workers = before_workers,
					   .after_workers = after_workers,
					   .arg = &r };
		struct ckf_fill_stats stats = { .size = sizeof(stats) };

		assert_int_equal(ckf_fill(w.img, &w.img->idx->targets[0], &d, 1, &o, &stats, NULL),
				 0);
		assert_int_equal(r.wanted, 4);
		assert_true(r.ended >= 1);
		assert_int_equal(stats.workers, allowed ? allowed : 1);
		/* Not a moment later than the call returns. */
		assert_int_equal(count_entries("/proc/self/task"), tasks);
		world_assert_area(&w, area, 0);
		munmap(area, WORLD_BYTES);
	}
	world_fini(&w);
}

#define SLOW_PAGES 1000

/* Memory whose pages take a millisecond each to be made, until workers have come so many times. */
struct slow_area {
	const struct rules *rules;
	unsigned int times;
	unsigned int nr_pages; /* made so slowly */
	char *addr;
	int uffd;
	pthread_t thread;
};

static void *make_pages(void *arg)
{
	struct slow_area *s = arg;
	const struct timespec ms = { .tv_nsec = 1000000 };
	struct uffd_msg msg;

	while (read(s->uffd, &msg, sizeof(msg)) == sizeof(msg)) {
		struct uffdio_zeropage zero = { .range = { msg.arg.pagefault.address &
								   ~(CKF_PAGE_BYTES - 1ull),
							   CKF_PAGE_BYTES } };

		if (msg.event != UFFD_EVENT_PAGEFAULT)
			break;
		if (s->rules->ended < s->times && s->nr_pages++ < SLOW_PAGES)
			nanosleep(&ms, NULL);
		(void)ioctl(s->uffd, UFFDIO_ZEROPAGE, &zero);
	}
	return NULL;
}

static char *slow_area_start(struct slow_area *s)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_EVENT_UNMAP };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };

	s->uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	if (s->uffd < 0)
		return NULL;
	s->addr = world_map_area();
	reg.range = (struct uffdio_range){ (uintptr_t)s->addr, WORLD_BYTES };
	assert_int_equal(ioctl(s->uffd, UFFDIO_API, &api), 0);
	assert_int_equal(ioctl(s->uffd, UFFDIO_REGISTER, &reg), 0);
	assert_int_equal(pthread_create(&s->thread, NULL, make_pages, s), 0);
	return s->addr;
}

static void slow_area_end(struct slow_area *s)
{
	/* Which the thread is told of, and ends. */
	munmap(s->addr, WORLD_BYTES);
	pthread_join(s->thread, NULL);
	close(s->uffd);
}

/* Allows one more each time, from the time on that is named. */
static unsigned int one_more(void *arg, unsigned int wanted)
{
	struct rules *r = arg;

	r->wanted = wanted;
	return wanted && r->ended >= r->allowed ? 1 : 0;
}

static void no_stall(void *arg)
{
	(void)arg;
	fail();
}

/* So many workers are wanted, and one_more() says when they come. */
static struct ckf_fill_opts one_by_one(unsigned int threads, struct rules *r)
{
	return (struct ckf_fill_opts){ .size = sizeof(struct ckf_fill_opts),
				       .dir_fd = -1,
				       .threads = threads,
				       .flags = CKF_FILL_NO_DIRECT | CKF_FILL_NO_HUGE,
				       .timeout_ms = 60000,
				       .stalled = no_stall,
				       .before_workers = one_more,
				       .after_workers = after_workers,
				       .arg = r };
}

/*
 * Workers that there was no room for at first come later, while the calling thread watches the
 * others or works itself: until then, before any of them is allowed. The memory is slow, so that
 * there is work left when they come.
 */
static void test_grow(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 11, false);
	for (unsigned int i = 0; i < 2; i++) {
		struct rules r = { .allowed = i };
		struct ckf_fill_opts o = one_by_one(3, &r);
		struct ckf_fill_stats stats = { .size = sizeof(stats) };
		struct slow_area slow = { .rules = &r, .times = 3 + i };
		char *area = slow_area_start(&slow);
		struct ckf_dest d = { .start = WORLD_BASE,
				      .end = WORLD_BASE + WORLD_BYTES,
				      .addr = area,
				      .flags = CKF_DEST_FRESH };

		if (!area)
			skip(); /* no userfaultfd */
		assert_int_equal(ckf_fill(w.img, &w.img->idx->targets[0], &d, 1, &o, &stats, NULL),
				 0);
		world_assert_area(&w, area, 0);
		slow_area_end(&slow);
		assert_int_equal(stats.workers, 3 + i);
		assert_true(r.ended > 1);
		assert_true(few_threads(tasks));
	}
	world_fini(&w);
}

/* No second one comes to the calling thread where one worker is wanted, and was refused at first.
 */
static void test_one(void **state)
{
	struct rules r = { .allowed = 1 };
	struct ckf_fill_opts o = one_by_one(1, &r);
	struct ckf_fill_stats stats = { .size = sizeof(stats) };
	struct slow_area slow = { .rules = &r, .times = 2 };
	struct ckf_dest d = { .start = WORLD_BASE,
			      .end = WORLD_BASE + WORLD_BYTES,
			      .flags = CKF_DEST_FRESH };
	struct world w;

	(void)state;
	world_init(&w, 11, false);
	drop_cache(w.dir_fd);
	d.addr = slow_area_start(&slow);
	if (!d.addr)
		skip(); /* no userfaultfd */
	assert_int_equal(ckf_fill(w.img, &w.img->idx->targets[0], &d, 1, &o, &stats, NULL), 0);
	world_assert_area(&w, d.addr, 0);
	slow_area_end(&slow);
	assert_int_equal(stats.workers, 1);
	world_fini(&w);
}

static int make_file(char *content)
{
	char path[] = "/tmp/ckf-test-workers-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	unlink(path);
	for (unsigned int i = 0; i < FILE_BYTES; i++)
		content[i] = (char)(i * 31 + i / 4096);
	assert_int_equal(pwrite(fd, content, FILE_BYTES, 0), FILE_BYTES);
	assert_int_equal(fsync(fd), 0);
	assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	return fd;
}

/* What is not in the page cache would make the kernel start a thread for each of these. */
static void test_no_threads(void **state)
{
	char *content = malloc(FILE_BYTES), *got = calloc(1, FILE_BYTES);
	struct iovec iov[FILE_BYTES / READ_BYTES];
	unsigned int most = 0, next = 0, done = 0;
	struct ckf_io *io;
	void *tag;
	int fd, res;

	(void)state;
	assert_true(content && got);
	fd = make_file(content);
	assert_int_equal(ckf_io_new(DEPTH, CKF_IO_URING_NO_THREADS, &io), 0);
	while (done < FILE_BYTES / READ_BYTES) {
		for (; next < FILE_BYTES / READ_BYTES && next - done < DEPTH; next++) {
			iov[next] = (struct iovec){ got + next * READ_BYTES, READ_BYTES };
			assert_int_equal(
				ckf_io_submit(io, fd, &iov[next], 1, next * READ_BYTES, &iov[next]),
				0);
			if (count_entries("/proc/self/task") > most)
				most = count_entries("/proc/self/task");
		}
		assert_int_equal(ckf_io_wait(io, &tag, &res), 0);
		assert_int_equal(res, READ_BYTES);
		done++;
	}
	assert_memory_equal(got, content, FILE_BYTES);
	assert_int_equal(most, tasks);
	ckf_io_free(io);
	close(fd);
	free(content);
	free(got);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_allowed, setup),
		cmocka_unit_test_setup(test_grow, setup),
		cmocka_unit_test_setup(test_one, setup),
		cmocka_unit_test_setup(test_no_threads, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
