/* SPDX-License-Identifier: MIT */
/* ckf_error.h: the first error wins, messages are one line, classes give exit codes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/ckf_error.h"

static void test_first_wins(void **state)
{
	struct ckf_error err = { 0 };

	(void)state;
	assert_int_equal(ckf_error_set(&err, -EIO, "read %s: %d", "x", 7), -EIO);
	assert_int_equal(ckf_error_set(&err, -ENOMEM, "second"), -ENOMEM);
	assert_int_equal(ckf_error_rule(&err, -EBADMSG, "ops", 1, 2, "third"), -EBADMSG);
	assert_int_equal(err.code, -EIO);
	assert_true(err.off == 0);
	assert_string_equal(err.msg, "read x: 7");
}

static void test_no_error(void **state)
{
	(void)state;
	assert_int_equal(ckf_error_set(NULL, -EIO, "x"), -EIO);
	assert_int_equal(ckf_error_rule(NULL, -EBADMSG, "ops", 1, 2, "x"), -EBADMSG);
}

static void test_rule(void **state)
{
	struct ckf_error err = { 0 };

	(void)state;
	assert_int_equal(ckf_error_rule(&err, -EBADMSG, "ops", 12, 1ull << 40,
					"R-op: nr_pages, got %d, want %d", 0, 1),
			 -EBADMSG);
	assert_int_equal(err.code, -EBADMSG);
	assert_true(err.off == 1ull << 40);
	assert_string_equal(err.msg,
			    "corrupt ops[12] at 1099511627776: R-op: nr_pages, got 0, want 1");
	err.code = 0;
	ckf_error_rule(&err, -EOPNOTSUPP, "header", -1, 0, "x");
	assert_int_equal(err.code, -EOPNOTSUPP);
	assert_string_equal(err.msg, "unsupported header at 0: x");
}

static void test_one_line(void **state)
{
	struct ckf_error err = { 0 };

	(void)state;
	ckf_error_set(&err, -EIO, "name '%s'", "a\nb\033[2J\x7f\xc3\xa4");
	assert_string_equal(err.msg, "name 'a?b?[2J?\xc3\xa4'");
}

static void test_long(void **state)
{
	char long_name[2 * CKF_ERROR_MSG_BYTES];
	struct ckf_error err = { 0 };

	(void)state;
	memset(long_name, 'n', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	ckf_error_set(&err, -EIO, "%s", long_name);
	assert_int_equal(strlen(err.msg), CKF_ERROR_MSG_BYTES - 1);
	err.code = 0;
	ckf_error_rule(&err, -EBADMSG, "files", 1, 2, "%s", long_name);
	assert_int_equal(strlen(err.msg), CKF_ERROR_MSG_BYTES - 1);
	assert_int_equal(strncmp(err.msg, "corrupt files[1] at 2: nnn", 26), 0);
}

static void test_exit_codes(void **state)
{
	(void)state;
	assert_int_equal(ckf_error_exit_code(0), 0);
	assert_int_equal(ckf_error_exit_code(-EBADMSG), 3);
	assert_int_equal(ckf_error_exit_code(-EOPNOTSUPP), 4);
	assert_int_equal(ckf_error_exit_code(-ENOMEM), 1);
	assert_int_equal(ckf_error_exit_code(-EINVAL), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_wins), cmocka_unit_test(test_no_error),
		cmocka_unit_test(test_rule),	   cmocka_unit_test(test_one_line),
		cmocka_unit_test(test_long),	   cmocka_unit_test(test_exit_codes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
