/* SPDX-License-Identifier: MIT */
/*
 * The functions of the driver that the agent puts itself in front of, by whatever road an
 * application gets at them: linked (they are exported here under the driver's names), by dlsym(),
 * or by cuGetProcAddress().
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "hooks.h"

#define MIN_BYTES AGENT_GRAIN /* smaller allocations share pages in the driver, and stay there */
#define PITCH_ALIGN 512	      /* what the driver's cuMemAllocPitch() rounds widths up to */

typedef CUresult (*get_proc_fn)(const char *, void **, int, uint64_t);
typedef CUresult (*get_proc_v2_fn)(const char *, void **, int, uint64_t, int *);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void *(*real_dlsym)(void *, const char *);
static const struct ckf_cuda *cuda; /* NULL: no driver, or one that the agent cannot work with */
static __thread bool inside;	    /* dlsym() is called by the agent itself */

/*
 * The newest version of a name that cuGetProcAddress() knows and whose version is not above the
 * one asked for is what it gives: the tables have entries for those with the signature above.
 */
static struct hook {
	const char *name; /* for cuGetProcAddress() */
	const char *elf;
	int version; /* the first with this signature */
	int end;     /* the first with another one */
	void *wrapper;
	void *real;
} hooks[] = {
	[HOOK_ALLOC] = { "cuMemAlloc", "cuMemAlloc_v2", 3020, 0, cuMemAlloc_v2, NULL },
	[HOOK_ALLOC_PITCH] = { "cuMemAllocPitch", "cuMemAllocPitch_v2", 3020, 0, cuMemAllocPitch_v2,
			       NULL },
	[HOOK_FREE] = { "cuMemFree", "cuMemFree_v2", 3020, 0, cuMemFree_v2, NULL },
	[HOOK_RANGE] = { "cuMemGetAddressRange", "cuMemGetAddressRange_v2", 3020, 0,
			 cuMemGetAddressRange_v2, NULL },
	[HOOK_ATTRIBUTE] = { "cuPointerGetAttribute", "cuPointerGetAttribute", 4000, 0,
			     cuPointerGetAttribute, NULL },
	[HOOK_ATTRIBUTES] = { "cuPointerGetAttributes", "cuPointerGetAttributes", 7000, 0,
			      cuPointerGetAttributes, NULL },
	[HOOK_IPC_HANDLE] = { "cuIpcGetMemHandle", "cuIpcGetMemHandle", 4010, 0, cuIpcGetMemHandle,
			      NULL },
	[HOOK_ENABLE_PEER] = { "cuCtxEnablePeerAccess", "cuCtxEnablePeerAccess", 4000, 0,
			       cuCtxEnablePeerAccess, NULL },
	[HOOK_DISABLE_PEER] = { "cuCtxDisablePeerAccess", "cuCtxDisablePeerAccess", 4000, 0,
				cuCtxDisablePeerAccess, NULL },
	[HOOK_CTX_DESTROY] = { "cuCtxDestroy", "cuCtxDestroy_v2", 4000, 0, cuCtxDestroy_v2, NULL },
	[HOOK_CTX_RESET] = { "cuDevicePrimaryCtxReset", "cuDevicePrimaryCtxReset_v2", 11000, 0,
			     cuDevicePrimaryCtxReset_v2, NULL },
	[HOOK_GET_PROC] = { "cuGetProcAddress", "cuGetProcAddress", 11030, 12000, cuGetProcAddress,
			    NULL },
	[HOOK_GET_PROC_V2] = { "cuGetProcAddress", "cuGetProcAddress_v2", 12000, 0,
			       cuGetProcAddress_v2, NULL },
	[HOOK_CREATE] = { "cuMemCreate", "cuMemCreate", 10020, 0, cuMemCreate, NULL },
	[HOOK_RELEASE] = { "cuMemRelease", "cuMemRelease", 10020, 0, cuMemRelease, NULL },
	[HOOK_MAP] = { "cuMemMap", "cuMemMap", 10020, 0, cuMemMap, NULL },
	[HOOK_UNMAP] = { "cuMemUnmap", "cuMemUnmap", 10020, 0, cuMemUnmap, NULL },
	[HOOK_EXPORT] = { "cuMemExportToShareableHandle", "cuMemExportToShareableHandle", 10020, 0,
			  cuMemExportToShareableHandle, NULL },
	[HOOK_IMPORT] = { "cuMemImportFromShareableHandle", "cuMemImportFromShareableHandle", 10020,
			  0, cuMemImportFromShareableHandle, NULL },
	[HOOK_PROPERTIES] = { "cuMemGetAllocationPropertiesFromHandle",
			      "cuMemGetAllocationPropertiesFromHandle", 10020, 0,
			      cuMemGetAllocationPropertiesFromHandle, NULL },
	[HOOK_RETAIN] = { "cuMemRetainAllocationHandle", "cuMemRetainAllocationHandle", 11000, 0,
			  cuMemRetainAllocationHandle, NULL },
	[HOOK_BIND] = { "cuMulticastBindMem", "cuMulticastBindMem", 12010, 13010,
			cuMulticastBindMem, NULL },
	[HOOK_BIND_V2] = { "cuMulticastBindMem", "cuMulticastBindMem_v2", 13010, 0,
			   cuMulticastBindMem_v2, NULL },
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

static void resolve(void)
{
	struct ckf_error err = { 0 };
	void *lib;

	if (!find_real_dlsym())
		return;
	inside = true;
	lib = dlopen(CKF_CUDA_LIBRARY, RTLD_NOW);
	for (size_t i = 0; lib && i < NR_HOOKS; i++)
		hooks[i].real = real_dlsym(lib, hooks[i].elf);
	if (lib && ckf_cuda_load(&cuda, &err)) {
		cuda = NULL;
		fprintf(stderr, "ckfast: device memory stays with the driver: %s\n", err.msg);
	}
	inside = false;
}

const struct ckf_cuda *agent_cuda(void)
{
	pthread_once(&once, resolve);
	return cuda;
}

void *agent_real(enum agent_hook nr)
{
	agent_cuda();
	return hooks[nr].real;
}

CUresult cuMemAlloc_v2(CUdeviceptr *ptr, size_t bytes)
{
	CUresult (*fn)(CUdeviceptr *, size_t) = agent_real(HOOK_ALLOC);
	CUresult res;

	if (!fn)
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!cuda || bytes < MIN_BYTES || !ptr)
		return fn(ptr, bytes);
	res = agent_alloc(cuda, bytes, ptr);
	/* Devices without virtual memory, full tables: whatever it is, the driver has a way. */
	return res == CUDA_SUCCESS || res == CUDA_ERROR_OUT_OF_MEMORY ? res : fn(ptr, bytes);
}

