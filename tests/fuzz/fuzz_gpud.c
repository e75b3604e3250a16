/* SPDX-License-Identifier: MIT */
/*
 * A gpud and a client that sends what it likes. An input is a list of steps of fixed size: messages
 * with some descriptor beside them, on one of several connections, answers read or not, ends
 * closed. The mutator makes and changes whole steps, so that most of them get somewhere. When the
 * client is gone, so must everything be that gpud made for it, and no process but the one that the
 * client had a pidfd of may have been touched.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "format/ckf_gpu_dump.h"
#include "gpu/daemon/gpud.h"
#include "base/ckf_scm.h"
#include "base/ckf_threads.h"
#include "fake_cuda.h"
#include "common.h"

#define MAX_STEPS 24
#define MAX_SOCKS 4
#define MEM_BYTES (2ull << 20)
#define ANSWER_MS 20
#define LEFTOVER_ROUNDS 2000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int LLVMFuzzerInitialize(int *argc, char ***argv);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);

enum action {
	SEND,	    /* the message */
	SEND_SHORT, /* less or more of it than there should be */
	SEND_MANY,  /* with several descriptors */
	RECEIVE,    /* one answer; the socket of a JOIN is used from here on */
	CLOSE,
	ACTIONS
};

enum beside {
	NOTHING,
	DIR_OF_DUMP, /* that SAVE writes to and FILL reads from */
	DIR_EMPTY,
	MEMORY,
	MEMORY_SHORT,
	PIPE,
	PIDFD,
	PIDFD_DEAD,
	OWN_SOCKET,
	BESIDES
};

struct step {
	uint8_t action;
	uint8_t sock;
	uint8_t beside;
	uint8_t device;
	uint8_t op;
	uint8_t pid;
	uint8_t flags;
	uint8_t units; /* of memory, or of time */
	uint64_t arg;
	uint64_t addr;
};

static struct ckf_gpud *gpud;
static int fds[BESIDES];
static const char *dirs[2];
static char dir_names[2][64];

static int new_dir(unsigned int i)
{
	snprintf(dir_names[i], sizeof(dir_names[i]), "/dev/shm/ckfast-fuzz-XXXXXX");
	dirs[i] = mkdtemp(dir_names[i]);
	return dirs[i] ? open(dirs[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
}

static int new_memory(uint64_t bytes)
{
	int fd = memfd_create("memory", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)bytes) || pwrite(fd, "memory", 6, 4096) != 6)
		abort();
	return fd;
}

static int dead_pidfd(void)
{
	pid_t pid = fork();
	int fd;

	if (!pid)
		_exit(0);
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	waitpid(pid, NULL, 0);
	return fd;
}

static void clean(void)
{
	for (int i = 0; i < 2; i++)
		empty_dir(dirs[i]);
}

static void remove_dirs(void)
{
	clean();
	for (int i = 0; i < 2; i++)
		rmdir(dirs[i]);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct ckf_gpud_opts o = { .size = sizeof(o), .nr_slots = 2, .threads = 2 };
	int pipes[2];

	(void)argc;
	(void)argv;
	signal(SIGPIPE, SIG_IGN);
	if (ckf_gpud_new(&o, &gpud, NULL) || ckf_gpud_warm(gpud, NULL, 0, NULL) || pipe(pipes))
		abort();
	atomic_store(&fake_number, (int)getpid());
	fds[NOTHING] = -1;
	fds[DIR_OF_DUMP] = new_dir(0);
	fds[DIR_EMPTY] = new_dir(1);
	fds[MEMORY] = new_memory(4 * MEM_BYTES);
	fds[MEMORY_SHORT] = new_memory(MEM_BYTES / 2);
	fds[PIPE] = pipes[0];
	fds[PIDFD] = (int)syscall(SYS_pidfd_open, getpid(), 0);
	fds[PIDFD_DEAD] = dead_pidfd();
	atexit(remove_dirs);
	return 0;
}

/* Small numbers, and those at which something goes over. */
static uint64_t number(uint64_t v)
{
	static const uint64_t odd[] = {
		UINT32_MAX, INT32_MAX,	  1ull << 32, UINT64_MAX, UINT64_MAX - MEM_BYTES + 1,
		1ull << 63, MEM_BYTES - 1
	};

	return v % 16 ? v : odd[v / 16 % (sizeof(odd) / sizeof(*odd))];
}

