/* SPDX-License-Identifier: MIT */
/*
 * A directory that comes into being all at once: written under another name beside its place, and
 * renamed when it is complete and on stable storage. Flat: no directories in it. Until then nobody
 * but its maker can enter it, and nobody else can open its files.
 */
#ifndef CKF_CONVERT_OUTPUT_H
#define CKF_CONVERT_OUTPUT_H

#include <stdbool.h>

#include "base/ckf_error.h"
#include "access.h"

struct ckf_output {
	int parent_fd;
	int dir_fd;	/* the directory being written */
	char *name;	/* where it will be, in parent_fd */
	char temp[256]; /* what it is called until then */
	bool created;
	bool replaces;	/* something is there already */
	bool exchanged; /* temp names what was there before */
	const char *mark;
	struct ckf_access dir;	  /* set by the caller: what the directory gets */
	struct ckf_access memory; /* set by the caller: of those who may read pages of memory */
	bool own;		  /* an owner or a group could not be set */
};

/*
 * Makes the temporary directory for path. What may be there already with force is an empty
 * directory, or one with a file called mark and no directories in it; -EEXIST otherwise.
 */
int ckf_output_open(struct ckf_output *o, const char *path, const char *mark, bool force,
		    struct ckf_error *err);

/* -EINVAL when the result would be the directory dir_fd, or be in it. */
int ckf_output_check_outside(const struct ckf_output *o, int dir_fd, struct ckf_error *err);

/* Creates a file for writing in the directory. An fd or -errno. */
int ckf_output_create(const struct ckf_output *o, const char *name, struct ckf_error *err);

/* fsync() and close(). */
int ckf_output_finish_file(int fd, const char *name, struct ckf_error *err);

/* Sets owner, group and mode, before ckf_output_finish_file(): see ckf_access_set(). */
int ckf_output_set_access(struct ckf_output *o, int fd, const char *name,
			  const struct ckf_access *a, struct ckf_error *err);
/* Takes what the directory gets from the source directory dir_fd. */
int ckf_output_like_dir(struct ckf_output *o, int dir_fd, struct ckf_error *err);

/*
 * Puts the directory into its place: its name is given once it is complete. last_from, if not NULL,
 * is a file that is renamed to last_to right before: without it the directory is nothing, whatever
 * it is called. What was there before is removed.
 */
int ckf_output_commit(struct ckf_output *o, const char *last_from, const char *last_to,
		      struct ckf_error *err);

/*
 * Removes what was not put into its place, or what was there before, and closes. Any number of
 * times after ckf_output_open(), which has done it already when it failed. warn, which may be NULL,
 * is told of what was there before and cannot be removed.
 */
void ckf_output_close(struct ckf_output *o, void (*warn)(void *arg, const char *msg), void *arg);

#endif
