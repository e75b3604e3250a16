/* SPDX-License-Identifier: MIT */
/*
 * What a dump reads of the process that it dumps, and of gpud. The process is this one: it has a
 * mapping with the name of the agent's library and a block in it, and a thread that is the agent;
 * ptrace() and waitpid() do nothing (the linker's --wrap). Another thread is gpud. Both answer as
 * they should but where the input, a list of steps of fixed size, says something else. Whatever
 * they say, all descriptors are closed in the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpu/suspend/ckf_agent_call.h"
#include "ckfast.h"
#include "gpu/suspend/ckf_gpud.h"
#include "gpu/cuda/ckf_cuda_abi.h"
#include "base/ckf_scm.h"
#include "base/ckf_threads.h"
#include "common.h"

#define MAX_STEPS 24
#define BLOCK_AT 1024
#define MAP_BYTES 4096
#define MEM_BYTES (2ull << 20)
#define PATIENCE_NS 1000000000ull /* of a peer that hears nothing: its message was stolen */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerInitialize(int *argc, char ***argv);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);
long __wrap_ptrace(int request, pid_t pid, void *addr, void *data);
pid_t __wrap_waitpid(pid_t pid, int *status, int options);

enum kind {
	HONEST, /* the right answer to the next request */
	SAY,	/* this message before it */
	SHORT,	/* not all of this message */
	STEAL,	/* takes a message that is on its way to the caller */
	END,	/* the socket is shut down */
	KINDS
};

enum beside {
	NOTHING,
	MEMORY,
	OWN_SOCKET,
	BESIDES
};

struct step {
	uint8_t kind;
	uint8_t who; /* odd: gpud; the first one: what the caller does */
	uint8_t op;
	uint8_t beside;
	uint32_t flags;
	uint64_t addr;
	uint64_t bytes;
};

struct peer {
	pthread_t thread;
	int sock;
	_Atomic int theirs; /* of the agent: the caller's end */
	bool is_gpud;
	const struct step *steps;
	size_t nr;
	size_t next;
};

static struct ckf_agent_block *block;
static char dir_name[] = "/dev/shm/ckfast-fuzz-XXXXXX";
static int dir_fd, memory_fd;

long __wrap_ptrace(int request, pid_t pid, void *addr, void *data)
{
	(void)pid;
	(void)addr;
	if (request == PTRACE_GETSIGMASK)
		memset(data, 0, sizeof(uint64_t));
	return 0;
}

/* Each thread is stopped at once. */
pid_t __wrap_waitpid(pid_t pid, int *status, int options)
{
	(void)options;
	*status = PTRACE_EVENT_STOP << 16 | SIGTRAP << 8 | 0x7f;
	return pid;
}

