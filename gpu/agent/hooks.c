/* SPDX-License-Identifier: MIT */
/*
 * The agent's functions in place of the driver's, but for those of the virtual memory API (vmm.c)
 * and of CUDA IPC (ipc_hooks.c).
 */
#include <string.h>

#include "gate.h"
#include "hooks.h"

#define MIN_BYTES AGENT_GRAIN /* smaller allocations share pages in the driver, and stay there */
#define PITCH_ALIGN 512	      /* what the driver's cuMemAllocPitch() rounds widths up to */

/* Before there is a thread, nothing can be asked of the agent: a process that has initialised CUDA
 * has one. */
CUresult agent_cuInit(unsigned int flags)
{
	CUresult (*fn)(unsigned int) = agent_gate_real(GATED_cuInit);
	CUresult res = fn(flags);

	if (!res)
		agent_thread_start();
	return res;
}

/* cuInit() may have been called before the agent was in front of it. */
static CUresult alloc(size_t bytes, CUdeviceptr *out)
{
	CUresult res = agent_alloc(agent_cuda(), bytes, out);

	if (!res)
		agent_thread_start();
	return res;
}

CUresult agent_cuMemAlloc_v2(CUdeviceptr *ptr, size_t bytes)
{
	CUresult (*fn)(CUdeviceptr *, size_t) = agent_gate_real(GATED_cuMemAlloc_v2);
	CUresult res;

	if (bytes < MIN_BYTES || !ptr)
		return fn(ptr, bytes);
	res = alloc(bytes, ptr);
	/* Devices without virtual memory, full tables: whatever it is, the driver has a way. */
	return res == CUDA_SUCCESS || res == CUDA_ERROR_OUT_OF_MEMORY ? res : fn(ptr, bytes);
}

CUresult agent_cuMemAllocPitch_v2(CUdeviceptr *ptr, size_t *pitch, size_t width, size_t height,
				  unsigned int element_bytes)
{
	CUresult (*fn)(CUdeviceptr *, size_t *, size_t, size_t,
		       unsigned int) = agent_gate_real(GATED_cuMemAllocPitch_v2);
	size_t row = (width + PITCH_ALIGN - 1) & ~(size_t)(PITCH_ALIGN - 1), bytes;

	if (!ptr || !pitch || row < width || __builtin_mul_overflow(row, height, &bytes) ||
	    bytes < MIN_BYTES || alloc(bytes, ptr))
		return fn(ptr, pitch, width, height, element_bytes);
	*pitch = row;
	return CUDA_SUCCESS;
}

CUresult agent_cuMemFree_v2(CUdeviceptr ptr)
{
	CUresult (*fn)(CUdeviceptr) = agent_gate_real(GATED_cuMemFree_v2);
	CUresult res = CUDA_SUCCESS;
	bool ours = false;

	if (ptr)
		res = agent_free(agent_cuda(), ptr, &ours);
	if (ours)
		return res;
	res = fn(ptr);
	if (!res)
		agent_driver_ipc_end(ptr);
	return res;
}

CUresult agent_cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr ptr)
{
	CUresult (*fn)(CUdeviceptr *, size_t *,
		       CUdeviceptr) = agent_gate_real(GATED_cuMemGetAddressRange_v2);
	struct agent_alloc a;

	if (!agent_find(ptr, &a) || ptr - a.addr >= a.asked)
		return fn(base, bytes, ptr);
	if (base)
		*base = a.addr;
	if (bytes)
		*bytes = a.asked;
	return CUDA_SUCCESS;
}

/* What cuMemAlloc()ed memory answers, where memory of the virtual memory API answers otherwise. */
static void patch_attribute(const struct agent_alloc *a, int attribute, void *data)
{
	size_t asked = a->asked;

	if (attribute == CU_POINTER_ATTRIBUTE_CONTEXT)
		memcpy(data, &a->ctx, sizeof(a->ctx));
	else if (attribute == CU_POINTER_ATTRIBUTE_RANGE_SIZE)
		memcpy(data, &asked, sizeof(asked));
	else if (attribute == CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES)
		memset(data, 0, sizeof(uint32_t));
	else if (attribute == CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE)
		memset(data, 1, sizeof(uint8_t));
}

