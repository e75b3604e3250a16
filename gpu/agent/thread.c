/* SPDX-License-Identifier: MIT */
/*
 * The agent's thread: sleeps until it is called, closes the gate, takes the device memory away, or
 * puts it back and opens the gate.
 *
 * At a restore, and when a dump gives memory back, all other threads are stopped, anywhere outside
 * of the driver, in malloc() too: here nothing is allocated, and no lock is taken but with a try.
 * The driver allocates when it is called, so this thread makes sure that it has an arena of its
 * own, which no stopped thread has locked. Where arenas are shared all the same, the caller finds
 * that this thread waits: ckf_tracee_wait().
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/ckf_scm.h"
#include "base/ckf_threads.h"
#include "format/ckf_gpu_dump.h"
#include "agent.h"
#include "gate.h"

#define CALL_TIMEOUT_MS 10000 /* from the wake-up to the first message */
#define STACK_BYTES (1u << 20)

static bool handed_out; /* in this conversation */

static int send_msg(int sock, const struct ckf_agent_msg *m, int fd)
{
	return ckf_scm_send(sock, m, sizeof(*m), fd);
}

/* 0, or -1 when the caller has gone. */
static int recv_msg(int sock, struct ckf_agent_msg *m, int *fd)
{
	return ckf_scm_recv(sock, m, sizeof(*m), fd) == (int)sizeof(*m) ? 0 : -1;
}

static int say_error(int sock, const struct ckf_cuda *cu, CUresult res, const char *what)
{
	struct ckf_agent_msg m = { .op = CKF_AGENT_ERROR };
	const char *name = NULL;

	if (res && cu->get_error_name(res, &name))
		name = NULL;
	snprintf(m.text, sizeof(m.text), "%s%s%s", what, res ? ": " : "",
		 res ? (name ? name : "unknown error") : "");
	return send_msg(sock, &m, -1);
}

static int say_done(int sock)
{
	struct ckf_agent_msg m = { .op = CKF_AGENT_DONE };

	return send_msg(sock, &m, -1);
}

/* Without it being here, too, memory that is away would be lost with the caller: but where there is
 * no room for the descriptor that must do. */
static void keep_copy(struct agent_alloc *a, int fd)
{
	a->fd = fcntl(fd, F_DUPFD_CLOEXEC, AGENT_KEEP_FD);
	a->kept = a->fd >= 0;
}

static uint32_t shared_flags(const struct agent_alloc *a)
{
	if (a->imported)
		return CKF_GPU_ALLOC_SHARED | CKF_GPU_ALLOC_IMPORT;
	return a->exported ? CKF_GPU_ALLOC_SHARED : 0;
}

