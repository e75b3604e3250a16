/* SPDX-License-Identifier: MIT */
/* What the tasks of an image need around them: files, device memory, options of criu. */
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/ckf_uuid.h"
#include "doctor.h"

#define RWX (S_IRWXU | S_IRWXG | S_IRWXO)
#define PATHS_LISTED 20 /* in JSON */

enum trouble {
	FINE,
	GONE,
	SIZE,
	TYPE,
	SPECIAL_BITS,
	RIGHTS,
	TROUBLES,
};

static enum trouble look_at(const struct doctor *d, const struct ckf_path_info *p)
{
	char full[DOCTOR_PATH_BYTES];
	struct stat st;

	if (*p->path != '/' || !doctor_path(d, full, p->path) || stat(full, &st))
		return GONE;
	if (p->mode && (st.st_mode & S_IFMT) != (p->mode & S_IFMT))
		return TYPE;
	if (p->bytes != CKF_UNLIMITED && S_ISREG(st.st_mode) && (uint64_t)st.st_size != p->bytes)
		return SIZE;
	if (p->kind == CKF_PATH_SOCKET || !p->mode || st.st_mode == p->mode)
		return FINE;
	/* CRIU compares the whole mode; with --skip-file-rwx-check, all but these bits. */
	return (st.st_mode ^ p->mode) & ~(mode_t)RWX ? SPECIAL_BITS : RIGHTS;
}

/* Paths of one kind: how many are of which trouble, and the first of each. */
struct paths {
	const char *name; /* of the line */
	uint64_t nr;
	uint64_t nr_bad[TROUBLES];
	struct ckf_path_info first[TROUBLES];
	json_t *list; /* of bad ones */
};

static void note_path(const struct doctor *d, struct paths *ps, const struct ckf_path_info *p)
{
	enum trouble bad = look_at(d, p);

	ps->nr++;
	if (!bad)
		return;
	if (!ps->nr_bad[bad]++)
		ps->first[bad] = *p;
	if (json_array_size(ps->list) < PATHS_LISTED)
		json_array_append_new(ps->list, cli_json_string(p->path));
}

static void add_paths(struct doctor *d, struct paths *ps)
{
	static const struct {
		const char *text;
		const char *hint;
	} troubles[TROUBLES] = {
		[GONE] = { "gone", "put it there as it was" },
		[SIZE] = { "of another size",
			   "put it there as it was: CRIU refuses a file that has grown, too" },
		[TYPE] = { "something else by now", "put it there as it was" },
		[SPECIAL_BITS] = { "of a mode with other set-ID or sticky bits",
				   "set the mode: --skip-file-rwx-check compares these bits, too" },
		[RIGHTS] = { "of another mode", "set it, or restore with --skip-file-rwx-check" },
	};
	bool any = false;

	for (int bad = GONE; bad < TROUBLES; bad++) {
		const struct ckf_path_info *p = &ps->first[bad];
		char of[32] = "";
		json_t *facts;

		if (!ps->nr_bad[bad])
			continue;
		any = true;
		if (p->pid)
			snprintf(of, sizeof(of), " of task %" PRIu32, p->pid);
		facts = doctor_add(d, ps->name, DOCTOR_BROKEN, troubles[bad].hint,
				   "%" PRIu64 " of %" PRIu64 " %s %s: %.300s%s", ps->nr_bad[bad],
				   ps->nr, ps->nr_bad[bad] > 1 ? "are" : "is", troubles[bad].text,
				   p->path, of);
		json_object_set(facts, "paths", ps->list);
	}
	if (!any)
		doctor_add(d, ps->name, DOCTOR_OK, NULL, "all %" PRIu64 " as they were", ps->nr);
}

