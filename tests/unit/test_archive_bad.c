/* SPDX-License-Identifier: MIT */
/*
 * Checkpoint archives of somebody who means harm: each is refused with an error that says why, and
 * nothing is written, or comes back byte for byte.
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

#include "convert/files.h"
#include "convert/removed.h"
#include "format/ckf_codec.h"
#include "archive_maker.h"
#include "dump_maker.h"

static int fuzz_rounds(void)
{
	return getenv("CKF_LONG") ? 400 : 160;
}

static void ok(int ret, const struct ckf_error *err)
{
	if (ret)
		print_error("%s\n", err->msg);
	assert_int_equal(ret, 0);
}

static void bad_traversal(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_add_text(t, "a/../../etc/passwd", '0', "x");
}

static void bad_absolute(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_add_text(t, "/etc/passwd", '0', "x");
}

static void bad_pax_traversal(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_add_pax(t, 'x', "path", "checkpoint/../checkpoint/pages-1.img");
	am_add_text(t, "harmless", '0', "x");
}

static void bad_hard_link_target(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_add_link(t, "hard", '1', "../outside");
}

static void bad_hard_link(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_add_link(t, "hard", '1', "./checkpoint/pages-1.img");
}

static void bad_image_link(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_add_link(t, "checkpoint/fs-1.img", '2', "/etc/shadow");
}

static void bad_image_fifo(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_add_header(t, "checkpoint/fs-1.img", '6', 0);
}

static void bad_parent(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_add_link(t, "checkpoint/parent", '2', "../pre-checkpoint");
}

static void bad_checkpoint_link(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_add_link(t, "checkpoint", '2', "/tmp");
}

static void bad_twice(struct am_env *e, struct am_tar *t)
{
	am_add_file(e, t, "./checkpoint/", "pages-1.img");
}

static void bad_twice_as_link(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_add_text(t, "checkpoint/note", '0', "x");
	am_add_link(t, "checkpoint/note", '2', "elsewhere");
}

static void bad_fast(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_add_text(t, "checkpoint/ckfast.idx", '0', "x");
}

static void bad_sparse(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_add_header(t, "checkpoint/fs-1.img", 'S', 0);
}

static void bad_pax_sparse(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_add_pax(t, 'x', "GNU.sparse.realsize", "1000000000000");
	am_add_text(t, "checkpoint/fs-1.img", '0', "x");
}

static void bad_long_name(struct am_env *e, struct am_tar *t)
{
	char name[300] = "checkpoint/";

	(void)e;
	memset(name + 11, 'n', sizeof(name) - 12);
	name[sizeof(name) - 1] = '\0';
	am_add_pax(t, 'x', "path", name);
	am_add_text(t, "x", '0', "x");
}

static void bad_huge(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_add_header(t, "huge", '0', 077777777777);
}

static void bad_base256(struct am_env *e, struct am_tar *t)
{
	struct ckf_tar_header *h = am_add_header(t, "huge", '0', 0);

	(void)e;
	memset(h->bytes, 0xff, sizeof(h->bytes));
	h->bytes[0] = (char)0x80;
	am_fix_sum(h);
}

static void bad_largest(struct am_env *e, struct am_tar *t)
{
	struct ckf_tar_header *h = am_add_header(t, "huge", '0', 0);

	(void)e;
	memset(h->bytes, 0, sizeof(h->bytes));
	h->bytes[0] = (char)0x80;
	memset(h->bytes + 4, 0xff, 8);
	am_fix_sum(h);
}

static void bad_pax_size(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_add_pax(t, 'x', "size", "18446744073709551615");
	am_add_text(t, "huge", '0', "x");
}

static void bad_link_size(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_add(t, "link", '2', "data", 4);
}

static void bad_dir_name(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_add_text(t, "config.dump/", '0', "x");
}

static void bad_extended(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_extend(t, 0);
	am_add_header(t, "PaxHeaders/x", 'x', 2u << 20);
	am_extend(t, 2u << 20);
}

static void bad_record(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_add_text(t, "PaxHeaders/x", 'x', "99 path=x\n");
	am_add_text(t, "x", '0', "x");
}

static void bad_global(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_add_pax(t, 'g', "size", "0");
}

static void bad_last_extended(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_add_pax(t, 'x', "path", "x");
}

static void bad_checksum(struct am_env *e, struct am_tar *t)
{
	struct ckf_tar_header *h = am_add_header(t, "x", '0', 0);

	(void)e;
	h->name[0] = 'y';
}

static void bad_lone_zeros(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_extend(t, AM_BLOCK);
	am_add_text(t, "x", '0', "x");
}

static void bad_volume(struct am_env *e, struct am_tar *t)
{
	(void)e;
	am_add_text(t, "x", 'M', "x");
}

static void bad_number(struct am_env *e, struct am_tar *t)
{
	struct ckf_tar_header *h = am_add_header(t, "x", '0', 0);

	(void)e;
	memcpy(h->uid, "12x4567", 8);
	am_fix_sum(h);
}

static void test_bad(void **state)
{
	static const struct {
		void (*add)(struct am_env *e, struct am_tar *t);
		int code;
	} all[] = {
		{ bad_traversal, -EBADMSG },
		{ bad_absolute, -EBADMSG },
		{ bad_pax_traversal, -EBADMSG },
		{ bad_hard_link_target, -EBADMSG },
		{ bad_hard_link, -EOPNOTSUPP },
		{ bad_image_link, -EOPNOTSUPP },
		{ bad_image_fifo, -EOPNOTSUPP },
		{ bad_parent, -EOPNOTSUPP },
		{ bad_checkpoint_link, -EOPNOTSUPP },
		{ bad_twice, -EBADMSG },
		{ bad_twice_as_link, -EBADMSG },
		{ bad_fast, -EINVAL },
		{ bad_sparse, -EOPNOTSUPP },
		{ bad_pax_sparse, -EOPNOTSUPP },
		{ bad_long_name, -EOPNOTSUPP },
		{ bad_huge, -EBADMSG },
		{ bad_base256, -EBADMSG },
		{ bad_largest, -EBADMSG },
		{ bad_pax_size, -EBADMSG },
		{ bad_link_size, -EBADMSG },
		{ bad_dir_name, -EBADMSG },
		{ bad_extended, -E2BIG },
		{ bad_record, -EBADMSG },
		{ bad_global, -EBADMSG },
		{ bad_last_extended, -EBADMSG },
		{ bad_checksum, -EBADMSG },
		{ bad_lone_zeros, -EBADMSG },
		{ bad_volume, -EOPNOTSUPP },
		{ bad_number, -EBADMSG },
	};
	struct am_env *e = *state;
	struct ckf_error err;
	int ret;

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		e->tar.bytes = 0;
		am_add_dump(e, &e->tar, "checkpoint/");
		all[i].add(e, &e->tar);
		am_add_end(&e->tar);
		am_save(e);
		err.code = 0;
		ret = am_convert(e, &err);
		if (ret != all[i].code)
			print_error("case %zu: %s\n", i, err.code ? err.msg : "converted");
		assert_int_equal(ret, all[i].code);
		assert_int_equal(err.code, ret);
		am_has_entries(e, 2);
	}
}

static void test_no_archive(void **state)
{
	struct am_env *e = *state;
	struct ckf_tar_header *h;
	char zeros[4096] = { 0 };

	am_write_file(e->in, "", 0);
	assert_int_equal(am_convert(e, NULL), -EBADMSG);
	am_write_file(e->in, zeros, sizeof(zeros));
	assert_int_equal(am_convert(e, NULL), -EBADMSG);
	am_write_file(e->in,
		      "\xfd"
		      "7zXZ",
		      6);
	assert_int_equal(am_convert(e, NULL), -EOPNOTSUPP);
	am_add_text(&e->tar, "config.dump", '0', "{}");
	am_save(e);
	assert_int_equal(am_convert(e, NULL), -ENOENT);
	/* A map of holes that is cut off. */
	h = am_add_header(&e->tar, "sparse", 'S', 0);
	((char *)h)[482] = 1;
	am_fix_sum(h);
	am_save(e);
	assert_int_equal(am_convert(e, NULL), -EBADMSG);
	am_has_entries(e, 2);
}

