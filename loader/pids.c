/* SPDX-License-Identifier: MIT */
/* How many threads the limits of pids cgroups leave. The files have one name in both versions. */
#include "ckfast.h"
#include "cgroup.h"

static uint64_t pids_here(int dir_fd, void *arg)
{
	uint64_t limit, now;

	(void)arg;
	if (!cgroup_read_number(dir_fd, "pids.max", &limit) ||
	    !cgroup_read_number(dir_fd, "pids.current", &now))
		return CKF_UNLIMITED;
	return now < limit ? limit - now : 0;
}

uint64_t ckf_pids_of_dir(int dir_fd)
{
	return cgroup_least(dir_fd, pids_here, NULL);
}

uint64_t ckf_pids_self(int proc_fd)
{
	return cgroup_least_self(proc_fd, "pids", pids_here, NULL);
}