void doctor_check_files(struct doctor *d, const struct ckf_needs *n,
			const struct ckf_needs_info *info)
{
	struct paths programs = { .name = "programs", .list = json_array() };
	struct paths dirs = { .name = "directories", .list = json_array() };
	struct paths sockets = { .name = "sockets", .list = json_array() };
	struct paths files = { .name = "files", .list = json_array() };
	struct paths *const of_kind[] = {
		[CKF_PATH_FILE] = &files, [CKF_PATH_EXE] = &programs,	[CKF_PATH_CWD] = &dirs,
		[CKF_PATH_ROOT] = &dirs,  [CKF_PATH_SOCKET] = &sockets,
	};
	struct ckf_path_info p = { .size = sizeof(p) };

	if (info->own_ns & CLONE_NEWNS)
		doctor_add(d, "files", DOCTOR_OK, NULL,
			   "not looked at: %" PRIu64 " in a mount namespace of its own",
			   info->nr_paths);
	for (uint64_t i = 0; i < info->nr_paths && !(info->own_ns & CLONE_NEWNS); i++) {
		if (ckf_needs_get_path(n, i, &p) || p.external)
			continue;
		note_path(d, of_kind[p.kind], &p);
	}
	if (!(info->own_ns & CLONE_NEWNS)) {
		add_paths(d, &programs);
		add_paths(d, &dirs);
		add_paths(d, &files);
		if (sockets.nr)
			add_paths(d, &sockets);
	}
	json_decref(programs.list);
	json_decref(dirs.list);
	json_decref(files.list);
	json_decref(sockets.list);
	if (info->ghost_bytes) {
		char a[CLI_BYTES_LEN];

		doctor_add(d, "unlinked", DOCTOR_OK, NULL,
			   "%s of unlinked files are written where they were",
			   cli_bytes(info->ghost_bytes, a));
	}
}

#define MAX_DEVICES 64

/* A GPU of the dump, with what all tasks have on it. */
struct device {
	struct ckf_device_need need;
	char uuid[CKF_GPU_UUID_TEXT_BYTES];
	json_t *here; /* the one that takes its place; borrowed */
};

/* One entry for each GPU that has memory to be filled. Returns how many. */
static size_t gather_devices(const struct ckf_needs *n, uint64_t nr, struct device *devs)
{
	struct ckf_device_need need = { .size = sizeof(need) };
	size_t nr_devs = 0, k;

	for (uint64_t i = 0; i < nr; i++) {
		if (ckf_needs_get_device(n, i, &need) || !need.bytes)
			continue;
		for (k = 0; k < nr_devs; k++)
			if (!memcmp(devs[k].need.uuid, need.uuid, sizeof(need.uuid)))
				break;
		if (k == MAX_DEVICES)
			continue;
		if (k < nr_devs) {
			devs[k].need.bytes += need.bytes;
			continue;
		}
		devs[nr_devs] = (struct device){ .need = need };
		ckf_gpu_uuid_text(need.uuid, devs[nr_devs++].uuid);
	}
	return nr_devs;
}

static uint64_t number(json_t *obj, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(obj, key));
}

static bool is_string(json_t *obj, const char *key, const char *want)
{
	const char *s = json_string_value(json_object_get(obj, key));

	return s && !strcmp(s, want);
}

static bool is_used(const struct device *devs, size_t nr, json_t *here)
{
	for (size_t i = 0; i < nr; i++)
		if (devs[i].here == here)
			return true;
	return false;
}

/* As gpud does it: the same GPU, else one of the same name and size that is left. */
static void match_devices(struct device *devs, size_t nr, json_t *list)
{
	json_t *here;
	size_t k;

	for (size_t i = 0; i < nr; i++)
		json_array_foreach(list, k, here) if (is_string(here, "uuid", devs[i].uuid)) devs[i]
			.here = here;
	for (size_t i = 0; i < nr; i++) {
		json_array_foreach(list, k, here)
		{
			if (!devs[i].here && !is_used(devs, nr, here) &&
			    is_string(here, "name", devs[i].need.name) &&
			    number(here, "total_bytes") == devs[i].need.total_bytes)
				devs[i].here = here;
		}
	}
}

/* As gpud checks it. */
static bool fits(uint64_t need_bytes, uint64_t free_bytes)
{
	return free_bytes >= CKF_GPUD_SPARE_BYTES &&
	       free_bytes - CKF_GPUD_SPARE_BYTES >= need_bytes;
}

