/* SPDX-License-Identifier: MIT */
/*
 * What ckfast watch reads of the directories that it watches: never through a link that leads out
 * of them, and never what may block.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xxhash.h>

#include "watch.h"

#define MAX_PARENTS 64 /* of an incremental dump */
/* Of the names in which conversions write: .NAME.ckfast-XXXXXX. */
#define LEFT_MIDDLE ".ckfast-"
#define LEFT_END_BYTES 6

static int open_below(int root_fd, const char *name, int flags, uint64_t resolve)
{
	struct open_how how = { .flags = (unsigned int)(flags | O_CLOEXEC), .resolve = resolve };
	int fd = (int)syscall(SYS_openat2, root_fd, name, &how, sizeof(how));

	return fd < 0 ? -errno : fd;
}

int watch_open(const char *root, const char *name, int flags)
{
	int root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC), fd;

	if (root_fd < 0)
		return -errno;
	fd = open_below(root_fd, name, flags, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
	close(root_fd);
	return fd;
}

static uint64_t hash_bytes(uint64_t h, const void *data, size_t bytes)
{
	return XXH3_64bits_withSeed(data, bytes, h);
}

/* Not of the time of the last change of the inode: a failed conversion may set it. */
static uint64_t hash_file(const char *name, const struct stat *st)
{
	const uint64_t facts[] = { st->st_ino, (uint64_t)st->st_size, st->st_mode & S_IFMT,
				   (uint64_t)st->st_mtim.tv_sec, (uint64_t)st->st_mtim.tv_nsec };

	return hash_bytes(hash_bytes(0, name, strlen(name) + 1), facts, sizeof(facts));
}

int watch_each(int dir_fd, watch_visit_fn *visit, void *arg)
{
	int fd = openat(dir_fd, ".", WATCH_DIR_FLAGS), ret = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;
	struct stat st;

	if (!dir) {
		ret = -errno;
		if (fd >= 0)
			close(fd);
		return ret;
	}
	while (!ret && (errno = 0, de = readdir(dir))) {
		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		if (!fstatat(dir_fd, de->d_name, &st, AT_SYMLINK_NOFOLLOW))
			ret = visit(dir_fd, de->d_name, &st, arg);
		else if (errno != ENOENT)
			ret = -errno;
	}
	if (!ret && errno)
		ret = -errno;
	closedir(dir);
	return ret;
}

static int look_at(int dir_fd, const char *name, const struct stat *st, void *arg)
{
	struct watch_look *l = arg;
	struct stat parent;

	/* A sum: the order of a directory says nothing. */
	l->mark += hash_file(name, st);
	l->bytes += S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0;
	l->has_inventory |= S_ISREG(st->st_mode) && !strcmp(name, "inventory.img");
	l->has_tree |= S_ISREG(st->st_mode) && !strcmp(name, "pstree.img");
	l->has_index |= !strcmp(name, "ckfast.idx");
	l->has_pages |= !strncmp(name, "pages-", 6);
	if (!strcmp(name, "parent") && !fstatat(dir_fd, name, &parent, 0)) {
		l->parent_dev = parent.st_dev;
		l->parent_ino = parent.st_ino;
	}
	return 0;
}

int watch_look_at(const char *root, const char *name, struct watch_look *l)
{
	int fd = watch_open(root, name, O_PATH | O_NOFOLLOW), dir_fd, ret = 0;

	memset(l, 0, sizeof(*l));
	if (fd < 0)
		return fd;
	if (fstat(fd, &l->st)) {
		ret = -errno;
	} else if (S_ISDIR(l->st.st_mode)) {
		dir_fd = openat(fd, ".", WATCH_DIR_FLAGS);
		ret = dir_fd < 0 ? -errno : watch_each(dir_fd, look_at, l);
		if (dir_fd >= 0)
			close(dir_fd);
	} else {
		look_at(fd, name, &l->st, l);
	}
	close(fd);
	l->mark = hash_bytes(l->mark, root, strlen(root) + 1);
	l->mark = hash_bytes(l->mark, name, strlen(name));
	return ret;
}

/*
 * -EBUSY when somebody has the file open for writing: the kernel gives no lease then. Where it
 * gives none at all, the time without changes has to do.
 */
