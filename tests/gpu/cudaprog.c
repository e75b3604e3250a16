/* SPDX-License-Identifier: MIT */
/*
 * cudaprog DIR [own]: a plain CUDA program, by the driver's API alone: 40 allocations of mixed
 * sizes, streams, events, a kernel, and a graph that is captured before the dump and replayed after
 * it. own: some of the memory it makes with the virtual memory API itself, some is from a pool.
 * Writes DIR/ready; on each SIGUSR1 it replays the graph, looks at every bit of its memory, and
 * writes DIR/report: OK, or what is wrong.
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../gpu/cuda_abi.h"

#define NR_ALLOCS 40
#define NR_STREAMS 4
#define BLOCK 256
#define OWN_ALIGN (2u << 20)

typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphExec_st *CUgraphExec;

/* words[i] = words[i] * 1664525 + i, for i below n */
static const char ptx[] = ".version 7.0\n.target sm_52\n.address_size 64\n"
			  ".visible .entry step(.param .u64 p, .param .u32 n) {\n"
			  ".reg .pred %q; .reg .b32 %r<8>; .reg .b64 %d<4>;\n"
			  "ld.param.u64 %d1, [p]; ld.param.u32 %r1, [n];\n"
			  "mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x;\n"
			  "mad.lo.s32 %r5, %r2, %r3, %r4;\n"
			  "setp.ge.u32 %q, %r5, %r1; @%q bra done;\n"
			  "cvta.to.global.u64 %d2, %d1; mul.wide.u32 %d3, %r5, 4;\n"
			  "add.s64 %d2, %d2, %d3; ld.global.u32 %r6, [%d2];\n"
			  "mad.lo.u32 %r7, %r6, 1664525, %r5; st.global.u32 [%d2], %r7;\n"
			  "done: ret; }\n";

#define FUNCTIONS(X)                                                                               \
	X(cuInit, "cuInit", (unsigned int))                                                        \
	X(cuDeviceGet, "cuDeviceGet", (CUdevice *, int))                                           \
	X(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (CUcontext *, CUdevice))           \
	X(cuCtxSetCurrent, "cuCtxSetCurrent", (CUcontext))                                         \
	X(cuCtxSynchronize, "cuCtxSynchronize", (void))                                            \
	X(cuMemAlloc, "cuMemAlloc_v2", (CUdeviceptr *, size_t))                                    \
	X(cuMemFree, "cuMemFree_v2", (CUdeviceptr))                                                \
	X(cuMemAllocAsync, "cuMemAllocAsync", (CUdeviceptr *, size_t, CUstream))                   \
	X(cuMemAddressReserve, "cuMemAddressReserve",                                              \
	  (CUdeviceptr *, size_t, size_t, CUdeviceptr, unsigned long long))                        \
	X(cuMemCreate, "cuMemCreate",                                                              \
	  (CUmemGenericAllocationHandle *, size_t, const CUmemAllocationProp *,                    \
	   unsigned long long))                                                                    \
	X(cuMemMap, "cuMemMap",                                                                    \
	  (CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long))         \
	X(cuMemSetAccess, "cuMemSetAccess",                                                        \
	  (CUdeviceptr, size_t, const CUmemAccessDesc *, size_t))                                  \
	X(cuMemcpyHtoD, "cuMemcpyHtoD_v2", (CUdeviceptr, const void *, size_t))                    \
	X(cuMemcpyDtoH, "cuMemcpyDtoH_v2", (void *, CUdeviceptr, size_t))                          \
	X(cuMemcpyDtoDAsync, "cuMemcpyDtoDAsync_v2", (CUdeviceptr, CUdeviceptr, size_t, CUstream)) \
	X(cuStreamCreate, "cuStreamCreate", (CUstream *, unsigned int))                            \
	X(cuStreamBeginCapture, "cuStreamBeginCapture_v2", (CUstream, int))                        \
	X(cuStreamEndCapture, "cuStreamEndCapture", (CUstream, CUgraph *))                         \
	X(cuGraphInstantiate, "cuGraphInstantiateWithFlags",                                       \
	  (CUgraphExec *, CUgraph, unsigned long long))                                            \
	X(cuGraphLaunch, "cuGraphLaunch", (CUgraphExec, CUstream))                                 \
	X(cuStreamSynchronize, "cuStreamSynchronize", (CUstream))                                  \
	X(cuStreamWaitEvent, "cuStreamWaitEvent", (CUstream, CUevent, unsigned int))               \
	X(cuEventCreate, "cuEventCreate", (CUevent *, unsigned int))                               \
	X(cuEventRecord, "cuEventRecord", (CUevent, CUstream))                                     \
	X(cuEventSynchronize, "cuEventSynchronize", (CUevent))                                     \
	X(cuModuleLoadData, "cuModuleLoadData", (CUmodule *, const void *))                        \
	X(cuModuleGetFunction, "cuModuleGetFunction", (CUfunction *, CUmodule, const char *))      \
	X(cuLaunchKernel, "cuLaunchKernel",                                                        \
	  (CUfunction, unsigned int, unsigned int, unsigned int, unsigned int, unsigned int,       \
	   unsigned int, unsigned int, CUstream, void **, void **))

