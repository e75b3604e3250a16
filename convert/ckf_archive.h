/* SPDX-License-Identifier: MIT */
/* Checkpoint archives, and the layouts of images that hold some, to look into. */
#ifndef CKF_ARCHIVE_H
#define CKF_ARCHIVE_H

#include <stdbool.h>

#include "base/ckf_dir.h"
#include "base/ckf_error.h"

struct ckf_archive;

/* True for the path of a regular file: all that ckfast takes for archives. */
bool ckf_archive_probe(const char *path);

/*
 * Opens an archive and reads its headers. One that is compressed becomes an unnamed file as long as
 * it is open, in the directory of the path beside (NULL: of the archive itself). -EBADMSG,
 * -EOPNOTSUPP, -E2BIG, -ENOMEM and others. Close takes NULL.
 */
int ckf_archive_open(const char *path, const char *beside, struct ckf_archive **out,
		     struct ckf_error *err);
void ckf_archive_close(struct ckf_archive *a);

/* True for the path of an archive, or of a directory that is an OCI image layout. */
bool ckf_checkpoint_probe(const char *path);
/*
 * Opens the archive there, as ckf_archive_open() does, or the only checkpoint of a layout, whose
 * digests have to be right. -EINVAL where a layout has several: each of its blobs is an archive.
 */
int ckf_checkpoint_open(const char *path, struct ckf_archive **out, struct ckf_error *err);

/* The images, valid until the archive is closed. */
const struct ckf_dir *ckf_archive_dir(const struct ckf_archive *a);
/* True when they are those of a fast image. */
bool ckf_archive_is_fast(const struct ckf_archive *a);

#endif
