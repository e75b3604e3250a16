/* SPDX-License-Identifier: MIT */
/*
 * cuanswers: prints what the driver answers to questions about memory, and to calls that are wrong.
 * Under the agent it has to print the same: what an application sees is the driver's.
 *
 * Needs two GPUs. Exit code 1: the driver cannot be used at all.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpu/cuda/ckf_cuda_abi.h"

#define MIB ((size_t)1 << 20)
#define SMALL ((size_t)4096)
#define BIG (5 * MIB + 123)

CUresult cuInit(unsigned int flags);
CUresult cuDevicePrimaryCtxRetain(CUcontext *ctx, CUdevice dev);
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev);
CUresult cuCtxCreate_v2(CUcontext *ctx, unsigned int flags, CUdevice dev);
CUresult cuCtxDestroy_v2(CUcontext ctx);
CUresult cuCtxSetCurrent(CUcontext ctx);
CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags);
CUresult cuCtxDisablePeerAccess(CUcontext peer);
CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total);
CUresult cuMemAlloc_v2(CUdeviceptr *ptr, size_t bytes);
CUresult cuMemAllocPitch_v2(CUdeviceptr *ptr, size_t *pitch, size_t width, size_t height,
			    unsigned int element_bytes);
CUresult cuMemFree_v2(CUdeviceptr ptr);
CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr ptr);
CUresult cuPointerGetAttribute(void *data, int attribute, CUdeviceptr ptr);
CUresult cuPointerGetAttributes(unsigned int nr, int *attributes, void **data, CUdeviceptr ptr);
CUresult cuIpcGetMemHandle(CUipcMemHandle *handle, CUdeviceptr ptr);
CUresult cuIpcCloseMemHandle(CUdeviceptr ptr);
CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes,
		     const CUmemAllocationProp *prop, unsigned long long flags);
CUresult cuMemRelease(CUmemGenericAllocationHandle handle);
CUresult cuMemAddressReserve(CUdeviceptr *out, size_t bytes, size_t align, CUdeviceptr addr,
			     unsigned long long flags);
CUresult cuMemMap(CUdeviceptr ptr, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
		  unsigned long long flags);
CUresult cuMemUnmap(CUdeviceptr ptr, size_t bytes);
CUresult cuMemExportToShareableHandle(void *out, CUmemGenericAllocationHandle handle, int type,
				      unsigned long long flags);
CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *os_handle,
					int type);
CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop,
						CUmemGenericAllocationHandle handle);
CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *addr);

static CUcontext ctx[2];

static void say(const char *what, CUresult res, long long value)
{
	printf("%s: %d, %lld\n", what, res, res ? 0 : value);
}

static size_t free_bytes(void)
{
	size_t bytes = 0, total;

	cuMemGetInfo_v2(&bytes, &total);
	return bytes;
}

static void ask_attributes(CUdeviceptr ptr)
{
	int what[] = { CU_POINTER_ATTRIBUTE_CONTEXT, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR,
		       CU_POINTER_ATTRIBUTE_RANGE_SIZE, CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES,
		       CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE };
	uint64_t values[5] = { 0 }, one;
	void *data[5];
	CUresult res;

	for (int i = 0; i < 5; i++) {
		one = 0;
		data[i] = &values[i];
		res = cuPointerGetAttribute(&one, what[i], ptr + 100);
		if (i == 0)
			one = one == (uint64_t)(uintptr_t)ctx[0];
		if (i == 1)
			one -= ptr;
		say("attribute", res, (long long)one);
	}
	res = cuPointerGetAttributes(5, what, data, ptr + 100);
	say("context", res, values[0] == (uint64_t)(uintptr_t)ctx[0]);
	say("start", res, (long long)(values[1] - ptr));
	for (int i = 2; i < 5; i++)
		say("attributes", res, (long long)values[i]);
}

static void ask_allocation(size_t bytes)
{
	CUipcMemHandle handle;
	CUdeviceptr ptr = 0, base = 0;
	CUmemGenericAllocationHandle mem;
	size_t n = 0;
	CUresult res;

	say("alloc", cuMemAlloc_v2(&ptr, bytes), 0);
	res = cuMemGetAddressRange_v2(&base, &n, ptr + 100);
	say("begins", res, (long long)(ptr - base));
	say("has bytes", res, (long long)n);
	say("bytes alone", cuMemGetAddressRange_v2(NULL, &n, ptr), 0);
	say("base alone", cuMemGetAddressRange_v2(&base, NULL, ptr), 0);
	ask_attributes(ptr);
	say("handle of it", cuMemRetainAllocationHandle(&mem, (void *)(uintptr_t)ptr), 0);
	say("ipc", cuIpcGetMemHandle(&handle, ptr + 100), 0);
	say("ipc to nowhere", cuIpcGetMemHandle(NULL, ptr), 0);
	say("ipc closed", cuIpcCloseMemHandle(ptr), 0);
	say("free in the middle", cuMemFree_v2(ptr + 512), 0);
	say("free", cuMemFree_v2(ptr), 0);
	say("free again", cuMemFree_v2(ptr), 0);
}

static void ask_pitch(size_t width, size_t height)
{
	CUdeviceptr ptr = 0;
	size_t pitch = 0;
	CUresult res = cuMemAllocPitch_v2(&ptr, &pitch, width, height, 4);

	say("pitch", res, (long long)pitch);
	if (!res)
		say("free", cuMemFree_v2(ptr), 0);
}

/* Memory of the virtual memory API, whose handles are the agent's. */
static void ask_own(int types)
{
	CUmemAllocationProp prop = { .type = CU_MEM_ALLOCATION_TYPE_PINNED,
				     .requestedHandleTypes = types,
				     .location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 } };
	CUmemAllocationProp got = { 0 };
	CUmemGenericAllocationHandle mem = 0, same = 0;
	CUdeviceptr ptr = 0;
	int fd = -1;
	CUresult res;

	say("create", cuMemCreate(&mem, 4 * MIB, &prop, 0), 0);
	say("create half a page", cuMemCreate(&same, MIB + 1, &prop, 0), 0);
	say("create nothing", cuMemCreate(&same, 0, &prop, 0), 0);
	res = cuMemGetAllocationPropertiesFromHandle(&got, mem);
	say("properties", res, got.requestedHandleTypes);
	say("reserve", cuMemAddressReserve(&ptr, 4 * MIB, 0, 0, 0), 0);
	say("map", cuMemMap(ptr, 4 * MIB, 0, mem, 0), 0);
	say("map again", cuMemMap(ptr, 4 * MIB, 0, mem, 0), 0);
	ask_attributes(ptr);
	say("handle", cuMemRetainAllocationHandle(&same, (void *)(uintptr_t)(ptr + MIB)), 0);
	say("the same", same == mem ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE, 0);
	say("release", cuMemRelease(same), 0);
	say("export", cuMemExportToShareableHandle(&fd, mem, types, 0), 0);
	if (fd >= 0) {
		say("import", cuMemImportFromShareableHandle(&same, (void *)(intptr_t)fd, types),
		    0);
		say("release", cuMemRelease(same), 0);
		close(fd);
	}
	say("export with flags", cuMemExportToShareableHandle(&fd, mem, types, 1), 0);
	say("unmap", cuMemUnmap(ptr, 4 * MIB), 0);
	say("unmap again", cuMemUnmap(ptr, 4 * MIB), 0);
	say("release", cuMemRelease(mem), 0);
	say("release again", cuMemRelease(mem), 0);
	say("map what is gone", cuMemMap(ptr, 4 * MIB, 0, mem, 0), 0);
	say("properties of what is gone", cuMemGetAllocationPropertiesFromHandle(&got, mem), 0);
}

