/* SPDX-License-Identifier: MIT */
/* How much memory there is: /proc/meminfo, and memory cgroups. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "ckfast.h"
#include "ckf_memory.h"

/* MemAvailable, in bytes. */
static int read_meminfo(int proc_fd, uint64_t *bytes)
{
	int fd = openat(proc_fd, "meminfo", O_RDONLY | O_CLOEXEC), ret = -ENODATA;
	FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;
	unsigned long long kib;
	char line[128];

	if (!f) {
		ret = -errno;
		if (fd >= 0)
			close(fd);
		return ret;
	}
	while (ret && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "MemAvailable: %llu kB", &kib) != 1)
			continue;
		*bytes = kib > UINT64_MAX / 1024 ? UINT64_MAX : kib * 1024;
		ret = 0;
	}
	fclose(f);
	return ret;
}

int ckf_memory_available(int proc_fd, uint64_t *bytes)
{
	int self = openat(proc_fd, "self", O_PATH | O_DIRECTORY | O_CLOEXEC);
	uint64_t headroom = CKF_UNLIMITED;
	int ret;

	if (self < 0 && errno != ENOENT)
		return -errno;
	if (self >= 0) {
		headroom = ckf_memcg_self(self);
		close(self);
	}
	ret = read_meminfo(proc_fd, bytes);
	if (!ret && headroom < *bytes)
		*bytes = headroom;
	return ret;
}
