/* SPDX-License-Identifier: MIT */
/* Reading dumps: every form of pagemap entry, and whatever may be wrong with an image file. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "convert/img.h"
#include "dump_maker.h"

struct env {
	char path[64];
	int dir;
};

static int setup(void **state)
{
	struct env *e = calloc(1, sizeof(*e));

	assert_non_null(e);
	dm_tempdir(e->path);
	e->dir = open(e->path, O_RDONLY | O_DIRECTORY);
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	close(e->dir);
	dm_remove(e->path);
	free(e);
	return 0;
}

/* Reads a pagemap that must be refused, and checks that the message has a word. */
static void refused(struct env *e, int code, const char *word)
{
	struct ckf_error err = { 0 };
	struct ckf_pagemap pm;

	assert_int_equal(ckf_pagemap_read(CKF_DIR(e->dir), "pagemap-1.img", false, &pm, &err),
			 code);
	assert_int_equal(err.code, code);
	if (!strstr(err.msg, word))
		fail_msg("no \"%s\" in \"%s\"", word, err.msg);
}

static void test_styles(void **state)
{
	struct env *e = *state;
	const struct dm_entry entries[] = {
		{ 0x10000, 3, DM_PRESENT }, { 0x13000, 2, DM_PRESENT }, { 0x15000, 4, DM_PARENT },
		{ 0x20000, 0, DM_PRESENT }, { 0x20000, 1, DM_PRESENT },
	};
	struct ckf_pagemap pm;

	for (enum dm_style s = DM_OLD; s <= DM_42; s++) {
		dm_pagemap(e->dir, "pagemap-shmem-70000000000.img", 7, s, entries, 5);
		assert_int_equal(ckf_pagemap_read(CKF_DIR(e->dir), "pagemap-shmem-70000000000.img",
						  false, &pm, NULL),
				 0);
		assert_int_equal(pm.kind, CKF_TARGET_SHMEM);
		assert_int_equal(pm.id, 70000000000);
		assert_int_equal(pm.pages_id, 7);
		assert_int_equal(pm.nr_runs, 3);
		assert_int_equal(pm.runs[0].nr_pages, 5);
		assert_int_equal(pm.runs[1].in_parent, 1);
		assert_int_equal(pm.nr_pages, 10);
		assert_int_equal(pm.nr_local_pages, 6);
		ckf_pagemap_fini(&pm);
	}
}

static void test_names(void **state)
{
	static const char *const bad[] = {
		"pagemap-.img",	      "pagemap-01.img",
		"pagemap-1.imgx",     "pagemap-4294967296.img",
		"pagemap-1",	      "pagemap--1.img",
		"pagemap-x.img",      "pages-1.img",
		"pagemap-shmem-.img", "pagemap-shmem-18446744073709551616.img",
	};
	uint32_t kind;
	uint64_t id;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(ckf_pagemap_name_parse(bad[i], &kind, &id));
	assert_true(ckf_pagemap_name_parse("pagemap-0.img", &kind, &id));
	assert_true(ckf_pagemap_name_parse("pagemap-shmem-18446744073709551615.img", &kind, &id));
	assert_int_equal(id, UINT64_MAX);
}

static void test_bad_entries(void **state)
{
	static const struct {
		struct dm_entry e[2];
		int code;
		const char *word;
	} cases[] = {
		{ { { 0x1000, 1, 0 } }, -EOPNOTSUPP, "page server" },
		{ { { 0x1000, 1, DM_LAZY } }, -EOPNOTSUPP, "page server" },
		{ { { 0x1000, 1, 16 | DM_PRESENT } }, -EOPNOTSUPP, "unknown flags 0x14" },
		{ { { 0x1000, 1, DM_ALIGNED | DM_PARENT } }, -EBADMSG, "compressed here" },
		{ { { 0x1000, 1, DM_PARENT | DM_PRESENT } }, -EBADMSG, "both" },
		{ { { 0x1001, 1, DM_PRESENT } }, -EBADMSG, "not that of a page" },
		{ { { 0x1000, UINT64_MAX, DM_PRESENT } }, -EBADMSG, "too many" },
		{ { { 0x1000, 1ull << 51, DM_PRESENT } }, -EBADMSG, "too many" },
		{ { { UINT64_MAX - 4095, 1, DM_PRESENT } }, -EBADMSG, "too many" },
		{ { { 0x5000, 2, DM_PRESENT }, { 0x6000, 1, DM_PRESENT } }, -EBADMSG, "[2]" },
		{ { { 0x5000, 1, DM_PRESENT }, { 0x1000, 1, DM_PRESENT } }, -EBADMSG, "below" },
	};
	struct env *e = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		dm_pagemap(e->dir, "pagemap-1.img", 1, DM_42, cases[i].e,
			   cases[i].e[1].nr_pages ? 2 : 1);
		refused(e, cases[i].code, cases[i].word);
	}
	dm_pagemap(e->dir, "pagemap-1.img", 1, DM_NEWER,
		   &(struct dm_entry){ 0x1000, 1, DM_PRESENT }, 1);
	refused(e, -EOPNOTSUPP, "field 7 is that of a newer CRIU");
}

