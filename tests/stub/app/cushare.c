/* SPDX-License-Identifier: MIT */
/*
 * cushare DIR how=fd|ipc procs=N [from=R] [spread] [again] [hold] [event] [small]: processes that
 * share device memory. The first is the parent of the others. Process R makes the memory and
 * exports it: by a descriptor, or by a handle of CUDA IPC. The descriptor or handle goes from
 * process to process, to the one after the last the first. Each process owns a part of the memory
 * and writes it anew in each round; each has memory of its own, too.
 *
 * spread: process I works on GPU I, or from GPU 0 on again where there are less; the memory is on
 * that of process R. Else all work on GPU 0.
 *
 * again: in each round the memory is imported anew (with how=fd only from the first process).
 * hold: R keeps its descriptor open. event, small: R gives a handle of an event, or of memory below
 * 2 MiB.
 *
 * Calls of process I fail as the file failI says (CKF_STUB_FAIL_FILE), in the working directory.
 *
 * Writes DIR/pidI and DIR/readyI for process I. SIGUSR1: a round, in the order of the processes: it
 * checks all memory and writes DIR/reportI, then its part.
 */
#include <sys/socket.h>

#include "base/ckf_scm.h"
#include "cuda.h"

#define MAX_PROCS 4
#define PART_BYTES (2u << 20)
#define SHARED_BYTES ((uint64_t)MAX_PROCS * PART_BYTES)
#define PRIVATE_BYTES (4u << 20)
#define SMALL_BYTES 4096u

/* A call that has failed has done nothing, and succeeds when it is made again. */
#define RETRY(call)                 \
	do {                        \
		if (cu.call)        \
			MUST(call); \
	} while (0)

static const char *dir;
static bool is_ipc, is_spread, is_again, is_hold, is_event, is_small;
static int device; /* of this process */
static unsigned int nr_procs = 2, from, rank, round_nr;
static int links[MAX_PROCS][2]; /* from each process to the next one */
static CUdeviceptr shared, own;
static CUmemGenericAllocationHandle handle;
static CUipcMemHandle ipc;
static bool ever_bad;

static void name_of(char *out, size_t bytes, const char *what)
{
	snprintf(out, bytes, "%s%u", what, rank);
}

static void say(const char *what, const char *text)
{
	char name[32];

	name_of(name, sizeof(name), what);
	report(dir, name, "%s", text);
}

static bool is_exporter(void)
{
	return rank == from;
}

/* Each round has other contents. */
static uint64_t seed_of(unsigned int part, unsigned int round)
{
	return 9000 + 100 * (uint64_t)part + round;
}

static void fill(CUdeviceptr addr, uint64_t bytes, uint64_t seed)
{
	static char page[PAGE];

	for (uint64_t off = 0; off < bytes; off += PAGE) {
		page_make(page, MIXED, seed, off / PAGE);
		MUST(htod_async(addr + off, page, PAGE, NULL));
		MUST(stream_sync(NULL));
	}
}

static bool is_right(CUdeviceptr addr, uint64_t bytes, uint64_t seed)
{
	char want[PAGE];
	static char got[PART_BYTES];

	for (uint64_t off = 0; off < bytes; off += PART_BYTES) {
		MUST(dtoh(got, addr + off, PART_BYTES));
		for (uint64_t at = 0; at < PART_BYTES; at += PAGE) {
			page_make(want, MIXED, seed, (off + at) / PAGE);
			if (memcmp(got + at, want, PAGE))
				return false;
		}
	}
	return true;
}

static void map_shared(CUdeviceptr addr, CUmemGenericAllocationHandle h)
{
	const CUmemAccessDesc access = { .location = { CU_MEM_LOCATION_TYPE_DEVICE, device },
					 .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE };

	RETRY(map(addr, SHARED_BYTES, 0, h, 0));
	RETRY(set_access(addr, SHARED_BYTES, &access, 1));
}