/* Cut off anywhere, it is refused or, where it ends between two members, a whole one. */
static void test_truncated(void **state)
{
	struct am_env *e = *state;
	struct ckf_error err;

	am_add_dump(e, &e->tar, "checkpoint/");
	am_add_text(&e->tar, "last", '0', "x");
	am_add_end(&e->tar);
	for (size_t cut = e->tar.bytes - 1; cut > 0; cut -= cut % AM_BLOCK ? cut % AM_BLOCK : 100) {
		am_write_file(e->in, e->tar.p, cut);
		err.code = 0;
		if (!am_convert(e, &err)) {
			e->tar.bytes = cut;
			ok(am_extract(e, &err), &err);
			am_same_back(e);
			assert_int_equal(unlink(e->fast), 0);
			assert_int_equal(unlink(e->back), 0);
		}
		assert_true(!err.code || *err.msg);
		am_has_entries(e, 2);
	}
}

/* A few bytes changed, mostly with the checksum of the header put right. */
static void test_fuzz_input(void **state)
{
	struct am_env *e = *state;
	uint64_t seed = dm_seed();
	struct am_tar good;

	am_add_text(&e->tar, "config.dump", '0', "{}");
	am_add_pax(&e->tar, 'x', "path", "spec.dump");
	am_add_text(&e->tar, "x", '0', "{}");
	am_add_dump(e, &e->tar, "checkpoint/");
	am_add_end(&e->tar);
	good = e->tar;
	e->tar = (struct am_tar){ 0 };
	for (int round = 0; round < fuzz_rounds(); round++) {
		e->tar.bytes = 0;
		memcpy(am_extend(&e->tar, good.bytes), good.p, good.bytes);
		for (uint32_t n = 1 + dm_rand(&seed) % 3; n; n--) {
			size_t block = dm_rand(&seed) % (good.bytes / AM_BLOCK) * AM_BLOCK;

			e->tar.p[block + dm_rand(&seed) % (n == 1 ? AM_BLOCK : 160)] =
				(uint8_t)dm_rand(&seed);
			if (dm_rand(&seed) % 8)
				am_fix_sum(e->tar.p + block);
		}
		am_save(e);
		if (!am_convert(e, NULL)) {
			struct ckf_error err = { 0 };

			ok(am_extract(e, &err), &err);
			am_same_back(e);
			assert_int_equal(unlink(e->fast), 0);
			assert_int_equal(unlink(e->back), 0);
		}
		am_has_entries(e, 2);
	}
	free(good.p);
}

