/* SPDX-License-Identifier: MIT */
/*
 * cudaprog DIR [own] [peer] [first]: a plain CUDA program, by the driver's API alone: 40
 * allocations of mixed sizes, streams, events, a kernel, and a graph that is captured before the
 * dump and replayed after it. With several GPUs each has its context, streams and graph, and every
 * so many of the allocations. own: some of the memory it makes with the virtual memory API itself,
 * some is from a pool. peer: each GPU also works on memory of the next one, where the driver lets
 * it. first: only the first GPU is used. Writes DIR/devices, how many GPUs and whether they reach
 * each other's memory, and DIR/ready; on each SIGUSR1 it replays the graphs, looks at every bit of
 * its memory, and writes DIR/report: OK, or what is wrong.
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpu/cuda/ckf_cuda_abi.h"

#define NR_ALLOCS 40
#define NR_STREAMS 4
#define MAX_DEVICES 8 /* so that each gets at least two allocations */
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
	X(cuDeviceGetCount, "cuDeviceGetCount", (int *))                                           \
	X(cuDeviceCanAccessPeer, "cuDeviceCanAccessPeer", (int *, CUdevice, CUdevice))             \
	X(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (CUcontext *, CUdevice))           \
	X(cuCtxSetCurrent, "cuCtxSetCurrent", (CUcontext))                                         \
	X(cuCtxEnablePeerAccess, "cuCtxEnablePeerAccess", (CUcontext, unsigned int))               \
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

struct device {
	CUdevice dev;
	CUcontext ctx;
	CUstream streams[NR_STREAMS];
	CUevent event;
	CUfunction step;
	CUgraphExec graph;
	CUgraphExec far; /* works on memory of the next device; NULL without access to it */
};

struct alloc {
	CUdeviceptr ptr;
	size_t words;
	uint32_t *expect;
	struct device *dev;
	bool plain; /* by cuMemAlloc(), which is all that access between contexts is about */
};

static struct device devices[MAX_DEVICES];
static int nr_devices;
static struct device *now; /* whose context is current */
static struct alloc allocs[NR_ALLOCS];
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

static void use(struct device *d)
{
	now = d;
	check(cuCtxSetCurrent(d->ctx), "cuCtxSetCurrent");
}

static void alloc_own(CUdeviceptr *out, size_t bytes)
{
	CUmemLocation here = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = now->dev };
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
	check(cuMemAllocAsync(out, bytes, now->streams[3]), "cuMemAllocAsync");
	check(cuStreamSynchronize(now->streams[3]), "cuStreamSynchronize");
}

/* In turn, but so that each kind of memory of own is on more than one device. */
static void make_allocs(bool own)
{
	for (int i = 0; i < NR_ALLOCS; i++) {
		struct alloc *a = &allocs[i];
		/* From 4 KiB to some 20 MiB, many not multiples of anything. */
		size_t bytes = i % 4 ? (size_t)(i * i) * 13 * 1024 + 4096 : (size_t)(i + 1) << 19;

		a->dev = &devices[(i + i / 8) % nr_devices];
		use(a->dev);
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
		a->plain = !own || i % 4 != 3;
		check(cuMemcpyHtoD(a->ptr, a->expect, bytes), "cuMemcpyHtoD");
		check(cuCtxSynchronize(), "cuCtxSynchronize");
	}
}

/* The last allocation of a device (nr 0) or the one before it (nr 1). */
static struct alloc *last_of(const struct device *d, int nr)
{
	for (int i = NR_ALLOCS - 1; i >= 0; i--)
		if (allocs[i].dev == d && !nr--)
			return &allocs[i];
	check(CUDA_ERROR_NOT_FOUND, "looking for allocations of a device");
	return NULL;
}

/* Whether the graph of its device steps it: each but the last two. */
static bool in_graph(const struct alloc *a)
{
	return a != last_of(a->dev, 0) && a != last_of(a->dev, 1);
}

