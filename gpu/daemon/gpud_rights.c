/* SPDX-License-Identifier: MIT */
/*
 * What gpud keeps of root's rights, which are capabilities(7). It parses images and messages that
 * it does not trust, in the same process as the driver, so a fault in any of them should give away
 * as little as possible. By system calls: libcap would be one more library, for two of them.
 */
#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gpud.h"

#define BIT(cap) (1ull << (cap))
#define UVM_NODE "/dev/nvidia-uvm"

/* The images of other users, which the client's descriptor of a directory leads to. */
#define KEEP_IMAGES BIT(CAP_DAC_OVERRIDE)
/* /proc and the driver's checkpoint calls, for processes of other users. */
#define KEEP_PROCESSES BIT(CAP_SYS_PTRACE)
/* Pinned memory, and that of io_uring, beyond RLIMIT_MEMLOCK. */
#define KEEP_PINNED BIT(CAP_IPC_LOCK)
/* SO_SNDBUFFORCE: messages to a client that reads late do not stop a job. */
#define KEEP_BUFFERS BIT(CAP_NET_ADMIN)
/* The driver has its module loaded and its device nodes made on the first use. */
#define KEEP_MODULE (BIT(CAP_SYS_MODULE) | BIT(CAP_MKNOD))

/* To do with the ids of members what they ask for: gpud_client.c. */
#define KEEP_IDS (BIT(CAP_SETUID) | BIT(CAP_SETGID))

static uint64_t kept(const struct ckf_gpud_group *group)
{
	uint64_t keep = KEEP_IMAGES | KEEP_PROCESSES | KEEP_PINNED | KEEP_BUFFERS;

	if (group->set)
		keep |= KEEP_IDS;

	return access(UVM_NODE, F_OK) ? keep | KEEP_MODULE : keep;
}

/* Also those that a program could get that this one starts. */
static int limit(uint64_t keep)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3];

	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	/* Only who has CAP_SETPCAP may; for anybody else there is little to take away. */
	for (unsigned int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (cap >= 64 || !(keep & BIT(cap)))
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	if (syscall(SYS_capget, &h, d))
		return -errno;
	for (unsigned int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
		d[i].permitted &= (uint32_t)(keep >> (32 * i));
		d[i].effective = d[i].permitted;
		d[i].inheritable = 0;
	}
	return syscall(SYS_capset, &h, d) ? -errno : 0;
}

int ckf_gpud_drop_rights(const struct ckf_gpud_group *group, struct ckf_error *err)
{
	int ret = limit(kept(group));

	/* Another user needs nvidia-modprobe, which is setuid, where the module is not loaded. */
	if (!ret && (!geteuid() || !access(UVM_NODE, F_OK)) &&
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		ret = -errno;
	return ret ? ckf_error_set(err, ret, "cannot give up rights: %s", strerror(-ret)) : 0;
}
