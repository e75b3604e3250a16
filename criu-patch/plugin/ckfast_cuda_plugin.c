// SPDX-License-Identifier: GPL-2.0-only
/*
 * CRIU's plugin for processes that use NVIDIA GPUs, in place of cuda_plugin.so and its external
 * program. It makes no call of CUDA itself, and has no driver loaded: gpud does that, the daemon or
 * one that is started for the one dump or restore.
 *
 * At a dump, memory of processes that run with ckfast's agent goes to images of its own and the
 * driver checkpoints what little is left; other processes are the driver's as a whole. At a
 * restore, device memory is filled from the first moment, while CRIU restores the CPU side, and
 * handed over before the process runs. A process whose memory cannot be given back does not get to
 * run.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <ckfast.h>

#include "criu-log.h"
#include "plugin.h"
#include "cr_options.h"
#include "seize.h"
#include "image.h"
#include "pid.h"
#include "pstree.h"

#include <common/list.h>

#include "preflight.h"

#undef LOG_PREFIX
#define LOG_PREFIX "ckfast-cuda: "

#define PLUGIN_NAME "ckfast_cuda_plugin"
#define DRIVER_NAME "libcuda.so"
#define MAX_AT_ONCE 16 /* processes */

/* Of a dump. */
struct task {
	struct list_head list;
	struct ckf_gpu_process *gpu;
};

/* Of a restore: a task that has not got its memory yet, and how far that has come. */
struct restored {
	struct list_head list;
	int pid;
	uint32_t image_pid;
	struct ckf_gpu_process *gpu; /* NULL: it does not use CUDA */
	bool late;		     /* it gets its memory when it runs */
	int ret;
	struct ckf_error err;
	unsigned long long begun_ms, woken_ms, mapped_ms;
};

static LIST_HEAD(tasks);
static LIST_HEAD(restored);
static bool disabled;
static bool in_inventory;
static bool looked_at; /* by preflight_tree() */
static bool asked;     /* by preflight_shared() */
static int gpud = -1;
static char helper[PATH_MAX];
static struct ckf_gpu_fill *fill;

static unsigned long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ull + ts.tv_nsec / 1000000;
}

static int connect_gpud(struct ckf_error *err)
{
	if (gpud < 0)
		gpud = ckf_gpud_connect(NULL, ckf_gpu_find_helper(helper, sizeof(helper)), err);
	return gpud < 0 ? gpud : 0;
}

static void drop_gpud(void)
{
	if (gpud >= 0)
		close(gpud);
	gpud = -1;
}

static bool uses_cuda(int pid)
{
	return preflight_maps(pid, DRIVER_NAME);
}

/*
 * A thread was stopped while it had a lock that the driver needs, and gives it up when all run. So
 * the rest is done then, by a process that lives as long as that takes: it holds the descriptors
 * of the memory. Calls of CUDA wait meanwhile.
 */
static void finish_late(struct ckf_gpu_process *gpu, bool must)
{
	struct ckf_error err = {};
	int pid = ckf_gpu_process_pid(gpu), ret;

	drop_gpud();
	ret = connect_gpud(&err);
	if (!ret)
		ret = ckf_gpu_process_resume_late(gpu, gpud, &err);
	if (!ret) {
		pr_info("Process %d has its device memory, and runs on\n", pid);
	} else if (ret == -ESRCH && !uses_cuda(pid)) {
		/* It has ended, or executes another program. */
		pr_info("%s\n", err.msg);
	} else {
		pr_err("Process %d is left without its GPU%s: %s\n", pid, must ? " and ended" : "",
		       err.msg);
		if (must)
			ckf_gpu_process_kill(gpu);
	}
}

/* must: the process is ended where that fails. CRIU must not see its end: it is no child of CRIU.
 */