static void make_shared(void)
{
	const CUmemAllocationProp prop = {
		.type = CU_MEM_ALLOCATION_TYPE_PINNED,
		.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
		.location = { CU_MEM_LOCATION_TYPE_DEVICE, device },
	};

	if (is_ipc) {
		MUST(alloc(&shared, SHARED_BYTES));
		MUST(ipc_get(&ipc, shared + PAGE));
	} else {
		MUST(create(&handle, SHARED_BYTES, &prop, 0));
		MUST(reserve(&shared, SHARED_BYTES, 0, 0, 0));
		map_shared(shared, handle);
	}
	for (unsigned int i = 0; i < nr_procs; i++)
		fill(shared + (uint64_t)i * PART_BYTES, PART_BYTES, seed_of(i, 0));
}

static int export_fd(void)
{
	int fd;

	RETRY(mem_export(&fd, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
	return fd;
}

/* To the next process, unless that is the exporter. */
static void pass_on(int fd)
{
	if ((rank + 1) % nr_procs == from)
		return;
	if (ckf_scm_send(links[rank][0], &ipc, sizeof(ipc), fd))
		die("send");
}

/* What the process before this one sends: a descriptor, or -1. */
static int receive(void)
{
	int fd = -1;

	if (ckf_scm_recv(links[(rank + nr_procs - 1) % nr_procs][1], &ipc, sizeof(ipc), &fd) !=
	    (int)sizeof(ipc))
		die("receive");
	return fd;
}

static void import_fd(int fd)
{
	RETRY(mem_import(&handle, (void *)(intptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
	close(fd);
}

static void get_shared(void)
{
	int fd = -1;

	if (is_exporter()) {
		make_shared();
		fd = is_ipc ? -1 : export_fd();
		pass_on(fd);
		if (fd >= 0 && !is_hold)
			close(fd);
		return;
	}
	fd = receive();
	pass_on(fd);
	if (is_ipc) {
		MUST(ipc_open(&shared, ipc, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
		return;
	}
	MUST(reserve(&shared, SHARED_BYTES, 0, 0, 0));
	import_fd(fd);
	map_shared(shared, handle);
}

/* The handle, whenever it is opened, gives one address; what was not opened is not closed. */
static const char *check_ipc(void)
{
	CUipcMemHandle wrong = ipc;
	CUdeviceptr addr, base;
	CUresult res = cu.ipc_open(&addr, ipc, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
	size_t bytes;

	if (is_exporter())
		return res == CUDA_ERROR_INVALID_CONTEXT ? NULL : "own handle was opened";
	if (res || addr != shared)
		return "a second opening gives another address";
	RETRY(ipc_close(addr));
	if (cu.ipc_close(shared + PAGE) != CUDA_ERROR_INVALID_VALUE)
		return "close of another address";
	if (cu.mem_free(shared) != CUDA_ERROR_INVALID_VALUE)
		return "free of what was opened";
	if (cu.ipc_open(&addr, ipc, 0) != CUDA_ERROR_INVALID_VALUE)
		return "wrong flags";
	if (cu.ipc_get(&wrong, shared) != CUDA_ERROR_INVALID_VALUE)
		return "a handle of what was opened";
	wrong = ipc;
	wrong.reserved[20] ^= 1;
	wrong.reserved[40] ^= 1;
	if (!cu.ipc_open(&addr, wrong, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS))
		return "a wrong handle";
	MUST(get_range(&base, &bytes, shared + PAGE));
	return base == shared && bytes == SHARED_BYTES ? NULL : "range";
}

/* The handle is opened as for the first time. */
static void reopen(void)
{
	if (is_exporter())
		return;
	RETRY(ipc_close(shared));
	if (!cu.ipc_close(shared))
		die("closed twice");
	RETRY(ipc_open(&shared, ipc, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
}

/* A descriptor goes round once more. */
static void reimport(void)
{
	int fd = is_exporter() ? export_fd() : receive();

	pass_on(fd);
	if (is_exporter()) {
		close(fd);
		return;
	}
	RETRY(unmap(shared, SHARED_BYTES));
	RETRY(mem_release(handle));
	import_fd(fd);
	map_shared(shared, handle);
}

static const char *check(void)
{
	const char *wrong = NULL;

	if (is_again && is_ipc)
		reopen();
	else if (is_again)
		reimport();
	if (!is_right(own, PRIVATE_BYTES, 8000 + rank))
		return "private memory";
	for (unsigned int i = 0; i < nr_procs && !wrong; i++) {
		const CUdeviceptr part = shared + (uint64_t)i * PART_BYTES;

		/* Those before this one have begun this round already. */
		if (!is_right(part, PART_BYTES, seed_of(i, round_nr + (i < rank))))
			wrong = "shared memory";
	}
	return !wrong && is_ipc ? check_ipc() : wrong;
}

static void do_round(void)
{
	const char *wrong = check();
	char text[128];

	ever_bad |= wrong != NULL;
	fill(shared + (uint64_t)rank * PART_BYTES, PART_BYTES, seed_of(rank, ++round_nr));
	snprintf(text, sizeof(text), "%s round %u%s%s", ever_bad ? "BAD" : "OK", round_nr,
		 wrong ? ": " : "", wrong ? wrong : "");
	say("report", text);
}

static void more_handles(void)
{
	CUipcEventHandle event_handle;
	CUipcMemHandle small_handle;
	CUdeviceptr small;
	CUevent event;

	if (is_event && is_exporter()) {
		MUST(event_create(&event, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING));
		MUST(ipc_get_event(&event_handle, event));
	}
	if (is_small && is_exporter()) {
		MUST(alloc(&small, SMALL_BYTES));
		MUST(ipc_get(&small_handle, small));
	}
}

static void parse(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: cushare DIR how=fd|ipc procs=N [from=R] [spread] [again] "
				"[hold] [event] [small]\n");
		exit(2);
	}
	dir = argv[1];
	for (int i = 2; i < argc; i++) {
		is_ipc |= !strcmp(argv[i], "how=ipc");
		is_spread |= !strcmp(argv[i], "spread");
		is_again |= !strcmp(argv[i], "again");
		is_hold |= !strcmp(argv[i], "hold");
		is_event |= !strcmp(argv[i], "event");
		is_small |= !strcmp(argv[i], "small");
		if (!strncmp(argv[i], "procs=", 6))
			nr_procs = (unsigned int)atoi(argv[i] + 6);
		if (!strncmp(argv[i], "from=", 5))
			from = (unsigned int)atoi(argv[i] + 5);
	}
	if (nr_procs < 1 || nr_procs > MAX_PROCS || from >= nr_procs)
		die("procs, from");
}

int main(int argc, char **argv)
{
	char text[16], fail[32];
	CUcontext ctx;

	parse(argc, argv);
	trigger_init();
	for (unsigned int i = 0; i < nr_procs; i++)
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, links[i]))
			die("socketpair");
	rank = fork_procs(nr_procs);
	snprintf(text, sizeof(text), "%d", (int)getpid());
	say("pid", text);
	name_of(fail, sizeof(fail), "fail");
	if (setenv("CKF_STUB_FAIL_FILE", fail, 1))
		die("setenv");
	cuda_load();
	MUST(init(0));
	if (is_spread) {
		MUST(get_count(&device));
		device = (int)rank % device;
	}
	MUST(retain(&ctx, device));
	MUST(set_current(ctx));
	MUST(alloc(&own, PRIVATE_BYTES));
	fill(own, PRIVATE_BYTES, 8000 + rank);
	get_shared();
	more_handles();
	say("ready", text);
	for (;;) {
		trigger_wait();
		do_round();
	}
}
