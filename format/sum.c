/* SPDX-License-Identifier: MIT */
/* xxHash is compiled into this file: only so may its state be placed by its user. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stdlib.h>

#include "ckf_codec.h"
#include "ckf_sum.h"
#include "hash.h"

struct ckf_sum {
	XXH3_state_t state;
};

struct ckf_sum *ckf_sum_new(void)
{
	struct ckf_sum *s = aligned_alloc(64, sizeof(*s));

	if (s)
		ckf_sum_reset(s);
	return s;
}

void ckf_sum_free(struct ckf_sum *s)
{
	free(s);
}

void ckf_sum_reset(struct ckf_sum *s)
{
	XXH3_64bits_reset(&s->state);
}

void ckf_sum_update(struct ckf_sum *s, const void *p, size_t bytes)
{
	if (ckf_hash_has_avx2())
		ckf_hash_avx2_update(&s->state, p, bytes);
	else
		XXH3_64bits_update(&s->state, p, bytes);
}

uint64_t ckf_sum_value(const struct ckf_sum *s)
{
	return XXH3_64bits_digest(&s->state);
}

void ckf_hash_pages(const void *pages, uint64_t nr_pages, uint64_t *hashes)
{
	const char *p = pages;

	for (uint64_t i = 0; i < nr_pages; i++)
		hashes[i] = ckf_hash64(p + i * CKF_PAGE_BYTES, CKF_PAGE_BYTES);
}

void ckf_sum_hashes(struct ckf_sum *s, const uint64_t *hashes, uint64_t nr)
{
	ckf_le64 part[64];
	size_t n;

	for (; nr; nr -= n, hashes += n) {
		n = nr < 64 ? (size_t)nr : 64;
		for (size_t i = 0; i < n; i++)
			part[i] = ckf_put64(hashes[i]);
		ckf_sum_update(s, part, n * sizeof(part[0]));
	}
}

void ckf_sum_pages(struct ckf_sum *s, bool page_sums, const uint64_t *hashes, const void *pages,
		   uint64_t nr)
{
	if (page_sums)
		ckf_sum_hashes(s, hashes, nr);
	else
		ckf_sum_update(s, pages, (size_t)ckf_pages_to_bytes(nr));
}

uint64_t ckf_sum_key(const uint64_t *page_hashes, uint32_t nr_pages, int verbatim)
{
	return XXH3_64bits_withSeed(page_hashes, nr_pages * sizeof(*page_hashes), verbatim ? 1 : 0);
}
