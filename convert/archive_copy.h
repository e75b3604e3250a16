/* SPDX-License-Identifier: MIT */
/* Archives that are made of another one, from the first byte to the last. Private to convert/. */
#ifndef CKF_CONVERT_ARCHIVE_COPY_H
#define CKF_CONVERT_ARCHIVE_COPY_H

#include "ckfast.h"
#include "archive.h"
#include "output.h"

struct ckf_archive_copy {
	const struct ckf_archive *from;
	const struct ckf_convert_opts *opts;
	struct ckf_error *err;
	uint8_t *buf;
	int fd;
	uint64_t off; /* where fd is written next */
};

/* All stay the caller's. 0 or -ENOMEM. */
int ckf_archive_copy_init(struct ckf_archive_copy *w, const struct ckf_archive *from, int fd,
			  const struct ckf_convert_opts *opts, struct ckf_error *err);
void ckf_archive_copy_fini(struct ckf_archive_copy *w);

/* A part of the other archive, as it is. -EINTR on opts->stop. */
int ckf_archive_copy_range(struct ckf_archive_copy *w, uint64_t start, uint64_t end);
int ckf_archive_copy_write(struct ckf_archive_copy *w, const void *p, size_t bytes);
/* The headers of a new file in checkpoint/, whose bytes begin at a multiple of align. */
int ckf_archive_copy_headers(struct ckf_archive_copy *w, const char *name, uint64_t bytes,
			     const struct ckf_access *access, uint32_t align);
/* All of a new file. */
int ckf_archive_copy_file(struct ckf_archive_copy *w, const char *name, const void *p, size_t bytes,
			  const struct ckf_access *access);

int ckf_archive_read(const struct ckf_archive *a, uint64_t off, void *buf, size_t bytes,
		     struct ckf_error *err);
/* -EBADMSG when the archive is not as it was when it was opened. */
int ckf_archive_check_unchanged(const struct ckf_archive *a, struct ckf_error *err);
/* Opens the archive to be made: at path, or in place where that is NULL; owner and mode as of a. */
int ckf_archive_open_output(struct ckf_output *o, const struct ckf_archive *a,
			    const struct ckf_in_place *in, const char *path, bool force,
			    struct ckf_error *err);

#endif
