/* SPDX-License-Identifier: MIT */
/*
 * Checkpoint archives, as container engines export them: a tar archive with CRIU's images in its
 * directory checkpoint/, among other members, or at its root. SPEC.md 13 says what a fast one is
 * like. An archive may be a part of a file: a layer of an image in a layout (layout.h).
 *
 * Every byte is hostile. Nothing is unpacked: the images are read where they lie, and all other
 * members are copied as they are. Private to convert/, but for ckf_archive.h.
 */
#ifndef CKF_CONVERT_ARCHIVE_H
#define CKF_CONVERT_ARCHIVE_H

#include <sys/stat.h>

#include "ckf_archive.h"
#include "tar.h"

#define CKF_CHECKPOINT_DIR "checkpoint"
#define CKF_ARCHIVE_MAX_MEMBERS (1u << 20)

enum ckf_compression {
	CKF_COMPRESSION_NONE = 0,
	CKF_COMPRESSION_GZIP = 1,
	CKF_COMPRESSION_ZSTD = 2,
};

enum ckf_archive_kind {
	CKF_ARCHIVE_CHECKPOINT, /* images in checkpoint/ */
	CKF_ARCHIVE_ROOT,	/* images at the root, as containerd packs them */
	CKF_ARCHIVE_LAYOUT,	/* not a checkpoint itself: an OCI image layout */
};

/* A member of the archive, with its headers. */
struct ckf_archive_entry {
	uint64_t start;
	uint64_t data_off;
	uint64_t end;
	char *name; /* of a file of dir, there; else NULL */
};

struct ckf_archive {
	struct ckf_dir dir; /* the images; of a layout, all files, by their paths */
	struct ckf_members members;
	struct ckf_archive_entry *entries; /* all, in order */
	uint64_t nr_entries;
	uint64_t cap_entries;
	/* In dir.fd, not compressed: where it begins, where its last member ends, and its end. */
	uint64_t start;
	uint64_t members_end; /* blocks of zeros follow, mostly */
	uint64_t end;
	enum ckf_archive_kind kind;
	char *prefix; /* of the images, as the names of the archive spell it: "./checkpoint/", "" */
	uint32_t compression;
	int file_fd;	/* what was opened; dir.fd is the same, or what it became */
	struct stat st; /* of file_fd, when it was opened */
};

/* The names that say what a compression is: "gzip"; "" for none. */
const char *ckf_compression_name(uint32_t compression);

/*
 * What is compressed in a part of a file, by its first bytes; *plain_fd becomes an unnamed file
 * with the rest of it, in the directory tmp_dir, or -1 where nothing is compressed.
 */
int ckf_decompress(const struct ckf_file_part *in, const char *tmp_dir, uint32_t *compression,
		   int *plain_fd, struct ckf_error *err);

/* Where an archive gets written that is a part of a file; start is a multiple of the page size. */
struct ckf_layer_place {
	int fd;
	uint64_t start;
	uint64_t end; /* known when it is written */
};

/*
 * Opens the archive that a part of a file is, and reads its headers. tmp_dir: for what is in a
 * compressed one; NULL: it is not compressed. The part stays the caller's.
 */
int ckf_archive_open_part(const struct ckf_file_part *part, const char *tmp_dir,
			  struct ckf_archive **out, struct ckf_error *err);
/* The directory that the path lies in, to be freed; NULL: no memory. */
char *ckf_archive_dir_of(const char *path);

#endif
