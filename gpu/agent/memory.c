/* SPDX-License-Identifier: MIT */
/*
 * The table, and allocations made with the virtual memory API in place of cuMemAlloc(): an address
 * range of their own that stays, and memory that can be taken from it.
 *
 * The table's lock is not held while the driver is called: a process may be stopped, for a
 * checkpoint, with threads that wait inside of the driver.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "format/ckf_gpu_dump.h"
#include "agent.h"

struct agent_table agent_table = { .lock = PTHREAD_MUTEX_INITIALIZER };

size_t agent_lower_bound(size_t nr, CUdeviceptr (*end)(size_t i), CUdeviceptr addr)
{
	size_t lo = 0, hi = nr;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (end(mid) <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

void *agent_grown(void *items, size_t nr, size_t *cap, size_t item_bytes)
{
	size_t more = *cap ? *cap * 2 : 64;

	if (nr < *cap)
		return items;
	items = realloc(items, more * item_bytes);
	if (items)
		*cap = more;
	return items;
}

static CUdeviceptr alloc_end(size_t i)
{
	return agent_table.allocs[i].addr + agent_table.allocs[i].bytes;
}

static size_t lower_bound(CUdeviceptr addr)
{
	return agent_lower_bound(agent_table.nr, alloc_end, addr);
}

static struct agent_alloc *find_locked(CUdeviceptr addr)
{
	size_t i = lower_bound(addr);

	if (i == agent_table.nr || agent_table.allocs[i].addr > addr)
		return NULL;
	return &agent_table.allocs[i];
}

struct agent_alloc *agent_at(CUdeviceptr addr)
{
	struct agent_alloc *a = find_locked(addr);

	return a && a->addr == addr ? a : NULL;
}

bool agent_insert(const struct agent_alloc *a)
{
	struct agent_alloc *allocs;
	bool noted = true;

	pthread_mutex_lock(&agent_table.lock);
	allocs = agent_grown(agent_table.allocs, agent_table.nr, &agent_table.cap, sizeof(*a));
	if (allocs) {
		size_t i = lower_bound(a->addr);

		agent_table.allocs = allocs;
		memmove(&allocs[i + 1], &allocs[i], (agent_table.nr - i) * sizeof(*a));
		allocs[i] = *a;
		agent_table.nr++;
		allocs[i].share = 0;
		if ((a->exported || a->imported) && a->fd >= 0)
			noted = agent_share_add(&allocs[i]);
		if (!noted)
			agent_remove(&allocs[i]);
	}
	pthread_mutex_unlock(&agent_table.lock);
	return allocs && noted;
}

void agent_remove(struct agent_alloc *a)
{
	size_t i = (size_t)(a - agent_table.allocs);

	agent_share_remove(a);
	memmove(a, a + 1, (agent_table.nr - i - 1) * sizeof(*a));
	agent_table.nr--;
}

CUresult agent_map(const struct ckf_cuda *cu, struct agent_alloc *a)
{
	CUmemAccessDesc access[AGENT_MAX_DEVICES];
	uint64_t peers = atomic_load(&agent_table.peers[a->device]) | 1ull << a->device;
	size_t nr = 0;
	CUresult res;

	if (agent_is_handle(a->addr)) {
		a->mapped = true; /* agent_map_views() does it */
		return CUDA_SUCCESS;
	}
	for (int dev = 0; dev < AGENT_MAX_DEVICES; dev++) {
		if (!(peers >> dev & 1))
			continue;
		access[nr].location.type = CU_MEM_LOCATION_TYPE_DEVICE;
		access[nr].location.id = dev;
		access[nr++].flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
	}
	res = cu->mem_map(a->addr, a->bytes, 0, a->handle, 0);
	if (res)
		return res;
	res = cu->mem_set_access(a->addr, a->bytes, access, nr);
	if (res)
		cu->mem_unmap(a->addr, a->bytes);
	else
		a->mapped = true;
	return res;
}

