/* SPDX-License-Identifier: MIT */
/*
 * The headroom that the limits of memory cgroups leave.
 *
 * A limit holds for a cgroup and all that are below it, so each one on the way to the root counts.
 * What a file says is read once and may be out of date a moment later: this is good for a decision,
 * not a guarantee.
 */
#include <stdlib.h>
#include <string.h>

#include "ckfast.h"
#include "cgroup.h"

/* The names of the same files in the two versions. */
static const struct names {
	const char *limit;
	const char *high; /* above it processes are slowed down until memory is reclaimed */
	const char *usage;
	const char *inactive; /* lines of memory.stat */
	const char *active;
} versions[] = {
	{ "memory.max", "memory.high", "memory.current", "inactive_file ", "active_file " },
	{ "memory.limit_in_bytes", NULL, "memory.usage_in_bytes", "total_inactive_file ",
	  "total_active_file " },
};

/* The number after key, which starts a line. */
static uint64_t stat_value(const char *text, const char *key)
{
	size_t len = strlen(key);

	for (; text; text = strchr(text, '\n')) {
		text += *text == '\n';
		if (!strncmp(text, key, len))
			return strtoull(text + len, NULL, 10);
	}
	return 0;
}

/* Of one cgroup, by the files of one version, without those above it. */
static uint64_t headroom_by(int dir_fd, const struct names *n)
{
	uint64_t limit = CKF_UNLIMITED, high = CKF_UNLIMITED, usage, cache;
	bool limited = cgroup_read_number(dir_fd, n->limit, &limit);
	char *stat;

	if (n->high)
		limited |= cgroup_read_number(dir_fd, n->high, &high);
	if (!limited || !cgroup_read_number(dir_fd, n->usage, &usage))
		return CKF_UNLIMITED;
	limit = high < limit ? high : limit;
	stat = cgroup_read_text(dir_fd, "memory.stat");
	cache = stat_value(stat, n->inactive) + stat_value(stat, n->active);
	free(stat);
	usage -= cache < usage ? cache : usage;
	return usage < limit ? limit - usage : 0;
}

/* Of one cgroup, without those above it. */
static uint64_t headroom_here(int dir_fd)
{
	uint64_t least = CKF_UNLIMITED, by;

	for (size_t v = 0; v < sizeof(versions) / sizeof(versions[0]); v++) {
		by = headroom_by(dir_fd, &versions[v]);
		least = by < least ? by : least;
	}
	return least;
}

uint64_t ckf_memcg_of_dir(int dir_fd)
{
	return cgroup_least(dir_fd, headroom_here);
}

int ckf_memcg_path(int proc_fd, char *path, size_t path_bytes, bool *unified)
{
	return cgroup_path(proc_fd, "memory", path, path_bytes, unified);
}

uint64_t ckf_memcg_self(int proc_fd)
{
	return cgroup_least_self(proc_fd, "memory", headroom_here);
}
