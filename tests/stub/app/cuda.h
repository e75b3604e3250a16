/* SPDX-License-Identifier: MIT */
/*
 * The driver as an application sees it: linked, or found at run time in the way of NVIDIA's
 * runtime library. Each function is called as cu.NAME(…).
 */
#ifndef APP_CUDA_H
#define APP_CUDA_H

#include <dlfcn.h>

#include "gpu/cuda/ckf_cuda_abi.h"
#include "tests/progs/prog.h"

/* X(field, name and version for cuGetProcAddress, symbol, parameters) */
#define APP_FUNCTIONS(X)                                                                           \
	X(init, "cuInit", 2000, cuInit, (unsigned int flags))                                      \
	X(get_count, "cuDeviceGetCount", 2000, cuDeviceGetCount, (int *count))                     \
	X(retain, "cuDevicePrimaryCtxRetain", 7000, cuDevicePrimaryCtxRetain,                      \
	  (CUcontext * ctx, CUdevice dev))                                                         \
	X(release, "cuDevicePrimaryCtxRelease", 11000, cuDevicePrimaryCtxRelease_v2,               \
	  (CUdevice dev))                                                                          \
	X(set_current, "cuCtxSetCurrent", 4000, cuCtxSetCurrent, (CUcontext ctx))                  \
	X(synchronize, "cuCtxSynchronize", 2000, cuCtxSynchronize, (void))                         \
	X(alloc, "cuMemAlloc", 3020, cuMemAlloc_v2, (CUdeviceptr * out, size_t bytes))             \
	X(alloc_pitch, "cuMemAllocPitch", 3020, cuMemAllocPitch_v2,                                \
	  (CUdeviceptr * out, size_t * pitch, size_t width, size_t height, unsigned int element))  \
	X(mem_free, "cuMemFree", 3020, cuMemFree_v2, (CUdeviceptr ptr))                            \
	X(get_range, "cuMemGetAddressRange", 3020, cuMemGetAddressRange_v2,                        \
	  (CUdeviceptr * base, size_t * bytes, CUdeviceptr ptr))                                   \
	X(host_alloc, "cuMemHostAlloc", 2020, cuMemHostAlloc,                                      \
	  (void **out, size_t bytes, unsigned int flags))                                          \
	X(free_host, "cuMemFreeHost", 2000, cuMemFreeHost, (void *p))                              \
	X(htod_async, "cuMemcpyHtoDAsync", 3020, cuMemcpyHtoDAsync_v2,                             \
	  (CUdeviceptr dst, const void *src, size_t bytes, CUstream stream))                       \
	X(dtoh_async, "cuMemcpyDtoHAsync", 3020, cuMemcpyDtoHAsync_v2,                             \
	  (void *dst, CUdeviceptr src, size_t bytes, CUstream stream))                             \
	X(dtod_async, "cuMemcpyDtoDAsync", 3020, cuMemcpyDtoDAsync_v2,                             \
	  (CUdeviceptr dst, CUdeviceptr src, size_t bytes, CUstream stream))                       \
	X(dtoh, "cuMemcpyDtoH", 3020, cuMemcpyDtoH_v2, (void *dst, CUdeviceptr src, size_t bytes)) \
	X(set_async, "cuMemsetD8Async", 3020, cuMemsetD8Async,                                     \
	  (CUdeviceptr dst, unsigned char value, size_t n, CUstream stream))                       \
	X(stream_create, "cuStreamCreate", 2000, cuStreamCreate,                                   \
	  (CUstream * out, unsigned int flags))                                                    \
	X(stream_destroy, "cuStreamDestroy", 4000, cuStreamDestroy_v2, (CUstream stream))          \
	X(stream_sync, "cuStreamSynchronize", 2000, cuStreamSynchronize, (CUstream stream))        \
	X(stream_wait, "cuStreamWaitEvent", 3020, cuStreamWaitEvent,                               \
	  (CUstream stream, CUevent event, unsigned int flags))                                    \
	X(event_create, "cuEventCreate", 2000, cuEventCreate, (CUevent * out, unsigned int flags)) \
	X(event_destroy, "cuEventDestroy", 4000, cuEventDestroy_v2, (CUevent event))               \
	X(event_record, "cuEventRecord", 2000, cuEventRecord, (CUevent event, CUstream stream))    \
	X(event_sync, "cuEventSynchronize", 2000, cuEventSynchronize, (CUevent event))             \
	X(event_query, "cuEventQuery", 2000, cuEventQuery, (CUevent event))                        \
	X(reserve, "cuMemAddressReserve", 10020, cuMemAddressReserve,                              \
	  (CUdeviceptr * out, size_t bytes, size_t align, CUdeviceptr addr,                        \
	   unsigned long long flags))                                                              \
	X(create, "cuMemCreate", 10020, cuMemCreate,                                               \
	  (CUmemGenericAllocationHandle * out, size_t bytes, const CUmemAllocationProp *prop,      \
	   unsigned long long flags))                                                              \
	X(map, "cuMemMap", 10020, cuMemMap,                                                        \
	  (CUdeviceptr ptr, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,      \
	   unsigned long long flags))                                                              \
	X(set_access, "cuMemSetAccess", 10020, cuMemSetAccess,                                     \
	  (CUdeviceptr ptr, size_t bytes, const CUmemAccessDesc *desc, size_t count))              \
	X(get_access, "cuMemGetAccess", 10020, cuMemGetAccess,                                     \
	  (unsigned long long *flags, const CUmemLocation *where, CUdeviceptr ptr))                \
	X(unmap, "cuMemUnmap", 10020, cuMemUnmap, (CUdeviceptr ptr, size_t bytes))                 \
	X(mem_release, "cuMemRelease", 10020, cuMemRelease, (CUmemGenericAllocationHandle handle)) \
	X(mem_export, "cuMemExportToShareableHandle", 10020, cuMemExportToShareableHandle,         \
	  (void *out, CUmemGenericAllocationHandle handle, int type, unsigned long long flags))    \
	X(mem_import, "cuMemImportFromShareableHandle", 10020, cuMemImportFromShareableHandle,     \
	  (CUmemGenericAllocationHandle * handle, void *os_handle, int type))                      \
	X(get_prop, "cuMemGetAllocationPropertiesFromHandle", 10020,                               \
	  cuMemGetAllocationPropertiesFromHandle,                                                  \
	  (CUmemAllocationProp * prop, CUmemGenericAllocationHandle handle))                       \
	X(retain_handle, "cuMemRetainAllocationHandle", 11000, cuMemRetainAllocationHandle,        \
	  (CUmemGenericAllocationHandle * handle, void *addr))                                     \
	X(get_attribute, "cuPointerGetAttribute", 4000, cuPointerGetAttribute,                     \
	  (void *data, int attribute, CUdeviceptr ptr))                                            \
	X(ipc_get, "cuIpcGetMemHandle", 4010, cuIpcGetMemHandle,                                   \
	  (CUipcMemHandle * handle, CUdeviceptr ptr))                                              \
	X(ipc_open, "cuIpcOpenMemHandle", 11000, cuIpcOpenMemHandle_v2,                            \
	  (CUdeviceptr * out, CUipcMemHandle handle, unsigned int flags))                          \
	X(ipc_close, "cuIpcCloseMemHandle", 4010, cuIpcCloseMemHandle, (CUdeviceptr ptr))          \
	X(ipc_get_event, "cuIpcGetEventHandle", 4010, cuIpcGetEventHandle,                         \
	  (CUipcEventHandle * handle, CUevent event))                                              \
	X(ipc_open_event, "cuIpcOpenEventHandle", 4010, cuIpcOpenEventHandle,                      \
	  (CUevent * out, CUipcEventHandle handle))

