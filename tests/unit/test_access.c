/* SPDX-License-Identifier: MIT */
/*
 * Who may read an image and what is extracted from it: as with the dump, and nobody else. Most of
 * it needs root, who alone may give files away.
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
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

#include "convert/access.h"
#include "ckfast.h"
#include "format/ckf_disk.h"
#include "dump_maker.h"

#define BASE 0x7f0000000000ull
#define USER 100000u /* root of a user namespace */
#define GROUP 100007u
#define NOBODY 65534u

struct env {
	char base[64];
	char dump[128];
	char fast[128];
	char back[128];
	int dir;
	uint32_t seed;
	char told[512];
};

/* A dump of one process for each of two pages files. */
static int setup(void **state)
{
	const struct dm_entry one = { BASE, 3, DM_PRESENT };
	const struct ckf_task tasks[] = { { .pid = 1, .comm = "one" },
					  { .pid = 2, .ppid = 1, .comm = "two" } };
	struct env *e = calloc(1, sizeof(*e));
	char path[256];

	assert_non_null(e);
	dm_tempdir(e->base);
	assert_int_equal(chmod(e->base, 0777), 0);
	e->dir = dm_mkdir(e->base, "dump", path, sizeof(path));
	snprintf(e->dump, sizeof(e->dump), "%s/dump", e->base);
	snprintf(e->fast, sizeof(e->fast), "%s/fast", e->base);
	snprintf(e->back, sizeof(e->back), "%s/back", e->base);
	dm_inventory(e->dir);
	dm_tasks(e->dir, tasks, 2);
	for (uint32_t id = 1; id <= 2; id++) {
		const uint32_t values[3] = { 10 * id, 10 * id + 1, 10 * id + 2 };
		char name[32];

		snprintf(name, sizeof(name), "pagemap-%u.img", id);
		dm_pagemap(e->dir, name, id, DM_42, &one, 1);
		dm_pages(e->dir, id, values, 3);
	}
	assert_int_equal(fchmod(e->dir, 0755), 0);
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	close(e->dir);
	dm_remove(e->base);
	free(e);
	return 0;
}

static void need_root(void)
{
	if (geteuid())
		skip();
}

static void note(void *arg, const char *msg)
{
	struct env *e = arg;

	snprintf(e->told, sizeof(e->told), "%s", msg);
}

static int convert(struct env *e, const char *base)
{
	struct ckf_convert_opts opts = {
		.size = sizeof(opts),
		.codec = CKF_CODEC_AUTO,
		.threads = 1,
		.warn = note,
		.arg = e,
		.bases = &base,
		.nr_bases = base != NULL,
	};
	struct ckf_error err = { 0 };
	int ret = ckf_convert(e->dump, e->fast, &opts, NULL, &err);

	if (ret)
		print_error("%s\n", err.msg);
	return ret;
}

static void give(const struct env *e, const char *name, uid_t uid, gid_t gid, mode_t mode)
{
	assert_int_equal(fchownat(e->dir, name, uid, gid, 0), 0);
	assert_int_equal(fchmodat(e->dir, name, mode, 0), 0);
}

static void is_for(const char *dir, const char *name, uid_t uid, gid_t gid, mode_t mode)
{
	char path[512];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_int_equal(stat(path, &st), 0);
	if (st.st_uid != uid || st.st_gid != gid || (st.st_mode & 07777) != mode)
		fail_msg("%s: %u:%u %o, want %u:%u %o", path, st.st_uid, st.st_gid,
			 st.st_mode & 07777, uid, gid, mode);
}

static void memory_is_for(const char *dir, uid_t uid, gid_t gid, mode_t mode)
{
	is_for(dir, CKF_IDX_NAME, uid, gid, mode);
	is_for(dir, CKF_PACK_NAME, uid, gid, mode);
	is_for(dir, CKF_README_NAME, uid, gid, mode);
}

/* A dump that belongs to root of a user namespace: so does all that is made from it. */
static void test_like_dump(void **state)
{
	static const char *const names[] = { "inventory.img", "pagemap-1.img", "pagemap-2.img",
					     "pages-1.img", "pages-2.img" };
	struct env *e = *state;
	char flat[128];

	need_root();
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		give(e, names[i], USER, GROUP, 0640);
	give(e, ".", USER, GROUP, 02750);
	assert_int_equal(convert(e, NULL), 0);
	is_for(e->fast, ".", USER, GROUP, 02750);
	is_for(e->fast, "inventory.img", USER, GROUP, 0640);
	memory_is_for(e->fast, USER, GROUP, 0640);
	assert_string_equal(e->told, "");

	assert_int_equal(ckf_extract(e->fast, e->back, NULL, NULL), 0);
	is_for(e->back, ".", USER, GROUP, 02750);
	is_for(e->back, "pages-1.img", USER, GROUP, 0640);
	snprintf(flat, sizeof(flat), "%s/flat", e->base);
	assert_int_equal(ckf_flatten(e->fast, flat, NULL, NULL), 0);
	is_for(flat, ".", USER, GROUP, 02750);
	is_for(flat, "inventory.img", USER, GROUP, 0640);
	memory_is_for(flat, USER, GROUP, 0640);
}

