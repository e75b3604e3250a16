/* SPDX-License-Identifier: MIT */
/*
 * Chunks that are kept in memory: device memory is filled from them as from the packs, without
 * reads, as long as they are those of the image and nobody has written to a pack.
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

#include "loader/ckf_image.h"
#include "loader/ckf_kept.h"
#include "mem_sink.h"
#include "sink_world.h"

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

static bool is_kept(const struct sink_world *w, const struct ckf_kept *k)
{
	struct ckf_packs_seen *seen;
	bool is;

	assert_int_equal(ckf_packs_see(w->img, &seen, NULL), 0);
	is = ckf_kept_is_of(k, w->img, seen);
	free(seen);
	return is;
}

static void fill_kept(struct sink_world *w, const struct ckf_kept *k, unsigned int threads)
{
	struct ckf_fill_opts o = { .size = sizeof(o), .dir_fd = -1, .threads = threads };
	struct ckf_fill_stats stats = { .size = sizeof(stats) };
	struct ckf_error err = { 0 };

	sw_add_dests(w);
	sw_count_all(w);
	atomic_store(&uploads_left, UINT32_MAX);
	if (ckf_fill_kept(k, w->img, &w->img->idx->targets[0], &kept_ops, w->dests, SW_NR_DESTS, &o,
			  &stats, &err))
		fail_msg("from kept chunks: %s", err.msg);
	sw_assert_clean(w);
	sw_assert_dests(w);
	assert_int_equal(stats.filled_bytes + stats.zero_bytes, SW_AREA_BYTES);
	assert_int_equal(stats.read_bytes, 0);
	atomic_store(&uploads_left, threads - 1);
	assert_int_equal(ckf_fill_kept(k, w->img, &w->img->idx->targets[0], &kept_ops, w->dests,
				       SW_NR_DESTS, &o, NULL, NULL),
			 -EIO);
	sw_assert_clean(w);
	sw_free_dests(w);
}

static int at_once(void *arg)
{
	(void)arg;
	return 1;
}

/* An image is refused as long as a write to it may not show. */
static struct ckf_kept *new_kept(const struct sink_world *w)
{
	struct ckf_error err = { 0 };
	struct ckf_kept *k;

	assert_int_equal(ckf_kept_new(w->img, &k, &err), -EAGAIN);
	assert_non_null(strstr(err.msg, "try again"));
	assert_null(k);
	sleep(1);
	assert_int_equal(ckf_kept_new(w->img, &k, NULL), 0);
	return k;
}

static struct ckf_kept *keep(const struct sink_world *w, void **mem)
{
	struct ckf_kept *k = new_kept(w);

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
		struct sink_world w;
		void *mem;
		int fd;

		sw_init(&w, seed);
		sw_open_sinks(&w, 1);
		k = keep(&w, &mem);
		assert_true(is_kept(&w, k));
		fill_kept(&w, k, 1);
		fill_kept(&w, k, 4);
		fd = openat(w.base_fd >= 0 ? w.base_fd : w.dir_fd, CKF_PACK_NAME, O_RDWR);
		sw_flip(fd, CKF_PAGE_BYTES);
		assert_int_equal(ckf_kept_load(k, w.img, mem, 2, NULL, NULL, &err), -EBADMSG);
		assert_non_null(strstr(err.msg, "chunks["));
		sw_flip(fd, CKF_PAGE_BYTES);
		assert_false(is_kept(&w, k));
		close(fd);
		ckf_kept_free(k);
		free(mem);
		sw_close_sinks(&w);
		sw_fini(&w);
	}
}

/* An image of the same packs, other chunks of which it wants. */
static void test_not_kept(void **state)
{
	struct ckf_target *t;
	struct ckf_kept *k;
	struct sink_world w;
	uint64_t nr_ops;

	(void)state;
	sw_init(&w, 1);
	t = &w.img->idx->targets[0];
	nr_ops = t->nr_ops;
	t->nr_ops = 1;
	k = new_kept(&w);
	assert_true(is_kept(&w, k));
	t->nr_ops = nr_ops;
	assert_false(is_kept(&w, k));
	ckf_kept_free(k);
	t->kind = CKF_TARGET_TASK;
	assert_int_equal(ckf_kept_new(w.img, &k, NULL), -ENOENT);
	ckf_kept_free(k);
	sw_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kept),
		cmocka_unit_test(test_not_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
