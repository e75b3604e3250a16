/* SPDX-License-Identifier: MIT */
/*
 * Suspending and resuming a process that uses a GPU.
 *
 * A thread that waits inside of the driver has looked memory up and counts as one that the driver
 * has to wait for: nothing can be taken away before it is out. So a process with the agent is
 * brought to rest while it runs: the agent closes its gate, which all calls go through, and waits
 * until no thread is inside; the driver's lock then waits for the work that was submitted. Unlocked
 * again, it lets nobody in but the agent's thread, which takes the memory away. The same the other
 * way round: memory first, then the gate. Other threads may run or be stopped meanwhile, and hold
 * whatever locks there are outside of the driver.
 *
 * Without the agent the driver's lock and checkpoint are all there is.
 *
 * The memory itself is not lost with the process's mappings: descriptors of it are here until the
 * end, so a dump that fails gives it back as it was, without a copy.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "format/ckf_gpu_dump.h"
#include "base/ckf_array.h"
#include "base/ckf_threads.h"
#include "ckf_agent_call.h"
#include "ckf_gpud.h"
#include "ckf_process.h"
#include "gpu/cuda/ckf_cuda_abi.h"
#include "ckf_gpud_msg.h"
#include "driver.h"

#define MIN_LOCK_MS 1000
#define STOP_SAVE_S 60
#define LATE_TRIES 10 /* once the process runs */
#define LATE_PAUSE_NS 100000000
#define NS_PER_MS 1000000u
#define NS_PER_S 1000000000ull

struct ckf_gpu_process {
	pid_t pid;
	int pidfd;
	uint32_t image_pid;
	struct driver driver;
	struct ckf_agent_call agent;
	bool has_agent;
	bool parked;   /* the agent's memory is away */
	bool saved;    /* and in images, as the agent knows */
	bool mapping;  /* the agent was sent all that it is to map */
	int save_sock; /* to gpud, which saves the memory; -1: nothing was asked for yet */
	struct ckf_gpu_memory *mem;
	size_t nr_mem;
	uint64_t cap_mem;
};

int ckf_gpu_image_pid(pid_t pid, uint32_t *image_pid, struct ckf_error *err)
{
	*image_pid = ckf_inner_id(pid, pid);
	return *image_pid ? 0 : ckf_error_set(err, -ESRCH, "there is no process %d", (int)pid);
}

int ckf_gpu_process_open(pid_t pid, int gpud, struct ckf_gpu_process **out, struct ckf_error *err)
{
	struct ckf_gpu_process *p = calloc(1, sizeof(*p));
	int ret;

	if (!p)
		return ckf_error_set(err, -ENOMEM, "no memory for a process");
	p->pid = pid;
	p->driver = DRIVER_INIT;
	p->save_sock = -1;
	p->agent.sock = -1;
	p->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (p->pidfd < 0)
		ret = ckf_error_set(err, -errno, "cannot open process %d: %s", (int)pid,
				    strerror(errno));
	else
		ret = ckf_gpu_image_pid(pid, &p->image_pid, err);
	if (!ret)
		ret = driver_open(&p->driver, pid, p->pidfd, gpud, err);
	if (ret) {
		ckf_gpu_process_close(p);
		return ret;
	}
	*out = p;
	return 0;
}

static void end_save(struct ckf_gpu_process *p)
{
	if (p->save_sock >= 0)
		close(p->save_sock);
	p->save_sock = -1;
}