/* The pack holds two pages files: for those only who may read both. */
static void test_narrowest(void **state)
{
	static const struct {
		uid_t uid;
		gid_t gid;
		mode_t mode;
	} want = { USER, GROUP, 0640 }, cases[] = {
		{ USER, GROUP, 0644 }, { USER, GROUP, 0600 }, { USER, 0, 0664 },
		{ 0, GROUP, 0644 },    { 0, 0, 0666 },
	};
	static const struct {
		uid_t uid;
		gid_t gid;
		mode_t mode;
	} got[] = {
		{ USER, GROUP, 0640 }, { USER, GROUP, 0600 }, { USER, 0, 0600 },
		{ 0, GROUP, 0640 },    { 0, 0, 0600 },
	};
	struct env *e = *state;

	need_root();
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		give(e, "pages-1.img", want.uid, want.gid, want.mode);
		give(e, "pages-2.img", cases[i].uid, cases[i].gid, cases[i].mode);
		assert_int_equal(convert(e, NULL), 0);
		memory_is_for(e->fast, got[i].uid, got[i].gid, got[i].mode);
		dm_remove(e->fast);
	}
}

/* Pages that come from a parent dump, in a directory that only its owner can enter. */
static void test_parent(void **state)
{
	const struct dm_entry both[2] = { { BASE, 1, DM_PARENT },
					  { BASE + CKF_PAGE_BYTES, 2, DM_PRESENT } };
	const uint32_t values[3] = { 5, 6, 7 };
	struct env *e = *state;
	char path[256];
	int pre = dm_mkdir(e->base, "pre", path, sizeof(path));

	dm_pagemap(pre, "pagemap-1.img", 1, DM_42, &(struct dm_entry){ BASE, 3, DM_PRESENT }, 1);
	dm_pages(pre, 1, values, 3);
	assert_int_equal(fchmod(pre, 0750), 0);
	close(pre);
	dm_pagemap(e->dir, "pagemap-1.img", 1, DM_42, both, 2);
	dm_pages(e->dir, 1, values, 2);
	assert_int_equal(symlinkat("../pre", e->dir, "parent"), 0);
	assert_int_equal(convert(e, NULL), 0);
	memory_is_for(e->fast, geteuid(), getegid(), 0640);
	is_for(e->fast, ".", geteuid(), getegid(), 0755);
}

/* What flatten copies out of a base stays for those who could read it there. */
static void test_base(void **state)
{
	struct env *e = *state;
	char base[128], flat[128];

	assert_int_equal(convert(e, NULL), 0);
	memory_is_for(e->fast, geteuid(), getegid(), 0644);
	snprintf(base, sizeof(base), "%s/base", e->base);
	snprintf(flat, sizeof(flat), "%s/flat", e->base);
	assert_int_equal(rename(e->fast, base), 0);
	assert_int_equal(convert(e, base), 0);
	assert_int_equal(chmod(base, 0710), 0);
	assert_int_equal(ckf_flatten(e->fast, flat, NULL, NULL), 0);
	memory_is_for(flat, geteuid(), getegid(), 0640);
	is_for(flat, ".", geteuid(), getegid(), 0755);
}