static void test_bad_files(void **state)
{
	static const uint32_t huge_record[] = { 0x54564319, CKF_PAGEMAP_MAGIC, 0xffffffff };
	struct env *e = *state;
	struct dm_entry entry = { 0x1000, 1, DM_PRESENT };
	struct ckf_pagemap pm;
	int fd;

	assert_int_equal(ckf_pagemap_read(CKF_DIR(e->dir), "pagemap-1.img", false, &pm, NULL),
			 -ENOENT);
	dm_write(e->dir, "pagemap-1.img", "", 0);
	refused(e, -EBADMSG, "ends");
	dm_write(e->dir, "pagemap-1.img", "0123456789", 10);
	refused(e, -EBADMSG, "magic");
	dm_write(e->dir, "pagemap-1.img", huge_record, sizeof(huge_record));
	refused(e, -EBADMSG, "beyond");
	fd = dm_image(e->dir, "pagemap-1.img", CKF_PAGEMAP_MAGIC);
	refused(e, -EBADMSG, "no pagemap head");
	dm_record(fd, "\xff\xff\xff", 3);
	refused(e, -EBADMSG, "no pagemap head");
	close(fd);
	/* A record that is large, and there, as a hole. */
	fd = dm_image(e->dir, "pagemap-1.img", CKF_PAGEMAP_MAGIC);
	assert_int_equal(write(fd, &(uint32_t){ CKF_IMG_MAX_RECORD_BYTES + 1 }, 4), 4);
	assert_int_equal(ftruncate(fd, 12 + CKF_IMG_MAX_RECORD_BYTES + 1), 0);
	close(fd);
	refused(e, -E2BIG, "a record of");
	/* Cut off after every byte. */
	dm_pagemap(e->dir, "pagemap-1.img", 1, DM_42, &entry, 1);
	for (off_t len = 0; len < 30; len++) {
		struct stat st;

		dm_pagemap(e->dir, "pagemap-1.img", 1, DM_42, &entry, 1);
		fstatat(e->dir, "pagemap-1.img", &st, 0);
		if (len >= st.st_size)
			break;
		fd = openat(e->dir, "pagemap-1.img", O_WRONLY);
		assert_int_equal(ftruncate(fd, len), 0);
		close(fd);
		if (!ckf_pagemap_read(CKF_DIR(e->dir), "pagemap-1.img", false, &pm, NULL)) {
			assert_int_equal(pm.nr_pages, 0); /* ended between two records */
			ckf_pagemap_fini(&pm);
		}
	}
	unlinkat(e->dir, "pagemap-1.img", 0);
	assert_int_equal(mkfifoat(e->dir, "pagemap-1.img", 0600), 0);
	refused(e, -EOPNOTSUPP, "not a regular file");
	unlinkat(e->dir, "pagemap-1.img", 0);
	assert_int_equal(symlinkat("/dev/zero", e->dir, "pagemap-1.img"), 0);
	refused(e, -EOPNOTSUPP, "not a regular file");
}

static void test_old_magic(void **state)
{
	/* Images v1: the magic of the type alone. */
	static const uint8_t v1[] = { 0x25, 0x40, 0x08, 0x56, 2, 0, 0, 0, 0x08, 0x05 };
	struct env *e = *state;
	struct ckf_pagemap pm;

	dm_write(e->dir, "pagemap-1.img", v1, sizeof(v1));
	assert_int_equal(ckf_pagemap_read(CKF_DIR(e->dir), "pagemap-1.img", false, &pm, NULL), 0);
	assert_int_equal(pm.pages_id, 5);
	assert_int_equal(pm.nr_runs, 0);
	ckf_pagemap_fini(&pm);
}

