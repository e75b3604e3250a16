/* SPDX-License-Identifier: MIT */
/*
 * CUDA IPC of allocations that the agent has made, which the driver has no handles for. A handle
 * names a socket of the exporting process and a secret; whoever has the handle gets a descriptor of
 * the memory there, and needs no rights over the process.
 *
 * The thread that answers there takes no lock and makes no call of the driver, so it answers also
 * while the gate is closed: a process that waits for it inside of cuIpcOpenMemHandle() can leave.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/ckf_scm.h"
#include "base/ckf_threads.h"
#include "agent.h"
#include "gate.h"

#define HANDLE_MAGIC "ckfipc\x1a\1"
#define SOCKET_PREFIX "ckfast-ipc-"
#define STACK_BYTES (256u << 10)
#define BACKLOG 64
#define REQUEST_NS 1000000000ull /* a client has its request at hand */
#define PAUSE_NS 10000000

struct handle {
	char magic[8];
	uint64_t bytes;
	uint64_t asked;
	uint8_t server[16]; /* what its socket is named by */
	uint8_t secret[16];
	uint64_t reserved;
};

_Static_assert(sizeof(struct handle) == sizeof(CUipcMemHandle), "a handle of CUDA IPC");

enum answer {
	ANSWER_MEMORY, /* beside it a descriptor */
	ANSWER_AWAY,   /* the process is parked */
	ANSWER_NONE,
};

static pthread_mutex_t server_lock = PTHREAD_MUTEX_INITIALIZER; /* for starting it */
static uint8_t server_name[16];
static int server_sock = -1;
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER; /* one handle, one address */

static socklen_t address_of(const uint8_t name[16], struct sockaddr_un *addr)
{
	size_t len = sizeof(SOCKET_PREFIX); /* with the byte 0 that abstract names begin with */

	*addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(addr->sun_path + 1, SOCKET_PREFIX, sizeof(SOCKET_PREFIX) - 1);
	for (size_t i = 0; i < 16; i++)
		len += (size_t)snprintf(addr->sun_path + len, sizeof(addr->sun_path) - len, "%02x",
					name[i]);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
}

/* Others could make those who have the right wait. */
static bool is_user(int sock)
{
	struct ucred cred = { 0 };
	socklen_t len = sizeof(cred);

	return !getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) &&
	       (cred.uid == geteuid() || cred.uid == 0);
}

static void serve(int sock)
{
	uint8_t secret[16];
	uint32_t answer = ANSWER_NONE;
	int fd = -1, ret;

	if (!is_user(sock))
		return;
	ret = ckf_scm_recv_until(sock, secret, sizeof(secret), NULL, ckf_now_ns() + REQUEST_NS);
	if (ret != (int)sizeof(secret))
		return;
	fd = agent_share_find(secret);
	if (fd >= 0)
		answer = ANSWER_MEMORY;
	else if (fd == -EAGAIN)
		answer = ANSWER_AWAY;
	(void)ckf_scm_send_until(sock, &answer, sizeof(answer), fd < 0 ? -1 : fd,
				 ckf_now_ns() + REQUEST_NS);
	if (fd >= 0)
		close(fd);
}

static void *server_main(void *arg)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NS };
	int sock;

	(void)arg;
	prctl(PR_SET_NAME, "ckfast-ipc");
	for (;;) {
		sock = accept4(server_sock, NULL, NULL, SOCK_CLOEXEC);
		if (sock < 0) {
			nanosleep(&pause, NULL);
			continue;
		}
		serve(sock);
		close(sock);
	}
	return NULL;
}

static int listen_there(const uint8_t name[16])
{
	struct sockaddr_un addr;
	const socklen_t len = address_of(name, &addr);
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (sock < 0)
		return -1;
	if (bind(sock, (struct sockaddr *)&addr, len) || listen(sock, BACKLOG)) {
		close(sock);
		return -1;
	}
	return agent_keep_fd(sock);
}

static bool start_thread(void)
{
	pthread_attr_t attr;
	pthread_t thread;
	bool started;

	if (pthread_attr_init(&attr))
		return false;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	started = !ckf_thread_start(&thread, &attr, server_main, NULL);
	pthread_attr_destroy(&attr);
	return started;
}

static bool start_server(void)
{
	bool runs;

	pthread_mutex_lock(&server_lock);
	if (server_sock < 0 &&
	    getrandom(server_name, sizeof(server_name), 0) == sizeof(server_name)) {
		server_sock = listen_there(server_name);
		if (server_sock >= 0 && !start_thread()) {
			close(server_sock);
			server_sock = -1;
		}
	}
	runs = server_sock >= 0;
	pthread_mutex_unlock(&server_lock);
	return runs;
}

void agent_ipc_after_fork(void)
{
	if (server_sock >= 0)
		close(server_sock);
	server_sock = -1;
	pthread_mutex_init(&server_lock, NULL);
	pthread_mutex_init(&open_lock, NULL);
}

bool agent_ipc_get(const struct ckf_cuda *cu, CUipcMemHandle *out, CUdeviceptr ptr, CUresult *res)
{
	struct handle h = { .magic = HANDLE_MAGIC };
	struct agent_alloc a;

	if (!agent_find(ptr, &a))
		return false;
	*res = CUDA_ERROR_INVALID_VALUE;
	if (!out || a.imported)
		return true;
	*res = CUDA_ERROR_NOT_SUPPORTED;
	if (!start_server())
		return true;
	*res = agent_export(cu, a.addr, NULL, h.secret);
	h.bytes = a.bytes;
	h.asked = a.asked;
	memcpy(h.server, server_name, sizeof(h.server));
	if (!*res)
		memcpy(out, &h, sizeof(h));
	return true;
}

