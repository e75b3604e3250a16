/* SPDX-License-Identifier: MIT */
/* What this process may do: capabilities, its user namespace, and the lock of the network. */
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "doctor.h"

#define ASK_MS 5000
#define INIT_USER_NS "user:[4026531837]" /* PROC_USER_INIT_INO of the kernel */

#ifndef CAP_CHECKPOINT_RESTORE
#define CAP_CHECKPOINT_RESTORE 40
#endif

static void check_caps(struct doctor *d)
{
	bool admin = doctor_has_cap(d, CAP_SYS_ADMIN);
	bool restore = doctor_has_cap(d, CAP_CHECKPOINT_RESTORE);
	bool resource = doctor_has_cap(d, CAP_SYS_RESOURCE);
	bool ptrace = doctor_has_cap(d, CAP_SYS_PTRACE);
	json_t *facts;

	if (!admin && !restore)
		facts = doctor_add(d, "rights", DOCTOR_BROKEN,
				   "run criu as root, or with CAP_CHECKPOINT_RESTORE and "
				   "--unprivileged",
				   "neither CAP_SYS_ADMIN nor CAP_CHECKPOINT_RESTORE");
	else if (!admin)
		facts = doctor_add(d, "rights", DOCTOR_DEGRADED,
				   "criu needs --unprivileged, and cannot restore namespaces",
				   "CAP_CHECKPOINT_RESTORE without CAP_SYS_ADMIN");
	else if (!resource || !ptrace)
		facts = doctor_add(d, "rights", DOCTOR_DEGRADED,
				   !resource ? "limits above those of criu itself, and lowered "
					       "OOM scores, are not restored"
					     : "tasks of other users cannot be dumped or restored",
				   "no %s", !resource ? "CAP_SYS_RESOURCE" : "CAP_SYS_PTRACE");
	else
		facts = doctor_add(d, "rights", DOCTOR_OK, NULL,
				   "CAP_SYS_ADMIN, CAP_SYS_RESOURCE, CAP_SYS_PTRACE");
	json_object_set_new(facts, "sys_admin", json_boolean(admin));
	json_object_set_new(facts, "checkpoint_restore", json_boolean(restore));
	json_object_set_new(facts, "sys_resource", json_boolean(resource));
	json_object_set_new(facts, "sys_ptrace", json_boolean(ptrace));
}

static void check_user_ns(struct doctor *d)
{
	char path[DOCTOR_PATH_BYTES], ns[64];
	ssize_t len = -1;

	if (doctor_path(d, path, "/proc/self/ns/user"))
		len = readlink(path, ns, sizeof(ns) - 1);
	ns[len < 0 ? 0 : len] = 0;
	if (len < 0 || !strcmp(ns, INIT_USER_NS))
		doctor_add(d, "user_ns", DOCTOR_OK, NULL, "the first one of the machine");
	else
		doctor_add(d, "user_ns", DOCTOR_DEGRADED,
			   "criu cannot do here what needs rights outside of it, such as device "
			   "files and some mounts",
			   "in a user namespace of its own");
}

/* A file of one of these names in the directories that criu finds programs in. */
static bool has_program(const struct doctor *d, const char *name)
{
	static const char *const dirs[] = { "/usr/sbin", "/usr/bin", "/sbin", "/bin",
					    "/usr/local/sbin" };
	char path[64];

	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", dirs[i], name);
		if (doctor_exists(d, path))
			return true;
	}
	return false;
}

static void check_network(struct doctor *d)
{
	bool iptables = has_program(d, "iptables-restore") && has_program(d, "ip6tables-restore");
	struct doctor_output out;
	bool nftables;
	json_t *answer;

	d->ask("nftables", ASK_MS, &out);
	answer = doctor_answer(&out);
	nftables = answer && json_integer_value(json_object_get(answer, "errno")) == 0;
	json_decref(answer);
	if (nftables || iptables)
		doctor_add(d, "network", DOCTOR_OK, NULL, "can be locked by %s%s%s",
			   nftables ? "nftables" : "", nftables && iptables ? " and " : "",
			   iptables ? "iptables" : "");
	else
		doctor_add(d, "network", DOCTOR_DEGRADED,
			   "open TCP connections cannot be restored, unless with --network-lock "
			   "skip: install iptables",
			   "neither nftables nor iptables: criu cannot lock it");
}

void doctor_check_rights(struct doctor *d)
{
	check_caps(d);
	check_user_ns(d);
	check_network(d);
}
