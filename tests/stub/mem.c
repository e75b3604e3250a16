/* SPDX-License-Identifier: MIT */
/*
 * Device memory of the fake driver: cuMemAlloc() and the virtual memory API.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "stub.h"

#define PITCH_ALIGN 512u
#define KEEP_FD_BYTES STUB_GRANULARITY /* smaller plain memory needs no descriptor */

static struct stub_pool mem_pool = { .size = sizeof(struct stub_mem) };
static struct stub_pool map_pool = { .size = sizeof(struct stub_map) };
static struct stub_pool range_pool = { .size = sizeof(struct stub_range) };

static uint64_t round_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

static void *pointer(uint64_t addr)
{
	return (void *)(uintptr_t)addr;
}

/*
 * Zeroed memory on a GPU, or -1 and why not. It is made before it is counted: of two processes
 * that ask for the last of it at the same time both may be refused, never both served.
 */
int stub_memfd_new(uint32_t gpu, uint64_t bytes, CUresult *res)
{
	char name[64];
	int fd;

	*res = CUDA_ERROR_OUT_OF_MEMORY;
	if (bytes > stub.hw.gpu_bytes)
		return -1;
	stub_scan_name(name, sizeof(name), gpu, stub_env_id());
	fd = memfd_create(name, MFD_CLOEXEC);
	if (fd < 0)
		return -1;
	if (ftruncate(fd, (off_t)bytes) || stub_scan_used(gpu, stub_env_id()) > stub.hw.gpu_bytes) {
		close(fd);
		return -1;
	}
	*res = CUDA_SUCCESS;
	return fd;
}

/* PROT_NONE memory: at addr exactly if fixed, else near it. 0: not to be had. */
static uint64_t reserve(uint64_t addr, uint64_t bytes, uint64_t align, bool fixed)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	uint64_t at, start;
	void *p;

	if (addr) {
		p = mmap(pointer(addr), bytes, PROT_NONE,
			 flags | (fixed ? MAP_FIXED : MAP_FIXED_NOREPLACE), -1, 0);
		if (p == pointer(addr))
			return addr;
		if (p != MAP_FAILED)
			munmap(p, bytes);
	}
	p = mmap(NULL, bytes + align, PROT_NONE, flags, -1, 0);
	if (p == MAP_FAILED)
		return 0;
	start = (uint64_t)(uintptr_t)p;
	at = round_up(start, align);
	if (at > start)
		munmap(p, at - start);
	munmap(pointer(at + bytes), start + align - at);
	return at;
}

static CUresult mem_new(int device, uint64_t bytes, struct stub_mem **out)
{
	struct stub_mem *m = stub_pool_get(&mem_pool);
	CUresult res;

	if (!m)
		return CUDA_ERROR_OUT_OF_MEMORY;
	m->fd = stub_memfd_new(stub.gpu[device], bytes, &res);
	if (m->fd < 0) {
		stub_pool_put(&mem_pool, m);
		return res;
	}
	m->device = device;
	m->bytes = bytes;
	m->next = stub.mems;
	stub.mems = m;
	*out = m;
	return CUDA_SUCCESS;
}

static void mem_put(struct stub_mem *m)
{
	struct stub_mem **at = &stub.mems;

	if (m->refs || m->maps)
		return;
	while (*at != m)
		at = &(*at)->next;
	*at = m->next;
	if (m->fd >= 0)
		close(m->fd);
	stub_pool_put(&mem_pool, m);
}

static struct stub_mem *mem_of(uint64_t handle)
{
	struct stub_mem *m = stub.mems;

	while (m && (m->handle != handle || !m->refs))
		m = m->next;
	return handle ? m : NULL;
}

struct stub_map *stub_map_find(uint64_t addr)
{
	struct stub_map *m = stub.maps;

	while (m && (addr < m->addr || addr - m->addr >= m->bytes))
		m = m->next;
	return m;
}

/* May the device, or the one that the memory is on, use this range? It may span mappings. */
bool stub_range_ok(uint64_t addr, uint64_t bytes, int device, bool write)
{
	while (bytes) {
		const struct stub_map *m = stub_map_find(addr);
		uint64_t part;

		if (!m || !((write ? m->write : m->read) & (1u << device | 1u << m->mem->device)))
			return false;
		part = m->addr + m->bytes - addr;
		if (part > bytes)
			part = bytes;
		addr += part;
		bytes -= part;
	}
	return true;
}

