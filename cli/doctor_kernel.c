/* SPDX-License-Identifier: MIT */
/* What of the kernel a restore uses to be quick, and what it cannot do without. */
#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <glob.h>

#include "doctor.h"

#define ASK_MS 5000
#define DEFAULT_MAP_COUNT 65530
#define SECCOMP_FILTER "2"	/* in /proc/PID/status */
#define BALLOON_REPORTING_BIT 5 /* VIRTIO_BALLOON_F_REPORTING */
#define OVERCOMMIT_NEVER 2
#define STATUS_BYTES 8192

static bool has_filter(const struct doctor *d)
{
	char status[STATUS_BYTES], field[16];

	return doctor_read(d, "/proc/self/status", status, sizeof(status)) &&
	       doctor_field(status, "Seccomp:", field, sizeof(field)) &&
	       !strcmp(field, SECCOMP_FILTER);
}

/*
 * Asks for a system call: the errno that it ended with, 0 or -1, where it was not answered. A
 * filter that kills is told of by a line, and is -1.
 */
static int ask_errno(struct doctor *d, const char *name, const char *question, json_t **answer)
{
	struct doctor_output out;
	int error = -1;

	d->ask(question, ASK_MS, &out);
	*answer = doctor_answer(&out);
	if (*answer)
		error = (int)json_integer_value(json_object_get(*answer, "errno"));
	else if (out.end == DOCTOR_KILLED && out.status == SIGSYS)
		doctor_add(d, name, DOCTOR_BROKEN,
			   "criu would be killed, too: let the filter return EPERM for this call",
			   "a seccomp filter kills the caller");
	else
		doctor_add(d, name, DOCTOR_DEGRADED, "whether it may be used is not known",
			   "the question was not answered%s",
			   out.end == DOCTOR_TIMED_OUT ? " in time" : "");
	return error;
}

static void check_uring(struct doctor *d)
{
	static const char hint[] =
		"each worker reads one piece of the image at a time, through the page cache";
	uint64_t disabled = 0;
	json_t *answer;
	int error = ask_errno(d, "io_uring", "io_uring", &answer);

	json_decref(answer);
	if (error < 0)
		return;
	doctor_read_u64(d, "/proc/sys/kernel/io_uring_disabled", &disabled);
	if (!error)
		doctor_add(d, "io_uring", DOCTOR_OK, NULL, "may be used");
	else if (disabled == 2 || (disabled == 1 && !doctor_has_cap(d, CAP_SYS_ADMIN)))
		doctor_add(d, "io_uring", DOCTOR_DEGRADED, hint,
			   "forbidden by kernel.io_uring_disabled = %d", (int)disabled);
	else if (has_filter(d))
		doctor_add(d, "io_uring", DOCTOR_DEGRADED, hint,
			   "forbidden by a seccomp filter: %s", strerror(error));
	else
		doctor_add(d, "io_uring", DOCTOR_DEGRADED, hint, "not to be had: %s",
			   strerror(error));
}

static void check_userfaultfd(struct doctor *d)
{
	static const char hint[] = "huge pages of private memory are made by MADV_COLLAPSE, which "
				   "copies";
	json_t *answer;
	int error = ask_errno(d, "userfaultfd", "userfaultfd", &answer);

	if (!error && json_is_true(json_object_get(answer, "move")))
		doctor_add(d, "userfaultfd", DOCTOR_OK, NULL, "with UFFDIO_MOVE");
	else if (!error)
		doctor_add(d, "userfaultfd", DOCTOR_DEGRADED, hint,
			   "without UFFDIO_MOVE, which Linux 6.8 has");
	else if (error > 0)
		doctor_add(d, "userfaultfd", DOCTOR_DEGRADED, hint, "%s%s",
			   has_filter(d) ? "forbidden by a seccomp filter: " : "not to be had: ",
			   strerror(error));
	json_decref(answer);
}

#define THP "/sys/kernel/mm/transparent_hugepage/"

/* The choice of one file; "?" where there is none. */
static void read_choice(const struct doctor *d, const char *path, char buf[32])
{
	char text[128];

	if (!doctor_read(d, path, text, sizeof(text)) || !doctor_choice(text, buf, 32))
		strcpy(buf, "?");
}