/* A descriptor of the memory, ANSWER_AWAY or ANSWER_NONE negated. */
static int ask(const struct handle *h)
{
	struct sockaddr_un addr;
	const socklen_t len = address_of(h->server, &addr);
	uint32_t answer = ANSWER_NONE;
	int fd = -1, rest, sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (sock < 0)
		return -ANSWER_NONE;
	if (connect(sock, (struct sockaddr *)&addr, len) ||
	    ckf_scm_send(sock, h->secret, sizeof(h->secret), -1) ||
	    ckf_scm_recv(sock, &answer, sizeof(answer), &fd) != (int)sizeof(answer))
		answer = ANSWER_NONE;
	/* The end says that the other process has closed its socket: none is to be dumped. */
	if (answer != ANSWER_NONE && ckf_scm_recv(sock, &rest, sizeof(rest), NULL) > 0)
		answer = ANSWER_NONE;
	close(sock);
	if (answer == ANSWER_MEMORY && fd >= 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return answer == ANSWER_AWAY ? -ANSWER_AWAY : -ANSWER_NONE;
}

/* A descriptor, or -1. */
static int get_descriptor(const struct handle *h)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NS };
	int fd;

	while ((fd = ask(h)) == -ANSWER_AWAY)
		nanosleep(&pause, NULL);
	return fd;
}

/* With the lock held: what was opened by that handle before, once more. */
static bool open_again(const struct handle *h, CUdeviceptr *out)
{
	bool found = false;

	pthread_mutex_lock(&agent_table.lock);
	for (size_t i = 0; i < agent_table.nr && !found; i++) {
		struct agent_alloc *a = &agent_table.allocs[i];

		if (!a->opens || a->bytes != h->bytes || a->asked != h->asked ||
		    memcmp(a->secret, h->secret, sizeof(a->secret)) != 0)
			continue;
		a->opens++;
		*out = a->addr;
		found = true;
	}
	pthread_mutex_unlock(&agent_table.lock);
	return found;
}

/* The device that the memory is on, in this process; that of the context may use it, too. */
static CUresult choose_devices(const struct ckf_cuda *cu, struct agent_alloc *a)
{
	CUresult (*properties)(CUmemAllocationProp *, CUmemGenericAllocationHandle) =
		agent_gate_real(GATED_cuMemGetAllocationPropertiesFromHandle);
	CUmemAllocationProp prop;
	CUdevice device = 0;
	CUresult res = properties ? properties(&prop, a->handle) : CUDA_ERROR_NOT_SUPPORTED;

	if (!res)
		res = cu->ctx_get_current(&a->ctx);
	if (!res)
		res = cu->ctx_get_device(&device);
	if (res)
		return res;
	a->device = prop.location.id;
	if (a->device < 0 || a->device >= AGENT_MAX_DEVICES || device < 0 ||
	    device >= AGENT_MAX_DEVICES)
		return CUDA_ERROR_NOT_SUPPORTED;
	if (device != a->device)
		atomic_fetch_or(&agent_table.peers[a->device], 1ull << device);
	return CUDA_SUCCESS;
}

static CUresult open_new(const struct ckf_cuda *cu, const struct handle *h, CUdeviceptr *out)
{
	struct agent_alloc a = {
		.bytes = h->bytes,
		.asked = h->asked,
		.fd = get_descriptor(h),
		.imported = true,
		.opens = 1,
	};
	CUresult res;

	if (a.fd < 0)
		return CUDA_ERROR_INVALID_VALUE;
	a.fd = agent_keep_fd(a.fd);
	memcpy(a.secret, h->secret, sizeof(a.secret));
	res = cu->mem_import(&a.handle, (void *)(intptr_t)a.fd,
			     CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
	a.held = !res;
	if (!res)
		res = choose_devices(cu, &a);
	if (res) {
		agent_discard(cu, &a);
		return res;
	}
	res = agent_map_import(cu, &a);
	*out = a.addr;
	return res;
}

bool agent_ipc_open(const struct ckf_cuda *cu, CUdeviceptr *out, const CUipcMemHandle *handle,
		    unsigned int flags, CUresult *res)
{
	struct handle h;

	memcpy(&h, handle, sizeof(h));
	if (memcmp(h.magic, HANDLE_MAGIC, sizeof(h.magic)) != 0)
		return false;
	*res = CUDA_ERROR_INVALID_VALUE;
	if (!out || flags != CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS || !h.asked || h.asked > h.bytes ||
	    h.bytes % AGENT_GRAIN)
		return true;
	*res = CUDA_ERROR_INVALID_CONTEXT;
	if (server_sock >= 0 && !memcmp(h.server, server_name, sizeof(server_name)))
		return true;
	pthread_mutex_lock(&open_lock);
	*res = CUDA_SUCCESS;
	if (!open_again(&h, out))
		*res = open_new(cu, &h, out);
	pthread_mutex_unlock(&open_lock);
	return true;
}

bool agent_ipc_close(const struct ckf_cuda *cu, CUdeviceptr ptr, CUresult *res)
{
	struct agent_alloc *a;
	bool last = false;

	/* Nothing on the device still uses the memory afterwards. */
	*res = cu->ctx_synchronize();
	pthread_mutex_lock(&open_lock);
	pthread_mutex_lock(&agent_table.lock);
	a = agent_at(ptr);
	if (a && !a->opens)
		a = NULL;
	if (a && !*res) {
		last = a->opens == 1;
		a->opens -= !last;
	}
	pthread_mutex_unlock(&agent_table.lock);
	if (last)
		*res = agent_forget(cu, ptr);
	pthread_mutex_unlock(&open_lock);
	return a != NULL;
}
