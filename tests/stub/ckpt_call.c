/* SPDX-License-Identifier: MIT */
/*
 * The checkpoint calls, in the process that makes them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "ckpt.h"

#define POLL_NS 500000u
#define PIECE_BYTES 4096u

struct target {
	int pid;
	uint64_t addr; /* of its block; 0: not found */
	struct stub_block block;
	int tid; /* of its restore thread, as seen from here; 0: it has none */
};

static bool peek(int pid, uint64_t addr, void *out, size_t bytes)
{
	struct iovec here = { out, bytes }, there = { (void *)(uintptr_t)addr, bytes };

	return process_vm_readv(pid, &here, 1, &there, 1, 0) == (ssize_t)bytes;
}

static bool poke(int pid, uint64_t addr, const void *data, size_t bytes)
{
	struct iovec here = { (void *)(uintptr_t)data, bytes };
	struct iovec there = { (void *)(uintptr_t)addr, bytes };

	return process_vm_writev(pid, &here, 1, &there, 1, 0) == (ssize_t)bytes;
}

/* Looks for the block in a line of /proc/PID/maps: the library's writable data. */
static void find_in(const char *line, void *arg)
{
	_Alignas(STUB_BLOCK_ALIGN) char piece[PIECE_BYTES];
	struct target *t = arg;
	unsigned long long start, end;
	char prot[5];

	if (t->addr || !strstr(line, "/" CKF_CUDA_LIBRARY) ||
	    sscanf(line, "%llx-%llx %4s", &start, &end, prot) != 3 || strcmp(prot, "rw-p"))
		return;
	for (uint64_t at = start; at < end && !t->addr; at += PIECE_BYTES) {
		if (!peek(t->pid, at, piece, sizeof(piece)))
			return;
		for (size_t i = 0; i < PIECE_BYTES && !t->addr; i += STUB_BLOCK_ALIGN) {
			if (!memcmp(piece + i, STUB_BLOCK_MAGIC, sizeof(t->block.magic)))
				t->addr = at + i;
		}
	}
}

/* The last number is that in the process's own pid namespace. */
static void find_nspid(const char *line, void *arg)
{
	if (!strncmp(line, "NSpid:", 6))
		*(int *)arg = atoi(strrchr(line, '\t') + 1);
}

static bool check_thread(const char *name, void *arg)
{
	struct target *t = arg;
	char path[64];
	int tid = 0;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", t->pid, atoi(name));
	stub_scan_lines(path, find_nspid, &tid);
	if (tid == (int)t->block.tid)
		t->tid = atoi(name);
	return !t->tid;
}

/* NOT_INITIALIZED: a process without CUDA; INVALID_VALUE: no process. */
static CUresult open_target(int pid, struct target *t)
{
	char path[64];

	memset(t, 0, sizeof(*t));
	t->pid = pid;
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	if (pid <= 0 || access(path, F_OK))
		return CUDA_ERROR_INVALID_VALUE;
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	stub_scan_lines(path, find_in, t);
	if (!t->addr || !peek(pid, t->addr, &t->block, sizeof(t->block)) || !t->block.tid)
		return CUDA_ERROR_NOT_INITIALIZED;
	/* A child that was forked has the block, but no restore thread. */
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	stub_scan_dir(path, check_thread, t);
	return t->tid ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}

/* Until the restore thread has done what was asked for last. */
static bool wait_done(struct target *t)
{
	for (;;) {
		if (!peek(t->pid, t->addr, &t->block, sizeof(t->block)))
			return false;
		if (t->block.done == t->block.request)
			return true;
		stub_sleep_ns(POLL_NS);
	}
}

/* For as long as the thread needs, or is stopped: a timeout counts from when it takes up the call.
 */
static CUresult call(struct target *t)
{
	const struct stub_block want = t->block;
	const size_t from = offsetof(struct stub_block, op);
	uint32_t request;

	if (!wait_done(t))
		return CUDA_ERROR_UNKNOWN;
	request = t->block.request + 1;
	if (!poke(t->pid, t->addr + from, (const char *)&want + from, sizeof(want) - from) ||
	    !poke(t->pid, t->addr + offsetof(struct stub_block, request), &request,
		  sizeof(request)) ||
	    !wait_done(t))
		return CUDA_ERROR_UNKNOWN;
	return t->block.result;
}

static CUresult ask(int pid, enum stub_op op, unsigned int timeout_ms,
		    const CUcheckpointRestoreArgs *args)
{
	struct target t;
	CUresult res = open_target(pid, &t);

	if (res)
		return res;
	t.block.op = op;
	t.block.timeout_ms = timeout_ms;
	t.block.nr_pairs = args ? args->gpuPairsCount : 0;
	t.block.hw = *stub_env_hw();
	if (t.block.nr_pairs > STUB_MAX_GPUS || (t.block.nr_pairs && !args->gpuPairs))
		return CUDA_ERROR_INVALID_VALUE;
	for (uint32_t i = 0; i < t.block.nr_pairs; i++)
		t.block.pairs[i] = args->gpuPairs[i];
	return call(&t);
}

STUB_EXPORT CUresult cuCheckpointProcessLock(int pid, const CUcheckpointLockArgs *args)
{
	return STUB_CALL(cuCheckpointProcessLock,
			 ask(pid, STUB_OP_LOCK, args ? args->timeoutMs : 0, NULL));
}

STUB_EXPORT CUresult cuCheckpointProcessCheckpoint(int pid, const void *args)
{
	(void)args;
	return STUB_CALL(cuCheckpointProcessCheckpoint, ask(pid, STUB_OP_CHECKPOINT, 0, NULL));
}

STUB_EXPORT CUresult cuCheckpointProcessRestore(int pid, const CUcheckpointRestoreArgs *args)
{
	return STUB_CALL(cuCheckpointProcessRestore, ask(pid, STUB_OP_RESTORE, 0, args));
}

STUB_EXPORT CUresult cuCheckpointProcessUnlock(int pid, const void *args)
{
	(void)args;
	return STUB_CALL(cuCheckpointProcessUnlock, ask(pid, STUB_OP_UNLOCK, 0, NULL));
}

/* Answered by the restore thread, as with the real driver: without it, it does not come back. */
static CUresult get_state(int pid, int *state)
{
	struct target t;
	CUresult res = open_target(pid, &t);

	if (res)
		return res;
	t.block.op = STUB_OP_STATE;
	res = call(&t);
	if (!res)
		*state = (int)t.block.state;
	return res;
}

STUB_EXPORT CUresult cuCheckpointProcessGetState(int pid, int *state)
{
	return STUB_CALL(cuCheckpointProcessGetState, get_state(pid, state));
}

static CUresult get_tid(int pid, int *tid)
{
	struct target t;
	CUresult res = open_target(pid, &t);

	if (!res)
		*tid = t.tid;
	return res;
}

STUB_EXPORT CUresult cuCheckpointProcessGetRestoreThreadId(int pid, int *tid)
{
	return STUB_CALL(cuCheckpointProcessGetRestoreThreadId, get_tid(pid, tid));
}
