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

#include "ckfast_needs.h"
#include "base/ckf_opts.h"
#include "cgroup.h"

/* The names of the same files in the two versions. */
static const struct names {
	const char *limit;
	const char *high; /* above it processes are slowed down until memory is reclaimed */
	const char *usage;
	const char *inactive; /* lines of memory.stat */
	const char *active;
	const char *swap_limit; /* of version 1, of memory and swap together */
	const char *swap_usage;
} versions[] = {
	{ "memory.max", "memory.high", "memory.current", "inactive_file ", "active_file ",
	  "memory.swap.max", "memory.swap.current" },
	{ "memory.limit_in_bytes", NULL, "memory.usage_in_bytes", "total_inactive_file ",
	  "total_active_file ", "memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes" },
};

#define NO_LIMIT_BYTES (1ull << 62) /* version 1 writes a number near 2^63 */

#define UNLIMITED                                                                           \
	{                                                                                   \
		.size = sizeof(struct ckf_memcg_limits), .headroom_bytes = CKF_UNLIMITED,   \
		.limit_bytes = CKF_UNLIMITED, .high_bytes = CKF_UNLIMITED,                  \
		.hard_headroom_bytes = CKF_UNLIMITED, .swap_headroom_bytes = CKF_UNLIMITED, \
	}

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

static uint64_t bytes_left(uint64_t limit, uint64_t used)
{
	if (limit == CKF_UNLIMITED)
		return CKF_UNLIMITED;
	return used < limit ? limit - used : 0;
}

static uint64_t swap_left(int dir_fd, const struct names *n, const struct ckf_memcg_limits *l)
{
	uint64_t limit, used, left, memory;

	if (!cgroup_read_number(dir_fd, n->swap_limit, &limit) || limit >= NO_LIMIT_BYTES ||
	    !cgroup_read_number(dir_fd, n->swap_usage, &used))
		return CKF_UNLIMITED;
	left = bytes_left(limit, used);
	if (n->high)
		return left;
	memory = bytes_left(l->limit_bytes, l->used_bytes);
	return memory < left ? left - memory : 0;
}

/* Of one cgroup, by the files of one version, without those above it. */
static void limits_by(int dir_fd, const struct names *n, struct ckf_memcg_limits *out)
{
	uint64_t limit, used;
	bool limited = cgroup_read_number(dir_fd, n->limit, &out->limit_bytes);
	char *stat;

	if (n->high)
		limited |= cgroup_read_number(dir_fd, n->high, &out->high_bytes);
	if (limited)
		limited = cgroup_read_number(dir_fd, n->usage, &out->used_bytes);
	out->swap_headroom_bytes = swap_left(dir_fd, n, out);
	if (!limited)
		return;
	limit = out->high_bytes < out->limit_bytes ? out->high_bytes : out->limit_bytes;
	stat = cgroup_read_text(dir_fd, "memory.stat");
	out->cache_bytes = stat_value(stat, n->inactive) + stat_value(stat, n->active);
	free(stat);
	if (out->cache_bytes > out->used_bytes)
		out->cache_bytes = out->used_bytes;
	used = out->used_bytes - out->cache_bytes;
	out->headroom_bytes = bytes_left(limit, used);
	out->hard_headroom_bytes = bytes_left(out->limit_bytes, used);
}

/* What limits leave is the least of all; the rest is of the cgroup that leaves least. */
static void add_limits(struct ckf_memcg_limits *all, const struct ckf_memcg_limits *here)
{
	uint64_t hard = all->hard_headroom_bytes, swap = all->swap_headroom_bytes;

	if (here->headroom_bytes < all->headroom_bytes)
		*all = *here;
	all->hard_headroom_bytes = here->hard_headroom_bytes < hard ? here->hard_headroom_bytes
								    : hard;
	all->swap_headroom_bytes = here->swap_headroom_bytes < swap ? here->swap_headroom_bytes
								    : swap;
}

/* Of one cgroup, without those above it. arg: the limits of the tightest one so far, or NULL. */
static uint64_t headroom_here(int dir_fd, void *arg)
{
	struct ckf_memcg_limits *tightest = arg;
	uint64_t least = CKF_UNLIMITED;

	for (size_t v = 0; v < sizeof(versions) / sizeof(versions[0]); v++) {
		struct ckf_memcg_limits here = UNLIMITED;

		limits_by(dir_fd, &versions[v], &here);
		if (here.headroom_bytes < least)
			least = here.headroom_bytes;
		if (tightest)
			add_limits(tightest, &here);
	}
	return least;
}

uint64_t ckf_memcg_of_dir(int dir_fd)
{
	return cgroup_least(dir_fd, headroom_here, NULL);
}

int ckf_memcg_path(int proc_fd, char *path, size_t path_bytes, bool *unified)
{
	return cgroup_path(proc_fd, "memory", path, path_bytes, unified);
}

uint64_t ckf_memcg_self(int proc_fd)
{
	return cgroup_least_self(proc_fd, "memory", headroom_here, NULL);
}

int ckf_memcg_limits_self(int proc_fd, struct ckf_memcg_limits *out)
{
	struct ckf_memcg_limits tightest = UNLIMITED;

	cgroup_least_self(proc_fd, "memory", headroom_here, &tightest);
	return ckf_opts_give(out, &tightest, sizeof(tightest));
}
