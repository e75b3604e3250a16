/* SPDX-License-Identifier: MIT */
/* What limits leave for a restore: memory, threads, locked memory, open files. */
#include <fcntl.h>
#include <linux/capability.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "doctor.h"

#define LITTLE_MEMORY_BYTES (256u << 20) /* a restore of anything larger is frugal, or fails */
#define NO_MEMORY_BYTES (16u << 20)	 /* criu itself takes as much */
#define FEW_THREADS 64
#define NO_THREADS 2 /* criu, and the first task */
#define LIMITS_BYTES 4096
#define LITTLE_LOCKED_BYTES (8u << 20) /* the kernel's default */
#define FEW_FILES 1024
#define NO_LIMIT_BYTES (1ull << 62) /* version 1 of cgroups writes a number near 2^63 */

/* A line of /proc/meminfo; none where it has no such line. */
static uint64_t meminfo_bytes(const struct doctor *d, const char *key, uint64_t none)
{
	char text[4096], field[32];

	if (!doctor_read(d, "/proc/meminfo", text, sizeof(text)) ||
	    !doctor_field(text, key, field, sizeof(field)))
		return none;
	return strtoull(field, NULL, 10) << 10;
}

/* proc_fd, or -1. */
static int open_proc(const struct doctor *d)
{
	char path[DOCTOR_PATH_BYTES];

	return doctor_path(d, path, "/proc/self") ? open(path, O_PATH | O_DIRECTORY | O_CLOEXEC)
						  : -1;
}

/* "the memory cgroup leaves 2.0 GiB: its limit is 4.0 GiB, 2.0 GiB in use, …" */
static void describe_limits(const struct ckf_memcg_limits *l, char *buf, size_t bytes)
{
	bool high = l->high_bytes < l->limit_bytes;
	char a[CLI_BYTES_LEN], b[CLI_BYTES_LEN], c[CLI_BYTES_LEN];

	snprintf(buf, bytes, "the memory cgroup leaves %s: %s is %s, %s in use, %s",
		 cli_bytes(l->headroom_bytes, a), high ? "memory.high" : "its limit",
		 cli_bytes(high ? l->high_bytes : l->limit_bytes, b), cli_bytes(l->used_bytes, c),
		 "the page cache included");
}