/* Nothing is written any more when this returns. */
static void stop_save(struct ckf_gpu_process *p)
{
	const uint64_t end = ckf_now_ns() + STOP_SAVE_S * NS_PER_S;
	struct ckf_gpud_msg m;

	if (p->save_sock >= 0)
		shutdown(p->save_sock, SHUT_WR);
	while (p->save_sock >= 0 && !gpud_recv_until(p->save_sock, &m, NULL, end, NULL))
		;
	end_save(p);
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
	stop_save(p);
	if (p->mapping)
		ckf_agent_end(&p->agent, NULL);
	driver_close(&p->driver);
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

struct ckf_gpu_memory *ckf_gpu_process_memory(struct ckf_gpu_process *p, size_t *nr)
{
	*nr = p->nr_mem;
	return p->mem;
}

uint64_t ckf_gpu_process_bytes(const struct ckf_gpu_process *p)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < p->nr_mem; i++)
		bytes += p->mem[i].bytes;
	return bytes;
}

int ckf_gpu_process_give(struct ckf_gpu_process *p, const struct ckf_gpu_memory *m,
			 struct ckf_error *err)
{
	if (p->nr_mem == CKF_GPU_MAX_ALLOCS)
		return ckf_error_set(err, -E2BIG, "process %d has more than %u allocations",
				     (int)p->pid, CKF_GPU_MAX_ALLOCS);
	if (ckf_array_grow(&p->mem, p->nr_mem, &p->cap_mem, sizeof(*p->mem)))
		return ckf_error_set(err, -ENOMEM, "no memory for a list of memory");
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
		memset(mem.shared_id, 0, sizeof(mem.shared_id));
		ret = ckf_gpu_process_give(p, &mem, err);
		if (ret)
			close(mem.fd);
	}
	return ret;
}

/* gpud copies it to the images of the dump. Sends all but reads no answer. */
static int send_memory(const struct ckf_gpu_process *p, int gpud, int dir_fd, struct ckf_error *err)
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
		memcpy(m.uuid2, p->mem[i].shared_id, sizeof(m.uuid2));
		ret = ckf_gpud_send(gpud, &m, p->mem[i].fd, err);
	}
	m = (struct ckf_gpud_msg){ .op = CKF_GPUD_COMMIT };
	return ret ? ret : ckf_gpud_send(gpud, &m, -1, err);
}

int ckf_gpu_process_save(struct ckf_gpu_process *p, int gpud, int dir_fd, struct ckf_error *err)
{
	int ret;

	/* A program may have freed all that it had. */
	if (!p->nr_mem || p->saved || p->save_sock >= 0)
		return 0;
	p->save_sock = ckf_gpud_join(gpud, err);
	if (p->save_sock < 0)
		return p->save_sock;
	ret = send_memory(p, p->save_sock, dir_fd, err);
	if (ret)
		end_save(p);
	return ret;
}

static int wait_save(struct ckf_gpu_process *p, struct ckf_error *err)
{
	const uint64_t end = ckf_now_ns() + CKF_GPUD_ANSWER_S * NS_PER_S;
	struct ckf_gpud_msg m;
	int ret = gpud_call_recv(p->save_sock, &m, end, err);

	end_save(p);
	return ret;
}

static int release_memory(struct ckf_gpu_process *p, struct ckf_error *err)
{
	/* From here on some of it may be away, whatever the answer is. */
	p->parked = true;
	return ckf_agent_ask(&p->agent, (struct ckf_agent_msg){ .op = CKF_AGENT_RELEASE }, err);
}

/* All that the agent is to map. It may map already. */
static int send_mapping(struct ckf_gpu_process *p, struct ckf_error *err)
{
	struct ckf_agent_msg m = { .op = CKF_AGENT_UNPARK };
	int ret;

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
	return ret ? ret : ckf_agent_send(&p->agent, &m, -1, err);
}

static int unpark(struct ckf_gpu_process *p, struct ckf_error *err)
{
	int ret = p->mapping ? 0 : send_mapping(p, err), end;

	if (p->mapping)
		ckf_agent_renew(&p->agent);
	p->mapping = false;
	if (!ret)
		ret = ckf_agent_done(&p->agent, err);
	end = ckf_agent_end(&p->agent, ret ? NULL : err);
	if (ret || end)
		return ret ? ret : end;
	p->parked = false;
	p->saved = false;
	drop_memory(p);
	return 0;
}