/* What the application's own memory answers, had the agent not made it shareable. */
static void patch_own(CUdeviceptr ptr, int attribute, void *data)
{
	CUmemGenericAllocationHandle handle;
	CUmemAllocationProp prop;
	uint32_t types; /* as many of its bytes as there may be: it is a mask of few bits */

	if (attribute != CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES ||
	    !agent_own_at(ptr, &handle, &prop))
		return;
	types = (uint32_t)prop.requestedHandleTypes;
	memcpy(data, &types, sizeof(types));
}

static void patch(CUdeviceptr ptr, int attribute, void *data)
{
	struct agent_alloc a;

	if (agent_find(ptr, &a))
		patch_attribute(&a, attribute, data);
	else
		patch_own(ptr, attribute, data);
}

CUresult agent_cuPointerGetAttribute(void *data, int attribute, CUdeviceptr ptr)
{
	CUresult (*fn)(void *, int, CUdeviceptr) = agent_gate_real(GATED_cuPointerGetAttribute);
	CUresult res = fn(data, attribute, ptr);

	if (!res)
		patch(ptr, attribute, data);
	return res;
}

CUresult agent_cuPointerGetAttributes(unsigned int nr, int *attributes, void **data,
				      CUdeviceptr ptr)
{
	CUresult (*fn)(unsigned int, int *, void **,
		       CUdeviceptr) = agent_gate_real(GATED_cuPointerGetAttributes);
	CUresult res = fn(nr, attributes, data, ptr);

	for (unsigned int i = 0; i < nr && !res; i++)
		patch(ptr, attributes[i], data[i]);
	return res;
}

static CUresult set_peer(CUcontext peer, bool on)
{
	const struct ckf_cuda *cuda = agent_cuda();
	CUdevice device, owner;
	CUcontext mine;
	CUresult res;

	res = cuda->ctx_get_current(&mine);
	if (!res)
		res = cuda->ctx_get_device(&device);
	if (!res)
		res = cuda->ctx_set_current(peer);
	if (res)
		return res;
	res = cuda->ctx_get_device(&owner);
	cuda->ctx_set_current(mine);
	return res ? res : agent_set_peer(cuda, owner, device, on);
}

CUresult agent_cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags)
{
	CUresult (*fn)(CUcontext, unsigned int) = agent_gate_real(GATED_cuCtxEnablePeerAccess);
	CUresult res = fn(peer, flags);

	return res ? res : set_peer(peer, true);
}

CUresult agent_cuCtxDisablePeerAccess(CUcontext peer)
{
	CUresult (*fn)(CUcontext) = agent_gate_real(GATED_cuCtxDisablePeerAccess);
	CUresult res = fn(peer);

	return res ? res : set_peer(peer, false);
}

CUresult agent_cuCtxDestroy_v2(CUcontext ctx)
{
	CUresult (*fn)(CUcontext) = agent_gate_real(GATED_cuCtxDestroy_v2);
	CUresult res = fn(ctx);

	if (!res)
		agent_drop_context(agent_cuda(), ctx);
	return res;
}

/* NULL: the device has none. */
static CUcontext primary_of(CUdevice dev)
{
	const struct ckf_cuda *cuda = agent_cuda();
	unsigned int flags;
	CUcontext ctx = NULL;
	int active = 0;

	if (cuda->primary_ctx_get_state(dev, &flags, &active) || !active ||
	    cuda->primary_ctx_retain(&ctx, dev))
		return NULL;
	cuda->primary_ctx_release(dev);
	return ctx;
}

/* With the last one that has retained it goes the context, and what was allocated in it. */
CUresult agent_cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
	CUresult (*fn)(CUdevice) = agent_gate_real(GATED_cuDevicePrimaryCtxRelease_v2);
	CUcontext ctx = primary_of(dev);
	CUresult res = fn(dev);

	if (!res && ctx && !primary_of(dev))
		agent_drop_context(agent_cuda(), ctx);
	return res;
}

CUresult agent_cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
	CUresult (*fn)(CUdevice) = agent_gate_real(GATED_cuDevicePrimaryCtxReset_v2);
	CUcontext ctx = primary_of(dev);
	CUresult res = fn(dev);

	if (!res && ctx)
		agent_drop_context(agent_cuda(), ctx);
	return res;
}
