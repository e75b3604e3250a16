/* SPDX-License-Identifier: MIT */
/*
 * Calls of the driver for a process, which gpud makes: one after the other, or begun for several
 * processes, of which the driver then serves all at the same time.
 */
#include "driver.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/ckf_threads.h"
#include "ckf_agent_call.h"
#include "ckf_gpud_msg.h"
#include "gpu/cuda/ckf_cuda_abi.h"

#define RELOCK_TIMEOUT_MS 30000 /* nobody is inside: it takes microseconds */
#define STUCK_TIMEOUT_S 300
#define MAX_BEGUN 16
#define QUOTA_WAIT_S 60 /* longer than the driver takes for a process */
#define QUOTA_PAUSE_NS 20000000
#define NS_PER_S 1000000000ull

/* Calls whose answers nobody has waited for, of all processes: they count for gpud's limits. */
static atomic_uint nr_begun;

/*
 * The driver does what it is asked for by a thread in the process. Where that is stopped, by
 * anybody but us, the call would not come back.
 */
static int check_thread(const struct driver *d, struct ckf_error *err)
{
	pid_t tracer;

	if (!d->tid || d->thread.running || !ckf_thread_stopped(d->tid, &tracer))
		return 0;
	return ckf_error_set(err, -EBUSY, "process %d is stopped, by %s: let it go on first",
			     (int)d->pid, tracer ? "a debugger" : "a signal");
}

int driver_run(struct driver *d, struct ckf_error *err)
{
	struct ckf_error run_err = { 0 };
	int ret;

	if (d->thread.running)
		return 0;
	ret = ckf_tracee_run(&d->thread, d->tid, &run_err);
	/* It runs anyway, unless the caller has stopped it. */
	return ret && ret != -ESRCH ? ckf_error_set(err, ret, "%s", run_err.msg) : 0;
}

/* Chooses the connection, and has it free: the answer to a call that was stuck comes first, and is
 * of no interest any more. */
static int end_stuck(struct driver *d, int *gpud, struct ckf_error *err)
{
	const uint64_t end_ns = ckf_now_ns() + STUCK_TIMEOUT_S * NS_PER_S;
	struct ckf_gpud_msg m;
	int ret;

	if (d->stuck_gpud >= 0)
		*gpud = d->stuck_gpud;
	if (!d->is_stuck)
		return 0;
	ret = ckf_tracee_wait(&d->thread, d->pid, *gpud, POLLIN, end_ns, err);
	if (!ret)
		ret = gpud_recv_until(*gpud, &m, NULL, end_ns, err);
	if (!ret)
		d->is_stuck = false;
	return ret;
}

/* To a call that gpud was sent, and that the thread works at. */
static int wait_answer(struct driver *d, int gpud, uint64_t end_ns, uint64_t *answer,
		       struct ckf_error *err)
{
	struct ckf_gpud_msg m;
	int ret;

	ret = ckf_tracee_wait(&d->thread, d->pid, gpud, POLLIN, end_ns, err);
	if (ret) {
		/* Without a descriptor for it the answer is waited for where the next call goes. */
		d->is_stuck = true;
		if (d->stuck_gpud < 0)
			d->stuck_gpud = fcntl(gpud, F_DUPFD_CLOEXEC, 0);
		return ret;
	}
	ret = gpud_call_recv(gpud, &m, end_ns, err);
	if (!ret && answer)
		*answer = m.arg;
	return ret;
}

/* A RESUME with its pairs, which gpud forgets with each one, also if it refuses it. */
static int send_call(const struct driver *d, int gpud, uint32_t action, uint64_t timeout_ms,
		     uint64_t *end_ns, struct ckf_error *err)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_PAIR };
	int ret = 0;

	for (unsigned int i = 0; action == CKF_GPUD_RESUME && i < d->nr_pairs && !ret; i++) {
		memcpy(m.uuid, d->pairs[i].old_uuid, sizeof(m.uuid));
		memcpy(m.uuid2, d->pairs[i].new_uuid, sizeof(m.uuid2));
		ret = ckf_gpud_send(gpud, &m, -1, err);
	}
	m = (struct ckf_gpud_msg){
		.op = CKF_GPUD_CHECKPOINT,
		.arg = action,
		.arg2 = timeout_ms,
	};
	return ret ? ret : gpud_call_send(gpud, &m, d->pidfd, end_ns, err);
}

static int call_once(struct driver *d, int gpud, uint32_t action, uint64_t timeout_ms,
		     uint64_t *answer, struct ckf_error *err)
{
	uint64_t end_ns;
	int ret = check_thread(d, err);

	if (!ret)
		ret = end_stuck(d, &gpud, err);
	if (!ret)
		ret = send_call(d, gpud, action, timeout_ms, &end_ns, err);
	return ret ? ret : wait_answer(d, gpud, end_ns, answer, err);
}

int driver_call(struct driver *d, int gpud, uint32_t action, uint64_t timeout_ms, uint64_t *answer,
		struct ckf_error *err)
{
	const struct timespec pause = { .tv_nsec = QUOTA_PAUSE_NS };
	const uint64_t end_ns = ckf_now_ns() + QUOTA_WAIT_S * NS_PER_S;
	struct ckf_error call_err;
	int ret;

