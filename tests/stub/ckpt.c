/* SPDX-License-Identifier: MIT */
/*
 * Checkpoints, in the process that they are made of: the restore thread.
 *
 * It is the only thread that works while a process is locked. After a checkpoint all device memory
 * is in private memory of the process, and there is no descriptor left, so that CRIU can dump it.
 */
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ckpt.h"

#define MS 1000000u
#define PIECE_BYTES (64u << 10)

static _Alignas(STUB_BLOCK_ALIGN) struct stub_block block = { .magic = STUB_BLOCK_MAGIC };

static void *pointer(uint64_t addr)
{
	return (void *)(uintptr_t)addr;
}

static bool read_at(int fd, char *out, off_t off, off_t end)
{
	while (off < end) {
		ssize_t n = pread(fd, out + off, (size_t)(end - off), off);

		if (n <= 0)
			return false;
		off += n;
	}
	return true;
}

/* Only what was ever written: the rest takes no memory and is zero. */
static bool save_file(const struct stub_mem *m)
{
	off_t at = 0, end;

	while ((at = lseek(m->fd, at, SEEK_DATA)) >= 0) {
		end = lseek(m->fd, at, SEEK_HOLE);
		if (end < 0 || !read_at(m->fd, m->saved, at, end))
			return false;
		at = end;
	}
	return true;
}

static bool save(struct stub_mem *m)
{
	const struct stub_map *map = stub.maps;

	m->saved = mmap(NULL, m->bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->saved == MAP_FAILED) {
		m->saved = NULL;
		return false;
	}
	if (m->fd >= 0)
		return save_file(m);
	while (map->mem != m)
		map = map->next;
	memcpy(m->saved, pointer(map->addr), map->mapped);
	return true;
}

static void forget_saved(void)
{
	for (struct stub_mem *m = stub.mems; m; m = m->next) {
		if (m->saved)
			munmap(m->saved, m->bytes);
		m->saved = NULL;
	}
}

