/* SPDX-License-Identifier: MIT */
/*
 * Suspending and resuming a process that uses a GPU.
 *
 * The driver's lock makes calls of CUDA wait, the agent's too. So the order is: lock while the
 * process runs, so that no thread is inside of the driver; stop all threads; unlock, which lets
 * nobody go on but the agent's thread, when it is continued; take the memory away; lock again for
 * the driver's own checkpoint. The same the other way round.
 *
 * The memory itself is not lost with the process's mappings: descriptors of it are here until the
 * end, so a dump that fails gives it back as it was, without a copy.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../format/ckf_gpu_dump.h"
#include "agent_call.h"
#include "ckf_gpud.h"
#include "ckf_process.h"
#include "cuda_abi.h"

#define RELOCK_TIMEOUT_MS 30000 /* all threads are stopped: it takes microseconds */

struct ckf_gpu_process {
	pid_t pid;
	int pidfd; /* what gpud knows it by: it may be in another pid namespace */
	uint32_t image_pid;
	struct ckf_tracee restorer; /* the driver's own thread in the process */
	pid_t restore_tid;
	struct ckf_agent_call agent;
	bool has_agent;
	bool locked;
	bool suspended; /* by the driver */
	bool parked;	/* the agent's memory is away */
	struct ckf_gpu_memory *mem;
	size_t nr_mem;
	size_t cap_mem;
	struct pair {
		uint8_t old_uuid[16];
		uint8_t new_uuid[16];
	} pairs[CKF_GPU_MAX_DEVICES];
	unsigned int nr_pairs;
};

static int action(const struct ckf_gpu_process *p, int gpud, uint32_t what, uint64_t timeout_ms,
		  uint64_t *answer, struct ckf_error *err)
{
	struct ckf_gpud_msg m = {
		.op = CKF_GPUD_CHECKPOINT,
		.arg = what,
		.arg2 = timeout_ms,
	};
	int ret = ckf_gpud_call(gpud, &m, p->pidfd, err);

	if (!ret && answer)
		*answer = m.arg;
	return ret;
}

int ckf_gpu_image_pid(pid_t pid, uint32_t *image_pid, struct ckf_error *err)
{
	*image_pid = ckf_inner_id(pid, pid);
	return *image_pid ? 0 : ckf_error_set(err, -ESRCH, "there is no process %d", (int)pid);
}

static int find_restorer(struct ckf_gpu_process *p, int gpud, struct ckf_error *err)
{
	uint64_t inner = 0;
	int ret = action(p, gpud, CKF_GPUD_RESTORE_TID, 0, &inner, err);

	if (ret)
		return ret;
	p->restore_tid = ckf_find_thread(p->pid, (uint32_t)inner);
	return p->restore_tid ? 0
			      : ckf_error_set(err, -EPROTO,
					      "process %d has no thread %llu, which gpud names",
					      (int)p->pid, (unsigned long long)inner);
}

int ckf_gpu_process_open(pid_t pid, int gpud, struct ckf_gpu_process **out, struct ckf_error *err)
{
	struct ckf_gpu_process *p = calloc(1, sizeof(*p));
	int ret;

	if (!p)
		return ckf_error_set(err, -ENOMEM, "no memory for a process");
	p->pid = pid;
	p->agent.sock = -1;
	p->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (p->pidfd < 0)
		ret = ckf_error_set(err, -errno, "cannot open process %d: %s", (int)pid,
				    strerror(errno));
	else
		ret = ckf_gpu_image_pid(pid, &p->image_pid, err);
	if (!ret)
		ret = find_restorer(p, gpud, err);
	if (ret) {
		ckf_gpu_process_close(p);
		return ret;
	}
	*out = p;
	return 0;
}

static void drop_memory(struct ckf_gpu_process *p)
{
	for (size_t i = 0; i < p->nr_mem; i++) {
		if (p->mem[i].fd >= 0)
			close(p->mem[i].fd);
	}
	p->nr_mem = 0;
}

void ckf_gpu_process_close(struct ckf_gpu_process *p)
{
	if (!p)
		return;
	drop_memory(p);
	if (p->pidfd >= 0)
		close(p->pidfd);
	free(p->mem);
	free(p);
}

pid_t ckf_gpu_process_pid(const struct ckf_gpu_process *p)
{
	return p->pid;
}

