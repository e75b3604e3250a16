/* SPDX-License-Identifier: MIT */
/*
 * Questions about memory, and pinned host memory.
 */
#include <string.h>
#include <sys/mman.h>

#include "stub.h"

enum {
	ATTRIBUTE_CONTEXT = 1,
	ATTRIBUTE_MEMORY_TYPE = 2,
	ATTRIBUTE_DEVICE_POINTER = 3,
	ATTRIBUTE_HOST_POINTER = 4,
	ATTRIBUTE_BUFFER_ID = 7,
	ATTRIBUTE_IS_MANAGED = 8,
	ATTRIBUTE_DEVICE_ORDINAL = 9,
	ATTRIBUTE_IPC_CAPABLE = 10,
	ATTRIBUTE_RANGE_START = 11,
	ATTRIBUTE_RANGE_BYTES = 12,
	ATTRIBUTE_MAPPED = 13,
	ATTRIBUTE_HANDLE_TYPES = 14,
};

#define MEMORY_TYPE_HOST 1u
#define MEMORY_TYPE_DEVICE 2u
#define HOST_FLAGS 7u

static struct stub_pool pinned_pool = { .size = sizeof(struct stub_range) };

static CUresult get_info(size_t *free_bytes, size_t *total)
{
	const uint64_t used = stub_scan_used(stub.gpu[stub_ctx()->device], stub_env_id());

	*total = stub.hw.gpu_bytes;
	*free_bytes = used < *total ? *total - used : 0;
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
	return STUB_LOCKED(cuMemGetInfo_v2, get_info(free_bytes, total));
}

static CUresult address_range(CUdeviceptr *base, size_t *bytes, CUdeviceptr ptr)
{
	const struct stub_map *m = stub_map_find(ptr);

	if (!m)
		return CUDA_ERROR_INVALID_VALUE;
	if (base)
		*base = m->addr;
	if (bytes)
		*bytes = m->bytes;
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr ptr)
{
	return STUB_LOCKED(cuMemGetAddressRange_v2, address_range(base, bytes, ptr));
}

/* Bytes of an attribute, 0 for one that is not known. */
static size_t attribute_bytes(int attribute)
{
	switch (attribute) {
	case ATTRIBUTE_MEMORY_TYPE:
	case ATTRIBUTE_DEVICE_ORDINAL:
		return sizeof(unsigned int);
	case ATTRIBUTE_IS_MANAGED:
	case ATTRIBUTE_IPC_CAPABLE:
	case ATTRIBUTE_MAPPED:
		return sizeof(unsigned char);
	case ATTRIBUTE_CONTEXT:
	case ATTRIBUTE_DEVICE_POINTER:
	case ATTRIBUTE_HOST_POINTER:
	case ATTRIBUTE_BUFFER_ID:
	case ATTRIBUTE_RANGE_START:
	case ATTRIBUTE_RANGE_BYTES:
	case ATTRIBUTE_HANDLE_TYPES:
		return sizeof(uint64_t);
	default:
		return 0;
	}
}

static bool device_attribute(const struct stub_map *m, int attribute, uint64_t ptr, uint64_t *value)
{
	switch (attribute) {
	case ATTRIBUTE_CONTEXT:
		*value = (uint64_t)(uintptr_t)m->ctx;
		return true;
	case ATTRIBUTE_MEMORY_TYPE:
		*value = MEMORY_TYPE_DEVICE;
		return true;
	case ATTRIBUTE_DEVICE_POINTER:
		*value = ptr;
		return true;
	case ATTRIBUTE_BUFFER_ID:
		*value = m->id;
		return true;
	case ATTRIBUTE_IS_MANAGED:
		*value = 0;
		return true;
	case ATTRIBUTE_DEVICE_ORDINAL:
		*value = (uint64_t)m->mem->device;
		return true;
	case ATTRIBUTE_IPC_CAPABLE:
		*value = m->ctx != NULL;
		return true;
	case ATTRIBUTE_RANGE_START:
		*value = m->addr;
		return true;
	case ATTRIBUTE_RANGE_BYTES:
		*value = m->bytes;
		return true;
	case ATTRIBUTE_MAPPED:
		*value = 1;
		return true;
	case ATTRIBUTE_HANDLE_TYPES:
		*value = m->mem->exportable ? CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR : 0;
		return true;
	default:
		return false;
	}
}

static bool host_attribute(int attribute, uint64_t ptr, uint64_t *value)
{
	*value = attribute == ATTRIBUTE_MEMORY_TYPE ? MEMORY_TYPE_HOST : ptr;
	return stub_range_find(stub.pinned, ptr) &&
	       (attribute == ATTRIBUTE_MEMORY_TYPE || attribute == ATTRIBUTE_HOST_POINTER ||
		attribute == ATTRIBUTE_DEVICE_POINTER);
}

