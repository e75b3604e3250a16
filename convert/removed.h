/* SPDX-License-Identifier: MIT */
/*
 * CKF_REMOVED_NAME, in the checkpoint/ of a fast archive: the members that the archive has lost to
 * the pack, without their pages. With it, ckfast extract makes the archive again. SPEC.md 13.
 * Private to convert/.
 */
#ifndef CKF_CONVERT_REMOVED_H
#define CKF_CONVERT_REMOVED_H

#include <assert.h>
#include <stddef.h>

#include "base/ckf_dir.h"
#include "base/ckf_error.h"
#include "base/ckf_types.h"

#define CKF_REMOVED_MAGIC "CKFREMOV"
#define CKF_REMOVED_VERSION 1
/* More is refused: headers of some 10000 members. */
#define CKF_REMOVED_MAX_BYTES (64u << 20)

struct ckf_disk_removed_header {
	char magic[8];
	ckf_le32 version;
	ckf_le32 compression; /* of the archive: enum ckf_compression */
	ckf_le32 nr;	      /* members */
	ckf_le32 reserved;    /* 0 */
	ckf_le64 checksum;    /* XXH3-64 of all that follows */
};
static_assert(sizeof(struct ckf_disk_removed_header) == 32, "SPEC.md 13");
static_assert(offsetof(struct ckf_disk_removed_header, checksum) == 24, "SPEC.md 13");

/* Its name, head and tail follow each member. */
struct ckf_disk_removed {
	ckf_le64 before;     /* members that are still there and came before it */
	ckf_le32 name_bytes; /* of the pages file */
	ckf_le32 head_bytes; /* the headers of the member */
	ckf_le32 tail_bytes; /* what follows its pages: a part of a page, padding */
	ckf_le32 reserved;   /* 0 */
};
static_assert(sizeof(struct ckf_disk_removed) == 24, "SPEC.md 13");
static_assert(offsetof(struct ckf_disk_removed, head_bytes) == 12, "SPEC.md 13");

struct ckf_removed {
	uint64_t before;
	char *name;
	void *head;
	void *tail;
	uint32_t head_bytes;
	uint32_t tail_bytes;
};

struct ckf_removed_list {
	struct ckf_removed *v; /* ascending by before */
	uint64_t nr;
	uint64_t cap;
	uint32_t compression;
};

/* Adds a member: its strings and bytes are the list's then. 0 or -ENOMEM. */
int ckf_removed_add(struct ckf_removed_list *l, const struct ckf_removed *r);
void ckf_removed_fini(struct ckf_removed_list *l);

/* *buf is to be freed. 0, -ENOMEM or -E2BIG. */
int ckf_removed_encode(const struct ckf_removed_list *l, void **buf, size_t *bytes);
/* Reads and checks the file, whose bytes are hostile. -EBADMSG, -EOPNOTSUPP, -E2BIG, -ENOMEM. */
int ckf_removed_read(const struct ckf_file_part *part, struct ckf_removed_list *l,
		     struct ckf_error *err);

#endif
