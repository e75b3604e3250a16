/* SPDX-License-Identifier: MIT */
/*
 * NVIDIA's driver and its GPUs, gpud, the agent, and CRIU's plugin for them. One line where there
 * is no GPU.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "doctor.h"

#define DRIVER_MS 30000 /* it takes seconds where nothing keeps it awake */
#define GPUD_MS 5000
#define AGENT_MS 5000
#define DRIVER_FILE "/proc/driver/nvidia/version"
#define OUR_PLUGIN "ckfast_cuda_plugin.so"
#define STOCK_PLUGIN "cuda_plugin.so"
#define ELF_X86_64 62 /* e_machine, at 18 in the header */
#define ELF_MACHINE_AT 18

bool doctor_has_gpu(const struct doctor *d)
{
	return doctor_exists(d, DRIVER_FILE) || doctor_exists(d, "/dev/nvidiactl");
}

/* "570.86.15", out of a line such as "NVRM version: … Kernel Module  570.86.15  …"; or "?". */
static void driver_version(const struct doctor *d, char buf[32])
{
	char text[512];
	const char *at;

	strcpy(buf, "?");
	if (!doctor_read(d, DRIVER_FILE, text, sizeof(text)))
		return;
	at = strstr(text, "Module");
	while (at && (at = strpbrk(at, " \t")) && (at += strspn(at, " \t")))
		if (sscanf(at, "%31[0-9.]", buf) == 1)
			return;
}

json_t *doctor_ask_devices(struct doctor *d, struct doctor_output *out)
{
	d->ask("cuda", DRIVER_MS, out);
	return doctor_answer(out);
}

static void add_devices(struct doctor *d, json_t *devices)
{
	char total[CLI_BYTES_LEN], left[CLI_BYTES_LEN];
	json_t *dev, *free_bytes, *facts;
	size_t i;

	json_array_foreach(devices, i, dev)
	{
		const char *name = json_string_value(json_object_get(dev, "name"));

		free_bytes = json_object_get(dev, "free_bytes");
		cli_bytes((uint64_t)json_integer_value(json_object_get(dev, "total_bytes")), total);
		cli_bytes((uint64_t)json_integer_value(free_bytes), left);
		facts = doctor_add(d, "gpu", DOCTOR_OK, NULL, "%zu: %s, %s%s%s", i,
				   name ? name : "?", total, free_bytes ? ", free: " : "",
				   free_bytes ? left : "");
		json_object_update(facts, dev);
	}
}

/* error: a positive errno, why the driver gives no answer. */
static const char *driver_hint(int error)
{
	switch (error) {
	case EOPNOTSUPP:
		return "install driver 570 or later";
	case ENODEV:
		return "try nvidia-smi; in a container, the NVIDIA container toolkit provides the "
		       "driver";
	default:
		return "try nvidia-smi";
	}
}

static void check_driver(struct doctor *d)
{
	struct doctor_output out;
	json_t *answer = doctor_ask_devices(d, &out);
	const char *msg = json_string_value(json_object_get(answer, "message"));
	json_t *devices = json_object_get(answer, "devices"), *facts;
	int error = (int)json_integer_value(json_object_get(answer, "errno"));
	char version[32];

	driver_version(d, version);
	if (out.end == DOCTOR_TIMED_OUT)
		facts = doctor_add(d, "driver", DOCTOR_BROKEN,
				   "look for Xid in dmesg; a reset of the GPU or of the machine "
				   "helps",
				   "%s does not answer", version);
	else if (!answer)
		facts = doctor_add(d, "driver", DOCTOR_BROKEN, "try nvidia-smi",
				   "%s crashes when it is asked", version);
	else if (error)
		facts = doctor_add(d, "driver", DOCTOR_BROKEN, driver_hint(error), "%s: %s",
				   version, msg ? msg : strerror(error));
	else if (!json_array_size(devices))
		facts = doctor_add(d, "driver", DOCTOR_DEGRADED,
				   "nothing that used a GPU can be restored: look at "
				   "CUDA_VISIBLE_DEVICES",
				   "%s, but no GPU", version);
	else
		facts = doctor_add(
			d, "driver", DOCTOR_OK, NULL, "%s, CUDA %d.%d", version,
			(int)json_integer_value(json_object_get(answer, "cuda_version")) / 1000,
			(int)json_integer_value(json_object_get(answer, "cuda_version")) % 1000 /
				10);
	json_object_set_new(facts, "version", cli_json_string(version));
	add_devices(d, devices);
	json_decref(answer);
}

