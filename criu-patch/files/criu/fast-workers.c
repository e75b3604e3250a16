// SPDX-License-Identifier: GPL-2.0-only
/*
 * The threads that fill memory from a fast image: how many there may be, and with which ids; and how many
 * small fills, which need none, run at the same time.
 *
 * They are threads of the tasks that are being restored, so whatever limits these limits them, too, and
 * their ids come out of the same pid namespace. Nobody may miss what they take: they get neither ids
 * that a task or thread of the image is yet to get, nor the last room under the limits that the tree
 * is yet to need; and the next id that the namespace gives out is afterwards what it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/futex.h>

#include <ckfast.h>

#include "types.h"
#include "common/list.h"
#include "cr_options.h"
#include "fast-image.h"
#include "fast-workers.h"
#include "log.h"
#include "pstree.h"
#include "rst_info.h"
#include "servicefd.h"
#include "util.h"
#include "xmalloc.h"

#undef LOG_PREFIX
#define LOG_PREFIX "fast-image: "

#define CRIU_PROCESSES 4   /* of CRIU's own, that may come and go while tasks are restored */
#define LOCK_TRIES 1000	   /* of a millisecond */
#define SIGNAL_OF_LIBC 33  /* SIGSETXID of glibc */

/* The buffers of a larger fill weigh little beside its memory. */
#define GATE_MAX_BYTES (1u << 20)
/* Some wait for the disk. */
#define GATE_FILLS_PER_CPU 4

/* Threads that the criu process could still make when it began. Tasks inherit it, as all below. */
static uint64_t left_to_criu = CKF_UNLIMITED;
/* The same of the cgroups that CRIU has moved this task to, of version 1 and 2, at that moment. */
static uint64_t left_by_pids = CKF_UNLIMITED;
static uint64_t left_by_unified = CKF_UNLIMITED;
static bool moved;
/* Threads of a process beside the tasks: not in task_entries->fast_threads, whose end others wait for. */
static unsigned int kept;

pid_t fast_workers_fork(void)
{
	const pid_t criu = getpid();
	sigset_t all;
	pid_t pid;

	pid = syscall(SYS_clone, 0, NULL, NULL, NULL, NULL);
	if (pid)
		return pid;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != criu)
		_exit(1);
	return 0;
}

static void *no_work(void *arg)
{
	return NULL;
}

static bool libc_has_handler(void)
{
	struct {
		void (*handler)(int);
		unsigned long flags;
		void (*restorer)(void);
		unsigned long mask;
	} act = {};

	return !syscall(SYS_rt_sigaction, SIGNAL_OF_LIBC, NULL, &act, sizeof(act.mask)) && act.handler;
}

/*
 * The first pthread_create() of a process installs a handler for a signal of libc's own. In a task, whose
 * actions are restored by the time that it has workers, the handler would stay. In the criu process it
 * does no harm, and tasks then have it before their actions are restored. It is enough to ask for a
 * thread that cannot be made, which takes no id.
 */
static int make_libc_ready(void)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 1ul << 60);
	if (!pthread_create(&thread, &attr, no_work, NULL))
		return pthread_join(thread, NULL);
	pthread_attr_destroy(&attr);
	if (libc_has_handler())
		return 0;
	if (pthread_create(&thread, NULL, no_work, NULL)) {
		pr_err("Can't create a thread\n");
		return -1;
	}
	return pthread_join(thread, NULL);
}

int fast_workers_init(void)
{
	int proc = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);

	left_to_criu = ckf_pids_self(proc);
	close_safe(&proc);
	return make_libc_ready();
}

