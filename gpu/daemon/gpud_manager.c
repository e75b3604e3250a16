/* SPDX-License-Identifier: MIT */
/*
 * The service manager that may have started gpud: it is told how far gpud is (sd_notify(3)), and it
 * may have made the socket (sd_listen_fds(3)). Both protocols are a few variables of the
 * environment, so no library is needed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "gpud.h"

#define FIRST_FD 3 /* of those that the manager passes */

void ckf_gpud_tell(const char *state)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	const char *path = getenv("NOTIFY_SOCKET");
	size_t len = path ? strlen(path) : 0;
	int sock;

	if (!len || len >= sizeof(addr.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(addr.sun_path, path, len);
	if (path[0] == '@')
		addr.sun_path[0] = '\0';
	sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return;
	/* A manager that does not read must not hold gpud up. */
	(void)sendto(sock, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT,
		     (struct sockaddr *)&addr,
		     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
	close(sock);
}

static int socket_option(int fd, int option)
{
	socklen_t len = sizeof(int);
	int value;

	return getsockopt(fd, SOL_SOCKET, option, &value, &len) ? -1 : value;
}

int ckf_gpud_inherit(struct ckf_gpud_listener *l, struct ckf_error *err)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	long nr;

	*l = (struct ckf_gpud_listener){ .fd = -1 };
	if (!pid || !fds || strtol(pid, NULL, 10) != (long)getpid())
		return 0;
	nr = strtol(fds, NULL, 10);
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	if (nr < 1)
		return 0;
	if (nr > 1)
		return ckf_error_set(err, -EINVAL,
				     "the service manager passes %ld sockets, gpud takes one", nr);
	if (socket_option(FIRST_FD, SO_DOMAIN) != AF_UNIX ||
	    socket_option(FIRST_FD, SO_TYPE) != SOCK_SEQPACKET ||
	    socket_option(FIRST_FD, SO_ACCEPTCONN) != 1)
		return ckf_error_set(
			err, -EINVAL,
			"what the service manager passes is no unix socket of sequenced "
			"packets that listens (ListenSequentialPacket=)");
	if (fcntl(FIRST_FD, F_SETFD, FD_CLOEXEC))
		return ckf_error_set(err, -errno,
				     "cannot use the socket of the service manager: %s",
				     strerror(errno));
	l->fd = FIRST_FD;
	return 0;
}