static int find_agent(struct ckf_gpu_process *p, struct ckf_error *err)
{
	int ret = ckf_agent_find(p->pid, &p->agent, err);

	p->has_agent = ret == 0;
	/* A restored process knows better than we do. */
	p->parked |= p->has_agent && p->agent.parked;
	return ret == -ENOENT ? 0 : ret;
}

static int close_gate(struct ckf_gpu_process *p, unsigned int timeout_ms, struct ckf_error *err)
{
	/* The rest is for the driver, and for the answer to be heard. */
	struct ckf_agent_msg m = { .op = CKF_AGENT_CLOSE, .bytes = timeout_ms / 10ull * 9 };
	int ret;

	if (p->agent.version < 2)
		return ckf_error_set(err, -EOPNOTSUPP,
				     "process %d was restored with an agent of an older ckfast, "
				     "which cannot take its memory away: start it anew",
				     (int)p->pid);
	ret = ckf_agent_begin(&p->agent, err);
	if (ret)
		return ret;
	p->agent.timeout_ms = timeout_ms;
	ret = ckf_agent_ask(&p->agent, m, err);
	p->agent.timeout_ms = 0;
	return ret;
}

static int lock_driver(struct ckf_gpu_process *p, int gpud, uint64_t end_ms, struct ckf_error *err)
{
	uint64_t now = ckf_now_ns() / NS_PER_MS;
	int ret = driver_call(&p->driver, gpud, CKF_GPUD_LOCK,
			      end_ms > now + MIN_LOCK_MS ? end_ms - now : MIN_LOCK_MS, NULL, err);

	p->driver.locked = !ret;
	return ret;
}

/* The gate is closed, and the driver has finished all work. */
static int take_away(struct ckf_gpu_process *p, int gpud, struct ckf_error *err)
{
	int ret = driver_lock(&p->driver, gpud, false, err);

	if (!ret)
		ret = take_memory(p, err);
	if (!ret)
		ret = release_memory(p, err);
	return ret ? ret : driver_lock(&p->driver, gpud, true, err);
}

/*
 * What a lock that failed has done is undone; the process runs. Where gpud has ended, it may have
 * locked the process and not have said so: the agent would wait in the driver, so the memory is
 * left with us until another gpud is asked.
 */
static void undo_lock(struct ckf_gpu_process *p, int gpud)
{
	uint64_t state = CU_PROCESS_STATE_FAILED;

	if (p->parked && driver_state(&p->driver, gpud, &state, NULL))
		return;
	p->driver.locked |= state == CU_PROCESS_STATE_LOCKED;
	driver_lock(&p->driver, gpud, false, NULL);
	if (p->parked)
		unpark(p, NULL);
	if (!p->parked)
		drop_memory(p);
}

int ckf_gpu_process_lock(struct ckf_gpu_process *p, int gpud, unsigned int timeout_ms,
			 struct ckf_error *err)
{
	const uint64_t end_ms = ckf_now_ns() / NS_PER_MS + timeout_ms;
	uint64_t state = CU_PROCESS_STATE_FAILED;
	int ret, end;

	ret = driver_state(&p->driver, gpud, &state, err);
	if (!ret)
		ret = find_agent(p, err);
	if (ret)
		return ret;
	if (state != CU_PROCESS_STATE_RUNNING || p->parked)
		return ckf_error_set(
			err, -EBUSY,
			"CUDA of process %d is %s already: ckfast unpark makes it go on",
			(int)p->pid,
			state == CU_PROCESS_STATE_LOCKED   ? "locked"
			: state == CU_PROCESS_STATE_FAILED ? "in a failed state"
							   : "suspended");
	if (p->has_agent)
		ret = close_gate(p, timeout_ms, err);
	if (!ret)
		ret = lock_driver(p, gpud, end_ms, err);
	if (!ret && p->has_agent)
		ret = take_away(p, gpud, err);
	/* With its memory in place, the gate opens here. */
	end = ckf_agent_end(&p->agent, ret ? NULL : err);
	if (ret || end)
		undo_lock(p, gpud);
	return ret ? ret : end;
}

