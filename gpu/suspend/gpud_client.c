/* SPDX-License-Identifier: MIT */
/*
 * The client's side of gpud: connecting, or starting a helper, and single messages.
 *
 * Used inside of CRIU, so it leaves nothing behind but the socket: descriptors are close-on-exec,
 * and the helper is not a child of the caller for longer than ckf_gpud_connect() takes, since the
 * end of a child that CRIU does not know ends a restore.
 */
#include "ckf_gpud.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/ckf_threads.h"
#include "ckf_gpud_msg.h"
#include "base/ckf_scm.h"

#define HELPER_FD 3    /* of the socket, in the helper; nothing above it is open there */
#define MAX_ERRNO 4095 /* as in the kernel */
#define NS_PER_S 1000000000ull
#define NS_PER_MS 1000000ull

extern char **environ;

static int connect_daemon(const char *path, struct ckf_error *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int sock, ret;

	if (strlen(path) >= sizeof(addr.sun_path))
		return ckf_error_set(err, -ENAMETOOLONG,
				     "the path of gpud's socket is too long: %s", path);
	strcpy(addr.sun_path, path);
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return ckf_error_set(err, -errno, "cannot make a socket: %s", strerror(errno));
	while (connect(sock, (struct sockaddr *)&addr, sizeof(addr))) {
		if (errno == EINTR)
			continue;
		ret = -errno;
		close(sock);
		return ckf_error_set(err, ret, "cannot connect to gpud at %s: %s", path,
				     strerror(-ret));
	}
	return sock;
}

/* What the helper inherits: the socket and stderr; no other descriptor, no signal setting. */
static int helper_setup(posix_spawn_file_actions_t *fa, posix_spawnattr_t *attr, int sock)
{
	sigset_t none, all;
	int ret;

	sigemptyset(&none);
	sigfillset(&all);
	ret = posix_spawn_file_actions_adddup2(fa, sock, HELPER_FD);
	if (!ret)
		ret = posix_spawn_file_actions_addopen(fa, 0, "/dev/null", O_RDONLY, 0);
	if (!ret)
		ret = posix_spawn_file_actions_addopen(fa, 1, "/dev/null", O_WRONLY, 0);
	if (!ret)
		ret = posix_spawn_file_actions_addclosefrom_np(fa, HELPER_FD + 1);
	if (!ret)
		ret = posix_spawnattr_setsigmask(attr, &none);
	if (!ret)
		ret = posix_spawnattr_setsigdefault(attr, &all);
	if (!ret)
		ret = posix_spawnattr_setflags(
			attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
	return ret;
}

/*
 * Starts the program and waits until it has gone to the background: it forks before it does
 * anything else, and its first process ends.
 */
static int helper_spawn(const char *helper, int sock, struct ckf_error *err)
{
	char fd_arg[16];
	char *argv[] = { (char *)helper, "gpud", "--fd", fd_arg, NULL };
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	int ret, status = 0;
	pid_t pid;

	snprintf(fd_arg, sizeof(fd_arg), "%d", HELPER_FD);
	ret = posix_spawn_file_actions_init(&fa);
	if (ret)
		return ckf_error_set(err, -ret, "cannot start %s: %s", helper, strerror(ret));
	ret = posix_spawnattr_init(&attr);
	if (ret) {
		posix_spawn_file_actions_destroy(&fa);
		return ckf_error_set(err, -ret, "cannot start %s: %s", helper, strerror(ret));
	}
	ret = helper_setup(&fa, &attr, sock);
	if (!ret)
		ret = posix_spawn(&pid, helper, &fa, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&fa);
	if (ret)
		return ckf_error_set(err, -ret, "cannot start %s: %s", helper, strerror(ret));
	while ((ret = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
		;
	/* ECHILD: the caller ignores SIGCHLD, or has a handler that was faster. */
	if (ret == pid && status)
		return ckf_error_set(err, -EIO, "%s gpud ended at once, status 0x%x", helper,
				     status);
	return 0;
}

static int start_helper(const char *helper, struct ckf_error *err)
{
	sigset_t chld, old;
	int sv[2], ret;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv))
		return ckf_error_set(err, -errno, "cannot make a socket: %s", strerror(errno));
	/* A handler of the caller must not see this child. */
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	pthread_sigmask(SIG_BLOCK, &chld, &old);
	ret = helper_spawn(helper, sv[1], err);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	close(sv[1]);
	if (ret) {
		close(sv[0]);
		return ret;
	}
	return sv[0];
}

/* Takes sock. A gpud of another version says so. */
static int say_hello(int sock, const char *path, struct ckf_error *err)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_HELLO, .arg = CKF_GPUD_VERSION };
	struct ckf_error hello_err = { 0 };
	int ret;

	ret = ckf_gpud_call(sock, &m, -1, &hello_err);
	if (!ret)
		return sock;
	close(sock);
	return ckf_error_set(err, ret, "gpud at %s: %s", path, hello_err.msg);
}

