/* SPDX-License-Identifier: MIT */
/* Whether a codec is worth trying on a chunk: prefilter.h says what for. */
#include <string.h>

#include "format/ckf_planes.h"
#include "encode_scratch.h"
#include "prefilter.h"

/* A sample that gets no smaller than this says that the chunk will not either. */
#define SAMPLE_PERCENT 75
#define SAMPLE_PAGES 4u
/* By how many bits for each byte planes must be better for a chunk to look like floats. */
#define FLOAT_BITS (CKF_PLANES_BITS(1) / 4)

static bool looks_like_floats(const uint8_t *data, uint32_t nr_pages)
{
	struct ckf_planes_guess g;

	ckf_planes_look(data, (size_t)nr_pages * CKF_PAGE_BYTES, &g);
	return g.bits + FLOAT_BITS <= g.byte_bits;
}

/*
 * True when zstd is worth trying: the bytes may be far from evenly distributed even where LZ4 finds
 * no repeats. Some pages from all over the chunk stand for it.
 */
static bool sample_shrinks(struct ckf_worker *w, const uint8_t *data, uint32_t nr_pages)
{
	const size_t bytes = SAMPLE_PAGES * CKF_PAGE_BYTES;
	uint8_t *sample = w->scratch + CKF_SCRATCH_SAMPLE_OFF;
	uint8_t *out = sample + bytes;
	uint32_t step = nr_pages / SAMPLE_PAGES;

	if (step < 2)
		return true;
	for (uint32_t i = 0; i < SAMPLE_PAGES; i++)
		memcpy(sample + i * CKF_PAGE_BYTES, data + (size_t)i * step * CKF_PAGE_BYTES,
		       CKF_PAGE_BYTES);
	/* Where it cannot be found out, the data itself is tried. */
	return ckf_encode(w->codec, CKF_CODEC_ZSTD, 1, sample, bytes, out,
			  bytes * SAMPLE_PERCENT / 100) != 0;
}

bool ckf_prefilter_rejects(struct ckf_worker *w, uint32_t codec, const uint8_t *data,
			   uint32_t nr_pages)
{
	if (codec == CKF_CODEC_BF16)
		return !looks_like_floats(data, nr_pages);
	return codec == CKF_CODEC_ZSTD && !sample_shrinks(w, data, nr_pages);
}