static void remove_dir(void)
{
	empty_dir(dir_name);
	rmdir(dir_name);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	char *map;
	int fd;

	(void)argc;
	(void)argv;
	if (!mkdtemp(dir_name))
		abort();
	atexit(remove_dir);
	dir_fd = open(dir_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fd = openat(dir_fd, CKF_AGENT_LIBRARY, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	memory_fd = memfd_create("memory", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, MAP_BYTES) || memory_fd < 0)
		abort();
	map = mmap(NULL, MAP_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		abort();
	close(fd);
	block = (struct ckf_agent_block *)(map + BLOCK_AT);
	return 0;
}

static int beside(const struct peer *p, const struct step *s)
{
	const int fds[BESIDES] = { -1, memory_fd, p->sock };

	return fds[s->beside % BESIDES];
}

static void send_agent(const struct peer *p, uint32_t op, uint64_t addr, int fd)
{
	struct ckf_agent_msg m = { .op = op, .addr = addr, .bytes = MEM_BYTES };

	ckf_scm_send_until(p->sock, &m, sizeof(m), fd, 1);
}

static void send_gpud(const struct peer *p, uint32_t op, uint64_t arg, int fd)
{
	struct ckf_gpud_msg m = { .op = op, .arg = arg, .pid = (uint32_t)getpid() };

	ckf_scm_send_until(p->sock, &m, sizeof(m), fd, 1);
}

/* The message of a step. Its first bytes are the same for both. */
static void say(const struct peer *p, const struct step *s)
{
	union {
		struct ckf_agent_msg agent;
		struct ckf_gpud_msg gpud;
	} m;
	size_t bytes = p->is_gpud ? sizeof(m.gpud) : sizeof(m.agent);

	memset(&m, (int)(s->flags & 0xff), sizeof(m));
	if (p->is_gpud) {
		m.gpud.op = s->op % 24;
		m.gpud.pid = s->flags & 1 ? (uint32_t)getpid() : s->flags;
		m.gpud.arg = s->addr;
		m.gpud.addr = s->addr;
		m.gpud.bytes = s->bytes;
	} else {
		m.agent.op = s->op % 24;
		m.agent.flags = s->flags;
		m.agent.addr = s->addr;
		m.agent.bytes = s->bytes;
	}
	if (s->kind % KINDS == SHORT)
		bytes = s->bytes % bytes;
	ckf_scm_send_until(p->sock, &m, bytes, beside(p, s), 1);
}

static void steal(const struct peer *p)
{
	char buf[sizeof(struct ckf_gpud_msg)];

	if (atomic_load(&p->theirs) >= 0)
		recv(atomic_load(&p->theirs), buf, sizeof(buf), MSG_DONTWAIT);
}

/* What comes before an answer. False: there is none. */
static bool play(struct peer *p)
{
	while (p->next < p->nr) {
		const struct step *s = &p->steps[p->next++];

		if ((s->who & 1) != p->is_gpud)
			continue;
		switch (s->kind % KINDS) {
		case HONEST:
			return true;
		case STEAL:
			steal(p);
			break;
		case END:
			shutdown(p->sock, SHUT_RDWR);
			return false;
		default:
			say(p, s);
		}
	}
	return true;
}

static void answer_gpud(const struct peer *p, const struct ckf_gpud_msg *m)
{
	int sv[2];

	switch (m->op) {
	case CKF_GPUD_JOIN:
		/* It ends at once: the answers to a fill are the rest of the input's. */
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv))
			abort();
		send_gpud(&(struct peer){ .sock = sv[1] }, CKF_GPUD_ACCEPTED, 0, -1);
		send_gpud(&(struct peer){ .sock = sv[1] }, CKF_GPUD_MEMORY, 0, memory_fd);
		if (m->arg2 & 1)
			send_gpud(&(struct peer){ .sock = sv[1] }, CKF_GPUD_MADE, 0, -1);
		send_gpud(&(struct peer){ .sock = sv[1] }, CKF_GPUD_READY, 0, -1);
		send_gpud(p, CKF_GPUD_DONE, 0, sv[0]);
		close(sv[0]);
		close(sv[1]);
		break;
	case CKF_GPUD_CHECKPOINT:
		send_gpud(p, CKF_GPUD_DONE,
			  m->arg == CKF_GPUD_RESTORE_TID ? (uint64_t)syscall(SYS_gettid) : 0, -1);
		break;
	case CKF_GPUD_COMMIT:
		send_gpud(p, CKF_GPUD_DONE, 0, -1);
		break;
	default:
		break;
	}
}

/* The next whole message. */
static bool hear(const struct peer *p, void *m, size_t bytes, int *fd)
{
	return ckf_scm_recv_until(p->sock, m, bytes, fd, ckf_now_ns() + PATIENCE_NS) == (int)bytes;
}

static void *gpud_main(void *arg)
{
	struct peer *p = arg;
	struct ckf_gpud_msg m;
	int fd;

	while (hear(p, &m, sizeof(m), &fd)) {
		if (fd >= 0)
			close(fd);
		if (!play(p))
			break;
		answer_gpud(p, &m);
	}
	shutdown(p->sock, SHUT_RDWR);
	return NULL;
}

static void new_sockets(struct peer *p)
{
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv))
		abort();
	p->sock = sv[0];
	atomic_store(&p->theirs, sv[1]);
	__atomic_store_n(&block->peer_fd, sv[1], __ATOMIC_RELEASE);
}

static bool answer_agent(struct peer *p, const struct ckf_agent_msg *m)
{
	if (m->op == CKF_AGENT_PARK) {
		send_agent(p, CKF_AGENT_ALLOC, MEM_BYTES, memory_fd);
		send_agent(p, CKF_AGENT_ALLOC, 4 * MEM_BYTES, memory_fd);
	}
	if (m->op == CKF_AGENT_QUIT)
		shutdown(p->sock, SHUT_RDWR);
	else if (m->op != CKF_AGENT_UNPARK && m->op != CKF_AGENT_MAP)
		send_agent(p, CKF_AGENT_DONE, 0, -1);
	return m->op != CKF_AGENT_QUIT;
}

static void *agent_main(void *arg)
{
	struct peer *p = arg;
	struct ckf_agent_msg m;
	int fd;

	while (hear(p, &m, sizeof(m), &fd)) {
		if (fd >= 0)
			close(fd);
		if (!play(p) || !answer_agent(p, &m))
			break;
	}
	shutdown(p->sock, SHUT_RDWR);
	return NULL;
}

static void set_block(const struct step *s)
{
	memset(block, 0, sizeof(*block));
	memcpy(block->magic, CKF_AGENT_MAGIC, sizeof(block->magic));
	block->version = s->flags & 0x100 ? s->flags : CKF_AGENT_VERSION;
	block->tid = s->flags & 0x200 ? s->flags : (uint32_t)syscall(SYS_gettid);
	block->parked = s->flags & 0x400 ? 1 : 0;
}

