/* SPDX-License-Identifier: MIT */
/* Structs of callers that were built with a shorter or a longer version of them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "base/ckf_opts.h"
#include "fill_world.h"

struct opts {
	size_t size;
	uint64_t first;
	uint64_t second;
};

struct longer {
	struct opts opts;
	uint64_t third;
};

static int take(struct opts *own, const void *user, struct ckf_error *err)
{
	memset(own, 0xee, sizeof(*own));
	return CKF_OPTS_TAKE(opts, own, user, first, err);
}

static void test_take(void **state)
{
	struct longer user = { { sizeof(user.opts), 11, 12 }, 13 };
	struct ckf_error err = { 0 };
	struct opts own;

	(void)state;
	assert_int_equal(take(&own, &user, &err), 0);
	assert_int_equal(own.first, 11);
	assert_int_equal(own.second, 12);

	/* What the caller does not have is zero, what it cannot do without is missed. */
	user.opts.size = offsetof(struct opts, second);
	assert_int_equal(take(&own, &user, &err), 0);
	assert_int_equal(own.size, sizeof(own));
	assert_int_equal(own.first, 11);
	assert_int_equal(own.second, 0);
	user.opts.size--;
	assert_int_equal(take(&own, &user, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "struct opts"));
	user.opts.size = 0;
	assert_int_equal(take(&own, &user, NULL), -EINVAL);

	user.opts.size = sizeof(user);
	assert_int_equal(take(&own, &user, NULL), -EINVAL);
	user.third = 0;
	assert_int_equal(take(&own, &user, NULL), 0);
	assert_int_equal(own.size, sizeof(own));
	assert_int_equal(own.second, 12);
	user.third = (uint64_t)1 << 63;
	assert_int_equal(take(&own, &user, NULL), -EINVAL);
}

static void test_give(void **state)
{
	const struct opts own = { sizeof(own), 21, 22 };
	struct longer user = { { 0, 11, 12 }, 13 };

	(void)state;
	assert_int_equal(ckf_opts_give(&user, &own, sizeof(own)), -EINVAL);
	user.opts.size = offsetof(struct opts, second);
	assert_int_equal(ckf_opts_give(&user, &own, sizeof(own)), 0);
	assert_int_equal(user.opts.size, offsetof(struct opts, second));
	assert_int_equal(user.opts.first, 21);
	assert_int_equal(user.opts.second, 12);
	user.opts.size = sizeof(user);
	assert_int_equal(ckf_opts_give(&user, &own, sizeof(own)), 0);
	assert_int_equal(user.opts.size, sizeof(user));
	assert_int_equal(user.opts.second, 22);
	assert_int_equal(user.third, 0);
}

/* The functions of the library: what is behind the size of a shorter struct is never looked at. */
static void test_library(void **state)
{
	struct {
		struct ckf_fill_opts o;
		uint64_t more;
	} longer = { .o = { .size = sizeof(longer), .dir_fd = -1, .threads = 1 } };
	struct ckf_fill_opts shorter;
	struct ckf_fill_stats stats = { .size = offsetof(struct ckf_fill_stats, zero_bytes) };
	struct ckf_image_info info = { .size = offsetof(struct ckf_image_info, nr_files) };
	struct ckf_dest d;
	struct world w;

	(void)state;
	memset(&shorter, 0xee, sizeof(shorter));
	shorter.size = offsetof(struct ckf_fill_opts, timeout_ms);
	shorter.dir_fd = -1;
	shorter.threads = 1;
	shorter.flags = 0;
	stats.zero_bytes = 99;
	info.nr_files = 99;
	world_init(&w, 5, true);
	d = (struct ckf_dest){ .start = WORLD_BASE,
			       .end = WORLD_BASE + WORLD_BYTES,
			       .addr = world_map_area(),
			       .flags = CKF_DEST_FRESH,
			       .prot = PROT_READ | PROT_WRITE };
	assert_int_equal(ckf_fill(w.img, ckf_image_target(w.img, 0), &d, 1, &shorter, &stats, NULL),
			 0);
	world_assert_area(&w, d.addr, 0);
	assert_true(stats.filled_bytes > 0);
	assert_int_equal(stats.zero_bytes, 99);
	assert_int_equal(ckf_fill(w.img, ckf_image_target(w.img, 0), &d, 1, &longer.o, NULL, NULL),
			 0);
	longer.more = 1;
	assert_int_equal(ckf_fill(w.img, ckf_image_target(w.img, 0), &d, 1, &longer.o, NULL, NULL),
			 -EINVAL);
	stats.size = 0;
	assert_int_equal(ckf_fill(w.img, ckf_image_target(w.img, 0), &d, 1, &shorter, &stats, NULL),
			 -EINVAL);
	assert_int_equal(ckf_image_get_info(w.img, &info), 0);
	assert_int_equal(info.nr_chunks, w.img->idx->nr_chunks);
	assert_int_equal(info.nr_files, 99);
	munmap(d.addr, WORLD_BYTES);
	world_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_take),
		cmocka_unit_test(test_give),
		cmocka_unit_test(test_library),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