uint64_t ckf_gpu_process_bytes(const struct ckf_gpu_process *p)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < p->nr_mem; i++)
		bytes += p->mem[i].bytes;
	return bytes;
}

int ckf_gpu_process_lock(struct ckf_gpu_process *p, int gpud, unsigned int timeout_ms,
			 struct ckf_error *err)
{
	uint64_t state = CU_PROCESS_STATE_FAILED;
	int ret;

	ret = action(p, gpud, CKF_GPUD_STATE, 0, &state, err);
	if (ret)
		return ret;
	if (state != CU_PROCESS_STATE_RUNNING)
		return ckf_error_set(
			err, -EBUSY, "CUDA of process %d is %s already: unlock it first",
			(int)p->pid,
			state == CU_PROCESS_STATE_LOCKED	 ? "locked"
			: state == CU_PROCESS_STATE_CHECKPOINTED ? "suspended"
								 : "in a failed state");
	ret = action(p, gpud, CKF_GPUD_LOCK, timeout_ms, NULL, err);
	if (!ret)
		p->locked = true;
	return ret;
}

static int set_lock(struct ckf_gpu_process *p, int gpud, bool on, struct ckf_error *err)
{
	int ret;

	if (p->locked == on)
		return 0;
	ret = action(p, gpud, on ? CKF_GPUD_LOCK : CKF_GPUD_UNLOCK, on ? RELOCK_TIMEOUT_MS : 0,
		     NULL, err);
	if (!ret)
		p->locked = on;
	return ret;
}

int ckf_gpu_process_give(struct ckf_gpu_process *p, const struct ckf_gpu_memory *m,
			 struct ckf_error *err)
{
	size_t cap = p->cap_mem ? p->cap_mem * 2 : 64;
	struct ckf_gpu_memory *more;

	if (p->nr_mem == CKF_GPU_MAX_ALLOCS)
		return ckf_error_set(err, -E2BIG, "process %d has more than %u allocations",
				     (int)p->pid, CKF_GPU_MAX_ALLOCS);
	if (p->nr_mem == p->cap_mem) {
		more = realloc(p->mem, cap * sizeof(*more));
		if (!more)
			return ckf_error_set(err, -ENOMEM, "no memory for a list of memory");
		p->mem = more;
		p->cap_mem = cap;
	}
	p->mem[p->nr_mem++] = *m;
	return 0;
}

/* What the agent has, with descriptors. */
static int take_memory(struct ckf_gpu_process *p, struct ckf_error *err)
{
	struct ckf_agent_msg m = { .op = CKF_AGENT_PARK };
	struct ckf_gpu_memory mem;
	int ret;

	ret = ckf_agent_send(&p->agent, &m, -1, err);
	while (!ret) {
		ret = ckf_agent_recv(&p->agent, &m, &mem.fd, err);
		if (ret || m.op == CKF_AGENT_DONE)
			break;
		mem.addr = m.addr;
		mem.bytes = m.bytes;
		mem.device = m.device;
		mem.flags = m.flags;
		memcpy(mem.uuid, m.uuid, sizeof(mem.uuid));
		ret = ckf_gpu_process_give(p, &mem, err);
		if (ret)
			close(mem.fd);
	}
	return ret;
}

/* gpud copies it to the images of the dump. */
static int save_memory(const struct ckf_gpu_process *p, int gpud, int dir_fd, struct ckf_error *err)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_SAVE, .pid = p->image_pid };
	int ret;

	ret = ckf_gpud_send(gpud, &m, dir_fd, err);
	for (size_t i = 0; i < p->nr_mem && !ret; i++) {
		m = (struct ckf_gpud_msg){
			.op = CKF_GPUD_MEMORY,
			.pid = p->image_pid,
			.addr = p->mem[i].addr,
			.bytes = p->mem[i].bytes,
			.device = p->mem[i].device,
			.flags = p->mem[i].flags,
		};
		memcpy(m.uuid, p->mem[i].uuid, sizeof(m.uuid));
		ret = ckf_gpud_send(gpud, &m, p->mem[i].fd, err);
	}
	m = (struct ckf_gpud_msg){ .op = CKF_GPUD_COMMIT };
	return ret ? ret : ckf_gpud_call(gpud, &m, -1, err);
}