static int resume_late(struct ckf_gpu_process *gpu, bool must)
{
	sigset_t chld, old;
	int status = 0, null;
	pid_t child;

	pr_warn("Process %d gets its device memory when it runs: a thread was stopped with a lock "
		"that the driver needs\n",
		ckf_gpu_process_pid(gpu));
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, &old);
	child = fork();
	if (!child) {
		null = open("/dev/null", O_RDWR | O_CLOEXEC);
		child = fork();
		if (child)
			_exit(child < 0);
		setsid();
		for (int fd = 0; fd <= 2 && null >= 0; fd++)
			dup2(null, fd);
		finish_late(gpu, must);
		_exit(0);
	}
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	sigprocmask(SIG_SETMASK, &old, NULL);
	drop_gpud();
	if (child < 0 || status)
		pr_err("Can't make a process that waits for process %d\n",
		       ckf_gpu_process_pid(gpu));
	return child < 0 || status ? -1 : 0;
}

static struct task *find_task(int pid)
{
	struct task *t;

	list_for_each_entry(t, &tasks, list)
		if (ckf_gpu_process_pid(t->gpu) == pid)
			return t;
	return NULL;
}

static int add_task(struct ckf_gpu_process *gpu)
{
	struct task *t;

	if (!in_inventory && add_inventory_plugin(PLUGIN_NAME))
		return -1;
	in_inventory = true;
	t = malloc(sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->gpu = gpu;
	list_add_tail(&t->list, &tasks);
	return 0;
}

/*
 * CRIU that is ended in the middle of a dump would leave the tasks without their devices. So
 * signals that ask for that are noted, and the next hook fails, which gives everything back. After
 * the last hook the dump is completed.
 */
static const int end_signals[] = { SIGHUP, SIGINT, SIGTERM };
static struct sigaction old_actions[sizeof(end_signals) / sizeof(*end_signals)];
static bool signals_held;
static volatile sig_atomic_t end_signal;

static void note_signal(int signal)
{
	end_signal = signal;
}

static void hold_signals(void)
{
	struct sigaction note = { .sa_handler = note_signal, .sa_flags = SA_RESTART };

	if (signals_held)
		return;
	signals_held = true;
	for (size_t i = 0; i < sizeof(end_signals) / sizeof(*end_signals); i++) {
		sigaction(end_signals[i], NULL, &old_actions[i]);
		if (old_actions[i].sa_handler == SIG_DFL)
			sigaction(end_signals[i], &note, NULL);
	}
}

static void release_signals(void)
{
	if (!signals_held)
		return;
	signals_held = false;
	for (size_t i = 0; i < sizeof(end_signals) / sizeof(*end_signals); i++)
		sigaction(end_signals[i], &old_actions[i], NULL);
	if (end_signal)
		pr_warn("Signal %d came while devices were taken\n", (int)end_signal);
	end_signal = 0;
}

static bool must_end(void)
{
	if (end_signal)
		pr_err("The dump is ended by signal %d\n", (int)end_signal);
	return end_signal;
}

static int lock_task(int pid, unsigned int timeout_s)
{
	struct ckf_gpu_process *gpu = NULL;
	struct ckf_error err = {};
	int ret;

	ret = connect_gpud(&err);
	if (!ret)
		ret = ckf_gpu_process_open(pid, gpud, &gpu, &err);
	if (ret == -ESRCH) {
		pr_info("%d has not initialised CUDA\n", pid);
		return 0;
	}
	/* Into the list first: what is in it is unlocked again if the dump fails. */
	if (!ret && add_task(gpu)) {
		ckf_gpu_process_close(gpu);
		return -1;
	}
	if (!ret)
		ret = ckf_gpu_process_lock(gpu, gpud, timeout_s * 1000, &err);
	if (ret) {
		pr_err("Can't lock CUDA of process %d: %s\n", pid, err.msg);
		return -1;
	}
	pr_info("CUDA of process %d is locked\n", pid);
	return 0;
}

/*
 * CRIU's alarm limits the time in which the whole tree is stopped, and aborts CRIU when that cannot
 * be interrupted: no task would be unlocked. So it stands still while the driver is waited for,
 * which has what is left of that time.
 */
static int cuda_pause(int pid)
{
	unsigned long long start_ms = now_ms(), took_s;
	unsigned int left_s;
	int ret;

	if (disabled || !uses_cuda(pid))
		return -ENOTSUP;
	hold_signals();
	if (must_end() || (!asked && preflight_shared(root_item->pid->real)))
		return -1;
	asked = true;
	left_s = alarm(0);
	ret = lock_task(pid, left_s ? left_s : opts.timeout);
	took_s = (now_ms() - start_ms) / 1000;
	if (left_s)
		alarm(left_s > took_s ? left_s - took_s : 1);
	return ret;
}
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__PAUSE_DEVICES, cuda_pause)

