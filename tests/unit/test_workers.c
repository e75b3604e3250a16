/* SPDX-License-Identifier: MIT */
/* The threads of a fill: no more than the caller allows, and none that the kernel makes for reads.
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

#include "../../loader/ckf_fill.h"
#include "../../loader/io.h"
#include "around.h"
#include "fill_world.h"

#define FILE_BYTES (4u << 20)
#define READ_BYTES (256u << 10)
#define DEPTH 8

struct rules {
	unsigned int allowed;
	unsigned int wanted;
	unsigned int ended;
};

static unsigned int before_workers(void *arg, unsigned int wanted)
{
	struct rules *r = arg;

	r->wanted = wanted;
	return r->allowed < wanted ? r->allowed : wanted;
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
		struct ckf_fill_stats stats = { 0 };

		assert_int_equal(ckf_fill(w.img, &w.img->idx->targets[0], &d, 1, &o, &stats, NULL),
				 0);
		assert_int_equal(r.wanted, 4);
		assert_int_equal(r.ended, 1);
		assert_int_equal(stats.workers, allowed ? allowed : 1);
		/* Not a moment later than the call returns. */
		assert_int_equal(count_entries("/proc/self/task"), 3);
		world_assert_area(&w, area, 0);
		munmap(area, WORLD_BYTES);
	}
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
	assert_int_equal(most, 3);
	ckf_io_free(io);
	close(fd);
	free(content);
	free(got);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_no_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