static void test_tasks(void **state)
{
	struct ckf_vma vma = { .start = 0x1000,
			       .end = 0x3000,
			       .pgoff = 4096,
			       .prot = 3,
			       .flags = MAP_PRIVATE | MAP_ANONYMOUS,
			       .status = 0x201,
			       .madv = 5 };
	struct ckf_task tasks[] = {
		{ .pid = 10,
		  .ppid = 0,
		  .comm = "one",
		  .state = 1,
		  .vmas = &vma,
		  .nr_vmas = 1,
		  .thp_disabled = true },
		{ .pid = 3, .ppid = 10, .comm = "two", .state = 6 },
	};
	struct env *e = *state;
	struct dm_entry entry = { 0x1000, 1, DM_PRESENT };
	struct ckf_dump *d = NULL;

	/* An empty directory is a dump of nothing. */
	assert_int_equal(ckf_dump_open(e->path, &d, NULL), 0);
	assert_int_equal(d->nr_tasks + d->nr_pagemaps, 0);
	ckf_dump_close(d);
	dm_tasks(e->dir, tasks, 2);
	dm_pagemap(e->dir, "pagemap-shmem-1.img", 1, DM_42, &entry, 1);
	dm_pagemap(e->dir, "pagemap-10.img", 2, DM_42, &entry, 1);
	dm_pagemap(e->dir, "pagemap-3.img", 3, DM_42, &entry, 1);
	assert_int_equal(symlinkat("nowhere", e->dir, "parent"), 0);
	assert_int_equal(ckf_dump_open(e->path, &d, NULL), 0);
	assert_int_equal(d->nr_tasks, 2);
	assert_int_equal(d->tasks[0].pid, 10);
	assert_string_equal(d->tasks[0].comm, "one");
	assert_int_equal(d->tasks[0].nr_threads, 1);
	assert_true(d->tasks[0].thp_disabled);
	assert_int_equal(d->tasks[0].nr_vmas, 1);
	assert_memory_equal(d->tasks[0].vmas, &vma, sizeof(vma));
	assert_int_equal(d->tasks[1].ppid, 10);
	assert_int_equal(d->tasks[1].state, 6);
	assert_true(d->has_parent);
	assert_int_equal(d->nr_pagemaps, 3);
	assert_int_equal(d->pagemaps[0].id, 3);
	assert_int_equal(d->pagemaps[1].id, 10);
	assert_int_equal(d->pagemaps[2].kind, CKF_TARGET_SHMEM);
	ckf_dump_close(d);
}

static void dump_refused(struct env *e, int code, const char *word)
{
	struct ckf_error err = { 0 };
	struct ckf_dump *d = NULL;

	assert_int_equal(ckf_dump_openat(e->dir, ".", &d, &err), code);
	if (!strstr(err.msg, word))
		fail_msg("no \"%s\" in \"%s\"", word, err.msg);
}

static void test_bad_tasks(void **state)
{
	struct ckf_vma vma = { .start = 0x3000, .end = 0x3000 };
	struct ckf_task tasks[] = { { .pid = 5, .vmas = &vma, .nr_vmas = 1 }, { .pid = 5 } };
	struct env *e = *state;
	int fd;

	dm_tasks(e->dir, tasks, 1);
	dump_refused(e, -EBADMSG, "VMA 0");
	vma.end = 0x4001;
	dm_tasks(e->dir, tasks, 1);
	dump_refused(e, -EBADMSG, "mm-5.img[0]");
	vma.end = 0x4000;
	dm_tasks(e->dir, tasks, 2);
	dump_refused(e, -EBADMSG, "twice");
	dm_tasks(e->dir, tasks, 1);
	fd = dm_image(e->dir, "core-5.img", CKF_CORE_MAGIC);
	dump_refused(e, -EBADMSG, "core-5.img");
	close(fd);
	dm_tasks(e->dir, tasks, 1);
	fd = dm_image(e->dir, "pstree.img", CKF_PSTREE_MAGIC);
	dm_record(fd, "\x08", 1);
	close(fd);
	dump_refused(e, -EBADMSG, "pstree.img[0] at 8");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_styles, setup, teardown),
		cmocka_unit_test(test_names),
		cmocka_unit_test_setup_teardown(test_bad_entries, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_files, setup, teardown),
		cmocka_unit_test_setup_teardown(test_old_magic, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tasks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_tasks, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
