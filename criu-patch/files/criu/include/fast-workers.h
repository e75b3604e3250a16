/* SPDX-License-Identifier: GPL-2.0-only */
/* The threads that fill memory from a fast image, and the fills that do without. */
#ifndef __CR_FAST_WORKERS_H__
#define __CR_FAST_WORKERS_H__

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct ckf_budget;

/* The workers of one fill. Starts zeroed, but for the budget. */
struct fast_workers {
	const struct ckf_budget *budget; /* what all tasks may have together */
	unsigned int taken;
	pid_t *ids;	    /* of the image, sorted */
	size_t nr_ids;
	size_t max_ids;
	int ns_fd;	 /* the pid namespace, locked */
	int last_pid_fd; /* of ns_last_pid */
	char last_pid[16];
	bool moved;
	bool locked; /* CRIU's lock for the last pid is held */
};

/* Once, in the criu process, before any task is created. */
extern int fast_workers_init(void);

/* From move_in_cgroup(): the task is in that cgroup of the yard now; its file cgroup.procs. */
extern void fast_workers_moved(const char *procs);

/*
 * Creating a process or thread of the tree failed: true when it should be tried once more, since workers
 * may have taken what there was. They have ended then, and there will be no more. *retried is false at the
 * first time. Any lock of CRIU's may be held.
 */
extern bool fast_workers_retry(int err, bool *retried);

/* For struct ckf_fill_opts, with a struct fast_workers as arg. */
extern unsigned int fast_workers_before(void *arg, unsigned int wanted);
extern void fast_workers_after(void *arg);
extern int fast_workers_id_ok(void *arg, int tid);

/* How many are of use for so many bytes. */
extern unsigned int fast_workers_wanted(uint64_t bytes);

/*
 * A process beside the tasks, as by fork(): it handles no signal, ends with the criu process, and its end
 * sends none, since the handler of the criu process takes any child that ends for a task that failed. A
 * thread would not do: the criu process changes namespaces. Waited for with __WCLONE.
 */
extern pid_t fast_workers_fork(void);

/*
 * In the criu process, before there are tasks: so many threads fill beside those of the tasks from now on. What creates
 * a process or thread does not wait for their end. 0: they have ended.
 */
extern void fast_workers_keep(unsigned int nr);

/* When the fill has ended. */
extern void fast_workers_end(struct fast_workers *w);

/*
 * Small fills of all tasks that run at the same time. A task has its buffers for a moment only, but where hundreds
 * of tasks run by turns on a few CPUs, many would have them at once, and CRIU frees nothing before its restorer.
 */
struct fast_gate {
	atomic_uint running;
	unsigned int max;
};

/* Of a zeroed gate in shared memory, once, before any task is created. */
extern void fast_gate_init(struct fast_gate *gate);

/* Around a fill of so many bytes, the same both times. A large one does not wait, nor count. */
extern void fast_gate_enter(struct fast_gate *gate, uint64_t bytes);
extern void fast_gate_leave(struct fast_gate *gate, uint64_t bytes);

#endif /* __CR_FAST_WORKERS_H__ */