CUresult agent_unmap(const struct ckf_cuda *cu, struct agent_alloc *a)
{
	CUresult res = CUDA_SUCCESS;

	if (a->mapped && !agent_is_handle(a->addr))
		res = cu->mem_unmap(a->addr, a->bytes);
	if (res)
		return res;
	a->mapped = false;
	if (a->held)
		res = cu->mem_release(a->handle);
	if (res)
		return res;
	a->held = false;
	return CUDA_SUCCESS;
}

void agent_close_fd(struct agent_alloc *a)
{
	const int fd = a->fd;

	a->fd = -1;
	a->kept = false;
	/* Others must not take another descriptor of that number for it. */
	agent_share_update(a);
	if (fd >= 0)
		close(fd);
}

int agent_keep_fd(int fd)
{
	int high = fcntl(fd, F_DUPFD_CLOEXEC, AGENT_KEEP_FD);

	if (high < 0)
		return fd;
	close(fd);
	return high;
}

CUresult agent_discard(const struct ckf_cuda *cu, struct agent_alloc *a)
{
	CUresult res = agent_unmap(cu, a);

	if (!res)
		agent_close_fd(a);
	return res;
}

/* For memory that is not in the table. */
static CUresult destroy(const struct ckf_cuda *cu, struct agent_alloc *a)
{
	CUresult res = agent_discard(cu, a);

	if (!res)
		cu->mem_address_free(a->addr, a->bytes);
	return res;
}

/* Takes the allocation at addr out of the table. */
static bool take(CUdeviceptr addr, struct agent_alloc *out)
{
	struct agent_alloc *a;

	pthread_mutex_lock(&agent_table.lock);
	a = agent_at(addr);
	if (a) {
		*out = *a;
		agent_remove(a);
	}
	pthread_mutex_unlock(&agent_table.lock);
	return a != NULL;
}

static bool rdma_capable(const struct ckf_cuda *cu, CUdevice dev)
{
	int yes = 0;

	return !cu->device_get_attribute(
		       &yes, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED, dev) &&
	       yes;
}

static CUresult create(const struct ckf_cuda *cu, struct agent_alloc *a)
{
	CUmemAllocationProp prop = {
		.type = CU_MEM_ALLOCATION_TYPE_PINNED,
		.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
		.location = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = a->device },
	};
	CUresult res;

	if (rdma_capable(cu, a->device)) {
		prop.allocFlags.gpuDirectRDMACapable = 1;
		a->flags |= CKF_GPU_ALLOC_RDMA;
	}
	res = cu->mem_address_reserve(&a->addr, a->bytes, AGENT_GRAIN, 0, 0);
	if (res)
		return res;
	res = cu->mem_create(&a->handle, a->bytes, &prop, 0);
	if (res) {
		cu->mem_address_free(a->addr, a->bytes);
		return res;
	}
	a->held = true;
	res = agent_map(cu, a);
	if (res)
		destroy(cu, a);
	return res;
}

