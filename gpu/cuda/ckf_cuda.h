/* SPDX-License-Identifier: MIT */
/*
 * The CUDA driver, loaded at run time: a table of the functions that ckfast calls.
 *
 * libcuda.so.1 is opened on the first ckf_cuda_load() of a process and stays open: the driver has
 * threads of its own and cannot be unloaded. Loading does not initialise it; cuInit() is the
 * caller's to call. The table is read-only and may be used by all threads.
 */
#ifndef CKF_CUDA_H
#define CKF_CUDA_H

#include "base/ckf_error.h"
#include "ckf_cuda_abi.h"

/*
 * X(field, name, version, parameters): name and version are those of cuGetProcAddress(). The
 * checkpoint calls are in drivers from 570 on (CUDA 12.8), the rest since 11.3 or earlier.
 */
#define CKF_CUDA_FUNCTIONS(X)                                                                    \
	X(init, "cuInit", 2000, (unsigned int flags))                                            \
	X(driver_get_version, "cuDriverGetVersion", 2020, (int *version))                        \
	X(get_error_name, "cuGetErrorName", 6000, (CUresult error, const char **name))           \
	X(device_get_count, "cuDeviceGetCount", 2000, (int *count))                              \
	X(device_get, "cuDeviceGet", 2000, (CUdevice * dev, int ordinal))                        \
	X(device_get_name, "cuDeviceGetName", 2000, (char *name, int len, CUdevice dev))         \
	X(device_get_uuid, "cuDeviceGetUuid", 11040, (CUuuid * uuid, CUdevice dev))              \
	X(device_get_attribute, "cuDeviceGetAttribute", 2000, (int *pi, int attr, CUdevice dev)) \
	X(device_total_mem, "cuDeviceTotalMem", 3020, (size_t * bytes, CUdevice dev))            \
	X(primary_ctx_retain, "cuDevicePrimaryCtxRetain", 7000, (CUcontext * ctx, CUdevice dev)) \
	X(primary_ctx_release, "cuDevicePrimaryCtxRelease", 11000, (CUdevice dev))               \
	X(primary_ctx_get_state, "cuDevicePrimaryCtxGetState", 7000,                             \
	  (CUdevice dev, unsigned int *flags, int *active))                                      \
	X(ctx_set_current, "cuCtxSetCurrent", 4000, (CUcontext ctx))                             \
	X(ctx_get_current, "cuCtxGetCurrent", 4000, (CUcontext * ctx))                           \
	X(ctx_get_device, "cuCtxGetDevice", 2000, (CUdevice * dev))                              \
	X(ctx_synchronize, "cuCtxSynchronize", 2000, (void))                                     \
	X(mem_get_info, "cuMemGetInfo", 3020, (size_t * free_bytes, size_t * total))             \
	X(mem_alloc, "cuMemAlloc", 3020, (CUdeviceptr * ptr, size_t bytes))                      \
	X(mem_free, "cuMemFree", 3020, (CUdeviceptr ptr))                                        \
	X(mem_host_alloc, "cuMemHostAlloc", 2020, (void **p, size_t bytes, unsigned int flags))  \
	X(mem_free_host, "cuMemFreeHost", 2000, (void *p))                                       \
	X(mem_host_register, "cuMemHostRegister", 6050,                                          \
	  (void *p, size_t bytes, unsigned int flags))                                           \
	X(mem_host_unregister, "cuMemHostUnregister", 4000, (void *p))                           \
	X(mem_address_reserve, "cuMemAddressReserve", 10020,                                     \
	  (CUdeviceptr * ptr, size_t bytes, size_t align, CUdeviceptr addr,                      \
	   unsigned long long flags))                                                            \
	X(mem_address_free, "cuMemAddressFree", 10020, (CUdeviceptr ptr, size_t bytes))          \
	X(mem_create, "cuMemCreate", 10020,                                                      \
	  (CUmemGenericAllocationHandle * handle, size_t bytes, const CUmemAllocationProp *prop, \
	   unsigned long long flags))                                                            \
	X(mem_release, "cuMemRelease", 10020, (CUmemGenericAllocationHandle handle))             \
	X(mem_map, "cuMemMap", 10020,                                                            \
	  (CUdeviceptr ptr, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,    \
	   unsigned long long flags))                                                            \
	X(mem_unmap, "cuMemUnmap", 10020, (CUdeviceptr ptr, size_t bytes))                       \
	X(mem_set_access, "cuMemSetAccess", 10020,                                               \
	  (CUdeviceptr ptr, size_t bytes, const CUmemAccessDesc *desc, size_t count))            \
	X(mem_get_access, "cuMemGetAccess", 10020,                                               \
	  (unsigned long long *flags, const CUmemLocation *location, CUdeviceptr ptr))           \
	X(mem_export, "cuMemExportToShareableHandle", 10020,                                     \
	  (void *out, CUmemGenericAllocationHandle handle, int type, unsigned long long flags))  \
	X(mem_import, "cuMemImportFromShareableHandle", 10020,                                   \
	  (CUmemGenericAllocationHandle * handle, void *os_handle, int type))                    \
	X(mem_get_granularity, "cuMemGetAllocationGranularity", 10020,                           \
	  (size_t * bytes, const CUmemAllocationProp *prop, int option))                         \
	X(memcpy_htod_async, "cuMemcpyHtoDAsync", 3020,                                          \
	  (CUdeviceptr dst, const void *src, size_t bytes, CUstream stream))                     \
	X(memcpy_dtoh_async, "cuMemcpyDtoHAsync", 3020,                                          \
	  (void *dst, CUdeviceptr src, size_t bytes, CUstream stream))                           \
	X(memset_d8_async, "cuMemsetD8Async", 3020,                                              \
	  (CUdeviceptr dst, unsigned char value, size_t bytes, CUstream stream))                 \
	X(stream_create, "cuStreamCreate", 2000, (CUstream * stream, unsigned int flags))        \
	X(stream_destroy, "cuStreamDestroy", 4000, (CUstream stream))                            \
	X(stream_synchronize, "cuStreamSynchronize", 2000, (CUstream stream))                    \
	X(event_create, "cuEventCreate", 2000, (CUevent * event, unsigned int flags))            \
	X(event_destroy, "cuEventDestroy", 4000, (CUevent event))                                \
	X(event_record, "cuEventRecord", 2000, (CUevent event, CUstream stream))                 \
	X(event_synchronize, "cuEventSynchronize", 2000, (CUevent event))                        \
	X(event_query, "cuEventQuery", 2000, (CUevent event))                                    \
	X(checkpoint_lock, "cuCheckpointProcessLock", 12080,                                     \
	  (int pid, const CUcheckpointLockArgs *args))                                           \
	X(checkpoint_checkpoint, "cuCheckpointProcessCheckpoint", 12080,                         \
	  (int pid, const void *args))                                                           \
	X(checkpoint_restore, "cuCheckpointProcessRestore", 12080,                               \
	  (int pid, const CUcheckpointRestoreArgs *args))                                        \
	X(checkpoint_unlock, "cuCheckpointProcessUnlock", 12080, (int pid, const void *args))    \
	X(checkpoint_get_state, "cuCheckpointProcessGetState", 12080, (int pid, int *state))     \
	X(checkpoint_get_restore_tid, "cuCheckpointProcessGetRestoreThreadId", 12080,            \
	  (int pid, int *tid))

struct ckf_cuda {
#define CKF_CUDA_FIELD(field, name, version, params) CUresult(*field) params;
	CKF_CUDA_FUNCTIONS(CKF_CUDA_FIELD)
#undef CKF_CUDA_FIELD
};

/*
 * -ENODEV when there is no driver, -EOPNOTSUPP when it lacks one of the functions (named in the
 * message, with the driver's version).
 */
int ckf_cuda_load(const struct ckf_cuda **out, struct ckf_error *err);

/*
 * For a call that failed: sets err to "<what>: <name of the error>" and gives the -errno for it:
 * -ENOMEM, -ENODEV, -EOPNOTSUPP or -EIO.
 */
int ckf_cuda_error(const struct ckf_cuda *cu, CUresult res, const char *what,
		   struct ckf_error *err);

#endif
