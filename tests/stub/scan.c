/* SPDX-License-Identifier: MIT */
/*
 * How much device memory there is: the memfds that any process has open or mapped, each counted
 * once. This stays right whatever becomes of a process, and so finds leaks.
 *
 * Only what a pid namespace shows is counted, so that tests in namespaces of their own do not
 * share their GPUs. Calls no malloc(), which readdir() would.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "stub.h"

#define MAX_OBJECTS 32768u
#define BUF_BYTES 8192
#define PATH_BYTES 320

struct object {
	uint64_t inode; /* 0: none */
	uint64_t bytes;
};

struct scan {
	struct object *objects; /* a hash table */
	char link[96];		/* what a descriptor of such memory links to */
	char path[64];		/* the folder that is being read */
};

void stub_scan_name(char *out, size_t size, uint32_t gpu, const char *id)
{
	snprintf(out, size, STUB_MEMFD_NAME "%u%s%s", gpu, *id ? "-" : "", id);
}

static void add(struct scan *s, uint64_t inode, uint64_t bytes)
{
	uint32_t i = (uint32_t)(inode * 2654435761u) % MAX_OBJECTS;

	while (s->objects[i].inode && s->objects[i].inode != inode)
		i = (i + 1) % MAX_OBJECTS;
	s->objects[i].inode = inode;
	if (bytes > s->objects[i].bytes)
		s->objects[i].bytes = bytes;
}

void stub_scan_dir(const char *path, bool (*fn)(const char *name, void *arg), void *arg)
{
	_Alignas(struct dirent64) char buf[BUF_BYTES];
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool more = fd >= 0;

	while (more) {
		long n = syscall(SYS_getdents64, fd, buf, sizeof(buf));

		more = n > 0;
		for (long at = 0; more && at < n;) {
			const struct dirent64 *d = (const void *)(buf + at);

			at += d->d_reclen;
			if (d->d_name[0] != '.')
				more = fn(d->d_name, arg);
		}
	}
	if (fd >= 0)
		close(fd);
}

static bool scan_fd(const char *name, void *arg)
{
	struct scan *s = arg;
	char path[PATH_BYTES], link[sizeof(s->link)];
	struct stat st;
	ssize_t n;

	snprintf(path, sizeof(path), "%s/%s", s->path, name);
	n = readlink(path, link, sizeof(link) - 1);
	if (n < 0)
		return true;
	link[n] = 0;
	if (!strcmp(link, s->link) && !stat(path, &st))
		add(s, st.st_ino, (uint64_t)st.st_size);
	return true;
}

/* "start-end prot offset dev inode   path" */
static void scan_line(const char *line, void *arg)
{
	struct scan *s = arg;
	unsigned long long start, end, off, inode;
	const char *path = strchr(line, '/');

	if (path && !strcmp(path, s->link) &&
	    sscanf(line, "%llx-%llx %*s %llx %*s %llu", &start, &end, &off, &inode) == 4)
		add(s, inode, off + end - start);
}

void stub_scan_lines(const char *path, void (*fn)(const char *line, void *arg), void *arg)
{
	char buf[BUF_BYTES];
	size_t have = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return;
	while ((n = read(fd, buf + have, sizeof(buf) - 1 - have)) > 0) {
		char *line = buf, *end;

		have += (size_t)n;
		buf[have] = 0;
		while ((end = strchr(line, '\n'))) {
			*end = 0;
			fn(line, arg);
			line = end + 1;
		}
		have = strlen(line);
		memmove(buf, line, have);
		if (have == sizeof(buf) - 1)
			have = 0; /* longer than any line that matters */
	}
	close(fd);
}

static bool scan_pid(const char *name, void *arg)
{
	struct scan *s = arg;
	char path[PATH_BYTES];

	if (*name < '0' || *name > '9')
		return true;
	snprintf(s->path, sizeof(s->path), "/proc/%s/fd", name);
	stub_scan_dir(s->path, scan_fd, s);
	snprintf(path, sizeof(path), "/proc/%s/maps", name);
	stub_scan_lines(path, scan_line, s);
	return true;
}

static uint64_t scan(const char *pid, uint32_t gpu, const char *id)
{
	const size_t bytes = MAX_OBJECTS * sizeof(struct object);
	char name[64];
	struct scan s;
	uint64_t sum = 0;

	s.objects = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s.objects == MAP_FAILED)
		return UINT64_MAX;
	stub_scan_name(name, sizeof(name), gpu, id);
	snprintf(s.link, sizeof(s.link), "/memfd:%s (deleted)", name);
	if (pid)
		scan_pid(pid, &s);
	else
		stub_scan_dir("/proc", scan_pid, &s);
	for (uint32_t i = 0; i < MAX_OBJECTS; i++)
		sum += s.objects[i].bytes;
	munmap(s.objects, bytes);
	return sum;
}

uint64_t stub_scan_used(uint32_t gpu, const char *id)
{
	return scan(NULL, gpu, id);
}

uint64_t stub_scan_used_by(int pid, uint32_t gpu, const char *id)
{
	char name[16];

	snprintf(name, sizeof(name), "%d", pid);
	return scan(name, gpu, id);
}
