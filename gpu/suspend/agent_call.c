/* SPDX-License-Identifier: MIT */
/*
 * Finding the agent in a process, and the conversation with it.
 *
 * Nothing in the process is believed: the mapping is found by its name in /proc/PID/maps, the block
 * in it by its magic, the thread must be one of the process, and the descriptor must be a socket
 * that speaks the protocol. A process that lies about all this can harm only itself: it also has
 * our end of the socket, so no call on it may wait without a deadline, and nothing that a process
 * can have more and more of is gone through without a bound.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/ckf_threads.h"
#include "ckf_agent_call.h"
#include "base/ckf_scm.h"

#define MAX_DATA_BYTES (1u << 20) /* of the library's writable mapping */
#define MAX_MAPPINGS 16		  /* of that name that are looked at */
#define ANSWER_TIMEOUT_MS 60000	  /* all allocations are one answer */
#define WAKE_TIMEOUT_MS 10000
#define POLL_NS 50000
#define NS_PER_MS 1000000ull

static int open_mem(pid_t pid, int flags, struct ckf_error *err)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	fd = open(path, flags | O_CLOEXEC);
	return fd >= 0 ? fd
		       : ckf_error_set(err, -errno, "cannot open %s: %s", path, strerror(errno));
}

/* True for a writable mapping of the agent's library. */
static bool parse_map(const char *line, uint64_t *start, uint64_t *end)
{
	unsigned long long a, b;
	const char *base;
	char perms[8];
	int path = 0;

	if (sscanf(line, "%llx-%llx %7s %*s %*s %*s %n", &a, &b, perms, &path) < 3 || !path)
		return false;
	base = strrchr(line + path, '/');
	*start = a;
	*end = b;
	return perms[0] == 'r' && perms[1] == 'w' && base &&
	       !strncmp(base + 1, CKF_AGENT_LIBRARY, sizeof(CKF_AGENT_LIBRARY) - 1);
}

static int scan_data(int mem, uint64_t start, uint64_t end, struct ckf_agent_block *block,
		     uint64_t *at)
{
	size_t bytes = end - start > MAX_DATA_BYTES ? MAX_DATA_BYTES : (size_t)(end - start);
	char *data = malloc(bytes);
	ssize_t got;
	int ret = -ENOENT;

	if (!data)
		return -ENOMEM;
	got = pread(mem, data, bytes, (off_t)start);
	for (ssize_t off = 0; off + (ssize_t)sizeof(*block) <= got; off += CKF_AGENT_ALIGN) {
		memcpy(block, data + off, sizeof(*block));
		if (memcmp(block->magic, CKF_AGENT_MAGIC, sizeof(block->magic)) != 0)
			continue;
		*at = start + (uint64_t)off;
		ret = 0;
		break;
	}
	free(data);
	return ret;
}

static int find_block(pid_t pid, int mem, struct ckf_agent_block *block, uint64_t *at)
{
	unsigned int looked_at = 0;
	uint64_t start, end;
	char path[64], *line = NULL;
	size_t cap = 0;
	int ret = -ENOENT;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	while (ret == -ENOENT && looked_at < MAX_MAPPINGS && getline(&line, &cap, f) > 0) {
		if (!parse_map(line, &start, &end))
			continue;
		looked_at++;
		ret = scan_data(mem, start, end, block, at);
	}
	free(line);
	fclose(f);
	return ret;
}

uint32_t ckf_inner_id(pid_t pid, pid_t tid)
{
	char path[80], line[256];
	uint32_t id = 0;
	char *last;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", (int)pid, (int)tid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(line, "NSpid:", 6) != 0)
			continue;
		/* The last number of the line is that of the innermost namespace. */
		last = strrchr(line, '\t');
		id = last ? (uint32_t)strtoul(last + 1, NULL, 10) : 0;
		break;
	}
	fclose(f);
	return id;
}

pid_t ckf_find_thread(pid_t pid, uint32_t inner)
{
	struct dirent *de;
	char path[64];
	pid_t tid, found = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	while (dir && !found && (de = readdir(dir))) {
		tid = (pid_t)atoi(de->d_name);
		if (tid > 0 && ckf_inner_id(pid, tid) == inner)
			found = tid;
	}
	if (dir)
		closedir(dir);
	return found;
}

int ckf_agent_find(pid_t pid, struct ckf_agent_call *c, struct ckf_error *err)
{
	struct ckf_agent_block block;
	int mem, ret;

	memset(c, 0, sizeof(*c));
	c->pid = pid;
	c->sock = -1;
	mem = open_mem(pid, O_RDONLY, err);
	if (mem < 0)
		return mem;
	ret = find_block(pid, mem, &block, &c->block);
	close(mem);
	if (ret == -ENOENT || (!ret && !block.tid))
		return -ENOENT;
	if (ret)
		return ckf_error_set(err, ret, "cannot look for the agent in process %d: %s",
				     (int)pid, strerror(-ret));
	if (!block.version || block.version > CKF_AGENT_VERSION)
		return ckf_error_set(err, -EOPNOTSUPP,
				     "process %d has version %u of the agent, which is newer than "
				     "this ckfast, with %u",
				     (int)pid, block.version, CKF_AGENT_VERSION);
	c->version = block.version;
	c->parked = block.parked != 0;
	c->imports = c->version >= 3 ? block.imports : 0;
	if (c->version >= 4) {
		c->ipc = block.ipc;
		c->shares = block.shares;
		c->nr_shares = block.nr_shares;
	}
	c->kept = c->parked && c->version >= 3 && block.kept;
	c->tid = ckf_find_thread(pid, block.tid);
	if (!c->tid)
		return ckf_error_set(err, -EBADMSG,
				     "process %d has no thread %u, which its agent names", (int)pid,
				     block.tid);
	return 0;
}

