/* SPDX-License-Identifier: MIT */
/*
 * Limits of cgroups: some made of plain files. Those of the real kernel are in
 * tests/e2e/082-limits.sh, but it has one version of them at a time.
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

#include "ckfast_needs.h"
#include "ckfast.h"
#include "around.h"

static char top[64];

static int set_up(void **state)
{
	(void)state;
	snprintf(top, sizeof(top), "/tmp/ckf-test-memcg-XXXXXX");
	return mkdtemp(top) ? 0 : -1;
}

static int tear_down(void **state)
{
	char cmd[128];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf %s", top);
	return system(cmd);
}

static int open_dir(const char *name)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", top, name);
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static uint64_t headroom_of(const char *name)
{
	int fd = open_dir(name);
	uint64_t headroom = ckf_memcg_of_dir(fd);

	close(fd);
	return headroom;
}

/* The limit of one further up holds, too, also where one in between has no files. */
static void test_version_2(void **state)
{
	(void)state;
	make_dir(top, "v2");
	make_dir(top, "v2/a");
	make_dir(top, "v2/a/b");
	make_dir(top, "v2/a/b/c");
	put_file(top, "v2/a/b/c/memory.max", "max\n");
	put_file(top, "v2/a/b/c/memory.current", "1000\n");
	assert_true(headroom_of("v2/a/b/c") == CKF_UNLIMITED);
	put_file(top, "v2/a/memory.max", "10000\n");
	put_file(top, "v2/a/memory.current", "4000\n");
	assert_true(headroom_of("v2/a/b/c") == 6000);
	put_file(top, "v2/a/b/c/memory.max", "3000\n");
	assert_true(headroom_of("v2/a/b/c") == 2000);
	assert_true(headroom_of("v2/a/b") == 6000);
}

static void test_version_1(void **state)
{
	(void)state;
	make_dir(top, "v1");
	make_dir(top, "v1/a");
	put_file(top, "v1/memory.limit_in_bytes", "9223372036854771712\n");
	put_file(top, "v1/memory.usage_in_bytes", "1048576\n");
	put_file(top, "v1/a/memory.limit_in_bytes", "8192\n");
	put_file(top, "v1/a/memory.usage_in_bytes", "4096\n");
	put_file(top, "v1/a/memory.stat", "inactive_file 1\ntotal_inactive_file 2048\n");
	assert_true(headroom_of("v1/a") == 4096 + 2048);
	assert_true(headroom_of("v1") == 9223372036854771712ull - 1048576);
}

/* What the kernel gives up by itself is headroom; but no more than was charged. */
static void test_page_cache(void **state)
{
	(void)state;
	make_dir(top, "pc");
	put_file(top, "pc/memory.max", "10000\n");
	put_file(top, "pc/memory.current", "10000\n");
	assert_true(headroom_of("pc") == 0);
	put_file(top, "pc/memory.stat",
		 "anon 5000\nactive_file 2000\nfile 9000\ninactive_file 1000\n");
	assert_true(headroom_of("pc") == 3000);
	put_file(top, "pc/memory.stat", "active_file 200000\n");
	assert_true(headroom_of("pc") == 10000);
	put_file(top, "pc/memory.current", "12000\n");
	put_file(top, "pc/memory.stat", "");
	assert_true(headroom_of("pc") == 0);
	put_file(top, "pc/memory.max", "x\n");
	assert_true(headroom_of("pc") == CKF_UNLIMITED);
}

/* Above memory.high processes are slowed down: the lower of the two counts. */
static void test_high(void **state)
{
	(void)state;
	make_dir(top, "hi");
	put_file(top, "hi/memory.max", "max\n");
	put_file(top, "hi/memory.high", "8000\n");
	put_file(top, "hi/memory.current", "5000\n");
	assert_true(headroom_of("hi") == 3000);
	put_file(top, "hi/memory.max", "7000\n");
	assert_true(headroom_of("hi") == 2000);
	put_file(top, "hi/memory.high", "max\n");
	assert_true(headroom_of("hi") == 2000);
	put_file(top, "hi/memory.high", "4000\n");
	assert_true(headroom_of("hi") == 0);
	/* The soft limit of version 1 holds only where the machine is short of memory. */
	make_dir(top, "soft");
	put_file(top, "soft/memory.soft_limit_in_bytes", "1000\n");
	put_file(top, "soft/memory.limit_in_bytes", "9000\n");
	put_file(top, "soft/memory.usage_in_bytes", "5000\n");
	assert_true(headroom_of("soft") == 4000);
}