/* Of all tasks, which are stopped now: who saves what they share. */
static int share_memory(void)
{
	struct ckf_gpu_process **list;
	struct ckf_error err = {};
	struct task *t;
	size_t nr = 0;
	int ret;

	list_for_each_entry(t, &tasks, list)
		nr++;
	list = calloc(nr, sizeof(*list));
	if (!list)
		return -1;
	nr = 0;
	list_for_each_entry(t, &tasks, list)
		list[nr++] = t->gpu;
	ret = ckf_gpu_processes_share(list, nr, &err);
	if (ret)
		pr_err("Not to be dumped: %s\n", err.msg);
	free(list);
	return ret;
}

/*
 * The memory of several tasks is saved at once, and the driver then suspends them at the same time:
 * those that come next in CRIU's order, which is the order of the list.
 */
static int begin_suspends(struct task *first)
{
	struct ckf_error err = {};
	unsigned int nr = 0;
	struct task *t = first;
	int ret = 0;

	list_for_each_entry_from(t, &tasks, list)
	{
		/* What cannot begin here begins when it is the task's turn. */
		if (nr++ == MAX_AT_ONCE ||
		    ckf_gpu_process_save(t->gpu, gpud, criu_get_image_dir(), NULL))
			break;
	}
	nr = 0;
	t = first;
	list_for_each_entry_from(t, &tasks, list)
	{
		if (nr++ == MAX_AT_ONCE || ret)
			break;
		if (must_end())
			return -1;
		ret = ckf_gpu_process_begin_suspend(t->gpu, gpud, criu_get_image_dir(), &err);
		if (ret)
			pr_err("Can't save the device memory of process %d: %s\n",
			       ckf_gpu_process_pid(t->gpu), err.msg);
	}
	return ret;
}

static int cuda_checkpoint(int pid)
{
	struct ckf_error err = {};
	struct task *t;
	int ret;

	if (disabled)
		return -ENOTSUP;
	t = find_task(pid);
	if (!t)
		return uses_cuda(pid) ? 0 : -ENOTSUP;
	/* From here on nothing changes any more, and nothing was taken yet. */
	if (must_end() || (!looked_at && (preflight_tree() || share_memory())))
		return -1;
	looked_at = true;
	if (begin_suspends(t))
		return -1;
	ret = ckf_gpu_process_suspend(t->gpu, gpud, criu_get_image_dir(), &err);
	if (ret == -EDEADLK)
		drop_gpud();
	if (ret) {
		pr_err("Can't checkpoint the device memory of process %d: %s\n", pid, err.msg);
		return -1;
	}
	pr_info("%llu bytes of device memory of process %d are in images of their own\n",
		(unsigned long long)ckf_gpu_process_bytes(t->gpu), pid);
	return 0;
}
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__CHECKPOINT_DEVICES, cuda_checkpoint)

/* What the driver was asked for ends when the process runs. The connection is good for nothing else
 * until then. */
static void note_stuck(struct restored *r)
{
	if (r->ret != -EDEADLK)
		return;
	r->ret = 0;
	r->late = true;
	drop_gpud();
}

/* What there is of it. */
static void adopt(struct restored *r)
{
	r->begun_ms = now_ms();
	r->ret = connect_gpud(&r->err);
	if (!r->ret)
		r->ret = ckf_gpu_process_open(r->pid, gpud, &r->gpu, &r->err);
	if (!r->ret)
		r->ret = ckf_gpu_image_pid(r->pid, &r->image_pid, &r->err);
	if (!r->ret && fill)
		r->ret = ckf_gpu_fill_accepted(fill, r->gpu, &r->err);
	if (!r->ret)
		r->ret = ckf_gpu_process_adopt(r->gpu, gpud, &r->err);
	note_stuck(r);
}

