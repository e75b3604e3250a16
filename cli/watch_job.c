/* SPDX-License-Identifier: MIT */
/*
 * The converters of ckfast watch: this same program, in a process of its own for each dump. What
 * is in a dump can make a converter fail, end it, or have it killed for its memory, and nothing
 * else.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/ioprio.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "watch.h"

#define NS_PER_S 1000000000ul
#define STOP_NS (20 * NS_PER_S)
#define POLL_MS 50
#define OOM_SCORE "500\n" /* the kernel kills a converter rather than its parent */

/*
 * What the converter is given. A dump by its descriptor: whatever the name leads to by then, that
 * directory is converted. An archive by its name in the directory that it is in.
 */
struct target {
	int fd; /* of the dump, or of the directory of the archive */
	const char *name;
};

static int open_target(struct watch_entry *e, struct target *t)
{
	char *copy = strdup(e->name);

	if (!copy)
		return -ENOMEM;
	t->name = strrchr(e->path, '/') + 1;
	if (e->is_dir || strchr(e->name, '/'))
		t->fd = watch_open(e->root, e->is_dir ? e->name : dirname(copy), WATCH_DIR_FLAGS);
	else
		t->fd = open(e->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(copy);
	return t->fd < 0 ? t->fd : 0;
}

static void set_oom_score(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	/* Where that is not allowed, the kernel chooses by itself. */
	if (fd >= 0 && write(fd, OOM_SCORE, sizeof(OOM_SCORE) - 1) < 0)
		errno = 0;
	if (fd >= 0)
		close(fd);
}

/* Never returns. */
static void run_child(const struct watch *w, struct watch_entry *e, const struct target *t,
		      int stderr_fd)
{
	char own[CLI_OWN_BYTES], threads[16];
	const char *argv[8] = { "ckfast", "convert", "--in-place", "--quiet" };
	int n = 4, null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	sigset_t none;

	/* Converters end with their parent, and signals of a terminal are the parent's. */
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGIO, SIG_DFL);
	set_oom_score();
	setpriority(PRIO_PROCESS, 0, w->nice);
	syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0));
	snprintf(threads, sizeof(threads), "--threads=%u", w->threads);
	if (w->threads)
		argv[n++] = threads;
	argv[n++] = "--";
	argv[n++] = e->is_dir ? e->arg : t->name;
	if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 || dup2(null_fd, STDOUT_FILENO) < 0 ||
	    dup2(stderr_fd, STDERR_FILENO) < 0)
		_Exit(CKF_EXIT_FAILED);
	if (e->is_dir ? fcntl(t->fd, F_SETFD, 0) : fchdir(t->fd))
		_Exit(CKF_EXIT_FAILED);
	execv(cli_own_program(own), (char **)argv);
	fprintf(stderr, "cannot run %s: %s\n", own, strerror(errno));
	fflush(stderr);
	_Exit(CKF_EXIT_FAILED);
}

