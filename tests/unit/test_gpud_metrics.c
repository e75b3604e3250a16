/* SPDX-License-Identifier: MIT */
/* gpu/daemon: where metrics may go, and what is said in them of errors and names. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "gpu/daemon/gpud.h"

static void test_where(void **state)
{
	static const char *const good[] = {
		"/run/m.prom",	  "./m",	"a/b",	 "1", "65535", "0.0.0.0:80",
		"127.0.0.1:9400", "[::1]:9400", "[::]:1"
	};
	static const char *const bad[] = { "",
					   "m.prom",
					   "0",
					   "65536",
					   "-1",
					   " 1",
					   "1x",
					   ":80",
					   "::1:80",
					   "[::1]80",
					   "[::1:80",
					   "]:80",
					   "[]:80",
					   "1:",
					   "a:80",
					   "1.2.3:80",
					   "[1.2.3.4]:80",
					   "256.0.0.1:80",
					   "18446744073709551617",
					   "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:80" };

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
		if (!ckf_gpud_export_valid(good[i]))
			fail_msg("refused: %s", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (ckf_gpud_export_valid(bad[i]))
			fail_msg("taken: %s", bad[i]);
}

static void test_failures(void **state)
{
	(void)state;
	assert_int_equal(gpud_failure_of(-EBADMSG), GPUD_FAILED_CORRUPT);
	assert_int_equal(gpud_failure_of(-EDQUOT), GPUD_FAILED_LIMIT);
	assert_int_equal(gpud_failure_of(-EACCES), GPUD_FAILED_PERMISSION);
	assert_int_equal(gpud_failure_of(-EXDEV), GPUD_FAILED_OTHER);
}

static void test_plain(void **state)
{
	char buf[8];

	(void)state;
	assert_string_equal(gpud_plain("H100", buf, sizeof(buf)), "H100");
	assert_string_equal(gpud_plain("a\"b\\c\nd", buf, sizeof(buf)), "a?b?c?d");
	assert_string_equal(gpud_plain("\xff\x01~ longer", buf, sizeof(buf)), "??~ lon");
	assert_string_equal(gpud_plain("", buf, sizeof(buf)), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_where),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_plain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
