/* SPDX-License-Identifier: MIT */
/* Threads that the caller has stopped by ptrace: one of them let run and stopped again. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/ckf_threads.h"
#include "tracee.h"

#ifndef PTRACE_EVENT_STOP
#define PTRACE_EVENT_STOP 128
#endif

#define SAMPLE_MS 50
#define STUCK_NS 2000000000u /* longer than the driver waits for itself */

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

/*
 * Locks wait in a futex. A thread that runs, or naps between two looks at something, gets on, or is
 * ended by the deadline.
 */
static bool waits_for_lock(pid_t tid)
{
	char path[64];
	bool waits;
	long nr;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/syscall", (int)tid);
	f = fopen(path, "re");
	if (!f)
		return false;
	waits = fscanf(f, "%ld", &nr) == 1 && nr == SYS_futex;
	fclose(f);
	return waits;
}

/* Nobody in the process can give up what the thread waits for: all others are stopped, or wait. */
static bool is_stuck(pid_t pid, pid_t tid)
{
	struct dirent *de;
	pid_t other, tracer;
	bool stuck = waits_for_lock(tid);
	char path[64];
	DIR *dir;

	if (!stuck)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	while (dir && stuck && (de = readdir(dir))) {
		other = (pid_t)atoi(de->d_name);
		stuck = other <= 0 || ckf_thread_stopped(other, &tracer) || waits_for_lock(other);
	}
	if (dir)
		closedir(dir);
	return dir && stuck;
}

int ckf_tracee_wait(const struct ckf_tracee *t, pid_t pid, int fd, short events,
		    uint64_t deadline_ns, struct ckf_error *err)
{
	struct pollfd p = { .fd = fd, .events = events };
	uint64_t moved_ns = ckf_now_ns(), now_ns = moved_ns;

	while (t->running && now_ns < deadline_ns && poll(&p, 1, SAMPLE_MS) <= 0) {
		now_ns = ckf_now_ns();
		if (!is_stuck(pid, t->tid))
			moved_ns = now_ns;
		else if (now_ns - moved_ns > STUCK_NS)
			return ckf_error_set(err, -EDEADLK,
					     "CUDA of process %d waits for a lock, as that of "
					     "malloc(), which a stopped thread has",
					     (int)pid);
	}
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
