/* SPDX-License-Identifier: MIT */
/*
 * Bases: which paths they may have, how an image finds them, and what conversions take from them.
 * Rules on what the index says are in tests/py/mutate.py, fills out of two packs in test_fill.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "ckfast.h"
#include "loader/ckf_image.h"
#include "dump_maker.h"
#include "img_builder.h"

#define ADDR 0x7f0000000000ull

/* root/fast is the sample with half of its chunks in root/base. */
struct env {
	char root[64];
	int fast_fd;
	int base_fd;
};

static int make_dir(const struct env *e, const char *name)
{
	char path[128];

	return dm_mkdir(e->root, name, path, sizeof(path));
}

static int setup(void **state)
{
	struct env *e = calloc(1, sizeof(*e));
	struct img_builder b;

	assert_non_null(e);
	dm_tempdir(e->root);
	e->fast_fd = make_dir(e, "fast");
	e->base_fd = make_dir(e, "base");
	img_sample(&b);
	img_to_base(&b, e->base_fd, "../base");
	assert_int_equal(img_write(&b, e->fast_fd), 0);
	img_fini(&b);
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	close(e->fast_fd);
	close(e->base_fd);
	dm_remove(e->root);
	free(e);
	return 0;
}

static void move(const struct env *e, const char *from, const char *to)
{
	char a[128], b[128];

	snprintf(a, sizeof(a), "%s/%s", e->root, from);
	snprintf(b, sizeof(b), "%s/%s", e->root, to);
	assert_int_equal(rename(a, b), 0);
}

/* What opening says, and that it names the base. */
static void expect_open(const struct env *e, int want, const char *word)
{
	struct ckf_image *img = NULL;
	struct ckf_error err = { 0 };
	int ret = ckf_image_open(e->fast_fd, &img, &err);

	if (ret != want)
		fail_msg("got %d (%s), want %d", ret, err.msg, want);
	if (want)
		assert_non_null(strstr(err.msg, "base 1, image "));
	if (word && !strstr(err.msg, word))
		fail_msg("no '%s' in: %s", word, err.msg);
	ckf_image_close(img);
}

static int open_with(const struct env *e, const char *dir, struct ckf_error *err)
{
	char path[128];
	const char *const dirs[] = { path };
	struct ckf_image_opts opts = { .size = sizeof(opts), .base_dirs = dirs, .nr_base_dirs = 1 };
	struct ckf_image *img = NULL;
	int ret;

	snprintf(path, sizeof(path), "%s/%s", e->root, dir);
	ret = ckf_image_open_opts(e->fast_fd, &opts, &img, err);
	if (!ret)
		ret = ckf_verify(img, CKF_OPTS(ckf_verify_opts, .threads = 2), NULL, err);
	ckf_image_close(img);
	return ret;
}

