/* SPDX-License-Identifier: MIT */
/*
 * Device memory that processes share: who has it, and who saves it. All that have the same memory
 * have descriptors of one open file, which kcmp(2) finds: those that the agents keep, while the
 * processes run, and those that were taken from the agents, once they are locked.
 */
#include <dirent.h>
#include <errno.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/ckf_array.h"
#include "format/ckf_gpu_dump.h"
#include "ckf_agent_call.h"
#include "ckf_process.h"

/* A descriptor of shared memory. */
struct holder {
	pid_t pid;     /* that has the descriptor */
	pid_t process; /* that has the memory */
	int fd;
	bool import;
	bool inside;		    /* of a process that was asked for */
	struct ckf_gpu_memory *mem; /* of a locked process, whose descriptors are here */
};

struct holders {
	struct holder *list;
	size_t nr;
	uint64_t cap;
};

/* Any order of open files: below 0, 0 or above. A file that is gone is equal to none. */
static int compare_files(pid_t a_pid, int a_fd, pid_t b_pid, int b_fd)
{
	const long order = syscall(SYS_kcmp, a_pid, b_pid, KCMP_FILE, a_fd, b_fd);

	/* errno says why it is below 0. */
	return order == 0 ? 0 : order == 1 ? -1 : 1;
}

static int compare_holders(const void *a, const void *b)
{
	const struct holder *x = a, *y = b;

	return compare_files(x->pid, x->fd, y->pid, y->fd);
}

static bool same_memory(const struct holder *a, const struct holder *b)
{
	return !compare_holders(a, b);
}

static int add(struct holders *h, const struct holder *one, struct ckf_error *err)
{
	if (ckf_array_grow(&h->list, h->nr, &h->cap, sizeof(*h->list)))
		return ckf_error_set(err, -ENOMEM, "no memory for a list of shared memory");
	h->list[h->nr++] = *one;
	return 0;
}

static void sort(struct holders *h)
{
	if (h->nr)
		qsort(h->list, h->nr, sizeof(*h->list), compare_holders);
}

/* What cannot be given back, whoever else is there. */
static int check_agent(const struct ckf_agent_call *agent, struct ckf_error *err)
{
	if (agent->imports)
		return ckf_error_set(
			err, -EBUSY,
			"process %d has memory of another one "
			"(cuMemImportFromShareableHandle) in a way that the driver cannot "
			"restore: have it give that up first",
			(int)agent->pid);
	if (agent->ipc)
		return ckf_error_set(
			err, -EBUSY,
			"process %d shares events, or memory below 2 MiB, by CUDA IPC, "
			"which the driver cannot restore: have it give them up first",
			(int)agent->pid);
	return 0;
}

static int add_process(struct holders *h, pid_t pid, bool inside, struct ckf_error *err)
{
	struct ckf_agent_share *shares;
	struct ckf_agent_call agent;
	uint32_t nr;
	int ret;

	/* Those who would take its memory say what is wrong with its agent. */
	if (ckf_agent_find(pid, &agent, NULL))
		return 0;
	ret = inside ? check_agent(&agent, err) : 0;
	if (!ret)
		ret = ckf_agent_read_shares(&agent, &shares, &nr, err);
	if (ret)
		return ret;
	for (uint32_t i = 0; shares && i < nr && !ret; i++) {
		const struct holder one = {
			.pid = pid,
			.process = pid,
			.fd = shares[i].fd,
			.import = shares[i].kind == CKF_AGENT_IMPORT,
			.inside = inside,
		};

		if (!shares[i].kind || one.fd < 0)
			continue;
		/* It is a descriptor if it is equal to itself. */
		if (same_memory(&one, &one))
			ret = add(h, &one, err);
		else if (errno != EBADF && errno != ESRCH)
			ret = ckf_error_set(err, -errno,
					    "cannot compare descriptors of process %d (kcmp): %s",
					    (int)pid, strerror(errno));
	}
	free(shares);
	return ret;
}

static bool is_inside(pid_t pid, const pid_t *pids, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		if (pids[i] == pid)
			return true;
	return false;
}

static int add_others(struct holders *h, const pid_t *pids, size_t nr, struct ckf_error *err)
{
	DIR *dir = opendir("/proc");
	struct dirent *de;
	int ret = 0;
	pid_t pid;

	if (!dir)
		return ckf_error_set(err, -errno, "cannot read /proc: %s", strerror(errno));
	while (!ret && (de = readdir(dir))) {
		pid = (pid_t)atoi(de->d_name);
		/* One that ends meanwhile shares nothing. */
		if (pid > 0 && !is_inside(pid, pids, nr))
			ret = add_process(h, pid, false, NULL) == -ENOMEM ? -ENOMEM : 0;
	}
	closedir(dir);
	return ret ? ckf_error_set(err, ret, "no memory for a list of shared memory") : 0;
}