CUresult cuMemAllocPitch_v2(CUdeviceptr *ptr, size_t *pitch, size_t width, size_t height,
			    unsigned int element_bytes)
{
	CUresult (*fn)(CUdeviceptr *, size_t *, size_t, size_t,
		       unsigned int) = agent_real(HOOK_ALLOC_PITCH);
	size_t row = (width + PITCH_ALIGN - 1) & ~(size_t)(PITCH_ALIGN - 1), bytes;

	if (!fn)
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!cuda || !ptr || !pitch || row < width || __builtin_mul_overflow(row, height, &bytes) ||
	    bytes < MIN_BYTES || agent_alloc(cuda, bytes, ptr))
		return fn(ptr, pitch, width, height, element_bytes);
	*pitch = row;
	return CUDA_SUCCESS;
}

CUresult cuMemFree_v2(CUdeviceptr ptr)
{
	CUresult (*fn)(CUdeviceptr) = agent_real(HOOK_FREE);
	CUresult res = CUDA_SUCCESS;
	bool ours = false;

	if (!fn)
		return CUDA_ERROR_NOT_INITIALIZED;
	if (cuda && ptr)
		res = agent_free(cuda, ptr, &ours);
	return ours ? res : fn(ptr);
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr ptr)
{
	CUresult (*fn)(CUdeviceptr *, size_t *, CUdeviceptr) = agent_real(HOOK_RANGE);
	struct agent_alloc a;

	if (!fn)
		return CUDA_ERROR_NOT_INITIALIZED;
	if (!cuda || !agent_find(ptr, &a) || ptr - a.addr >= a.asked)
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

CUresult cuPointerGetAttribute(void *data, int attribute, CUdeviceptr ptr)
{
	CUresult (*fn)(void *, int, CUdeviceptr) = agent_real(HOOK_ATTRIBUTE);
	CUresult res = fn ? fn(data, attribute, ptr) : CUDA_ERROR_NOT_INITIALIZED;

	if (!res && cuda)
		patch(ptr, attribute, data);
	return res;
}

CUresult cuPointerGetAttributes(unsigned int nr, int *attributes, void **data, CUdeviceptr ptr)
{
	CUresult (*fn)(unsigned int, int *, void **, CUdeviceptr) = agent_real(HOOK_ATTRIBUTES);
	CUresult res = fn ? fn(nr, attributes, data, ptr) : CUDA_ERROR_NOT_INITIALIZED;

	for (unsigned int i = 0; i < nr && !res && cuda; i++)
		patch(ptr, attributes[i], data[i]);
	return res;
}

/*
 * The driver can share memory of the virtual memory API by descriptor only, and cannot checkpoint
 * a process whose memory others have open. The attribute IS_LEGACY_CUDA_IPC_CAPABLE says so too.
 */
CUresult cuIpcGetMemHandle(CUipcMemHandle *handle, CUdeviceptr ptr)
{
	CUresult (*fn)(CUipcMemHandle *, CUdeviceptr) = agent_real(HOOK_IPC_HANDLE);
	struct agent_alloc a;

	if (!fn)
		return CUDA_ERROR_NOT_INITIALIZED;
	return cuda && agent_find(ptr, &a) ? CUDA_ERROR_NOT_SUPPORTED : fn(handle, ptr);
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

CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags)
{
	CUresult (*fn)(CUcontext, unsigned int) = agent_real(HOOK_ENABLE_PEER);
	CUresult res = fn ? fn(peer, flags) : CUDA_ERROR_NOT_INITIALIZED;

	return res || !cuda ? res : set_peer(peer, true);
}

CUresult cuCtxDisablePeerAccess(CUcontext peer)
{
	CUresult (*fn)(CUcontext) = agent_real(HOOK_DISABLE_PEER);
	CUresult res = fn ? fn(peer) : CUDA_ERROR_NOT_INITIALIZED;

	return res || !cuda ? res : set_peer(peer, false);
}

CUresult cuCtxDestroy_v2(CUcontext ctx)
{
	CUresult (*fn)(CUcontext) = agent_real(HOOK_CTX_DESTROY);
	CUresult res = fn ? fn(ctx) : CUDA_ERROR_NOT_INITIALIZED;

	if (!res && cuda)
		agent_drop_context(cuda, ctx);
	return res;
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
	CUresult (*fn)(CUdevice) = agent_real(HOOK_CTX_RESET);
	CUcontext ctx = NULL;
	CUresult res;

	if (!fn)
		return CUDA_ERROR_NOT_INITIALIZED;
	if (cuda && !cuda->primary_ctx_retain(&ctx, dev))
		cuda->primary_ctx_release(dev);
	res = fn(dev);
	if (!res && ctx)
		agent_drop_context(cuda, ctx);
	return res;
}

static void *wrapper_for(const char *name, int version)
{
	for (size_t i = 0; i < NR_HOOKS; i++) {
		if (version >= hooks[i].version && (!hooks[i].end || version < hooks[i].end) &&
		    !strcmp(name, hooks[i].name))
			return hooks[i].real ? hooks[i].wrapper : NULL;
	}
	return NULL;
}

CUresult cuGetProcAddress(const char *name, void **fn, int version, uint64_t flags)
{
	get_proc_fn get = (get_proc_fn)agent_real(HOOK_GET_PROC);
	CUresult res = get ? get(name, fn, version, flags) : CUDA_ERROR_NOT_INITIALIZED;
	void *mine = res || !name || !fn ? NULL : wrapper_for(name, version);

	if (mine && *fn)
		*fn = mine;
	return res;
}

CUresult cuGetProcAddress_v2(const char *name, void **fn, int version, uint64_t flags, int *status)
{
	get_proc_v2_fn get = (get_proc_v2_fn)agent_real(HOOK_GET_PROC_V2);
	CUresult res = get ? get(name, fn, version, flags, status) : CUDA_ERROR_NOT_INITIALIZED;
	void *mine = res || !name || !fn ? NULL : wrapper_for(name, version);

	if (mine && *fn)
		*fn = mine;
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
	if (!found || inside)
		return found;
	for (size_t i = 0; i < NR_HOOKS; i++) {
		if (strcmp(name, hooks[i].elf) != 0)
			continue;
		agent_cuda();
		/* Only the driver's: another library may have a function of that name. */
		return found == hooks[i].real ? hooks[i].wrapper : found;
	}
	return found;
}
