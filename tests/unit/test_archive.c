/* SPDX-License-Identifier: MIT */
/* Checkpoint archives: what is converted comes back byte for byte. */
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
#include <zstd.h>

#include <cmocka.h>

#include "archive_maker.h"

static void ok(int ret, const struct ckf_error *err)
{
	if (ret)
		print_error("%s\n", err->msg);
	assert_int_equal(ret, 0);
}

static void verify(const char *path)
{
	struct ckf_error err = { 0 };
	struct ckf_image *img;

	ok(ckf_image_open_path(path, NULL, &img, &err), &err);
	ok(ckf_verify(img, NULL, NULL, &err), &err);
	ok(ckf_verify_plan(img, NULL, &err), &err);
	ckf_image_close(img);
}

static void there_and_back(const struct am_env *e)
{
	struct ckf_error err = { 0 };

	am_save(e);
	ok(am_convert(e, &err), &err);
	verify(e->fast);
	ok(am_extract(e, &err), &err);
	am_same_back(e);
	am_has_entries(e, 4);
	assert_int_equal(unlink(e->fast), 0);
	assert_int_equal(unlink(e->back), 0);
}

/* Members of all kinds around and between the images, each with headers of its own. */
static void test_all_kinds(void **state)
{
	struct am_env *e = *state;
	struct am_tar *t = &e->tar;
	struct ckf_tar_header *h;
	char name[200];

	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	am_add_pax(t, 'g', "comment", "for all");
	am_add_text(t, "config.dump", '0', "{}");
	am_add_pax(t, 'x', "path", name);
	am_add_text(t, "short", '0', "a long name");
	am_add(t, "././@LongLink", 'L', name, sizeof(name));
	am_add_text(t, "short", '0', "a long name of GNU");
	am_add_pax(t, 'x', "SCHILY.xattr.user.x", "value");
	am_add_text(t, "xattr", '\0', "");
	am_add_link(t, "hard", '1', "config.dump");
	am_add_link(t, "soft", '2', "/etc/passwd");
	am_add_header(t, "device", '3', 0);
	am_add_header(t, "checkpoint/", '5', 0);
	am_add_file(e, t, "checkpoint/", "inventory.img");
	/* A sparse file in the old way of GNU, with one more block of the map. */
	h = am_add_header(t, "sparse", 'S', 3);
	((char *)h)[482] = 1;
	memcpy(h->magic, "ustar  ", 8);
	am_fix_sum(h);
	am_extend(t, AM_BLOCK);
	am_add_data(t, "abc", 3);
	for (size_t i = 1; i < AM_NR_NAMES; i++) {
		am_add_pax(t, 'x', "mtime", "1600000000.123456789");
		am_add_file(e, t, "checkpoint/", am_names[i]);
		am_add_text(t, "between", '0', "them");
	}
	/* As Python writes a time. */
	am_add_pax(t, 'x', "mtime", "1e-09");
	am_add_text(t, "checkpoint/descriptors.json", '0', "[]");
	am_add_header(t, "checkpoint/folder", '5', 0);
	am_add_text(t, "checkpoint/folder/pages-1.img", '0', "not an image");
	am_add_link(t, "checkpoint/link", '2', "../../../etc/passwd");
	am_add_end(t);
	am_extend(t, 7168);
	there_and_back(e);
}

static void test_spellings(void **state)
{
	/* The last two: at the root, as containerd packs them. */
	static const char *const prefixes[] = { "./checkpoint/", "checkpoint//",
						".//./checkpoint/./", "", "./" };
	struct am_env *e = *state;

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++) {
		e->tar.bytes = 0;
		am_add_dump(e, &e->tar, prefixes[i]);
		/* Nothing ends it, which all readers take. */
		if (i)
			am_add_end(&e->tar);
		there_and_back(e);
	}
}

/* Bytes behind the last page, and padding that is not zero: in the archive, nothing is lost. */
static void test_tail(void **state)
{
	struct am_env *e = *state;
	struct am_tar *t = &e->tar;
	uint8_t pages[AM_PAGES * CKF_PAGE_BYTES + 7];

	memset(pages, 'p', sizeof(pages));
	for (size_t i = 0; i < AM_NR_NAMES - 1; i++)
		am_add_file(e, t, "checkpoint/", am_names[i]);
	am_add(t, "checkpoint/pages-2.img", '0', pages, sizeof(pages));
	memset(t->p + t->bytes - 100, 'q', 100);
	am_add_end(t);
	there_and_back(e);
}

