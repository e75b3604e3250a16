/* SPDX-License-Identifier: MIT */
/* What a dump needs of a machine: read from images as CRIU writes them, and from damaged ones. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
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

#include "ckfast_needs.h"
#include "convert/img.h"
#include "dump_maker.h"
#include "mm.pb-c.h"
#include "needs_maker.h"
#include "pstree.pb-c.h"

#define PID 100
#define THREAD 1100
#define CHILD 101

static char top[64];
static int dir;

static void put_tasks(void)
{
	PstreeEntry e = PSTREE_ENTRY__INIT;
	uint32_t threads[] = { PID, THREAD }, garbage = 0xfeed;
	uint8_t buf[64];
	MmEntry mm = MM_ENTRY__INIT;
	int fd = dm_image(dir, "pstree.img", CKF_PSTREE_MAGIC);

	e.pid = PID;
	e.sid = 50;
	e.n_threads = 2;
	e.threads = threads;
	dm_record(fd, buf, pstree_entry__pack(&e, buf));
	/* A zombie. */
	e.pid = CHILD;
	e.ppid = PID;
	e.n_threads = 1;
	e.threads = &garbage;
	dm_record(fd, buf, pstree_entry__pack(&e, buf));
	close(fd);
	mm.exe_file_id = 7;
	nm_image(dir, "mm-100.img", CKF_MM_MAGIC, &mm.base);
	/* The first of two tasks with one program is named. */
	nm_image(dir, "mm-101.img", CKF_MM_MAGIC, &mm.base);
	nm_fs(dir, PID);
}

static int set_up(void **state)
{
	(void)state;
	dm_tempdir(top);
	dir = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	nm_files(dir);
	nm_options(dir);
	put_tasks();
	nm_core(dir, "core-100.img", 7);
	nm_core(dir, "core-1100.img", 0xe0);
	nm_namespaces(dir, PID, 1, 1);
	nm_machine(dir);
	return dir < 0;
}

static int tear_down(void **state)
{
	(void)state;
	close(dir);
	dm_remove(top);
	return 0;
}

static struct ckf_needs *read_needs(struct ckf_needs_info *info)
{
	struct ckf_needs *n = NULL;
	struct ckf_error err = { 0 };