static int export_one(int sock, const struct ckf_cuda *cu, struct agent_alloc *a)
{
	struct ckf_agent_msg m = {
		.op = CKF_AGENT_ALLOC,
		.flags = a->flags | shared_flags(a),
		.addr = a->addr,
		.bytes = a->bytes,
		.device = (uint32_t)a->device,
	};
	CUuuid uuid;
	int fd = a->fd, ret;
	CUresult res;

	res = cu->device_get_uuid(&uuid, a->device);
	if (res)
		return say_error(sock, cu, res, "cuDeviceGetUuid") ? -1 : 1;
	memcpy(m.uuid, uuid.bytes, sizeof(m.uuid));
	if (a->fd < 0) {
		res = cu->mem_export(&fd, a->handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
		if (res)
			return say_error(sock, cu, res, "cuMemExportToShareableHandle") ? -1 : 1;
	}
	ret = send_msg(sock, &m, fd);
	if (a->fd < 0) {
		keep_copy(a, fd);
		close(fd);
	}
	return ret;
}

static bool has_imports(void)
{
	for (size_t i = 0; i < agent_table.nr; i++)
		if (agent_table.allocs[i].imported && agent_stays(&agent_table.allocs[i]))
			return true;
	return false;
}

/* 1: an error was reported; -1: the caller has gone. */
static int park(int sock, const struct ckf_cuda *cu)
{
	int ret;

	/* The driver would go on and lose the process at the restore. */
	if (has_imports())
		return say_error(
			sock, cu, CUDA_SUCCESS,
			"the process has memory of another one "
			"(cuMemImportFromShareableHandle), which the driver cannot restore");
	for (size_t i = 0; i < agent_table.nr; i++) {
		if (agent_stays(&agent_table.allocs[i]))
			continue;
		ret = export_one(sock, cu, &agent_table.allocs[i]);
		if (ret)
			return ret < 0 ? -1 : 0;
	}
	handed_out = true;
	return say_done(sock);
}

static int release(int sock, const struct ckf_cuda *cu)
{
	CUresult res;

	/* Nobody would have it. */
	if (!handed_out && !agent_block.parked)
		return say_error(sock, cu, CUDA_SUCCESS, "the memory was not asked for");
	agent_block.kept = 1;
	for (size_t i = 0; i < agent_table.nr; i++) {
		const struct agent_alloc *a = &agent_table.allocs[i];

		if (!agent_stays(a) && a->fd < 0)
			agent_block.kept = 0;
	}
	agent_block.parked = 1;
	res = agent_unmap_views(cu);
	for (size_t i = 0; i < agent_table.nr && !res; i++) {
		if (!agent_stays(&agent_table.allocs[i]))
			res = agent_unmap(cu, &agent_table.allocs[i]);
	}
	return res ? say_error(sock, cu, res, "unmapping memory") : say_done(sock);
}

static int saved(int sock, const struct ckf_cuda *cu)
{
	if (!agent_block.parked)
		return say_error(sock, cu, CUDA_SUCCESS, "the memory is not away");
	agent_block.kept = 0;
	for (size_t i = 0; i < agent_table.nr; i++) {
		if (!agent_table.allocs[i].mapped && !agent_table.allocs[i].held)
			agent_close_fd(&agent_table.allocs[i]);
	}
	return say_done(sock);
}

/* *fd becomes -1 when it is kept; the agent's own goes first. What is mapped, or was not quite
 * taken away, stays what it is. */
static CUresult map_one(const struct ckf_cuda *cu, struct agent_alloc *a, int *fd,
			const char **what)
{
	CUresult res = CUDA_SUCCESS;

	if (a->mapped)
		return CUDA_SUCCESS;
	*what = "cuCtxSetCurrent";
	if (a->ctx)
		res = cu->ctx_set_current(a->ctx);
	if (!res && !a->held) {
		*what = "cuMemImportFromShareableHandle";
		res = cu->mem_import(&a->handle, (void *)(intptr_t)(a->fd >= 0 ? a->fd : *fd),
				     CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
		if (res == CUDA_ERROR_NOT_INITIALIZED)
			*what = "memory on a GPU that CUDA_VISIBLE_DEVICES keeps from the process: "
				"cuMemImportFromShareableHandle";
		if (res)
			return res;
		a->held = true;
		a->kept = false;
		if (a->fd < 0) {
			a->fd = agent_keep_fd(*fd);
			*fd = -1;
			agent_share_update(a);
		}
	}
	*what = "mapping memory";
	return res ? res : agent_map(cu, a);
}

static CUresult map_sent(const struct ckf_cuda *cu, const struct ckf_agent_msg *m, int *fd,
			 const char **what)
{
	struct agent_alloc *a = agent_at(m->addr);

	*what = "this memory is not of this process";
	return a && a->bytes == m->bytes && *fd >= 0 ? map_one(cu, a, fd, what)
						     : CUDA_ERROR_INVALID_VALUE;
}

/* Takes MAP messages up to COMMIT, also after an error, so that caller and agent agree on where
 * they are. */
static int take_memory(int sock, const struct ckf_cuda *cu, CUresult *res, const char **what)
{
	struct ckf_agent_msg m;
	int fd;

	do {
		if (recv_msg(sock, &m, &fd))
			return -1;
		if (m.op == CKF_AGENT_MAP && !*res)
			*res = map_sent(cu, &m, &fd, what);
		if (fd >= 0)
			close(fd);
	} while (m.op == CKF_AGENT_MAP);
	return 0;
}

static int unpark(int sock, const struct ckf_cuda *cu)
{
	const char *what = NULL;
	CUresult res = CUDA_SUCCESS;
	int ret, none = -1;

	ret = take_memory(sock, cu, &res, &what);
	if (ret)
		return ret;
	for (size_t i = 0; i < agent_table.nr && !res; i++) {
		if (agent_table.allocs[i].fd >= 0)
			res = map_one(cu, &agent_table.allocs[i], &none, &what);
	}
	if (!res) {
		what = "mapping memory";
		res = agent_map_views(cu);
	}
	for (size_t i = 0; i < agent_table.nr && !res; i++) {
		if (agent_table.allocs[i].mapped)
			continue;
		what = "memory of an allocation was not given back";
		res = CUDA_ERROR_INVALID_VALUE;
	}
	if (res)
		return say_error(sock, cu, res, what);
	agent_block.parked = 0;
	agent_block.kept = 0;
	return say_done(sock);
}

static int close_gate(int sock, const struct ckf_cuda *cu, uint64_t timeout_ms)
{
	char who[sizeof(((struct ckf_agent_msg *)0)->text)];

	/* Closed with the memory away, it must not open because somebody is slow to leave. */
	if (agent_gate_is_closed() || agent_gate_close(timeout_ms, who, sizeof(who)))
		return say_done(sock);
	return say_error(sock, cu, CUDA_SUCCESS, who);
}

/* What needs the table. With the gate closed nobody has its lock. */
static int use_table(int sock, const struct ckf_cuda *cu, uint32_t op)
{
	struct rlimit limit, most;
	bool limited;
	int ret;

	if (!agent_gate_is_closed())
		return say_error(sock, cu, CUDA_SUCCESS, "the gate is open");
	if (pthread_mutex_trylock(&agent_table.lock))
		return say_error(sock, cu, CUDA_SUCCESS, "a thread has the list of memory");
	/* There may be more descriptors than the application wants to have. */
	limited = !getrlimit(RLIMIT_NOFILE, &limit);
	if (limited) {
		most = limit;
		most.rlim_cur = most.rlim_max;
		setrlimit(RLIMIT_NOFILE, &most);
	}
	ret = op == CKF_AGENT_PARK	? park(sock, cu)
	      : op == CKF_AGENT_RELEASE ? release(sock, cu)
	      : op == CKF_AGENT_SAVED	? saved(sock, cu)
					: unpark(sock, cu);
	if (limited)
		setrlimit(RLIMIT_NOFILE, &limit);
	pthread_mutex_unlock(&agent_table.lock);
	return ret;
}

/* Memory that was not taken away after all. */
static void drop_copies(void)
{
	if (pthread_mutex_trylock(&agent_table.lock))
		return;
	for (size_t i = 0; i < agent_table.nr; i++) {
		if (agent_table.allocs[i].kept)
			agent_close_fd(&agent_table.allocs[i]);
	}
	pthread_mutex_unlock(&agent_table.lock);
}

static int answer(int sock, const struct ckf_agent_msg *m)
{
	const struct ckf_cuda *cu = agent_cuda();

	switch (m->op) {
	case CKF_AGENT_CLOSE:
		return close_gate(sock, cu, m->bytes);
	case CKF_AGENT_PARK:
	case CKF_AGENT_RELEASE:
	case CKF_AGENT_UNPARK:
	case CKF_AGENT_SAVED:
		return use_table(sock, cu, m->op);
	default:
		return -1;
	}
}

static void serve(int sock)
{
	struct pollfd p = { .fd = sock, .events = POLLIN };
	struct ckf_agent_msg m;
	int fd, ret = 0;

	if (poll(&p, 1, CALL_TIMEOUT_MS) != 1)
		return;
	while (!ret && !recv_msg(sock, &m, &fd)) {
		/* The caller has its end. Without ours of it, we see when it goes away. */
		if (agent_block.peer_fd >= 0) {
			close(agent_block.peer_fd);
			agent_block.peer_fd = -1;
		}
		if (fd >= 0)
			close(fd);
		ret = answer(sock, &m);
	}
}

/* From the first message to the last. Takes the socket. */
static void talk(int sock)
{
	int peer;

	handed_out = false;
	serve(sock);
	peer = agent_block.peer_fd;
	agent_block.peer_fd = -1;
	if (peer >= 0)
		close(peer);
	if (!agent_block.parked && agent_gate_is_closed()) {
		drop_copies();
		agent_gate_open();
	}
	/* A child that was forked meanwhile has a copy of the descriptor. */
	shutdown(sock, SHUT_RDWR);
	close(sock);
}

static void one_call(void)
{
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv))
		return;
	__atomic_store_n(&agent_block.peer_fd, sv[1], __ATOMIC_RELEASE);
	talk(sv[0]);
}

