/* SPDX-License-Identifier: MIT */
/*
 * The cheap look at a chunk that says whether it is made of floats: how unevenly are the bytes
 * distributed, as they are and in planes of words of 2 and of 4 bytes? Weights have few different
 * exponents, and a plane of these takes about 2.6 bits of 8.
 *
 * In integers, so that every machine comes to the same result.
 */
#include <string.h>

#include "ckf_planes.h"

#define RUN_BYTES 128u
#define NR_RUNS 64u
#define SAMPLE_BYTES (RUN_BYTES * NR_RUNS)
/* A plane that takes more bits than this for each byte is not worth coding. */
#define PLANE_MAX_BITS (CKF_PLANES_BITS(15) / 2)
/* By how much words of 4 bytes must be better than those of 2, which the sample has more of. */
#define WIDE_BITS (CKF_PLANES_BITS(1) / 8)

/* log2(n) in 1/256, for n from 1. Between powers of two a parabola is off by less than 3/256. */
static uint32_t log2_256(uint32_t n)
{
	uint32_t k = 31 - (uint32_t)__builtin_clz(n);
	uint32_t f = (uint32_t)(((uint64_t)n << 8 >> k) & 255);

	return k * 256 + f + (f * (256 - f) * 88 >> 16);
}

/* The entropy of the bytes at p, in 1/256 bit for each: at most 8 bits. */
static uint32_t entropy(const uint8_t *p, uint32_t bytes)
{
	uint32_t counts[4][256] = { 0 };
	uint64_t sum = 0;
	uint32_t mean;

	/* Four tables: equal bytes in a row would wait for each other. */
	for (uint32_t i = 0; i < bytes; i += 4) {
		counts[0][p[i]]++;
		counts[1][p[i + 1]]++;
		counts[2][p[i + 2]]++;
		counts[3][p[i + 3]]++;
	}
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t n = counts[0][i] + counts[1][i] + counts[2][i] + counts[3][i];

		if (n)
			sum += (uint64_t)n * log2_256(n);
	}
	mean = (uint32_t)(sum / bytes);
	return log2_256(bytes) > mean ? log2_256(bytes) - mean : 0;
}

static uint32_t look_at_planes(const uint8_t *sample, uint32_t word_bytes,
			       uint32_t plane_bits[CKF_PLANES_MAX])
{
	const uint32_t nr_words = SAMPLE_BYTES / word_bytes;
	uint8_t buf[SAMPLE_BYTES];
	uint8_t *planes[CKF_PLANES_MAX] = { NULL };
	uint32_t sum = 0;

	for (uint32_t p = 0; p < word_bytes; p++)
		planes[p] = buf + p * nr_words;
	ckf_planes_best()->split(word_bytes, sample, nr_words, planes);
	for (uint32_t p = 0; p < word_bytes; p++) {
		plane_bits[p] = entropy(planes[p], nr_words);
		if (plane_bits[p] > PLANE_MAX_BITS)
			plane_bits[p] = CKF_PLANES_BITS(8);
		sum += plane_bits[p];
	}
	return sum / word_bytes;
}

void ckf_planes_look(const uint8_t *src, size_t bytes, struct ckf_planes_guess *out)
{
	uint32_t plane_bits[CKF_PLANES_MAX];
	uint8_t sample[SAMPLE_BYTES];
	size_t step = bytes / NR_RUNS;
	uint32_t bits;

	/* Of one page, each run is a part of it and the sample has it more than once. */
	step -= step % CKF_PLANES_MAX;
	for (uint32_t i = 0; i < NR_RUNS; i++) {
		size_t off = i * step;

		if (off > bytes - RUN_BYTES)
			off = bytes - RUN_BYTES;
		memcpy(sample + i * RUN_BYTES, src + off, RUN_BYTES);
	}
	out->byte_bits = entropy(sample, SAMPLE_BYTES);
	out->word_bytes = 2;
	out->bits = look_at_planes(sample, 2, out->plane_bits);
	bits = look_at_planes(sample, 4, plane_bits);
	if (bits + WIDE_BITS < out->bits) {
		out->word_bytes = 4;
		out->bits = bits;
		memcpy(out->plane_bits, plane_bits, sizeof(plane_bits));
	}
}
