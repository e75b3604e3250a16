/* SPDX-License-Identifier: MIT */
/*
 * How much memory the limits of memory cgroups leave, so that a fill can do with little where there
 * is little: see CKF_FILL_FRUGAL. Versions 1 and 2 of cgroups, also both at once.
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

/* The memory that all tasks of an image together need, their page tables included. */
uint64_t ckf_room_needed(const struct ckf_image *img);

/* What the workers take for themselves when all targets are filled at once: each has one, and they
 * have so many more together. */
uint64_t ckf_room_for_workers(const struct ckf_image *img, unsigned int threads);

#endif
