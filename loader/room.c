/* SPDX-License-Identifier: MIT */
/*
 * The room under the limits of memory cgroups.
 *
 * A limit holds for a cgroup and all that are below it, so each one on the way to the root counts.
 * What a file says is read once and may be out of date a moment later: this is good for a decision,
 * not a guarantee.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ckf_room.h"
#include "fill.h"

#define MAX_FILE_BYTES (1u << 20) /* mountinfo, on a machine with many mounts */
#define MAX_DEPTH 64		  /* of cgroups */
#define PAGE_TABLE_SHARE 256	  /* a page table of one page maps 512 */

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

/* All of a file, ended by a zero byte and malloc()ed; NULL if it cannot be read. */
static char *read_text(int dir_fd, const char *name)
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

/* A file with one number; "max" is not one. */
static bool read_number(int dir_fd, const char *name, uint64_t *out)
{
	char *text = read_text(dir_fd, name), *end;
	bool ok = false;

	if (text && *text >= '0' && *text <= '9') {
		*out = strtoull(text, &end, 10);
		ok = end != text;
	}
	free(text);
	return ok;
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

/* Of one cgroup, without those above it. */
static uint64_t room_here(int dir_fd, const struct names *n)
{
	uint64_t limit = CKF_ROOM_UNLIMITED, high = CKF_ROOM_UNLIMITED, usage, cache;
	bool limited = read_number(dir_fd, n->limit, &limit);
	char *stat;

	if (n->high)
		limited |= read_number(dir_fd, n->high, &high);
	if (!limited || !read_number(dir_fd, n->usage, &usage))
		return CKF_ROOM_UNLIMITED;
	limit = high < limit ? high : limit;
	stat = read_text(dir_fd, "memory.stat");
	cache = stat_value(stat, n->inactive) + stat_value(stat, n->active);
	free(stat);
	usage -= cache < usage ? cache : usage;
	return usage < limit ? limit - usage : 0;
}

uint64_t ckf_room_of_dir(int dir_fd)
{
	uint64_t room = CKF_ROOM_UNLIMITED, here;
	struct stat st, above;
	int fd = dir_fd, up;

	for (unsigned int depth = 0; depth < MAX_DEPTH; depth++) {
		for (size_t v = 0; v < sizeof(versions) / sizeof(versions[0]); v++) {
			here = room_here(fd, &versions[v]);
			room = here < room ? here : room;
		}
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
	return room;
}

/* True when the list of names, with commas between, holds memory. */
static bool has_memory(const char *list, const char *end)
{
	for (const char *p = list; p < end; p += strcspn(p, ",") + 1)
		if (end - p >= 6 && !strncmp(p, "memory", 6) && (p + 6 == end || p[6] == ','))
			return true;
	return false;
}

/* Lines are ID:CONTROLLERS:PATH; of version 2, 0::PATH. That of version 1 has the limits where both
 * are there. */
int ckf_room_path(int proc_fd, char *path, size_t path_bytes, bool *unified)
{
	char *text = read_text(proc_fd, "cgroup");
	int ret = -ENOENT;

	for (const char *line = text; line && *line;
	     line += strcspn(line, "\n"), line += *line == '\n') {
		const char *list = strchr(line, ':'), *at = list ? strchr(list + 1, ':') : NULL;
		bool v2 = list && at == list + 1;
		size_t len;

		if (!at || !(v2 ? ret == -ENOENT : has_memory(list + 1, at)))
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
static bool parse_mount(const char *line, bool unified, char *root, char *point)
{
	const char *tail = strstr(line, " - "), *end = line + strcspn(line, "\n");
	char type[16], options[256];

	if (!tail || tail > end || sscanf(line, "%*s %*s %*s %4095s %4095s", root, point) != 2 ||
	    sscanf(tail, " - %15s %*s %255s", type, options) != 2)
		return false;
	if (unified)
		return !strcmp(type, "cgroup2");
	return !strcmp(type, "cgroup") && has_memory(options, options + strlen(options));
}

static int open_cgroup(const char *mounts, const char *path, bool unified)
{
	char root[PATH_MAX], point[PATH_MAX], full[2 * PATH_MAX];
	size_t len;
	int fd;

	for (const char *line = mounts; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		if (!parse_mount(line, unified, root, point))
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

uint64_t ckf_room_self(int proc_fd)
{
	char *mounts = read_text(proc_fd, "mountinfo");
	uint64_t room = CKF_ROOM_UNLIMITED;
	char path[PATH_MAX];
	bool unified;
	int fd;

	if (mounts && !ckf_room_path(proc_fd, path, sizeof(path), &unified)) {
		fd = open_cgroup(mounts, path, unified);
		if (fd >= 0) {
			room = ckf_room_of_dir(fd);
			close(fd);
		}
	}
	free(mounts);
	return room;
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
