/* SPDX-License-Identifier: MIT */
/* Finding the cgroup of a process, in version 1 and 2, and reading its files. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cgroup.h"

#define MAX_FILE_BYTES (1u << 20) /* mountinfo, on a machine with many mounts */
#define MAX_DEPTH 64		  /* of cgroups */

char *cgroup_read_text(int dir_fd, const char *name)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t got = 1;
	char *text, *cut;

	if (fd < 0)
		return NULL;
	text = malloc(MAX_FILE_BYTES);
	while (text && got > 0 && len < MAX_FILE_BYTES - 1) {
		got = read(fd, text + len, MAX_FILE_BYTES - 1 - len);
		if (got > 0)
			len += (size_t)got;
	}
	close(fd);
	if (!text)
		return NULL;
	text[len] = 0;
	cut = realloc(text, len + 1);
	return cut ? cut : text;
}

bool cgroup_read_number(int dir_fd, const char *name, uint64_t *out)
{
	char *text = cgroup_read_text(dir_fd, name), *end;
	bool ok = false;

	if (text && *text >= '0' && *text <= '9') {
		*out = strtoull(text, &end, 10);
		ok = end != text;
	}
	free(text);
	return ok;
}

uint64_t cgroup_least(int dir_fd, uint64_t (*here)(int dir_fd, void *arg), void *arg)
{
	uint64_t least = UINT64_MAX, value;
	struct stat st, above;
	int fd = dir_fd, up;

	for (unsigned int depth = 0; depth < MAX_DEPTH; depth++) {
		value = here(fd, arg);
		least = value < least ? value : least;
		up = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (up < 0)
			break;
		/* Out of the hierarchy, or at the root of the file system. */
		if (fstat(fd, &st) || fstat(up, &above) || st.st_dev != above.st_dev ||
		    st.st_ino == above.st_ino) {
			close(up);
			break;
		}
		if (fd != dir_fd)
			close(fd);
		fd = up;
	}
	if (fd != dir_fd)
		close(fd);
	return least;
}

/* True when the list of names, with commas between, holds that controller. */
static bool has_controller(const char *list, const char *end, const char *name)
{
	const ptrdiff_t len = (ptrdiff_t)strlen(name);

	for (const char *p = list; p < end; p += strcspn(p, ",") + 1)
		if (end - p >= len && !strncmp(p, name, (size_t)len) &&
		    (p + len == end || p[len] == ','))
			return true;
	return false;
}

/* Lines are ID:CONTROLLERS:PATH; of version 2, 0::PATH. That of version 1 has the limits where both
 * are there. */
int cgroup_path(int proc_fd, const char *controller, char *path, size_t path_bytes, bool *unified)
{
	char *text = cgroup_read_text(proc_fd, "cgroup");
	int ret = -ENOENT;

	for (const char *line = text; line && *line;
	     line += strcspn(line, "\n"), line += *line == '\n') {
		const char *list = strchr(line, ':'), *at = list ? strchr(list + 1, ':') : NULL;
		bool v2 = list && at == list + 1;
		size_t len;

		if (!at || !(v2 ? ret == -ENOENT : has_controller(list + 1, at, controller)))
			continue;
		len = strcspn(++at, "\n");
		if (len >= path_bytes) {
			ret = -ENAMETOOLONG;
			break;
		}
		memcpy(path, at, len);
		path[len] = 0;
		*unified = v2;
		ret = 0;
	}
	free(text);
	return ret;
}

/*
 * Where the hierarchy is mounted: out of a line of mountinfo, ID PARENT DEV ROOT POINT OPTIONS
 * [FIELDS] - TYPE SOURCE OPTIONS. False for any other mount.
 */
static bool parse_mount(const char *line, const char *controller, bool unified, char *root,
			char *point)
{
	const char *tail = strstr(line, " - "), *end = line + strcspn(line, "\n");
	char type[16], options[256];

	if (!tail || tail > end || sscanf(line, "%*s %*s %*s %4095s %4095s", root, point) != 2 ||
	    sscanf(tail, " - %15s %*s %255s", type, options) != 2)
		return false;
	if (unified)
		return !strcmp(type, "cgroup2");
	return !strcmp(type, "cgroup") &&
	       has_controller(options, options + strlen(options), controller);
}

static int open_cgroup(const char *mounts, const char *controller, const char *path, bool unified)
{
	char root[PATH_MAX], point[PATH_MAX], full[2 * PATH_MAX];
	size_t len;
	int fd;

	for (const char *line = mounts; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		if (!parse_mount(line, controller, unified, root, point))
			continue;
		/* In a container what is mounted may be a part of the hierarchy. */
		len = strcmp(root, "/") ? strlen(root) : 0;
		if (strncmp(path, root, len) || (path[len] && path[len] != '/'))
			continue;
		snprintf(full, sizeof(full), "%s%s", point, path + len);
		fd = open(full, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0)
			return fd;
	}
	return -ENOENT;
}

uint64_t cgroup_least_self(int proc_fd, const char *controller,
			   uint64_t (*here)(int dir_fd, void *arg), void *arg)
{
	char *mounts = cgroup_read_text(proc_fd, "mountinfo");
	uint64_t least = UINT64_MAX;
	char path[PATH_MAX];
	bool unified;
	int fd;

	if (mounts && !cgroup_path(proc_fd, controller, path, sizeof(path), &unified)) {
		fd = open_cgroup(mounts, controller, path, unified);
		if (fd >= 0) {
			least = cgroup_least(fd, here, arg);
			close(fd);
		}
	}
	free(mounts);
	return least;
}
