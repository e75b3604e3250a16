/* SPDX-License-Identifier: MIT */
/* Worker threads that do jobs, first in, first out. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "ckf_error.h"
#include "ckf_pool.h"
#include "ckf_threads.h"

struct ckf_pool {
	pthread_mutex_t lock;
	pthread_cond_t work; /* there is a job, or stop is set */
	pthread_cond_t end;  /* nr_done has grown */
	/* All of these under lock. First in, first out. */
	struct ckf_job *head;
	struct ckf_job **tail;
	uint64_t nr_done;
	uint64_t seen_done;
	bool stop;

	void (*free_worker)(void *worker);
	struct thread {
		pthread_t id;
		struct ckf_pool *pool;
		void *worker;
		bool started;
	} threads[CKF_POOL_MAX_THREADS];
};

unsigned int ckf_pool_threads(unsigned int requested)
{
	if (!requested)
		requested = ckf_cpus();
	return requested < CKF_POOL_MAX_THREADS ? requested : CKF_POOL_MAX_THREADS;
}

static void *thread_main(void *arg)
{
	struct thread *t = arg;
	struct ckf_pool *p = t->pool;
	struct ckf_job *job;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		while (!p->head && !p->stop)
			pthread_cond_wait(&p->work, &p->lock);
		if (p->stop)
			break;
		job = p->head;
		p->head = job->next;
		if (!p->head)
			p->tail = &p->head;
		pthread_mutex_unlock(&p->lock);
		job->run(job, t->worker);
		pthread_mutex_lock(&p->lock);
		job->done = true;
		p->nr_done++;
		pthread_cond_signal(&p->end);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static int start_thread(struct ckf_pool *p, struct thread *t, const struct ckf_pool_opts *opts)
{
	int ret;

	t->pool = p;
	t->worker = opts->new_worker(opts->worker_bytes);
	if (!t->worker)
		return -ENOMEM;
	ret = ckf_thread_start(&t->id, NULL, thread_main, t);
	t->started = !ret;
	return ret;
}

int ckf_pool_start(struct ckf_pool **out, const struct ckf_pool_opts *opts, struct ckf_error *err)
{
	struct ckf_pool *p = calloc(1, sizeof(*p));
	int ret = 0;

	if (!p)
		return ckf_error_set(err, -ENOMEM, "no memory for threads");
	pthread_mutex_init(&p->lock, NULL);
	ckf_cond_init(&p->end);
	pthread_cond_init(&p->work, NULL);
	p->tail = &p->head;
	p->free_worker = opts->free_worker;
	for (unsigned int i = 0; i < opts->threads && i < CKF_POOL_MAX_THREADS && !ret; i++)
		ret = start_thread(p, &p->threads[i], opts);
	if (!p->threads[0].started) {
		ckf_pool_stop(p);
		return ckf_error_set(err, ret, "cannot start a thread: %s", strerror(-ret));
	}
	*out = p;
	return 0;
}

void ckf_pool_stop(struct ckf_pool *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->lock);
	for (unsigned int i = 0; i < CKF_POOL_MAX_THREADS; i++) {
		if (p->threads[i].started)
			pthread_join(p->threads[i].id, NULL);
		p->free_worker(p->threads[i].worker);
	}
	pthread_cond_destroy(&p->work);
	pthread_cond_destroy(&p->end);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

void ckf_pool_submit(struct ckf_pool *p, struct ckf_job *job)
{
	pthread_mutex_lock(&p->lock);
	job->done = false;
	job->next = NULL;
	*p->tail = job;
	p->tail = &job->next;
	pthread_cond_signal(&p->work);
	pthread_mutex_unlock(&p->lock);
}

void ckf_pool_announce(struct ckf_pool *p, struct ckf_job *job)
{
	pthread_mutex_lock(&p->lock);
	job->done = false;
	pthread_mutex_unlock(&p->lock);
}

bool ckf_pool_done(struct ckf_pool *p, const struct ckf_job *job)
{
	bool done;

	pthread_mutex_lock(&p->lock);
	done = job->done;
	pthread_mutex_unlock(&p->lock);
	return done;
}

void ckf_pool_wait(struct ckf_pool *p, unsigned int ms)
{
	const uint64_t end_ns = ckf_now_ns() + ms * 1000000ull;

	pthread_mutex_lock(&p->lock);
	while (p->nr_done == p->seen_done) {
		if (!ckf_cond_wait_until(&p->end, &p->lock, end_ns))
			break;
	}
	p->seen_done = p->nr_done;
	pthread_mutex_unlock(&p->lock);
}
