/* SPDX-License-Identifier: MIT */
/* Which call fails, and what the process holds. */
#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "fault.h"

/* Set and cleared while no other thread runs. */
static const struct fault *armed;
static unsigned int armed_n;
static atomic_uint calls;
static atomic_bool met;

static atomic_long live_allocs;
static atomic_long live_maps;

void fault_arm(const struct fault *f, unsigned int n)
{
	atomic_store(&calls, 0);
	atomic_store(&met, false);
	armed_n = n;
	armed = f;
}

bool fault_disarm(void)
{
	armed = NULL;
	return atomic_load(&met);
}

static bool hit(enum fault_point point, bool half)
{
	unsigned int n;

	if (!armed || armed->point != point || !!(armed->flags & FAULT_HALF) != half)
		return false;
	n = atomic_fetch_add(&calls, 1) + 1;
	if (armed->flags & FAULT_ALL ? n < armed_n : n != armed_n)
		return false;
	atomic_store(&met, true);
	errno = armed->code;
	return true;
}

bool fault_hit(enum fault_point point)
{
	return hit(point, false);
}

bool fault_hit_half(enum fault_point point)
{
	return hit(point, true);
}

bool fault_armed(enum fault_point point)
{
	return armed && armed->point == point;
}

int fault_code(void)
{
	return armed->code;
}

void fault_count_alloc(int change)
{
	atomic_fetch_add(&live_allocs, change);
}

void fault_count_map(int change)
{
	atomic_fetch_add(&live_maps, change);
}

static long count_entries(const char *path)
{
	DIR *dir = opendir(path);
	long n = 0;

	while (dir && readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static long count_rings(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];
	long n = 0;

	while (f && fgets(line, sizeof(line), f))
		n += strstr(line, "[io_uring]") != NULL;
	fclose(f);
	return n;
}

void fault_balance_get(struct fault_balance *b)
{
	*b = (struct fault_balance){
		.allocs = atomic_load(&live_allocs),
		.maps = atomic_load(&live_maps),
		.fds = count_entries("/proc/self/fd"),
		.tasks = count_entries("/proc/self/task"),
		.rings = count_rings(),
	};
}