int ckf_agent_read_shares(const struct ckf_agent_call *c, struct ckf_agent_share **out,
			  uint32_t *nr, struct ckf_error *err)
{
	struct ckf_agent_share *list;
	size_t bytes;
	ssize_t got;
	int mem;

	*out = NULL;
	*nr = c->nr_shares;
	if (!*nr)
		return 0;
	if (*nr > CKF_AGENT_MAX_SHARES)
		return ckf_error_set(err, -EBADMSG,
				     "process %d shares %u pieces of memory, more than %u",
				     (int)c->pid, *nr, CKF_AGENT_MAX_SHARES);
	bytes = *nr * sizeof(*list);
	list = malloc(bytes);
	if (!list)
		return ckf_error_set(err, -ENOMEM, "no memory for a list of shared memory");
	mem = open_mem(c->pid, O_RDONLY, err);
	got = mem < 0 ? -1 : pread(mem, list, bytes, (off_t)c->shares);
	if (mem >= 0)
		close(mem);
	if (got != (ssize_t)bytes) {
		free(list);
		return ckf_error_set(err, mem < 0 ? mem : -EBADMSG,
				     "cannot read what memory process %d shares", (int)c->pid);
	}
	*out = list;
	return 0;
}

static uint64_t deadline(const struct ckf_agent_call *c, unsigned int timeout_ms)
{
	return ckf_now_ns() + (c->timeout_ms ? c->timeout_ms : timeout_ms) * NS_PER_MS;
}

/* The agent's number of our end of its socketpair, as soon as it has made one. */
static int wait_peer(const struct ckf_agent_call *c, int mem, struct ckf_error *err)
{
	const uint64_t at = c->block + offsetof(struct ckf_agent_block, peer_fd);
	const struct timespec pause = { .tv_nsec = POLL_NS };
	const uint64_t end = deadline(c, WAKE_TIMEOUT_MS);
	int32_t fd = -1;

	while (ckf_now_ns() < end) {
		if (pread(mem, &fd, sizeof(fd), (off_t)at) != sizeof(fd))
			return ckf_error_set(err, -ESRCH, "process %d has ended", (int)c->pid);
		if (fd >= 0)
			return fd;
		nanosleep(&pause, NULL);
	}
	return ckf_error_set(err, -ETIMEDOUT, "the agent of process %d does not wake up",
			     (int)c->pid);
}

/* Any descriptor of the process may come. On others, what we send could do something. */
static bool is_seqpacket(int sock)
{
	socklen_t len = sizeof(int);
	int type = 0, domain = 0;

	return !getsockopt(sock, SOL_SOCKET, SO_TYPE, &type, &len) && type == SOCK_SEQPACKET &&
	       !getsockopt(sock, SOL_SOCKET, SO_DOMAIN, &domain, &len) && domain == AF_UNIX;
}

static int take_socket(struct ckf_agent_call *c, int fd, struct ckf_error *err)
{
	int pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0);
	int ret = 0;

	if (pidfd >= 0)
		c->sock = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
	if (pidfd < 0 || c->sock < 0)
		ret = ckf_error_set(err, -errno, "cannot reach the agent of process %d: %s",
				    (int)c->pid, strerror(errno));
	if (pidfd >= 0)
		close(pidfd);
	if (!ret && !is_seqpacket(c->sock)) {
		close(c->sock);
		c->sock = -1;
		ret = ckf_error_set(err, -EBADMSG,
				    "descriptor %d, which the agent of process %d names, is not a "
				    "socket of it",
				    fd, (int)c->pid);
	}
	return ret;
}

/* Its thread looks at the word when it is continued after a stop, or is signalled. */
static int wake(struct ckf_agent_call *c, int mem, struct ckf_error *err)
{
	const uint64_t at = c->block + offsetof(struct ckf_agent_block, wake);
	const uint32_t wake = 1;
	struct ckf_error run_err = { 0 };
	int ret;

	if (pwrite(mem, &wake, sizeof(wake), (off_t)at) != sizeof(wake))
		return ckf_error_set(err, -EIO, "cannot wake the agent of process %d", (int)c->pid);
	ret = ckf_tracee_run(&c->thread, c->tid, &run_err);
	if (ret && (ret != -ESRCH || c->version < 2))
		return ckf_error_set(err, ret, "%s", run_err.msg);
	if (!ret)
		return 0;
	/* Not one that the caller has stopped. */
	if (syscall(SYS_tgkill, c->pid, c->tid, CKF_AGENT_SIGNAL))
		return ckf_error_set(err, -errno, "cannot signal the agent of process %d: %s",
				     (int)c->pid, strerror(errno));
	return 0;
}

