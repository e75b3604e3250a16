/* SPDX-License-Identifier: MIT */
/*
 * How much memory, and how many threads, the limits of cgroups leave, so that a fill can do with
 * little where there is little: see CKF_FILL_FRUGAL. Versions 1 and 2 of cgroups, also both at
 * once.
 */
#ifndef CKF_ROOM_H
#define CKF_ROOM_H

#include "ckf_image.h"

#define CKF_ROOM_UNLIMITED UINT64_MAX

/*
 * What the cgroup whose directory is dir_fd, and each of those above it, may still charge before it
 * is at its limit: the least of them, or CKF_ROOM_UNLIMITED. The page cache counts as room, since
 * the kernel gives it up first. The caller keeps dir_fd.
 */
uint64_t ckf_room_of_dir(int dir_fd);

/*
 * The path of the memory cgroup of a process from the root of its hierarchy: 0, or -ENOENT,
 * -ENAMETOOLONG. proc_fd is a directory such as /proc/self. *unified: of version 2.
 */
int ckf_room_path(int proc_fd, char *path, size_t path_bytes, bool *unified);

/* The room of that process, by the mounts that it sees. Unlimited, too, where it cannot be found
 * out. */
uint64_t ckf_room_self(int proc_fd);

/* The same two for the threads that the limits of pids cgroups leave. */
uint64_t ckf_room_pids_of_dir(int dir_fd);
uint64_t ckf_room_pids_self(int proc_fd);

/* The memory that all tasks of an image together need, their page tables included. */
uint64_t ckf_room_needed(const struct ckf_image *img);

/* What the fills of an image may take, all of its tasks together. */
struct ckf_budget {
	unsigned int workers; /* at least 1; a task that finds none left fills by itself */
	bool frugal;	      /* memory is short: CKF_FILL_FRUGAL */
	uint64_t want_bytes;  /* of room, for all workers that have something to do */
};

/*
 * All workers where there is room for those that have something to do, else as many as there is
 * room for, and a frugal fill where there is room for none. room_bytes: of ckf_room_self() or
 * ckf_room_of_dir(), before the first fill. asked: workers that the user wants, or 0: by the CPUs,
 * of which there are cpus. taken_bytes: what the caller itself takes beside the tasks' memory.
 */
struct ckf_budget ckf_room_budget(const struct ckf_image *img, uint64_t room_bytes,
				  uint64_t taken_bytes, unsigned int asked, unsigned int cpus);

#endif
