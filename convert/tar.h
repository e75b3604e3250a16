/* SPDX-License-Identifier: MIT */
/*
 * Tar archives, member by member: ustar, pax and GNU headers, as POSIX.1-2001 (pax, ustar) and the
 * manual of GNU tar (basic format) describe them. Every byte is hostile. What two programs could
 * take for different members is refused. Private to convert/.
 */
#ifndef CKF_CONVERT_TAR_H
#define CKF_CONVERT_TAR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/ckf_error.h"

#define CKF_TAR_BLOCK 512u
/* Extended headers of one member: no more is read into memory. */
#define CKF_TAR_MAX_EXTENDED_BYTES (1u << 20)
#define CKF_TAR_GLOBAL 'g' /* a pax header for all that follows: a member of its own here */
#define CKF_TAR_FILE '0'
#define CKF_TAR_HARDLINK '1'
#define CKF_TAR_DIR '5'

struct ckf_tar_entry {
	uint64_t start;	   /* of the first of its headers */
	uint64_t data_off; /* of its bytes */
	uint64_t bytes;
	uint64_t end; /* behind its padding */
	/*
	 * Components with one slash between them; "" is the root of the archive. Never absolute,
	 * never with "." or "..". Those of the pax header, else of the GNU one, else of the header.
	 */
	char *name;
	char *raw_name; /* as it is */
	char *link;	/* as it is, for a hard link without "." components; or NULL */
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	uint32_t mode;
	uint32_t uid;
	uint32_t gid;
	char type; /* CKF_TAR_FILE for each way to say that; '\0' never */
	bool sparse;
};

struct ckf_tar {
	int fd;
	uint64_t bytes; /* of the archive */
	uint64_t off;	/* of the next header; at the end: of what ends the archive */
};

/*
 * 1 with the next member, 0 at the end, -EBADMSG, -EOPNOTSUPP, -E2BIG, -ENOMEM or -errno. The
 * caller frees the entry with ckf_tar_entry_fini(), which takes a zeroed one.
 */
int ckf_tar_next(struct ckf_tar *t, struct ckf_tar_entry *e, struct ckf_error *err);
void ckf_tar_entry_fini(struct ckf_tar_entry *e);

/* True when the block is a header, by its checksum. */
bool ckf_tar_is_header(const void *block);

/*
 * Makes the headers of a regular file, such that they end at a multiple of align in an archive that
 * they begin at off of: a pax header with a comment fills what is missing. 0, -E2BIG for a name
 * that is too long. *headers is of *bytes, to be freed.
 */
struct ckf_tar_file {
	const char *name;
	uint64_t bytes;
	int64_t mtime_sec;
	uint32_t mode;
	uint32_t uid;
	uint32_t gid;
};
int ckf_tar_make_headers(const struct ckf_tar_file *f, uint64_t off, uint32_t align, void **headers,
			 size_t *bytes);

#endif
