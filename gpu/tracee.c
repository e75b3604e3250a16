/* SPDX-License-Identifier: MIT */
/* Threads that the caller has stopped by ptrace: one of them let run and stopped again. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "tracee.h"

#ifndef PTRACE_EVENT_STOP
#define PTRACE_EVENT_STOP 128
#endif

/* What CRIU sets on the threads that it holds, and what they have to have again. */
#define TRACE_OPTIONS (PTRACE_O_SUSPEND_SECCOMP | PTRACE_O_TRACESYSGOOD)

static int trace_error(struct ckf_error *err, pid_t tid, const char *what)
{
	int ret = -errno;

	return ckf_error_set(err, ret, "cannot %s thread %d: %s", what, (int)tid, strerror(-ret));
}

int ckf_tracee_run(struct ckf_tracee *t, pid_t tid, struct ckf_error *err)
{
	uint64_t block = ~(1ull << (SIGTRAP - 1));

	t->tid = tid;
	if (ptrace(PTRACE_GETSIGMASK, tid, sizeof(t->sigmask), &t->sigmask) ||
	    ptrace(PTRACE_SETSIGMASK, tid, sizeof(block), &block))
		return trace_error(err, tid, "block the signals of");
	/* Its seccomp filters apply again while it runs. */
	if (ptrace(PTRACE_SETOPTIONS, tid, NULL, 0) || ptrace(PTRACE_CONT, tid, NULL, 0))
		return trace_error(err, tid, "continue");
	t->running = true;
	return 0;
}

/* Waits for the stop that PTRACE_INTERRUPT asked for. */
static int wait_stop(pid_t tid, struct ckf_error *err)
{
	int status;
	pid_t ret;

	for (;;) {
		ret = waitpid(tid, &status, __WALL);
		if (ret < 0 && errno == EINTR)
			continue;
		if (ret < 0)
			return trace_error(err, tid, "wait for");
		if (!WIFSTOPPED(status))
			return ckf_error_set(err, -ESRCH, "thread %d has ended", (int)tid);
		if (status >> 16 == PTRACE_EVENT_STOP)
			return 0;
		/* A signal that came first: it is delivered, and the stop follows. */
		if (ptrace(PTRACE_CONT, tid, NULL, (void *)(intptr_t)WSTOPSIG(status)))
			return trace_error(err, tid, "continue");
	}
}

int ckf_tracee_stop(struct ckf_tracee *t, struct ckf_error *err)
{
	int ret;

	if (!t->running)
		return 0;
	t->running = false;
	if (ptrace(PTRACE_INTERRUPT, t->tid, NULL, NULL))
		return trace_error(err, t->tid, "stop");
	ret = wait_stop(t->tid, err);
	if (ret)
		return ret;
	/* Without the right to suspend seccomp there was no such option before. */
	if (ptrace(PTRACE_SETOPTIONS, t->tid, NULL, TRACE_OPTIONS) &&
	    ptrace(PTRACE_SETOPTIONS, t->tid, NULL, PTRACE_O_TRACESYSGOOD))
		return trace_error(err, t->tid, "set the options of");
	if (ptrace(PTRACE_SETSIGMASK, t->tid, sizeof(t->sigmask), &t->sigmask))
		return trace_error(err, t->tid, "unblock the signals of");
	return 0;
}

bool ckf_thread_stopped(pid_t tid, pid_t *tracer)
{
	char path[64], line[256], state = 0;
	int tracer_pid = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)tid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		sscanf(line, "State: %c", &state);
		sscanf(line, "TracerPid: %d", &tracer_pid);
	}
	if (f)
		fclose(f);
	*tracer = tracer_pid;
	return state == 'T' || state == 't';
}