/* The driver begins to restore it. */
static void begin_wake(struct restored *r)
{
	if (!r->ret && !r->late && !connect_gpud(NULL))
		ckf_gpu_process_begin_wake(r->gpu, gpud);
}

/* Nothing has failed, and no thread of it is stuck. */
static bool goes_on(struct restored *r)
{
	if (!r->ret && !r->late)
		r->ret = connect_gpud(&r->err);
	return !r->ret && !r->late;
}

/* The driver has restored it, and the agent begins to map the memory. */
static void begin_mapping(struct restored *r)
{
	if (goes_on(r))
		r->ret = ckf_gpu_process_wake(r->gpu, gpud, &r->err);
	note_stuck(r);
	r->woken_ms = now_ms();
	if (!r->ret && fill)
		r->ret = ckf_gpu_fill_memory(fill, r->image_pid, r->gpu, &r->err);
	if (!r->ret && !r->late)
		ckf_gpu_process_begin_resume(r->gpu);
}

/* All is mapped, and all threads are stopped again. */
static void end_mapping(struct restored *r)
{
	if (goes_on(r))
		r->ret = ckf_gpu_process_resume(r->gpu, gpud, &r->err);
	note_stuck(r);
	r->mapped_ms = now_ms();
}

static int add_restored(int pid)
{
	struct restored *r = calloc(1, sizeof(*r));

	if (!r) {
		pr_err("No memory for process %d\n", pid);
		return -1;
	}
	r->pid = pid;
	r->ret = -ENOMEM; /* until it is looked at */
	list_add_tail(&r->list, &restored);
	return 0;
}

/*
 * The task pid, and those whose turn comes after it: the driver restores all of them at the same
 * time, beside the fill, and their agents map memory at the same time.
 */
static void restore_together(int pid)
{
	struct pstree_item *item;
	unsigned int nr = 1;
	bool after = false;
	struct restored *r;

	if (add_restored(pid))
		return;
	for_each_pstree_item(item) {
		if (after && nr < MAX_AT_ONCE && task_alive(item) && uses_cuda(item->pid->real)) {
			if (add_restored(item->pid->real))
				return;
			nr++;
		}
		after |= item->pid->real == pid;
	}
	list_for_each_entry(r, &restored, list)
		adopt(r);
	/* Not before: gpud may limit how many requests there are at once. */
	list_for_each_entry(r, &restored, list)
		begin_wake(r);
	list_for_each_entry(r, &restored, list)
		begin_mapping(r);
	list_for_each_entry(r, &restored, list)
		end_mapping(r);
}

static struct restored *find_restored(int pid)
{
	struct restored *r;

	list_for_each_entry(r, &restored, list)
		if (r->pid == pid)
			return r;
	return NULL;
}

/* The process does not run before every byte is there and was found to be right. */
static int give_back(struct restored *r)
{
	struct ckf_gpu_fill_stats stats = { .size = sizeof(stats) };

	if (r->ret == -ESRCH && !r->gpu)
		return 0;
	if (!r->ret && fill)
		r->ret = ckf_gpu_fill_wait(fill, r->image_pid, &stats, &r->err);
	if (r->ret)
		return r->ret;
	if (r->late)
		return resume_late(r->gpu, true);
	pr_info("Process %d has its device memory: %llu bytes in %llu ms; "
		"the driver took %llu ms, mapping %llu ms, then waited %llu ms\n",
		r->pid, (unsigned long long)stats.bytes, (unsigned long long)stats.ns / 1000000,
		r->woken_ms - r->begun_ms, r->mapped_ms - r->woken_ms, now_ms() - r->mapped_ms);
	return 0;
}

static void forget(struct restored *r)
{
	ckf_gpu_process_close(r->gpu);
	list_del(&r->list);
	free(r);
}

static void forget_restored(void)
{
	struct restored *r, *next;

	list_for_each_entry_safe(r, next, &restored, list)
		forget(r);
}

/*
 * A stock CRIU goes on whatever this returns, so the process is ended here: it would run without
 * its memory. The patched one ends the whole tree at -ECANCELED.
 */
