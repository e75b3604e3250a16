// SPDX-License-Identifier: GPL-2.0-only
/* Keeps what CRIU has found out about the kernel until the next boot: see fast-kerndat.h. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/compiler.h"
#include "cr_options.h"
#include "fast-kerndat.h"
#include "fs-magic.h"
#include "log.h"
#include "sysctl.h"

#undef LOG_PREFIX
#define LOG_PREFIX "fast-kerndat: "

#define BOOT_ID_BYTES 36 /* a UUID, as text */
#define BOOT_ID_ROOM (BOOT_ID_BYTES + 2)

/* The file for this boot beside name, and the id. Without rights to CRIU's directory there is none. */
static int boot_file(const char *name, char *path, size_t path_bytes, char *id)
{
	struct sysctl_req req = { "kernel/random/boot_id", id, CTL_STR(BOOT_ID_ROOM) };

	if (opts.unprivileged || (size_t)snprintf(path, path_bytes, "%s.boot", name) >= path_bytes)
		return -1;
	if (sysctl_op(&req, 1, CTL_READ, 0))
		return -1;
	return strnlen(id, BOOT_ID_BYTES) == BOOT_ID_BYTES ? 0 : -1;
}

int fast_kerndat_open(const char *name)
{
	char path[PATH_MAX], id[BOOT_ID_ROOM], kept[BOOT_ID_BYTES];
	int fd;

	fd = open(name, O_RDONLY);
	if (fd >= 0 || errno != ENOENT || boot_file(name, path, sizeof(path), id))
		return fd;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return -1;
	if (read(fd, kept, sizeof(kept)) == sizeof(kept) && !memcmp(kept, id, sizeof(kept)))
		return fd;
	pr_debug("%s is of another boot\n", path);
	close(fd);
	errno = ENOENT;
	return -1;
}

static bool is_on_tmpfs(const char *name)
{
	char dir[PATH_MAX];
	struct statfs s;
	char *slash;

	snprintf(dir, sizeof(dir), "%s", name);
	slash = strrchr(dir, '/');
	if (slash)
		slash[1] = 0;
	return !statfs(slash ? dir : ".", &s) && s.f_type == TMPFS_MAGIC;
}

bool fast_kerndat_save(const char *name, const void *kdat, size_t size)
{
	char path[PATH_MAX], tmp[PATH_MAX + 8], id[BOOT_ID_ROOM];
	struct iovec iov[] = { { id, BOOT_ID_BYTES }, { (void *)kdat, size } };
	ssize_t n;
	int fd;

	if (is_on_tmpfs(name))
		return false;
	if (boot_file(name, path, sizeof(path), id))
		return true;
	snprintf(tmp, sizeof(tmp), "%s.XXXXXX", path);
	fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0) {
		pr_info("Can't create %s: %s\n", tmp, strerror(errno));
		return true;
	}
	n = writev(fd, iov, ARRAY_SIZE(iov));
	close(fd);
	if (n != (ssize_t)(BOOT_ID_BYTES + size) || rename(tmp, path)) {
		pr_info("Can't save %s\n", path);
		unlink(tmp);
	}
	return true;
}
