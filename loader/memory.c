/* SPDX-License-Identifier: MIT */
/* How much memory there is: /proc/meminfo, and memory cgroups. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "ckfast.h"
#include "ckf_memory.h"

/* MemAvailable, in bytes. */
static uint64_t read_meminfo(int proc_fd)
{
	int fd = openat(proc_fd, "meminfo", O_RDONLY | O_CLOEXEC);
	FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;
	unsigned long long kib = 0;
	char line[128];

	if (!f) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	while (fgets(line, sizeof(line), f) && sscanf(line, "MemAvailable: %llu kB", &kib) != 1)
		;
	fclose(f);
	return kib > UINT64_MAX / 1024 ? UINT64_MAX : kib * 1024;
}

uint64_t ckf_memory_available(int proc_fd)
{
	int self = openat(proc_fd, "self", O_PATH | O_DIRECTORY | O_CLOEXEC);
	uint64_t headroom = self >= 0 ? ckf_memcg_self(self) : CKF_UNLIMITED;
	uint64_t free_bytes = read_meminfo(proc_fd);

	if (self >= 0)
		close(self);
	return headroom < free_bytes ? headroom : free_bytes;
}
