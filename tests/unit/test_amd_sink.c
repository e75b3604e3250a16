/* SPDX-License-Identifier: MIT */
/*
 * The backend for AMD GPUs without a GPU: objects that the CPU maps, and queues of a libhsakmt whose
 * engine this test plays. tests/e2e/264-amd-engines.sh has libhsakmt itself.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "ckfast.h"
#include "ckfast_sink.h"

/* The end of an object is within the offsets that a file may have, also where its start is not. */
static void test_object_range(void **state)
{
	const struct ckf_amd_opts opts = { .size = sizeof(opts), .flags = CKF_AMD_STORES };
	const uint64_t page = CKF_PAGE_BYTES;
	const struct {
		uint64_t start;
		uint64_t bytes;
		int ret;
	} cases[] = {
		{ INT64_MAX - 2 * page + 1, page, 0 },
		{ INT64_MAX - page + 1, page, -EINVAL },
		{ INT64_MAX - page + 1, 2 * page, -EINVAL },
		{ (uint64_t)INT64_MAX + 1, page, -EINVAL },
		{ UINT64_MAX - page + 1, 2 * page, -EINVAL },
	};
	int fd = memfd_create("object", MFD_CLOEXEC);
	struct ckf_amd_objects *set;
	struct ckf_amd *amd;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)(2 * page)), 0);
	assert_int_equal(ckf_amd_open(&opts, &amd, NULL), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct ckf_amd_object o = { cases[i].start, cases[i].bytes, fd };
		int ret = ckf_amd_import(amd, &o, 1, &set, NULL);

		if (ret != cases[i].ret)
			fail_msg("case %zu: %d, want %d", i, ret, cases[i].ret);
		ckf_amd_release(set);
	}
	ckf_amd_close(amd);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_object_range),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