static void test_compressed(void **state)
{
	struct am_env *e = *state;
	struct ckf_error err;
	struct am_tar half;
	uint8_t *buf;
	size_t bytes, room;

	am_add_dump(e, &e->tar, "checkpoint/");
	am_add_end(&e->tar);
	room = 2 * e->tar.bytes;
	buf = malloc(room);
	assert_non_null(buf);
	for (int kind = 0; kind < 3; kind++) {
		if (kind == 0) {
			bytes = am_gzip(&e->tar, buf, room);
		} else if (kind == 1) { /* two streams, one after the other */
			half = (struct am_tar){ e->tar.p, 1000 };
			bytes = am_gzip(&half, buf, room);
			half = (struct am_tar){ e->tar.p + 1000, e->tar.bytes - 1000 };
			bytes += am_gzip(&half, buf + bytes, room - bytes);
		} else {
			bytes = ZSTD_compress(buf, room, e->tar.p, e->tar.bytes, 3);
		}
		am_write_file(e->in, buf, bytes);
		err.code = 0;
		ok(am_convert(e, &err), &err);
		ok(am_extract(e, &err), &err);
		am_same_back(e);
		assert_int_equal(unlink(e->fast), 0);
		assert_int_equal(unlink(e->back), 0);
		for (size_t cut = 1; cut < 30; cut += 7) {
			am_write_file(e->in, buf, bytes - cut);
			assert_int_equal(am_convert(e, NULL), -EBADMSG);
		}
		buf[bytes / 2] ^= 0x55;
		am_write_file(e->in, buf, bytes);
		/* zstd has no checksum here: another byte of a page is as good. */
		if (kind < 2)
			assert_int_equal(am_convert(e, NULL), -EBADMSG);
		else if (!am_convert(e, NULL))
			assert_int_equal(unlink(e->fast), 0);
		am_has_entries(e, 2);
	}
	free(buf);
}

/* The pack begins at a page, whatever comes before it. */
static void test_aligned(void **state)
{
	struct am_env *e = *state;
	struct am_tar fast;
	uint64_t bytes;

	for (unsigned int blocks = 0; blocks < 9; blocks++) {
		e->tar.bytes = 0;
		for (unsigned int i = 0; i < blocks; i++)
			am_add_header(&e->tar, "folder", '5', 0);
		am_make_fast(e, &fast);
		assert_int_equal(
			(am_find(e, &fast, CKF_PACK_NAME, &bytes) - fast.p) % CKF_PAGE_BYTES, 0);
		free(fast.p);
		assert_int_equal(unlink(e->fast), 0);
	}
}

/* Nothing fills memory out of an archive. */
static void test_no_fill(void **state)
{
	struct am_env *e = *state;
	const struct ckf_fill_opts opts = { .size = sizeof(opts), .threads = 1 };
	const struct ckf_dest dest = {
		.start = AM_BASE,
		.end = AM_BASE + AM_PAGES * CKF_PAGE_BYTES,
		.flags = CKF_DEST_SKIP | CKF_DEST_CHECK,
	};
	struct ckf_error err = { 0 };
	struct ckf_image *img;
	struct am_tar fast;

	am_make_fast(e, &fast);
	free(fast.p);
	ok(ckf_image_open_path(e->fast, NULL, &img, &err), &err);
	assert_int_equal(ckf_fill(img, ckf_image_target(img, 0), &dest, 1, &opts, NULL, &err),
			 -EOPNOTSUPP);
	ckf_image_close(img);
}

/* The archive itself is replaced, and has its owner, mode and time. */
static void test_in_place(void **state)
{
	struct am_env *e = *state;
	struct ckf_convert_opts opts = am_one_thread;
	struct ckf_error err = { 0 };
	struct stat before, after;

	am_add_dump(e, &e->tar, "checkpoint/");
	am_add_end(&e->tar);
	am_save(e);
	assert_int_equal(chmod(e->in, 0604), 0);
	assert_int_equal(stat(e->in, &before), 0);
	ok(ckf_convert(e->in, NULL, &am_one_thread, NULL, &err), &err);
	verify(e->in);
	assert_int_equal(stat(e->in, &after), 0);
	assert_int_equal(after.st_mode, before.st_mode);
	assert_memory_equal(&after.st_mtim, &before.st_mtim, sizeof(after.st_mtim));
	ok(ckf_extract(e->in, NULL, &am_one_thread, &err), &err);
	assert_int_equal(rename(e->in, e->back), 0);
	am_same_back(e);
	am_has_entries(e, 2);
	/* Onto itself only by that. */
	assert_int_equal(rename(e->back, e->in), 0);
	opts.force = true;
	assert_int_equal(ckf_convert(e->in, e->in, &opts, NULL, NULL), -EINVAL);
	assert_int_equal(ckf_convert(e->in, e->dump, &opts, NULL, NULL), -EISDIR);
	am_has_entries(e, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_all_kinds, am_setup, am_teardown),
		cmocka_unit_test_setup_teardown(test_spellings, am_setup, am_teardown),
		cmocka_unit_test_setup_teardown(test_tail, am_setup, am_teardown),
		cmocka_unit_test_setup_teardown(test_compressed, am_setup, am_teardown),
		cmocka_unit_test_setup_teardown(test_aligned, am_setup, am_teardown),
		cmocka_unit_test_setup_teardown(test_no_fill, am_setup, am_teardown),
		cmocka_unit_test_setup_teardown(test_in_place, am_setup, am_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
