/* SPDX-License-Identifier: MIT */
/*
 * libhsakmt, loaded at run time: a table of the functions that ckfast calls. The library stays
 * loaded, as a handler of fork() that it installs would otherwise point to nothing.
 */
#ifndef AMD_HSAKMT_H
#define AMD_HSAKMT_H

#include <hsakmt.h>

#include "base/ckf_error.h"

#define HSAKMT_LIBRARY "libhsakmt.so.1"

#define HSAKMT_FUNCTIONS(X)                            \
	X(open, hsaKmtOpenKFD)                         \
	X(close, hsaKmtCloseKFD)                       \
	X(acquire, hsaKmtAcquireSystemProperties)      \
	X(release, hsaKmtReleaseSystemProperties)      \
	X(node, hsaKmtGetNodeProperties)               \
	X(alloc, hsaKmtAllocMemory)                    \
	X(free, hsaKmtFreeMemory)                      \
	X(map, hsaKmtMapMemoryToGPUNodes)              \
	X(unmap, hsaKmtUnmapMemoryToGPU)               \
	X(import, hsaKmtRegisterGraphicsHandleToNodes) \
	X(deregister, hsaKmtDeregisterMemory)          \
	X(info, hsaKmtQueryPointerInfo)                \
	X(queue_create, hsaKmtCreateQueue)             \
	X(queue_destroy, hsaKmtDestroyQueue)

struct hsakmt {
#define HSAKMT_FIELD(field, name) __typeof__(name) *field;
	HSAKMT_FUNCTIONS(HSAKMT_FIELD)
#undef HSAKMT_FIELD
};

/* -ENODEV when there is no library, -EOPNOTSUPP when it lacks a function. */
int hsakmt_load(const struct hsakmt **out, struct ckf_error *err);

/* For a call that failed: sets err to "<what>: libhsakmt error <number>". The -errno for it. */
int hsakmt_error(HSAKMT_STATUS status, const char *what, struct ckf_error *err);

#endif
