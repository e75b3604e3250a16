/* SPDX-License-Identifier: MIT */
/* The worker threads of convert and extract. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckf_threads.h"
#include "pool.h"

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

	struct thread {
		pthread_t id;
		struct ckf_pool *pool;
		struct ckf_worker worker;
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
		job->run(job, &t->worker);
		pthread_mutex_lock(&p->lock);
		job->done = true;
		p->nr_done++;
		pthread_cond_signal(&p->end);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static int start_thread(struct ckf_pool *p, struct thread *t, size_t scratch_bytes)
{
	int ret;

	t->pool = p;
	t->worker.scratch = aligned_alloc(CKF_PAGE_BYTES,
					  ckf_align_up(scratch_bytes, CKF_PAGE_BYTES));
	if (!t->worker.scratch)
		return -ENOMEM;
	ret = ckf_codec_ctx_new(&t->worker.codec);
	if (ret)
		return ret;
	ret = ckf_thread_start(&t->id, NULL, thread_main, t);
	t->started = !ret;
	return ret;
}

int ckf_pool_start(struct ckf_pool **out, unsigned int threads, size_t scratch_bytes,
		   struct ckf_error *err)
{
	struct ckf_pool *p = calloc(1, sizeof(*p));
	int ret = 0;

	if (!p)
		return ckf_error_set(err, -ENOMEM, "no memory for threads");
	pthread_mutex_init(&p->lock, NULL);
	ckf_cond_init(&p->end);
	pthread_cond_init(&p->work, NULL);
	p->tail = &p->head;
	for (unsigned int i = 0; i < threads && i < CKF_POOL_MAX_THREADS && !ret; i++)
		ret = start_thread(p, &p->threads[i], scratch_bytes);
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
		ckf_codec_ctx_free(p->threads[i].worker.codec);
		free(p->threads[i].worker.scratch);
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
