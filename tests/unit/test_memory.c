/* SPDX-License-Identifier: MIT */
/* loader/ckf_memory.h, with a directory of plain files as /proc. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "loader/ckf_memory.h"
#include "around.h"
#include "dump_maker.h"

static uint64_t available(const char *top, int want)
{
	int fd = open(top, O_PATH | O_DIRECTORY | O_CLOEXEC);
	uint64_t bytes = 0;
	int ret;

	assert_true(fd >= 0);
	ret = ckf_memory_available(fd, &bytes);
	assert_int_equal(ret, want);
	close(fd);
	return bytes;
}

/* The least of what the machine has and what a memory cgroup leaves. */
static void test_available(void **state)
{
	char top[64], mounts[256];

	(void)state;
	dm_tempdir(top);
	available(top, -ENOENT);
	put_file(top, "meminfo", "MemTotal: 9000 kB\nMemFree: 10 kB\n");
	available(top, -ENODATA);
	put_file(top, "meminfo", "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable:    0 kB\n");
	assert_true(available(top, 0) == 0);
	put_file(top, "meminfo", "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable:    4000 kB\n");
	assert_true(available(top, 0) == 4000 * 1024);

	make_dir(top, "self");
	make_dir(top, "cgroup");
	snprintf(mounts, sizeof(mounts), "1 0 0:1 / %s/cgroup rw - cgroup2 cgroup2 rw\n", top);
	put_file(top, "self/mountinfo", mounts);
	put_file(top, "self/cgroup", "0::/\n");
	put_file(top, "cgroup/memory.max", "3000000\n");
	put_file(top, "cgroup/memory.current", "1000000\n");
	put_file(top, "cgroup/memory.stat", "inactive_file 0\nactive_file 500000\n");
	assert_true(available(top, 0) == 2500000);
	put_file(top, "cgroup/memory.max", "max\n");
	assert_true(available(top, 0) == 4000 * 1024);
	dm_remove(top);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_available),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