/* What the limits of a cgroup below the yard, and of those above it, leave. */
static uint64_t left_by_dir(const char *path)
{
	int yard = get_service_fd(CGROUP_YARD), fd;
	uint64_t left;

	if (yard < 0)
		return CKF_UNLIMITED;
	fd = openat(yard, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return CKF_UNLIMITED;
	left = ckf_pids_of_dir(fd);
	close(fd);
	return left;
}

/* The limits are read now: when memory is filled, the yard is closed. */
void fast_workers_moved(const char *procs)
{
	const char *end = strrchr(procs, '/'), *dir_end = strchr(procs, '/');
	uint64_t *left = NULL;
	char path[PATH_MAX];

	if (!end || !fast_image_on())
		return;
	if (!strncmp(procs, "unified/", strlen("unified/")))
		left = &left_by_unified;
	else if (memmem(procs, dir_end - procs, "pids", strlen("pids")))
		left = &left_by_pids;
	if (!left)
		return;
	snprintf(path, sizeof(path), "%.*s", (int)(end - procs), procs);
	*left = left_by_dir(path);
	moved = true;
}

/* All that the tree may have at once. That some of it is there already is left out of account. */
static uint64_t tree_threads(void)
{
	struct pstree_item *pi;
	uint64_t n = CRIU_PROCESSES;

	for_each_pstree_item(pi)
		n += max_t(int, pi->nr_threads, 1);
	return n;
}

/* How many threads there may be, all of the tree among them. */
static uint64_t threads_limit(void)
{
	return moved ? min_t(uint64_t, left_by_pids, left_by_unified) : left_to_criu;
}

unsigned int fast_workers_wanted(uint64_t bytes)
{
	return opts.fast_threads ?: ckf_fill_default_threads(bytes);
}

static void add_id(struct fast_workers *w, pid_t id)
{
	if (w->nr_ids < w->max_ids)
		w->ids[w->nr_ids++] = id;
}

static int cmp_id(const void *a, const void *b)
{
	return *(const pid_t *)a - *(const pid_t *)b;
}

/* The ids that workers must not have: all of the image. */
static int collect_ids(struct fast_workers *w)
{
	struct pstree_item *pi;
	int i;

	for_each_pstree_item(pi)
		w->max_ids += 3 + pi->nr_threads;
	w->ids = xmalloc(w->max_ids * sizeof(*w->ids));
	if (!w->ids)
		return -1;
	for_each_pstree_item(pi) {
		add_id(w, vpid(pi));
		add_id(w, pi->pgid);
		add_id(w, pi->sid);
		/* The first one is the task itself; a helper's has no id there. */
		for (i = 1; i < pi->nr_threads && pi->threads; i++)
			add_id(w, pi->threads[i].ns[0].virt);
	}
	qsort(w->ids, w->nr_ids, sizeof(*w->ids), cmp_id);
	return 0;
}

int fast_workers_id_ok(void *arg, int tid)
{
	struct fast_workers *w = arg;
	pid_t id = tid;

	return bsearch(&id, w->ids, w->nr_ids, sizeof(*w->ids), cmp_id) ? -1 : 0;
}

static pid_t highest_id(void)
{
	char buf[16] = {};
	int fd, n;

	fd = open_proc(PROC_GEN, "sys/kernel/pid_max");
	if (fd < 0)
		return 0;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	return n > 0 ? atoi(buf) - 1 : 0;
}

/*
 * Restores in one pid namespace take turns. CRIU's own lock is for the tasks of one restore. The files of
 * procfs would not do: each mount has its own.
 */
static int lock_pid_ns(void)
{
	struct timespec ms = { .tv_nsec = 1000000 };
	int fd = open_proc(PROC_SELF, "ns/pid"), i;

	if (fd < 0)
		return -1;
	for (i = 0; i < LOCK_TRIES; i++) {
		if (!flock(fd, LOCK_EX | LOCK_NB))
			return fd;
		if (errno != EWOULDBLOCK)
			break;
		nanosleep(&ms, NULL);
	}
	pr_warn("Can't lock the pid namespace: %s\n", strerror(errno));
	close(fd);
	return -1;
}

static int write_last_pid(int fd, const char *text)
{
	if (pwrite(fd, text, strlen(text), 0) == strlen(text))
		return 0;
	pr_warn("Can't set the last pid to %s: %s\n", text, strerror(errno));
	return -1;
}

/*
 * New threads get the ids after the last one that was given out: moves that as far from all ids of the image
 * as can be, and so from those of other images that were dumped at about the same time and may be restored
 * now.
 */
static int move_last_pid(struct fast_workers *w)
{
	const pid_t far = ckf_far_id(w->ids, w->nr_ids, highest_id());
	char buf[16];
	ssize_t n;

	if (!far)
		return -1;
	w->ns_fd = lock_pid_ns();
	w->last_pid_fd = w->ns_fd < 0 ? -1 : open_proc_rw(PROC_GEN, LAST_PID_PATH);
	if (w->last_pid_fd < 0)
		return -1;
	n = read(w->last_pid_fd, w->last_pid, sizeof(w->last_pid) - 1);
	if (n <= 0)
		return -1;
	w->last_pid[n] = 0;
	w->last_pid[strcspn(w->last_pid, "\n")] = 0;
	snprintf(buf, sizeof(buf), "%d", far);
	if (write_last_pid(w->last_pid_fd, buf))
		return -1;
	w->moved = true;
	return 0;
}

static unsigned int busy_threads(void)
{
	return atomic_read(&task_entries->fast_threads) + kept;
}

/*
 * Who forks may wait for the end of workers that there are, so whoever has some does not wait for the lock, nor for
 * forks that go on.
 */
static bool lock_ids(const struct fast_workers *w)
{
	if (!w->taken) {
		lock_last_pid();
		return true;
	}
	if (!mutex_trylock(&task_entries->last_pid_mutex))
		return false;
	if (!futex_get(&task_entries->fast_forks))
		return true;
	unlock_last_pid();
	return false;
}

unsigned int fast_workers_before(void *arg, unsigned int wanted)
{
	struct fast_workers *w = arg;
	unsigned int busy, n;

	w->ns_fd = w->last_pid_fd = -1;
	w->moved = false;
	/* Asked again and again while a fill could do with more: nobody is kept waiting for that. */
	w->locked = busy_threads() < w->budget->workers && lock_ids(w);
	if (!w->locked)
		return 0;
	busy = busy_threads();
	n = ckf_budget_workers(w->budget, wanted, busy, threads_limit(), tree_threads());
	if (n < wanted)
		pr_debug("%u workers of %u, %u are busy\n", n, wanted, busy);
	if (!n || atomic_read(&task_entries->fast_tight) || (!w->ids && collect_ids(w)) || move_last_pid(w))
		return 0;
	w->taken += n;
	atomic_add(n, &task_entries->fast_threads);
	return n;
}

void fast_workers_after(void *arg)
{
	struct fast_workers *w = arg;

	if (w->moved)
		write_last_pid(w->last_pid_fd, w->last_pid);
	close_safe(&w->last_pid_fd);
	/* Workers have copies of the descriptor: closing it would leave the lock to them. */
	if (w->ns_fd >= 0)
		flock(w->ns_fd, LOCK_UN);
	close_safe(&w->ns_fd);
	if (w->locked)
		unlock_last_pid();
}

void fast_gate_init(struct fast_gate *gate)
{
	/* For a size without end it is one for each CPU. */
	gate->max = GATE_FILLS_PER_CPU * ckf_fill_default_threads(UINT64_MAX);
}

void fast_gate_enter(struct fast_gate *gate, uint64_t bytes)
{
	unsigned int n = atomic_load(&gate->running);

	if (bytes > GATE_MAX_BYTES)
		return;
	for (;;) {
		if (n >= gate->max)
			syscall(SYS_futex, &gate->running, FUTEX_WAIT, n, NULL, NULL, 0);
		else if (atomic_compare_exchange_weak(&gate->running, &n, n + 1))
			return;
		n = atomic_load(&gate->running);
	}
}

void fast_gate_leave(struct fast_gate *gate, uint64_t bytes)
{
	if (bytes > GATE_MAX_BYTES)
		return;
	atomic_fetch_sub(&gate->running, 1);
	syscall(SYS_futex, &gate->running, FUTEX_WAKE, 1, NULL, NULL, 0);
}

void fast_workers_keep(unsigned int nr)
{
	kept = nr;
}

void fast_workers_end(struct fast_workers *w)
{
	atomic_sub(w->taken, &task_entries->fast_threads);
	xfree(w->ids);
}

bool fast_workers_retry(int err, bool *retried)
{
	struct timespec ms = { .tv_nsec = 1000000 };

	if (err != EAGAIN || !fast_image_on() || *retried)
		return false;
	*retried = true;
	atomic_set(&task_entries->fast_tight, 1);
	while (atomic_read(&task_entries->fast_threads) && !atomic_read(&task_entries->failed))
		nanosleep(&ms, NULL);
	return true;
}
