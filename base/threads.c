/* SPDX-License-Identifier: MIT */
/* Time, waiting for each other, and threads: starting them, watching them and joining them. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <time.h>

#include "ckf_threads.h"

#define MAX_THREADS 256

struct threads {
	const struct ckf_threads_opts *o;
	pthread_mutex_t lock; /* for all below */
	pthread_cond_t cond;
	unsigned int started; /* threads that have their number */
	unsigned int running;
};

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t ckf_now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

uint64_t ckf_cpu_ns(void)
{
	return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

unsigned int ckf_cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? 1 : (unsigned int)CPU_COUNT(&set);
}

void ckf_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

bool ckf_cond_wait_ms(pthread_cond_t *cond, pthread_mutex_t *lock, unsigned int timeout_ms)
{
	return ckf_cond_wait_until(cond, lock, ckf_now_ns() + timeout_ms * 1000000ull);
}

bool ckf_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t end_ns)
{
	const struct timespec end = { .tv_sec = (time_t)(end_ns / 1000000000u),
				      .tv_nsec = (long)(end_ns % 1000000000u) };

	return pthread_cond_timedwait(cond, lock, &end) != ETIMEDOUT;
}

int ckf_thread_start(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = -pthread_create(thread, attr, run, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ret;
}

static void *thread_main(void *arg)
{
	struct threads *c = arg;
	unsigned int nr;

	pthread_mutex_lock(&c->lock);
	nr = c->started++;
	pthread_mutex_unlock(&c->lock);
	c->o->work(c->o->arg, nr);
	pthread_mutex_lock(&c->lock);
	c->running--;
	pthread_cond_broadcast(&c->cond);
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

static unsigned int start(struct threads *c, pthread_t *threads, unsigned int n)
{
	unsigned int i;

	pthread_mutex_lock(&c->lock);
	for (i = 0; i < n && !ckf_thread_start(&threads[i], NULL, thread_main, c); i++)
		c->running++;
	pthread_mutex_unlock(&c->lock);
	return i;
}

static void watch(struct threads *c)
{
	const struct ckf_threads_opts *o = c->o;
	unsigned int seen = atomic_load(o->progress), now;
	bool woken;

	pthread_mutex_lock(&c->lock);
	while (c->running) {
		woken = ckf_cond_wait_ms(&c->cond, &c->lock, o->timeout_ms);
		now = atomic_load(o->progress);
		if (!woken && now == seen && c->running)
			o->stalled(o->stalled_arg);
		seen = now;
	}
	pthread_mutex_unlock(&c->lock);
}

unsigned int ckf_threads_run(const struct ckf_threads_opts *o)
{
	const bool watched = o->timeout_ms && o->stalled && !o->with_caller;
	const unsigned int own = o->with_caller ? 1 : 0;
	unsigned int n = o->threads < MAX_THREADS ? o->threads : MAX_THREADS;
	struct threads c = { .o = o, .started = own };
	pthread_t threads[MAX_THREADS];
	unsigned int started = 0;

	pthread_mutex_init(&c.lock, NULL);
	ckf_cond_init(&c.cond);
	/* What may hang must not be in the thread that watches. */
	if (n > 1 || watched)
		started = start(&c, threads, n - own);
	if (o->started)
		o->started(o->started_arg);
	if (watched && started)
		watch(&c);
	if (own)
		o->work(o->arg, 0);
	for (unsigned int i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	if (!own && !started)
		o->work(o->arg, 0);
	pthread_cond_destroy(&c.cond);
	pthread_mutex_destroy(&c.lock);
	return started + (own || !started ? 1 : 0);
}
