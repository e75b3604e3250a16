/* SPDX-License-Identifier: MIT */
/* Reads pages of a dump. Any number of threads, each with its own place and buffer. */
#ifndef CKF_CONVERT_SOURCE_H
#define CKF_CONVERT_SOURCE_H

#include "stream.h"

#define CKF_PLACE_EXTENTS 512u

/* Where the pages of a block or of an earlier chunk are. */
struct ckf_place {
	struct ckf_origin origin;
	struct ckf_extent extents[CKF_PLACE_EXTENTS];
	uint32_t nr;
};

/* The extents of the next nr_pages pages; what lies together in the file is one. */
uint32_t ckf_cursor_extents(struct ckf_cursor *cur, uint32_t nr_pages, struct ckf_extent *x);

int ckf_place_read(const struct ckf_chain *chain, const struct ckf_place *at, uint8_t *dst,
		   struct ckf_error *err);

/* The error of a read that failed. Returns ret. */
int ckf_origin_read_error(const struct ckf_chain *chain, const struct ckf_origin *o, int ret,
			  uint64_t off, struct ckf_error *err);

#endif