static int cuda_resume_late(int pid)
{
	struct restored *r = find_restored(pid);
	int ret = -1;

	if (disabled || !uses_cuda(pid)) {
		/* It has ended meanwhile. */
		if (r)
			forget(r);
		return -ENOTSUP;
	}
	/* The turn of those before is over. */
	if (!r) {
		forget_restored();
		restore_together(pid);
		r = find_restored(pid);
	}
	if (r) {
		ret = give_back(r);
		if (ret)
			pr_err("Process %d is ended: it cannot get its device memory back: %s\n",
			       pid, r->err.msg);
		forget(r);
	}
	if (!ret)
		return 0;
	kill(pid, SIGKILL);
	return -ECANCELED;
}
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__RESUME_DEVICES_LATE, cuda_resume_late)

static int start_restore(void)
{
	struct ckf_error err = {};

	if (!check_and_remove_inventory_plugin(PLUGIN_NAME, strlen(PLUGIN_NAME))) {
		disabled = true;
		return 0;
	}
	/* It gets ready while CRIU restores. */
	if (connect_gpud(&err)) {
		pr_err("Can't use the GPU: %s\n", err.msg);
		return -1;
	}
	if (ckf_gpu_images_probe(criu_get_image_dir()) &&
	    ckf_gpu_fill_start(gpud, criu_get_image_dir(), &fill, &err)) {
		pr_err("Can't restore the device memory: %s\n", err.msg);
		return -1;
	}
	return 0;
}

static int plugin_init(int stage)
{
	if (stage == CR_PLUGIN_STAGE__PRE_DUMP) {
		disabled = true;
		return 0;
	}
	if (stage == CR_PLUGIN_STAGE__RESTORE && (start_restore() || disabled))
		return disabled ? 0 : -1;
	/* A frozen cgroup forbids to let single threads run while the rest is stopped. */
	set_compel_interrupt_only_mode();
	return 0;
}

/* The driver works at all of them at the same time. Who cannot begin here begins when resumed. */
static void begin_wakes(void)
{
	struct task *t;

	if (connect_gpud(NULL))
		return;
	list_for_each_entry(t, &tasks, list)
		ckf_gpu_process_begin_wake(t->gpu, gpud);
}

/* ask: the driver knows better how far a gpud that is gone has come. */
static int try_resume(struct ckf_gpu_process *gpu, bool ask, struct ckf_error *err)
{
	int ret = connect_gpud(err);

	if (!ret && ask)
		ckf_gpu_process_adopt(gpu, gpud, NULL);
	return ret ? ret : ckf_gpu_process_resume(gpu, gpud, err);
}

/*
 * A dump that failed, or that leaves the tasks there. If it is gpud that has failed, another one
 * does it. The first may have locked the process, and not have said so.
 */
static void resume_task(struct ckf_gpu_process *gpu, bool failed)
{
	struct ckf_error err = {};
	int ret = try_resume(gpu, failed, &err);

	if (ret && ret != -EDEADLK) {
		pr_warn("Process %d: %s: trying again\n", ckf_gpu_process_pid(gpu), err.msg);
		err = (struct ckf_error){};
		drop_gpud();
		ret = try_resume(gpu, true, &err);
	}
	if (ret == -EDEADLK)
		ret = resume_late(gpu, false);
	if (ret)
		pr_err("Process %d is left without its GPU: %s\n", ckf_gpu_process_pid(gpu),
		       err.msg);
}

static void plugin_fini(int stage, int ret)
{
	struct task *t, *next;

	forget_restored();
	if (!list_empty(&tasks) && (ret || opts.final_state != TASK_DEAD))
		begin_wakes();
	list_for_each_entry_safe(t, next, &tasks, list) {
		if (ret || opts.final_state != TASK_DEAD)
			resume_task(t->gpu, ret);
		ckf_gpu_process_close(t->gpu);
		list_del(&t->list);
		free(t);
	}
	ckf_gpu_fill_close(fill);
	fill = NULL;
	drop_gpud();
	release_signals();
}

CR_PLUGIN_REGISTER(PLUGIN_NAME, plugin_init, plugin_fini)
