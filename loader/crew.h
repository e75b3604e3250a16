/* SPDX-License-Identifier: MIT */
/* Threads that do one thing together while the caller watches over them. */
#ifndef CKF_CREW_H
#define CKF_CREW_H

#include <stdatomic.h>
#include <stdbool.h>

struct crew_opts {
	unsigned int threads;
	void (*work)(void *arg, unsigned int nr); /* nr: which thread, from 0 */
	void *arg;
	/* stalled() is called when progress has not changed for timeout_ms. 0: never. */
	unsigned int timeout_ms;
	const atomic_uint *progress;
	void (*stalled)(void *stalled_arg);
	void *stalled_arg;
};

/*
 * Runs work() in so many threads, fewer when the system gives no more, or without any in the
 * calling one. All signals are blocked in them. Returns when all have ended: how many took part.
 */
unsigned int crew_run(const struct crew_opts *o);

#endif
