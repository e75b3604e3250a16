/* SPDX-License-Identifier: MIT */
/*
 * Where pages lie in a pages file that CRIU has compressed (since 4.3).
 *
 * Such a file holds the entries of its pagemap one after the other. The pages of an entry are
 * plain, or are cut into blocks of block_pages pages, of which the last may be shorter. A block
 * is stored as one LZ4 block; or as it is, and then has the size of its pages; or, with size 0, not
 * at all, and is zeros. An entry may begin at the next multiple of a page.
 *
 * Pages have the numbers that they would have in a plain file. A packing is read-only once made.
 */
#ifndef CKF_CONVERT_PACKING_H
#define CKF_CONVERT_PACKING_H

#include "base/ckf_types.h"
#include "dedup.h"

#define CKF_PACKING_MAX_PAGES 1024u /* of a block: CRIU's limit is 4 MiB */

/* Pages that are stored alike, with nothing between them. */
struct ckf_packing_part {
	uint64_t page;	      /* the first */
	uint64_t off;	      /* in the file */
	uint64_t block;	      /* the first, in sizes */
	uint32_t block_pages; /* 0: plain pages */
};

struct ckf_packing {
	struct ckf_packing_part *parts;
	uint64_t nr_parts;
	uint64_t cap_parts;
	uint32_t *sizes; /* of all blocks, one after the other */
	uint64_t nr_blocks;
	uint64_t cap_blocks;
	uint64_t *marks; /* where every CKF_PACKING_STRIDEth block begins in the file */
	uint64_t nr_marks;
	uint64_t cap_marks;
	uint64_t nr_pages;
	uint64_t file_bytes;
	uint64_t min_bytes; /* less than file_bytes where nothing is stored behind a gap */
	uint32_t max_block_pages;
	bool packed; /* false: it is like a plain file */
};

#define CKF_PACKING_STRIDE 64u

/* NULL without memory. Free takes NULL. */
struct ckf_packing *ckf_packing_new(void);
void ckf_packing_free(struct ckf_packing *p);

/* An entry of the pagemap. Its blocks are checked: see ckf_packing_add(). */
struct ckf_packing_entry {
	uint64_t nr_pages;
	bool aligned;	      /* begins on a page of the file */
	uint32_t block_pages; /* 0: plain pages */
	const uint32_t *sizes;
	uint64_t nr_sizes; /* nr_pages / block_pages, rounded up; none is longer than its pages */
};

/* -ENOMEM, or -E2BIG when the file would have more than CKF_MAX_FILE_PAGES pages. */
int ckf_packing_add(struct ckf_packing *p, const struct ckf_packing_entry *e);

/* Stored pages: one block, or all plain pages of a part. */
struct ckf_packed {
	uint64_t page; /* the first */
	uint64_t nr_pages;
	uint64_t off;
	uint64_t bytes; /* in the file */
	bool plain;
	uint64_t part; /* where ckf_packing_next() goes on */
	uint64_t block;
};

/* What holds a page, which is below nr_pages. */
void ckf_packing_find(const struct ckf_packing *p, uint64_t page, struct ckf_packed *out);
/* What follows; false at the end. */
bool ckf_packing_next(const struct ckf_packing *p, struct ckf_packed *at);

/*
 * The packings of the pages files of a dump and its parents. One thread adds; any thread may look
 * up, and use what it finds until the table is freed.
 */
struct ckf_packings;
int ckf_packings_new(struct ckf_packings **out);
void ckf_packings_free(struct ckf_packings *t);
/*
 * Takes p, which may be NULL: the file is plain. -EEXIST when there was another packing for the
 * file, or p is one and the file is there already; -ENOMEM. p is freed in either case.
 */
int ckf_packings_add(struct ckf_packings *t, const struct ckf_origin *o, struct ckf_packing *p);
/* NULL: the file is plain. */
const struct ckf_packing *ckf_packings_find(struct ckf_packings *t, const struct ckf_origin *o);

#endif