/* An access control list is not copied, and its mask is not the right of the group. */
static void test_acl(void **state)
{
	/* user::rw-, user:65534:r--, group::---, mask::r--, other::--- */
	uint8_t acl[] = { 2, 0,	  0,   0,   1,	 0,   6,  0, 255, 255, 255, 255, 2,   0,  4,
			  0, 254, 255, 0,   0,	 4,   0,  0, 0,	  255, 255, 255, 255, 16, 0,
			  4, 0,	  255, 255, 255, 255, 32, 0, 0,	  0,   255, 255, 255, 255 };
	struct env *e = *state;
	char path[256];

	snprintf(path, sizeof(path), "%s/pages-2.img", e->dump);
	if (setxattr(path, "system.posix_acl_access", acl, sizeof(acl), 0))
		skip();
	is_for(e->dump, "pages-2.img", geteuid(), getegid(), 0640);
	assert_int_equal(convert(e, NULL), 0);
	memory_is_for(e->fast, geteuid(), getegid(), 0600);
	assert_int_equal(ckf_extract(e->fast, e->back, NULL, NULL), 0);
	is_for(e->back, "pages-2.img", geteuid(), getegid(), 0600);

	/* Nor does the directory above say who may read. */
	dm_remove(e->fast);
	acl[6] = 7; /* user::rwx */
	if (setxattr(e->base, "system.posix_acl_default", acl, sizeof(acl), 0))
		skip();
	assert_int_equal(convert(e, NULL), 0);
	is_for(e->fast, ".", geteuid(), getegid(), 0755);
	snprintf(path, sizeof(path), "%s/" CKF_PACK_NAME, e->fast);
	assert_true(getxattr(path, "system.posix_acl_access", NULL, 0) < 0);
	assert_true(getxattr(e->fast, "system.posix_acl_default", NULL, 0) < 0);
	assert_int_equal(removexattr(e->base, "system.posix_acl_default"), 0);
}

/* Who may not give files away keeps them, and its group gets what all have. */
static void test_not_root(void **state)
{
	struct env *e = *state;
	int status;
	pid_t pid;

	need_root();
	give(e, "pages-1.img", USER, GROUP, 0664);
	give(e, "pages-2.img", USER, GROUP, 0664);
	give(e, ".", USER, GROUP, 0775);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		if (setgid(NOBODY) || setuid(NOBODY) || convert(e, NULL) ||
		    !strstr(e->told, "without the right to set owners") ||
		    ckf_extract(e->fast, e->back, NULL, NULL))
			_exit(1);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	is_for(e->fast, ".", NOBODY, NOBODY, 0755);
	memory_is_for(e->fast, NOBODY, NOBODY, 0644);
	is_for(e->back, "pages-1.img", NOBODY, NOBODY, 0644);
	is_for(e->back, ".", NOBODY, NOBODY, 0755);
}

struct peek {
	const struct env *e;
	mode_t dir;  /* all bits that it had before the end */
	mode_t pack; /* the first that it had */
};

static mode_t mode_of(const char *dir, const char *name)
{
	char path[1024];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return stat(path, &st) ? 0 : st.st_mode & 0777;
}

/* Looks into the directory being written, each time that convert asks whether it is to stop. */
static int look(void *arg)
{
	char cmd[256], temp[256];
	struct peek *p = arg;
	FILE *f;

	snprintf(cmd, sizeof(cmd), "echo %s/.fast.ckfast-*", p->e->base);
	f = popen(cmd, "r");
	assert_non_null(f);
	assert_non_null(fgets(temp, sizeof(temp), f));
	pclose(f);
	temp[strcspn(temp, "\n")] = '\0';
	p->dir |= mode_of(temp, ".");
	if (!p->pack)
		p->pack = mode_of(temp, CKF_PACK_NAME);
	return 0;
}

/* Nobody else can look into what is not finished. */
static void test_in_between(void **state)
{
	struct env *e = *state;
	struct peek p = { .e = e };
	struct ckf_convert_opts opts = {
		.size = sizeof(opts),
		.codec = CKF_CODEC_AUTO,
		.stop = look,
		.arg = &p,
	};
	mode_t old = umask(0);

	assert_int_equal(ckf_convert(e->dump, e->fast, &opts, NULL, NULL), 0);
	umask(old);
	assert_int_equal(p.dir, 0700);
	assert_int_equal(p.pack, 0600);
	is_for(e->fast, ".", geteuid(), getegid(), 0755);
}

/* A directory in which its owner may not write is made all the same. */
static void test_read_only_dir(void **state)
{
	struct env *e = *state;

	assert_int_equal(chmod(e->dump, 0555), 0);
	assert_int_equal(convert(e, NULL), 0);
	is_for(e->fast, ".", geteuid(), getegid(), 0555);
	assert_int_equal(chmod(e->fast, 0755), 0);
	assert_int_equal(chmod(e->dump, 0755), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_like_dump, setup, teardown),
		cmocka_unit_test_setup_teardown(test_narrowest, setup, teardown),
		cmocka_unit_test_setup_teardown(test_parent, setup, teardown),
		cmocka_unit_test_setup_teardown(test_base, setup, teardown),
		cmocka_unit_test_setup_teardown(test_acl, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_root, setup, teardown),
		cmocka_unit_test_setup_teardown(test_in_between, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_only_dir, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
