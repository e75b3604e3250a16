/* SPDX-License-Identifier: MIT */
/* Threads that work together, and waiting. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/ckf_threads.h"

#define NR_THREADS 5

struct work {
	pthread_t caller;
	atomic_uint runs[NR_THREADS];
	atomic_uint in_caller;
	atomic_uint blocked; /* threads that get no SIGTERM */
	atomic_uint progress;
	atomic_uint stalled;
};

static void count(void *arg, unsigned int nr)
{
	struct work *w = arg;
	sigset_t set;

	assert_true(nr < NR_THREADS);
	atomic_fetch_add(&w->runs[nr], 1);
	if (pthread_equal(pthread_self(), w->caller)) {
		assert_int_equal(nr, 0);
		atomic_fetch_add(&w->in_caller, 1);
	}
	pthread_sigmask(SIG_SETMASK, NULL, &set);
	atomic_fetch_add(&w->blocked, (unsigned int)sigismember(&set, SIGTERM));
}

static void run(struct work *w, unsigned int threads, bool with_caller)
{
	const struct ckf_threads_opts opts = {
		.threads = threads,
		.with_caller = with_caller,
		.work = count,
		.arg = w,
	};

	*w = (struct work){ .caller = pthread_self() };
	assert_int_equal(ckf_threads_run(&opts), threads);
	for (unsigned int i = 0; i < NR_THREADS; i++)
		assert_int_equal(atomic_load(&w->runs[i]), i < threads);
}

static void test_apart(void **state)
{
	struct work w;

	(void)state;
	run(&w, NR_THREADS, false);
	assert_int_equal(atomic_load(&w.in_caller), 0);
	assert_int_equal(atomic_load(&w.blocked), NR_THREADS);
	/* One needs no thread. */
	run(&w, 1, false);
	assert_int_equal(atomic_load(&w.in_caller), 1);
}

static void test_with_caller(void **state)
{
	struct work w;

	(void)state;
	run(&w, NR_THREADS, true);
	assert_int_equal(atomic_load(&w.in_caller), 1);
	assert_int_equal(atomic_load(&w.blocked), NR_THREADS - 1);
	run(&w, 1, true);
	assert_int_equal(atomic_load(&w.in_caller), 1);
}

static void until_stalled(void *arg, unsigned int nr)
{
	struct work *w = arg;

	(void)nr;
	while (!atomic_load(&w->stalled))
		;
}

static void on_stalled(void *arg)
{
	struct work *w = arg;

	atomic_fetch_add(&w->stalled, 1);
}

/* One thread that makes no progress is noticed, though it is the only one. */
static void test_stalled(void **state)
{
	struct work w = { 0 };
	const struct ckf_threads_opts opts = {
		.threads = 1,
		.work = until_stalled,
		.arg = &w,
		.timeout_ms = 1,
		.progress = &w.progress,
		.stalled = on_stalled,
		.stalled_arg = &w,
	};

	(void)state;
	assert_int_equal(ckf_threads_run(&opts), 1);
	assert_true(atomic_load(&w.stalled) >= 1);
}

static void test_wait(void **state)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	const uint64_t start_ns = ckf_now_ns();
	pthread_cond_t cond;

	(void)state;
	ckf_cond_init(&cond);
	pthread_mutex_lock(&lock);
	while (ckf_cond_wait_until(&cond, &lock, start_ns + 2000000))
		;
	assert_true(ckf_now_ns() >= start_ns + 2000000);
	while (ckf_cond_wait_ms(&cond, &lock, 2))
		;
	assert_true(ckf_now_ns() >= start_ns + 4000000);
	/* What has passed already. */
	assert_false(ckf_cond_wait_until(&cond, &lock, start_ns));
	pthread_mutex_unlock(&lock);
	pthread_cond_destroy(&cond);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_apart),
		cmocka_unit_test(test_with_caller),
		cmocka_unit_test(test_stalled),
		cmocka_unit_test(test_wait),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
