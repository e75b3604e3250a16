/* SPDX-License-Identifier: MIT */
/*
 * The functions of the virtual memory API that know handles, as an application calls them. Whatever
 * is not the agent's goes to the driver as it is.
 */
#include "hooks.h"

/* The driver's handle in place of ours. */
static CUresult lend(CUmemGenericAllocationHandle *handle)
{
	return agent_is_handle(*handle) ? agent_own_lend(*handle, handle) : CUDA_SUCCESS;
}

CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes,
		     const CUmemAllocationProp *prop, unsigned long long flags)
{
	CUresult (*fn)(CUmemGenericAllocationHandle *, size_t, const CUmemAllocationProp *,
		       unsigned long long) = agent_real(HOOK_CREATE);
	const struct ckf_cuda *cu = agent_cuda();
	CUresult res;

	if (!fn)
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!cu || !handle || !agent_may_own(prop, bytes, flags))
		return fn(handle, bytes, prop, flags);
	res = agent_own_create(cu, bytes, prop, handle);
	/* Devices whose memory cannot be shared: it stays with the driver. */
	return res == CUDA_SUCCESS || res == CUDA_ERROR_OUT_OF_MEMORY
		       ? res
		       : fn(handle, bytes, prop, flags);
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
	CUresult (*fn)(CUmemGenericAllocationHandle) = agent_real(HOOK_RELEASE);

	if (!fn)
		return CUDA_ERROR_NOT_INITIALIZED;
	return agent_is_handle(handle) ? agent_own_release(agent_cuda(), handle) : fn(handle);
}

CUresult cuMemMap(CUdeviceptr ptr, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
		  unsigned long long flags)
{
	CUresult (*fn)(CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle,
		       unsigned long long) = agent_real(HOOK_MAP);
	CUresult res;

	if (!fn)
		return CUDA_ERROR_NOT_INITIALIZED;
	if (agent_is_handle(handle) && !offset && !flags)
		return agent_own_map(agent_cuda(), ptr, bytes, handle);
	/* What drivers may allow some day: such memory stays with them. */
	res = lend(&handle);
	return res ? res : fn(ptr, bytes, offset, handle, flags);
}

CUresult cuMemUnmap(CUdeviceptr ptr, size_t bytes)
{
	CUresult (*fn)(CUdeviceptr, size_t) = agent_real(HOOK_UNMAP);
	const struct ckf_cuda *cu = agent_cuda();

	if (!fn)
		return CUDA_ERROR_NOT_INITIALIZED;
	return cu ? agent_own_unmap(cu, ptr, bytes) : fn(ptr, bytes);
}

CUresult cuMemExportToShareableHandle(void *out, CUmemGenericAllocationHandle handle, int type,
				      unsigned long long flags)
{
	CUresult (*fn)(void *, CUmemGenericAllocationHandle, int,
		       unsigned long long) = agent_real(HOOK_EXPORT);

	if (!fn)
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!agent_is_handle(handle))
		return fn(out, handle, type, flags);
	return !out || flags ? CUDA_ERROR_INVALID_VALUE
			     : agent_own_export(agent_cuda(), handle, type, out);
}

CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *os_handle,
					int type)
{
	CUresult (*fn)(CUmemGenericAllocationHandle *, void *, int) = agent_real(HOOK_IMPORT);
	CUresult (*properties)(CUmemAllocationProp *,
			       CUmemGenericAllocationHandle) = agent_real(HOOK_PROPERTIES);
	CUresult res = fn ? fn(handle, os_handle, type) : CUDA_ERROR_NOT_INITIALIZED;
	CUmemAllocationProp prop;

	if (res || !agent_cuda() || !properties || properties(&prop, *handle))
		return res;
	return agent_own_imported(agent_cuda(), *handle, &prop, handle);
}

CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop,
						CUmemGenericAllocationHandle handle)
{
	CUresult (*fn)(CUmemAllocationProp *,
		       CUmemGenericAllocationHandle) = agent_real(HOOK_PROPERTIES);

	if (!fn)
		return CUDA_ERROR_NOT_INITIALIZED;
	return agent_is_handle(handle) && prop ? agent_own_properties(handle, prop)
					       : fn(prop, handle);
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *addr)
{
	CUresult (*fn)(CUmemGenericAllocationHandle *, void *) = agent_real(HOOK_RETAIN);
	CUdeviceptr ptr = (CUdeviceptr)(uintptr_t)addr;
	CUmemAllocationProp prop;
	struct agent_alloc a;

	if (!fn)
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!agent_cuda() || !handle)
		return fn(handle, addr);
	/* What cuMemAlloc() made has no handle. */
	if (agent_find(ptr, &a))
		return CUDA_ERROR_INVALID_VALUE;
	return agent_own_at(ptr, handle, &prop) ? agent_own_retain(*handle) : fn(handle, addr);
}

CUresult cuMulticastBindMem(CUmemGenericAllocationHandle multicast, size_t multicast_offset,
			    CUmemGenericAllocationHandle handle, size_t offset, size_t bytes,
			    unsigned long long flags)
{
	CUresult (*fn)(CUmemGenericAllocationHandle, size_t, CUmemGenericAllocationHandle, size_t,
		       size_t, unsigned long long) = agent_real(HOOK_BIND);
	CUresult res = fn ? lend(&handle) : CUDA_ERROR_NOT_INITIALIZED;

	return res ? res : fn(multicast, multicast_offset, handle, offset, bytes, flags);
}

CUresult cuMulticastBindMem_v2(CUmemGenericAllocationHandle multicast, CUdevice device,
			       size_t multicast_offset, CUmemGenericAllocationHandle handle,
			       size_t offset, size_t bytes, unsigned long long flags)
{
	CUresult (*fn)(CUmemGenericAllocationHandle, CUdevice, size_t, CUmemGenericAllocationHandle,
		       size_t, size_t, unsigned long long) = agent_real(HOOK_BIND_V2);
	CUresult res = fn ? lend(&handle) : CUDA_ERROR_NOT_INITIALIZED;

	return res ? res : fn(multicast, device, multicast_offset, handle, offset, bytes, flags);
}
