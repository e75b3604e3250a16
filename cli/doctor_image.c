/* SPDX-License-Identifier: MIT */
/* Whether one fast image can be restored here: the image itself, its bases, ids and memory. */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/capability.h>
#include <unistd.h>

#include "doctor.h"

#define BYTES_OF_CRIU (4u << 20) /* what criu itself takes, as its patch reckons */
#define STAT_BYTES 128		 /* of /proc/PID/stat: id, name and state come first */
#define IDS_NAMED 5		 /* of those that are taken */

static void check_bases(struct doctor *d, const struct ckf_image *img, uint32_t nr_bases)
{
	uint32_t nr_bad = 0;

	for (uint32_t n = 1; n <= nr_bases; n++) {
		struct ckf_error err = { 0 };

		if (!ckf_image_check_base(img, n, &err))
			continue;
		nr_bad++;
		doctor_add(d, "base", DOCTOR_BROKEN,
			   "bring it back, name its directory by --base, or use a flattened image",
			   "%s", err.msg);
	}
	if (!nr_bad)
		doctor_add(d, "base", DOCTOR_OK, NULL,
			   nr_bases ? "all %u are there" : "none needed", nr_bases);
}

/* Resident after a restore, at most. */
static uint64_t memory_bytes(const struct ckf_image *img, uint64_t nr_targets)
{
	const struct ckf_op_info *op;
	struct ckf_ops it;
	uint64_t sum = 0;

	for (uint64_t i = 0; i < nr_targets; i++) {
		const struct ckf_target *t = ckf_image_target(img, i);
		struct ckf_target_info info = { .size = sizeof(info) };

		if (ckf_target_get_info(img, t, &info) || info.kind == CKF_TARGET_DEVICE)
			continue;
		ckf_ops_begin(&it, img, t, 0);
		for (op = ckf_ops_get(&it); op; op = ckf_ops_next(&it))
			if (!(op->flags & CKF_OP_INHERIT) &&
			    __builtin_add_overflow(sum, op->end - op->start, &sum))
				sum = CKF_UNLIMITED;
	}
	return sum;
}

static void check_memory(struct doctor *d, const struct ckf_image *img, uint64_t nr_targets)
{
	struct ckf_budget_opts opts = { .size = sizeof(opts) };
	struct ckf_budget budget = { .size = sizeof(budget) };
	uint64_t need = memory_bytes(img, nr_targets);
	struct doctor_memory m;
	char a[CLI_BYTES_LEN], b[CLI_BYTES_LEN];
	json_t *facts;

	doctor_get_memory(d, &m);
	opts.headroom_bytes = m.headroom_bytes;
	opts.caller_bytes = BYTES_OF_CRIU;
	cli_bytes(need, a);
	cli_bytes(opts.headroom_bytes, b);
	if (need > m.hard_bytes)
		facts = doctor_add(d, "memory", DOCTOR_BROKEN,
				   m.hard_by_group
					   ? "raise the limit of the memory cgroup, or restore in "
					     "another one"
					   : "end other programs first",
				   "needs %s, but %s are left", a, cli_bytes(m.hard_bytes, b));
	else if (need > m.resident_bytes)
		facts = doctor_add(d, "memory", DOCTOR_DEGRADED, "some of it is swapped out",
				   "needs %s, but %s are left without swap", a,
				   cli_bytes(m.resident_bytes, b));
	else if (need > opts.headroom_bytes)
		facts = doctor_add(d, "memory", DOCTOR_DEGRADED,
				   "above memory.high processes are slowed down",
				   "needs %s, but %s are left below memory.high", a, b);
	else if (!ckf_budget_check(img, &opts, &budget, NULL) && budget.frugal)
		facts = doctor_add(d, "memory", DOCTOR_DEGRADED,
				   "so little is left beside it that one thread fills it, without "
				   "huge pages",
				   "needs %s of %s", a, b);
	else if (opts.headroom_bytes == CKF_UNLIMITED)
		facts = doctor_add(d, "memory", DOCTOR_OK, NULL, "needs %s", a);
	else
		facts = doctor_add(d, "memory", DOCTOR_OK, NULL, "needs %s of %s", a, b);
	json_object_set_new(facts, "need_bytes", cli_json_u64(need));
	json_object_set_new(facts, "headroom_bytes", cli_json_u64(opts.headroom_bytes));
}