int ckf_agent_begin(struct ckf_agent_call *c, struct ckf_error *err)
{
	int mem, ret;

	c->stuck = false;
	mem = open_mem(c->pid, O_RDWR, err);
	if (mem < 0)
		return mem;
	ret = wake(c, mem, err);
	if (!ret)
		ret = wait_peer(c, mem, err);
	if (ret >= 0)
		ret = take_socket(c, ret, err);
	close(mem);
	if (ret)
		ckf_agent_end(c, NULL);
	return ret;
}

int ckf_agent_end(struct ckf_agent_call *c, struct ckf_error *err)
{
	struct ckf_agent_msg m = { .op = CKF_AGENT_QUIT };
	const uint64_t end = deadline(c, WAKE_TIMEOUT_MS);
	int fd;

	/* What is stuck finds the end of the conversation when it gets on. */
	if (c->sock >= 0 && c->stuck) {
		close(c->sock);
		c->sock = -1;
	} else if (c->sock >= 0) {
		/* The end of the stream says that the agent has closed its socket: none is to be
		 * dumped. */
		if (!ckf_scm_send_until(c->sock, &m, sizeof(m), -1, end)) {
			while (ckf_now_ns() < end &&
			       ckf_scm_recv_until(c->sock, &m, sizeof(m), &fd, end) == sizeof(m)) {
				if (fd >= 0)
					close(fd);
			}
		}
		close(c->sock);
		c->sock = -1;
	}
	return ckf_tracee_stop(&c->thread, err);
}

void ckf_agent_renew(struct ckf_agent_call *c)
{
	c->deadline_ns = deadline(c, ANSWER_TIMEOUT_MS);
}

/* -EDEADLK when the agent cannot get on before all threads run. */
static int wait_agent(struct ckf_agent_call *c, short events, struct ckf_error *err)
{
	int ret = ckf_tracee_wait(&c->thread, c->pid, c->sock, events, c->deadline_ns, err);

	c->stuck |= ret == -EDEADLK;
	return ret;
}

int ckf_agent_send(struct ckf_agent_call *c, const struct ckf_agent_msg *m, int fd,
		   struct ckf_error *err)
{
	int ret;

	/* All others go on with a request. */
	if (m->op != CKF_AGENT_MAP && m->op != CKF_AGENT_COMMIT)
		ckf_agent_renew(c);
	ret = wait_agent(c, POLLOUT, err);
	if (ret)
		return ret;
	ret = ckf_scm_send_until(c->sock, m, sizeof(*m), fd, c->deadline_ns);
	if (ret == -ETIMEDOUT)
		return ckf_error_set(err, ret, "the agent of process %d does not read",
				     (int)c->pid);
	return ret ? ckf_error_set(err, ret, "the agent of process %d has gone: %s", (int)c->pid,
				   strerror(-ret))
		   : 0;
}

/* What the process says goes into our log. */
static void make_printable(char *text, size_t bytes)
{
	text[bytes - 1] = 0;
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			*text = '?';
}

int ckf_agent_recv(struct ckf_agent_call *c, struct ckf_agent_msg *m, int *fd,
		   struct ckf_error *err)
{
	int ret;

	*fd = -1;
	ret = wait_agent(c, POLLIN, err);
	if (ret)
		return ret;
	ret = -ETIMEDOUT;
	if (ckf_now_ns() < c->deadline_ns)
		ret = ckf_scm_recv_until(c->sock, m, sizeof(*m), fd, c->deadline_ns);
	if (ret == -ETIMEDOUT)
		return ckf_error_set(err, ret, "the agent of process %d has not answered in time",
				     (int)c->pid);
	make_printable(m->text, sizeof(m->text));
	if (ret == (int)sizeof(*m) && m->op == (*fd >= 0 ? CKF_AGENT_ALLOC : CKF_AGENT_DONE))
		return 0;
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	if (ret != (int)sizeof(*m))
		return ckf_error_set(err, -EPROTO, "the agent of process %d broke off",
				     (int)c->pid);
	if (m->op != CKF_AGENT_ERROR)
		return ckf_error_set(err, -EPROTO, "the agent of process %d says %u", (int)c->pid,
				     m->op);
	return ckf_error_set(err, -EIO, "the agent of process %d: %s", (int)c->pid, m->text);
}

int ckf_agent_done(struct ckf_agent_call *c, struct ckf_error *err)
{
	struct ckf_agent_msg m;
	int fd, ret;

	ret = ckf_agent_recv(c, &m, &fd, err);
	if (ret || fd < 0)
		return ret;
	close(fd);
	return ckf_error_set(err, -EPROTO, "the agent of process %d has not done what it was asked",
			     (int)c->pid);
}

int ckf_agent_ask(struct ckf_agent_call *c, struct ckf_agent_msg m, struct ckf_error *err)
{
	int ret = ckf_agent_send(c, &m, -1, err);

	return ret ? ret : ckf_agent_done(c, err);
}