static struct device *next_of(const struct device *d)
{
	return &devices[(d - devices + 1) % nr_devices];
}

/* Whether device d steps it from afar. */
static bool is_far(const struct device *d, const struct alloc *a)
{
	return a->dev == next_of(d) && a->plain && (a - allocs) % 3 == 0;
}

/* By the current device, wherever the memory is. */
static void launch(struct alloc *a, CUstream s)
{
	unsigned int n = (unsigned int)a->words;
	void *args[] = { &a->ptr, &n };

	check(cuLaunchKernel(now->step, (n + BLOCK - 1) / BLOCK, 1, 1, BLOCK, 1, 1, 0, s, args,
			     NULL),
	      "cuLaunchKernel");
}

static void begin_capture(struct device *d)
{
	use(d);
	check(cuStreamBeginCapture(d->streams[0], 0), "cuStreamBeginCapture");
}

static CUgraphExec end_capture(struct device *d)
{
	CUgraphExec exec;
	CUgraph g;

	check(cuStreamEndCapture(d->streams[0], &g), "cuStreamEndCapture");
	check(cuGraphInstantiate(&exec, g, 0), "cuGraphInstantiate");
	return exec;
}

/* One step on each allocation but the last two, and a copy between those. */
static void capture(struct device *d)
{
	begin_capture(d);
	for (int i = 0; i < NR_ALLOCS; i++)
		if (allocs[i].dev == d && in_graph(&allocs[i]))
			launch(&allocs[i], d->streams[0]);
	check(cuMemcpyDtoDAsync(last_of(d, 0)->ptr, last_of(d, 1)->ptr, 4096, d->streams[0]),
	      "cuMemcpyDtoDAsync");
	d->graph = end_capture(d);
}

/* The same on memory of the next device, if the driver gives access. */
static void capture_far(struct device *d)
{
	struct device *next = next_of(d);
	int can = 0;

	check(cuDeviceCanAccessPeer(&can, d->dev, next->dev), "cuDeviceCanAccessPeer");
	if (!can)
		return;
	use(d);
	check(cuCtxEnablePeerAccess(next->ctx, 0), "cuCtxEnablePeerAccess");
	begin_capture(d);
	for (int i = 0; i < NR_ALLOCS; i++)
		if (is_far(d, &allocs[i]))
			launch(&allocs[i], d->streams[0]);
	d->far = end_capture(d);
}

static void start_once(struct device *d)
{
	use(d);
	check(cuGraphLaunch(d->graph, d->streams[1]), "cuGraphLaunch");
	check(cuEventRecord(d->event, d->streams[1]), "cuEventRecord");
	check(cuStreamWaitEvent(d->streams[2], d->event, 0), "cuStreamWaitEvent");
	launch(last_of(d, 1), d->streams[2]);
}

static void expect_once(struct device *d)
{
	for (int i = 0; i < NR_ALLOCS; i++)
		if (allocs[i].dev == d && in_graph(&allocs[i]))
			step_expect(&allocs[i]);
	memcpy(last_of(d, 0)->expect, last_of(d, 1)->expect, 4096);
	step_expect(last_of(d, 1));
}

static void sync_all(void)
{
	for (int i = 0; i < nr_devices; i++) {
		use(&devices[i]);
		check(cuStreamSynchronize(now->streams[2]), "cuStreamSynchronize");
	}
}

/* All devices at once, each on its own memory, then each on memory of the next. */
static void run_once(void)
{
	for (int i = 0; i < nr_devices; i++)
		start_once(&devices[i]);
	sync_all();
	for (int i = 0; i < nr_devices; i++)
		expect_once(&devices[i]);
	for (int i = 0; i < nr_devices; i++) {
		struct device *d = &devices[i];

		if (!d->far)
			continue;
		use(d);
		check(cuGraphLaunch(d->far, d->streams[2]), "cuGraphLaunch, memory of a peer");
		for (int k = 0; k < NR_ALLOCS; k++)
			if (is_far(d, &allocs[k]))
				step_expect(&allocs[k]);
	}
	sync_all();
}