static bool is_taken(const struct doctor *d, uint32_t id)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%" PRIu32, id);
	return doctor_exists(d, path);
}

/* A process that has ended keeps its id until its parent asks for its exit status. */
static bool has_ended(const struct doctor *d, uint32_t id)
{
	char path[32], text[STAT_BYTES];
	const char *state;

	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/stat", id);
	if (!doctor_read(d, path, text, sizeof(text)))
		return false;
	/* After the name, which may have anything in it. */
	state = strrchr(text, ')');
	return state && !strncmp(state, ") Z", 3);
}

/* Adds ", 12" to a list of ids. */
static void name_id(char *list, size_t bytes, uint32_t id)
{
	size_t len = strlen(list);

	snprintf(list + len, bytes - len, "%s%" PRIu32, len ? ", " : "", id);
}

static const char *ids_hint(uint64_t nr_taken, uint64_t nr_ended)
{
	if (nr_taken == nr_ended)
		return "they have ended, but their parents have not asked for their exit status: "
		       "wait, or end the parents";
	return "end these processes, or restore in a new pid namespace: "
	       "unshare --pid --fork --mount-proc";
}

static void check_ids(struct doctor *d, const struct ckf_needs *n,
		      const struct ckf_needs_info *info)
{
	uint64_t pid_max = CKF_UNLIMITED, nr_taken = 0, nr_ended = 0;
	char list[128] = "";
	uint32_t id, highest = 0;
	json_t *facts;

	if (info->own_ns & CLONE_NEWPID) {
		doctor_add(d, "process_ids", DOCTOR_OK, NULL, "in a pid namespace of its own");
		return;
	}
	for (uint64_t i = 0; i < info->nr_ids && !ckf_needs_get_id(n, i, &id); i++) {
		highest = id > highest ? id : highest;
		if (!is_taken(d, id))
			continue;
		nr_ended += has_ended(d, id);
		if (++nr_taken <= IDS_NAMED)
			name_id(list, sizeof(list), id);
	}
	doctor_read_u64(d, "/proc/sys/kernel/pid_max", &pid_max);
	if (nr_taken)
		facts = doctor_add(d, "process_ids", DOCTOR_BROKEN, ids_hint(nr_taken, nr_ended),
				   "%" PRIu64 " of %" PRIu64 " are taken: %s%s", nr_taken,
				   info->nr_ids, list, nr_taken > IDS_NAMED ? ", …" : "");
	else if (highest >= pid_max)
		facts = doctor_add(d, "process_ids", DOCTOR_BROKEN, "raise kernel.pid_max",
				   "%" PRIu32 " is not below kernel.pid_max, %" PRIu64, highest,
				   pid_max);
	else
		facts = doctor_add(d, "process_ids", DOCTOR_OK, NULL, "all %" PRIu64 " are free",
				   info->nr_ids);
	json_object_set_new(facts, "wanted", cli_json_u64(info->nr_ids));
	json_object_set_new(facts, "taken", cli_json_u64(nr_taken));
	json_object_set_new(facts, "ended", cli_json_u64(nr_ended));
}

static void check_threads(struct doctor *d, const struct ckf_needs_info *info)
{
	uint64_t left = doctor_threads(d);

	if (info->nr_ids > left)
		doctor_add(d, "threads", DOCTOR_BROKEN, "raise pids.max",
			   "needs %" PRIu64 ", but pids.max leaves %" PRIu64, info->nr_ids, left);
	else
		doctor_add(d, "threads", DOCTOR_OK, NULL, "needs %" PRIu64, info->nr_ids);
}

