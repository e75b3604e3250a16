/* SPDX-License-Identifier: MIT */
/* The thread that reads from a disk, or writes to it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>

#include "ckf_io.h"
#include "ckf_io_util.h"
#include "ckf_threads.h"
#include "ckf_io_thread.h"

#define DEPTH 8

struct ckf_io_thread {
	struct ckf_io *io; /* of the thread; NULL once it has failed */
	int io_error;	   /* then: why */
	struct ckf_transfer *in_flight[DEPTH];
	unsigned int nr_in_flight;
	pthread_t thread;

	pthread_mutex_t lock;
	pthread_cond_t work; /* the queue has a transfer, or stop is set */
	/* All of these under lock. */
	struct ckf_transfer *head;
	struct ckf_transfer **tail;
	bool stop;
};

static void end(struct ckf_transfer *t, int ret)
{
	t->ret = ret;
	t->done(t);
}

/*
 * A transfer that came back short, or was refused: the rest through the page cache. What the file
 * system wants of direct requests is its own affair; the data must come all the same.
 */
static void finish(struct ckf_transfer *t, int res)
{
	size_t got = res > 0 ? (size_t)res : 0, left = t->iov.iov_len - got;
	char *at = (char *)t->iov.iov_base + got;
	int ret = 0;

	if (res < 0 && res != -EINVAL && res != -EAGAIN && res != -EINTR) {
		ret = res;
	} else if (left) {
		(void)fcntl(t->fd, F_SETFL, 0);
		ret = t->write ? ckf_pwrite_all(t->fd, at, left, t->off + got)
			       : ckf_pread_all(t->fd, at, left, t->off + got);
	}
	end(t, ret);
}

/* Nobody can say when what is in flight ends: buffers must not be used for anything else. */
static void give_up(struct ckf_io_thread *p, int ret)
{
	ckf_io_free(p->io);
	p->io = NULL;
	p->io_error = ret;
	while (p->nr_in_flight)
		end(p->in_flight[--p->nr_in_flight], ret);
}

static void begin(struct ckf_io_thread *p, struct ckf_transfer *t)
{
	int ret = p->io_error;

	if (p->io && t->write)
		ret = ckf_io_submit_write(p->io, t->fd, &t->iov, 1, t->off, t);
	else if (p->io)
		ret = ckf_io_submit(p->io, t->fd, &t->iov, 1, t->off, t);
	if (ret)
		end(t, ret);
	else
		p->in_flight[p->nr_in_flight++] = t;
}

static void wait_for_one(struct ckf_io_thread *p)
{
	unsigned int i = 0;
	void *t;
	int res, ret = ckf_io_wait(p->io, &t, &res);

	if (ret) {
		give_up(p, ret);
		return;
	}
	while (p->in_flight[i] != t)
		i++;
	p->in_flight[i] = p->in_flight[--p->nr_in_flight];
	finish(t, res);
}

/* The next one to begin; NULL when there is none, or one must end first, or *stop is set. */
static struct ckf_transfer *take(struct ckf_io_thread *p, bool *stop)
{
	struct ckf_transfer *t = NULL;

	pthread_mutex_lock(&p->lock);
	while (!p->head && !p->stop && !p->nr_in_flight)
		pthread_cond_wait(&p->work, &p->lock);
	if (p->head && !p->stop && p->nr_in_flight < DEPTH) {
		t = p->head;
		p->head = t->next;
		if (!p->head)
			p->tail = &p->head;
	}
	*stop = p->stop;
	pthread_mutex_unlock(&p->lock);
	return t;
}

static void *thread_main(void *arg)
{
	struct ckf_io_thread *p = arg;
	struct ckf_transfer *t;
	bool stop;

	/* A ring belongs to the thread that submits, and its own threads go with it. */
	p->io_error = ckf_io_new(DEPTH, true, &p->io);
	do {
		t = take(p, &stop);
		if (t)
			begin(p, t);
		else if (p->nr_in_flight)
			wait_for_one(p);
	} while (p->nr_in_flight || !stop);
	ckf_io_free(p->io);
	return NULL;
}

static int probe(void)
{
	struct ckf_io *io;
	int ret = ckf_io_new(1, true, &io);

	if (ret)
		return ret;
	ret = ckf_io_is_uring(io) ? 0 : -ENOSYS;
	ckf_io_free(io);
	return ret;
}

int ckf_io_thread_start(struct ckf_io_thread **out)
{
	struct ckf_io_thread *p;
	int ret = probe();

	if (ret)
		return ret;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->tail = &p->head;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	ret = ckf_thread_start(&p->thread, NULL, thread_main, p);
	if (!ret) {
		*out = p;
		return 0;
	}
	pthread_cond_destroy(&p->work);
	pthread_mutex_destroy(&p->lock);
	free(p);
	return ret;
}

void ckf_io_thread_stop(struct ckf_io_thread *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_signal(&p->work);
	pthread_mutex_unlock(&p->lock);
	pthread_join(p->thread, NULL);
	for (struct ckf_transfer *t = p->head, *next; t; t = next) {
		next = t->next;
		end(t, -ECANCELED);
	}
	pthread_cond_destroy(&p->work);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

void ckf_io_thread_submit(struct ckf_io_thread *p, struct ckf_transfer *t)
{
	pthread_mutex_lock(&p->lock);
	t->next = NULL;
	*p->tail = t;
	p->tail = &t->next;
	pthread_cond_signal(&p->work);
	pthread_mutex_unlock(&p->lock);
}
