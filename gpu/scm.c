/* SPDX-License-Identifier: MIT */
/* Messages with a descriptor beside them. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "scm.h"

#define MAX_FDS 8 /* room for what a peer sends against the rules, so that it is closed */

int ckf_scm_send(int sock, const void *msg, size_t bytes, int fd)
{
	struct iovec iov = { .iov_base = (void *)msg, .iov_len = bytes };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} control;
	ssize_t ret;

	memset(&control, 0, sizeof(control));
	if (fd >= 0) {
		h.msg_control = control.buf;
		h.msg_controllen = sizeof(control.buf);
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
	}
	do {
		ret = sendmsg(sock, &h, MSG_NOSIGNAL);
	} while (ret < 0 && errno == EINTR);
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

int ckf_scm_recv(int sock, void *msg, size_t bytes, int *fd)
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
	unsigned int nr, resets = 0;
	ssize_t ret;
	int got;

	if (fd)
		*fd = -1;
	/* A peer that closed without having read all that it was sent may have left an answer. */
	do {
		ret = recvmsg(sock, &h, MSG_CMSG_CLOEXEC);
	} while (ret < 0 && (errno == EINTR || (errno == ECONNRESET && !resets++)));
	if (ret < 0)
		return -errno;
	got = take_fd(&h, &nr);
	if (!(h.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) && (nr == 0 || (nr == 1 && fd))) {
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