static void check_namespaces(struct doctor *d, const struct ckf_needs_info *info)
{
	static const struct {
		uint32_t flag;
		const char *name;
	} names[] = {
		{ CLONE_NEWPID, " pid" },	{ CLONE_NEWNS, " mnt" },
		{ CLONE_NEWNET, " net" },	{ CLONE_NEWIPC, " ipc" },
		{ CLONE_NEWUTS, " uts" },	{ CLONE_NEWUSER, " user" },
		{ CLONE_NEWCGROUP, " cgroup" },
	};
	char list[64] = "";

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (info->own_ns & names[i].flag)
			strcat(list, names[i].name);
	if (info->own_ns && !doctor_has_cap(d, CAP_SYS_ADMIN))
		doctor_add(d, "namespaces", DOCTOR_BROKEN, "only root may make them",
			   "makes new ones:%s", list);
	else
		doctor_add(d, "namespaces", DOCTOR_OK, NULL, "%s%s",
			   info->own_ns ? "makes new ones:" : "those of criu", list);
}

/* CRIU looks at the version before all else, and refuses one that it does not know. */
static void check_version(struct doctor *d, const struct ckf_needs_info *info)
{
	int major = 0, minor = 0;
	bool known = sscanf(d->criu, "%d.%d", &major, &minor) == 2;

	if (info->img_version <= 2)
		return;
	if (known && (major < 4 || (major == 4 && minor < 3)))
		doctor_add(d, "images", DOCTOR_BROKEN,
			   "extract the dump, make it plain by crit decompress, and convert that",
			   "of version %u, with compressed pages: criu %s refuses them",
			   info->img_version, d->criu);
	else if (info->img_version > 3)
		doctor_add(d, "images", DOCTOR_DEGRADED,
			   "see whether criu restores the dump itself",
			   "of version %u, which is newer than this ckfast", info->img_version);
	else
		doctor_add(d, "images", DOCTOR_OK, NULL, "of version %u, which CRIU 4.3 restores",
			   info->img_version);
}

static void check_needs(struct doctor *d, int dir_fd)
{
	struct ckf_needs_info info = { .size = sizeof(info) };
	struct ckf_error err = { 0 };
	struct ckf_needs *n = NULL;

	if (ckf_needs_read(dir_fd, &n, &err)) {
		doctor_add(d, "dump", DOCTOR_BROKEN, "dump the processes again", "%s", err.msg);
		return;
	}
	ckf_needs_get_info(n, &info);
	check_version(d, &info);
	check_ids(d, n, &info);
	check_threads(d, &info);
	check_namespaces(d, &info);
	doctor_check_cpu(d, n, &info);
	doctor_check_files(d, n, &info);
	doctor_check_devices(d, n, &info);
	doctor_check_options(d, &info);
	ckf_needs_free(n);
}

static const char *image_hint(int rc)
{
	if (rc == -EBADMSG)
		return "convert the dump again";
	if (rc == -EOPNOTSUPP)
		return "a newer ckfast made it: install that";
	if (rc == -ENOTDIR)
		return "doctor takes directories only: unpack an archive first";
	return "name the directory of a fast image, as a user who may read it";
}

void doctor_check_image(struct doctor *d, const char *path, const struct cli_bases *bases)
{
	const struct ckf_image_opts opts = {
		.size = sizeof(opts),
		.base_dirs = bases->dirs,
		.nr_base_dirs = bases->nr,
		.no_bases = true,
	};
	struct ckf_image_info info = { .size = sizeof(info) };
	struct ckf_error err = { 0 };
	struct ckf_image *img = NULL;
	int dir_fd, rc;

	d->image = true;
	dir_fd = cli_open_dir(path, &err);
	rc = dir_fd < 0 ? dir_fd : ckf_image_open_opts(dir_fd, &opts, &img, &err);
	if (!rc) {
		ckf_image_get_info(img, &info);
		rc = ckf_image_check_files(img, CKF_FILES_FIRST, &err);
	}
	if (rc) {
		doctor_add(d, "image", DOCTOR_BROKEN, image_hint(rc), "%.200s: %s", path,
			   *err.msg ? err.msg : strerror(-rc));
	} else {
		doctor_add(d, "image", DOCTOR_OK, NULL,
			   "format %u.%u; its index and small files are whole; ckfast verify "
			   "checks the pages",
			   info.version_major, info.version_minor);
		check_bases(d, img, info.nr_bases);
		check_memory(d, img, info.nr_targets);
		check_needs(d, dir_fd);
	}
	ckf_image_close(img);
	if (dir_fd >= 0)
		close(dir_fd);
	d->image = false;
}