int ckf_gpu_process_pair(struct ckf_gpu_process *p, const uint8_t old_uuid[16],
			 const uint8_t new_uuid[16], struct ckf_error *err)
{
	return driver_pair(&p->driver, old_uuid, new_uuid, err);
}

static int sleep_running(struct ckf_gpu_process *p, int gpud, struct ckf_error *err)
{
	return driver_sleep(&p->driver, gpud, err);
}

static int wake_running(struct ckf_gpu_process *p, int gpud, struct ckf_error *err)
{
	return driver_wake(&p->driver, gpud, err);
}

static int resume_running(struct ckf_gpu_process *p, int gpud, struct ckf_error *err)
{
	int ret = driver_wake(&p->driver, gpud, err);

	if (!ret && p->parked)
		ret = unpark(p, err);
	/* Where it is stuck, its agent's gate is closed, or the driver has it locked. */
	if (ret && (ret != -EDEADLK || (p->agent.version < 2 && !p->driver.is_stuck)))
		driver_lock(&p->driver, gpud, true, NULL);
	return ret;
}

/* Calls what with the driver's thread running, and stops it again if it was. */
static int with_restorer(struct ckf_gpu_process *p, int gpud,
			 int (*what)(struct ckf_gpu_process *p, int gpud, struct ckf_error *err),
			 struct ckf_error *err)
{
	int ret = driver_run(&p->driver, err), end;

	if (ret)
		return ret;
	ret = what(p, gpud, err);
	end = ckf_tracee_stop(&p->driver.thread, ret ? NULL : err);
	return ret ? ret : end;
}

static int adopt_running(struct ckf_gpu_process *p, int gpud, struct ckf_error *err)
{
	uint64_t state = CU_PROCESS_STATE_FAILED;
	int ret = driver_state(&p->driver, gpud, &state, err);

	if (!ret)
		ret = find_agent(p, err);
	if (ret)
		return ret;
	p->driver.suspended = state == CU_PROCESS_STATE_CHECKPOINTED;
	p->driver.locked = p->driver.suspended || state == CU_PROCESS_STATE_LOCKED;
	if (p->driver.locked || p->parked)
		return 0;
	return ckf_error_set(err, -EINVAL, "CUDA of process %d is not suspended", (int)p->pid);
}

int ckf_gpu_process_adopt(struct ckf_gpu_process *p, int gpud, struct ckf_error *err)
{
	/* The driver's thread answers this, too. */
	return with_restorer(p, gpud, adopt_running, err);
}

bool ckf_gpu_process_needs_memory(const struct ckf_gpu_process *p)
{
	return p->parked && !p->agent.kept;
}

/* From here on the images are all that is left of the memory, and the descriptors here. */
static int say_saved(struct ckf_gpu_process *p, struct ckf_error *err)
{
	int ret, end;

	if (p->agent.version < 3)
		return 0;
	ret = ckf_agent_begin(&p->agent, err);
	if (!ret)
		ret = ckf_agent_ask(&p->agent, (struct ckf_agent_msg){ .op = CKF_AGENT_SAVED },
				    err);
	end = ckf_agent_end(&p->agent, ret ? NULL : err);
	return ret ? ret : end;
}

static int save_all(struct ckf_gpu_process *p, int gpud, int dir_fd, struct ckf_error *err)
{
	int ret = ckf_gpu_process_save(p, gpud, dir_fd, err);

	/* There is nothing to save, or it was saved before. */
	if (ret || p->save_sock < 0)
		return ret;
	ret = wait_save(p, err);
	if (!ret)
		ret = say_saved(p, err);
	p->saved = !ret;
	return ret;
}

