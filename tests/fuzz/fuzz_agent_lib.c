/* SPDX-License-Identifier: MIT */
/*
 * What the agent reads of whoever has called it. The input is a list of messages of fixed size, in
 * any order, with or without descriptors of memory and of other things, too short or too long. The
 * agent has two allocations of its own and one that the application has made and mapped; the driver
 * is a fake one. After each conversation either all memory is in place and the gate open, or it is
 * away and the gate closed; a well-behaved caller then gets all of it back, with its contents where
 * nobody else has given some; and in the end no descriptor and no memory is left.
 */
#include "gpu/agent/thread.c"

#include "common.h"
#include "fake_cuda.h"

#define MAX_STEPS 24
#define NR_PLAIN 2
#define NR_ALLOCS (NR_PLAIN + 1)
#define BYTES (2ull << 20)
#define MARK 0x6b63666173742121ull

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);

enum beside {
	NOTHING,
	MEMORY,
	SOMETHING,
	TWO,
	BESIDES
};

struct step {
	uint8_t op;
	uint8_t beside;
	uint8_t which;	/* allocation that it is about; none: of addr and bytes */
	uint8_t length; /* 0: that of a message */
	uint32_t flags;
	uint64_t addr;
	uint64_t bytes;
};

static CUdeviceptr addrs[NR_ALLOCS]; /* and handle, of the last */
static CUdeviceptr view;
static bool closed;

const struct ckf_cuda *agent_cuda(void)
{
	static const struct ckf_cuda *cu;

	if (!cu)
		__wrap_ckf_cuda_load(&cu, NULL);
	return cu;
}

void *agent_gate_real(enum agent_gated nr)
{
	(void)nr;
	return NULL;
}

bool agent_gate_close(uint64_t timeout_ms, char *who, size_t size)
{
	closed = timeout_ms & 1;
	snprintf(who, size, "somebody");
	return closed;
}

void agent_gate_open(void)
{
	closed = false;
}

bool agent_gate_is_closed(void)
{
	return closed;
}

void agent_gate_after_fork(void)
{
	closed = false;
}

static void check_at(bool ok, int line)
{
	if (!ok) {
		fprintf(stderr, "line %d\n", line);
		abort();
	}
}

#define check(ok) check_at(ok, __LINE__)

static int new_memory(void)
{
	int fd = memfd_create("given", MFD_CLOEXEC);

	check(fd >= 0 && !ftruncate(fd, BYTES));
	return fd;
}

static void make_memory(void)
{
	const CUmemAllocationProp prop = {
		.type = CU_MEM_ALLOCATION_TYPE_PINNED,
		.location = { .type = CU_MEM_LOCATION_TYPE_DEVICE },
	};
	const struct ckf_cuda *cu = agent_cuda();

	for (int i = 0; i < NR_PLAIN; i++) {
		check(!agent_alloc(cu, BYTES, &addrs[i]));
		*(uint64_t *)(uintptr_t)addrs[i] = MARK + (uint64_t)i;
	}
	check(!agent_own_create(cu, BYTES, &prop, &addrs[NR_PLAIN]));
	check(!cu->mem_address_reserve(&view, BYTES, 0, 0, 0));
	check(!agent_own_map(cu, view, BYTES, addrs[NR_PLAIN]));
	*(uint64_t *)(uintptr_t)view = MARK + NR_PLAIN;
}

static void free_memory(void)
{
	const struct ckf_cuda *cu = agent_cuda();
	bool ours;

	for (int i = 0; i < NR_PLAIN; i++)
		check(!agent_free(cu, addrs[i], &ours) && ours);
	check(!agent_own_unmap(cu, view, BYTES));
	check(!agent_own_release(cu, addrs[NR_PLAIN]));
	cu->mem_address_free(view, BYTES);
	check(!agent_table.nr && !agent_table.nr_views && !fake_handles && !fake_ranges);
}

static void send_step(int sock, const struct step *s)
{
	struct {
		struct ckf_agent_msg m;
		char more[48];
	} m = { .m = { .op = s->op, .flags = s->flags, .addr = s->addr, .bytes = s->bytes } };
	int fds[2] = { -1, -1 };
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(fds))];
	} control = { .align = { .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
	struct iovec iov = { &m, s->length ? s->length % sizeof(m) : sizeof(m.m) };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };
	unsigned int nr = s->beside % BESIDES == TWO ? 2 : s->beside % BESIDES != NOTHING;

	if (s->which < NR_ALLOCS) {
		m.m.addr = addrs[s->which];
		m.m.bytes = BYTES;
	}
	for (unsigned int i = 0; i < nr; i++)
		fds[i] = s->beside % BESIDES == SOMETHING ? dup(sock) : new_memory();
	if (nr) {
		control.align.cmsg_len = CMSG_LEN(nr * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, nr * sizeof(int));
		h.msg_control = control.buf;
		h.msg_controllen = CMSG_SPACE(nr * sizeof(int));
	}
	sendmsg(sock, &h, MSG_NOSIGNAL | MSG_DONTWAIT);
	for (unsigned int i = 0; i < nr; i++)
		close(fds[i]);
}

/* All answers; true: the last one was DONE. */
static bool read_answers(int sock)
{
	struct ckf_agent_msg m = { 0 };
	int fd;

	while (ckf_scm_recv(sock, &m, sizeof(m), &fd) == (int)sizeof(m)) {
		check((fd >= 0) == (m.op == CKF_AGENT_ALLOC) && !m.text[sizeof(m.text) - 1]);
		if (fd >= 0)
			close(fd);
	}
	return m.op == CKF_AGENT_DONE;
}

