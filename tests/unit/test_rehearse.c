/* SPDX-License-Identifier: MIT */
/* insp_rehearse() and insp_process_s(): what a restore takes is tried. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/ckf_io_util.h"
#include "cli/ckf_inspect.h"
#include "fill_world.h"

#define SEED 77

/* The memory that the fills of a child were given: in memory that processes share. */
static struct given {
	struct ckf_dest dests[16];
	size_t nr;
} * given;

int __real_ckf_fill(const struct ckf_image *img, const struct ckf_target *t,
		    const struct ckf_dest *dests, size_t nr_dests, const struct ckf_fill_opts *opts,
		    struct ckf_fill_stats *stats, struct ckf_error *err);

int __wrap_ckf_fill(const struct ckf_image *img, const struct ckf_target *t,
		    const struct ckf_dest *dests, size_t nr_dests, const struct ckf_fill_opts *opts,
		    struct ckf_fill_stats *stats, struct ckf_error *err)
{
	for (size_t i = 0; i < nr_dests && t->parent; i++)
		if (!(dests[i].flags & CKF_DEST_SKIP) && given->nr < 16)
			given->dests[given->nr++] = dests[i];
	return __real_ckf_fill(img, t, dests, nr_dests, opts, stats, err);
}

static double rehearse(const struct world *w)
{
	const struct insp insp = { .img = w->img };

	return insp_rehearse(&insp);
}

/* Of all shapes: with and without holes, private and shared memory. */
static void test_estimates(void **state)
{
	static const uint32_t kinds[] = { CKF_TARGET_TASK, CKF_TARGET_SHMEM };
	struct world w;
	double s;

	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		world_make(&w, SEED + i, i & 1, false, kinds[i / 2]);
		s = rehearse(&w);
		assert_true(s > 0 && s < 60);
		world_fini(&w);
	}
}

/* A program at the bottom of the address space, and its stack at the top, in one lane. */
static void test_far_apart(void **state)
{
	char page[CKF_PAGE_BYTES];
	struct world w;

	(void)state;
	world_begin(&w, SEED);
	world_random_pages(&w.seed, page, 1, false);
	img_target(&w.b, CKF_TARGET_TASK, 1, 0, 0);
	world_put(&w, 0, img_chunk(&w.b, CKF_CODEC_RAW, page, 1), 0, 1, page, 0);
	img_op(&w.b, UINT64_C(0x7fff00000000), 0, 0, 1);
	img_lanes(&w.b, 2);
	world_end(&w, false);
	assert_int_equal(w.img->idx->nr_lanes, 1);
	assert_true(rehearse(&w) > 0);
	world_fini(&w);
}

static void no_children(void)
{
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

/* Only what its parent has, too, is compared page by page: the rest may get huge pages. */
static void test_child(void **state)
{
	const uint64_t common = WORLD_BASE, own = WORLD_BASE + 4 * CKF_HUGE_BYTES;
	char page[CKF_PAGE_BYTES];
	uint32_t chunk;
	struct world w;

	(void)state;
	world_begin(&w, SEED);
	world_random_pages(&w.seed, page, 1, false);
	chunk = img_chunk(&w.b, CKF_CODEC_RAW, page, 1);
	img_target(&w.b, CKF_TARGET_TASK, 1, 0, 0);
	img_op(&w.b, common, chunk, 0, 1);
	img_lanes(&w.b, 2);
	img_target(&w.b, CKF_TARGET_TASK, 2, 0, 1);
	img_op(&w.b, common, chunk, 0, 1);
	img_op(&w.b, own, chunk, 0, 1);
	img_lanes(&w.b, 2);
	world_end(&w, false);
	assert_true(rehearse(&w) > 0);
	assert_int_equal(given->nr, 8); /* two of each of four fills */
	for (size_t i = 0; i < given->nr; i++) {
		assert_int_equal(given->dests[i].start, i % 2 ? own : common);
		assert_int_equal(given->dests[i].flags,
				 i % 2 ? CKF_DEST_FRESH | CKF_DEST_HUGE : CKF_DEST_SHARED);
	}
	world_fini(&w);
	no_children();
}

static void test_cannot(void **state)
{
	const char junk[CKF_PAGE_BYTES] = "another page";
	struct world w;
	int fd;

	(void)state;
	world_make(&w, SEED, false, true, CKF_TARGET_TASK);
	assert_true(rehearse(&w) < 0); /* it has a base */
	world_fini(&w);
	world_make(&w, SEED, false, false, CKF_TARGET_DEVICE);
	assert_true(rehearse(&w) < 0);
	world_fini(&w);
	world_make(&w, SEED, false, false, CKF_TARGET_TASK);
	fd = openat(w.dir_fd, CKF_PACK_NAME, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	for (uint64_t off = CKF_PAGE_BYTES; off < w.img->idx->pack_bytes; off += sizeof(junk))
		assert_int_equal(ckf_pwrite_all(fd, junk, sizeof(junk), off), 0);
	close(fd);
	assert_true(rehearse(&w) < 0); /* its chunks are damaged */
	world_fini(&w);
	no_children();
}

/* At least what its page faults take, and nothing of it is left. */
static void test_process(void **state)
{
	const double s = insp_process_s();

	(void)state;
	assert_true(s > 1e-5 && s < 10 && s != CKF_MODEL_PROCESS_S);
	no_children();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_estimates), cmocka_unit_test(test_far_apart),
		cmocka_unit_test(test_child),	  cmocka_unit_test(test_cannot),
		cmocka_unit_test(test_process),
	};

	given = mmap(NULL, sizeof(*given), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	if (given == MAP_FAILED)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
