/* SPDX-License-Identifier: MIT */
/*
 * The choice of a codec per chunk.
 *
 * Chunks are placed on page borders: what counts is the stored size rounded up to pages, and a
 * codec that does not save a page costs time and gives nothing.
 */
#include <string.h>

#include "ckf_convert.h"
#include "encode.h"

/* Of 100 bytes, what a codec may leave for "auto" to take it. LZ4 decodes several times faster. */
#define AUTO_LZ4_PERCENT 80
#define AUTO_ZSTD_PERCENT 70
/* A sample that gets no smaller than this says that the chunk will not either. */
#define SAMPLE_PERCENT 75

static size_t percent_pages(size_t bytes, unsigned int percent)
{
	return bytes * percent / 100 / CKF_PAGE_BYTES * CKF_PAGE_BYTES;
}

/*
 * True when zstd is worth trying: LZ4 found no repeats, but the bytes may still be far from evenly
 * distributed. Some pages from all over the chunk stand for it.
 */
static bool sample_shrinks(struct ckf_worker *w, const uint8_t *data, uint32_t nr_pages)
{
	const size_t bytes = CKF_ENCODE_SAMPLE_PAGES * CKF_PAGE_BYTES;
	uint8_t *sample = w->scratch;
	uint8_t *out = w->scratch + bytes;
	uint32_t step = nr_pages / CKF_ENCODE_SAMPLE_PAGES;

	if (step < 2)
		return true;
	for (uint32_t i = 0; i < CKF_ENCODE_SAMPLE_PAGES; i++)
		memcpy(sample + i * CKF_PAGE_BYTES, data + (size_t)i * step * CKF_PAGE_BYTES,
		       CKF_PAGE_BYTES);
	return ckf_encode(w->codec, CKF_CODEC_ZSTD, 1, sample, bytes, out,
			  bytes * SAMPLE_PERCENT / 100) > 0;
}

static int64_t encode_auto(struct ckf_worker *w, const uint8_t *data, uint32_t nr_pages,
			   uint8_t *codec)
{
	size_t bytes = (size_t)nr_pages * CKF_PAGE_BYTES;
	size_t room = percent_pages(bytes, AUTO_LZ4_PERCENT);
	int64_t n = 0;

	*codec = CKF_CODEC_LZ4;
	if (room)
		n = ckf_encode(w->codec, *codec, 0, data, bytes, w->scratch, room);
	room = percent_pages(bytes, AUTO_ZSTD_PERCENT);
	if (n || !room || !sample_shrinks(w, data, nr_pages))
		return n;
	*codec = CKF_CODEC_ZSTD;
	return ckf_encode(w->codec, *codec, 1, data, bytes, w->scratch, room);
}

int ckf_encode_chunk(struct ckf_worker *w, const struct ckf_encode_opts *opts, uint8_t *data,
		     uint32_t nr_pages, struct ckf_encoded *out)
{
	size_t bytes = (size_t)nr_pages * CKF_PAGE_BYTES;
	int64_t n = 0;
	size_t stored;

	if (opts->codec == CKF_CODEC_AUTO) {
		n = encode_auto(w, data, nr_pages, &out->codec);
	} else if (opts->codec != CKF_CODEC_RAW && nr_pages > 1) {
		out->codec = (uint8_t)opts->codec;
		n = ckf_encode(w->codec, out->codec, opts->level, data, bytes, w->scratch,
			       bytes - CKF_PAGE_BYTES);
	}
	if (n < 0)
		return (int)n;
	if (!n) {
		out->codec = CKF_CODEC_RAW;
		out->stored_bytes = (uint32_t)bytes;
		return 0;
	}
	stored = (size_t)n;
	memcpy(data, w->scratch, stored);
	memset(data + stored, 0, ckf_align_up(stored, CKF_PAGE_BYTES) - stored);
	out->stored_bytes = (uint32_t)stored;
	return 0;
}