static void test_paths(void **state)
{
	static const char *const good[] = {
		"a", "..a", "...", "../a", "../../a/b", "a/b.c/-", ".a"
	};
	static const char *const bad[] = { "",	  ".",	    "..",  "../..", "/a",   "a/",    "a//b",
					   "../", "a/../b", "./a", "a/./b", "a/..", "..//a", "/" };
	char name[CKF_MAX_NAME_BYTES + 2];

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
		if (!ckf_base_path_ok(good[i], strlen(good[i])))
			fail_msg("'%s' is refused", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (ckf_base_path_ok(bad[i], strlen(bad[i])))
			fail_msg("'%s' is taken", bad[i]);
	assert_false(ckf_base_path_ok("a\0b", 3));
	memset(name, 'a', sizeof(name));
	assert_true(ckf_base_path_ok(name, CKF_MAX_NAME_BYTES));
	assert_false(ckf_base_path_ok(name, CKF_MAX_NAME_BYTES + 1));
}

static void test_open(void **state)
{
	struct env *e = *state;
	struct ckf_verify_stats stats = { .size = sizeof(stats) };
	struct ckf_error err = { 0 };
	struct ckf_image *img;

	assert_int_equal(ckf_image_open(e->fast_fd, &img, &err), 0);
	assert_int_equal(img->idx->nr_bases, 1);
	assert_string_equal(img->idx->bases[0].path, "../base");
	assert_true(img->idx->incompat & CKF_INCOMPAT_BASES);
	assert_true(img->idx->nr_own_chunks < img->idx->nr_chunks);
	assert_int_equal(ckf_verify(img, CKF_OPTS(ckf_verify_opts, .threads = 2), &stats, &err), 0);
	assert_true(stats.base_bytes > 0);
	ckf_image_close(img);
}

static void test_missing(void **state)
{
	struct env *e = *state;
	const struct ckf_image_opts opts = { .size = sizeof(opts), .no_bases = true };
	struct ckf_error err = { 0 };
	struct ckf_image *img;

	move(e, "base", "moved");
	expect_open(e, -ENOENT, "../base: No such file");
	assert_int_equal(open_with(e, "moved", NULL), 0);
	assert_int_equal(open_with(e, "fast", &err), -ESTALE);
	assert_non_null(strstr(err.msg, "none of the bases"));
	assert_int_equal(open_with(e, "nowhere", NULL), -ENOENT);
	assert_int_equal(ckf_image_open_opts(e->fast_fd, &opts, &img, NULL), 0);
	assert_int_equal(ckf_image_check_base(img, 1, NULL), -ENOENT);
	ckf_image_close(img);
	close(make_dir(e, "base"));
	expect_open(e, -ENOENT, "there is no " CKF_PACK_NAME);
}

/* Links are not followed, in the path or for the pack; nothing but a regular file is opened. */
static void test_links(void **state)
{
	struct env *e = *state;
	char path[128];

	move(e, "base", "moved");
	snprintf(path, sizeof(path), "%s/base", e->root);
	assert_int_equal(symlink("moved", path), 0);
	expect_open(e, -ENOTDIR, NULL);
	assert_int_equal(unlink(path), 0);
	move(e, "moved", "base");
	expect_open(e, 0, NULL);
	assert_int_equal(renameat(e->base_fd, CKF_PACK_NAME, e->base_fd, "pack"), 0);
	assert_int_equal(symlinkat("pack", e->base_fd, CKF_PACK_NAME), 0);
	expect_open(e, -EBADMSG, "symbolic link");
	assert_int_equal(unlinkat(e->base_fd, CKF_PACK_NAME, 0), 0);
	assert_int_equal(mkfifoat(e->base_fd, CKF_PACK_NAME, 0600), 0);
	expect_open(e, -EBADMSG, "not a regular file");
}

static void test_other_image(void **state)
{
	struct env *e = *state;
	struct img_builder b;
	int fd;

	move(e, "base", "moved");
	img_sample(&b);
	fd = make_dir(e, "base");
	assert_int_equal(img_write(&b, fd), 0);
	img_fini(&b);
	expect_open(e, -ESTALE, "there is another image");
	close(fd);
	assert_int_equal(open_with(e, "moved", NULL), 0);
}

static void test_damaged(void **state)
{
	struct env *e = *state;
	struct ckf_error err = { 0 };
	struct ckf_image *img;
	int fd = openat(e->base_fd, CKF_PACK_NAME, O_RDWR);
	uint64_t at;
	char byte;

	assert_int_equal(ckf_image_open(e->fast_fd, &img, NULL), 0);
	at = img->idx->chunks[img->idx->nr_own_chunks].pack_off;
	assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
	assert_int_equal(ckf_verify(img, CKF_OPTS(ckf_verify_opts, .threads = 2), NULL, &err),
			 -EBADMSG);
	assert_non_null(strstr(err.msg, "of base 1 (../base)"));
	ckf_image_close(img);
	assert_int_equal(ftruncate(fd, 2 * CKF_PAGE_BYTES), 0);
	expect_open(e, -EBADMSG, "wrong length");
	assert_int_equal(ftruncate(fd, 100), 0);
	expect_open(e, -EBADMSG, "too short");
	close(fd);
}

/* A dump with a task whose pages have the values first, first + 1… */
static void make_dump(const struct env *e, const char *name, uint32_t first, uint32_t nr)
{
	struct dm_entry entry = { ADDR, nr, DM_PRESENT };
	uint32_t *values = calloc(nr, sizeof(*values));
	int dir = make_dir(e, name);

	assert_non_null(values);
	for (uint32_t i = 0; i < nr; i++)
		values[i] = first + i;
	dm_pagemap(dir, "pagemap-1.img", 1, DM_42, &entry, 1);
	dm_pages(dir, 1, values, nr);
	dm_inventory(dir);
	close(dir);
	free(values);
}

static int convert(const struct env *e, const char *dump, const char *fast, const char *bases[2],
		   struct ckf_convert_stats *stats)
{
	struct ckf_convert_opts opts = { .size = sizeof(opts), .codec = CKF_CODEC_RAW };
	char from[128], to[128], paths[2][128];
	const char *dirs[2] = { paths[0], paths[1] };
	struct ckf_error err = { 0 };
	int ret;

	snprintf(from, sizeof(from), "%s/%s", e->root, dump);
	snprintf(to, sizeof(to), "%s/%s", e->root, fast);
	opts.bases = dirs;
	opts.force = true;
	for (; opts.nr_bases < 2 && bases && bases[opts.nr_bases]; opts.nr_bases++)
		snprintf(paths[opts.nr_bases], 128, "%s/%s", e->root, bases[opts.nr_bases]);
	ret = ckf_convert(from, to, &opts, stats, &err);
	if (ret)
		print_message("%s\n", err.msg);
	return ret;
}

static struct ckf_image *open_image(const struct env *e, const char *name)
{
	struct ckf_image *img = NULL;
	struct ckf_error err = { 0 };
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", e->root, name);
	fd = open(path, O_RDONLY | O_DIRECTORY);
	if (ckf_image_open(fd, &img, &err))
		fail_msg("%s", err.msg);
	close(fd);
	return img;
}

/* Pages at another place of another dump are not stored again; what is new is. */
static void test_convert(void **state)
{
	struct env *e = *state;
	struct ckf_convert_stats one = { .size = sizeof(one) }, two = one, three = one;
	struct ckf_image *img;

	make_dump(e, "dump1", 1, 3000);
	make_dump(e, "dump2", 701, 3000);
	make_dump(e, "dump3", 1401, 3000);
	close(make_dir(e, "deep"));
	assert_int_equal(convert(e, "dump1", "one", NULL, &one), 0);
	assert_int_equal(one.stored_bytes, 3000 * CKF_PAGE_BYTES);
	assert_int_equal(one.nr_bases, 0);
	assert_int_equal(convert(e, "dump2", "deep/two", (const char *[]){ "one", NULL }, &two), 0);
	assert_int_equal(two.nr_bases, 1);
	assert_int_equal(two.base_bytes + two.stored_bytes, 3000 * CKF_PAGE_BYTES);
	/* All but up to a chunk at either end. */
	assert_true(two.stored_bytes < (700 + 512) * CKF_PAGE_BYTES);
	assert_int_equal(convert(e, "dump3", "three", (const char *[]){ "deep/two", NULL }, &three),
			 0);
	assert_true(three.stored_bytes < (700 + 512) * CKF_PAGE_BYTES);

	/* The base of a base is named directly. */
	img = open_image(e, "three");
	assert_int_equal(img->idx->nr_bases, 2);
	assert_string_equal(img->idx->bases[0].path, "../deep/two");
	assert_string_equal(img->idx->bases[1].path, "../one");
	ckf_image_close(img);
	img = open_image(e, "deep/two");
	assert_string_equal(img->idx->bases[0].path, "../../one");
	ckf_image_close(img);

	/* Bases that have nothing are not named, and one that is named twice counts once. */
	assert_int_equal(convert(e, "dump3", "three", (const char *[]){ "deep/two", "one" }, &two),
			 0);
	assert_int_equal(two.stored_bytes, three.stored_bytes);
	make_dump(e, "dump4", 90001, 300);
	assert_int_equal(convert(e, "dump4", "four", (const char *[]){ "three", "one" }, &two), 0);
	assert_int_equal(two.nr_bases, 0);
	assert_int_equal(two.base_bytes, 0);
}

static void test_convert_refused(void **state)
{
	struct env *e = *state;
	char path[128];
	int fd;

	make_dump(e, "dump1", 1, 300);
	assert_int_equal(convert(e, "dump1", "one", NULL, NULL), 0);
	assert_int_equal(convert(e, "dump1", "two", (const char *[]){ "one", NULL }, NULL), 0);
	/* With force: it would take away what it needs, a base or the base of one. */
	assert_int_equal(convert(e, "dump1", "one", (const char *[]){ "one", NULL }, NULL),
			 -EINVAL);
	assert_int_equal(convert(e, "dump1", "one", (const char *[]){ "two", NULL }, NULL),
			 -EINVAL);
	assert_int_equal(convert(e, "dump1", "one/in", (const char *[]){ "one", NULL }, NULL),
			 -EINVAL);
	assert_int_equal(convert(e, "dump1", "x", (const char *[]){ "dump1", NULL }, NULL),
			 -ENOENT);
	/* Equal bytes are read, not believed: a base that is damaged is found out. */
	snprintf(path, sizeof(path), "%s/one/" CKF_PACK_NAME, e->root);
	fd = open(path, O_RDWR);
	assert_int_equal(pwrite(fd, "x", 1, 4096 + 17), 1);
	close(fd);
	assert_int_equal(convert(e, "dump1", "x", (const char *[]){ "one", NULL }, NULL), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths),
		cmocka_unit_test_setup_teardown(test_open, setup, teardown),
		cmocka_unit_test_setup_teardown(test_missing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_links, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_image, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
		cmocka_unit_test_setup_teardown(test_convert, setup, teardown),
		cmocka_unit_test_setup_teardown(test_convert_refused, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