#define DECLARE(name, elf, params) static CUresult(*name) params;
FUNCTIONS(DECLARE)
#undef DECLARE

struct alloc {
	CUdeviceptr ptr;
	size_t words;
	uint32_t *expect;
};

static struct alloc allocs[NR_ALLOCS];
static CUstream streams[NR_STREAMS];
static CUevent event;
static CUfunction step;
static CUgraphExec graph;
static const char *dir;

static void say(const char *name, const char *text)
{
	char path[4096], part[4096];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	snprintf(part, sizeof(part), "%s/%s.new", dir, name);
	f = fopen(part, "w");
	if (!f || fputs(text, f) < 0 || fclose(f) || rename(part, path))
		exit(2);
}

static void check(CUresult res, const char *what)
{
	char text[128];

	if (!res)
		return;
	snprintf(text, sizeof(text), "FAIL: %s gives %d\n", what, res);
	say("report", text);
	fputs(text, stderr);
	exit(1);
}

static void load(void)
{
	void *lib = dlopen(CKF_CUDA_LIBRARY, RTLD_NOW);

	if (!lib) {
		fprintf(stderr, "%s\n", dlerror());
		exit(77);
	}
#define LOOK_UP(name, elf, params)         \
	*(void **)&name = dlsym(lib, elf); \
	if (!name)                         \
		check(CUDA_ERROR_NOT_FOUND, elf);
	FUNCTIONS(LOOK_UP)
#undef LOOK_UP
}

/* What the kernel does. */
static void step_expect(struct alloc *a)
{
	for (size_t i = 0; i < a->words; i++)
		a->expect[i] = a->expect[i] * 1664525 + (uint32_t)i;
}