int ckf_gpu_process_begin_suspend(struct ckf_gpu_process *p, int gpud, int dir_fd,
				  struct ckf_error *err)
{
	int ret = save_all(p, gpud, dir_fd, err);

	if (!ret && p->driver.locked && !p->driver.suspended)
		driver_begin(&p->driver, gpud, CKF_GPUD_SUSPEND);
	return ret;
}

int ckf_gpu_process_suspend(struct ckf_gpu_process *p, int gpud, int dir_fd, struct ckf_error *err)
{
	int ret = save_all(p, gpud, dir_fd, err);

	return ret ? ret : with_restorer(p, gpud, sleep_running, err);
}

void ckf_gpu_process_begin_wake(struct ckf_gpu_process *p, int gpud)
{
	if (p->driver.suspended)
		driver_begin(&p->driver, gpud, CKF_GPUD_RESUME);
}

int ckf_gpu_process_wake(struct ckf_gpu_process *p, int gpud, struct ckf_error *err)
{
	return with_restorer(p, gpud, wake_running, err);
}

int ckf_gpu_process_sleep(struct ckf_gpu_process *p, int gpud, struct ckf_error *err)
{
	return with_restorer(p, gpud, sleep_running, err);
}

static bool has_ended(const struct ckf_gpu_process *p)
{
	struct pollfd fd = { .fd = p->pidfd, .events = POLLIN };

	return poll(&fd, 1, 0) == 1;
}

/* One try. It may be that the agent has gone on with what it was asked for, and done it. */
static int resume_late(struct ckf_gpu_process *p, int gpud, struct ckf_error *err)
{
	int ret;

	p->parked = false;
	ret = adopt_running(p, gpud, err);
	if (ret == -EINVAL)
		return 0;
	return ret ? ret : ckf_gpu_process_resume(p, gpud, err);
}

int ckf_gpu_process_resume_late(struct ckf_gpu_process *p, int gpud, struct ckf_error *err)
{
	const struct timespec pause = { .tv_nsec = LATE_PAUSE_NS };
	unsigned int tries = 0;
	struct ckf_error last;
	int ret;

	do {
		last = (struct ckf_error){ 0 };
		ret = resume_late(p, gpud, &last);
		if (!ret)
			return 0;
		if (has_ended(p))
			return ckf_error_set(err, -ESRCH, "process %d has ended", (int)p->pid);
		nanosleep(&pause, NULL);
		/* Nobody knows how long it stays stopped. */
	} while (ret == -EBUSY || ++tries < LATE_TRIES);
	return ckf_error_set(err, ret, "%s", last.msg);
}

void ckf_gpu_process_kill(const struct ckf_gpu_process *p)
{
	syscall(SYS_pidfd_send_signal, p->pidfd, SIGKILL, NULL, 0);
}

/* Agent and memory as a resume needs them. */
static int check_memory(struct ckf_gpu_process *p, struct ckf_error *err)
{
	int ret = find_agent(p, err);

	if (!ret && !p->parked && p->nr_mem)
		ret = ckf_error_set(err, -EBADMSG,
				    "process %d and the images of its device memory do not fit",
				    (int)p->pid);
	return ret;
}

void ckf_gpu_process_begin_resume(struct ckf_gpu_process *p)
{
	/* The agent needs a driver that is awake. */
	if (p->mapping || p->driver.locked || p->driver.suspended || check_memory(p, NULL) ||
	    !p->parked)
		return;
	if (send_mapping(p, NULL))
		ckf_agent_end(&p->agent, NULL);
	else
		p->mapping = true;
}

int ckf_gpu_process_resume(struct ckf_gpu_process *p, int gpud, struct ckf_error *err)
{
	int ret = p->mapping ? 0 : check_memory(p, err);

	stop_save(p);
	return ret ? ret : with_restorer(p, gpud, resume_running, err);
}
