/* SPDX-License-Identifier: MIT */
/*
 * Worker threads and a queue of jobs, first in first out.
 *
 * The owner submits jobs, looks whether they are done, and stops the pool, which joins every
 * thread. A job's own fields belong to the worker from submit until it is done, else to the owner.
 */
#ifndef CKF_POOL_H
#define CKF_POOL_H

#include <stdbool.h>
#include <stddef.h>

#include "ckfast.h"

/* More would need more memory than a conversion may take. */
#define CKF_POOL_MAX_THREADS 16

struct ckf_job {
	void (*run)(struct ckf_job *job, void *worker); /* worker: what the thread works with */
	struct ckf_job *next;				/* under the lock of the pool, like done */
	bool done;
};

struct ckf_pool;

/* The number of threads that a request stands for; 0: the CPUs that may be used. */
unsigned int ckf_pool_threads(unsigned int requested);

struct ckf_pool_opts {
	unsigned int threads;
	/* What each thread works with is made before it starts and freed after it has ended: NULL
	 * where there is no memory. */
	void *(*new_worker)(size_t bytes);
	void (*free_worker)(void *worker); /* takes NULL */
	size_t worker_bytes;
};

/* Starts at least one thread, and as many of the given number as the system lets it. */
int ckf_pool_start(struct ckf_pool **out, const struct ckf_pool_opts *opts, struct ckf_error *err);
/* Forgets the jobs that no thread has begun, waits for the others, joins. Takes NULL. */
void ckf_pool_stop(struct ckf_pool *p);

void ckf_pool_submit(struct ckf_pool *p, struct ckf_job *job);
/* Says that the job will be submitted: by another thread, say. */
void ckf_pool_announce(struct ckf_pool *p, struct ckf_job *job);
bool ckf_pool_done(struct ckf_pool *p, const struct ckf_job *job);
/* Returns when a job has ended since the last call of this function, or ms have passed. */
void ckf_pool_wait(struct ckf_pool *p, unsigned int ms);

#endif
