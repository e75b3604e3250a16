/* SPDX-License-Identifier: MIT */
/*
 * CUDA IPC of the fake driver: memory of cuMemAlloc() that other processes open by a handle of 64
 * bytes, and events. A handle names the descriptor of the memory in the process that it is from.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "stub.h"

#define MEM_MAGIC 0x6d656d637069ull
#define EVENT_MAGIC 0x766563706975ull

struct handle {
	uint64_t magic;
	int32_t pid;
	int32_t fd;
	uint64_t inode;
	uint64_t bytes;
	uint64_t event;
	uint64_t reserved[3];
};

_Static_assert(sizeof(struct handle) == sizeof(CUipcMemHandle), "a handle");

static void *pointer(uint64_t addr)
{
	return (void *)(uintptr_t)addr;
}

/* Small memory has no descriptor: it moves to memory that has one. */
static CUresult need_fd(struct stub_map *map)
{
	struct stub_mem *m = map->mem;
	CUresult res = CUDA_SUCCESS;
	int fd;

	if (m->fd >= 0)
		return CUDA_SUCCESS;
	fd = stub_memfd_new(stub.gpu[m->device], m->bytes, &res);
	if (fd < 0)
		return res;
	if (pwrite(fd, pointer(map->addr), m->bytes, 0) != (ssize_t)m->bytes ||
	    mmap(pointer(map->addr), map->mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		 fd, 0) == MAP_FAILED) {
		close(fd);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	m->fd = fd;
	return CUDA_SUCCESS;
}

/* Memory of the virtual memory API has no such handle, and what was opened has none again. */
static CUresult mem_handle(void *out, uint64_t ptr)
{
	struct handle h = { .magic = MEM_MAGIC, .pid = getpid() };
	struct stub_map *m;
	struct stat st;
	CUresult res;

	stub_drain_ctx(NULL);
	m = stub_map_find(ptr);
	if (!m || !m->ctx || m->mem->imported || !out)
		return CUDA_ERROR_INVALID_VALUE;
	res = need_fd(m);
	if (res || fstat(m->mem->fd, &st))
		return res ? res : CUDA_ERROR_UNKNOWN;
	h.fd = m->mem->fd;
	h.inode = st.st_ino;
	h.bytes = m->bytes;
	memcpy(out, &h, sizeof(h));
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuIpcGetMemHandle(CUipcMemHandle *out, CUdeviceptr ptr)
{
	return STUB_LOCKED(cuIpcGetMemHandle, mem_handle(out, ptr));
}

static struct stub_map *opened(uint64_t inode)
{
	struct stub_map *m = stub.maps;
	struct stat st;

	while (m && (!m->mem->opens || fstat(m->mem->fd, &st) || st.st_ino != inode))
		m = m->next;
	return m;
}

static CUresult open_new(CUdeviceptr *out, const struct handle *h)
{
	struct stub_mem *mem;
	char path[64];
	struct stat st;
	CUresult res = CUDA_ERROR_INVALID_VALUE;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", h->pid, h->fd);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0 && !fstat(fd, &st) && st.st_ino == h->inode)
		res = stub_mem_import(fd, &mem);
	if (!res)
		res = stub_map_plain(mem, h->bytes, stub_ctx(), out);
	if (!res)
		mem->opens = 1;
	if (fd >= 0)
		close(fd);
	return res;
}

static CUresult open_handle(CUdeviceptr *out, const void *handle, unsigned int flags)
{
	struct stub_map *m;
	struct handle h;

	memcpy(&h, handle, sizeof(h));
	if (!out || h.magic != MEM_MAGIC || flags != CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS)
		return CUDA_ERROR_INVALID_VALUE;
	if (h.pid == getpid())
		return CUDA_ERROR_INVALID_CONTEXT;
	m = opened(h.inode);
	if (!m)
		return open_new(out, &h);
	m->mem->opens++;
	*out = m->addr;
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *out, CUipcMemHandle handle,
					   unsigned int flags)
{
	return STUB_LOCKED(cuIpcOpenMemHandle_v2, open_handle(out, &handle, flags));
}

static CUresult close_handle(uint64_t ptr)
{
	struct stub_map *m;

	stub_drain_ctx(NULL);
	m = stub_map_find(ptr);
	if (!m || m->addr != ptr || !m->mem->opens)
		return CUDA_ERROR_INVALID_VALUE;
	if (!--m->mem->opens)
		stub_map_free(m);
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuIpcCloseMemHandle(CUdeviceptr ptr)
{
	return STUB_LOCKED(cuIpcCloseMemHandle, close_handle(ptr));
}

static CUresult event_handle(void *out, CUevent event)
{
	struct handle h = { .magic = EVENT_MAGIC, .pid = getpid(), .event = (uintptr_t)event };
	const struct CUevent_st *e = stub_event_of(event);

	if (!e)
		return STUB_ERROR_INVALID_HANDLE;
	if (!out || !(e->flags & CU_EVENT_INTERPROCESS))
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(out, &h, sizeof(h));
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuIpcGetEventHandle(CUipcEventHandle *out, CUevent event)
{
	return STUB_LOCKED(cuIpcGetEventHandle, event_handle(out, event));
}

/* What is recorded in one process is not seen in the other: its event counts as reached. */
static CUresult open_event(CUevent *out, const void *handle)
{
	struct handle h;

	memcpy(&h, handle, sizeof(h));
	if (!out || h.magic != EVENT_MAGIC)
		return CUDA_ERROR_INVALID_VALUE;
	return stub_event_new(out, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING);
}

STUB_EXPORT CUresult cuIpcOpenEventHandle(CUevent *out, CUipcEventHandle handle)
{
	return STUB_LOCKED(cuIpcOpenEventHandle, open_event(out, &handle));
}
