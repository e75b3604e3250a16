/* SPDX-License-Identifier: MIT */
/* Messages with a descriptor beside them. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ckf_threads.h"
#include "ckf_scm.h"

#define MAX_FDS 8 /* room for what a peer sends against the rules, so that it is closed */

#define NS_PER_MS 1000000u

/* 0 when the socket may be ready, or the time is over: -ETIMEDOUT. */
static int wait_ready(int sock, short events, uint64_t deadline_ns)
{
	struct pollfd p = { .fd = sock, .events = events };
	uint64_t now = ckf_now_ns(), left_ms = 0;
	int ret;

	if (deadline_ns && now >= deadline_ns)
		return -ETIMEDOUT;
	if (deadline_ns)
		left_ms = (deadline_ns - now) / NS_PER_MS + 1;
	ret = poll(&p, 1, !deadline_ns ? -1 : left_ms > INT_MAX ? INT_MAX : (int)left_ms);
	return ret < 0 && errno != EINTR ? -errno : 0;
}

int ckf_scm_send(int sock, const void *msg, size_t bytes, int fd)
{
	return ckf_scm_send_until(sock, msg, bytes, fd, 0);
}

int ckf_scm_send_until(int sock, const void *msg, size_t bytes, int fd, uint64_t deadline_ns)
{
	struct iovec iov = { .iov_base = (void *)msg, .iov_len = bytes };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} control;
	ssize_t ret;
	int wait;

	memset(&control, 0, sizeof(control));
	if (fd >= 0) {
		h.msg_control = control.buf;
		h.msg_controllen = sizeof(control.buf);
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
	}
	while ((ret = sendmsg(sock, &h, MSG_NOSIGNAL | MSG_DONTWAIT)) < 0) {
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			break;
		wait = wait_ready(sock, POLLOUT, deadline_ns);
		if (wait)
			return wait;
	}
	if (ret < 0)
		return -errno;
	return (size_t)ret == bytes ? 0 : -EIO;
}

/* The first descriptor of a message, or -1; all others are closed. *nr counts them all. */
static int take_fd(struct msghdr *h, unsigned int *nr)
{
	int fds[MAX_FDS], first = -1;
	size_t n;

	*nr = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(c), n * sizeof(int));
		for (size_t i = 0; i < n; i++) {
			if ((*nr)++ == 0)
				first = fds[i];
			else
				close(fds[i]);
		}
	}
	return first;
}

/* recvmsg() that waits until the deadline, and for nothing else. */
static ssize_t recv_until(int sock, struct msghdr *h, uint64_t deadline_ns)
{
	unsigned int resets = 0;
	ssize_t ret;
	int wait;

	while ((ret = recvmsg(sock, h, MSG_CMSG_CLOEXEC | MSG_DONTWAIT)) < 0) {
		if (errno == EAGAIN) {
			wait = wait_ready(sock, POLLIN, deadline_ns);
			if (wait)
				return wait;
		} else if (errno == ECONNRESET && !resets) {
			/* A peer that closed without having read all that it was sent may have left
			 * an answer. */
			resets++;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	return ret;
}

int ckf_scm_recv(int sock, void *msg, size_t bytes, int *fd)
{
	return ckf_scm_recv_until(sock, msg, bytes, fd, 0);
}

int ckf_scm_recv_until(int sock, void *msg, size_t bytes, int *fd, uint64_t deadline_ns)
{
	struct iovec iov = { .iov_base = msg, .iov_len = bytes };
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(MAX_FDS * sizeof(int))];
	} control;
	struct msghdr h = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	unsigned int nr;
	ssize_t ret;
	int got;

	if (fd)
		*fd = -1;
	ret = recv_until(sock, &h, deadline_ns);
	if (ret < 0)
		return (int)ret;
	got = take_fd(&h, &nr);
	if (!(h.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) &&
	    (nr == 0 || (nr == 1 && fd && (size_t)ret == bytes))) {
		if (fd)
			*fd = got;
		return (int)ret;
	}
	if (got >= 0)
		close(got);
	if (h.msg_flags & MSG_TRUNC)
		return -EMSGSIZE;
	/* The kernel cuts off descriptors where the table of this process is full. */
	return h.msg_flags & MSG_CTRUNC && nr <= 1 ? -EMFILE : -EBADMSG;
}
