/* SPDX-License-Identifier: MIT */
/* Directories, and members of archives in their place. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ckf_dir.h"

static int compare_name(const void *name, const void *member)
{
	return strcmp(name, ((const struct ckf_member *)member)->name);
}

const struct ckf_member *ckf_members_find(const struct ckf_members *m, const char *name)
{
	return m->nr ? bsearch(name, m->v, (size_t)m->nr, sizeof(*m->v), compare_name) : NULL;
}

int ckf_dir_open_member(const struct ckf_dir *d, const char *name, struct ckf_file_part *out)
{
	const struct ckf_member *m = ckf_members_find(d->members, name);

	if (!m)
		return -ENOENT;
	*out = (struct ckf_file_part){ .off = m->off, .bytes = m->bytes, .member = m };
	out->fd = fcntl(d->fd, F_DUPFD_CLOEXEC, 0);
	return out->fd < 0 ? -errno : 0;
}

static int each_entry(int dir_fd, int (*visit)(void *arg, const char *name), void *arg)
{
	/* An own open file: readdir moves the position of a shared one. */
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), ret = 0;
	struct dirent *de;
	DIR *dir;

	dir = fd >= 0 ? fdopendir(fd) : NULL;
	if (!dir) {
		ret = -errno;
		if (fd >= 0)
			close(fd);
		return ret;
	}
	while (!ret && (errno = 0, de = readdir(dir))) {
		if (strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0)
			ret = visit(arg, de->d_name);
	}
	if (!ret && errno)
		ret = -errno;
	closedir(dir);
	return ret;
}

int ckf_dir_each(const struct ckf_dir *d, int (*visit)(void *arg, const char *name), void *arg)
{
	int ret = 0;

	if (!d->members)
		return each_entry(d->fd, visit, arg);
	for (uint64_t i = 0; i < d->members->nr && !ret; i++)
		ret = visit(arg, d->members->v[i].name);
	return ret;
}
