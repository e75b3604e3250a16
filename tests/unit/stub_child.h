/* SPDX-License-Identifier: MIT */
/*
 * For tests of the fake CUDA driver: a driver is for a whole process, so each test runs in a child
 * with an environment of its own. What fails in a child ends it.
 */
#ifndef CKF_TEST_STUB_CHILD_H
#define CKF_TEST_STUB_CHILD_H

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "gpu/cuda/ckf_cuda.h"

#define STUB_LIBRARY "build/stub/" CKF_CUDA_LIBRARY
#define MIB ((size_t)1 << 20)

static struct ckf_cuda cu;
static void *stub_lib;

#define CHECK(what)                                                                        \
	do {                                                                               \
		if (!(what)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
			_exit(1);                                                          \
		}                                                                          \
	} while (0)

/* The call returns this. */
#define GIVES(want, call)                                                                    \
	do {                                                                                 \
		int res_ = (call);                                                           \
		if (res_ != (want)) {                                                        \
			fprintf(stderr, "%s:%d: %s gives %d, want %d\n", __FILE__, __LINE__, \
				#call, res_, (int)(want));                                   \
			_exit(1);                                                            \
		}                                                                            \
	} while (0)

#define OK(call) GIVES(CUDA_SUCCESS, call)

static inline void *stub_symbol(const char *name)
{
	void *p = dlsym(stub_lib, name);

	if (!p)
		fprintf(stderr, "no %s\n", name);
	CHECK(p);
	return p;
}

static inline void stub_load(void)
{
	CUresult (*get)(const char *, void **, int, uint64_t);

	stub_lib = dlopen(STUB_LIBRARY, RTLD_NOW);
	if (!stub_lib)
		fprintf(stderr, "%s\n", dlerror());
	CHECK(stub_lib);
	get = stub_symbol("cuGetProcAddress");
#define STUB_FIND(field, name, version, params) OK(get(name, (void **)&cu.field, version, 0));
	CKF_CUDA_FUNCTIONS(STUB_FIND)
#undef STUB_FIND
}

/* With a current context on device 0. */
static inline void stub_load_init(void)
{
	CUcontext ctx;

	stub_load();
	OK(cu.init(0));
	OK(cu.primary_ctx_retain(&ctx, 0));
	OK(cu.ctx_set_current(ctx));
}

/* GPUs of its own for each test program, whatever else runs. */
static inline void stub_set_id(void)
{
	char id[32];

	snprintf(id, sizeof(id), "test%d", (int)getpid());
	setenv("CKF_STUB_ID", id, 1);
}

/* env: NAME=VALUE, or NULL. */
static inline void in_child(char *env, void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		if (env)
			putenv(env);
		fn();
		_exit(0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static inline const CUmemAllocationProp *stub_prop(int device)
{
	static CUmemAllocationProp prop;

	prop = (CUmemAllocationProp){ .type = CU_MEM_ALLOCATION_TYPE_PINNED,
				      .requestedHandleTypes =
					      CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
				      .location = { CU_MEM_LOCATION_TYPE_DEVICE, device } };
	return &prop;
}

/* Maps a handle at a new address, for all to read and write. */
static inline CUdeviceptr stub_map(CUmemGenericAllocationHandle handle, size_t bytes, int device)
{
	const CUmemAccessDesc access = { .location = { CU_MEM_LOCATION_TYPE_DEVICE, device },
					 .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	CUdeviceptr addr;

	OK(cu.mem_address_reserve(&addr, bytes, 0, 0, 0));
	OK(cu.mem_map(addr, bytes, 0, handle, 0));
	OK(cu.mem_set_access(addr, bytes, &access, 1));
	return addr;
}

#endif
