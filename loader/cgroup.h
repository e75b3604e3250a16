/* SPDX-License-Identifier: MIT */
/* Finding the cgroup of a process, in version 1 and 2, and reading its files. */
#ifndef CKF_CGROUP_H
#define CKF_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All of a file, ended by a zero byte and malloc()ed; NULL if it cannot be read. */
char *cgroup_read_text(int dir_fd, const char *name);

/* A file with one number; "max" is not one. */
bool cgroup_read_number(int dir_fd, const char *name, uint64_t *out);

/*
 * The least of here() over the cgroup whose directory is dir_fd and each of those above it, since a
 * limit holds for all below. The caller keeps dir_fd.
 */
uint64_t cgroup_least(int dir_fd, uint64_t (*here)(int dir_fd, void *arg), void *arg);

/*
 * The path of a process's cgroup from the root of the controller's hierarchy: 0, or -ENOENT,
 * -ENAMETOOLONG. proc_fd is a directory such as /proc/self. *unified: of version 2.
 */
int cgroup_path(int proc_fd, const char *controller, char *path, size_t path_bytes, bool *unified);

/*
 * cgroup_least() for the cgroup of a process, found by the mounts that it sees. UINT64_MAX where it
 * cannot be found.
 */
uint64_t cgroup_least_self(int proc_fd, const char *controller,
			   uint64_t (*here)(int dir_fd, void *arg), void *arg);

#endif