void watch_start(struct watch *w, struct watch_entry *e)
{
	const char *reason = watch_refuse(e);
	struct target t = { .fd = -1 };
	int fds[2] = { -1, -1 }, ret = 0;

	e->state = WATCH_DONE;
	if (!reason) {
		ret = open_target(e, &t);
		/* It is gone: so it will be at the next scan. */
		if (ret == -ENOENT)
			return;
		if (!ret && pipe2(fds, O_CLOEXEC | O_NONBLOCK))
			ret = -errno;
	}
	if (!reason && !ret) {
		snprintf(e->arg, sizeof(e->arg), "/proc/self/fd/%d", t.fd);
		watch_converting(w, e);
		fflush(NULL);
		e->start_ns = cli_now_ns();
		e->pid = fork();
		if (!e->pid)
			run_child(w, e, &t, fds[1]);
		ret = e->pid < 0 ? -errno : 0;
	}
	if (reason || ret) {
		watch_failed(w, e, reason ? reason : strerror(-ret));
	} else {
		e->state = WATCH_RUNNING;
		e->stderr_fd = fds[0];
		fds[0] = -1;
		w->running++;
	}
	for (int i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (t.fd >= 0)
		close(t.fd);
}

/* Puts the path into the place of what the converter was told to call it. */
static void use_path(const struct watch_entry *e, const char *line, char *buf, size_t bytes)
{
	const char *prefix = "ckfast convert: ", *at;
	const char *arg = e->is_dir ? e->arg : strrchr(e->path, '/') + 1;
	size_t n = 0, len = strlen(arg);

	if (!strncmp(line, prefix, strlen(prefix)))
		line += strlen(prefix);
	if (!strncmp(line, arg, len) && !strncmp(line + len, ": ", 2))
		line += len + 2;
	for (; e->is_dir && (at = strstr(line, arg)) && n < bytes; line = at + len)
		n += (size_t)snprintf(buf + n, bytes - n, "%.*s%s", (int)(at - line), line,
				      e->path);
	if (n < bytes)
		snprintf(buf + n, bytes - n, "%s", line);
}

/* Why the converter failed: the last line that it has printed, or how it ended. */
static void get_reason(const struct watch_entry *e, int status, char *buf, size_t bytes)
{
	char text[4096], *line;
	ssize_t got = read(e->stderr_fd, text, sizeof(text) - 1);

	if (WIFSIGNALED(status)) {
		snprintf(buf, bytes, "the converter was killed by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
		return;
	}
	text[got > 0 ? got : 0] = 0;
	while (got > 0 && text[got - 1] == '\n')
		text[--got] = 0;
	line = strrchr(text, '\n');
	line = line ? line + 1 : text;
	if (*line)
		use_path(e, line, buf, bytes);
	else
		snprintf(buf, bytes, "the converter ended with exit code %d", WEXITSTATUS(status));
}

static void take_result(struct watch *w, struct watch_entry *e, int status, bool stopping)
{
	const uint64_t bytes = e->bytes, ns = cli_now_ns() - e->start_ns;
	char reason[8192];
	struct watch_look l;

	e->state = WATCH_DONE;
	w->running--;
	if (WIFSIGNALED(status))
		watch_remove_left(e);
	if (WIFEXITED(status) && !WEXITSTATUS(status)) {
		if (!watch_look_at(e->root, e->name, &l)) {
			e->mark = l.mark;
			e->bytes = l.bytes;
		}
		e->is_fast = true;
		/* An archive does not show what it is; a directory does. */
		if (!e->is_dir)
			watch_make_known(w, e);
		watch_converted(w, e, bytes, ns);
	} else if (stopping) {
		watch_stopped(w, e);
	} else {
		get_reason(e, status, reason, sizeof(reason));
		if (strstr(reason, "is a fast image already")) {
			watch_make_known(w, e);
			watch_ignored(w, e, reason);
		} else {
			watch_failed(w, e, reason);
		}
	}
	close(e->stderr_fd);
	e->stderr_fd = -1;
}

static void reap(struct watch *w, bool stopping)
{
	int status;

	for (size_t i = 0; i < w->nr_entries; i++) {
		struct watch_entry *e = w->entries[i];

		if (e->state == WATCH_RUNNING && waitpid(e->pid, &status, WNOHANG) == e->pid)
			take_result(w, e, status, stopping);
	}
}

void watch_reap(struct watch *w)
{
	reap(w, false);
}

static void kill_all(const struct watch *w, int sig)
{
	for (size_t i = 0; i < w->nr_entries; i++)
		if (w->entries[i]->state == WATCH_RUNNING)
			kill(w->entries[i]->pid, sig);
}

void watch_stop(struct watch *w)
{
	const uint64_t deadline = cli_now_ns() + STOP_NS;

	kill_all(w, SIGTERM);
	for (reap(w, true); w->running; reap(w, true)) {
		if (cli_now_ns() >= deadline)
			kill_all(w, SIGKILL);
		poll(NULL, 0, POLL_MS);
	}
}
