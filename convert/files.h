/* SPDX-License-Identifier: MIT */
/* The entries of a dump directory, and copies of its files. Private to convert/. */
#ifndef CKF_CONVERT_FILES_H
#define CKF_CONVERT_FILES_H

#include <errno.h>
#include <sys/stat.h>

#include "loader/ckf_image.h"
#include "ckfast.h"
#include "output.h"

/* An entry that is not in the image as it is in the dump. */
struct ckf_odd_entry {
	char *name;
	mode_t type; /* S_IFLNK: what the link leads to is in the image; others are left out */
};

/*
 * The entries, as an image will name them: sorted, names and link targets owned by the list. All
 * regular files are CKF_FILE_VERBATIM, without checksum, until the caller knows better.
 */
struct ckf_file_list {
	struct ckf_file *files;
	uint64_t nr_files;
	uint64_t cap;		   /* of files */
	struct ckf_odd_entry *odd; /* sorted by name */
	uint64_t nr_odd;
	uint64_t cap_odd;
	uint64_t nr_left_out;
	uint64_t nr_stale; /* of these, what an older dump or image has left: of no use */
	bool has_own;	   /* there are files that a fast image has: they are left out, too */
};

/*
 * Lists the directory as CRIU sees it: an image that is a symbolic link is what the link leads to.
 * What no image can hold is left out: directories, sockets, FIFOs, devices, names of our own.
 */
int ckf_file_list_read(const struct ckf_dir *dir, struct ckf_file_list *out, struct ckf_error *err);
void ckf_file_list_free(struct ckf_file_list *l);
/*
 * Tells of each odd entry. Apart from the reading: a dump that is refused for one of them says so
 * in one line.
 */
void ckf_file_list_warn(const struct ckf_file_list *l, const struct ckf_convert_opts *opts);
/*
 * -EOPNOTSUPP when an image is no file: CRIU would fail where it is, and do as if there were
 * nothing to restore where it is left out. Pagemaps and pages files are for their readers to
 * refuse, since an older dump may have left some.
 */
int ckf_file_list_check(const struct ckf_file_list *l, struct ckf_error *err);
/* True for an entry that was left out because it is no file. */
bool ckf_file_list_has_odd(const struct ckf_file_list *l, const char *name);
/* Leaves out the files that is_stale() is true of. */
void ckf_file_list_drop_stale(struct ckf_file_list *l,
			      bool (*is_stale)(const void *arg, const char *name), const void *arg);
/* Position of a name, or -1. */
int64_t ckf_file_list_find(const struct ckf_file_list *l, const char *name);

/* Owner, group and mode of a file of a list or an index. */
static inline struct ckf_access ckf_file_access(const struct ckf_file *f)
{
	return (struct ckf_access){ .uid = f->uid, .gid = f->gid, .mode = f->mode, .known = true };
}

/* Tells the user of something that is no error. */
void ckf_warn(const struct ckf_convert_opts *opts, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* True when the file is still the one that f was made from. */
bool ckf_file_unchanged(const struct ckf_file *f, const struct stat *st);

/*
 * Copies all of src to dst_fd and says the checksum. -EBADMSG when it has not exactly want_bytes
 * bytes, -EINTR on opts->stop. name is for messages.
 */
struct ckf_copy {
	struct ckf_file_part src;
	int dst_fd; /* -1: only the checksum is wanted */
	const char *name;
	uint64_t want_bytes;
};
int ckf_copy_file(const struct ckf_copy *c, const struct ckf_convert_opts *opts, uint64_t *checksum,
		  struct ckf_error *err);

/* Opens the image at path fast, with the bases that opts names. */
int ckf_open_source(const char *fast, const struct ckf_convert_opts *opts, struct ckf_image **img,
		    struct ckf_error *err);
/* -EINVAL when the result would replace the image or one of its bases, or be in it. */
int ckf_check_outside(const struct ckf_image *img, const struct ckf_output *o,
		      struct ckf_error *err);
/* -EBADMSG unless got is the checksum of the file. */
int ckf_check_sum(const struct ckf_image *img, const struct ckf_file *f, uint64_t got,
		  struct ckf_error *err);
/*
 * Copies a verbatim file of an image and checks it. The fd of the copy, or -errno. One that CRIU
 * does not read is copied as it is now, or is left out if it is gone: CKF_LEFT_OUT, no error. A
 * warning tells of either.
 */
#define CKF_LEFT_OUT (-ENODATA)
int ckf_copy_verbatim(const struct ckf_image *img, const struct ckf_output *o,
		      const struct ckf_file *f, const struct ckf_convert_opts *opts,
		      struct ckf_error *err);
/* Owner and mode that a verbatim file has in an image; then fsync() and close(). */
int ckf_finish_image_file(struct ckf_output *o, int fd, const struct ckf_file *f,
			  struct ckf_error *err);
/* The same for the pack, or the index: only who may read all of the memory may read these. */
int ckf_finish_memory_file(struct ckf_output *o, int fd, const char *name, struct ckf_error *err);
/*
 * The end of an output: where ret is 0 it gets its name, and a warning if files are the caller's
 * own which belonged to others; else nothing is left of it. Returns ret, or why it could not get
 * its name.
 */
int ckf_finish_output(struct ckf_output *o, int ret, const struct ckf_convert_opts *opts,
		      struct ckf_error *err);

/*
 * Writes the index, under a name that the commit of the output replaces, and the pack header; sets
 * the length of the pack.
 */
#define CKF_IDX_PARTIAL_NAME CKF_IDX_NAME ".partial"
int ckf_write_index(struct ckf_output *o, struct ckf_index *idx, int pack_fd, uint64_t *idx_bytes,
		    struct ckf_error *err);

/* files.c: the second part of ckf_write_index(): the header of a pack that begins at start. */
int ckf_finish_pack(int pack_fd, uint64_t start, const struct ckf_index *idx,
		    struct ckf_error *err);

/* In the directory of an archive's image: what ckfast extract needs to make the archive again. */
#define CKF_REMOVED_NAME "ckfast.removed"
/* True for names of files that an image has, and a dump not. */
bool ckf_is_own_name(const char *name);

/* readme.c: what is in CKF_README_NAME. */
extern const char ckf_readme_text[];
/* True unless the dump has a file of that name itself. */
bool ckf_wants_readme(const struct ckf_index *idx);
/* Writes CKF_README_NAME, but for a dump that has a file of that name itself. */
int ckf_write_readme(struct ckf_output *o, const struct ckf_index *idx, struct ckf_error *err);

/* Checks the size of an options struct and fills in the defaults of one that is NULL. */
int ckf_opts_get(const struct ckf_convert_opts *user, struct ckf_convert_opts *out,
		 struct ckf_error *err);

#endif