static void expect_path(const char *text, int ret, const char *want, bool want_unified)
{
	bool unified = false;
	char path[64];
	int fd;

	put_file(top, "cgroup", text);
	fd = open_dir(".");
	assert_int_equal(ckf_memcg_path(fd, path, sizeof(path), &unified), ret);
	close(fd);
	if (ret)
		return;
	assert_string_equal(path, want);
	assert_int_equal(unified, want_unified);
}

static void test_path(void **state)
{
	(void)state;
	expect_path("0::/a/b\n", 0, "/a/b", true);
	expect_path("0::/a:c\n", 0, "/a:c", true);
	/* Version 1 has the limits where it has the controller, wherever the line is. */
	expect_path("0::/u\n4:cpu,memory:/m\n", 0, "/m", false);
	expect_path("4:memory:/m\n0::/u\n", 0, "/m", false);
	expect_path("5:memory,cpu:/m\n", 0, "/m", false);
	expect_path("4:memoryx,xmemory:/m\n0::/u\n", 0, "/u", true);
	expect_path("1:cpu:/m\n", -ENOENT, NULL, false);
	expect_path("", -ENOENT, NULL, false);
	expect_path("nonsense\n", -ENOENT, NULL, false);
	expect_path("0::/0123456789012345678901234567890123456789012345678901234567890123456789\n",
		    -ENAMETOOLONG, NULL, false);
}

static uint64_t headroom_self(const char *root, const char *type, const char *options)
{
	char line[512];
	uint64_t headroom;
	int fd;

	snprintf(line, sizeof(line),
		 "30 20 0:1 / / rw - ext4 /dev/vda rw\n"
		 "31 20 0:2 %s %s/host rw,nosuid shared:4 - %s cgroup %s\n",
		 root, top, type, options);
	put_file(top, "mountinfo", line);
	fd = open_dir(".");
	headroom = ckf_memcg_self(fd);
	close(fd);
	return headroom;
}

/* The limits are those of the cgroup that leaves least, wherever it is. */
static void test_limits(void **state)
{
	struct ckf_memcg_limits l = { .size = sizeof(l) }, none = { 0 };
	int fd;

	(void)state;
	make_dir(top, "host/lim");
	make_dir(top, "host/lim/in");
	put_file(top, "host/lim/memory.max", "9000\n");
	put_file(top, "host/lim/memory.high", "7000\n");
	put_file(top, "host/lim/memory.current", "6500\n");
	put_file(top, "host/lim/memory.stat", "active_file 200\ninactive_file 100\n");
	put_file(top, "host/lim/in/memory.max", "5000\n");
	put_file(top, "host/lim/in/memory.current", "1000\n");
	put_file(top, "cgroup", "0::/lim/in\n");
	assert_true(headroom_self("/", "cgroup2", "rw") == 800);
	fd = open_dir(".");
	assert_int_equal(ckf_memcg_limits_self(fd, &none), -EINVAL);
	assert_int_equal(ckf_memcg_limits_self(fd, &l), 0);
	assert_int_equal(l.headroom_bytes, 800);
	assert_int_equal(l.limit_bytes, 9000);
	assert_int_equal(l.high_bytes, 7000);
	assert_int_equal(l.used_bytes, 6500);
	assert_int_equal(l.cache_bytes, 300);
	assert_int_equal(l.hard_headroom_bytes, 2800);
	assert_true(l.swap_headroom_bytes == CKF_UNLIMITED);
	put_file(top, "host/lim/in/memory.swap.max", "500\n");
	put_file(top, "host/lim/in/memory.swap.current", "100\n");
	assert_int_equal(ckf_memcg_limits_self(fd, &l), 0);
	assert_int_equal(l.headroom_bytes, 800);
	assert_int_equal(l.swap_headroom_bytes, 400);
	/* The second limit of version 1 is of memory and swap together. */
	make_dir(top, "host/v1");
	put_file(top, "host/v1/memory.limit_in_bytes", "9000\n");
	put_file(top, "host/v1/memory.usage_in_bytes", "4000\n");
	put_file(top, "host/v1/memory.memsw.limit_in_bytes", "10000\n");
	put_file(top, "host/v1/memory.memsw.usage_in_bytes", "4500\n");
	put_file(top, "cgroup", "4:memory:/v1\n");
	assert_true(headroom_self("/", "cgroup", "rw,memory") == 5000);
	assert_int_equal(ckf_memcg_limits_self(fd, &l), 0);
	assert_int_equal(l.hard_headroom_bytes, 5000);
	assert_int_equal(l.swap_headroom_bytes, 500);
	put_file(top, "cgroup", "nonsense\n");
	assert_int_equal(ckf_memcg_limits_self(fd, &l), 0);
	assert_true(l.headroom_bytes == CKF_UNLIMITED && l.limit_bytes == CKF_UNLIMITED);
	assert_int_equal(l.used_bytes, 0);
	close(fd);
}