CUresult agent_alloc(const struct ckf_cuda *cu, size_t bytes, CUdeviceptr *out)
{
	struct agent_alloc a = { .asked = bytes, .fd = -1 };
	CUresult res;

	if (bytes > SIZE_MAX - AGENT_GRAIN)
		return CUDA_ERROR_OUT_OF_MEMORY;
	a.bytes = (bytes + AGENT_GRAIN - 1) & ~(size_t)(AGENT_GRAIN - 1);
	res = cu->ctx_get_current(&a.ctx);
	if (!res)
		res = cu->ctx_get_device(&a.device);
	if (res)
		return res;
	if (a.device < 0 || a.device >= AGENT_MAX_DEVICES)
		return CUDA_ERROR_NOT_SUPPORTED;
	res = create(cu, &a);
	if (res)
		return res;
	if (!agent_insert(&a)) {
		destroy(cu, &a);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	*out = a.addr;
	return CUDA_SUCCESS;
}

CUresult agent_free(const struct ckf_cuda *cu, CUdeviceptr addr, bool *ours)
{
	struct agent_alloc a;
	CUresult res;

	*ours = agent_find(addr, &a) && a.addr == addr;
	if (!*ours)
		return CUDA_SUCCESS;
	/* It has a call of its own for that. */
	if (a.imported)
		return CUDA_ERROR_INVALID_VALUE;
	/* Like cuMemFree(): nothing on the device still uses the memory afterwards. */
	res = cu->ctx_synchronize();
	if (res)
		return res;
	return agent_forget(cu, addr);
}

CUresult agent_forget(const struct ckf_cuda *cu, CUdeviceptr addr)
{
	struct agent_alloc a;
	CUresult res;

	if (!take(addr, &a))
		return CUDA_ERROR_INVALID_VALUE;
	res = destroy(cu, &a);
	if (res)
		agent_insert(&a);
	return res;
}

CUresult agent_map_import(const struct ckf_cuda *cu, struct agent_alloc *a)
{
	CUresult res = cu->mem_address_reserve(&a->addr, a->bytes, AGENT_GRAIN, 0, 0);

	if (res) {
		agent_discard(cu, a);
		return res;
	}
	res = agent_map(cu, a);
	if (!res && !agent_insert(a))
		res = CUDA_ERROR_OUT_OF_MEMORY;
	if (res)
		destroy(cu, a);
	return res;
}

bool agent_find(CUdeviceptr addr, struct agent_alloc *out)
{
	struct agent_alloc *a;

	pthread_mutex_lock(&agent_table.lock);
	a = find_locked(addr);
	if (a)
		*out = *a;
	pthread_mutex_unlock(&agent_table.lock);
	return a != NULL;
}

/* The application's own memory outlives the context. */
static bool find_of_context(CUcontext ctx, CUdeviceptr *addr)
{
	pthread_mutex_lock(&agent_table.lock);
	for (size_t i = 0; i < agent_table.nr && !*addr; i++) {
		struct agent_alloc *a = &agent_table.allocs[i];

		if (a->ctx != ctx)
			continue;
		if (agent_is_handle(a->addr))
			a->ctx = NULL;
		else
			*addr = a->addr;
	}
	pthread_mutex_unlock(&agent_table.lock);
	return *addr != 0;
}

void agent_drop_context(const struct ckf_cuda *cu, CUcontext ctx)
{
	struct agent_alloc a;
	CUdeviceptr addr = 0;

	while (find_of_context(ctx, &addr)) {
		if (take(addr, &a))
			destroy(cu, &a);
		addr = 0;
	}
}

/* The first allocation of a device at or above *addr, which then is where it begins. */
static bool next_of_device(CUdevice owner, CUdeviceptr *addr, size_t *bytes)
{
	bool found = false;

	pthread_mutex_lock(&agent_table.lock);
	for (size_t i = lower_bound(*addr); i < agent_table.nr && !found; i++) {
		const struct agent_alloc *a = &agent_table.allocs[i];

		if (a->device != owner || agent_is_handle(a->addr))
			continue;
		*addr = a->addr;
		*bytes = a->bytes;
		found = true;
	}
	pthread_mutex_unlock(&agent_table.lock);
	return found;
}

CUresult agent_set_peer(const struct ckf_cuda *cu, CUdevice owner, CUdevice device, bool on)
{
	CUmemAccessDesc access = {
		.location = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device },
		.flags = on ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : 0,
	};
	CUdeviceptr addr = 0;
	size_t bytes = 0;
	CUresult res = CUDA_SUCCESS;

	if (owner < 0 || owner >= AGENT_MAX_DEVICES || device < 0 || device >= AGENT_MAX_DEVICES)
		return CUDA_ERROR_NOT_SUPPORTED;
	/* Allocations that are made from here on ask for it themselves. */
	if (on)
		atomic_fetch_or(&agent_table.peers[owner], 1ull << device);
	else
		atomic_fetch_and(&agent_table.peers[owner], ~(1ull << device));
	for (; owner != device && !res && next_of_device(owner, &addr, &bytes); addr += bytes) {
		struct agent_alloc a;

		res = cu->mem_set_access(addr, bytes, &access, 1);
		/* Freed by another thread meanwhile. */
		if (res && !(agent_find(addr, &a) && a.addr == addr))
			res = CUDA_SUCCESS;
	}
	return res;
}
