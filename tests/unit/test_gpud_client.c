/* SPDX-License-Identifier: MIT */
/* What a client makes of a gpud that answers wrongly, not at all, or not any more. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/ckf_scm.h"
#include "base/ckf_threads.h"
#include "gpu/suspend/ckf_gpud_msg.h"
#include "gpud_ends.h"

static int ask(struct ends *e)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_HELLO };

	return ckf_gpud_call(e->client, &m, -1, &e->err);
}

static void test_answers(void **state)
{
	struct ends *e = *state;
	uint64_t half = 0;

	ends_answer(e, CKF_GPUD_DONE, 0, "", -1);
	assert_int_equal(ask(e), 0);
	ends_answer(e, CKF_GPUD_ERROR, ENODEV, "no such GPU", -1);
	ends_expect(e, ask(e), -ENODEV, "no such GPU");
	ends_answer(e, CKF_GPUD_ERROR, 0, "no number", -1);
	ends_expect(e, ask(e), -EIO, "no number");
	ends_answer(e, CKF_GPUD_ERROR, UINT64_MAX, "no number", -1);
	ends_expect(e, ask(e), -EIO, "no number");
	ends_answer(e, CKF_GPUD_MEMORY, 0, "", -1);
	ends_expect(e, ask(e), -EBADMSG, "gpud answered with message");
	assert_int_equal(ckf_scm_send(e->gpud, &half, sizeof(half), -1), 0);
	ends_expect(e, ask(e), -EBADMSG, "bad message");
}

/* The last byte of a text is not gpud's to set. */
static void test_endless_text(void **state)
{
	struct ends *e = *state;
	struct ckf_gpud_msg m = { .op = CKF_GPUD_ERROR, .arg = EIO };

	memset(m.text, 'x', sizeof(m.text));
	assert_int_equal(ckf_scm_send(e->gpud, &m, sizeof(m), -1), 0);
	assert_int_equal(ckf_gpud_recv(e->client, &m, NULL, NULL), 0);
	assert_int_equal(strlen(m.text), sizeof(m.text) - 1);
}

static void test_silence(void **state)
{
	struct ends *e = *state;
	struct ckf_gpud_msg m = { .op = CKF_GPUD_HELLO };
	const uint64_t end = ckf_now_ns() + 1000000;
	int ret;

	ends_expect(e, gpud_recv_until(e->client, &m, NULL, end, &e->err), -ETIMEDOUT, "in time");
	do {
		ret = gpud_send_until(e->client, &m, -1, end, &e->err);
	} while (!ret);
	ends_expect(e, ret, -ETIMEDOUT, "does not read");
}

static void test_gone(void **state)
{
	struct ends *e = *state;
	struct ckf_gpud_msg m = { .op = CKF_GPUD_HELLO };

	ends_hang_up(e);
	ends_expect(e, ckf_gpud_recv(e->client, &m, NULL, &e->err), -ECONNRESET, "the other end");
	ends_expect(e, ask(e), -EPIPE, "cannot send");
	ends_expect(e, ckf_gpud_recv(-1, &m, NULL, &e->err), -EBADF, "cannot receive");
}

/* What it has said last is the reason. */
static void test_gone_with_reason(void **state)
{
	struct ends *e = *state;

	ends_answer(e, CKF_GPUD_ERROR, EBUSY, "too many", -1);
	ends_hang_up(e);
	ends_expect(e, ask(e), -EBUSY, "too many");
}

static void test_join(void **state)
{
	struct ends *e = *state;
	int fd;

	ends_answer(e, CKF_GPUD_DONE, 0, "", e->gpud);
	fd = ckf_gpud_join(e->client, &e->err);
	assert_true(fd >= 0);
	close(fd);
	ends_answer(e, CKF_GPUD_DONE, 0, "", -1);
	ends_expect(e, ckf_gpud_join(e->client, &e->err), -EBADMSG, "without a connection");
	/* A descriptor that comes along with an error is not kept. */
	fd = dup(0);
	close(fd);
	ends_answer(e, CKF_GPUD_ERROR, EBUSY, "too many", e->gpud);
	ends_expect(e, ckf_gpud_join(e->client, &e->err), -EBUSY, "too many");
	assert_int_equal(dup(0), fd);
	close(fd);
}

static void test_status(void **state)
{
	struct ends *e = *state;
	char *json;

	ends_answer(e, CKF_GPUD_TEXT, 0, "{\"a\":", -1);
	ends_answer(e, CKF_GPUD_TEXT, 0, "1}", -1);
	ends_answer(e, CKF_GPUD_DONE, 0, "", -1);
	assert_int_equal(ckf_gpud_status(e->client, &json, NULL), 0);
	assert_string_equal(json, "{\"a\":1}");
	free(json);
	ends_answer(e, CKF_GPUD_TEXT, 0, "{", -1);
	ends_answer(e, CKF_GPUD_ERROR, ENODEV, "no driver", -1);
	ends_expect(e, ckf_gpud_status(e->client, &json, &e->err), -ENODEV, "no driver");
	assert_null(json);
}

static void test_connect(void **state)
{
	struct ends *e = *state;
	char path[200];

	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	ends_expect(e, ckf_gpud_connect(path, NULL, &e->err), -ENAMETOOLONG, "too long");
	ends_expect(e, ckf_gpud_connect("/no/such/socket", NULL, &e->err), -ENOENT,
		    "cannot connect");
	ends_expect(e, ckf_gpud_connect("/no/such/socket", "/no/such/helper", &e->err), -ENOENT,
		    "cannot start /no/such/helper");
	/* A helper that ends without having gone to the background. */
	ends_expect(e, ckf_gpud_connect("/no/such/socket", "/bin/false", &e->err), -EIO,
		    "ended at once");
	/* One that does, but says nothing. */
	assert_int_equal(ckf_gpud_connect("/no/such/socket", "/bin/true", &e->err), -EPIPE);
	e->err = (struct ckf_error){ 0 };
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, ends_set_up, ends_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_answers), TEST(test_endless_text),	 TEST(test_silence),
		TEST(test_gone),    TEST(test_gone_with_reason), TEST(test_join),
		TEST(test_status),  TEST(test_connect),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
