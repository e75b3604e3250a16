/* SPDX-License-Identifier: MIT */
/*
 * Weights of a model for test programs: bf16, normally distributed, in layers of 8 MiB, the same in
 * each run and each process.
 */
#ifndef BF16_H
#define BF16_H

#include <math.h>

#include "prog.h"

#define LAYER_BYTES (8u * MIB)
#define SIGMA 0.02
#define TABLE_BITS 12

static uint16_t table[1 << TABLE_BITS]; /* the quantiles of the distribution */

/* Where the distribution function of the normal distribution is p, by bisection. */
static inline double quantile(double p)
{
	double lo = -8, hi = 8;

	for (int i = 0; i < 40; i++) {
		double mid = (lo + hi) / 2;

		if (0.5 * erfc(-mid / sqrt(2)) < p)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

static inline void table_init(void)
{
	for (unsigned int i = 0; i < 1u << TABLE_BITS; i++) {
		float f = (float)(SIGMA * quantile((i + 0.5) / (1u << TABLE_BITS)));
		uint32_t bits;

		memcpy(&bits, &f, sizeof(bits));
		table[i] = (uint16_t)(bits >> 16);
	}
}

/* What a fine-tune makes of a weight: in half of the cases the next one up or down. */
static inline uint16_t moved(uint16_t w, uint64_t dice)
{
	if (dice & 1)
		return w;
	return (uint16_t)(dice & 2 ? w + 1 : w - 1);
}

static inline void layer_fill(uint16_t *w, uint64_t layer, unsigned int tune)
{
	for (uint64_t i = 0; i < LAYER_BYTES / sizeof(*w); i += 4) {
		uint64_t page = i * sizeof(*w) / PAGE;
		bool other = tune && layer % 4 == 2 && mix(tune * 1000 + page) % 64 == 0;
		uint64_t bits = mix((layer << 32 | i) + (other ? (uint64_t)tune << 56 : 0));
		uint64_t dice = tune && layer % 4 == 3 ? mix(bits ^ tune) : ~UINT64_C(0);

		/* Four at a time, and the top bits that the next table index does not overlap. */
		for (unsigned int k = 0; k < 4; k++)
			w[i + k] = moved(table[bits >> (16 * k) & ((1u << TABLE_BITS) - 1)],
					 dice >> (2 * k));
	}
}

#endif