int ckf_gpud_connect(const char *path, const char *helper, struct ckf_error *err)
{
	struct ckf_error first = { 0 };
	int ret;

	if (!path)
		path = getenv("CKFAST_GPUD_SOCKET");
	if (!path)
		path = CKF_GPUD_SOCKET;
	ret = connect_daemon(path, &first);
	if (ret >= 0)
		ret = say_hello(ret, path, &first);
	if (ret >= 0)
		return ret;
	/* The last two: a service manager listens, but the gpud that it starts ends at once. */
	if (!helper ||
	    (ret != -ENOENT && ret != -ECONNREFUSED && ret != -ECONNRESET && ret != -EPIPE))
		return ckf_error_set(err, ret, "%s", first.msg);
	ret = start_helper(helper, err);
	return ret < 0 ? ret : say_hello(ret, helper, err);
}

/* A call of the driver that hangs must not hang CRIU for ever. */
static uint64_t answer_deadline(void)
{
	return ckf_now_ns() + CKF_GPUD_ANSWER_S * NS_PER_S;
}

/* The next message that is an answer. While gpud says that it gets on, there is time. */
static int recv_answer(int sock, struct ckf_gpud_msg *m, int *fd, uint64_t deadline_ns,
		       struct ckf_error *err)
{
	int ret;

	while (!(ret = gpud_recv_until(sock, m, fd, deadline_ns, err)) && m->op == CKF_GPUD_MOVES) {
		if (fd && *fd >= 0)
			close(*fd);
		if (deadline_ns < answer_deadline())
			deadline_ns = answer_deadline();
	}
	return ret;
}

int ckf_gpud_recv(int sock, struct ckf_gpud_msg *m, int *fd, struct ckf_error *err)
{
	return recv_answer(sock, m, fd, answer_deadline(), err);
}

int gpud_recv_until(int sock, struct ckf_gpud_msg *m, int *fd, uint64_t deadline_ns,
		    struct ckf_error *err)
{
	int ret = ckf_scm_recv_until(sock, m, sizeof(*m), fd, deadline_ns);

	/* It was closed before all that we sent was read; what was said before comes after this. */
	if (ret == -ECONNRESET)
		ret = ckf_scm_recv_until(sock, m, sizeof(*m), fd, deadline_ns);
	if (ret == (int)sizeof(*m)) {
		m->text[sizeof(m->text) - 1] = '\0';
		return 0;
	}
	if (fd && *fd >= 0) {
		close(*fd);
		*fd = -1;
	}
	if (ret == -ETIMEDOUT)
		return ckf_error_set(err, ret, "nothing has come from gpud's socket in time");
	if (!ret)
		return ckf_error_set(err, -ECONNRESET, "gpud's socket was closed by the other end");
	if (ret == -EMFILE)
		return ckf_error_set(err, ret, "no room for a descriptor from gpud's socket");
	if (ret > 0 || ret == -EMSGSIZE || ret == -EBADMSG)
		return ckf_error_set(err, -EBADMSG, "bad message from gpud's socket");
	return ckf_error_set(err, ret, "cannot receive from gpud's socket: %s", strerror(-ret));
}

int gpud_answered_error(const struct ckf_gpud_msg *m, struct ckf_error *err)
{
	return ckf_error_set(err, m->arg > 0 && m->arg <= MAX_ERRNO ? -(int)m->arg : -EIO, "%s",
			     m->text);
}

