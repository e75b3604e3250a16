/* SPDX-License-Identifier: MIT */
/*
 * Where chunks end: decided by the contents of the pages alone, one page at a time.
 *
 * The same pages give the same chunks whatever lies before them, from the first end on that they
 * share. Pure; a cutter belongs to one thread.
 */
#ifndef CKF_CONVERT_CUT_H
#define CKF_CONVERT_CUT_H

#include "base/ckf_types.h"

#define CKF_CUT_MIN_PAGES 8   /* a chunk with data does not end before, unless it must */
#define CKF_CUT_MAX_PAGES 256 /* max_chunk_pages of the images written here */
#define CKF_CUT_MASK 7	      /* ends after one page of 8 on average */
#define CKF_CUT_ZERO_PAGES 8  /* this many zero pages are cut out as a zero chunk */

struct ckf_cut_piece {
	uint16_t nr_pages;
	bool zero;
};

struct ckf_cut {
	uint32_t data;	/* pages of the open chunk, without the zero pages at its end */
	uint32_t zeros; /* zero pages that follow them and belong to nothing yet */
	bool in_zeros;	/* in a run of at least CKF_CUT_ZERO_PAGES zero pages */
};

void ckf_cut_init(struct ckf_cut *c);

/*
 * Takes the next page, with its XXH3-64 (any value when zero). Returns the number of chunks that
 * are complete with it, 0 or 1, each following the one returned before without a gap.
 */
unsigned int ckf_cut_page(struct ckf_cut *c, uint64_t hash, bool zero, struct ckf_cut_piece *out);

/* Ends the open chunk here: the last page, or a border that no chunk may cross. 0 to 2 chunks. */
unsigned int ckf_cut_flush(struct ckf_cut *c, struct ckf_cut_piece out[2]);

/* Pages that were taken and are in no chunk yet; below CKF_CUT_MAX_PAGES. */
static inline uint32_t ckf_cut_pending(const struct ckf_cut *c)
{
	return c->data + c->zeros;
}

#endif
