/* SPDX-License-Identifier: MIT */
/* Planes without any special instructions, and the choice of the way to make them. */
#include "ckf_planes.h"

static void split2(const uint8_t *src, size_t nr_words, uint8_t *const planes[])
{
	for (size_t i = 0; i < nr_words; i++) {
		uint32_t v = (uint32_t)src[2 * i] | (uint32_t)src[2 * i + 1] << 8;

		v = v << 1 | v >> 15;
		planes[0][i] = (uint8_t)(v >> 8);
		planes[1][i] = (uint8_t)v;
	}
}

static void merge2(const uint8_t *const planes[], size_t nr_words, uint8_t *dst)
{
	for (size_t i = 0; i < nr_words; i++) {
		uint32_t v = (uint32_t)planes[0][i] << 8 | planes[1][i];

		v = v >> 1 | v << 15;
		dst[2 * i] = (uint8_t)v;
		dst[2 * i + 1] = (uint8_t)(v >> 8);
	}
}

static void portable_split(uint32_t word_bytes, const uint8_t *src, size_t nr_words,
			   uint8_t *const planes[CKF_PLANES_MAX])
{
	if (word_bytes == 2) {
		split2(src, nr_words, planes);
		return;
	}
	for (size_t i = 0; i < nr_words; i++) {
		uint32_t v = (uint32_t)src[4 * i] | (uint32_t)src[4 * i + 1] << 8 |
			     (uint32_t)src[4 * i + 2] << 16 | (uint32_t)src[4 * i + 3] << 24;

		v = v << 1 | v >> 31;
		for (uint32_t p = 0; p < 4; p++)
			planes[p][i] = (uint8_t)(v >> (24 - 8 * p));
	}
}

static void portable_merge(uint32_t word_bytes, const uint8_t *const planes[CKF_PLANES_MAX],
			   size_t nr_words, uint8_t *dst)
{
	if (word_bytes == 2) {
		merge2(planes, nr_words, dst);
		return;
	}
	for (size_t i = 0; i < nr_words; i++) {
		uint32_t v = 0;

		for (uint32_t p = 0; p < 4; p++)
			v = v << 8 | planes[p][i];
		v = v >> 1 | v << 31;
		for (uint32_t b = 0; b < 4; b++)
			dst[4 * i + b] = (uint8_t)(v >> 8 * b);
	}
}

const struct ckf_planes_ops ckf_planes_portable = {
	.name = "portable",
	.split = portable_split,
	.merge = portable_merge,
};

const struct ckf_planes_ops *ckf_planes_get(unsigned int i)
{
	if (!i)
		return &ckf_planes_portable;
#ifdef __x86_64__
	if (i == 1 && __builtin_cpu_supports("avx2"))
		return &ckf_planes_avx2;
#endif
	return NULL;
}

const struct ckf_planes_ops *ckf_planes_best(void)
{
	const struct ckf_planes_ops *best = &ckf_planes_portable, *ops;

	for (unsigned int i = 1; (ops = ckf_planes_get(i)); i++)
		best = ops;
	return best;
}
