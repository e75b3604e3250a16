/* SPDX-License-Identifier: MIT */
/*
 * A directory, or a file, that comes into being all at once: written under another name beside its
 * place, and renamed when it is complete and on stable storage. A directory is flat, with no
 * directories in it, or a tree, with blobs/sha256 in it and files in that one. Until then nobody
 * but its maker can enter it, and nobody else can open its files.
 */
#ifndef CKF_CONVERT_OUTPUT_H
#define CKF_CONVERT_OUTPUT_H

#include <stdbool.h>

#include "base/ckf_error.h"
#include "access.h"

/* A directory, or a file, that is replaced by what is made from it. */
struct ckf_in_place {
	const char *path; /* of it, or of a link to it */
	const char *mark; /* the file without which the directory is nothing */
	int dir_fd;	  /* of it; the caller's */
	struct stat st;	  /* as it was when ckf_in_place_init() was called */
};

struct ckf_output {
	int parent_fd;
	int dir_fd;	/* the directory being written, or -1 */
	int file_fd;	/* the file being written, or -1 */
	char *path;	/* where it will be */
	char *name;	/* the last part of path, in parent_fd */
	char temp[256]; /* what it is called until then */
	bool created;
	bool is_file;
	bool tree;
	bool replaces;	  /* something is there already */
	bool fills_empty; /* an empty directory is there already */
	bool exchanged;	  /* temp names what was there before */
	const char *mark;
	const char *old_mark;		     /* the same in what was there before */
	const struct ckf_in_place *in_place; /* NULL: it is not made from what it replaces */
	struct ckf_access dir;	  /* set by the caller: what the directory, or the file, gets */
	struct ckf_access memory; /* set by the caller: of those who may read pages of memory */
	bool own;		  /* an owner or a group could not be set */
};

/*
 * Makes the temporary directory for path. An empty directory may be there already, and with force
 * one with a file called mark and no directories in it; -EEXIST otherwise, -EBUSY for a mount
 * point.
 */
int ckf_output_open(struct ckf_output *o, const char *path, const char *mark, bool force,
		    struct ckf_error *err);

/* The same for a tree, which may replace another one: a directory with no others in it than those
 * of a tree, and nothing but regular files in the innermost. */
int ckf_output_open_tree(struct ckf_output *o, const char *path, const char *mark, bool force,
			 struct ckf_error *err);
/* The same for a file, o->file_fd; with force, another file may be there already. -EISDIR when path
 * is that of a directory. */
int ckf_output_open_file(struct ckf_output *o, const char *path, bool force, struct ckf_error *err);

/*
 * The same for a result that takes the place of the directory that it is made from. It gets the
 * owner, mode, extended attributes and time of that one, or is refused. The caller calls
 * ckf_in_place_init() before it reads the directory, and sees to it that the result holds all that
 * is in there. in must live until ckf_output_close(), with its dir_fd open.
 */
int ckf_in_place_init(struct ckf_in_place *in, const char *path, int dir_fd, const char *mark,
		      struct ckf_error *err);
int ckf_output_open_in_place(struct ckf_output *o, const struct ckf_in_place *in, const char *mark,
			     struct ckf_error *err);
/* And for a tree with the same mark, and for a file that is made from the one that it replaces,
 * in->dir_fd. */
int ckf_output_open_tree_in_place(struct ckf_output *o, const struct ckf_in_place *in,
				  struct ckf_error *err);
int ckf_output_open_file_in_place(struct ckf_output *o, const struct ckf_in_place *in,
				  struct ckf_error *err);

/*
 * In place: what is in the directory gets into the result as it is, as a link to the same file, but
 * for the names that is_replaced answers for. -EOPNOTSUPP for a directory.
 */
int ckf_output_keep_others(struct ckf_output *o, bool (*is_replaced)(void *arg, const char *name),
			   void *arg, struct ckf_error *err);

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
 * All files are written: the directory is complete and on stable storage after this. last_from, if
 * not NULL, is a file that is renamed to last_to at the end: without it the directory is nothing,
 * whatever it is called.
 */
int ckf_output_seal(struct ckf_output *o, const char *last_from, const char *last_to,
		    struct ckf_error *err);

/*
 * Gives the sealed directory its name. What was there before is removed by ckf_output_close().
 * -EAGAIN when files came to or went from a directory that is replaced in place, or when another
 * one is there now.
 */
int ckf_output_commit(struct ckf_output *o, struct ckf_error *err);

/*
 * Removes what was not put into its place, or what was there before, and closes. Any number of
 * times after ckf_output_open(), which has done it already when it failed. warn, which may be NULL,
 * is told of what was there before and cannot be removed.
 */
void ckf_output_close(struct ckf_output *o, void (*warn)(void *arg, const char *msg), void *arg);

#endif