static void add_device(struct doctor *d, const struct device *dev)
{
	char need[CLI_BYTES_LEN], other[CLI_BYTES_LEN], spare[CLI_BYTES_LEN];
	uint64_t free_bytes = number(dev->here, "free_bytes");
	json_t *facts;

	cli_bytes(dev->need.bytes, need);
	if (!dev->here)
		facts = doctor_add(d, "gpu", DOCTOR_BROKEN,
				   "restore on a machine with the same model of GPU",
				   "there is none left like %s of %s, which had %s", dev->need.name,
				   cli_bytes(dev->need.total_bytes, other), need);
	else if (json_object_get(dev->here, "free_bytes") && !fits(dev->need.bytes, free_bytes))
		facts = doctor_add(d, "gpu", DOCTOR_BROKEN,
				   "end what uses it: nvidia-smi tells, and ckfast park frees it",
				   "needs %s of %s and %s to spare, but %s are free", need,
				   dev->need.name, cli_bytes(CKF_GPUD_SPARE_BYTES, spare),
				   cli_bytes(free_bytes, other));
	else
		facts = doctor_add(d, "gpu", DOCTOR_OK, NULL, "needs %s of %s", need,
				   dev->need.name);
	json_object_set_new(facts, "need_bytes", cli_json_u64(dev->need.bytes));
	json_object_set_new(facts, "uuid", cli_json_string(dev->uuid));
}

void doctor_check_devices(struct doctor *d, const struct ckf_needs *n,
			  const struct ckf_needs_info *info)
{
	struct device devs[MAX_DEVICES] = { 0 };
	size_t nr = gather_devices(n, info->nr_devices, devs);
	struct doctor_output out;
	json_t *answer, *list;

	if (!nr) {
		doctor_add(d, "gpu", DOCTOR_OK, NULL, "none needed");
		return;
	}
	if (!doctor_has_gpu(d)) {
		doctor_add(d, "gpu", DOCTOR_BROKEN, "restore on a machine with the same GPUs",
			   "%zu needed, but no NVIDIA driver is loaded", nr);
		return;
	}
	answer = doctor_ask_devices(d, &out);
	list = json_object_get(answer, "devices");
	if (!list) {
		doctor_add(d, "gpu", DOCTOR_BROKEN, "the line on the driver says why",
			   "%zu needed, but the driver does not say which GPUs there are", nr);
		json_decref(answer);
		return;
	}
	match_devices(devs, nr, list);
	for (size_t i = 0; i < nr; i++)
		add_device(d, &devs[i]);
	json_decref(answer);
}

void doctor_check_options(struct doctor *d, const struct ckf_needs_info *info)
{
	/* To a container, its runtime gives a terminal. */
	const bool outer_tty = info->nr_outer_ttys && !(info->own_ns & CLONE_NEWNS);
	const struct {
		bool needed;
		const char *option;
	} options[] = {
		{ info->nr_tcp, " --tcp-established" },
		{ info->nr_ext_unix, " --ext-unix-sk" },
		{ info->nr_ext_mounts, " --external" },
		{ info->outer_session || outer_tty, " --shell-job" },
		{ info->nr_file_locks, " --file-locks" },
	};
	char list[128] = "";
	json_t *facts;

	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		if (options[i].needed)
			strcat(list, options[i].option);
	/* The terminal of criu restore takes the place of the one that was left outside. */
	facts = doctor_add(d, "options", DOCTOR_OK, NULL, "%s%s%s",
			   *list ? "criu restore needs" : "criu restore needs no special ones",
			   list, outer_tty ? ", and to be run on a terminal" : "");
	json_object_set_new(facts, "tcp_connections", cli_json_u64(info->nr_tcp));
	json_object_set_new(facts, "external_sockets", cli_json_u64(info->nr_ext_unix));
	json_object_set_new(facts, "external_mounts", cli_json_u64(info->nr_ext_mounts));
	json_object_set_new(facts, "outer_terminals", cli_json_u64(info->nr_outer_ttys));
	json_object_set_new(facts, "file_locks", cli_json_u64(info->nr_file_locks));
}
