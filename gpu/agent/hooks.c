/* SPDX-License-Identifier: MIT */
/*
 * The functions of the driver that the agent puts itself in front of, by whatever road an
 * application gets at them: linked (they are exported here under the driver's names), by dlsym(),
 * or by cuGetProcAddress().
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "gate.h"
#include "hooks.h"

#define MIN_BYTES AGENT_GRAIN /* smaller allocations share pages in the driver, and stay there */
#define PITCH_ALIGN 512	      /* what the driver's cuMemAllocPitch() rounds widths up to */

typedef CUresult (*get_proc_fn)(const char *, void **, int, uint64_t);
typedef CUresult (*get_proc_v2_fn)(const char *, void **, int, uint64_t, int *);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void *(*real_dlsym)(void *, const char *);
static get_proc_fn get_proc;
static get_proc_v2_fn get_proc_v2;
static const struct ckf_cuda *cuda; /* NULL: no driver, or one that the agent cannot work with */
static __thread bool inside;	    /* dlsym() is called by the agent itself */

/*
 * The newest version of a name that cuGetProcAddress() knows and whose version is not above the
 * one asked for is what it gives: the tables have entries for those with the signature above.
 */
static const struct hook {
	const char *name; /* for cuGetProcAddress() */
	int version;	  /* the first with this signature */
	int end;	  /* the first with another one */
	enum agent_gated nr;
	void *fn;
} hooks[] = {
#define HOOK(symbol) GATED_##symbol, agent_##symbol
	{ "cuInit", 2000, 0, HOOK(cuInit) },
	{ "cuMemAlloc", 3020, 0, HOOK(cuMemAlloc_v2) },
	{ "cuMemAllocPitch", 3020, 0, HOOK(cuMemAllocPitch_v2) },
	{ "cuMemFree", 3020, 0, HOOK(cuMemFree_v2) },
	{ "cuMemGetAddressRange", 3020, 0, HOOK(cuMemGetAddressRange_v2) },
	{ "cuPointerGetAttribute", 4000, 0, HOOK(cuPointerGetAttribute) },
	{ "cuPointerGetAttributes", 7000, 0, HOOK(cuPointerGetAttributes) },
	{ "cuIpcGetMemHandle", 4010, 0, HOOK(cuIpcGetMemHandle) },
	{ "cuIpcOpenMemHandle", 4010, 11000, HOOK(cuIpcOpenMemHandle) },
	{ "cuIpcOpenMemHandle", 11000, 0, HOOK(cuIpcOpenMemHandle_v2) },
	{ "cuIpcCloseMemHandle", 4010, 0, HOOK(cuIpcCloseMemHandle) },
	{ "cuIpcGetEventHandle", 4010, 0, HOOK(cuIpcGetEventHandle) },
	{ "cuIpcOpenEventHandle", 4010, 0, HOOK(cuIpcOpenEventHandle) },
	{ "cuEventDestroy", 4000, 0, HOOK(cuEventDestroy_v2) },
	{ "cuCtxEnablePeerAccess", 4000, 0, HOOK(cuCtxEnablePeerAccess) },
	{ "cuCtxDisablePeerAccess", 4000, 0, HOOK(cuCtxDisablePeerAccess) },
	{ "cuCtxDestroy", 4000, 0, HOOK(cuCtxDestroy_v2) },
	{ "cuDevicePrimaryCtxRelease", 11000, 0, HOOK(cuDevicePrimaryCtxRelease_v2) },
	{ "cuDevicePrimaryCtxReset", 11000, 0, HOOK(cuDevicePrimaryCtxReset_v2) },
	{ "cuMemCreate", 10020, 0, HOOK(cuMemCreate) },
	{ "cuMemRelease", 10020, 0, HOOK(cuMemRelease) },
	{ "cuMemMap", 10020, 0, HOOK(cuMemMap) },
	{ "cuMemUnmap", 10020, 0, HOOK(cuMemUnmap) },
	{ "cuMemExportToShareableHandle", 10020, 0, HOOK(cuMemExportToShareableHandle) },
	{ "cuMemImportFromShareableHandle", 10020, 0, HOOK(cuMemImportFromShareableHandle) },
	{ "cuMemGetAllocationPropertiesFromHandle", 10020, 0,
	  HOOK(cuMemGetAllocationPropertiesFromHandle) },
	{ "cuMemRetainAllocationHandle", 11000, 0, HOOK(cuMemRetainAllocationHandle) },
	{ "cuMulticastBindMem", 12010, 13010, HOOK(cuMulticastBindMem) },
	{ "cuMulticastBindMem", 13010, 0, HOOK(cuMulticastBindMem_v2) },
#undef HOOK
};

#define NR_HOOKS (sizeof(hooks) / sizeof(hooks[0]))

/* The C library's dlsym(), which this library's own is in front of. False: not a C library that we
 * know. */
