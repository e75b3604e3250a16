/* SPDX-License-Identifier: MIT */
/* Threads under ptrace: one of them let run and stopped again, or all of a process stopped. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "ckf_process.h"
#include "tracee.h"

#ifndef PTRACE_EVENT_STOP
#define PTRACE_EVENT_STOP 128
#endif

/* What CRIU sets on the threads that it holds, and what they have to have again. */
#define TRACE_OPTIONS (PTRACE_O_SUSPEND_SECCOMP | PTRACE_O_TRACESYSGOOD)
#define FREEZE_ROUNDS 16 /* over the list of threads, while new ones turn up */

struct ckf_frozen {
	pid_t *tids;
	size_t nr;
	size_t cap;
};

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

static bool known(const struct ckf_frozen *f, pid_t tid)
{
	for (size_t i = 0; i < f->nr; i++) {
		if (f->tids[i] == tid)
			return true;
	}
	return false;
}

static int freeze_thread(struct ckf_frozen *f, pid_t tid, struct ckf_error *err)
{
	size_t cap = f->cap ? f->cap * 2 : 64;
	pid_t *more;

	if (f->nr == f->cap) {
		more = realloc(f->tids, cap * sizeof(*more));
		if (!more)
			return ckf_error_set(err, -ENOMEM, "no memory for a list of threads");
		f->tids = more;
		f->cap = cap;
	}
	if (ptrace(PTRACE_SEIZE, tid, NULL, NULL)) {
		if (errno == ESRCH)
			return 0; /* it has ended */
		return trace_error(err, tid, "trace");
	}
	f->tids[f->nr++] = tid;
	if (ptrace(PTRACE_INTERRUPT, tid, NULL, NULL))
		return trace_error(err, tid, "stop");
	return wait_stop(tid, err);
}

/* One pass over the threads. *fresh: some were not stopped yet, and may have made others. */
static int freeze_pass(struct ckf_frozen *f, pid_t pid, bool *fresh, struct ckf_error *err)
{
	struct dirent *de;
	char path[64];
	int ret = 0;
	pid_t tid;
	DIR *dir;

	*fresh = false;
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	if (!dir)
		return ckf_error_set(err, -ESRCH, "there is no process %d", (int)pid);
	while (!ret && (de = readdir(dir))) {
		tid = (pid_t)atoi(de->d_name);
		if (tid <= 0 || known(f, tid))
			continue;
		*fresh = true;
		ret = freeze_thread(f, tid, err);
	}
	closedir(dir);
	return ret;
}

int ckf_freeze(pid_t pid, struct ckf_frozen **out, struct ckf_error *err)
{
	struct ckf_frozen *f = calloc(1, sizeof(*f));
	bool fresh = true;
	int ret = 0;

	if (!f)
		return ckf_error_set(err, -ENOMEM, "no memory for a list of threads");
	for (int i = 0; i < FREEZE_ROUNDS && fresh && !ret; i++)
		ret = freeze_pass(f, pid, &fresh, err);
	if (!ret && fresh)
		ret = ckf_error_set(err, -EAGAIN, "process %d makes threads faster than they stop",
				    (int)pid);
	if (ret) {
		ckf_thaw(f);
		return ret;
	}
	*out = f;
	return 0;
}

void ckf_thaw(struct ckf_frozen *f)
{
	if (!f)
		return;
	for (size_t i = 0; i < f->nr; i++)
		ptrace(PTRACE_DETACH, f->tids[i], NULL, NULL);
	free(f->tids);
	free(f);
}