static void make_message(const struct step *s, struct ckf_gpud_msg *m)
{
	*m = (struct ckf_gpud_msg){
		.op = s->op % 24,
		.pid = (uint32_t)number(s->pid),
		.arg = number(s->arg),
		.arg2 = s->units,
		.addr = number(s->addr),
		.bytes = s->units & 0x80 ? number(s->units) : s->units * MEM_BYTES,
		.device = s->device,
		.flags = s->flags,
	};
	memset(m->uuid, s->device % (FAKE_GPUS + 2) + 1, sizeof(m->uuid));
	memset(m->uuid2, s->device / 4 % (FAKE_GPUS + 2) + 1, sizeof(m->uuid2));
}

static void send_many(int sock, const struct ckf_gpud_msg *m)
{
	struct iovec iov = { .iov_base = (void *)m, .iov_len = sizeof(*m) };
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(16 * sizeof(int))];
	} control = { 0 };
	struct msghdr h = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	unsigned int nr = 2 + m->arg % 14;
	int many[16];

	for (unsigned int i = 0; i < 16; i++)
		many[i] = fds[PIPE];
	control.align.cmsg_level = SOL_SOCKET;
	control.align.cmsg_type = SCM_RIGHTS;
	control.align.cmsg_len = CMSG_LEN(nr * sizeof(int));
	h.msg_controllen = CMSG_SPACE(nr * sizeof(int));
	memcpy(CMSG_DATA(&control.align), many, nr * sizeof(int));
	sendmsg(sock, &h, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* The socket of a JOIN goes to a free place. */
static void receive(int socks[MAX_SOCKS], int sock)
{
	struct ckf_gpud_msg m;
	int fd = -1, n;

	n = ckf_scm_recv_until(sock, &m, sizeof(m), &fd, ckf_now_ns() + ANSWER_MS * 1000000ull);
	if (n > 0 && (n != (int)sizeof(m) || m.op < CKF_GPUD_MEMORY || m.op == CKF_GPUD_COMMIT ||
		      m.op == CKF_GPUD_JOIN))
		abort();
	for (int i = 0; i < MAX_SOCKS && fd >= 0 && m.op == CKF_GPUD_DONE; i++) {
		if (socks[i] >= 0)
			continue;
		socks[i] = fd;
		return;
	}
	if (fd >= 0)
		close(fd);
}

static void do_step(int socks[MAX_SOCKS], const struct step *s)
{
	int *sock = &socks[s->sock % MAX_SOCKS], beside = s->beside % BESIDES;
	uint8_t longer[2 * sizeof(struct ckf_gpud_msg)] = { 0 };
	struct ckf_gpud_msg m;

	if (*sock < 0)
		return;
	make_message(s, &m);
	switch (s->action % ACTIONS) {
	case SEND:
		ckf_scm_send_until(*sock, &m, sizeof(m), beside == OWN_SOCKET ? *sock : fds[beside],
				   1);
		break;
	case SEND_SHORT:
		memcpy(longer, &m, sizeof(m));
		send(*sock, longer, s->addr % sizeof(longer), MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	case SEND_MANY:
		send_many(*sock, &m);
		break;
	case RECEIVE:
		receive(socks, *sock);
		break;
	default:
		close(*sock);
		*sock = -1;
	}
}

static void *serve(void *arg)
{
	ckf_gpud_serve(gpud, *(int *)arg, NULL);
	return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	int socks[MAX_SOCKS] = { -1, -1, -1, -1 }, sv[2], before = open_fds();
	struct step s;
	pthread_t thread;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv))
		abort();
	socks[0] = sv[0];
	if (pthread_create(&thread, NULL, serve, &sv[1]))
		abort();
	for (size_t i = 0; i < MAX_STEPS && bytes >= sizeof(s); i++) {
		memcpy(&s, data, sizeof(s));
		data += sizeof(s);
		bytes -= sizeof(s);
		do_step(socks, &s);
	}
	for (int i = 0; i < MAX_SOCKS; i++)
		if (socks[i] >= 0)
			close(socks[i]);
	pthread_join(thread, NULL);
	/* A thread of a connection that has left the list may still be about to end. */
	for (int i = 0; open_fds() != before; i++) {
		if (i == LEFTOVER_ROUNDS)
			abort();
		usleep(1000);
	}
	if (fake_handles || fake_ranges || gpud->conns || gpud->nr_conns ||
	    ckf_cuda_slots_in_use(gpud->pool))
		abort();
	clean();
	return 0;
}

