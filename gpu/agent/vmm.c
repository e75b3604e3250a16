/* SPDX-License-Identifier: MIT */
/*
 * The functions of the virtual memory API that know handles, as an application calls them. Whatever
 * is not the agent's goes to the driver as it is.
 */
#include "gate.h"
#include "hooks.h"

/* The driver's handle in place of ours. */
static CUresult lend(CUmemGenericAllocationHandle *handle)
{
	return agent_is_handle(*handle) ? agent_own_lend(*handle, handle) : CUDA_SUCCESS;
}

CUresult agent_cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes,
			   const CUmemAllocationProp *prop, unsigned long long flags)
{
	CUresult (*fn)(CUmemGenericAllocationHandle *, size_t, const CUmemAllocationProp *,
		       unsigned long long) = agent_gate_real(GATED_cuMemCreate);
	CUresult res;

	if (!handle || !agent_may_own(prop, bytes, flags))
		return fn(handle, bytes, prop, flags);
	res = agent_own_create(agent_cuda(), bytes, prop, handle);
	if (!res)
		agent_thread_start();
	/* Devices whose memory cannot be shared: it stays with the driver. */
	return res == CUDA_SUCCESS || res == CUDA_ERROR_OUT_OF_MEMORY
		       ? res
		       : fn(handle, bytes, prop, flags);
}

CUresult agent_cuMemRelease(CUmemGenericAllocationHandle handle)
{
	CUresult (*fn)(CUmemGenericAllocationHandle) = agent_gate_real(GATED_cuMemRelease);

	return agent_is_handle(handle) ? agent_own_release(agent_cuda(), handle) : fn(handle);
}

CUresult agent_cuMemMap(CUdeviceptr ptr, size_t bytes, size_t offset,
			CUmemGenericAllocationHandle handle, unsigned long long flags)
{
	CUresult (*fn)(CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle,
		       unsigned long long) = agent_gate_real(GATED_cuMemMap);
	CUresult res;

	if (agent_is_handle(handle) && !offset && !flags)
		return agent_own_map(agent_cuda(), ptr, bytes, handle);
	/* What drivers may allow some day: such memory stays with them. */
	res = lend(&handle);
	return res ? res : fn(ptr, bytes, offset, handle, flags);
}

CUresult agent_cuMemUnmap(CUdeviceptr ptr, size_t bytes)
{
	return agent_own_unmap(agent_cuda(), ptr, bytes);
}

CUresult agent_cuMemExportToShareableHandle(void *out, CUmemGenericAllocationHandle handle,
					    int type, unsigned long long flags)
{
	CUresult (*fn)(void *, CUmemGenericAllocationHandle, int,
		       unsigned long long) = agent_gate_real(GATED_cuMemExportToShareableHandle);

	if (!agent_is_handle(handle))
		return fn(out, handle, type, flags);
	return !out || flags ? CUDA_ERROR_INVALID_VALUE
			     : agent_own_export(agent_cuda(), handle, type, out);
}

CUresult agent_cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *os_handle,
					      int type)
{
	CUresult (*fn)(CUmemGenericAllocationHandle *, void *,
		       int) = agent_gate_real(GATED_cuMemImportFromShareableHandle);
	CUresult (*properties)(CUmemAllocationProp *, CUmemGenericAllocationHandle) =
		agent_gate_real(GATED_cuMemGetAllocationPropertiesFromHandle);
	CUresult (*release)(CUmemGenericAllocationHandle) = agent_gate_real(GATED_cuMemRelease);
	CUresult res = fn(handle, os_handle, type);
	CUmemAllocationProp prop;
	int fd = -1;

	if (res || !properties || !release)
		return res;
	/* What the agent does not know of would be lost with the process at a dump. */
	res = properties(&prop, *handle);
	if (res) {
		release(*handle);
		return res;
	}
	if (type == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
		fd = (int)(intptr_t)os_handle;
	res = agent_own_imported(agent_cuda(), *handle, &prop, fd, handle);
	if (!res)
		agent_thread_start();
	return res;
}

CUresult agent_cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop,
						      CUmemGenericAllocationHandle handle)
{
	CUresult (*fn)(CUmemAllocationProp *, CUmemGenericAllocationHandle) =
		agent_gate_real(GATED_cuMemGetAllocationPropertiesFromHandle);

	return agent_is_handle(handle) && prop ? agent_own_properties(handle, prop)
					       : fn(prop, handle);
}

CUresult agent_cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *addr)
{
	CUresult (*fn)(CUmemGenericAllocationHandle *,
		       void *) = agent_gate_real(GATED_cuMemRetainAllocationHandle);
	CUdeviceptr ptr = (CUdeviceptr)(uintptr_t)addr;
	CUmemAllocationProp prop;
	struct agent_alloc a;

	if (!handle)
		return fn(handle, addr);
	/* What cuMemAlloc() made has no handle. */
	if (agent_find(ptr, &a))
		return CUDA_ERROR_INVALID_VALUE;
	return agent_own_at(ptr, handle, &prop) ? agent_own_retain(*handle) : fn(handle, addr);
}

CUresult agent_cuMulticastBindMem(CUmemGenericAllocationHandle multicast, size_t multicast_offset,
				  CUmemGenericAllocationHandle handle, size_t offset, size_t bytes,
				  unsigned long long flags)
{
	CUresult (*fn)(CUmemGenericAllocationHandle, size_t, CUmemGenericAllocationHandle, size_t,
		       size_t, unsigned long long) = agent_gate_real(GATED_cuMulticastBindMem);
	CUresult res = lend(&handle);

	return res ? res : fn(multicast, multicast_offset, handle, offset, bytes, flags);
}

CUresult agent_cuMulticastBindMem_v2(CUmemGenericAllocationHandle multicast, CUdevice device,
				     size_t multicast_offset, CUmemGenericAllocationHandle handle,
				     size_t offset, size_t bytes, unsigned long long flags)
{
	CUresult (*fn)(CUmemGenericAllocationHandle, CUdevice, size_t, CUmemGenericAllocationHandle,
		       size_t, size_t,
		       unsigned long long) = agent_gate_real(GATED_cuMulticastBindMem_v2);
	CUresult res = lend(&handle);

	return res ? res : fn(multicast, device, multicast_offset, handle, offset, bytes, flags);
}