static const char *compare(void)
{
	static char text[192];

	for (int i = 0; i < NR_ALLOCS; i++) {
		struct alloc *a = &allocs[i];
		uint32_t *got = malloc(a->words * 4);

		use(a->dev);
		check(cuMemcpyDtoH(got, a->ptr, a->words * 4), "cuMemcpyDtoH");
		for (size_t k = 0; k < a->words; k++) {
			if (got[k] == a->expect[k])
				continue;
			snprintf(text, sizeof(text),
				 "FAIL: allocation %d%s on GPU %d, word %zu of %zu: %#x, not %#x\n",
				 i, a->plain ? "" : " (own)", a->dev->dev, k, a->words, got[k],
				 a->expect[k]);
			free(got);
			return text;
		}
		free(got);
	}
	return "OK\n";
}

/* Allocates one on each and frees it: the tables still fit the driver. */
static void churn(void)
{
	CUdeviceptr more;

	for (int i = 0; i < nr_devices; i++) {
		use(&devices[i]);
		check(cuMemAlloc(&more, 8u << 20), "cuMemAlloc");
		check(cuMemcpyHtoD(more, last_of(now, 0)->expect, 4096), "cuMemcpyHtoD");
		check(cuMemFree(more), "cuMemFree");
	}
}

static void start_device(struct device *d, int nr)
{
	CUmodule module;

	check(cuDeviceGet(&d->dev, nr), "cuDeviceGet");
	check(cuDevicePrimaryCtxRetain(&d->ctx, d->dev), "cuDevicePrimaryCtxRetain");
	use(d);
	check(cuModuleLoadData(&module, ptx), "cuModuleLoadData");
	check(cuModuleGetFunction(&d->step, module, "step"), "cuModuleGetFunction");
	for (int i = 0; i < NR_STREAMS; i++)
		check(cuStreamCreate(&d->streams[i], CU_STREAM_NON_BLOCKING), "cuStreamCreate");
	check(cuEventCreate(&d->event, 0), "cuEventCreate");
}

static void start_devices(bool first)
{
	check(cuInit(0), "cuInit");
	check(cuDeviceGetCount(&nr_devices), "cuDeviceGetCount");
	if (nr_devices > MAX_DEVICES)
		nr_devices = MAX_DEVICES;
	if (nr_devices < 1)
		check(CUDA_ERROR_NO_DEVICE, "cuDeviceGetCount");
	if (first)
		nr_devices = 1;
	for (int i = 0; i < nr_devices; i++)
		start_device(&devices[i], i);
}

static void say_devices(void)
{
	char text[64];
	int nr_far = 0;

	for (int i = 0; i < nr_devices; i++)
		nr_far += devices[i].far != NULL;
	snprintf(text, sizeof(text), "%d GPUs, %d work on memory of another\n", nr_devices, nr_far);
	say("devices", text);
}

static bool has_word(char **argv, const char *word)
{
	while (*argv)
		if (!strcmp(*argv++, word))
			return true;
	return false;
}

int main(int argc, char **argv)
{
	sigset_t set;
	int sig;

	dir = argc > 1 ? argv[1] : ".";
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	load();
	start_devices(has_word(argv, "first"));
	make_allocs(has_word(argv, "own"));
	for (int i = 0; i < nr_devices; i++)
		capture(&devices[i]);
	/* After the allocations, so that access is given to what is there. */
	for (int i = 0; i < nr_devices && nr_devices > 1 && has_word(argv, "peer"); i++)
		capture_far(&devices[i]);
	say_devices();
	run_once();
	say("ready", compare());
	for (;;) {
		sigwait(&set, &sig);
		run_once();
		churn();
		say("report", compare());
	}
}
