/* SPDX-License-Identifier: MIT */
/* Starts threads, watches them and joins them. */
#include <pthread.h>

#include "crew.h"
#include "io_util.h"

#define MAX_THREADS 256

struct crew {
	const struct crew_opts *o;
	pthread_mutex_t lock; /* for all below */
	pthread_cond_t cond;
	unsigned int started; /* threads that have their number */
	unsigned int running;
};

static void *thread_main(void *arg)
{
	struct crew *c = arg;
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

static unsigned int start(struct crew *c, pthread_t *threads, unsigned int n)
{
	unsigned int i;

	pthread_mutex_lock(&c->lock);
	for (i = 0; i < n && !ckf_thread_start(&threads[i], thread_main, c); i++)
		c->running++;
	pthread_mutex_unlock(&c->lock);
	return i;
}

static void watch(struct crew *c)
{
	const struct crew_opts *o = c->o;
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

unsigned int crew_run(const struct crew_opts *o)
{
	const bool watched = o->timeout_ms && o->stalled;
	unsigned int n = o->threads < MAX_THREADS ? o->threads : MAX_THREADS;
	struct crew c = { .o = o };
	pthread_t threads[MAX_THREADS];
	unsigned int started = 0;

	pthread_mutex_init(&c.lock, NULL);
	ckf_cond_init(&c.cond);
	/* What may hang must not be in the thread that watches. */
	if (n > 1 || watched)
		started = start(&c, threads, n);
	if (watched && started)
		watch(&c);
	for (unsigned int i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	if (!started)
		o->work(o->arg, 0);
	pthread_cond_destroy(&c.cond);
	pthread_mutex_destroy(&c.lock);
	return started ? started : 1;
}