/* Of nr descriptors of the same memory. */
static int check_group(struct holder *group, size_t nr, struct ckf_error *err)
{
	const struct holder *inside = NULL, *outside = NULL, *owner = NULL;

	for (size_t i = 0; i < nr; i++) {
		if (!group[i].inside)
			outside = &group[i];
		else if (!inside || group[i].import)
			inside = &group[i];
		if (!group[i].import)
			owner = &group[i];
	}
	if (inside && outside)
		return ckf_error_set(
			err, -EBUSY,
			"process %d shares device memory with process %d, whose memory "
			"is not taken: all that share it have to be dumped, or parked, "
			"together",
			(int)inside->process, (int)outside->process);
	if (inside && !owner)
		return ckf_error_set(err, -EBUSY,
				     "process %d has memory of another one, which has given it up, "
				     "has ended, or was not started by ckfast run",
				     (int)inside->process);
	return 0;
}

static int for_groups(struct holders *h,
		      int (*fn)(struct holder *group, size_t nr, struct ckf_error *err),
		      struct ckf_error *err)
{
	size_t nr;
	int ret = 0;

	sort(h);
	for (size_t i = 0; i < h->nr && !ret; i += nr) {
		for (nr = 1; i + nr < h->nr && same_memory(&h->list[i], &h->list[i + nr]); nr++)
			;
		ret = fn(&h->list[i], nr, err);
	}
	return ret;
}

/* The agent's own are in the list. */
static bool is_agents(const struct holders *h, pid_t pid, int fd)
{
	for (size_t i = 0; i < h->nr; i++)
		if (h->list[i].pid == pid && h->list[i].fd == fd)
			return true;
	return false;
}

/* The application's own descriptors: CRIU dumps none of device memory, and what a descriptor of it
 * keeps alive would be other memory than that of the restored processes. */
static int check_descriptors(const struct holders *h, pid_t pid, struct ckf_error *err)
{
	const struct holder *found;
	struct holder one = { .pid = pid };
	struct dirent *de;
	char path[64];
	int ret = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir && !ret && (de = readdir(dir))) {
		if (*de->d_name == '.')
			continue;
		one.fd = atoi(de->d_name);
		found = bsearch(&one, h->list, h->nr, sizeof(*h->list), compare_holders);
		if (found && found->inside && !is_agents(h, pid, one.fd))
			ret = ckf_error_set(err, -EBUSY,
					    "process %d holds descriptor %d of device memory that "
					    "process %d shares: have it close that",
					    (int)pid, one.fd, (int)found->process);
	}
	if (dir)
		closedir(dir);
	return ret;
}

int ckf_gpu_check_shared(const pid_t *pids, size_t nr, struct ckf_error *err)
{
	struct holders h = { 0 };
	int ret = 0;

	for (size_t i = 0; i < nr && !ret; i++)
		ret = add_process(&h, pids[i], true, err);
	if (!ret && h.nr)
		ret = add_others(&h, pids, nr, err);
	if (!ret)
		ret = for_groups(&h, check_group, err);
	for (size_t i = 0; i < nr && h.nr && !ret; i++)
		ret = check_descriptors(&h, pids[i], err);
	free(h.list);
	return ret;
}

/* One of them saves it: the exporter. What nobody else has is not shared. */
static int choose_owner(struct holder *group, size_t nr, struct ckf_error *err)
{
	uint8_t id[16];
	int ret = check_group(group, nr, err);

	if (ret)
		return ret;
	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		return ckf_error_set(err, -errno, "getrandom: %s", strerror(errno));
	for (size_t i = 0; i < nr; i++) {
		if (nr > 1)
			memcpy(group[i].mem->shared_id, id, sizeof(id));
		else
			group[i].mem->flags &= ~CKF_GPU_ALLOC_SHARED;
	}
	return 0;
}

int ckf_gpu_processes_share(struct ckf_gpu_process *const *list, size_t nr, struct ckf_error *err)
{
	struct holders h = { 0 };
	struct ckf_gpu_memory *mem;
	size_t nr_mem;
	int ret = 0;

	for (size_t i = 0; i < nr && !ret; i++) {
		mem = ckf_gpu_process_memory(list[i], &nr_mem);
		for (size_t k = 0; k < nr_mem && !ret; k++) {
			const struct holder one = {
				.pid = getpid(),
				.process = ckf_gpu_process_pid(list[i]),
				.fd = mem[k].fd,
				.import = mem[k].flags & CKF_GPU_ALLOC_IMPORT,
				.inside = true,
				.mem = &mem[k],
			};

			if (mem[k].flags & CKF_GPU_ALLOC_SHARED)
				ret = add(&h, &one, err);
		}
	}
	if (!ret)
		ret = for_groups(&h, choose_owner, err);
	free(h.list);
	return ret;
}
