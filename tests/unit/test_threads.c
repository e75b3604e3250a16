/* SPDX-License-Identifier: MIT */
/* Threads that work together, waiting, and the pool. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/ckf_error.h"
#include "base/ckf_pool.h"
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

static int workers_left; /* so many new_worker() gives */
static int workers;

static void *new_worker(size_t bytes)
{
	int *w = NULL;

	if (workers_left) {
		workers_left--;
		workers++;
		w = calloc(1, bytes);
	}
	return w;
}

static void free_worker(void *worker)
{
	workers -= worker != NULL;
	free(worker);
}

struct counted {
	struct ckf_job job;
	int nr; /* of the jobs that the worker has had */
};

static void count_job(struct ckf_job *job, void *worker)
{
	((struct counted *)job)->nr = ++*(int *)worker;
}

static int start_pool(struct ckf_pool **pool, unsigned int threads, int available,
		      struct ckf_error *err)
{
	const struct ckf_pool_opts opts = {
		.threads = threads,
		.new_worker = new_worker,
		.free_worker = free_worker,
		.worker_bytes = sizeof(int),
	};

	workers_left = available;
	return ckf_pool_start(pool, &opts, err);
}

static void run_jobs(struct ckf_pool *pool, int before)
{
	struct counted jobs[NR_THREADS] = { 0 };

	for (int i = 0; i < NR_THREADS; i++) {
		jobs[i].job.run = count_job;
		ckf_pool_submit(pool, &jobs[i].job);
	}
	while (!ckf_pool_done(pool, &jobs[NR_THREADS - 1].job))
		ckf_pool_wait(pool, 1000);
	for (int i = 0; i < NR_THREADS; i++) {
		assert_true(ckf_pool_done(pool, &jobs[i].job));
		assert_int_equal(jobs[i].nr, before + i + 1);
	}
}

/* With one thread, jobs are done one after the other, and all by the same worker. */
static void test_pool(void **state)
{
	struct ckf_pool *pool;

	(void)state;
	assert_int_equal(start_pool(&pool, NR_THREADS, 1, NULL), 0);
	assert_int_equal(workers, 1);
	run_jobs(pool, 0);
	run_jobs(pool, NR_THREADS);
	ckf_pool_stop(pool);
	assert_int_equal(workers, 0);
}

static void test_pool_without_workers(void **state)
{
	struct ckf_error err = { 0 };
	struct ckf_pool *pool = NULL;

	(void)state;
	assert_int_equal(start_pool(&pool, NR_THREADS, 0, &err), -ENOMEM);
	assert_null(pool);
	assert_string_equal(err.msg, "cannot start a thread: Cannot allocate memory");
	ckf_pool_stop(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_apart),	cmocka_unit_test(test_with_caller),
		cmocka_unit_test(test_stalled), cmocka_unit_test(test_wait),
		cmocka_unit_test(test_pool),	cmocka_unit_test(test_pool_without_workers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