/* What a process sees of its own cgroup; in a container the mount may begin further down. */
static void test_self(void **state)
{
	(void)state;
	make_dir(top, "host");
	make_dir(top, "host/pod");
	put_file(top, "host/memory.max", "9000\n");
	put_file(top, "host/memory.current", "0\n");
	put_file(top, "host/pod/memory.max", "5000\n");
	put_file(top, "host/pod/memory.current", "1000\n");
	put_file(top, "cgroup", "0::/pod\n");
	assert_true(headroom_self("/", "cgroup2", "rw") == 4000);
	assert_true(headroom_self("/pod", "cgroup2", "rw") == 9000);
	assert_true(headroom_self("/po", "cgroup2", "rw") == CKF_UNLIMITED);
	assert_true(headroom_self("/", "cgroup", "rw,memory") == CKF_UNLIMITED);
	put_file(top, "cgroup", "3:memory:/pod\n");
	assert_true(headroom_self("/", "cgroup", "rw,cpu,memory") == 4000);
	assert_true(headroom_self("/", "cgroup", "rw,cpu") == CKF_UNLIMITED);
	put_file(top, "cgroup", "0::/gone\n");
	assert_true(headroom_self("/", "cgroup2", "rw") == CKF_UNLIMITED);
	assert_true(ckf_memcg_self(-1) == CKF_UNLIMITED);
}

/* Threads: the limit of each level, and none where a file is missing. */
static void test_pids(void **state)
{
	int fd;

	(void)state;
	make_dir(top, "pids");
	make_dir(top, "pids/a");
	put_file(top, "pids/a/pids.max", "max\n");
	put_file(top, "pids/a/pids.current", "7\n");
	fd = open_dir("pids/a");
	assert_true(ckf_pids_of_dir(fd) == CKF_UNLIMITED);
	put_file(top, "pids/pids.max", "10\n");
	put_file(top, "pids/pids.current", "8\n");
	assert_int_equal(ckf_pids_of_dir(fd), 2);
	put_file(top, "pids/a/pids.max", "8\n");
	assert_int_equal(ckf_pids_of_dir(fd), 1);
	put_file(top, "pids/a/pids.max", "3\n");
	assert_int_equal(ckf_pids_of_dir(fd), 0);
	close(fd);
	assert_true(ckf_pids_self(-1) == CKF_UNLIMITED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_version_2),  cmocka_unit_test(test_version_1),
		cmocka_unit_test(test_page_cache), cmocka_unit_test(test_path),
		cmocka_unit_test(test_self),	   cmocka_unit_test(test_limits),
		cmocka_unit_test(test_high),	   cmocka_unit_test(test_pids),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