/* Takes all device memory away; the addresses stay reserved. */
static void put_away(void)
{
	for (const struct stub_map *m = stub.maps; m; m = m->next)
		mmap(pointer(m->addr), m->mapped, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	for (struct stub_mem *m = stub.mems; m; m = m->next) {
		if (m->fd >= 0)
			close(m->fd);
		m->fd = -1;
	}
}

static CUresult checkpoint(void)
{
	for (struct stub_mem *m = stub.mems; m; m = m->next) {
		if (!save(m)) {
			forget_saved();
			return CUDA_ERROR_OUT_OF_MEMORY;
		}
	}
	put_away();
	if (stub.busy_fd >= 0)
		close(stub.busy_fd);
	stub.busy_fd = -1;
	return CUDA_SUCCESS;
}

static bool is_zero(const char *p, size_t bytes)
{
	return !*p && !memcmp(p, p + 1, bytes - 1);
}

static CUresult bring_back(struct stub_mem *m)
{
	const char *from = m->saved;
	CUresult res;

	m->fd = stub_memfd_new(stub.gpu[m->device], m->bytes, &res);
	if (m->fd < 0)
		return res;
	for (uint64_t at = 0; at < m->bytes; at += PIECE_BYTES) {
		size_t bytes = m->bytes - at < PIECE_BYTES ? m->bytes - at : PIECE_BYTES;

		if (!is_zero(from + at, bytes) &&
		    pwrite(m->fd, from + at, bytes, (off_t)at) != (ssize_t)bytes)
			return CUDA_ERROR_OUT_OF_MEMORY;
	}
	return CUDA_SUCCESS;
}

static CUresult bring_all_back(void)
{
	CUresult res = CUDA_SUCCESS;

	for (struct stub_mem *m = stub.mems; m && !res; m = m->next)
		res = bring_back(m);
	for (const struct stub_map *m = stub.maps; m && !res; m = m->next) {
		int prot = (m->read ? PROT_READ : 0) | (m->write ? PROT_WRITE : 0);

		if (mmap(pointer(m->addr), m->mapped, prot, MAP_SHARED | MAP_FIXED, m->mem->fd,
			 0) == MAP_FAILED)
			res = CUDA_ERROR_OUT_OF_MEMORY;
	}
	return res;
}

static bool device_used(int device)
{
	for (const struct CUctx_st *c = stub.ctxs; c; c = c->next) {
		if (c->live && c->device == device)
			return true;
	}
	for (const struct stub_mem *m = stub.mems; m; m = m->next) {
		if (m->device == device)
			return true;
	}
	return false;
}

/* The GPU of block.hw that stands for the one that a device was; -1: there is none. */
static int gpu_now(int device)
{
	CUuuid uuid = stub_gpu_uuid(&stub.hw, stub.gpu[device]);
	bool paired = false;

	for (uint32_t i = 0; i < block.nr_pairs && !paired; i++) {
		if (!memcmp(&block.pairs[i].oldUuid, &uuid, sizeof(uuid))) {
			uuid = block.pairs[i].newUuid;
			paired = true;
		}
	}
	if (block.nr_pairs && !paired)
		return -1;
	for (uint32_t i = 0; i < block.hw.nr_gpus; i++) {
		CUuuid now = stub_gpu_uuid(&block.hw, i);

		if (!memcmp(&now, &uuid, sizeof(now)))
			return (int)i;
	}
	return -1;
}

/* If pairs are given, each device in use must be among them, and get a GPU of its own. */
static CUresult restore(void)
{
	const struct stub_hw old_hw = stub.hw;
	uint32_t old[STUB_MAX_GPUS], new[STUB_MAX_GPUS], taken = 0;
	CUresult res;

	/* Memory of other processes was not taken along, as with the real driver. */
	for (const struct stub_mem *m = stub.mems; m; m = m->next) {
		if (m->imported)
			return CUDA_ERROR_NOT_SUPPORTED;
	}
	for (int i = 0; i < STUB_MAX_GPUS; i++) {
		int gpu = gpu_now(i);

		if (device_used(i)) {
			if (gpu < 0 || taken & 1u << gpu)
				return CUDA_ERROR_INVALID_VALUE;
			taken |= 1u << gpu;
		}
		new[i] = gpu < 0 ? (uint32_t)i : (uint32_t)gpu;
	}
	memcpy(old, stub.gpu, sizeof(old));
	memcpy(stub.gpu, new, sizeof(new));
	stub.hw = block.hw;
	res = bring_all_back();
	if (res) {
		put_away();
		memcpy(stub.gpu, old, sizeof(old));
		stub.hw = old_hw;
		return res;
	}
	forget_saved();
	for (struct stub_mem *m = stub.mems; m; m = m->next)
		stub_mem_trim(m);
	stub_busy_fd_open();
	return CUDA_SUCCESS;
}

/* Work that was submitted is done before the process counts as locked. */
static CUresult lock(void)
{
	uint64_t deadline = block.timeout_ms ? stub_now_ns() + (uint64_t)block.timeout_ms * MS
					     : UINT64_MAX;
	bool idle;

	if (!stub_gate_close(deadline))
		return CUDA_ERROR_NOT_READY;
	pthread_mutex_lock(&stub.lock);
	idle = stub_drain_until(deadline);
	pthread_mutex_unlock(&stub.lock);
	if (!idle)
		stub_gate_open();
	return idle ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

static const struct {
	uint32_t from;
	uint32_t to;
} transitions[] = {
	[STUB_OP_LOCK] = { CU_PROCESS_STATE_RUNNING, CU_PROCESS_STATE_LOCKED },
	[STUB_OP_CHECKPOINT] = { CU_PROCESS_STATE_LOCKED, CU_PROCESS_STATE_CHECKPOINTED },
	[STUB_OP_RESTORE] = { CU_PROCESS_STATE_CHECKPOINTED, CU_PROCESS_STATE_LOCKED },
	[STUB_OP_UNLOCK] = { CU_PROCESS_STATE_LOCKED, CU_PROCESS_STATE_RUNNING },
};

static CUresult serve(void)
{
	CUresult res = CUDA_SUCCESS;

	stub_heap_touch();
	if (block.op == STUB_OP_STATE)
		return CUDA_SUCCESS;
	if (block.op < STUB_OP_LOCK || block.op > STUB_OP_UNLOCK)
		return CUDA_ERROR_INVALID_VALUE;
	if (block.state != transitions[block.op].from)
		return CUDA_ERROR_ILLEGAL_STATE;
	if (block.op == STUB_OP_LOCK)
		res = lock();
	else if (block.op == STUB_OP_CHECKPOINT)
		res = checkpoint();
	else if (block.op == STUB_OP_RESTORE)
		res = restore();
	if (res)
		return res;
	__atomic_store_n(&block.state, transitions[block.op].to, __ATOMIC_SEQ_CST);
	if (block.op == STUB_OP_UNLOCK)
		stub_gate_open();
	return CUDA_SUCCESS;
}

/* Another process can change the futex but not wake it up: so this looks at it now and then. */
static void *restore_thread(void *arg)
{
	(void)arg;
	__atomic_store_n(&block.tid, (uint32_t)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	stub_futex_wake(&block.tid);
	for (;;) {
		uint32_t request = __atomic_load_n(&block.request, __ATOMIC_SEQ_CST);

		if (request == block.done) {
			stub_futex_wait(&block.request, request, MS);
			continue;
		}
		block.result = serve();
		__atomic_store_n(&block.done, request, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

CUresult stub_ckpt_start(void)
{
	if (!stub_thread_start(restore_thread, NULL))
		return CUDA_ERROR_OUT_OF_MEMORY;
	while (!__atomic_load_n(&block.tid, __ATOMIC_SEQ_CST))
		stub_futex_wait(&block.tid, 0, MS);
	return CUDA_SUCCESS;
}
