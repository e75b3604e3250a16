/* SPDX-License-Identifier: MIT */
/*
 * Planes with AVX2. Only called where the CPU has it: nothing else in the program is compiled for
 * it. Of the time that it takes to decode weights, three quarters go into the Huffman codes, so
 * that wider registers have little left to gain.
 */
#ifdef __x86_64__

#include <immintrin.h>

#include "ckf_planes.h"

#define AVX2 __attribute__((target("avx2")))

static inline AVX2 __m256i load(const uint8_t *p)
{
	return _mm256_loadu_si256((const void *)p);
}

static inline AVX2 void store(uint8_t *p, __m256i v)
{
	_mm256_storeu_si256((void *)p, v);
}

/* Packing works in halves of the register: this puts the quarters into their order. */
static inline AVX2 __m256i pack16(__m256i a, __m256i b)
{
	return _mm256_permute4x64_epi64(_mm256_packus_epi16(a, b), 0xd8);
}

static inline AVX2 __m256i rotl16(__m256i v)
{
	return _mm256_or_si256(_mm256_slli_epi16(v, 1), _mm256_srli_epi16(v, 15));
}

static inline AVX2 __m256i rotr16(__m256i v)
{
	return _mm256_or_si256(_mm256_srli_epi16(v, 1), _mm256_slli_epi16(v, 15));
}

static inline AVX2 __m256i rotl32(__m256i v)
{
	return _mm256_or_si256(_mm256_slli_epi32(v, 1), _mm256_srli_epi32(v, 31));
}

static inline AVX2 __m256i rotr32(__m256i v)
{
	return _mm256_or_si256(_mm256_srli_epi32(v, 1), _mm256_slli_epi32(v, 31));
}

static AVX2 void split2(const uint8_t *src, size_t nr_words, uint8_t *const planes[])
{
	const __m256i low = _mm256_set1_epi16(0xff);

	for (size_t i = 0; i < nr_words; i += 32) {
		__m256i a = rotl16(load(src + 2 * i));
		__m256i b = rotl16(load(src + 2 * i + 32));

		store(planes[0] + i, pack16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8)));
		store(planes[1] + i, pack16(_mm256_and_si256(a, low), _mm256_and_si256(b, low)));
	}
}

static AVX2 void merge2(const uint8_t *const planes[], size_t nr_words, uint8_t *dst)
{
	for (size_t i = 0; i < nr_words; i += 32) {
		__m256i high = load(planes[0] + i);
		__m256i low = load(planes[1] + i);
		__m256i a = rotr16(_mm256_unpacklo_epi8(low, high));
		__m256i b = rotr16(_mm256_unpackhi_epi8(low, high));

		store(dst + 2 * i, _mm256_permute2x128_si256(a, b, 0x20));
		store(dst + 2 * i + 32, _mm256_permute2x128_si256(a, b, 0x31));
	}
}

/* 32 words, as 16-bit halves in their order: the upper ones, or the lower ones. */
static inline AVX2 __m256i upper16(__m256i a, __m256i b)
{
	a = _mm256_packus_epi32(_mm256_srli_epi32(a, 16), _mm256_srli_epi32(b, 16));
	return _mm256_permute4x64_epi64(a, 0xd8);
}

static inline AVX2 __m256i lower16(__m256i a, __m256i b)
{
	const __m256i low = _mm256_set1_epi32(0xffff);

	a = _mm256_packus_epi32(_mm256_and_si256(a, low), _mm256_and_si256(b, low));
	return _mm256_permute4x64_epi64(a, 0xd8);
}

static AVX2 void split4(const uint8_t *src, size_t nr_words, uint8_t *const planes[])
{
	const __m256i low = _mm256_set1_epi16(0xff);

	for (size_t i = 0; i < nr_words; i += 32) {
		__m256i w[4], a, b;

		for (size_t j = 0; j < 4; j++)
			w[j] = rotl32(load(src + 4 * i + 32 * j));
		a = upper16(w[0], w[1]);
		b = upper16(w[2], w[3]);
		store(planes[0] + i, pack16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8)));
		store(planes[1] + i, pack16(_mm256_and_si256(a, low), _mm256_and_si256(b, low)));
		a = lower16(w[0], w[1]);
		b = lower16(w[2], w[3]);
		store(planes[2] + i, pack16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8)));
		store(planes[3] + i, pack16(_mm256_and_si256(a, low), _mm256_and_si256(b, low)));
	}
}

static AVX2 void merge4(const uint8_t *const planes[], size_t nr_words, uint8_t *dst)
{
	for (size_t i = 0; i < nr_words; i += 32) {
		__m256i p0 = load(planes[0] + i), p1 = load(planes[1] + i);
		__m256i p2 = load(planes[2] + i), p3 = load(planes[3] + i);
		__m256i up_a = _mm256_unpacklo_epi8(p1, p0), up_b = _mm256_unpackhi_epi8(p1, p0);
		__m256i low_a = _mm256_unpacklo_epi8(p3, p2), low_b = _mm256_unpackhi_epi8(p3, p2);
		/* Words 0-3 and 16-19, 4-7 and 20-23, 8-11 and 24-27, 12-15 and 28-31. */
		__m256i a = rotr32(_mm256_unpacklo_epi16(low_a, up_a));
		__m256i b = rotr32(_mm256_unpackhi_epi16(low_a, up_a));
		__m256i c = rotr32(_mm256_unpacklo_epi16(low_b, up_b));
		__m256i d = rotr32(_mm256_unpackhi_epi16(low_b, up_b));

		store(dst + 4 * i, _mm256_permute2x128_si256(a, b, 0x20));
		store(dst + 4 * i + 32, _mm256_permute2x128_si256(c, d, 0x20));
		store(dst + 4 * i + 64, _mm256_permute2x128_si256(a, b, 0x31));
		store(dst + 4 * i + 96, _mm256_permute2x128_si256(c, d, 0x31));
	}
}

static void avx2_split(uint32_t word_bytes, const uint8_t *src, size_t nr_words,
		       uint8_t *const planes[CKF_PLANES_MAX])
{
	if (word_bytes == 2)
		split2(src, nr_words, planes);
	else
		split4(src, nr_words, planes);
}

static void avx2_merge(uint32_t word_bytes, const uint8_t *const planes[CKF_PLANES_MAX],
		       size_t nr_words, uint8_t *dst)
{
	if (word_bytes == 2)
		merge2(planes, nr_words, dst);
	else
		merge4(planes, nr_words, dst);
}

const struct ckf_planes_ops ckf_planes_avx2 = {
	.name = "avx2",
	.split = avx2_split,
	.merge = avx2_merge,
};

#endif
