/* SPDX-License-Identifier: MIT */
/* Time, waiting for each other, and threads that do one thing together while the caller watches. */
#ifndef CKF_THREADS_H
#define CKF_THREADS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Of CLOCK_MONOTONIC. */
uint64_t ckf_now_ns(void);
/* What this thread has had of a CPU. */
uint64_t ckf_cpu_ns(void);

/* The CPUs that this process may use, at least 1. */
unsigned int ckf_cpus(void);

/* A condition for the two waits below: by CLOCK_MONOTONIC, which nobody sets. */
void ckf_cond_init(pthread_cond_t *cond);
/* Waits no longer than timeout_ms, or until ckf_now_ns() is end_ns: false when that has passed. */
bool ckf_cond_wait_ms(pthread_cond_t *cond, pthread_mutex_t *lock, unsigned int timeout_ms);
bool ckf_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t end_ns);

/*
 * Starts a thread in which all signals are blocked, for they are the caller's. attr may be NULL. 0
 * or -errno.
 */
int ckf_thread_start(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
		     void *arg);

struct ckf_threads_opts {
	unsigned int threads;
	void (*work)(void *arg, unsigned int nr); /* nr: which thread, from 0 */
	void *arg;
	bool with_caller; /* the calling thread takes part as number 0, and does not watch */
	/* stalled() is called when progress has not changed for timeout_ms. 0: never. */
	unsigned int timeout_ms;
	const atomic_uint *progress;
	void (*stalled)(void *stalled_arg);
	void *stalled_arg;
	/* Called when all threads that there will be have been started. May be NULL. */
	void (*started)(void *started_arg);
	void *started_arg;
};

/*
 * Runs work() in so many threads, fewer when the system gives no more, or without any in the
 * calling one. All signals are blocked in new ones. Returns when all have ended: how many took
 * part.
 */
unsigned int ckf_threads_run(const struct ckf_threads_opts *o);

#endif
