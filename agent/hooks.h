/* SPDX-License-Identifier: MIT */
/*
 * The functions that the agent is in front of: as the driver has them, and as positions in the
 * table of hooks.c. Those of the virtual memory API are in vmm.c, all others in hooks.c.
 */
#ifndef CKF_AGENT_HOOKS_H
#define CKF_AGENT_HOOKS_H

#include "agent.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *ptr, size_t bytes);
EXPORT CUresult cuMemAllocPitch_v2(CUdeviceptr *ptr, size_t *pitch, size_t width, size_t height,
				   unsigned int element_bytes);
EXPORT CUresult cuMemFree_v2(CUdeviceptr ptr);
EXPORT CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr ptr);
EXPORT CUresult cuPointerGetAttribute(void *data, int attribute, CUdeviceptr ptr);
EXPORT CUresult cuPointerGetAttributes(unsigned int nr, int *attributes, void **data,
				       CUdeviceptr ptr);
EXPORT CUresult cuIpcGetMemHandle(CUipcMemHandle *handle, CUdeviceptr ptr);
EXPORT CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags);
EXPORT CUresult cuCtxDisablePeerAccess(CUcontext peer);
EXPORT CUresult cuCtxDestroy_v2(CUcontext ctx);
EXPORT CUresult cuDevicePrimaryCtxReset_v2(CUdevice dev);
EXPORT CUresult cuGetProcAddress(const char *name, void **fn, int version, uint64_t flags);
EXPORT CUresult cuGetProcAddress_v2(const char *name, void **fn, int version, uint64_t flags,
				    int *status);
EXPORT void *dlsym(void *restrict handle, const char *restrict name);
EXPORT CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes,
			    const CUmemAllocationProp *prop, unsigned long long flags);
EXPORT CUresult cuMemRelease(CUmemGenericAllocationHandle handle);
EXPORT CUresult cuMemMap(CUdeviceptr ptr, size_t bytes, size_t offset,
			 CUmemGenericAllocationHandle handle, unsigned long long flags);
EXPORT CUresult cuMemUnmap(CUdeviceptr ptr, size_t bytes);
EXPORT CUresult cuMemExportToShareableHandle(void *out, CUmemGenericAllocationHandle handle,
					     int type, unsigned long long flags);
EXPORT CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle,
					       void *os_handle, int type);
EXPORT CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop,
						       CUmemGenericAllocationHandle handle);
EXPORT CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *addr);
EXPORT CUresult cuMulticastBindMem(CUmemGenericAllocationHandle multicast, size_t multicast_offset,
				   CUmemGenericAllocationHandle handle, size_t offset, size_t bytes,
				   unsigned long long flags);
EXPORT CUresult cuMulticastBindMem_v2(CUmemGenericAllocationHandle multicast, CUdevice device,
				      size_t multicast_offset, CUmemGenericAllocationHandle handle,
				      size_t offset, size_t bytes, unsigned long long flags);

enum agent_hook {
	HOOK_ALLOC,
	HOOK_ALLOC_PITCH,
	HOOK_FREE,
	HOOK_RANGE,
	HOOK_ATTRIBUTE,
	HOOK_ATTRIBUTES,
	HOOK_IPC_HANDLE,
	HOOK_ENABLE_PEER,
	HOOK_DISABLE_PEER,
	HOOK_CTX_DESTROY,
	HOOK_CTX_RESET,
	HOOK_GET_PROC,
	HOOK_GET_PROC_V2,
	HOOK_CREATE,
	HOOK_RELEASE,
	HOOK_MAP,
	HOOK_UNMAP,
	HOOK_EXPORT,
	HOOK_IMPORT,
	HOOK_PROPERTIES,
	HOOK_RETAIN,
	HOOK_BIND,
	HOOK_BIND_V2,
};

/* The driver's function, for a wrapper that an application has reached; or NULL. */
void *agent_real(enum agent_hook nr);

#endif