static CUresult get_attribute(void *out, int attribute, uint64_t ptr)
{
	const struct stub_map *m = stub_map_find(ptr);
	uint64_t value = 0;

	if (m ? !device_attribute(m, attribute, ptr, &value)
	      : !host_attribute(attribute, ptr, &value))
		return CUDA_ERROR_INVALID_VALUE;
	memcpy(out, &value, attribute_bytes(attribute));
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuPointerGetAttribute(void *out, int attribute, CUdeviceptr ptr)
{
	return STUB_LOCKED(cuPointerGetAttribute, get_attribute(out, attribute, ptr));
}

/* What is not known of a pointer is zero here, and no error. */
static CUresult get_attributes(unsigned int count, const int *attributes, void **out, uint64_t ptr)
{
	for (unsigned int i = 0; i < count; i++) {
		if (!attribute_bytes(attributes[i]))
			return CUDA_ERROR_INVALID_VALUE;
		if (get_attribute(out[i], attributes[i], ptr))
			memset(out[i], 0, attribute_bytes(attributes[i]));
	}
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuPointerGetAttributes(unsigned int count, int *attributes, void **out,
					    CUdeviceptr ptr)
{
	return STUB_LOCKED(cuPointerGetAttributes, get_attributes(count, attributes, out, ptr));
}

static CUresult pin(uint64_t addr, uint64_t bytes, uint32_t flags, bool registered)
{
	struct stub_range *r = stub_pool_get(&pinned_pool);

	if (!r)
		return CUDA_ERROR_OUT_OF_MEMORY;
	r->addr = addr;
	r->bytes = bytes;
	r->flags = flags;
	r->registered = registered;
	r->next = stub.pinned;
	stub.pinned = r;
	return CUDA_SUCCESS;
}

static CUresult unpin(void *p, bool registered)
{
	struct stub_range **at = &stub.pinned, *r;

	stub_drain_ctx(NULL);
	while (*at && ((*at)->addr != (uint64_t)(uintptr_t)p || (*at)->registered != registered))
		at = &(*at)->next;
	r = *at;
	if (!r)
		return registered ? STUB_ERROR_HOST_NOT : CUDA_ERROR_INVALID_VALUE;
	*at = r->next;
	if (!registered)
		munmap(p, r->bytes);
	stub_pool_put(&pinned_pool, r);
	return CUDA_SUCCESS;
}

static CUresult host_alloc(void **out, size_t bytes, unsigned int flags)
{
	CUresult res;
	void *p;

	if (!out || !bytes || flags & ~HOST_FLAGS)
		return CUDA_ERROR_INVALID_VALUE;
	bytes = (bytes + STUB_PAGE - 1) / STUB_PAGE * STUB_PAGE;
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return CUDA_ERROR_OUT_OF_MEMORY;
	res = pin((uint64_t)(uintptr_t)p, bytes, flags, false);
	if (res)
		munmap(p, bytes);
	else
		*out = p;
	return res;
}

STUB_EXPORT CUresult cuMemHostAlloc(void **out, size_t bytes, unsigned int flags)
{
	return STUB_LOCKED(cuMemHostAlloc, host_alloc(out, bytes, flags));
}

STUB_EXPORT CUresult cuMemAllocHost_v2(void **out, size_t bytes)
{
	return STUB_LOCKED(cuMemAllocHost_v2, host_alloc(out, bytes, 0));
}

STUB_EXPORT CUresult cuMemFreeHost(void *p)
{
	return STUB_LOCKED(cuMemFreeHost, unpin(p, false));
}

static CUresult host_register(void *p, size_t bytes, unsigned int flags)
{
	if (!p || !bytes)
		return CUDA_ERROR_INVALID_VALUE;
	if (stub_range_find(stub.pinned, (uint64_t)(uintptr_t)p))
		return STUB_ERROR_HOST_ALREADY;
	return pin((uint64_t)(uintptr_t)p, bytes, flags, true);
}

STUB_EXPORT CUresult cuMemHostRegister_v2(void *p, size_t bytes, unsigned int flags)
{
	return STUB_LOCKED(cuMemHostRegister_v2, host_register(p, bytes, flags));
}

STUB_EXPORT CUresult cuMemHostUnregister(void *p)
{
	return STUB_LOCKED(cuMemHostUnregister, unpin(p, true));
}

static CUresult host_device_pointer(CUdeviceptr *out, void *p)
{
	if (!out || !stub_range_find(stub.pinned, (uint64_t)(uintptr_t)p))
		return CUDA_ERROR_INVALID_VALUE;
	*out = (uint64_t)(uintptr_t)p;
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *out, void *p, unsigned int flags)
{
	(void)flags;
	return STUB_LOCKED(cuMemHostGetDevicePointer_v2, host_device_pointer(out, p));
}
