/* SPDX-License-Identifier: MIT */
/* convert/memory.h, with a directory of plain files as /proc. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../convert/memory.h"
#include "dump_maker.h"

static void put(const char *top, const char *name, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", top, name);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void make_dir(const char *top, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", top, name);
	assert_int_equal(mkdir(path, 0700), 0);
}

static uint64_t available(const char *top)
{
	int fd = open(top, O_PATH | O_DIRECTORY | O_CLOEXEC);
	uint64_t bytes;

	assert_true(fd >= 0);
	bytes = ckf_memory_available(fd);
	close(fd);
	return bytes;
}

/* The least of what the machine has and what a memory cgroup leaves. */
static void test_available(void **state)
{
	char top[64], mounts[256];

	(void)state;
	dm_tempdir(top);
	assert_true(available(top) == 0);
	put(top, "meminfo", "MemTotal: 9000 kB\nMemFree: 10 kB\n");
	assert_true(available(top) == 0);
	put(top, "meminfo", "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable:    4000 kB\n");
	assert_true(available(top) == 4000 * 1024);

	make_dir(top, "self");
	make_dir(top, "cgroup");
	snprintf(mounts, sizeof(mounts), "1 0 0:1 / %s/cgroup rw - cgroup2 cgroup2 rw\n", top);
	put(top, "self/mountinfo", mounts);
	put(top, "self/cgroup", "0::/\n");
	put(top, "cgroup/memory.max", "3000000\n");
	put(top, "cgroup/memory.current", "1000000\n");
	put(top, "cgroup/memory.stat", "inactive_file 0\nactive_file 500000\n");
	assert_true(available(top) == 2500000);
	put(top, "cgroup/memory.max", "max\n");
	assert_true(available(top) == 4000 * 1024);
	dm_remove(top);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_available),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
