/* SPDX-License-Identifier: MIT */
/* One thread of a process that is otherwise stopped by ptrace is let run for a while. */
#ifndef CKF_TRACEE_H
#define CKF_TRACEE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/ckf_error.h"

struct ckf_tracee {
	pid_t tid;
	uint64_t sigmask; /* as it was */
	bool running;
};

/* Signals stay blocked while it runs: none is to be handled before the others run, too. -ESRCH: it
 * is not one that the caller has stopped. */
int ckf_tracee_run(struct ckf_tracee *t, pid_t tid, struct ckf_error *err);
/* Stops it again. Does nothing when it does not run. */
int ckf_tracee_stop(struct ckf_tracee *t, struct ckf_error *err);

/*
 * Waits until the descriptor is ready for events (poll()), at most until deadline_ns: the thread
 * was let run to answer there. -EDEADLK: it waits for something that a stopped thread has, so it
 * will not answer before all run. Returns at once when it is not one that was let run.
 */
int ckf_tracee_wait(const struct ckf_tracee *t, pid_t pid, int fd, short events,
		    uint64_t deadline_ns, struct ckf_error *err);

/* By a signal or a tracer; *tracer: 0 if there is none. */
bool ckf_thread_stopped(pid_t tid, pid_t *tracer);

#endif