/* A conversation of which all messages are sent first. */
static bool converse(void (*say)(int sock, const struct step *s, size_t nr), const struct step *s,
		     size_t nr)
{
	int sv[2];
	bool done;

	check(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv));
	say(sv[1], s, nr);
	shutdown(sv[1], SHUT_WR);
	talk(sv[0]);
	done = read_answers(sv[1]);
	close(sv[1]);
	return done;
}

static void say_steps(int sock, const struct step *s, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		send_step(sock, &s[i]);
}

/* What a caller does that has images of what was saved. */
static void say_unpark(int sock, const struct step *s, size_t nr)
{
	(void)s;
	(void)nr;
	send_step(sock, &(struct step){ .op = CKF_AGENT_UNPARK, .which = NR_ALLOCS });
	for (uint8_t i = 0; i < NR_ALLOCS && !agent_block.kept; i++)
		send_step(sock,
			  &(struct step){ .op = CKF_AGENT_MAP, .beside = MEMORY, .which = i });
	send_step(sock, &(struct step){ .op = CKF_AGENT_COMMIT, .which = NR_ALLOCS });
}

static void check_state(void)
{
	check((bool)agent_block.parked == closed && agent_block.peer_fd == -1);
	for (size_t i = 0; i < agent_table.nr; i++) {
		const struct agent_alloc *a = &agent_table.allocs[i];

		check(!a->mapped || a->held);
		check(agent_block.parked || (a->mapped && !a->kept));
		check(!agent_block.kept || a->fd >= 0);
	}
	check(agent_block.parked || (agent_table.nr_views == 1 && agent_table.views[0].mapped));
}

/* Whether some of it may be what somebody else has given, or was told that it has. */
static bool is_strange(const struct step *s, size_t nr)
{
	for (size_t i = 0; i < nr; i++) {
		if (s[i].op == CKF_AGENT_SAVED)
			return true;
	}
	return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct step steps[MAX_STEPS];
	size_t nr = bytes / sizeof(*steps);
	int before = open_fds();

	nr = nr < MAX_STEPS ? nr : MAX_STEPS;
	memcpy(steps, data, nr * sizeof(*steps));
	make_memory();
	converse(say_steps, steps, nr);
	check_state();
	if (agent_block.parked)
		check(converse(say_unpark, NULL, 0));
	check_state();
	check(!agent_block.parked);
	for (int i = 0; i < NR_ALLOCS && !is_strange(steps, nr); i++)
		check(*(uint64_t *)(uintptr_t)(i < NR_PLAIN ? addrs[i] : view) ==
		      MARK + (uint64_t)i);
	free_memory();
	check(open_fds() == before);
	return 0;
}

/* Mostly one that the agent understands. */
static struct step new_step(unsigned int seed)
{
	uint64_t r = random_number(seed), v = random_number(seed + 1);
	uint8_t op = (uint8_t)(r & 0x700 ? 1 + r % 8 : r);

	return (struct step){
		.op = op,
		.beside = (uint8_t)(op == CKF_AGENT_MAP && r & 0x3000 ? MEMORY : r >> 16 & r >> 24),
		.which = (uint8_t)(r >> 32) % (NR_ALLOCS + 1),
		.length = r & 0xfc000 ? 0 : (uint8_t)(r >> 40),
		.addr = v,
		.bytes = op == CKF_AGENT_CLOSE && r & 0x100000 ? 1 : v >> 32,
	};
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	/* A whole conversation, to begin with. */
	static const uint8_t ops[] = { CKF_AGENT_CLOSE, CKF_AGENT_PARK,	  CKF_AGENT_RELEASE,
				       CKF_AGENT_SAVED, CKF_AGENT_UNPARK, CKF_AGENT_MAP,
				       CKF_AGENT_MAP,	CKF_AGENT_MAP,	  CKF_AGENT_COMMIT };
	struct step s[MAX_STEPS + 1];
	size_t max = max_size / sizeof(*s), n = size / sizeof(*s), at;
	uint64_t r = random_number(seed);

	max = max < MAX_STEPS ? max : MAX_STEPS;
	n = n < max ? n : max;
	memcpy(s, data, n * sizeof(*s));
	at = n ? (r >> 8) % n : 0;
	if (!n || r % 32 == 0) {
		for (n = 0; n < sizeof(ops) && n < max; n++)
			s[n] = (struct step){ .op = ops[n],
					      .beside = ops[n] == CKF_AGENT_MAP ? MEMORY : NOTHING,
					      .which = (uint8_t)(n % NR_ALLOCS),
					      .bytes = 1 };
		s[0].which = NR_ALLOCS;
	} else if (r % 4 == 1) {
		memmove(s + at + 1, s + at, (n - at) * sizeof(*s));
		s[at + 1] = new_step(seed);
		n++;
	} else if (r % 4 == 2 && n > 1) {
		memmove(s + at, s + at + 1, (n - at - 1) * sizeof(*s));
		n--;
	} else if (r % 8 == 3) {
		LLVMFuzzerMutate((uint8_t *)&s[at], sizeof(*s), sizeof(*s));
	} else {
		s[at] = new_step(seed);
	}
	n = n < max ? n : max;
	memcpy(data, s, n * sizeof(*s));
	return n * sizeof(*s);
}
