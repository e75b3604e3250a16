/* SPDX-License-Identifier: MIT */
/*
 * From a lane of the plan to pieces, for host and device memory alike: each op is cut where the
 * dests of the caller begin and end, and what has to be read is sorted by its place in the pack.
 * Private to the loader.
 */
#ifndef CKF_LANE_H
#define CKF_LANE_H

#include "ckf_image.h"

/* A range of the target's addresses that goes to one place. */
struct lane_dest {
	uint64_t start;
	uint64_t end; /* exclusive */
	uint64_t
		cut_bytes; /* no piece crosses a multiple of this, counted from start; 0: any may */
	uint32_t group;	   /* pieces of a lower group come first */
};

/* Part of an op that lies in one dest. */
struct lane_part {
	const struct ckf_op *op;
	uint32_t dest;
	uint64_t addr;
	uint64_t bytes;
};

/* Pages of one chunk that go to addr and on. */
struct lane_piece {
	uint64_t addr;
	uint32_t dest;
	uint32_t group; /* of the dest */
	uint32_t chunk;
	uint16_t first_page; /* of the chunk */
	uint16_t nr_pages;
};

/* The same for all workers of a fill, which change nothing of it. */
struct lane_planner {
	const struct ckf_image *img;
	const struct ckf_target *target;
	struct lane_dest *dests; /* sorted, not overlapping */
	size_t nr_dests;
	const char *nowhere; /* where an op lies that no dest takes, for the message */
	/* Asked of each part, with the arg of lane_load(): 1: it becomes a piece; 0: it is seen to,
	 * or nothing is to be done; or -errno. */
	int (*take)(void *arg, const struct lane_part *part, struct ckf_error *err);
};

/* The pieces of one lane, sorted by group, chunk and page, handed out from pos on. Zeroed to begin
 * with; its owner frees pieces. */
struct lane {
	struct lane_piece *pieces;
	size_t nr_pieces;
	size_t max_pieces;
	size_t pos;
};

/* Replaces what lane has by the pieces of l. */
int lane_load(const struct lane_planner *pl, const struct ckf_lane *l, struct lane *lane, void *arg,
	      struct ckf_error *err);

/* The position of the dest that has addr; nr_dests: none. */
size_t lane_find_dest(const struct lane_dest *dests, size_t nr_dests, uint64_t addr);

#endif