struct stub_range *stub_range_find(struct stub_range *list, uint64_t addr)
{
	while (list && (addr < list->addr || addr - list->addr >= list->bytes))
		list = list->next;
	return list;
}

bool stub_is_device(uint64_t addr)
{
	return stub_map_find(addr) || stub_range_find(stub.reserved, addr);
}

static CUresult map_new(uint64_t addr, uint64_t bytes, struct stub_mem *mem, int prot)
{
	struct stub_map *m = stub_pool_get(&map_pool);
	const uint64_t mapped = round_up(bytes, STUB_PAGE);

	if (!m)
		return CUDA_ERROR_OUT_OF_MEMORY;
	if (mmap(pointer(addr), mapped, prot, MAP_SHARED | MAP_FIXED, mem->fd, 0) == MAP_FAILED) {
		stub_pool_put(&map_pool, m);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	m->addr = addr;
	m->bytes = bytes;
	m->mapped = mapped;
	m->mem = mem;
	m->id = stub.next_id++;
	m->next = stub.maps;
	stub.maps = m;
	mem->maps++;
	return CUDA_SUCCESS;
}

/* Plain memory takes its addresses along. */
void stub_map_free(struct stub_map *m)
{
	struct stub_map **at = &stub.maps;

	while (*at != m)
		at = &(*at)->next;
	*at = m->next;
	if (m->ctx)
		munmap(pointer(m->addr), m->mapped);
	else
		reserve(m->addr, m->mapped, STUB_PAGE, true);
	m->mem->maps--;
	mem_put(m->mem);
	stub_pool_put(&map_pool, m);
}

void stub_mem_free_ctx(struct CUctx_st *ctx)
{
	struct stub_map *m = stub.maps;

	while (m) {
		struct stub_map *next = m->next;

		if (m->ctx == ctx)
			stub_map_free(m);
		m = next;
	}
}

void stub_mem_trim(struct stub_mem *m)
{
	if (!m->handle && m->bytes < KEEP_FD_BYTES) {
		close(m->fd);
		m->fd = -1;
	}
}

/* Where there are addresses for it; it goes away with the context. Unused memory is freed if there
 * are none. */
CUresult stub_map_plain(struct stub_mem *mem, uint64_t bytes, struct CUctx_st *ctx,
			CUdeviceptr *out)
{
	const uint64_t mapped = round_up(bytes, STUB_PAGE);
	const uint64_t align = bytes >= STUB_GRANULARITY ? STUB_GRANULARITY : STUB_PAGE;
	const uint64_t addr = reserve(0, mapped, align, false);
	CUresult res = CUDA_ERROR_OUT_OF_MEMORY;

	if (addr)
		res = map_new(addr, bytes, mem, PROT_READ | PROT_WRITE);
	if (res) {
		mem_put(mem);
		if (addr)
			munmap(pointer(addr), mapped);
		return res;
	}
	stub.maps->ctx = ctx;
	stub.maps->read = stub.maps->write = ~0u;
	*out = addr;
	return CUDA_SUCCESS;
}

static CUresult plain_alloc(CUdeviceptr *out, uint64_t bytes)
{
	struct CUctx_st *ctx = stub_ctx();
	struct stub_mem *mem;
	CUresult res;

	if (!out || !bytes)
		return CUDA_ERROR_INVALID_VALUE;
	if (bytes > stub.hw.gpu_bytes)
		return CUDA_ERROR_OUT_OF_MEMORY;
	res = mem_new(ctx->device, round_up(bytes, STUB_PAGE), &mem);
	if (!res)
		res = stub_map_plain(mem, bytes, ctx, out);
	if (!res)
		stub_mem_trim(mem);
	return res;
}

/* Waits for the device, as the real one does. */
static CUresult plain_free(CUdeviceptr ptr, CUstream stream)
{
	struct stub_map *m;

	(void)stream;
	if (!ptr)
		return CUDA_SUCCESS;
	stub_drain_ctx(NULL);
	m = stub_map_find(ptr);
	if (!m || !m->ctx || m->addr != ptr || m->mem->imported)
		return CUDA_ERROR_INVALID_VALUE;
	stub_map_free(m);
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *out, size_t bytes)
{
	return STUB_LOCKED(cuMemAlloc_v2, plain_alloc(out, bytes));
}

STUB_EXPORT CUresult cuMemFree_v2(CUdeviceptr ptr)
{
	return STUB_LOCKED(cuMemFree_v2, plain_free(ptr, NULL));
}

STUB_EXPORT CUresult cuMemAllocAsync(CUdeviceptr *out, size_t bytes, CUstream stream)
{
	(void)stream;
	return STUB_LOCKED(cuMemAllocAsync, plain_alloc(out, bytes));
}

STUB_EXPORT CUresult cuMemFreeAsync(CUdeviceptr ptr, CUstream stream)
{
	return STUB_LOCKED(cuMemFreeAsync, plain_free(ptr, stream));
}

static CUresult alloc_pitch(CUdeviceptr *out, size_t *pitch, size_t width, size_t height,
			    unsigned int element)
{
	uint64_t bytes;

	if (!pitch || !width || (element != 4 && element != 8 && element != 16))
		return CUDA_ERROR_INVALID_VALUE;
	*pitch = round_up(width, PITCH_ALIGN);
	if (__builtin_mul_overflow(*pitch, height, &bytes))
		return CUDA_ERROR_OUT_OF_MEMORY;
	return plain_alloc(out, bytes);
}

STUB_EXPORT CUresult cuMemAllocPitch_v2(CUdeviceptr *out, size_t *pitch, size_t width,
					size_t height, unsigned int element)
{
	return STUB_LOCKED(cuMemAllocPitch_v2, alloc_pitch(out, pitch, width, height, element));
}

static bool aligned(uint64_t n)
{
	return n % STUB_GRANULARITY == 0;
}

static CUresult address_reserve(CUdeviceptr *out, uint64_t bytes, uint64_t align, uint64_t addr)
{
	struct stub_range *r;

	if (!out || !bytes || !aligned(bytes) || !aligned(addr) || (align & (align - 1)))
		return CUDA_ERROR_INVALID_VALUE;
	r = stub_pool_get(&range_pool);
	if (!r)
		return CUDA_ERROR_OUT_OF_MEMORY;
	r->bytes = bytes;
	r->addr = reserve(addr, bytes, align > STUB_GRANULARITY ? align : STUB_GRANULARITY, false);
	if (!r->addr) {
		stub_pool_put(&range_pool, r);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	r->next = stub.reserved;
	stub.reserved = r;
	*out = r->addr;
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuMemAddressReserve(CUdeviceptr *out, size_t bytes, size_t align,
					 CUdeviceptr addr, unsigned long long flags)
{
	return STUB_LOCKED(cuMemAddressReserve, flags ? CUDA_ERROR_INVALID_VALUE
						      : address_reserve(out, bytes, align, addr));
}

/* The first mapping that has something in the range. */
static struct stub_map *map_in(uint64_t addr, uint64_t bytes)
{
	struct stub_map *m = stub.maps;

	while (m && (m->addr >= addr + bytes || addr >= m->addr + m->mapped))
		m = m->next;
	return m;
}

static CUresult address_free(uint64_t addr, uint64_t bytes)
{
	struct stub_range **at = &stub.reserved, *r;

	while (*at && (*at)->addr != addr)
		at = &(*at)->next;
	r = *at;
	if (!r || r->bytes != bytes || map_in(addr, bytes))
		return CUDA_ERROR_INVALID_VALUE;
	*at = r->next;
	munmap(pointer(addr), bytes);
	stub_pool_put(&range_pool, r);
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuMemAddressFree(CUdeviceptr addr, size_t bytes)
{
	return STUB_LOCKED(cuMemAddressFree, address_free(addr, bytes));
}

static bool prop_ok(const CUmemAllocationProp *prop)
{
	return prop && prop->type == CU_MEM_ALLOCATION_TYPE_PINNED &&
	       prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE && prop->location.id >= 0 &&
	       (uint32_t)prop->location.id < stub.hw.nr_gpus &&
	       !(prop->requestedHandleTypes & ~CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
}

static CUresult create(CUmemGenericAllocationHandle *out, uint64_t bytes,
		       const CUmemAllocationProp *prop)
{
	struct stub_mem *m;
	CUresult res;

	if (!out || !bytes || !aligned(bytes) || !prop_ok(prop))
		return CUDA_ERROR_INVALID_VALUE;
	res = mem_new(prop->location.id, bytes, &m);
	if (res)
		return res;
	m->handle = stub.next_id++;
	m->exportable = prop->requestedHandleTypes != 0;
	m->refs = 1;
	*out = m->handle;
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuMemCreate(CUmemGenericAllocationHandle *out, size_t bytes,
				 const CUmemAllocationProp *prop, unsigned long long flags)
{
	return STUB_LOCKED(cuMemCreate,
			   flags ? CUDA_ERROR_INVALID_VALUE : create(out, bytes, prop));
}

static CUresult release(CUmemGenericAllocationHandle handle)
{
	struct stub_mem *m = mem_of(handle);

	if (!m)
		return CUDA_ERROR_INVALID_VALUE;
	m->refs--;
	mem_put(m);
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
	return STUB_LOCKED(cuMemRelease, release(handle));
}

static CUresult mem_map(uint64_t addr, uint64_t bytes, uint64_t offset, uint64_t handle)
{
	const struct stub_range *r = stub_range_find(stub.reserved, addr);
	struct stub_mem *m = mem_of(handle);

	if (!r || !m || !bytes || !aligned(addr) || !aligned(bytes) || offset || bytes > m->bytes ||
	    bytes > r->addr + r->bytes - addr)
		return CUDA_ERROR_INVALID_VALUE;
	if (map_in(addr, bytes))
		return STUB_ERROR_ALREADY_MAPPED;
	return map_new(addr, bytes, m, PROT_NONE);
}

STUB_EXPORT CUresult cuMemMap(CUdeviceptr addr, size_t bytes, size_t offset,
			      CUmemGenericAllocationHandle handle, unsigned long long flags)
{
	return STUB_LOCKED(cuMemMap,
			   flags ? CUDA_ERROR_INVALID_VALUE : mem_map(addr, bytes, offset, handle));
}

/* Calls fn for each mapping of a range that consists of whole mappings, or for none. */
static CUresult for_maps(uint64_t addr, uint64_t bytes, void (*fn)(struct stub_map *m, void *arg),
			 void *arg)
{
	uint64_t at = addr;

	if (!bytes)
		return CUDA_ERROR_INVALID_VALUE;
	while (at < addr + bytes) {
		const struct stub_map *m = stub_map_find(at);

		if (!m || m->ctx || m->addr != at)
			return CUDA_ERROR_INVALID_VALUE;
		at += m->bytes;
	}
	if (at != addr + bytes)
		return CUDA_ERROR_INVALID_VALUE;
	for (at = addr; at < addr + bytes;) {
		struct stub_map *m = stub_map_find(at);

		at += m->bytes;
		fn(m, arg);
	}
	return CUDA_SUCCESS;
}

static void unmap_one(struct stub_map *m, void *arg)
{
	(void)arg;
	stub_map_free(m);
}

STUB_EXPORT CUresult cuMemUnmap(CUdeviceptr addr, size_t bytes)
{
	return STUB_LOCKED(cuMemUnmap, for_maps(addr, bytes, unmap_one, NULL));
}

static void access_one(struct stub_map *m, void *arg)
{
	const CUmemAccessDesc *desc = arg;
	const uint32_t bit = 1u << desc->location.id;

	m->read = desc->flags ? m->read | bit : m->read & ~bit;
	m->write = desc->flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE ? m->write | bit
								     : m->write & ~bit;
	mprotect(pointer(m->addr), m->mapped,
		 (m->read ? PROT_READ : 0) | (m->write ? PROT_WRITE : 0));
}

static CUresult set_access(uint64_t addr, uint64_t bytes, const CUmemAccessDesc *desc, size_t count)
{
	CUresult res = CUDA_SUCCESS;

	if (!desc || !count)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < count; i++) {
		if (desc[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
		    desc[i].location.id < 0 || (uint32_t)desc[i].location.id >= stub.hw.nr_gpus ||
		    desc[i].flags < 0 || desc[i].flags > CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
			return CUDA_ERROR_INVALID_VALUE;
	}
	for (size_t i = 0; i < count && !res; i++) {
		CUmemAccessDesc one = desc[i];

		res = for_maps(addr, bytes, access_one, &one);
	}
	return res;
}

STUB_EXPORT CUresult cuMemSetAccess(CUdeviceptr addr, size_t bytes, const CUmemAccessDesc *desc,
				    size_t count)
{
	return STUB_LOCKED(cuMemSetAccess, set_access(addr, bytes, desc, count));
}

static CUresult get_access(unsigned long long *flags, const CUmemLocation *location, uint64_t addr)
{
	const struct stub_map *m = stub_map_find(addr);
	uint32_t bit;

	if (!m || !flags || !location || location->type != CU_MEM_LOCATION_TYPE_DEVICE ||
	    location->id < 0 || (uint32_t)location->id >= stub.hw.nr_gpus)
		return CUDA_ERROR_INVALID_VALUE;
	bit = 1u << location->id;
	*flags = m->write & bit ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : m->read & bit ? 1 : 0;
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuMemGetAccess(unsigned long long *flags, const CUmemLocation *location,
				    CUdeviceptr addr)
{
	return STUB_LOCKED(cuMemGetAccess, get_access(flags, location, addr));
}

/* Another open file of the memory: the driver's own descriptors are not those that it gives out or
 * is given. */
static int reopen(int fd)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDWR | O_CLOEXEC);
}

/* As driver 580 does it: what was imported cannot be exported again. */
static CUresult export_fd(int *out, uint64_t handle, int type)
{
	struct stub_mem *m = mem_of(handle);
	int fd;

	if (!out || !m || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || m->imported ||
	    !m->exportable)
		return CUDA_ERROR_INVALID_VALUE;
	fd = reopen(m->fd);
	if (fd < 0)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*out = fd;
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuMemExportToShareableHandle(void *out, CUmemGenericAllocationHandle handle,
						  int type, unsigned long long flags)
{
	return STUB_LOCKED(cuMemExportToShareableHandle,
			   flags ? CUDA_ERROR_INVALID_VALUE : export_fd(out, handle, type));
}

/* The device of the process that has the memory behind fd, or -1. */
static int device_of_fd(int fd)
{
	char path[40], link[96], name[64], want[96];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link) - 1);
	if (n < 0)
		return -1;
	link[n] = 0;
	for (uint32_t i = 0; i < stub.hw.nr_gpus; i++) {
		stub_scan_name(name, sizeof(name), stub.gpu[i], stub_env_id());
		snprintf(want, sizeof(want), "/memfd:%s (deleted)", name);
		if (!strcmp(link, want))
			return (int)i;
	}
	return -1;
}

CUresult stub_mem_import(int fd, struct stub_mem **out)
{
	const int device = device_of_fd(fd);
	struct stub_mem *m;
	struct stat st;

	if (device < 0 || fstat(fd, &st))
		return CUDA_ERROR_INVALID_VALUE;
	m = stub_pool_get(&mem_pool);
	if (!m)
		return CUDA_ERROR_OUT_OF_MEMORY;
	m->fd = reopen(fd);
	if (m->fd < 0) {
		stub_pool_put(&mem_pool, m);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	m->device = device;
	m->bytes = (uint64_t)st.st_size;
	m->imported = true;
	m->next = stub.mems;
	stub.mems = m;
	*out = m;
	return CUDA_SUCCESS;
}

static CUresult import_fd(CUmemGenericAllocationHandle *out, int fd, int type)
{
	struct stub_mem *m;
	CUresult res;

	if (!out || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
		return CUDA_ERROR_INVALID_VALUE;
	res = stub_mem_import(fd, &m);
	if (res)
		return res;
	m->handle = stub.next_id++;
	m->refs = 1;
	*out = m->handle;
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *out,
						    void *os_handle, int type)
{
	return STUB_LOCKED(cuMemImportFromShareableHandle,
			   import_fd(out, (int)(intptr_t)os_handle, type));
}

STUB_EXPORT CUresult cuMemGetAllocationGranularity(size_t *bytes, const CUmemAllocationProp *prop,
						   int option)
{
	(void)option;
	return STUB_CALL(cuMemGetAllocationGranularity, ({
				 *bytes = STUB_GRANULARITY;
				 prop_ok(prop) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
			 }));
}

static CUresult get_prop(CUmemAllocationProp *prop, uint64_t handle)
{
	const struct stub_mem *m = mem_of(handle);

	if (!m || !prop)
		return CUDA_ERROR_INVALID_VALUE;
	memset(prop, 0, sizeof(*prop));
	prop->type = CU_MEM_ALLOCATION_TYPE_PINNED;
	prop->location.type = CU_MEM_LOCATION_TYPE_DEVICE;
	prop->location.id = m->device;
	prop->requestedHandleTypes = m->exportable || m->imported
					     ? CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
					     : 0;
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop,
							    CUmemGenericAllocationHandle handle)
{
	return STUB_LOCKED(cuMemGetAllocationPropertiesFromHandle, get_prop(prop, handle));
}

static CUresult retain(CUmemGenericAllocationHandle *out, uint64_t addr)
{
	const struct stub_map *m = stub_map_find(addr);

	if (!m || !out || m->ctx)
		return CUDA_ERROR_INVALID_VALUE;
	m->mem->refs++;
	*out = m->mem->handle;
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *out, void *addr)
{
	return STUB_LOCKED(cuMemRetainAllocationHandle, retain(out, (uint64_t)(uintptr_t)addr));
}
