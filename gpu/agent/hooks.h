/* SPDX-License-Identifier: MIT */
/*
 * The functions that the agent has in place of the driver's. They are called by way of the gate
 * (gate.h), and only where the driver has the function. Those of the virtual memory API are in
 * vmm.c, those of CUDA IPC in ipc_hooks.c, those that look functions up in entry.c, all others in
 * hooks.c.
 */
#ifndef CKF_AGENT_HOOKS_H
#define CKF_AGENT_HOOKS_H

#include "agent.h"

#define EXPORT __attribute__((visibility("default")))

CUresult agent_cuInit(unsigned int flags);
CUresult agent_cuMemAlloc_v2(CUdeviceptr *ptr, size_t bytes);
CUresult agent_cuMemAllocPitch_v2(CUdeviceptr *ptr, size_t *pitch, size_t width, size_t height,
				  unsigned int element_bytes);
CUresult agent_cuMemFree_v2(CUdeviceptr ptr);
CUresult agent_cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr ptr);
CUresult agent_cuPointerGetAttribute(void *data, int attribute, CUdeviceptr ptr);
CUresult agent_cuPointerGetAttributes(unsigned int nr, int *attributes, void **data,
				      CUdeviceptr ptr);
CUresult agent_cuIpcGetMemHandle(CUipcMemHandle *handle, CUdeviceptr ptr);
CUresult agent_cuIpcOpenMemHandle(CUdeviceptr *out, CUipcMemHandle handle, unsigned int flags);
CUresult agent_cuIpcOpenMemHandle_v2(CUdeviceptr *out, CUipcMemHandle handle, unsigned int flags);
CUresult agent_cuIpcCloseMemHandle(CUdeviceptr ptr);
CUresult agent_cuIpcGetEventHandle(CUipcEventHandle *handle, CUevent event);
CUresult agent_cuIpcOpenEventHandle(CUevent *out, CUipcEventHandle handle);
CUresult agent_cuEventDestroy_v2(CUevent event);
CUresult agent_cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags);
CUresult agent_cuCtxDisablePeerAccess(CUcontext peer);
CUresult agent_cuCtxDestroy_v2(CUcontext ctx);
CUresult agent_cuDevicePrimaryCtxRelease_v2(CUdevice dev);
CUresult agent_cuDevicePrimaryCtxReset_v2(CUdevice dev);
EXPORT CUresult cuGetProcAddress(const char *name, void **fn, int version, uint64_t flags);
EXPORT CUresult cuGetProcAddress_v2(const char *name, void **fn, int version, uint64_t flags,
				    int *status);
/* Not counted for coverage: that would follow its last call, which has to be a jump. */
__attribute__((no_profile_instrument_function)) EXPORT void *dlsym(void *restrict handle,
								   const char *restrict name);
CUresult agent_cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes,
			   const CUmemAllocationProp *prop, unsigned long long flags);
CUresult agent_cuMemRelease(CUmemGenericAllocationHandle handle);
CUresult agent_cuMemMap(CUdeviceptr ptr, size_t bytes, size_t offset,
			CUmemGenericAllocationHandle handle, unsigned long long flags);
CUresult agent_cuMemUnmap(CUdeviceptr ptr, size_t bytes);
CUresult agent_cuMemExportToShareableHandle(void *out, CUmemGenericAllocationHandle handle,
					    int type, unsigned long long flags);
CUresult agent_cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *os_handle,
					      int type);
CUresult agent_cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop,
						      CUmemGenericAllocationHandle handle);
CUresult agent_cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *addr);
CUresult agent_cuMulticastBindMem(CUmemGenericAllocationHandle multicast, size_t multicast_offset,
				  CUmemGenericAllocationHandle handle, size_t offset, size_t bytes,
				  unsigned long long flags);
CUresult agent_cuMulticastBindMem_v2(CUmemGenericAllocationHandle multicast, CUdevice device,
				     size_t multicast_offset, CUmemGenericAllocationHandle handle,
				     size_t offset, size_t bytes, unsigned long long flags);

/* ipc_hooks.c: small memory or an event that the driver may have shared is gone. */
void agent_driver_ipc_end(uint64_t key);

#endif