static bool find_real_dlsym(void)
{
	if (!real_dlsym)
		real_dlsym = (void *(*)(void *, const char *))dlvsym(RTLD_NEXT, "dlsym",
								     "GLIBC_2.2.5");
	return real_dlsym != NULL;
}

static void *library;

static void *lookup(const char *name)
{
	return library ? real_dlsym(library, name) : NULL;
}

static void resolve(void)
{
	struct ckf_error err = { 0 };

	inside = true;
	if (find_real_dlsym())
		library = dlopen(CKF_CUDA_LIBRARY, RTLD_NOW);
	agent_gate_resolve(lookup);
	get_proc = (get_proc_fn)lookup("cuGetProcAddress");
	get_proc_v2 = (get_proc_v2_fn)lookup("cuGetProcAddress_v2");
	if (library && ckf_cuda_load(&cuda, &err)) {
		cuda = NULL;
		fprintf(stderr, "ckfast: device memory stays with the driver: %s\n", err.msg);
	}
	/* Without the virtual memory API the functions are all the driver's. */
	for (size_t i = 0; i < NR_HOOKS && cuda; i++)
		agent_gate_replace(hooks[i].nr, hooks[i].fn);
	pthread_atfork(NULL, NULL, agent_after_fork);
	inside = false;
}

const struct ckf_cuda *agent_cuda(void)
{
	pthread_once(&once, resolve);
	return cuda;
}

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

CUresult agent_cuMemAlloc_v2(CUdeviceptr *ptr, size_t bytes)
{
	CUresult (*fn)(CUdeviceptr *, size_t) = agent_gate_real(GATED_cuMemAlloc_v2);
	CUresult res;

	if (bytes < MIN_BYTES || !ptr)
		return fn(ptr, bytes);
	res = agent_alloc(cuda, bytes, ptr);
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
	    bytes < MIN_BYTES || agent_alloc(cuda, bytes, ptr))
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
		res = agent_free(cuda, ptr, &ours);
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
		agent_drop_context(cuda, ctx);
	return res;
}

/* NULL: the device has none. */
static CUcontext primary_of(CUdevice dev)
{
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
		agent_drop_context(cuda, ctx);
	return res;
}

CUresult agent_cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
	CUresult (*fn)(CUdevice) = agent_gate_real(GATED_cuDevicePrimaryCtxReset_v2);
	CUcontext ctx = primary_of(dev);
	CUresult res = fn(dev);

	if (!res && ctx)
		agent_drop_context(cuda, ctx);
	return res;
}

/* What an application gets in place of what the driver gave. */
static void *stand_in(const char *name, int version, void *real)
{
	if (!strcmp(name, "cuGetProcAddress"))
		return version < 12000 ? (void *)cuGetProcAddress : (void *)cuGetProcAddress_v2;
	for (size_t i = 0; i < NR_HOOKS; i++) {
		if (version >= hooks[i].version && (!hooks[i].end || version < hooks[i].end) &&
		    !strcmp(name, hooks[i].name) && agent_gate_real(hooks[i].nr))
			return agent_gate_entry(hooks[i].nr);
	}
	return agent_gate_for(real, name);
}

CUresult cuGetProcAddress(const char *name, void **fn, int version, uint64_t flags)
{
	CUresult res;

	agent_cuda();
	res = get_proc ? get_proc(name, fn, version, flags) : CUDA_ERROR_NOT_INITIALIZED;
	if (!res && name && fn && *fn)
		*fn = stand_in(name, version, *fn);
	return res;
}

CUresult cuGetProcAddress_v2(const char *name, void **fn, int version, uint64_t flags, int *status)
{
	CUresult res;

	agent_cuda();
	res = get_proc_v2 ? get_proc_v2(name, fn, version, flags, status)
			  : CUDA_ERROR_NOT_INITIALIZED;
	if (!res && name && fn && *fn)
		*fn = stand_in(name, version, *fn);
	return res;
}

/*
 * RTLD_NEXT is relative to the caller, which the C library finds by its return address: the call
 * has to be a jump. (-O2 makes it one; a test holds it to that.)
 */
void *dlsym(void *restrict handle, const char *restrict name)
{
	void *found;

	if (!find_real_dlsym())
		return NULL;
	if (handle == RTLD_NEXT || handle == RTLD_DEFAULT || name[0] != 'c' || name[1] != 'u')
		return real_dlsym(handle, name);
	found = real_dlsym(handle, name);
	if (!found || inside || !agent_gate_in_driver(found))
		return found;
	agent_cuda();
	/* Only the driver's: another library may have a function of that name. */
	if (found == (void *)get_proc)
		return cuGetProcAddress;
	if (found == (void *)get_proc_v2)
		return cuGetProcAddress_v2;
	return agent_gate_for(found, name);
}
