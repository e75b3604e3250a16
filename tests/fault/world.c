/* SPDX-License-Identifier: MIT */
/* The directory that all is in, and pictures of directories. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format/ckf_codec.h"
#include "tests/unit/dump_maker.h"
#include "world.h"

#define FILE_MAX_BYTES (3u << 20)

void need(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "fault: %s\n", what);
	exit(1);
}

struct world *world_new(void)
{
	struct world *w = calloc(1, sizeof(*w));

	need(w, "no memory");
	dm_tempdir(w->base);
	load_init(w);
	sink_init(w);
	convert_init(w);
	archive_init(w);
	return w;
}

void world_free(struct world *w)
{
	load_fini(w);
	sink_fini();
	convert_fini(w);
	dm_remove(w->base);
	free(w);
}

/* One entry: a hash of its name, mixed with hashes of all else. */
static bool entry_sum(int dir, const char *name, unsigned int flags, uint64_t *sum)
{
	static uint8_t buf[FILE_MAX_BYTES];
	struct stat st;
	ssize_t n;
	int fd;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
		return false;
	if (S_ISLNK(st.st_mode)) {
		n = readlinkat(dir, name, (char *)buf, sizeof(buf));
	} else {
		fd = openat(dir, name, O_RDONLY | O_NOFOLLOW);
		n = fd >= 0 ? pread(fd, buf, sizeof(buf), 0) : -1;
		if (fd >= 0)
			close(fd);
	}
	if (n != st.st_size)
		return false;
	*sum = ckf_hash64(name, strlen(name));
	*sum = *sum * 31 + ckf_hash64(buf, (size_t)n);
	*sum = *sum * 31 + st.st_mode;
	if (flags & SUM_TIMES) {
		*sum = *sum * 31 + st.st_uid;
		*sum = *sum * 31 + st.st_gid;
		*sum = *sum * 31 + (uint64_t)st.st_mtim.tv_sec;
		*sum = *sum * 31 + (uint64_t)st.st_mtim.tv_nsec;
	}
	return true;
}

/* The entries come in any order: their numbers are added. */
uint64_t dir_sum(const char *path, unsigned int flags)
{
	DIR *dir = opendir(path);
	uint64_t sum = 1, one = 0;
	struct dirent *de;
	bool ok = dir;

	while (ok && (de = readdir(dir))) {
		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		ok = entry_sum(dirfd(dir), de->d_name, flags, &one);
		sum += one;
	}
	if (dir)
		closedir(dir);
	return ok ? sum : 0;
}

long dir_entries(const char *path)
{
	DIR *dir = opendir(path);
	long n = 0;

	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n - 2;
}