	do {
		call_err = (struct ckf_error){ 0 };
		ret = call_once(d, gpud, action, timeout_ms, answer, &call_err);
		/* Too many requests at once: those that were begun end by themselves. */
	} while (ret == -EDQUOT && atomic_load(&nr_begun) && ckf_now_ns() < end_ns &&
		 !nanosleep(&pause, NULL));
	return ret ? ckf_error_set(err, ret, "%s", call_err.msg) : 0;
}

/* Waits for what was begun, and notes what it has done. */
static int end_begun(struct driver *d, struct ckf_error *err)
{
	struct ckf_error begun_err = { 0 };
	const int sock = d->begun.sock;
	int ret;

	if (sock < 0)
		return 0;
	d->begun.sock = -1;
	atomic_fetch_sub(&nr_begun, 1);
	ret = wait_answer(d, sock, d->begun.end_ns, NULL, &begun_err);
	close(sock);
	if (!ret)
		d->suspended = d->begun.action == CKF_GPUD_SUSPEND;
	/* So many requests at once are not allowed: one after the other may be. */
	if (!ret || ret == -EDQUOT)
		return 0;
	return ckf_error_set(err, ret, "%s", begun_err.msg);
}

int driver_pair(struct driver *d, const uint8_t old_uuid[16], const uint8_t new_uuid[16],
		struct ckf_error *err)
{
	struct driver_pair *pair = &d->pairs[d->nr_pairs];

	if (d->nr_pairs == CKF_GPU_MAX_DEVICES)
		return ckf_error_set(err, -E2BIG, "more than %d GPUs", CKF_GPU_MAX_DEVICES);
	memcpy(pair->old_uuid, old_uuid, sizeof(pair->old_uuid));
	memcpy(pair->new_uuid, new_uuid, sizeof(pair->new_uuid));
	d->nr_pairs++;
	return 0;
}

void driver_begin(struct driver *d, int gpud, uint32_t action)
{
	struct driver_begun b = { .action = action };
	int ret;

	if (d->begun.sock >= 0 || d->stuck_gpud >= 0 || atomic_load(&nr_begun) >= MAX_BEGUN)
		return;
	b.sock = ckf_gpud_join(gpud, NULL);
	if (b.sock < 0)
		return;
	ret = driver_run(d, NULL);
	if (!ret)
		ret = check_thread(d, NULL);
	if (!ret)
		ret = send_call(d, b.sock, action, 0, &b.end_ns, NULL);
	if (!ret) {
		d->begun = b;
		atomic_fetch_add(&nr_begun, 1);
		return;
	}
	close(b.sock);
	ckf_tracee_stop(&d->thread, NULL);
}

int driver_lock(struct driver *d, int gpud, bool on, struct ckf_error *err)
{
	int ret;

	if (d->locked == on)
		return 0;
	ret = driver_call(d, gpud, on ? CKF_GPUD_LOCK : CKF_GPUD_UNLOCK, on ? RELOCK_TIMEOUT_MS : 0,
			  NULL, err);
	if (!ret)
		d->locked = on;
	return ret;
}

int driver_sleep(struct driver *d, int gpud, struct ckf_error *err)
{
	int ret = end_begun(d, err);

	if (!ret)
		ret = driver_lock(d, gpud, true, err);
	if (!ret && !d->suspended)
		ret = driver_call(d, gpud, CKF_GPUD_SUSPEND, 0, NULL, err);
	if (!ret)
		d->suspended = true;
	return ret;
}

int driver_wake(struct driver *d, int gpud, struct ckf_error *err)
{
	const bool sleeps = d->begun.sock >= 0 && d->begun.action == CKF_GPUD_SUSPEND;
	struct ckf_error begun_err = { 0 };
	int ret = end_begun(d, &begun_err);

	/* A suspend is undone, whether it has worked or not. */
	if (ret && (!sleeps || ret == -EDEADLK))
		return ckf_error_set(err, ret, "%s", begun_err.msg);
	if (d->suspended) {
		ret = driver_call(d, gpud, CKF_GPUD_RESUME, 0, NULL, err);
		if (ret)
			return ret;
		d->suspended = false;
		d->locked = true;
	}
	return driver_lock(d, gpud, false, err);
}

int driver_state(struct driver *d, int gpud, uint64_t *state, struct ckf_error *err)
{
	end_begun(d, NULL);
	return driver_call(d, gpud, CKF_GPUD_STATE, 0, state, err);
}

int driver_open(struct driver *d, pid_t pid, int pidfd, int gpud, struct ckf_error *err)
{
	uint64_t inner = 0;
	int ret;

	d->pid = pid;
	d->pidfd = pidfd;
	ret = driver_call(d, gpud, CKF_GPUD_RESTORE_TID, 0, &inner, err);
	if (ret)
		return ret;
	d->tid = ckf_find_thread(pid, (uint32_t)inner);
	if (d->tid)
		return 0;
	return ckf_error_set(err, -EPROTO, "process %d has no thread %llu, which gpud names",
			     (int)pid, (unsigned long long)inner);
}

void driver_close(struct driver *d)
{
	end_begun(d, NULL);
	ckf_tracee_stop(&d->thread, NULL);
	if (d->stuck_gpud >= 0)
		close(d->stuck_gpud);
}