static uint64_t lesser(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t sum(uint64_t a, uint64_t b)
{
	return __builtin_add_overflow(a, b, &a) ? CKF_UNLIMITED : a;
}

void doctor_get_memory(const struct doctor *d, struct doctor_memory *m)
{
	uint64_t available = meminfo_bytes(d, "MemAvailable:", CKF_UNLIMITED);
	uint64_t swap = meminfo_bytes(d, "SwapFree:", 0), by_group;
	struct ckf_memcg_limits *l = &m->limits;
	int fd = open_proc(d);

	*l = (struct ckf_memcg_limits){ .size = sizeof(*l),
					.headroom_bytes = CKF_UNLIMITED,
					.hard_headroom_bytes = CKF_UNLIMITED,
					.swap_headroom_bytes = CKF_UNLIMITED };
	if (fd >= 0) {
		ckf_memcg_limits_self(fd, l);
		close(fd);
	}
	m->headroom_bytes = lesser(l->headroom_bytes, available);
	m->resident_bytes = lesser(l->hard_headroom_bytes, available);
	by_group = sum(l->hard_headroom_bytes, lesser(swap, l->swap_headroom_bytes));
	m->hard_bytes = lesser(by_group, sum(available, swap));
	m->hard_by_group = m->hard_bytes == by_group;
}

static void check_memory(struct doctor *d)
{
	char text[256], a[CLI_BYTES_LEN];
	struct ckf_memcg_limits l;
	struct doctor_memory m;
	uint64_t headroom;
	json_t *facts;
	bool by_group;

	doctor_get_memory(d, &m);
	l = m.limits;
	headroom = m.headroom_bytes;
	by_group = l.headroom_bytes < NO_LIMIT_BYTES && l.headroom_bytes == headroom;
	if (by_group)
		describe_limits(&l, text, sizeof(text));
	else if (headroom >= NO_LIMIT_BYTES)
		snprintf(text, sizeof(text), "no limit is known");
	else
		snprintf(text, sizeof(text), "%s available to the machine", cli_bytes(headroom, a));
	if (m.hard_bytes < NO_MEMORY_BYTES)
		facts = doctor_add(d, "memory", DOCTOR_BROKEN,
				   m.hard_by_group ? "raise the limit, or restore in another cgroup"
						   : "end other programs first",
				   "%s", text);
	else if (headroom < LITTLE_MEMORY_BYTES)
		facts = doctor_add(d, "memory", DOCTOR_DEGRADED,
				   by_group && l.high_bytes < l.limit_bytes
					   ? "above memory.high processes are slowed down"
					   : "memory is filled by one thread, without huge pages",
				   "%s", text);
	else
		facts = doctor_add(d, "memory", DOCTOR_OK, NULL, "%s", text);
	json_object_set_new(facts, "headroom_bytes", cli_json_u64(headroom));
	if (!by_group)
		return;
	json_object_set_new(facts, "limit_bytes", cli_json_u64(l.limit_bytes));
	json_object_set_new(facts, "high_bytes", cli_json_u64(l.high_bytes));
	json_object_set_new(facts, "used_bytes", cli_json_u64(l.used_bytes));
}

uint64_t doctor_threads(const struct doctor *d)
{
	uint64_t left = CKF_UNLIMITED;
	int fd = open_proc(d);

	if (fd >= 0) {
		left = ckf_pids_self(fd);
		close(fd);
	}
	return left;
}

static void check_threads(struct doctor *d)
{
	uint64_t left = doctor_threads(d);
	json_t *facts;

	if (left == CKF_UNLIMITED)
		facts = doctor_add(d, "threads", DOCTOR_OK, NULL, "no limit by cgroups");
	else if (left < NO_THREADS)
		facts = doctor_add(d, "threads", DOCTOR_BROKEN, "raise pids.max",
				   "pids.max leaves %" PRIu64, left);
	else if (left < FEW_THREADS)
		facts = doctor_add(d, "threads", DOCTOR_DEGRADED,
				   "few threads, or none, fill memory beside the tasks",
				   "pids.max leaves %" PRIu64, left);
	else
		facts = doctor_add(d, "threads", DOCTOR_OK, NULL, "pids.max leaves %" PRIu64, left);
	json_object_set_new(facts, "headroom", cli_json_u64(left));
}

/* The hard limit of a line in /proc/self/limits: NAME SOFT HARD UNITS. */
static uint64_t hard_limit(const char *limits, const char *name)
{
	char field[128], soft[32], hard[32];

	if (!doctor_field(limits, name, field, sizeof(field)) ||
	    sscanf(field, "%31s %31s", soft, hard) != 2 || !strcmp(hard, "unlimited"))
		return CKF_UNLIMITED;
	return strtoull(hard, NULL, 10);
}

static void check_locked(struct doctor *d, uint64_t limit)
{
	char a[CLI_BYTES_LEN];

	if (limit == CKF_UNLIMITED || doctor_has_cap(d, CAP_IPC_LOCK))
		doctor_add(d, "locked", DOCTOR_OK, NULL, "memory may be locked without a limit");
	else
		doctor_add(d, "locked", limit < LITTLE_LOCKED_BYTES ? DOCTOR_DEGRADED : DOCTOR_OK,
			   limit < LITTLE_LOCKED_BYTES
				   ? "programs that had more locked fail: raise ulimit -l"
				   : NULL,
			   "%s of memory may be locked", cli_bytes(limit, a));
}

static void check_files(struct doctor *d, uint64_t limit)
{
	json_t *facts;

	facts = doctor_add(d, "open_files", limit < FEW_FILES ? DOCTOR_DEGRADED : DOCTOR_OK,
			   limit < FEW_FILES ? "programs with more descriptors fail: raise "
					       "ulimit -Hn"
					     : NULL,
			   limit == CKF_UNLIMITED ? "no limit" : "up to %" PRIu64, limit);
	json_object_set_new(facts, "limit", cli_json_u64(limit));
}

void doctor_check_limits(struct doctor *d)
{
	char limits[LIMITS_BYTES];

	check_memory(d);
	check_threads(d);
	doctor_read(d, "/proc/self/limits", limits, sizeof(limits));
	check_locked(d, hard_limit(limits, "Max locked memory"));
	check_files(d, hard_limit(limits, "Max open files"));
}
