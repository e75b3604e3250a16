/* SPDX-License-Identifier: MIT */
/* A running process: how its device memory could be dumped and restored, and what is in the way. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "doctor.h"

#define DRIVER_NAME "/libcuda.so"
#define URING_LINK "anon_inode:[io_uring]"

enum use {
	USE_NONE,
	USE_LOADED,
	USE_REPLACED, /* the file is another one by now */
};

struct maps {
	enum use agent;
	enum use driver;
};

/* Whether a line of maps is of a library whose path has that name in it. */
static void note_library(const char *line, const char *name, enum use *use)
{
	const char *path = strchr(line, '/');

	if (path && strstr(path, name))
		*use = strstr(path, " (deleted)") ? USE_REPLACED : USE_LOADED;
}

static int read_maps(const struct doctor *d, int pid, struct maps *maps)
{
	char path[64], full[DOCTOR_PATH_BYTES], *line = NULL;
	size_t room = 0;
	FILE *f;
	int ret = 0;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	f = doctor_path(d, full, path) ? fopen(full, "re") : NULL;
	if (!f)
		return -errno;
	while (getline(&line, &room, f) > 0) {
		note_library(line, "/" CKF_AGENT_LIBRARY, &maps->agent);
		note_library(line, DRIVER_NAME, &maps->driver);
	}
	if (ferror(f))
		ret = -errno;
	free(line);
	fclose(f);
	return ret;
}

static unsigned int count_urings(const struct doctor *d, int pid)
{
	char path[64], full[DOCTOR_PATH_BYTES], link[64];
	unsigned int nr = 0;
	struct dirent *de;
	DIR *dir;
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = doctor_path(d, full, path) ? opendir(full) : NULL;
	if (!dir)
		return 0;
	while ((de = readdir(dir))) {
		len = readlinkat(dirfd(dir), de->d_name, link, sizeof(link) - 1);
		link[len < 0 ? 0 : len] = 0;
		nr += !strcmp(link, URING_LINK);
	}
	closedir(dir);
	return nr;
}

static void add_path(struct doctor *d, int pid, const struct maps *maps)
{
	json_t *facts;

	if (maps->agent == USE_REPLACED)
		facts = doctor_add(d, "process", DOCTOR_DEGRADED,
				   "it may not fit this ckfast: start the process anew",
				   "%d: its agent is of another installation", pid);
	else if (maps->agent)
		facts = doctor_add(d, "process", DOCTOR_OK, NULL,
				   maps->driver ? "%d: by the agent; gpud fills its device memory"
						: "%d: by the agent, once it uses CUDA",
				   pid);
	else if (maps->driver)
		facts = doctor_add(
			d, "process", DOCTOR_DEGRADED,
			"several times as slow as with the agent: start it by ckfast run",
			"%d: no agent, so the driver saves its device memory", pid);
	else
		facts = doctor_add(d, "process", DOCTOR_OK, NULL, "%d: uses no CUDA", pid);
	json_object_set_new(facts, "pid", json_integer(pid));
	json_object_set_new(facts, "agent", json_boolean(maps->agent));
	json_object_set_new(facts, "cuda", json_boolean(maps->driver));
}

void doctor_check_pid(struct doctor *d, int pid)
{
	struct maps maps = { 0 };
	int ret = read_maps(d, pid, &maps);
	unsigned int nr;

	if (ret) {
		doctor_add(d, "process", DOCTOR_BROKEN,
			   ret == -ENOENT ? "see ps for its id in this pid namespace"
					  : "ask as root",
			   ret == -ENOENT ? "%d: there is none" : "%d: may not be looked at", pid);
		return;
	}
	add_path(d, pid, &maps);
	nr = count_urings(d, pid);
	if (nr)
		doctor_add(d, "process", DOCTOR_BROKEN,
			   "criu cannot dump them: ckfast run keeps common libraries from making "
			   "one",
			   "%d: has %u io_uring descriptors", pid, nr);
}
