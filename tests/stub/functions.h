/* SPDX-License-Identifier: MIT */
/*
 * The functions of the fake driver: the name and the version that cuGetProcAddress() knows, the
 * name of the symbol, and what a call needs: FREE (nothing, and is never held up), GATE (is held up
 * while the process is locked), INIT (cuInit() too), CTX (a current context too).
 */
#ifndef STUB_FUNCTIONS_H
#define STUB_FUNCTIONS_H

enum stub_need {
	STUB_FREE,
	STUB_GATE,
	STUB_INIT,
	STUB_CTX
};

#define STUB_FUNCTIONS(X)                                                                          \
	X("cuInit", 2000, cuInit, STUB_GATE)                                                       \
	X("cuDriverGetVersion", 2020, cuDriverGetVersion, STUB_FREE)                               \
	X("cuGetErrorName", 6000, cuGetErrorName, STUB_FREE)                                       \
	X("cuGetErrorString", 6000, cuGetErrorString, STUB_FREE)                                   \
	X("cuGetProcAddress", 11030, cuGetProcAddress, STUB_FREE)                                  \
	X("cuGetProcAddress", 12000, cuGetProcAddress_v2, STUB_FREE)                               \
	X("cuDeviceGetCount", 2000, cuDeviceGetCount, STUB_INIT)                                   \
	X("cuDeviceGet", 2000, cuDeviceGet, STUB_INIT)                                             \
	X("cuDeviceGetName", 2000, cuDeviceGetName, STUB_INIT)                                     \
	X("cuDeviceGetUuid", 9020, cuDeviceGetUuid, STUB_INIT)                                     \
	X("cuDeviceGetUuid", 11040, cuDeviceGetUuid_v2, STUB_INIT)                                 \
	X("cuDeviceGetAttribute", 2000, cuDeviceGetAttribute, STUB_INIT)                           \
	X("cuDeviceTotalMem", 3020, cuDeviceTotalMem_v2, STUB_INIT)                                \
	X("cuDeviceCanAccessPeer", 4000, cuDeviceCanAccessPeer, STUB_INIT)                         \
	X("cuDevicePrimaryCtxRetain", 7000, cuDevicePrimaryCtxRetain, STUB_INIT)                   \
	X("cuDevicePrimaryCtxRelease", 11000, cuDevicePrimaryCtxRelease_v2, STUB_INIT)             \
	X("cuDevicePrimaryCtxGetState", 7000, cuDevicePrimaryCtxGetState, STUB_INIT)               \
	X("cuCtxCreate", 3020, cuCtxCreate_v2, STUB_INIT)                                          \
	X("cuCtxDestroy", 4000, cuCtxDestroy_v2, STUB_INIT)                                        \
	X("cuCtxSetCurrent", 4000, cuCtxSetCurrent, STUB_INIT)                                     \
	X("cuCtxGetCurrent", 4000, cuCtxGetCurrent, STUB_INIT)                                     \
	X("cuCtxPushCurrent", 4000, cuCtxPushCurrent_v2, STUB_INIT)                                \
	X("cuCtxPopCurrent", 4000, cuCtxPopCurrent_v2, STUB_INIT)                                  \
	X("cuCtxGetDevice", 2000, cuCtxGetDevice, STUB_CTX)                                        \
	X("cuCtxSynchronize", 2000, cuCtxSynchronize, STUB_CTX)                                    \
	X("cuCtxEnablePeerAccess", 4000, cuCtxEnablePeerAccess, STUB_CTX)                          \
	X("cuCtxDisablePeerAccess", 4000, cuCtxDisablePeerAccess, STUB_CTX)                        \
	X("cuMemGetInfo", 3020, cuMemGetInfo_v2, STUB_CTX)                                         \
	X("cuMemAlloc", 3020, cuMemAlloc_v2, STUB_CTX)                                             \
	X("cuMemAllocPitch", 3020, cuMemAllocPitch_v2, STUB_CTX)                                   \
	X("cuMemFree", 3020, cuMemFree_v2, STUB_CTX)                                               \
	X("cuMemAllocAsync", 11020, cuMemAllocAsync, STUB_CTX)                                     \
	X("cuMemFreeAsync", 11020, cuMemFreeAsync, STUB_CTX)                                       \
	X("cuMemGetAddressRange", 3020, cuMemGetAddressRange_v2, STUB_CTX)                         \
	X("cuPointerGetAttribute", 4000, cuPointerGetAttribute, STUB_INIT)                         \
	X("cuPointerGetAttributes", 7000, cuPointerGetAttributes, STUB_INIT)                       \
	X("cuIpcGetMemHandle", 4010, cuIpcGetMemHandle, STUB_CTX)                                  \
	X("cuIpcOpenMemHandle", 11000, cuIpcOpenMemHandle_v2, STUB_CTX)                            \
	X("cuIpcCloseMemHandle", 4010, cuIpcCloseMemHandle, STUB_CTX)                              \
	X("cuIpcGetEventHandle", 4010, cuIpcGetEventHandle, STUB_CTX)                              \
	X("cuIpcOpenEventHandle", 4010, cuIpcOpenEventHandle, STUB_CTX)                            \
	X("cuMemHostAlloc", 2020, cuMemHostAlloc, STUB_CTX)                                        \
	X("cuMemAllocHost", 3020, cuMemAllocHost_v2, STUB_CTX)                                     \
	X("cuMemFreeHost", 2000, cuMemFreeHost, STUB_CTX)                                          \
	X("cuMemHostRegister", 6050, cuMemHostRegister_v2, STUB_CTX)                               \
	X("cuMemHostUnregister", 4000, cuMemHostUnregister, STUB_CTX)                              \
	X("cuMemHostGetDevicePointer", 3020, cuMemHostGetDevicePointer_v2, STUB_CTX)               \
	X("cuMemAddressReserve", 10020, cuMemAddressReserve, STUB_INIT)                            \
	X("cuMemAddressFree", 10020, cuMemAddressFree, STUB_INIT)                                  \
	X("cuMemCreate", 10020, cuMemCreate, STUB_INIT)                                            \
	X("cuMemRelease", 10020, cuMemRelease, STUB_INIT)                                          \
	X("cuMemMap", 10020, cuMemMap, STUB_INIT)                                                  \
	X("cuMemUnmap", 10020, cuMemUnmap, STUB_INIT)                                              \
	X("cuMemSetAccess", 10020, cuMemSetAccess, STUB_INIT)                                      \
	X("cuMemGetAccess", 10020, cuMemGetAccess, STUB_INIT)                                      \
	X("cuMemExportToShareableHandle", 10020, cuMemExportToShareableHandle, STUB_INIT)          \
	X("cuMemImportFromShareableHandle", 10020, cuMemImportFromShareableHandle, STUB_INIT)      \
	X("cuMemGetAllocationGranularity", 10020, cuMemGetAllocationGranularity, STUB_INIT)        \
	X("cuMemGetAllocationPropertiesFromHandle", 10020, cuMemGetAllocationPropertiesFromHandle, \
	  STUB_INIT)                                                                               \
	X("cuMemRetainAllocationHandle", 11000, cuMemRetainAllocationHandle, STUB_INIT)            \
	X("cuMemcpy", 4000, cuMemcpy, STUB_CTX)                                                    \
	X("cuMemcpyAsync", 4000, cuMemcpyAsync, STUB_CTX)                                          \
	X("cuMemcpyHtoD", 3020, cuMemcpyHtoD_v2, STUB_CTX)                                         \
	X("cuMemcpyDtoH", 3020, cuMemcpyDtoH_v2, STUB_CTX)                                         \
	X("cuMemcpyDtoD", 3020, cuMemcpyDtoD_v2, STUB_CTX)                                         \
	X("cuMemcpyHtoDAsync", 3020, cuMemcpyHtoDAsync_v2, STUB_CTX)                               \
	X("cuMemcpyDtoHAsync", 3020, cuMemcpyDtoHAsync_v2, STUB_CTX)                               \
	X("cuMemcpyDtoDAsync", 3020, cuMemcpyDtoDAsync_v2, STUB_CTX)                               \
	X("cuMemsetD8", 3020, cuMemsetD8_v2, STUB_CTX)                                             \
	X("cuMemsetD16", 3020, cuMemsetD16_v2, STUB_CTX)                                           \
	X("cuMemsetD32", 3020, cuMemsetD32_v2, STUB_CTX)                                           \
	X("cuMemsetD8Async", 3020, cuMemsetD8Async, STUB_CTX)                                      \
	X("cuMemsetD16Async", 3020, cuMemsetD16Async, STUB_CTX)                                    \
	X("cuMemsetD32Async", 3020, cuMemsetD32Async, STUB_CTX)                                    \
	X("cuStreamCreate", 2000, cuStreamCreate, STUB_CTX)                                        \
	X("cuStreamCreateWithPriority", 5050, cuStreamCreateWithPriority, STUB_CTX)                \
	X("cuStreamDestroy", 4000, cuStreamDestroy_v2, STUB_CTX)                                   \
	X("cuStreamSynchronize", 2000, cuStreamSynchronize, STUB_CTX)                              \
	X("cuStreamQuery", 2000, cuStreamQuery, STUB_CTX)                                          \
	X("cuStreamWaitEvent", 3020, cuStreamWaitEvent, STUB_CTX)                                  \
	X("cuEventCreate", 2000, cuEventCreate, STUB_CTX)                                          \
	X("cuEventDestroy", 4000, cuEventDestroy_v2, STUB_CTX)                                     \
	X("cuEventRecord", 2000, cuEventRecord, STUB_CTX)                                          \
	X("cuEventSynchronize", 2000, cuEventSynchronize, STUB_CTX)                                \
	X("cuEventQuery", 2000, cuEventQuery, STUB_CTX)                                            \
	X("cuEventElapsedTime", 2000, cuEventElapsedTime, STUB_CTX)                                \
	X("cuCheckpointProcessLock", 12080, cuCheckpointProcessLock, STUB_FREE)                    \
	X("cuCheckpointProcessCheckpoint", 12080, cuCheckpointProcessCheckpoint, STUB_FREE)        \
	X("cuCheckpointProcessRestore", 12080, cuCheckpointProcessRestore, STUB_FREE)              \
	X("cuCheckpointProcessUnlock", 12080, cuCheckpointProcessUnlock, STUB_FREE)                \
	X("cuCheckpointProcessGetState", 12080, cuCheckpointProcessGetState, STUB_FREE)            \
	X("cuCheckpointProcessGetRestoreThreadId", 12080, cuCheckpointProcessGetRestoreThreadId,   \
	  STUB_FREE)

enum stub_fn {
#define STUB_FN(name, version, symbol, need) F_##symbol,
	STUB_FUNCTIONS(STUB_FN)
#undef STUB_FN
	STUB_NR_FNS
};

#endif
