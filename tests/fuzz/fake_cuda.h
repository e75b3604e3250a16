/* SPDX-License-Identifier: MIT */
/*
 * A CUDA driver inside of a fuzz target: memory is memfds and mappings, streams do all work at
 * once, and what is left over is counted. One source file includes it.
 */
#ifndef CKF_FAKE_CUDA_H
#define CKF_FAKE_CUDA_H

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gpu/cuda/ckf_cuda.h"

#define FAKE_GPUS 2
#define FAKE_GRANULARITY (2u << 20)
#define FAKE_GPU_BYTES (256u << 20)
#define FAKE_MAX_BYTES (64u << 20) /* of one allocation: a test reads and writes all of it */

static atomic_int fake_handles, fake_ranges;
static atomic_int fake_number; /* of the process that checkpoint calls may be made for */

static CUresult fake_ok(void)
{
	return CUDA_SUCCESS;
}

static CUresult fake_init(unsigned int flags)
{
	(void)flags;
	return fake_ok();
}

static CUresult fake_driver_get_version(int *version)
{
	*version = 13000;
	return fake_ok();
}

static CUresult fake_get_error_name(CUresult error, const char **name)
{
	(void)error;
	*name = "FAKE";
	return fake_ok();
}

static CUresult fake_device_get_count(int *count)
{
	*count = FAKE_GPUS;
	return fake_ok();
}

static CUresult fake_device_get(CUdevice *dev, int ordinal)
{
	*dev = ordinal;
	return fake_ok();
}

static CUresult fake_device_get_name(char *name, int len, CUdevice dev)
{
	(void)dev;
	snprintf(name, (size_t)len, "fake");
	return fake_ok();
}

static CUresult fake_device_get_uuid(CUuuid *uuid, CUdevice dev)
{
	memset(uuid, dev + 1, sizeof(*uuid));
	return fake_ok();
}

static CUresult fake_device_get_attribute(int *pi, int attr, CUdevice dev)
{
	(void)attr;
	(void)dev;
	*pi = 1;
	return fake_ok();
}

static CUresult fake_device_total_mem(size_t *bytes, CUdevice dev)
{
	(void)dev;
	*bytes = FAKE_GPU_BYTES;
	return fake_ok();
}

static CUresult fake_primary_ctx_retain(CUcontext *ctx, CUdevice dev)
{
	*ctx = (CUcontext)(uintptr_t)(dev + 1);
	return fake_ok();
}

static CUresult fake_primary_ctx_release(CUdevice dev)
{
	(void)dev;
	return fake_ok();
}

static CUresult fake_primary_ctx_get_state(CUdevice dev, unsigned int *flags, int *active)
{
	(void)dev;
	*flags = 0;
	*active = 1;
	return fake_ok();
}

static CUresult fake_ctx_set_current(CUcontext ctx)
{
	(void)ctx;
	return fake_ok();
}

static CUresult fake_ctx_get_current(CUcontext *ctx)
{
	*ctx = NULL;
	return fake_ok();
}

static CUresult fake_ctx_get_device(CUdevice *dev)
{
	*dev = 0;
	return fake_ok();
}

static CUresult fake_ctx_synchronize(void)
{
	return fake_ok();
}

static CUresult fake_mem_get_info(size_t *free_bytes, size_t *total)
{
	*free_bytes = *total = FAKE_GPU_BYTES;
	return fake_ok();
}

static CUresult fake_mem_alloc(CUdeviceptr *ptr, size_t bytes)
{
	(void)ptr;
	(void)bytes;
	return CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult fake_mem_free(CUdeviceptr ptr)
{
	(void)ptr;
	return fake_ok();
}

static CUresult fake_mem_host_alloc(void **p, size_t bytes, unsigned int flags)
{
	(void)flags;
	*p = aligned_alloc(4096, bytes);
	return *p ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult fake_mem_host_register(void *p, size_t bytes, unsigned int flags)
{
	(void)p;
	(void)bytes;
	(void)flags;
	return fake_ok();
}

static CUresult fake_mem_host_unregister(void *p)
{
	(void)p;
	return fake_ok();
}

static CUresult fake_mem_free_host(void *p)
{
	free(p);
	return fake_ok();
}

static CUresult fake_mem_address_reserve(CUdeviceptr *ptr, size_t bytes, size_t align,
					 CUdeviceptr addr, unsigned long long flags)
{
	void *p;

	(void)align;
	(void)addr;
	(void)flags;
	p = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*ptr = (uintptr_t)p;
	fake_ranges++;
	return fake_ok();
}

static CUresult fake_mem_address_free(CUdeviceptr ptr, size_t bytes)
{
	munmap((void *)(uintptr_t)ptr, bytes);
	fake_ranges--;
	return fake_ok();
}

/* A handle is a descriptor and one. */
static CUresult fake_mem_create(CUmemGenericAllocationHandle *handle, size_t bytes,
				const CUmemAllocationProp *prop, unsigned long long flags)
{
	int fd;

	(void)prop;
	(void)flags;
	if (bytes > FAKE_MAX_BYTES)
		return CUDA_ERROR_OUT_OF_MEMORY;
	fd = memfd_create("fake", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)bytes))
		abort();
	*handle = (CUmemGenericAllocationHandle)fd + 1;
	fake_handles++;
	return fake_ok();
}

static CUresult fake_mem_release(CUmemGenericAllocationHandle handle)
{
	close((int)handle - 1);
	fake_handles--;
	return fake_ok();
}