static int release_memory(struct ckf_gpu_process *p, struct ckf_error *err)
{
	struct ckf_agent_msg m = { .op = CKF_AGENT_RELEASE };
	int ret;

	ret = ckf_agent_send(&p->agent, &m, -1, err);
	if (ret)
		return ret;
	/* From here on some of it may be away, whatever the answer is. */
	p->parked = true;
	return ckf_agent_done(&p->agent, err);
}

static int park(struct ckf_gpu_process *p, int gpud, int dir_fd, struct ckf_error *err)
{
	int ret, end;

	ret = ckf_agent_begin(&p->agent, err);
	if (!ret)
		ret = take_memory(p, err);
	/* A program may have freed all that it had. */
	if (!ret && p->nr_mem)
		ret = save_memory(p, gpud, dir_fd, err);
	if (!ret && p->nr_mem)
		ret = release_memory(p, err);
	end = ckf_agent_end(&p->agent, ret ? NULL : err);
	return ret ? ret : end;
}

static int unpark(struct ckf_gpu_process *p, struct ckf_error *err)
{
	struct ckf_agent_msg m = { .op = CKF_AGENT_UNPARK };
	int ret, end;

	ret = ckf_agent_begin(&p->agent, err);
	if (!ret)
		ret = ckf_agent_send(&p->agent, &m, -1, err);
	for (size_t i = 0; i < p->nr_mem && !ret; i++) {
		m = (struct ckf_agent_msg){
			.op = CKF_AGENT_MAP,
			.addr = p->mem[i].addr,
			.bytes = p->mem[i].bytes,
		};
		ret = ckf_agent_send(&p->agent, &m, p->mem[i].fd, err);
	}
	m = (struct ckf_agent_msg){ .op = CKF_AGENT_COMMIT };
	if (!ret)
		ret = ckf_agent_send(&p->agent, &m, -1, err);
	if (!ret)
		ret = ckf_agent_done(&p->agent, err);
	end = ckf_agent_end(&p->agent, ret ? NULL : err);
	if (ret || end)
		return ret ? ret : end;
	p->parked = false;
	drop_memory(p);
	return 0;
}

static int find_agent(struct ckf_gpu_process *p, struct ckf_error *err)
{
	int ret = ckf_agent_find(p->pid, &p->agent, err);

	p->has_agent = ret == 0;
	return ret == -ENOENT ? 0 : ret;
}

/* The driver's part, with its thread running. */
static int sleep_running(struct ckf_gpu_process *p, int gpud, struct ckf_error *err)
{
	int ret = set_lock(p, gpud, true, err);

	if (!ret && !p->suspended)
		ret = action(p, gpud, CKF_GPUD_SUSPEND, 0, NULL, err);
	if (!ret)
		p->suspended = true;
	return ret;
}

/* With the driver's thread running. */
static int suspend_running(struct ckf_gpu_process *p, int gpud, int dir_fd, struct ckf_error *err)
{
	int ret = 0;

	if (p->has_agent) {
		ret = set_lock(p, gpud, false, err);
		if (!ret)
			ret = park(p, gpud, dir_fd, err);
	}
	return ret ? ret : sleep_running(p, gpud, err);
}

int ckf_gpu_process_pair(struct ckf_gpu_process *p, const uint8_t old_uuid[16],
			 const uint8_t new_uuid[16], struct ckf_error *err)
{
	struct pair *pair = &p->pairs[p->nr_pairs];

	if (p->nr_pairs == CKF_GPU_MAX_DEVICES)
		return ckf_error_set(err, -E2BIG, "more than %d GPUs", CKF_GPU_MAX_DEVICES);
	memcpy(pair->old_uuid, old_uuid, sizeof(pair->old_uuid));
	memcpy(pair->new_uuid, new_uuid, sizeof(pair->new_uuid));
	p->nr_pairs++;
	return 0;
}

static int send_pairs(const struct ckf_gpu_process *p, int gpud, struct ckf_error *err)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_PAIR };
	int ret = 0;

	for (unsigned int i = 0; i < p->nr_pairs && !ret; i++) {
		memcpy(m.uuid, p->pairs[i].old_uuid, sizeof(m.uuid));
		memcpy(m.uuid2, p->pairs[i].new_uuid, sizeof(m.uuid2));
		ret = ckf_gpud_send(gpud, &m, -1, err);
	}
	return ret;
}

