/* SPDX-License-Identifier: MIT */
/* The entries of a dump directory, and copies of its files. Private to convert/. */
#ifndef CKF_CONVERT_FILES_H
#define CKF_CONVERT_FILES_H

#include <sys/stat.h>

#include "../loader/ckf_image.h"
#include "ckf_convert.h"
#include "output.h"

/*
 * The entries, as an image will name them: sorted, names and link targets owned by the list. All
 * regular files are CKF_FILE_VERBATIM, without checksum, until the caller knows better.
 */
struct ckf_file_list {
	struct ckf_file *files;
	uint64_t nr_files;
};

/* -EOPNOTSUPP for entries that a dump cannot have: directories, devices, names of our own. */
int ckf_file_list_read(int dir_fd, struct ckf_file_list *out, struct ckf_error *err);
void ckf_file_list_free(struct ckf_file_list *l);
/* Position of a name, or -1. */
int64_t ckf_file_list_find(const struct ckf_file_list *l, const char *name);

/* True when the file is still the one that f was made from. */
bool ckf_file_unchanged(const struct ckf_file *f, const struct stat *st);

/*
 * Copies all of src_fd to dst_fd and says the checksum. -EBADMSG when it has not exactly want_bytes
 * bytes, -EINTR on opts->stop. name is for messages.
 */
struct ckf_copy {
	int src_fd;
	int dst_fd;
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
/* Copies a verbatim file of an image and checks it. The fd of the copy, or -errno. */
int ckf_copy_verbatim(const struct ckf_image *img, const struct ckf_output *o,
		      const struct ckf_file *f, const struct ckf_convert_opts *opts,
		      struct ckf_error *err);
/* The mode that a verbatim file has in an image; then fsync() and close(). */
int ckf_finish_image_file(int fd, const struct ckf_file *f, struct ckf_error *err);

/*
 * Writes the index, under a name that the commit of the output replaces, and the pack header; sets
 * the length of the pack.
 */
#define CKF_IDX_PARTIAL_NAME CKF_IDX_NAME ".partial"
int ckf_write_index(const struct ckf_output *o, struct ckf_index *idx, int pack_fd,
		    uint64_t *idx_bytes, struct ckf_error *err);

/* Checks the size of an options struct and fills in the defaults of one that is NULL. */
int ckf_opts_get(const struct ckf_convert_opts *user, struct ckf_convert_opts *out,
		 struct ckf_error *err);

#endif
