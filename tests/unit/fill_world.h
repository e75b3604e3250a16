/* SPDX-License-Identifier: MIT */
/*
 * What tests of ckf_fill() work on: an image in a directory of its own, and a model of the memory
 * that it is to make.
 *
 *	world_make(&w, seed, dense, false, CKF_TARGET_TASK);
 *	area = world_map_area();
 *	world_fill(&w, &dest, 1, flags, threads, &stats, &err);
 *	world_assert_area(&w, area, 0);
 *	world_fini(&w);
 */
#ifndef CKF_TEST_FILL_WORLD_H
#define CKF_TEST_FILL_WORLD_H

#include "loader/ckf_image.h"
#include "img_builder.h"

#define WORLD_BASE 0x40000000ull /* a multiple of 2 MiB */
#define WORLD_PAGES 4096	 /* 16 MiB: several lanes, several huge pages */
#define WORLD_BYTES (WORLD_PAGES * (uint64_t)CKF_PAGE_BYTES)
#define WORLD_LANE_OPS 4
#define WORLD_BACKGROUND 0xa5 /* in memory that the fill must leave alone */

struct world {
	char dir[64];
	int dir_fd;
	int base_fd; /* a base of half the chunks; -1: all are in the image itself */
	struct img_builder b;
	struct ckf_image *img;
	char *model;   /* what the area must hold; the background where the plan has nothing */
	char *covered; /* per page: 1 when an op covers it */
	uint64_t seed;
};

/* Never all zero. */
void world_random_pages(uint64_t *seed, char *p, unsigned int nr, bool compressible);

/* Begins without targets; ops are added by world_put(), whose pages are those of the whole chunk or
 * NULL for zeros; then the image is written and opened. based: with a base. */
void world_begin(struct world *w, uint64_t seed);
void world_put(struct world *w, uint64_t page, uint32_t chunk, uint16_t first, uint16_t nr,
	       const char *pages, uint32_t flags);
void world_end(struct world *w, bool based);

/* All of it, with one target and a random plan. dense: no holes, so that the area may be huge. */
void world_make(struct world *w, uint64_t seed, bool dense, bool based, uint32_t kind);
void world_init(struct world *w, uint64_t seed, bool dense);
void world_fini(struct world *w);

/* Private memory of WORLD_BYTES, at a multiple of 2 MiB. */
char *world_map_area(void);

/* The first target. */
int world_fill(struct world *w, const struct ckf_dest *dests, size_t nr, uint32_t flags,
	       unsigned int threads, struct ckf_fill_stats *stats, struct ckf_error *err);

/*
 * The pages that the plan has data for are there, zeros too or not, and no other is. To be asked
 * before the pages are looked at.
 */
void world_assert_resident(const struct world *w, char *area, bool zeros);

/* Compares the area with the model; uncovered pages must hold background. */
void world_assert_area(struct world *w, const char *area, int background);

#endif