static int wake_running(struct ckf_gpu_process *p, int gpud, struct ckf_error *err)
{
	int ret = 0;

	if (p->suspended) {
		ret = send_pairs(p, gpud, err);
		if (!ret)
			ret = action(p, gpud, CKF_GPUD_RESUME, 0, NULL, err);
		if (ret)
			return ret;
		p->suspended = false;
		p->locked = true;
	}
	return set_lock(p, gpud, false, err);
}

static int resume_running(struct ckf_gpu_process *p, int gpud, struct ckf_error *err)
{
	int ret = wake_running(p, gpud, err);

	if (!ret && p->parked)
		ret = unpark(p, err);
	if (ret)
		set_lock(p, gpud, true, NULL);
	return ret;
}

/*
 * Calls what with the driver's thread running. A process that was only locked may not be traced at
 * all, since what was to stop it has failed: the thread runs anyway.
 */
static int with_restorer(struct ckf_gpu_process *p, int gpud,
			 int (*what)(struct ckf_gpu_process *p, int gpud, struct ckf_error *err),
			 struct ckf_error *err)
{
	struct ckf_error run_err = { 0 };
	int ret, end;

	ret = ckf_tracee_run(&p->restorer, p->restore_tid, &run_err);
	if (ret && (ret != -ESRCH || p->suspended || p->parked))
		return ckf_error_set(err, ret, "%s", run_err.msg);
	ret = what(p, gpud, err);
	end = ckf_tracee_stop(&p->restorer, ret ? NULL : err);
	return ret ? ret : end;
}

static int adopt_running(struct ckf_gpu_process *p, int gpud, struct ckf_error *err)
{
	uint64_t state = CU_PROCESS_STATE_FAILED;
	int ret = action(p, gpud, CKF_GPUD_STATE, 0, &state, err);

	if (ret)
		return ret;
	p->suspended = state == CU_PROCESS_STATE_CHECKPOINTED;
	p->locked = p->suspended || state == CU_PROCESS_STATE_LOCKED;
	if (p->locked)
		return 0;
	return ckf_error_set(err, -EINVAL, "CUDA of process %d is not suspended", (int)p->pid);
}

int ckf_gpu_process_adopt(struct ckf_gpu_process *p, int gpud, struct ckf_error *err)
{
	/* The driver's thread answers this, too. */
	return with_restorer(p, gpud, adopt_running, err);
}

int ckf_gpu_process_suspend(struct ckf_gpu_process *p, int gpud, int dir_fd, struct ckf_error *err)
{
	int ret, end;

	ret = find_agent(p, err);
	if (!ret)
		ret = ckf_tracee_run(&p->restorer, p->restore_tid, err);
	if (ret)
		return ret;
	ret = suspend_running(p, gpud, dir_fd, err);
	/* The caller's threads are still to be stopped and locked, as they were. */
	if (ret && (p->parked || p->suspended))
		resume_running(p, gpud, NULL);
	if (ret)
		set_lock(p, gpud, true, NULL);
	if (ret && !p->parked)
		drop_memory(p);
	end = ckf_tracee_stop(&p->restorer, ret ? NULL : err);
	return ret ? ret : end;
}

int ckf_gpu_process_wake(struct ckf_gpu_process *p, int gpud, struct ckf_error *err)
{
	return with_restorer(p, gpud, wake_running, err);
}

int ckf_gpu_process_sleep(struct ckf_gpu_process *p, int gpud, struct ckf_error *err)
{
	return with_restorer(p, gpud, sleep_running, err);
}

int ckf_gpu_process_resume(struct ckf_gpu_process *p, int gpud, struct ckf_error *err)
{
	bool restored = !p->parked && p->nr_mem;
	int ret;

	ret = find_agent(p, err);
	if (ret)
		return ret;
	/* A restored process knows better than we do. */
	p->parked |= p->has_agent && p->agent.parked;
	if (p->parked ? !p->nr_mem : restored)
		return ckf_error_set(err, -EBADMSG,
				     "process %d and the images of its device memory do not fit",
				     (int)p->pid);
	return with_restorer(p, gpud, resume_running, err);
}
