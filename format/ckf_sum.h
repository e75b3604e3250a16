/* SPDX-License-Identifier: MIT */
/* XXH3-64 of contents that come piece by piece, of pages, and keys of chunks. */
#ifndef CKF_SUM_H
#define CKF_SUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ckf_sum;

/* NULL without memory; ckf_sum_free() takes NULL. */
struct ckf_sum *ckf_sum_new(void);
void ckf_sum_free(struct ckf_sum *s);
void ckf_sum_reset(struct ckf_sum *s);
void ckf_sum_update(struct ckf_sum *s, const void *p, size_t bytes);
uint64_t ckf_sum_value(const struct ckf_sum *s);

void ckf_hash_pages(const void *pages, uint64_t nr_pages, uint64_t *hashes);
/* Goes on with hashes, as the checksum of a pages file does: SPEC.md 4.4. */
void ckf_sum_hashes(struct ckf_sum *s, const uint64_t *hashes, uint64_t nr);
/* Goes on with the hashes of pages where these are wanted, with the pages themselves where not. */
void ckf_sum_pages(struct ckf_sum *s, bool page_sums, const uint64_t *hashes, const void *pages,
		   uint64_t nr);

/*
 * The key under which a chunk is looked for, from the hashes of its pages. Verbatim chunks have
 * keys of their own: they are always stored raw, and others may not be.
 */
uint64_t ckf_sum_key(const uint64_t *page_hashes, uint32_t nr_pages, int verbatim);

#endif
