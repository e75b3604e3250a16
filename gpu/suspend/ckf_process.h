/* SPDX-License-Identifier: MIT */
/*
 * Device memory of a running process: taken away before it is dumped, given back afterwards.
 *
 * The order of a dump: open and lock while the process runs; then, if it likes, the caller stops
 * all its threads with ptrace; then suspend. Afterwards resume, or let the process be killed.
 * Single threads that the caller has stopped are let run where the driver or the agent has work to
 * do, and are stopped again when a call returns, however it ends.
 *
 * All calls are for the thread that traces the process, if any does. gpud is a socket of
 * ckf_gpud_connect().
 *
 * A thread may be stopped while it has a lock that the driver or the agent needs, as that of an
 * arena of malloc(). Suspend, resume, wake, sleep and adopt then end with -EDEADLK after seconds,
 * and the socket gpud is not to be used any more: a call is under way on it. The process keeps all
 * that it has; ckf_gpu_process_resume_late() does the rest.
 */
#ifndef CKF_PROCESS_H
#define CKF_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/ckf_error.h"

struct ckf_gpu_process;

/* An allocation, with a descriptor of its memory, owned by whoever has the struct. */
struct ckf_gpu_memory {
	uint64_t addr;
	uint64_t bytes;
	uint32_t device; /* ordinal in the process */
	uint32_t flags;	 /* CKF_GPU_ALLOC_ */
	uint8_t uuid[16];
	int fd;
};

/* -ESRCH when the process does not use CUDA. The process may run. */
int ckf_gpu_process_open(pid_t pid, int gpud, struct ckf_gpu_process **out, struct ckf_error *err);

/* Closes the descriptors of memory that was taken and not given back, which frees it. Takes NULL.
 */
void ckf_gpu_process_close(struct ckf_gpu_process *p);

pid_t ckf_gpu_process_pid(const struct ckf_gpu_process *p);

/* Whether it has memory of another process, as far as its agent knows: the driver cannot restore
 * it. It may run, and have no agent, and then nobody knows. */
bool ckf_gpu_process_has_imports(pid_t pid);

/* The pid in the innermost pid namespace, which images are named by. 0, or -errno. */
int ckf_gpu_image_pid(pid_t pid, uint32_t *image_pid, struct ckf_error *err);

/*
 * From here on calls of CUDA wait; returns when no thread is in one, all work is done and the
 * memory of the agent's allocations is away. The memory itself stays alive, in descriptors here,
 * until close. When it fails the process is as before; -EBUSY: somebody else has locked or
 * suspended it.
 */
int ckf_gpu_process_lock(struct ckf_gpu_process *p, int gpud, unsigned int timeout_ms,
			 struct ckf_error *err);

/*
 * Locked, and stopped or not: writes the memory that was taken away to images in dir_fd and lets
 * the driver put the rest into host memory. When it fails the process is to be resumed.
 */
int ckf_gpu_process_suspend(struct ckf_gpu_process *p, int gpud, int dir_fd, struct ckf_error *err);

/* The driver's part of what suspend and lock did, the other way round; then resume does the rest.
 */
int ckf_gpu_process_wake(struct ckf_gpu_process *p, int gpud, struct ckf_error *err);

/* The opposite of wake: the process is locked, and suspended by the driver, as it was before. */
int ckf_gpu_process_sleep(struct ckf_gpu_process *p, int gpud, struct ckf_error *err);

/*
 * The opposite of suspend and lock, whichever of them happened: with the memory that was taken, or
 * with what ckf_gpu_process_give() brought. When memory could not be given back the process is
 * locked again: it waits at its next call of CUDA, and this may be tried again.
 */
int ckf_gpu_process_resume(struct ckf_gpu_process *p, int gpud, struct ckf_error *err);

/*
 * Resume after -EDEADLK, from a process that does not trace it: waits, for as long as the process
 * is stopped, and gives it what it has to have when it runs. Until then it waits at its next call
 * of CUDA. -ESRCH when it ends before that.
 */
int ckf_gpu_process_resume_late(struct ckf_gpu_process *p, int gpud, struct ckf_error *err);
void ckf_gpu_process_kill(const struct ckf_gpu_process *p);

/* A process that somebody else has suspended, or that was restored: asks the driver how it is. */
int ckf_gpu_process_adopt(struct ckf_gpu_process *p, int gpud, struct ckf_error *err);

/* Of an adopted one: memory of the agent's allocations is away, was saved, and has to be given.
 * What was not saved before whoever took it has died, the agent still has. */
bool ckf_gpu_process_needs_memory(const struct ckf_gpu_process *p);

/*
 * Memory for an adopted process: m's, whose descriptor is then ours. It may be given after wake,
 * which takes time that memory can be filled in.
 */
int ckf_gpu_process_give(struct ckf_gpu_process *p, const struct ckf_gpu_memory *m,
			 struct ckf_error *err);

/* For wake and resume: the driver is to use another device, with another UUID, in place of one. */
int ckf_gpu_process_pair(struct ckf_gpu_process *p, const uint8_t old_uuid[16],
			 const uint8_t new_uuid[16], struct ckf_error *err);

/* Sums for messages. */
uint64_t ckf_gpu_process_bytes(const struct ckf_gpu_process *p);

#endif
