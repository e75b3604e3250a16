/* SPDX-License-Identifier: MIT */
/*
 * The socket of a gpud. Who may connect is decided by the mode of the directory, by the mode of the
 * socket, and once more by the credentials of the peer (gpud.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "gpud.h"

#define BACKLOG 64

static int make_directory(const char *path, struct ckf_error *err)
{
	char *dir = strdup(path), *slash;
	int ret = 0;

	if (!dir)
		return ckf_error_set(err, -ENOMEM, "no memory");
	slash = strrchr(dir, '/');
	if (slash && slash != dir) {
		*slash = '\0';
		if (mkdir(dir, 0700) && errno != EEXIST)
			ret = ckf_error_set(err, -errno, "cannot make %s: %s", dir,
					    strerror(errno));
	}
	free(dir);
	return ret;
}

/* A socket that nobody listens on any more is removed; one in use, or another file, is not. */
static int remove_stale(const char *path, struct ckf_error *err)
{
	struct stat st;
	int sock;

	if (lstat(path, &st))
		return errno == ENOENT ? 0
				       : ckf_error_set(err, -errno, "cannot stat %s: %s", path,
						       strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return ckf_error_set(err, -EEXIST, "%s is there and is no socket", path);
	sock = ckf_gpud_connect(path, NULL, NULL);
	if (sock >= 0) {
		close(sock);
		return ckf_error_set(err, -EADDRINUSE, "a gpud listens at %s already", path);
	}
	if (sock != -ECONNREFUSED || unlink(path))
		return ckf_error_set(err, -EADDRINUSE, "%s is there and cannot be removed", path);
	return 0;
}

int ckf_gpud_listen(const char *path, struct ckf_error *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int sock, ret;

	if (strlen(path) >= sizeof(addr.sun_path))
		return ckf_error_set(err, -ENAMETOOLONG, "the path of the socket is too long: %s",
				     path);
	strcpy(addr.sun_path, path);
	ret = make_directory(path, err);
	if (!ret)
		ret = remove_stale(path, err);
	if (ret)
		return ret;
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return ckf_error_set(err, -errno, "cannot make a socket: %s", strerror(errno));
	/* The mode of the socket file is that of the socket when it is bound. */
	if (fchmod(sock, 0600) || bind(sock, (struct sockaddr *)&addr, sizeof(addr)) ||
	    chmod(path, 0600) || listen(sock, BACKLOG)) {
		ret = ckf_error_set(err, -errno, "cannot listen at %s: %s", path, strerror(errno));
		close(sock);
		return ret;
	}
	return sock;
}
