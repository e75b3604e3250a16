/* SPDX-License-Identifier: MIT */
/*
 * The room under the limits of memory cgroups.
 *
 * A limit holds for a cgroup and all that are below it, so each one on the way to the root counts.
 * What a file says is read once and may be out of date a moment later: this is good for a decision,
 * not a guarantee.
 */
#include <stdlib.h>
#include <string.h>

#include "cgroup.h"
#include "ckf_room.h"
#include "fill.h"

#define PAGE_TABLE_SHARE 256 /* a page table of one page maps 512 */

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
static uint64_t room_by(int dir_fd, const struct names *n)
{
	uint64_t limit = CKF_ROOM_UNLIMITED, high = CKF_ROOM_UNLIMITED, usage, cache;
	bool limited = cgroup_read_number(dir_fd, n->limit, &limit);
	char *stat;

	if (n->high)
		limited |= cgroup_read_number(dir_fd, n->high, &high);
	if (!limited || !cgroup_read_number(dir_fd, n->usage, &usage))
		return CKF_ROOM_UNLIMITED;
	limit = high < limit ? high : limit;
	stat = cgroup_read_text(dir_fd, "memory.stat");
	cache = stat_value(stat, n->inactive) + stat_value(stat, n->active);
	free(stat);
	usage -= cache < usage ? cache : usage;
	return usage < limit ? limit - usage : 0;
}

/* Of one cgroup, without those above it. */
static uint64_t room_here(int dir_fd)
{
	uint64_t room = CKF_ROOM_UNLIMITED, by;

	for (size_t v = 0; v < sizeof(versions) / sizeof(versions[0]); v++) {
		by = room_by(dir_fd, &versions[v]);
		room = by < room ? by : room;
	}
	return room;
}

uint64_t ckf_room_of_dir(int dir_fd)
{
	return cgroup_least(dir_fd, room_here);
}

int ckf_room_path(int proc_fd, char *path, size_t path_bytes, bool *unified)
{
	return cgroup_path(proc_fd, "memory", path, path_bytes, unified);
}

uint64_t ckf_room_self(int proc_fd)
{
	return cgroup_least_self(proc_fd, "memory", room_here);
}

uint64_t ckf_room_needed(const struct ckf_image *img)
{
	const struct ckf_index *idx = img->idx;
	uint64_t bytes = 0;

	for (uint64_t t = 0; t < idx->nr_targets; t++) {
		const struct ckf_target *target = &idx->targets[t];

		if (target->kind == CKF_TARGET_DEVICE)
			continue;
		for (uint64_t i = target->first_op; i < target->first_op + target->nr_ops; i++) {
			const struct ckf_op *op = &idx->ops[i];

			if (!(ckf_op_flags(op) & CKF_OP_INHERIT))
				bytes += ckf_op_end(op) - ckf_op_addr(op);
		}
	}
	return bytes + bytes / PAGE_TABLE_SHARE;
}

static uint64_t worker_bytes(const struct ckf_image *img)
{
	return FILL_DEPTH * (uint64_t)fill_slot_bytes(img) +
	       ckf_pages_to_bytes(img->idx->max_chunk_pages) + 2 * CKF_HUGE_BYTES;
}

/* Workers that have something to do beside the first one of each target. */
static uint64_t useful_more(const struct ckf_image *img, bool asked)
{
	uint64_t sum = 0;

	for (uint64_t t = 0; t < img->idx->nr_targets; t++) {
		const struct ckf_target *target = &img->idx->targets[t];
		uint64_t n = asked ? target->nr_lanes
				   : ckf_pages_to_bytes(target->nr_pages) / FILL_WORKER_BYTES;

		if (n > target->nr_lanes)
			n = target->nr_lanes;
		if (n && target->kind != CKF_TARGET_DEVICE)
			sum += n - 1;
	}
	return sum;
}

/* The one worker that each target has, even where all are filled at the same time. */
static uint64_t first_workers_bytes(const struct ckf_image *img, uint64_t each)
{
	uint64_t bytes = 0;

	for (uint64_t t = 0; t < img->idx->nr_targets; t++) {
		const struct ckf_target *target = &img->idx->targets[t];
		uint64_t own = ckf_pages_to_bytes(target->nr_pages);

		if (target->kind != CKF_TARGET_DEVICE)
			bytes += own < each ? own : each;
	}
	return bytes;
}

struct ckf_budget ckf_room_budget(const struct ckf_image *img, uint64_t room_bytes,
				  uint64_t taken_bytes, unsigned int asked, unsigned int cpus)
{
	const uint64_t each = worker_bytes(img);
	const uint64_t least = taken_bytes + ckf_room_needed(img) + first_workers_bytes(img, each);
	struct ckf_budget b = { .workers = asked ? asked : cpus };
	uint64_t more = useful_more(img, asked);

	if (!b.workers)
		b.workers = 1;
	if (more > b.workers - 1)
		more = b.workers - 1;
	b.want_bytes = least + more * each;
	if (room_bytes >= b.want_bytes)
		return b;
	b.frugal = room_bytes < least;
	b.workers = b.frugal ? 1 : 1 + (unsigned int)((room_bytes - least) / each);
	return b;
}
