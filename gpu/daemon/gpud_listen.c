/* SPDX-License-Identifier: MIT */
/*
 * The socket of a gpud. Who may connect is decided by the mode of the directory, by the mode of the
 * socket, and once more by the credentials of the peer (gpud.c).
 *
 * Whether a socket that is there already is in use, removing it, and making another one are three
 * steps, which several gpuds may take at once: a lock on the directory makes them one. It ends with
 * the process that holds it, and leaves no file behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/ckf_threads.h"
#include "gpud.h"

#define BACKLOG 64
#define LOCK_S 10 /* longer than another gpud needs */
#define LOCK_POLL_MS 5

/*
 * The directory of the socket, made with that mode if it is not there and make is not 0, and
 * locked: a descriptor, or -errno.
 */
static int lock_directory(const char *path, mode_t make, struct ckf_error *err)
{
	const uint64_t end = ckf_now_ns() + LOCK_S * GPUD_NS_PER_S;
	char *dir = strdup(path), *slash;
	int fd = -1, ret = 0;

	if (!dir)
		return ckf_error_set(err, -ENOMEM, "no memory");
	slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir] = '\0';
	else
		strcpy(dir, ".");
	if (make && slash && mkdir(dir, make) && errno != EEXIST)
		ret = ckf_error_set(err, -errno, "cannot make %s: %s", dir, strerror(errno));
	if (!ret) {
		fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			ret = ckf_error_set(err, -errno, "cannot open %s: %s", dir,
					    strerror(errno));
	}
	while (!ret && flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK || ckf_now_ns() > end)
			ret = ckf_error_set(err, -errno,
					    "cannot lock %s, which another process may hold "
					    "locked: %s",
					    dir, strerror(errno));
		else
			poll(NULL, 0, LOCK_POLL_MS);
	}
	free(dir);
	if (ret && fd >= 0)
		close(fd);
	return ret ? ret : fd;
}

/* 0 when somebody listens there. */
static int try_connect(const struct sockaddr_un *addr)
{
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int ret;

	if (sock < 0)
		return -errno;
	/* Where its queue is full it is alive, too. */
	ret = !connect(sock, (const struct sockaddr *)addr, sizeof(*addr)) || errno == EAGAIN
		      ? 0
		      : -errno;
	close(sock);
	return ret;
}

/* A socket that nobody listens on any more is removed; one in use, or another file, is not. */
static int remove_stale(const struct sockaddr_un *addr, struct ckf_error *err)
{
	const char *path = addr->sun_path;
	struct stat st;
	int ret;

	if (lstat(path, &st))
		return errno == ENOENT ? 0
				       : ckf_error_set(err, -errno, "cannot stat %s: %s", path,
						       strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return ckf_error_set(err, -EEXIST, "%s is there and is no socket", path);
	ret = try_connect(addr);
	if (!ret)
		return ckf_error_set(err, -EADDRINUSE, "a gpud listens at %s already", path);
	if (ret != -ECONNREFUSED || unlink(path))
		return ckf_error_set(err, -EADDRINUSE, "%s is there and cannot be removed", path);
	return 0;
}

/* A socket that listens at the address, or -errno. */
static int bind_socket(const struct sockaddr_un *addr, mode_t mode, struct ckf_gpud_listener *l,
		       struct ckf_error *err)
{
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	const char *path = addr->sun_path;
	struct stat st;
	int ret;

	if (sock < 0)
		return ckf_error_set(err, -errno, "cannot make a socket: %s", strerror(errno));
	/* The mode of the socket file is that of the socket when it is bound. */
	if (fchmod(sock, mode) || bind(sock, (const struct sockaddr *)addr, sizeof(*addr)) ||
	    chmod(path, mode) || lstat(path, &st) || listen(sock, BACKLOG)) {
		ret = ckf_error_set(err, -errno, "cannot listen at %s: %s", path, strerror(errno));
		close(sock);
		return ret;
	}
	l->fd = sock;
	l->dev = st.st_dev;
	l->ino = st.st_ino;
	return 0;
}

static int make_listener(const struct sockaddr_un *addr, bool for_group,
			 struct ckf_gpud_listener *l, struct ckf_error *err)
{
	int lock, ret;

	lock = lock_directory(addr->sun_path, for_group ? 0710 : 0700, err);
	if (lock < 0)
		return lock;
	ret = remove_stale(addr, err);
	if (!ret)
		ret = bind_socket(addr, for_group ? 0660 : 0600, l, err);
	close(lock);
	return ret;
}

int ckf_gpud_listen(const char *path, const struct ckf_gpud_group *group,
		    struct ckf_gpud_listener *l, struct ckf_error *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	gid_t own_gid = 0;
	struct stat st;
	int ret;

	*l = (struct ckf_gpud_listener){ .fd = -1, .path = path };
	if (strlen(path) >= sizeof(addr.sun_path))
		return ckf_error_set(err, -ENAMETOOLONG, "the path of the socket is too long: %s",
				     path);
	strcpy(addr.sun_path, path);
	/* Files are made with this id, so that CAP_CHOWN is not needed. */
	if (group->set)
		own_gid = (gid_t)setfsgid(group->gid);
	ret = make_listener(&addr, group->set, l, err);
	if (group->set)
		setfsgid(own_gid);
	if (ret || !group->set || (!lstat(path, &st) && st.st_gid == group->gid))
		return ret;
	ckf_gpud_unlisten(l);
	return ckf_error_set(err, -EPERM, "cannot give %s to the group: gpud must be root", path);
}

void ckf_gpud_unlisten(struct ckf_gpud_listener *l)
{
	struct stat st;
	int lock;

	if (l->fd < 0)
		return;
	lock = l->path ? lock_directory(l->path, 0, NULL) : -1;
	if (lock >= 0) {
		if (!lstat(l->path, &st) && st.st_dev == l->dev && st.st_ino == l->ino)
			unlink(l->path);
		close(lock);
	}
	close(l->fd);
	l->fd = -1;
}