	*info = (struct ckf_needs_info){ .size = sizeof(*info) };
	if (ckf_needs_read(dir, &n, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(ckf_needs_get_info(n, info), 0);
	return n;
}

static void test_info(void **state)
{
	struct ckf_cpu_need cpu = { .size = sizeof(cpu) };
	struct ckf_needs_info info;
	struct ckf_needs *n = read_needs(&info);
	uint32_t id;

	(void)state;
	assert_int_equal(info.nr_tasks, 2);
	assert_int_equal(info.nr_ids, 3);
	assert_false(ckf_needs_get_id(n, 0, &id) || id != PID);
	assert_false(ckf_needs_get_id(n, 1, &id) || id != THREAD);
	assert_false(ckf_needs_get_id(n, 2, &id) || id != CHILD);
	assert_int_equal(ckf_needs_get_id(n, 3, &id), -EINVAL);
	assert_true(info.outer_session);
	assert_int_equal(info.xstate, 0xe7);
	assert_int_equal(info.own_ns, 0);
	assert_int_equal(info.nr_tcp, 2);
	assert_int_equal(info.nr_ext_unix, 2);
	assert_int_equal(info.nr_ext_mounts, 1);
	assert_int_equal(info.ghost_bytes, 20);
	assert_int_equal(info.nr_outer_ttys, 1);
	assert_int_equal(info.nr_file_locks, 3);
	assert_int_equal(info.nr_devices, 0);
	assert_int_equal(info.nr_cpus, 1);
	assert_int_equal(ckf_needs_get_cpu(n, 0, &cpu), 0);
	assert_int_equal(cpu.nr_words, CKF_CPU_WORDS);
	assert_int_equal(cpu.words[2], 3);
	assert_int_equal(cpu.family, 6);
	assert_int_equal(cpu.model, 143);
	assert_string_equal(cpu.name, "Some CPU");
	assert_int_equal(ckf_needs_get_cpu(n, 1, &cpu), -EINVAL);
	ckf_needs_free(n);
}

static void expect_path(const struct ckf_needs *n, uint64_t nr, const char *path, uint32_t kind,
			uint64_t bytes, uint32_t mode)
{
	struct ckf_path_info p = { .size = sizeof(p) };

	assert_int_equal(ckf_needs_get_path(n, nr, &p), 0);
	assert_string_equal(p.path, path);
	assert_int_equal(p.kind, kind);
	assert_int_equal(p.pid, kind == CKF_PATH_FILE || kind == CKF_PATH_SOCKET ? 0 : PID);
	assert_true(p.bytes == bytes);
	assert_int_equal(p.mode, mode);
}

/* What is remapped need not be there. */
static void test_paths(void **state)
{
	struct ckf_path_info none = { 0 };
	struct ckf_needs_info info;
	struct ckf_needs *n = read_needs(&info);

	(void)state;
	assert_int_equal(info.nr_paths, 6);
	expect_path(n, 0, "/work", CKF_PATH_CWD, CKF_UNLIMITED, S_IFDIR | 0700);
	expect_path(n, 1, "/", CKF_PATH_ROOT, CKF_UNLIMITED, 0);
	expect_path(n, 2, "/usr/bin/program", CKF_PATH_EXE, 1000, S_IFREG | 0755);
	expect_path(n, 3, "/var/log/x", CKF_PATH_FILE, 77, S_IFREG | 0644);
	expect_path(n, 4, "/dev/pts/ptmx", CKF_PATH_FILE, CKF_UNLIMITED, S_IFCHR | 0666);
	expect_path(n, 5, "/run/peer", CKF_PATH_SOCKET, CKF_UNLIMITED, S_IFSOCK);
	assert_int_equal(ckf_needs_get_path(n, 6, &none), -EINVAL);
	assert_int_equal(ckf_needs_get_path(n, 0, &none), -EINVAL);
	ckf_needs_free(n);
}

static void test_namespaces(void **state)
{
	struct ckf_needs_info info;

	(void)state;
	nm_namespaces(dir, PID, 1, 9);
	ckf_needs_free(read_needs(&info));
	assert_int_equal(info.own_ns, CLONE_NEWPID);
	/* Not known of one of them. */
	nm_namespaces(dir, PID, 0, 9);
	ckf_needs_free(read_needs(&info));
	assert_int_equal(info.own_ns, 0);
}

/* A directory without a dump, and a dump that has only what it must have. */
static void test_little(void **state)
{
	struct ckf_error err = { 0 };
	struct ckf_needs_info info;
	struct ckf_needs *n = NULL;
	char path[128];
	int own = dir;

	(void)state;
	dir = dm_mkdir(top, "little", path, sizeof(path));
	assert_int_equal(ckf_needs_read(dir, &n, &err), -ENOENT);
	put_tasks();
	n = read_needs(&info);
	assert_int_equal(info.nr_ids, 3);
	assert_int_equal(info.nr_paths + info.nr_cpus + info.xstate, 0);
	ckf_needs_free(n);
	close(dir);
	dir = own;
}

static const char *const images[] = {
	"pstree.img",  "core-100.img",	"core-1100.img",      "mm-100.img",
	"fs-100.img",  "files.img",	"remap-fpath.img",    "cpuinfo.img",
	"ids-100.img", "inventory.img", "mountpoints-12.img",
};

/* Reads, and asks for all that was read: with a sanitizer that shows what is not there. */
static int use_needs(struct ckf_error *err)
{
	struct ckf_path_info path = { .size = sizeof(path) };
	struct ckf_cpu_need cpu = { .size = sizeof(cpu) };
	struct ckf_needs_info info = { .size = sizeof(info) };
	struct ckf_needs *n = NULL;
	int ret = ckf_needs_read(dir, &n, err);
	size_t sum = 0;

	if (ret)
		return ret;
	assert_int_equal(ckf_needs_get_info(n, &info), 0);
	for (uint64_t i = 0; i < info.nr_paths; i++) {
		assert_int_equal(ckf_needs_get_path(n, i, &path), 0);
		sum += strlen(path.path);
	}
	for (uint64_t i = 0; i < info.nr_cpus; i++) {
		assert_int_equal(ckf_needs_get_cpu(n, i, &cpu), 0);
		sum += strlen(cpu.name);
	}
	assert_true(sum < SIZE_MAX);
	ckf_needs_free(n);
	return 0;
}

/* Each byte of each image, with other values, and each image cut short at each place. */
static void test_hostile(void **state)
{
	static const uint8_t masks[] = { 0x01, 0x80, 0xff };
	uint8_t good[4096], bad[4096];
	struct ckf_error err;
	ssize_t bytes;
	int fd;

	(void)state;
	for (size_t i = 0; i < sizeof(images) / sizeof(images[0]); i++) {
		unsigned int refused = 0;

		fd = openat(dir, images[i], O_RDONLY | O_CLOEXEC);
		bytes = read(fd, good, sizeof(good));
		close(fd);
		assert_in_range(bytes, 1, sizeof(good) - 1);
		for (ssize_t at = 0; at < bytes; at++) {
			for (size_t m = 0; m < sizeof(masks); m++) {
				memcpy(bad, good, (size_t)bytes);
				bad[at] ^= masks[m];
				dm_write(dir, images[i], bad, (size_t)bytes);
				err = (struct ckf_error){ 0 };
				if (use_needs(&err)) {
					assert_true(err.code == -EBADMSG || err.code == -ENOENT ||
						    err.code == -E2BIG);
					assert_true(*err.msg);
					refused++;
				}
			}
			dm_write(dir, images[i], good, (size_t)at);
			err = (struct ckf_error){ 0 };
			refused += use_needs(&err) != 0;
		}
		if (!refused)
			fail_msg("%s: nothing is refused", images[i]);
		dm_write(dir, images[i], good, (size_t)bytes);
	}
	err = (struct ckf_error){ 0 };
	assert_int_equal(use_needs(&err), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_info),   TEST(test_paths),   TEST(test_namespaces),
		TEST(test_little), TEST(test_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
