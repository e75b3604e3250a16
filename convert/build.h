/* SPDX-License-Identifier: MIT */
/*
 * The tables of an index while they grow, chunk by chunk, in the order of the source.
 *
 * Until ckf_build_finish(), numbers are those of the order in which chunks come, and zero chunks
 * have stand-ins: SPEC.md wants them first and in order of length, and those of bases last and
 * sorted, and which there are is known only at the end. Pure; one thread.
 */
#ifndef CKF_CONVERT_BUILD_H
#define CKF_CONVERT_BUILD_H

#include "format/ckf_index.h"
#include "cut.h"
#include "stream.h"

/* The contents of one pages file, known once all its chunks are. */
struct ckf_build_pages {
	uint64_t first_ref; /* in refs, in the order of the source */
	uint64_t nr_refs;
	uint64_t size_bytes;
	uint64_t checksum;
};

struct ckf_build {
	uint32_t extent_bytes;
	uint64_t pack_bytes; /* so far; whole pages only after ckf_build_finish() */
	bool last_raw;	     /* the last chunk in the pack is */
	struct ckf_chunk *chunks;
	uint64_t nr_chunks;
	uint64_t cap_chunks;
	uint32_t *refs;
	uint64_t nr_refs;
	uint64_t cap_refs;
	struct ckf_op *ops;
	uint64_t nr_ops;
	uint64_t cap_ops;
	struct ckf_target *targets;    /* one per pagemap, in the same order */
	struct ckf_build_pages *pages; /* likewise */
	uint64_t nr_targets;
	uint64_t zero_bytes;
	uint64_t dup_bytes;
	uint64_t base_bytes;
	uint64_t stored_bytes;
	uint64_t done_bytes;
	bool zero_used[CKF_CUT_MAX_PAGES + 1]; /* by number of pages */
};

int ckf_build_init(struct ckf_build *b, uint32_t extent_bytes, uint64_t nr_targets,
		   struct ckf_error *err);
void ckf_build_fini(struct ckf_build *b);

/*
 * Says that the ops and refs that follow are those of a target (a pagemap and its pages file). The
 * refs may come later than the ops, but either come together.
 */
void ckf_build_begin(struct ckf_build *b, uint64_t target);

/* The number of a zero chunk of nr_pages. */
uint32_t ckf_build_zero(struct ckf_build *b, uint16_t nr_pages);

/* Where a chunk goes in a pack whose chunks so far end at end: SPEC.md 4.2, rule 3. */
uint64_t ckf_build_place(uint64_t end, uint32_t extent_bytes, const struct ckf_chunk *c);

/* A chunk that is to be stored. The caller fills in the chunk but for its place. */
struct ckf_new_chunk {
	struct ckf_chunk chunk;
	uint32_t number; /* set with the place */
	uint32_t tag;	 /* the caller's */
};

/*
 * Gives the chunks of a block of pages, in the order of its contents, their numbers and places in
 * the pack, and brings them into the order of these. 0 or -errno.
 */
int ckf_build_chunks(struct ckf_build *b, struct ckf_new_chunk *fresh, uint32_t nr,
		     struct ckf_error *err);

/*
 * Gives a chunk that lies in the pack of a base its number; c->base has an order and no meaning
 * yet. The number, or -errno.
 */
int64_t ckf_build_base_chunk(struct ckf_build *b, const struct ckf_chunk *c, struct ckf_error *err);

/* The next nr_pages pages of the cursor's stream are the whole of that chunk. */
int ckf_build_use(struct ckf_build *b, struct ckf_cursor *cur, uint32_t chunk, uint16_t nr_pages,
		  struct ckf_error *err);

/*
 * All streams are done: gives zero chunks and those of bases their numbers and brings each target's
 * ops into the order of addresses. refs stay in the order of the source; ckf_build_order_refs()
 * arranges them for the pages files in the order given, and sets first_ref anew.
 */
int ckf_build_finish(struct ckf_build *b, struct ckf_error *err);
int ckf_build_order_refs(struct ckf_build *b, const uint64_t *order, uint64_t nr,
			 struct ckf_error *err);

#endif
