/* SPDX-License-Identifier: MIT */
/*
 * Chunks that were stored before: found by a key of their contents, and where in the dump their
 * bytes can be read again, so that a match is never believed without comparing.
 *
 * One thread adds; any thread may look up where a chunk came from.
 */
#ifndef CKF_CONVERT_DEDUP_H
#define CKF_CONVERT_DEDUP_H

#include "base/ckf_types.h"

#define CKF_DEDUP_NONE UINT32_MAX

enum ckf_origin_kind {
	CKF_ORIGIN_PAGES,  /* pages-N.img */
	CKF_ORIGIN_GPU,	   /* ckfast-gpu-pages-N.img */
	CKF_ORIGIN_AMD,	   /* amdgpu-pages-ID-GPU.img */
	CKF_ORIGIN_RENDER, /* amdgpu-drm-pages-ID-MINOR-N.img */
	CKF_ORIGIN_BYTES,  /* pages-N.img as it is, if it is compressed */
};

/*
 * A pages file in the dump directory (level 0) or in a parent of it. pages_id is N or, for an AMD
 * GPU, the position of its table in the dump times CKF_AMD_MAX_GPUS plus its own in the table; for
 * an object of a render node, its position among those of all tables.
 */
struct ckf_origin {
	uint32_t level;
	uint32_t pages_id;
	enum ckf_origin_kind kind;
};

#define CKF_MAX_FILE_PAGES ((1ull << 48) - 1)

/* Pages that follow each other in a pages file. */
struct ckf_extent {
	uint64_t page : 48; /* from the start of the file */
	uint64_t nr_pages : 16;
};

struct ckf_dedup;

/* -ENOMEM. Free takes NULL. */
int ckf_dedup_new(struct ckf_dedup **out);
void ckf_dedup_free(struct ckf_dedup *d);

/* The record with this key, or CKF_DEDUP_NONE. */
uint32_t ckf_dedup_find(const struct ckf_dedup *d, uint64_t key);

/*
 * Adds a record for a key that is not there yet. Its chunk number is not known until
 * ckf_dedup_set_chunk(). The record's number, CKF_DEDUP_NONE when there is room for no more (the
 * chunk is then just not found again), or -ENOMEM.
 */
int64_t ckf_dedup_add(struct ckf_dedup *d, uint64_t key, const struct ckf_origin *origin,
		      const struct ckf_extent *extents, uint32_t nr_extents);

void ckf_dedup_set_chunk(struct ckf_dedup *d, uint32_t rec, uint32_t chunk);
uint32_t ckf_dedup_chunk(const struct ckf_dedup *d, uint32_t rec);

/* Copies the place of a record. extents has room for max; the number there are, or -E2BIG. */
int ckf_dedup_origin(struct ckf_dedup *d, uint32_t rec, struct ckf_origin *origin,
		     struct ckf_extent *extents, uint32_t max);

#endif