static void alloc_own(CUdeviceptr *out, size_t bytes)
{
	CUmemLocation here = { .type = CU_MEM_LOCATION_TYPE_DEVICE };
	CUmemAllocationProp prop = { .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = here };
	CUmemAccessDesc access = { .location = here, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	CUmemGenericAllocationHandle handle;

	bytes = (bytes + OWN_ALIGN - 1) & ~(size_t)(OWN_ALIGN - 1);
	check(cuMemAddressReserve(out, bytes, 0, 0, 0), "cuMemAddressReserve");
	check(cuMemCreate(&handle, bytes, &prop, 0), "cuMemCreate");
	check(cuMemMap(*out, bytes, 0, handle, 0), "cuMemMap");
	check(cuMemSetAccess(*out, bytes, &access, 1), "cuMemSetAccess");
}

static void alloc_from_pool(CUdeviceptr *out, size_t bytes)
{
	check(cuMemAllocAsync(out, bytes, streams[3]), "cuMemAllocAsync");
	check(cuStreamSynchronize(streams[3]), "cuStreamSynchronize");
}

static void make_allocs(bool own)
{
	for (int i = 0; i < NR_ALLOCS; i++) {
		struct alloc *a = &allocs[i];
		/* From 4 KiB to some 20 MiB, many not multiples of anything. */
		size_t bytes = i % 4 ? (size_t)(i * i) * 13 * 1024 + 4096 : (size_t)(i + 1) << 19;

		a->words = bytes / 4;
		a->expect = malloc(bytes);
		for (size_t k = 0; k < a->words; k++)
			a->expect[k] = i % 5 ? (uint32_t)(k * 2654435761u + (unsigned int)i) : 0;
		if (own && i % 8 == 7)
			alloc_own(&a->ptr, bytes);
		else if (own && i % 8 == 3)
			alloc_from_pool(&a->ptr, bytes);
		else
			check(cuMemAlloc(&a->ptr, bytes), "cuMemAlloc");
		check(cuMemcpyHtoD(a->ptr, a->expect, bytes), "cuMemcpyHtoD");
	}
}

static void launch(struct alloc *a, CUstream s)
{
	unsigned int n = (unsigned int)a->words;
	void *args[] = { &a->ptr, &n };

	check(cuLaunchKernel(step, (n + BLOCK - 1) / BLOCK, 1, 1, BLOCK, 1, 1, 0, s, args, NULL),
	      "cuLaunchKernel");
}

/* One step on each allocation but the last two, and a copy between those. */
static void capture(void)
{
	CUgraph g;

	check(cuStreamBeginCapture(streams[0], 0), "cuStreamBeginCapture");
	for (int i = 0; i < NR_ALLOCS - 2; i++)
		launch(&allocs[i], streams[0]);
	check(cuMemcpyDtoDAsync(allocs[NR_ALLOCS - 1].ptr, allocs[NR_ALLOCS - 2].ptr, 4096,
				streams[0]),
	      "cuMemcpyDtoDAsync");
	check(cuStreamEndCapture(streams[0], &g), "cuStreamEndCapture");
	check(cuGraphInstantiate(&graph, g, 0), "cuGraphInstantiate");
}

static void run_once(void)
{
	check(cuGraphLaunch(graph, streams[1]), "cuGraphLaunch");
	check(cuEventRecord(event, streams[1]), "cuEventRecord");
	check(cuStreamWaitEvent(streams[2], event, 0), "cuStreamWaitEvent");
	launch(&allocs[NR_ALLOCS - 2], streams[2]);
	check(cuStreamSynchronize(streams[2]), "cuStreamSynchronize");
	for (int i = 0; i < NR_ALLOCS - 2; i++)
		step_expect(&allocs[i]);
	memcpy(allocs[NR_ALLOCS - 1].expect, allocs[NR_ALLOCS - 2].expect, 4096);
	step_expect(&allocs[NR_ALLOCS - 2]);
}

static const char *compare(void)
{
	static char text[128];

	for (int i = 0; i < NR_ALLOCS; i++) {
		struct alloc *a = &allocs[i];
		uint32_t *got = malloc(a->words * 4);

		check(cuMemcpyDtoH(got, a->ptr, a->words * 4), "cuMemcpyDtoH");
		for (size_t k = 0; k < a->words; k++) {
			if (got[k] == a->expect[k])
				continue;
			snprintf(text, sizeof(text),
				 "FAIL: allocation %d, word %zu: %#x, not %#x\n", i, k, got[k],
				 a->expect[k]);
			free(got);
			return text;
		}
		free(got);
	}
	return "OK\n";
}

/* Frees one and allocates anew: the tables still fit the driver. */
static void churn(void)
{
	struct alloc *a = &allocs[NR_ALLOCS - 1];
	CUdeviceptr more;

	check(cuMemAlloc(&more, 8u << 20), "cuMemAlloc");
	check(cuMemcpyHtoD(more, a->expect, a->words * 4 < 4096 ? a->words * 4 : 4096),
	      "cuMemcpyHtoD");
	check(cuMemFree(more), "cuMemFree");
}

int main(int argc, char **argv)
{
	CUcontext ctx;
	CUmodule module;
	CUdevice dev;
	sigset_t set;
	int sig;

	dir = argc > 1 ? argv[1] : ".";
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	load();
	check(cuInit(0), "cuInit");
	check(cuDeviceGet(&dev, 0), "cuDeviceGet");
	check(cuDevicePrimaryCtxRetain(&ctx, dev), "cuDevicePrimaryCtxRetain");
	check(cuCtxSetCurrent(ctx), "cuCtxSetCurrent");
	check(cuModuleLoadData(&module, ptx), "cuModuleLoadData");
	check(cuModuleGetFunction(&step, module, "step"), "cuModuleGetFunction");
	for (int i = 0; i < NR_STREAMS; i++)
		check(cuStreamCreate(&streams[i], CU_STREAM_NON_BLOCKING), "cuStreamCreate");
	check(cuEventCreate(&event, 0), "cuEventCreate");
	make_allocs(argc > 2);
	capture();
	run_once();
	say("ready", compare());
	for (;;) {
		sigwait(&set, &sig);
		run_once();
		churn();
		say("report", compare());
	}
}