static CUresult fake_mem_map(CUdeviceptr ptr, size_t bytes, size_t offset,
			     CUmemGenericAllocationHandle handle, unsigned long long flags)
{
	struct stat st;
	void *p;

	(void)flags;
	if (offset || fstat((int)handle - 1, &st) || (uint64_t)st.st_size < bytes)
		return CUDA_ERROR_INVALID_VALUE;
	p = mmap((void *)(uintptr_t)ptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		 (int)handle - 1, 0);
	return p == MAP_FAILED ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

static CUresult fake_mem_unmap(CUdeviceptr ptr, size_t bytes)
{
	mmap((void *)(uintptr_t)ptr, bytes, PROT_NONE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	return fake_ok();
}

static CUresult fake_mem_set_access(CUdeviceptr ptr, size_t bytes, const CUmemAccessDesc *desc,
				    size_t count)
{
	(void)ptr;
	(void)bytes;
	(void)desc;
	(void)count;
	return fake_ok();
}

static CUresult fake_mem_get_access(unsigned long long *flags, const CUmemLocation *location,
				    CUdeviceptr ptr)
{
	(void)location;
	(void)ptr;
	*flags = 3;
	return fake_ok();
}

static CUresult fake_mem_export(void *out, CUmemGenericAllocationHandle handle, int type,
				unsigned long long flags)
{
	(void)type;
	(void)flags;
	*(int *)out = dup((int)handle - 1);
	return *(int *)out < 0 ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

/* Only memory that is one of memfd_create(): a driver knows its own descriptors. */
static CUresult fake_mem_import(CUmemGenericAllocationHandle *handle, void *os_handle, int type)
{
	int fd = (int)(intptr_t)os_handle;

	(void)type;
	if (fcntl(fd, F_GET_SEALS) < 0)
		return CUDA_ERROR_INVALID_VALUE;
	fd = dup(fd);
	if (fd < 0)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*handle = (CUmemGenericAllocationHandle)fd + 1;
	fake_handles++;
	return fake_ok();
}

static CUresult fake_mem_get_granularity(size_t *bytes, const CUmemAllocationProp *prop, int option)
{
	(void)prop;
	(void)option;
	*bytes = FAKE_GRANULARITY;
	return fake_ok();
}

static CUresult fake_memcpy_htod_async(CUdeviceptr dst, const void *src, size_t bytes,
				       CUstream stream)
{
	(void)stream;
	memcpy((void *)(uintptr_t)dst, src, bytes);
	return fake_ok();
}

static CUresult fake_memcpy_dtoh_async(void *dst, CUdeviceptr src, size_t bytes, CUstream stream)
{
	(void)stream;
	memcpy(dst, (void *)(uintptr_t)src, bytes);
	return fake_ok();
}

static CUresult fake_memset_d8_async(CUdeviceptr dst, unsigned char value, size_t bytes,
				     CUstream stream)
{
	(void)stream;
	memset((void *)(uintptr_t)dst, value, bytes);
	return fake_ok();
}

static CUresult fake_stream_create(CUstream *stream, unsigned int flags)
{
	(void)flags;
	*stream = (CUstream)1;
	return fake_ok();
}

static CUresult fake_stream_destroy(CUstream stream)
{
	(void)stream;
	return fake_ok();
}

static CUresult fake_stream_synchronize(CUstream stream)
{
	(void)stream;
	return fake_ok();
}

static CUresult fake_event_create(CUevent *event, unsigned int flags)
{
	(void)flags;
	*event = (CUevent)1;
	return fake_ok();
}

static CUresult fake_event_destroy(CUevent event)
{
	(void)event;
	return fake_ok();
}

static CUresult fake_event_record(CUevent event, CUstream stream)
{
	(void)event;
	(void)stream;
	return fake_ok();
}

static CUresult fake_event_synchronize(CUevent event)
{
	(void)event;
	return fake_ok();
}

static CUresult fake_event_query(CUevent event)
{
	(void)event;
	return fake_ok();
}

/* No other process is ever touched. */
static CUresult fake_touch(int pid)
{
	if (pid != atomic_load(&fake_number))
		abort();
	return fake_ok();
}

static CUresult fake_checkpoint_lock(int pid, const CUcheckpointLockArgs *args)
{
	(void)args;
	return fake_touch(pid);
}

static CUresult fake_checkpoint_checkpoint(int pid, const void *args)
{
	(void)args;
	return fake_touch(pid);
}

static CUresult fake_checkpoint_restore(int pid, const CUcheckpointRestoreArgs *args)
{
	if (args && !args->gpuPairs)
		abort();
	return fake_touch(pid);
}

static CUresult fake_checkpoint_unlock(int pid, const void *args)
{
	(void)args;
	return fake_touch(pid);
}

static CUresult fake_checkpoint_get_state(int pid, int *state)
{
	*state = CU_PROCESS_STATE_RUNNING;
	return fake_touch(pid);
}

static CUresult fake_checkpoint_get_restore_tid(int pid, int *tid)
{
	*tid = pid;
	return fake_touch(pid);
}

/* In place of ckf_cuda_load(), by the linker's --wrap. */
int __wrap_ckf_cuda_load(const struct ckf_cuda **out, struct ckf_error *err);
int __wrap_ckf_cuda_load(const struct ckf_cuda **out, struct ckf_error *err)
{
	static const struct ckf_cuda fake = {
#define FAKE_FIELD(field, name, version, params) .field = fake_##field,
		CKF_CUDA_FUNCTIONS(FAKE_FIELD)
#undef FAKE_FIELD
	};

	(void)err;
	*out = &fake;
	return 0;
}

#endif