static void check_thp(struct doctor *d)
{
	static const char hint[] = "memory is filled in pages of 4 KiB: 512 times as many faults";
	char enabled[32], defrag[32], shmem[32], status[STATUS_BYTES], own[16];
	json_t *facts;

	if (!doctor_exists(d, THP "enabled")) {
		doctor_add(d, "huge_pages", DOCTOR_DEGRADED, hint,
			   "this kernel has no transparent huge pages");
		return;
	}
	read_choice(d, THP "enabled", enabled);
	read_choice(d, THP "defrag", defrag);
	read_choice(d, THP "shmem_enabled", shmem);
	if (!strcmp(enabled, "never"))
		facts = doctor_add(d, "huge_pages", DOCTOR_DEGRADED, hint,
				   "transparent_hugepage/enabled is never");
	else if (doctor_read(d, "/proc/self/status", status, sizeof(status)) &&
		 doctor_field(status, "THP_enabled:", own, sizeof(own)) && !strcmp(own, "0"))
		facts = doctor_add(d, "huge_pages", DOCTOR_DEGRADED, hint,
				   "disabled for this process, and those that it starts");
	else if (!strcmp(defrag, "never"))
		facts = doctor_add(d, "huge_pages", DOCTOR_DEGRADED,
				   "where free memory is in pieces, it is filled in pages of 4 KiB",
				   "enabled %s, but transparent_hugepage/defrag is never", enabled);
	else if (!strcmp(shmem, "deny"))
		facts = doctor_add(d, "huge_pages", DOCTOR_DEGRADED,
				   "shared memory is filled in pages of 4 KiB",
				   "enabled %s, but transparent_hugepage/shmem_enabled is deny",
				   enabled);
	else
		facts = doctor_add(d, "huge_pages", DOCTOR_OK, NULL,
				   "enabled %s, defrag %s, shmem_enabled %s", enabled, defrag,
				   shmem);
	json_object_set_new(facts, "enabled", cli_json_string(enabled));
	json_object_set_new(facts, "defrag", cli_json_string(defrag));
	json_object_set_new(facts, "shmem_enabled", cli_json_string(shmem));
}

/* A balloon that tells the host which pages are free: the bits of its features, the lowest first.
 */
static bool reports_free_pages(const struct doctor *d)
{
	char pattern[DOCTOR_PATH_BYTES], bits[BALLOON_REPORTING_BIT + 2];
	bool on = false;
	glob_t found;

	if (!doctor_path(d, pattern, "/sys/bus/virtio/drivers/virtio_balloon/virtio*/features") ||
	    glob(pattern, 0, NULL, &found))
		return false;
	for (size_t i = 0; i < found.gl_pathc && !on; i++)
		on = doctor_read(d, found.gl_pathv[i] + strlen(d->root), bits, sizeof(bits)) &&
		     strlen(bits) > BALLOON_REPORTING_BIT && bits[BALLOON_REPORTING_BIT] == '1';
	globfree(&found);
	return on;
}

static void check_reporting(struct doctor *d)
{
	if (reports_free_pages(d))
		doctor_add(d, "free_pages", DOCTOR_DEGRADED,
			   "the first access to a page that was free then faults on the host, too",
			   "this virtual machine gives free memory back to its host");
	else
		doctor_add(d, "free_pages", DOCTOR_OK, NULL, "stay with this machine");
}

static void check_ids(struct doctor *d)
{
	static const char last_pid[] = "/proc/sys/kernel/ns_last_pid";
	uint64_t value;
	json_t *answer;
	int error = ask_errno(d, "process_ids", "set_tid", &answer);

	json_decref(answer);
	if (error < 0)
		return;
	/* Of what is wrong with the arguments, that set_tid is read is seen. */
	if (error == EINVAL)
		doctor_add(d, "process_ids", DOCTOR_OK, NULL, "clone3() takes them");
	else if (doctor_read_u64(d, last_pid, &value))
		doctor_add(d, "process_ids", DOCTOR_OK, NULL,
			   "by kernel.ns_last_pid: clone3() does not take them (%s)",
			   strerror(error));
	else
		doctor_add(d, "process_ids", DOCTOR_BROKEN,
			   "needs Linux 5.5, or CONFIG_CHECKPOINT_RESTORE, and no filter against "
			   "clone3()",
			   "processes cannot get the ids that they had: clone3(): %s",
			   strerror(error));
}

static void check_vm(struct doctor *d)
{
	uint64_t maps = DEFAULT_MAP_COUNT, overcommit = 0;
	json_t *facts;

	doctor_read_u64(d, "/proc/sys/vm/max_map_count", &maps);
	facts = doctor_add(d, "mappings", maps < DEFAULT_MAP_COUNT ? DOCTOR_DEGRADED : DOCTOR_OK,
			   maps < DEFAULT_MAP_COUNT ? "programs with many mappings fail: set it to "
						      "65530 or more"
						    : NULL,
			   "vm.max_map_count is %llu", (unsigned long long)maps);
	json_object_set_new(facts, "max_map_count", cli_json_u64(maps));
	doctor_read_u64(d, "/proc/sys/vm/overcommit_memory", &overcommit);
	doctor_add(d, "overcommit", overcommit == OVERCOMMIT_NEVER ? DOCTOR_DEGRADED : DOCTOR_OK,
		   overcommit == OVERCOMMIT_NEVER
			   ? "reservations count as memory: large programs may not fit"
			   : NULL,
		   "vm.overcommit_memory is %llu", (unsigned long long)overcommit);
}

static void check_release(struct doctor *d)
{
	char release[128];

	if (!doctor_read(d, "/proc/sys/kernel/osrelease", release, sizeof(release)))
		strcpy(release, "?");
	release[strcspn(release, "\n")] = 0;
	json_object_set_new(doctor_add(d, "kernel", DOCTOR_OK, NULL, "Linux %s", release),
			    "release", cli_json_string(release));
}

void doctor_check_kernel(struct doctor *d)
{
	check_release(d);
	check_ids(d);
	check_uring(d);
	check_userfaultfd(d);
	check_thp(d);
	check_reporting(d);
	check_vm(d);
}