/* A gpud that closes a connection says why, and that may have come before we sent anything. */
static int send_error(int sock, int ret, struct ckf_error *err)
{
	struct pollfd p = { .fd = sock, .events = POLLIN };
	struct ckf_gpud_msg m;

	if (ret == -EPIPE && poll(&p, 1, 0) > 0 && !ckf_gpud_recv(sock, &m, NULL, NULL) &&
	    m.op == CKF_GPUD_ERROR)
		return gpud_answered_error(&m, err);
	if (ret == -ETIMEDOUT)
		return ckf_error_set(err, ret, "the other end of gpud's socket does not read");
	return ckf_error_set(err, ret, "cannot send to gpud's socket: %s", strerror(-ret));
}

int ckf_gpud_send(int sock, const struct ckf_gpud_msg *m, int fd, struct ckf_error *err)
{
	return gpud_send_until(sock, m, fd, answer_deadline(), err);
}

int gpud_send_until(int sock, const struct ckf_gpud_msg *m, int fd, uint64_t deadline_ns,
		    struct ckf_error *err)
{
	int ret = ckf_scm_send_until(sock, m, sizeof(*m), fd, deadline_ns);

	return ret ? send_error(sock, ret, err) : 0;
}

static int check_answer(const struct ckf_gpud_msg *m, uint32_t op, struct ckf_error *err)
{
	if (m->op == CKF_GPUD_ERROR)
		return gpud_answered_error(m, err);
	if (m->op != op)
		return ckf_error_set(err, -EBADMSG, "gpud answered with message %u", m->op);
	return 0;
}

/* The answer to a request that has only one. */
static int check_done(const struct ckf_gpud_msg *m, struct ckf_error *err)
{
	return check_answer(m, CKF_GPUD_DONE, err);
}

int gpud_answer(int sock, uint32_t op, struct ckf_gpud_msg *m, struct ckf_error *err)
{
	int ret = ckf_gpud_recv(sock, m, NULL, err);

	return ret ? ret : check_answer(m, op, err);
}

int gpud_call_send(int sock, const struct ckf_gpud_msg *m, int fd, uint64_t *deadline_ns,
		   struct ckf_error *err)
{
	*deadline_ns = answer_deadline();
	/* gpud must not lock a process when nobody waits for that any more. */
	if (m->op == CKF_GPUD_CHECKPOINT)
		*deadline_ns += m->arg2 * NS_PER_MS;
	return gpud_send_until(sock, m, fd, *deadline_ns, err);
}

int gpud_call_recv(int sock, struct ckf_gpud_msg *m, uint64_t deadline_ns, struct ckf_error *err)
{
	int ret = recv_answer(sock, m, NULL, deadline_ns, err);

	return ret ? ret : check_done(m, err);
}

int ckf_gpud_call(int sock, struct ckf_gpud_msg *m, int fd, struct ckf_error *err)
{
	uint64_t deadline_ns;
	int ret = gpud_call_send(sock, m, fd, &deadline_ns, err);

	return ret ? ret : gpud_call_recv(sock, m, deadline_ns, err);
}

int ckf_gpud_join(int sock, struct ckf_error *err)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_JOIN };
	int joined = -1, ret;

	ret = ckf_gpud_send(sock, &m, -1, err);
	if (!ret)
		ret = ckf_gpud_recv(sock, &m, &joined, err);
	if (!ret)
		ret = check_done(&m, err);
	if (!ret && joined < 0)
		ret = ckf_error_set(err, -EBADMSG, "gpud has answered without a connection");
	if (!ret)
		return joined;
	if (joined >= 0)
		close(joined);
	return ret;
}

int ckf_gpud_status(int gpud, char **json, struct ckf_error *err)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_STATUS };
	char *text = NULL;
	size_t len;
	FILE *f;
	int ret;

	f = open_memstream(&text, &len);
	if (!f)
		return ckf_error_set(err, -ENOMEM, "no memory");
	ret = ckf_gpud_send(gpud, &m, -1, err);
	while (!ret) {
		ret = ckf_gpud_recv(gpud, &m, NULL, err);
		if (ret || m.op != CKF_GPUD_TEXT)
			break;
		fwrite(m.text, 1, strlen(m.text), f);
	}
	if (fclose(f) && !ret)
		ret = ckf_error_set(err, -ENOMEM, "no memory");
	if (!ret)
		ret = check_done(&m, err);
	if (ret) {
		free(text);
		text = NULL;
	}
	*json = text;
	return ret;
}