static void wait_call(void)
{
	const uint64_t set = 1ull << (CKF_AGENT_SIGNAL - 1);
	const struct timespec pause = { .tv_nsec = 100000000 };

	while (!__atomic_exchange_n(&agent_block.wake, 0, __ATOMIC_ACQUIRE)) {
		/* Where a filter of the application forbids that, it is a matter of looking. */
		if (syscall(SYS_rt_sigtimedwait, &set, NULL, NULL, sizeof(set)) < 0 &&
		    errno != EINTR)
			nanosleep(&pause, NULL);
	}
}

/*
 * The signal is blocked in this thread alone, for good. The C library would not let us: it is one
 * of its own, which it sends to threads that are cancelled, and this one never is.
 */
static void be_called(void)
{
	const uint64_t set = 1ull << (CKF_AGENT_SIGNAL - 1);

	syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, NULL, sizeof(set));
	__atomic_store_n(&agent_block.tid, (uint32_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
}

/* A graph that another thread is capturing forbids some calls to all threads that do not ask for
 * the opposite, and would be lost. */
static void ignore_captures(void)
{
	CUresult (*exchange)(int *) = agent_gate_real(GATED_cuThreadExchangeStreamCaptureMode);
	int mode = CU_STREAM_CAPTURE_MODE_RELAXED;

	if (exchange)
		exchange(&mode);
}

static void *agent_main(void *arg)
{
	void *volatile first = malloc(1); /* the C library gives a thread its arena at this */

	(void)arg;
	free(first);
	prctl(PR_SET_NAME, "ckfast-agent");
	ignore_captures();
	be_called();
	for (;;) {
		wait_call();
		one_call();
	}
	return NULL;
}

/* A child has neither the thread nor, as the driver has it, any use for CUDA. */
void agent_after_fork(void)
{
	/* Unless a thread that is not here was changing the table. */
	if (!pthread_mutex_trylock(&agent_table.lock)) {
		for (size_t i = 0; i < agent_table.nr; i++)
			agent_close_fd(&agent_table.allocs[i]);
	}
	agent_block.tid = 0;
	agent_block.parked = 0;
	agent_block.kept = 0;
	agent_block.imports = 0;
	agent_gate_after_fork();
	agent_share_after_fork();
	agent_ipc_after_fork();
	agent_driver_ipc_after_fork();
	agent_table.nr = 0;
	agent_table.nr_views = 0;
	pthread_mutex_init(&agent_table.lock, NULL);
}

static void start(void)
{
	pthread_attr_t attr;
	pthread_t thread;

	if (pthread_attr_init(&attr))
		return;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	(void)ckf_thread_start(&thread, &attr, agent_main, NULL);
	pthread_attr_destroy(&attr);
}

void agent_thread_start(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, start);
}
