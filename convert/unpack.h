/* SPDX-License-Identifier: MIT */
/* Reads pages of a compressed pages file. One thread for each struct. */
#ifndef CKF_CONVERT_UNPACK_H
#define CKF_CONVERT_UNPACK_H

#include "base/ckf_dir.h"
#include "base/ckf_error.h"
#include "packing.h"

struct ckf_unpack {
	const struct ckf_packing *packing;
	struct ckf_file_part file;
	const char *name; /* of the file, for messages */
	uint8_t *stored;  /* a part of the file */
	uint8_t *block;	  /* one that only a part is wanted of, decoded */
	uint64_t page;	  /* its first; UINT64_MAX: none */
};

/* Nothing is allocated before it is needed. The file stays the caller's. */
void ckf_unpack_init(struct ckf_unpack *u, const struct ckf_packing *p,
		     const struct ckf_file_part *file, const char *name);
void ckf_unpack_fini(struct ckf_unpack *u);

/*
 * Reads nr_pages pages from page on. -EBADMSG when a block does not decode to exactly its pages, or
 * the file or the packing ends before.
 */
int ckf_unpack_read(struct ckf_unpack *u, uint64_t page, uint64_t nr_pages, uint8_t *dst,
		    struct ckf_error *err);

#endif