static void refused_back(const struct am_env *e, const struct am_tar *fast, int code)
{
	struct ckf_error err = { 0 };

	am_write_file(e->fast, fast->p, fast->bytes);
	assert_int_equal(am_extract(e, &err), code);
	assert_int_equal(err.code, code);
	am_has_entries(e, 3);
}

/* The list of what was removed, changed and with its checksum put right. */
static void test_bad_removed(void **state)
{
	struct am_env *e = *state;
	struct ckf_disk_removed_header *h;
	struct ckf_disk_removed *d;
	struct am_tar fast;
	uint64_t bytes, seed = dm_seed();
	uint8_t *p, *copy;

	am_make_fast(e, &fast);
	p = am_find(e, &fast, CKF_REMOVED_NAME, &bytes);
	copy = malloc((size_t)bytes);
	assert_non_null(copy);
	memcpy(copy, p, (size_t)bytes);
	h = (void *)p;
	d = (void *)(p + sizeof(*h));

	h->version = ckf_put32(2);
	refused_back(e, &fast, -EOPNOTSUPP);
	memcpy(p, copy, (size_t)bytes);
	p[bytes - 1] ^= 1;
	refused_back(e, &fast, -EBADMSG);
	memcpy(p, copy, (size_t)bytes);
	d->name_bytes = ckf_put32(UINT32_MAX);
	h->checksum = ckf_put64(ckf_hash64(p + sizeof(*h), (size_t)bytes - sizeof(*h)));
	refused_back(e, &fast, -EBADMSG);
	/* Another name: the image has no such pages file, or one is missing. */
	memcpy(p, copy, (size_t)bytes);
	p[sizeof(*h) + sizeof(*d) + 6] = '2';
	h->checksum = ckf_put64(ckf_hash64(p + sizeof(*h), (size_t)bytes - sizeof(*h)));
	refused_back(e, &fast, -EBADMSG);
	/* A header that makes the pages another member's. */
	memcpy(p, copy, (size_t)bytes);
	p[sizeof(*h) + sizeof(*d) + 11] = '/';
	am_fix_sum(p + sizeof(*h) + sizeof(*d) + 11);
	h->checksum = ckf_put64(ckf_hash64(p + sizeof(*h), (size_t)bytes - sizeof(*h)));
	refused_back(e, &fast, -EBADMSG);

	for (int round = 0; round < fuzz_rounds(); round++) {
		memcpy(p, copy, (size_t)bytes);
		for (uint32_t n = 1 + dm_rand(&seed) % 4; n; n--)
			p[dm_rand(&seed) % bytes] = (uint8_t)dm_rand(&seed);
		h->checksum = ckf_put64(ckf_hash64(p + sizeof(*h), (size_t)bytes - sizeof(*h)));
		am_write_file(e->fast, fast.p, fast.bytes);
		if (!am_extract(e, NULL))
			assert_int_equal(unlink(e->back), 0);
		am_has_entries(e, 3);
	}
	free(copy);
	free(fast.p);
}

static void test_fuzz_fast(void **state)
{
	struct am_env *e = *state;
	uint64_t seed = dm_seed();
	struct am_tar good, fast = { 0 };

	am_make_fast(e, &good);
	for (int round = 0; round < fuzz_rounds(); round++) {
		size_t block = dm_rand(&seed) % (good.bytes / AM_BLOCK) * AM_BLOCK;

		fast.bytes = 0;
		memcpy(am_extend(&fast, good.bytes), good.p, good.bytes);
		fast.p[block + dm_rand(&seed) % AM_BLOCK] ^= (uint8_t)(1 + dm_rand(&seed) % 255);
		if (dm_rand(&seed) % 4)
			am_fix_sum(fast.p + block);
		am_write_file(e->fast, fast.p, fast.bytes);
		if (!am_extract(e, NULL))
			assert_int_equal(unlink(e->back), 0);
		am_has_entries(e, 3);
	}
	free(good.p);
	free(fast.p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_bad, am_setup, am_teardown),
		cmocka_unit_test_setup_teardown(test_no_archive, am_setup, am_teardown),
		cmocka_unit_test_setup_teardown(test_truncated, am_setup, am_teardown),
		cmocka_unit_test_setup_teardown(test_fuzz_input, am_setup, am_teardown),
		cmocka_unit_test_setup_teardown(test_bad_removed, am_setup, am_teardown),
		cmocka_unit_test_setup_teardown(test_fuzz_fast, am_setup, am_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
