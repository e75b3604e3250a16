/* SPDX-License-Identifier: MIT */
/*
 * Checkpoint archives, as container engines export them: a tar archive with the directory
 * checkpoint/ of CRIU's images among other members. SPEC.md 13 says what a fast one is like.
 *
 * Every byte is hostile. Nothing is unpacked: the files of checkpoint/ are read where they lie, and
 * all other members are copied as they are. Private to convert/, but for ckf_archive.h.
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

/* A member of the archive, with its headers. */
struct ckf_archive_entry {
	uint64_t start;
	uint64_t data_off;
	uint64_t end;
	char *name; /* of a file that lies in checkpoint/ itself, there; else NULL */
};

struct ckf_archive {
	struct ckf_dir dir; /* the files of checkpoint/ */
	struct ckf_members members;
	struct ckf_archive_entry *entries; /* all, in order */
	uint64_t nr_entries;
	uint64_t cap_entries;
	uint64_t end_off; /* behind the last member: blocks of zeros, mostly */
	uint64_t bytes;	  /* of the archive, not compressed */
	char *prefix;	  /* "checkpoint/" as the names of the archive spell it */
	uint32_t compression;
	int file_fd;	/* what was opened; dir.fd is the same, or what it became */
	struct stat st; /* of file_fd, when it was opened */
};

/* The names that say what a compression is: "gzip"; "" for none. */
const char *ckf_compression_name(uint32_t compression);

/*
 * What is compressed in fd, by its first bytes; *plain_fd becomes an unnamed file with the rest of
 * it, in the directory tmp_dir, or -1 where nothing is compressed.
 */
int ckf_decompress(int fd, const char *tmp_dir, uint32_t *compression, int *plain_fd,
		   struct ckf_error *err);

#endif
