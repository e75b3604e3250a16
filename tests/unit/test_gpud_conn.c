/* SPDX-License-Identifier: MIT */
/* gpu/daemon/gpud_conn.c and its client: a job that takes long, but gets on. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/ckf_threads.h"
#include "gpu/daemon/gpud.h"
#include "gpu/suspend/ckf_gpud_msg.h"
#include "gpud_ends.h"

#define MS 1000000ull

static bool has_message(int sock)
{
	char byte;

	return recv(sock, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
}

/* gpud says so once in a while, and only when something was done. */
static void test_says(void **state)
{
	struct ends *e = *state;
	struct ckf_gpud g = { 0 };
	struct gpud_conn c = { .g = &g, .sock = e->gpud };
	struct ckf_gpud_msg m;

	pthread_mutex_init(&c.send_lock, NULL);
	atomic_store(&c.said_ns, ckf_now_ns());
	atomic_store(&c.done_bytes, 1);
	assert_int_equal(gpud_cancelled(&c), 0);
	assert_false(has_message(e->client));
	atomic_store(&c.said_ns, ckf_now_ns() - (CKF_GPUD_MOVES_S + 1ull) * GPUD_NS_PER_S);
	assert_int_equal(gpud_cancelled(&c), 0);
	assert_int_equal(gpud_recv_until(e->client, &m, NULL, ckf_now_ns() + 1000 * MS, &e->err),
			 0);
	assert_int_equal(m.op, CKF_GPUD_MOVES);
	/* Nothing was done since. */
	atomic_store(&c.said_ns, 0);
	assert_int_equal(gpud_cancelled(&c), 0);
	assert_false(has_message(e->client));
	pthread_mutex_destroy(&c.send_lock);
}

static void *answer_late(void *arg)
{
	const struct timespec pause = { .tv_nsec = 300 * MS };
	struct ends *e = arg;

	nanosleep(&pause, NULL);
	ends_answer(e, CKF_GPUD_DONE, 7, "", -1);
	return NULL;
}

/* The client waits longer than it would for a gpud that is silent. */
static void test_waits(void **state)
{
	struct ends *e = *state;
	struct ckf_gpud_msg m;
	pthread_t thread;

	ends_expect(e, gpud_call_recv(e->client, &m, ckf_now_ns() + 100 * MS, &e->err), -ETIMEDOUT,
		    "nothing has come");
	ends_answer(e, CKF_GPUD_MOVES, 0, "", -1);
	ends_answer(e, CKF_GPUD_MOVES, 0, "", -1);
	assert_int_equal(pthread_create(&thread, NULL, answer_late, e), 0);
	assert_int_equal(gpud_call_recv(e->client, &m, ckf_now_ns() + 100 * MS, &e->err), 0);
	assert_int_equal(m.arg, 7);
	pthread_join(thread, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_says, ends_set_up, ends_tear_down),
		cmocka_unit_test_setup_teardown(test_waits, ends_set_up, ends_tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