/* What was allocated in a context goes with it. */
static void ask_contexts(void)
{
	size_t before = free_bytes();
	CUcontext mine, again;
	CUdeviceptr ptr;

	say("create", cuCtxCreate_v2(&mine, 0, 0), 0);
	say("alloc", cuMemAlloc_v2(&ptr, BIG), 0);
	say("destroy", cuCtxDestroy_v2(mine), 0);
	cuCtxSetCurrent(ctx[0]);
	say("gone", CUDA_SUCCESS, free_bytes() == before);

	cuCtxSetCurrent(ctx[1]);
	before = free_bytes();
	say("alloc", cuMemAlloc_v2(&ptr, BIG), 0);
	say("retain", cuDevicePrimaryCtxRetain(&again, 1), 0);
	say("release", cuDevicePrimaryCtxRelease_v2(1), 0);
	say("still there", CUDA_SUCCESS, free_bytes() < before);
	say("release", cuDevicePrimaryCtxRelease_v2(1), 0);
	say("retain", cuDevicePrimaryCtxRetain(&ctx[1], 1), 0);
	cuCtxSetCurrent(ctx[1]);
	say("gone", CUDA_SUCCESS, free_bytes() == before);
	cuCtxSetCurrent(ctx[0]);
}

static void ask_peers(void)
{
	CUdeviceptr ptr = 0;

	cuCtxSetCurrent(ctx[1]);
	say("alloc", cuMemAlloc_v2(&ptr, BIG), 0);
	cuCtxSetCurrent(ctx[0]);
	say("disable", cuCtxDisablePeerAccess(ctx[1]), 0);
	say("enable", cuCtxEnablePeerAccess(ctx[1], 0), 0);
	say("enable again", cuCtxEnablePeerAccess(ctx[1], 0), 0);
	say("disable", cuCtxDisablePeerAccess(ctx[1]), 0);
	say("enable itself", cuCtxEnablePeerAccess(ctx[0], 0), 0);
	say("free", cuMemFree_v2(ptr), 0);
}

int main(void)
{
	CUdeviceptr ptr;
	pid_t child;

	if (cuInit(0) || cuDevicePrimaryCtxRetain(&ctx[0], 0) ||
	    cuDevicePrimaryCtxRetain(&ctx[1], 1) || cuCtxSetCurrent(ctx[0]))
		return 1;
	ask_allocation(SMALL);
	ask_allocation(BIG);
	say("alloc to nowhere", cuMemAlloc_v2(NULL, BIG), 0);
	say("alloc nothing", cuMemAlloc_v2(&ptr, 0), 0);
	say("alloc too much", cuMemAlloc_v2(&ptr, (size_t)1 << 50), 0);
	say("alloc all there is", cuMemAlloc_v2(&ptr, SIZE_MAX), 0);
	ask_pitch(1000, 10);
	ask_pitch(1000, 10000);
	ask_pitch(SIZE_MAX, 2);
	ask_own(CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
	ask_own(0);
	ask_contexts();
	ask_peers();
	fflush(NULL);
	child = fork();
	if (!child)
		exit(0);
	say("child", CUDA_SUCCESS, child > 0 && waitpid(child, NULL, 0) == child);
	ask_allocation(BIG);
	return 0;
}
