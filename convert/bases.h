/* SPDX-License-Identifier: MIT */
/*
 * The chunks of other fast images, which a conversion need not store again. Private to convert/.
 *
 * What is looked up in them may be looked up by any thread; all else belongs to the thread that
 * opened them. Memory: 28 bytes for each chunk of the bases.
 */
#ifndef CKF_CONVERT_BASES_H
#define CKF_CONVERT_BASES_H

#include "cut.h"
#include "output.h"
#include "worker.h"
#include "format/ckf_index.h"

struct ckf_bases;

/*
 * Opens the images in the directories given, and those that they have as bases. Free takes NULL.
 * What ckf_image_open() returns, or -E2BIG.
 */
int ckf_bases_open(const char *const *dirs, size_t nr_dirs, struct ckf_bases **out,
		   struct ckf_error *err);
void ckf_bases_free(struct ckf_bases *b);

/* -EINVAL when the image to be made would replace one of them, or be in it. */
int ckf_bases_check_outside(const struct ckf_bases *b, const struct ckf_output *out,
			    struct ckf_error *err);

/*
 * Looks for a chunk that has these nr_pages pages, whose XXH3-64 is checksum, and compares all
 * bytes of it. Its position, -ENOENT when there is none, or -errno.
 */
int64_t ckf_bases_find(const struct ckf_bases *b, const struct ckf_chunk *want, const void *data,
		       struct ckf_worker *w, struct ckf_error *err);

/* The chunk at a position; its base is a number that only ckf_bases_list() gives meaning to. */
const struct ckf_chunk *ckf_bases_chunk(const struct ckf_bases *b, uint64_t at);
/* The number that this chunk has got in the image being made; CKF_BASES_NONE to begin with. */
uint32_t *ckf_bases_number(const struct ckf_bases *b, uint64_t at);
#define CKF_BASES_NONE UINT32_MAX

/*
 * All chunks are known, those of bases last and sorted: lists the bases that they lie in, as seen
 * from the image at path fast, and numbers them anew. The paths stay those of b.
 */
int ckf_bases_list(struct ckf_bases *b, struct ckf_index *idx, const char *fast,
		   struct ckf_error *err);

#endif
