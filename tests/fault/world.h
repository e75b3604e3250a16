/* SPDX-License-Identifier: MIT */
/* What the ops work on: tiny images and dumps, and what is known of them. */
#ifndef CKF_TEST_FAULT_WORLD_H
#define CKF_TEST_FAULT_WORLD_H

#include "ckfast_needs.h"
#include "convert/ckf_dump.h"
#include "loader/ckf_image.h"
#include "fault.h"

/*
 * The area that the plan of the image fills: two huge pages, each in a dest of its own, then small
 * ones, those that a parent has, and those that are only checked.
 */
#define AREA_BASE 0x40000000ull
#define AREA_SMALL 1024
#define AREA_SHARED 1080
#define AREA_CHECK 1088
#define AREA_PAGES 1104
#define AREA_BYTES (AREA_PAGES * (uint64_t)CKF_PAGE_BYTES)

struct world {
	char base[64];

	/* load.c: the image in base/image */
	int image_fd;
	struct ckf_image *image;
	uint8_t *model; /* what the area must have */
	char *area;	/* what is filled, in map */
	void *map;
	size_t map_bytes;
	struct ckf_image *opened;

	/* convert.c: base/dump, its parent base/pre, and the image that is made of it */
	char dump[128];
	char fast[128];
	char out[128]; /* where results go, a directory with nothing else in it */
	uint64_t dump_sum;
	uint64_t fast_sum;
	/* The same on top of fast: in base/based, as it is in out, and without its base. */
	char based[128];
	uint64_t based_sum;
	uint64_t flat_sum;
	struct ckf_dump *read;
	struct ckf_dump *read_ref;
	struct ckf_needs *needs;
	struct ckf_needs_info needs_ref;

	/* archive.c: a compressed archive and a fast one, and what out has with their results */
	char archives[128];
	uint64_t archives_sum;
	uint64_t archive_fast_sum;
	uint64_t archive_back_sum;
	uint64_t layout_fast_sum; /* likewise of layouts with such an archive */
	uint64_t layout_back_sum;
	char place_fast[128]; /* the image of a dump that is converted in place */
	uint64_t place_fast_sum;
	uint64_t place_dump_sum;
};

void load_init(struct world *w);
void load_fini(struct world *w);
void convert_init(struct world *w);
void convert_fini(struct world *w);
void archive_init(struct world *w); /* after convert_init() */
void sink_init(struct world *w);    /* after load_init() */
void sink_fini(void);

/* Ends the program: the world cannot be made. */
void need(bool ok, const char *what);

#define SUM_TIMES (1u << 0) /* times count, too */
/*
 * A number that stands for a flat directory: names, kinds, owners, modes, contents. 0 when there is
 * none or something in it cannot be read.
 */
uint64_t dir_sum(const char *path, unsigned int flags);
long dir_entries(const char *path);

#endif