/* What the plugin does: a dump that is then undone, or the end of a restore. */
static void use(int gpud, const struct step *s)
{
	struct ckf_gpu_process *p = NULL;
	struct ckf_gpu_fill *fill = NULL;
	struct ckf_error err = { 0 };
	int ret;

	ret = ckf_gpu_process_open(getpid(), gpud, &p, &err);
	if (!ret && s->op % 2) {
		ret = ckf_gpu_process_lock(p, gpud, 1000, &err);
		if (!ret)
			ret = ckf_gpu_process_suspend(p, gpud, dir_fd, &err);
		ckf_gpu_process_resume(p, gpud, NULL);
	} else if (!ret) {
		ret = ckf_gpu_fill_start(gpud, dir_fd, &fill, &err);
		if (!ret)
			ret = ckf_gpu_fill_accepted(fill, p, &err);
		if (!ret)
			ret = ckf_gpu_process_adopt(p, gpud, &err);
		if (!ret)
			ret = ckf_gpu_process_wake(p, gpud, &err);
		if (!ret)
			ret = ckf_gpu_fill_memory(fill, (uint32_t)getpid(), p, &err);
		if (!ret)
			ckf_gpu_process_resume(p, gpud, &err);
		ckf_gpu_fill_close(fill);
	}
	ckf_gpu_process_close(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct step steps[MAX_STEPS] = { 0 };
	struct peer agent = { .steps = steps + 1 };
	struct peer gpud = { .steps = steps + 1, .is_gpud = true, .theirs = -1 };
	int sv[2], before = open_fds();
	size_t nr = bytes / sizeof(*steps);

	if (!nr)
		return 0;
	nr = nr < MAX_STEPS ? nr : MAX_STEPS;
	memcpy(steps, data, nr * sizeof(*steps));
	agent.nr = gpud.nr = nr - 1;
	set_block(&steps[0]);
	new_sockets(&agent);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv))
		abort();
	gpud.sock = sv[1];
	if (pthread_create(&agent.thread, NULL, agent_main, &agent) ||
	    pthread_create(&gpud.thread, NULL, gpud_main, &gpud))
		abort();
	use(sv[0], &steps[0]);
	shutdown(sv[0], SHUT_RDWR);
	shutdown(agent.sock, SHUT_RDWR);
	pthread_join(agent.thread, NULL);
	pthread_join(gpud.thread, NULL);
	close(sv[0]);
	close(sv[1]);
	close(agent.sock);
	close(agent.theirs);
	if (open_fds() != before)
		abort();
	return 0;
}

/* A step that may be an answer. */
static struct step new_step(unsigned int seed)
{
	static const uint8_t ops[] = { CKF_AGENT_ALLOC, CKF_AGENT_DONE, CKF_AGENT_ERROR,
				       CKF_GPUD_MEMORY, CKF_GPUD_PAIR,	CKF_GPUD_MADE };
	uint64_t r = random_number(seed), v = random_number(seed + 1);

	return (struct step){
		.kind = (uint8_t)(r & 7 ? r % (KINDS - 1) : END),
		.who = (uint8_t)(r >> 8),
		.op = r & 0x10000 ? (uint8_t)(r >> 24) : ops[(r >> 24) % sizeof(ops)],
		.beside = (uint8_t)(r >> 32) % BESIDES,
		.flags = r & 0x20000 ? (uint32_t)v : (uint32_t)(r >> 40) & 3,
		.addr = r & 0x40000 ? v : (v & 15) * MEM_BYTES,
		.bytes = r & 0x80000 ? v : (v >> 4 & 15) * MEM_BYTES,
	};
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	struct step s[MAX_STEPS + 1];
	size_t max = max_size / sizeof(*s), n = size / sizeof(*s), at;
	uint64_t r = random_number(seed);

	max = max < MAX_STEPS ? max : MAX_STEPS;
	n = n < max ? n : max;
	memcpy(s, data, n * sizeof(*s));
	at = n ? (r >> 8) % n : 0;
	if (!n || r % 8 == 0) {
		s[n++] = new_step(seed);
	} else if (r % 8 == 1) {
		memmove(s + at + 1, s + at, (n - at) * sizeof(*s));
		s[at + 1] = new_step(seed);
		n++;
	} else if (r % 8 == 2 && n > 1) {
		memmove(s + at, s + at + 1, (n - at - 1) * sizeof(*s));
		n--;
	} else if (r % 8 == 3) {
		s[at].op++;
	} else if (r % 8 == 4) {
		LLVMFuzzerMutate((uint8_t *)&s[at], sizeof(*s), sizeof(*s));
	} else if (r % 8 == 5) {
		s[0].flags = (uint32_t)(r >> 40) & 0x7ff & (uint32_t)random_number(seed + 2);
	} else {
		s[at] = new_step(seed);
	}
	n = n < max ? n : max;
	memcpy(data, s, n * sizeof(*s));
	return n * sizeof(*s);
}