static void check_gpud(struct doctor *d)
{
	struct doctor_output out;
	json_t *answer, *slots;
	const char *msg;
	int error;

	d->ask("gpud", GPUD_MS, &out);
	answer = doctor_answer(&out);
	error = (int)json_integer_value(json_object_get(answer, "errno"));
	msg = json_string_value(json_object_get(answer, "message"));
	slots = json_object_get(json_object_get(answer, "status"), "slots");
	if (answer && !error)
		doctor_add(d, "gpud", DOCTOR_OK, NULL, "runs: %d slots, %d in use",
			   (int)json_integer_value(json_object_get(slots, "total")),
			   (int)json_integer_value(json_object_get(slots, "in_use")));
	else if (error == ENOENT || error == ECONNREFUSED)
		doctor_add(d, "gpud", DOCTOR_DEGRADED,
			   "each dump and restore starts its own, which takes a while: ckfast gpud",
			   "does not run");
	else
		doctor_add(d, "gpud", DOCTOR_BROKEN, "start it anew, of the same version as ckfast",
			   "%s", answer && msg ? msg : "does not answer");
	json_decref(answer);
}

static void check_agent(struct doctor *d)
{
	struct doctor_output out;
	json_t *answer;
	const char *path;

	d->ask("agent", AGENT_MS, &out);
	answer = doctor_answer(&out);
	path = json_string_value(json_object_get(answer, "path"));
	if (path)
		doctor_add(d, "agent", DOCTOR_OK, NULL, "%s", path);
	else
		doctor_add(d, "agent", DOCTOR_DEGRADED,
			   "ckfast run fails, and without it device memory takes several times as "
			   "long: install ckfast-cuda",
			   "there is no " CKF_AGENT_LIBRARY " beside ckfast");
	json_decref(answer);
}

/* 1 a plugin for this machine, -1 something else, 0 nothing. */
static int find_plugin(const struct doctor *d, const char *dir, const char *name)
{
	char path[DOCTOR_PATH_BYTES], full[DOCTOR_PATH_BYTES];
	unsigned char head[ELF_MACHINE_AT + 2] = { 0 };
	size_t got;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = doctor_path(d, full, path) ? fopen(full, "re") : NULL;
	if (!f)
		return 0;
	got = fread(head, 1, sizeof(head), f);
	fclose(f);
	return got == sizeof(head) &&
			       !memcmp(head,
				       "\x7f"
				       "ELF\x02",
				       5) &&
			       head[ELF_MACHINE_AT] == ELF_X86_64 && !head[ELF_MACHINE_AT + 1]
		       ? 1
		       : -1;
}

/* CRIU loads all plugins of its one directory, unless --libdir names another. */
static void check_plugins(struct doctor *d)
{
	static const char *const dirs[] = { "/usr/lib/criu", "/usr/local/lib/criu" };
	static const char own[] = "/usr/local/lib/ckfast/criu";
	const char *dir = dirs[0];
	int ours = 0, stock = 0;

	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]) && !ours && !stock; i++) {
		dir = dirs[i];
		ours = find_plugin(d, dir, OUR_PLUGIN);
		stock = find_plugin(d, dir, STOCK_PLUGIN);
	}
	if (ours < 0)
		doctor_add(d, "plugin", DOCTOR_BROKEN, "make install-criu, and copy it anew",
			   "%s/" OUR_PLUGIN " is no library for this machine", dir);
	else if (ours && stock)
		doctor_add(d, "plugin", DOCTOR_BROKEN,
			   "both would suspend the same process: take the other one out of it",
			   "%s has " OUR_PLUGIN " and " STOCK_PLUGIN, dir);
	else if (ours)
		doctor_add(d, "plugin", DOCTOR_OK, NULL, "%s/" OUR_PLUGIN, dir);
	else if (find_plugin(d, own, OUR_PLUGIN) > 0)
		doctor_add(d, "plugin", DOCTOR_DEGRADED,
			   "criu does not look there without --libdir: each call needs it",
			   "%s/" OUR_PLUGIN, own);
	else if (stock)
		doctor_add(d, "plugin", DOCTOR_DEGRADED,
			   "device memory goes through the driver alone, which is slow: make "
			   "install-criu",
			   "%s has " STOCK_PLUGIN " only", dir);
	else
		doctor_add(d, "plugin", DOCTOR_BROKEN,
			   "processes that use a GPU cannot be dumped or restored: make "
			   "install-criu",
			   "there is none for GPUs in %s and %s", dirs[0], dirs[1]);
}

void doctor_check_gpu(struct doctor *d)
{
	if (!doctor_has_gpu(d)) {
		doctor_add(d, "gpu", DOCTOR_OK, NULL, "none: no NVIDIA driver is loaded");
		return;
	}
	check_driver(d);
	check_gpud(d);
	check_agent(d);
	check_plugins(d);
}
