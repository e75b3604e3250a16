/* SPDX-License-Identifier: MIT */
/* The thread that reads from a disk. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "../loader/io.h"
#include "../loader/io_util.h"
#include "reader.h"

#define DEPTH 8

struct ckf_reader {
	struct ckf_io *io; /* of the thread; NULL once it has failed */
	int io_error;	   /* then: why */
	struct ckf_read *in_flight[DEPTH];
	unsigned int nr_in_flight;
	pthread_t thread;

	pthread_mutex_t lock;
	pthread_cond_t work; /* the queue has a read, or stop is set */
	/* All of these under lock. */
	struct ckf_read *head;
	struct ckf_read **tail;
	bool stop;
};

static void end(struct ckf_read *rd, int ret)
{
	rd->ret = ret;
	close(rd->fd);
	rd->done(rd);
}

/*
 * A read that came back short, or was refused: the rest through the page cache. What the file
 * system wants of a direct read is its own affair; the data must come all the same.
 */
static void finish(struct ckf_read *rd, int res)
{
	size_t got = res > 0 ? (size_t)res : 0;
	int ret = 0;

	if (res < 0 && res != -EINVAL && res != -EAGAIN && res != -EINTR) {
		ret = res;
	} else if (got < rd->iov.iov_len) {
		(void)fcntl(rd->fd, F_SETFL, 0);
		ret = ckf_pread_all(rd->fd, (char *)rd->iov.iov_base + got, rd->iov.iov_len - got,
				    rd->off + got);
	}
	end(rd, ret);
}

/* Nobody can say when the reads in flight end: their buffers must not be used for anything else. */
static void give_up(struct ckf_reader *r, int ret)
{
	ckf_io_free(r->io);
	r->io = NULL;
	r->io_error = ret;
	while (r->nr_in_flight)
		end(r->in_flight[--r->nr_in_flight], ret);
}

static void begin(struct ckf_reader *r, struct ckf_read *rd)
{
	int ret = r->io ? ckf_io_submit(r->io, rd->fd, &rd->iov, 1, rd->off, rd) : r->io_error;

	if (ret)
		end(rd, ret);
	else
		r->in_flight[r->nr_in_flight++] = rd;
}

static void wait_for_one(struct ckf_reader *r)
{
	unsigned int i = 0;
	void *rd;
	int res, ret = ckf_io_wait(r->io, &rd, &res);

	if (ret) {
		give_up(r, ret);
		return;
	}
	while (r->in_flight[i] != rd)
		i++;
	r->in_flight[i] = r->in_flight[--r->nr_in_flight];
	finish(rd, res);
}

/* The next read to begin; NULL when there is none, or one must end first, or *stop is set. */
static struct ckf_read *take(struct ckf_reader *r, bool *stop)
{
	struct ckf_read *rd = NULL;

	pthread_mutex_lock(&r->lock);
	while (!r->head && !r->stop && !r->nr_in_flight)
		pthread_cond_wait(&r->work, &r->lock);
	if (r->head && !r->stop && r->nr_in_flight < DEPTH) {
		rd = r->head;
		r->head = rd->next;
		if (!r->head)
			r->tail = &r->head;
	}
	*stop = r->stop;
	pthread_mutex_unlock(&r->lock);
	return rd;
}

static void *thread_main(void *arg)
{
	struct ckf_reader *r = arg;
	struct ckf_read *rd;
	bool stop;

	/* A ring belongs to the thread that submits, and its own threads go with it. */
	r->io_error = ckf_io_new(DEPTH, true, &r->io);
	do {
		rd = take(r, &stop);
		if (rd)
			begin(r, rd);
		else if (r->nr_in_flight)
			wait_for_one(r);
	} while (r->nr_in_flight || !stop);
	ckf_io_free(r->io);
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

int ckf_reader_start(struct ckf_reader **out)
{
	struct ckf_reader *r;
	sigset_t all, old;
	int ret = probe();

	if (ret)
		return ret;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->tail = &r->head;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->work, NULL);
	/* Signals are for the threads of the caller. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = -pthread_create(&r->thread, NULL, thread_main, r);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!ret) {
		*out = r;
		return 0;
	}
	pthread_cond_destroy(&r->work);
	pthread_mutex_destroy(&r->lock);
	free(r);
	return ret;
}

void ckf_reader_stop(struct ckf_reader *r)
{
	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	r->stop = true;
	pthread_cond_signal(&r->work);
	pthread_mutex_unlock(&r->lock);
	pthread_join(r->thread, NULL);
	for (struct ckf_read *rd = r->head; rd; rd = rd->next)
		close(rd->fd);
	pthread_cond_destroy(&r->work);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

void ckf_reader_submit(struct ckf_reader *r, struct ckf_read *rd)
{
	pthread_mutex_lock(&r->lock);
	rd->next = NULL;
	*r->tail = rd;
	r->tail = &rd->next;
	pthread_cond_signal(&r->work);
	pthread_mutex_unlock(&r->lock);
}
