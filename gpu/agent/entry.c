/* SPDX-License-Identifier: MIT */
/*
 * How calls of an application come to the agent, by whatever way it gets at the driver's functions:
 * linked (entry.S exports them under the driver's names), by dlsym(), or by cuGetProcAddress().
 * Here is which of them the agent has a function for, and where the driver is looked for, at the
 * first call.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "gate.h"
#include "hooks.h"

/* entry.S */
extern const char agent_entries[];
/* For entry.S, like agent_gate_wait(). */
void *agent_enter(void);

typedef CUresult (*get_proc_fn)(const char *, void **, int, uint64_t);
typedef CUresult (*get_proc_v2_fn)(const char *, void **, int, uint64_t, int *);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void *(*real_dlsym)(void *, const char *);
static get_proc_fn get_proc;
static get_proc_v2_fn get_proc_v2;
static __thread bool inside; /* dlsym() is called by the agent itself */

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
	const struct ckf_cuda *cuda = NULL;
	struct ckf_error err = { 0 };

	inside = true;
	if (find_real_dlsym())
		library = dlopen(CKF_CUDA_LIBRARY, RTLD_NOW);
	agent_gate_resolve(lookup, agent_entries);
	get_proc = (get_proc_fn)lookup("cuGetProcAddress");
	get_proc_v2 = (get_proc_v2_fn)lookup("cuGetProcAddress_v2");
	if (library && ckf_cuda_load(&cuda, &err)) {
		cuda = NULL;
		fprintf(stderr, "ckfast: device memory stays with the driver: %s\n", err.msg);
	}
	agent_gate_set_cuda(cuda);
	/* Without the virtual memory API the functions are all the driver's. */
	for (size_t i = 0; i < NR_HOOKS && cuda; i++)
		agent_gate_replace(hooks[i].nr, hooks[i].fn);
	pthread_atfork(NULL, NULL, agent_after_fork);
	inside = false;
}

/* The driver is known from here on. */
static void find_driver(void)
{
	pthread_once(&once, resolve);
}

void *agent_enter(void)
{
	int saved = errno;
	void *slot;

	find_driver();
	slot = agent_gate_wait();
	errno = saved;
	return slot;
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

	find_driver();
	res = get_proc ? get_proc(name, fn, version, flags) : CUDA_ERROR_NOT_INITIALIZED;
	if (!res && name && fn && *fn)
		*fn = stand_in(name, version, *fn);
	return res;
}

CUresult cuGetProcAddress_v2(const char *name, void **fn, int version, uint64_t flags, int *status)
{
	CUresult res;

	find_driver();
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
	find_driver();
	/* Only the driver's: another library may have a function of that name. */
	if (found == (void *)get_proc)
		return cuGetProcAddress;
	if (found == (void *)get_proc_v2)
		return cuGetProcAddress_v2;
	return agent_gate_for(found, name);
}