/* Steps that belong together. */
static size_t add_sequence(struct step *s, unsigned int seed)
{
	const struct step hello = { .op = CKF_GPUD_HELLO, .arg = CKF_GPUD_VERSION };
	const struct step receive_one = { .action = RECEIVE };
	const struct step save = { .op = CKF_GPUD_SAVE, .pid = 7, .beside = DIR_OF_DUMP };
	const struct step memory = {
		.op = CKF_GPUD_MEMORY, .beside = MEMORY, .units = 1, .addr = MEM_BYTES
	};
	const struct step commit = { .op = CKF_GPUD_COMMIT };
	const struct step fill = { .op = CKF_GPUD_FILL, .beside = DIR_OF_DUMP };
	const struct step join = { .op = CKF_GPUD_JOIN };
	const struct step status = { .op = CKF_GPUD_STATUS };
	const struct step pair = { .op = CKF_GPUD_PAIR };
	const struct step action = { .op = CKF_GPUD_CHECKPOINT,
				     .beside = PIDFD,
				     .arg = 1 + seed / 8 % 6 };
	size_t n = 0;

	s[n++] = hello;
	s[n++] = receive_one;
	switch (seed % 6) {
	case 0:
		s[n++] = save;
		s[n++] = memory;
		s[n++] = memory;
		s[n - 1].addr = 4 * MEM_BYTES + 1;
		s[n - 1].units = 1 + seed / 8 % 3;
		s[n++] = commit;
		s[n++] = receive_one;
		break;
	case 1:
		s[n++] = save;
		s[n++] = memory;
		s[n++] = commit;
		s[n++] = receive_one;
		s[n++] = fill;
		break;
	case 2:
		s[n++] = join;
		s[n++] = receive_one;
		s[n++] = status;
		s[n - 1].sock = 1;
		break;
	case 3:
		s[n++] = pair;
		break;
	case 4:
		s[n++] = fill;
		break;
	default:
		break;
	}
	s[n++] = action;
	s[n++] = receive_one;
	return n;
}

static void change_field(struct step *s, unsigned int seed)
{
	uint64_t r = random_number(seed + 1);

	switch (random_number(seed) % 9) {
	case 0:
		s->action = (uint8_t)(r % ACTIONS);
		break;
	case 1:
		s->sock = (uint8_t)(r % MAX_SOCKS);
		break;
	case 2:
		s->beside = (uint8_t)(r % BESIDES);
		break;
	case 3:
		s->op = (uint8_t)(r % 24);
		break;
	case 4:
		s->pid = (uint8_t)r;
		break;
	case 5:
		s->units = r & 0x100 ? (uint8_t)r : (uint8_t)(r % 4);
		break;
	case 6:
		s->addr = r & 1 ? r >> 8 : (r >> 8) % 16 * MEM_BYTES;
		break;
	case 7:
		s->arg = r & 1 ? r >> 8 : (r >> 8) % 8;
		break;
	default:
		s->device = (uint8_t)r;
		s->flags = (uint8_t)(r >> 8) & 3;
	}
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	struct step s[MAX_STEPS + 16];
	size_t max = max_size / sizeof(*s), n = size / sizeof(*s), at;
	uint64_t r = random_number(seed);

	max = max < MAX_STEPS ? max : MAX_STEPS;
	n = n < max ? n : max;
	memcpy(s, data, n * sizeof(*s));
	at = n ? r % n : 0;
	if (!n || r % 32 == 0) {
		n = add_sequence(s, (unsigned int)(r >> 8));
	} else if (r % 8 == 1) {
		memmove(s + at + 1, s + at, (n - at) * sizeof(*s));
		n++;
	} else if (r % 8 == 2 && n > 1) {
		memmove(s + at, s + at + 1, (n - at - 1) * sizeof(*s));
		n--;
	} else if (r % 8 == 3) {
		s[at] = s[(r >> 16) % n];
	} else if (r % 8 == 4) {
		LLVMFuzzerMutate((uint8_t *)&s[at], sizeof(*s), sizeof(*s));
	} else {
		change_field(&s[at], seed);
	}
	n = n < max ? n : max;
	memcpy(data, s, n * sizeof(*s));
	return n * sizeof(*s);
}