struct app_cuda {
#define APP_FIELD(field, name, version, symbol, params) CUresult(*field) params;
	APP_FUNCTIONS(APP_FIELD)
#undef APP_FIELD
};

#ifdef LINKED
#define APP_DECLARE(field, name, version, symbol, params) CUresult symbol params;
APP_FUNCTIONS(APP_DECLARE)
#undef APP_DECLARE
#endif

static struct app_cuda cu;

static inline void cuda_load(void)
{
#ifdef LINKED
#define APP_SET(field, name, version, symbol, params) cu.field = symbol;
	APP_FUNCTIONS(APP_SET)
#undef APP_SET
#else
	CUresult (*get)(const char *, void **, int, uint64_t, int *);
	void *lib = dlopen(CKF_CUDA_LIBRARY, RTLD_NOW);
	int status = 0;

	if (!lib)
		die("%s", dlerror());
	get = dlsym(lib, "cuGetProcAddress_v2");
	if (!get)
		die("%s", dlerror());
#define APP_FIND(field, name, version, symbol, params)                                 \
	if (get(name, (void **)&cu.field, version, 0, &status) || status || !cu.field) \
		die("no %s", name);
	APP_FUNCTIONS(APP_FIND)
#undef APP_FIND
#endif
}

/* Ends the program when a call fails. */
#define MUST(call)                                             \
	do {                                                   \
		CUresult res_ = cu.call;                       \
		if (res_) {                                    \
			errno = 0;                             \
			die("%s: CUDA error %d", #call, res_); \
		}                                              \
	} while (0)

#endif