static int check_writer(int dir_fd, const char *name, const struct stat *st, void *arg)
{
	int fd, ret = 0;

	(void)arg;
	if (!S_ISREG(st->st_mode))
		return 0;
	fd = open_below(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK,
			RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
	if (fd < 0)
		return 0;
	if (fcntl(fd, F_SETLEASE, F_RDLCK) && errno == EAGAIN)
		ret = -EBUSY;
	close(fd);
	return ret;
}

bool watch_has_writer(const struct watch_entry *e)
{
	int fd = -1, root_fd = open(e->root, O_PATH | O_DIRECTORY | O_CLOEXEC), ret = 0;
	struct stat st;

	if (root_fd < 0)
		return false;
	if (e->is_dir)
		fd = watch_open(e->root, e->name, WATCH_DIR_FLAGS);
	if (fd >= 0)
		ret = watch_each(fd, check_writer, NULL);
	else if (!e->is_dir && !fstatat(root_fd, e->name, &st, AT_SYMLINK_NOFOLLOW))
		ret = check_writer(root_fd, e->name, &st, NULL);
	if (fd >= 0)
		close(fd);
	close(root_fd);
	return ret == -EBUSY;
}

struct links {
	int root_fd;
	const char *name; /* of the directory, below the root */
	bool out;
	bool has_parent;
};

static int check_link(int dir_fd, const char *name, const struct stat *st, void *arg)
{
	struct links *l = arg;
	char path[PATH_MAX];
	int fd;

	(void)dir_fd;
	if (!S_ISLNK(st->st_mode))
		return 0;
	if (snprintf(path, sizeof(path), "%s/%s", l->name, name) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open_below(l->root_fd, path, O_PATH, RESOLVE_BENEATH);
	l->out |= fd < 0 && fd != -ENOENT;
	l->has_parent |= fd >= 0 && !strcmp(name, "parent");
	if (fd >= 0)
		close(fd);
	return 0;
}

/* Of a dump and its parents, whose links CRIU and the converter follow. */
static bool has_link_out(const struct watch_entry *e)
{
	char name[PATH_MAX];
	struct links l = { .name = name };
	size_t len = (size_t)snprintf(name, sizeof(name), "%s", e->name);
	int fd, ret = 0;

	l.root_fd = open(e->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; l.root_fd >= 0 && i < MAX_PARENTS; i++) {
		fd = open_below(l.root_fd, name, O_RDONLY | O_DIRECTORY, RESOLVE_BENEATH);
		if (fd < 0)
			break;
		l.has_parent = false;
		ret = watch_each(fd, check_link, &l);
		close(fd);
		if (ret || l.out || !l.has_parent || len + 8 > sizeof(name))
			break;
		len += (size_t)snprintf(name + len, sizeof(name) - len, "/parent");
	}
	if (l.root_fd >= 0)
		close(l.root_fd);
	return ret || l.out;
}

static int remove_file(int dir_fd, const char *name, const struct stat *st, void *arg)
{
	(void)arg;
	return S_ISDIR(st->st_mode) || unlinkat(dir_fd, name, 0) ? -1 : 0;
}

/* Removes what a conversion of the entry has written, or was about to remove. */
static int remove_left(int dir_fd, const char *name, const struct stat *st, void *arg)
{
	const char *own = arg;
	const size_t len = strlen(own);
	int fd;

	if (*name != '.' || strncmp(name + 1, own, len) != 0 ||
	    strncmp(name + 1 + len, LEFT_MIDDLE, strlen(LEFT_MIDDLE)) != 0 ||
	    strlen(name) != 1 + len + strlen(LEFT_MIDDLE) + LEFT_END_BYTES)
		return 0;
	if (!S_ISDIR(st->st_mode))
		return remove_file(dir_fd, name, st, NULL);
	fd = openat(dir_fd, name, WATCH_DIR_FLAGS);
	if (fd < 0)
		return -1;
	if (!watch_each(fd, remove_file, NULL))
		unlinkat(dir_fd, name, AT_REMOVEDIR);
	close(fd);
	return 0;
}

void watch_remove_left(const struct watch_entry *e)
{
	char *own = strrchr(e->path, '/') + 1, parent[PATH_MAX];
	int lock_fd = watch_open(e->root, e->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK), fd;

	snprintf(parent, sizeof(parent), "%.*s", (int)(own - e->name), e->name);
	fd = *parent ? watch_open(e->root, parent, WATCH_DIR_FLAGS)
		     : open(e->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* Not while somebody else converts it. An exchange of the two is on the disk before. */
	if (lock_fd >= 0 && fd >= 0 && !flock(lock_fd, LOCK_EX | LOCK_NB) && !fsync(fd))
		watch_each(fd, remove_left, own);
	if (lock_fd >= 0)
		close(lock_fd);
	if (fd >= 0)
		close(fd);
}

const char *watch_refuse(const struct watch_entry *e)
{
	if (e->is_dir && has_link_out(e))
		return "a symbolic link leads out of the watched directory";
	return NULL;
}
