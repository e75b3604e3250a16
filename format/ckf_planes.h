/* SPDX-License-Identifier: MIT */
/*
 * Words taken apart into planes of bytes, and put together again (SPEC.md 4.2.1).
 *
 * A word is rotated left by one bit, which makes the exponent of a float the top bits, and then
 * split: byte 0 of each word, the most significant one, makes plane 0, and so on. Pure.
 */
#ifndef CKF_PLANES_H
#define CKF_PLANES_H

#include "base/ckf_types.h"

#define CKF_PLANES_MAX 4
#define CKF_PLANES_STEP 64 /* the number of words is always a multiple of this */

/*
 * One way to do it. word_bytes is 2 or 4, and there are as many planes of nr_words bytes. Buffers
 * need no alignment and do not overlap.
 */
struct ckf_planes_ops {
	const char *name;
	void (*split)(uint32_t word_bytes, const uint8_t *src, size_t nr_words,
		      uint8_t *const planes[CKF_PLANES_MAX]);
	void (*merge)(uint32_t word_bytes, const uint8_t *const planes[CKF_PLANES_MAX],
		      size_t nr_words, uint8_t *dst);
};

/* The fastest one that this CPU has. */
const struct ckf_planes_ops *ckf_planes_best(void);
/* All that this CPU has, the portable one first; NULL behind the last one. For tests. */
const struct ckf_planes_ops *ckf_planes_get(unsigned int i);

extern const struct ckf_planes_ops ckf_planes_portable;
#ifdef __x86_64__
extern const struct ckf_planes_ops ckf_planes_avx2;
#endif

/* How many bits a byte of some data takes when each byte is coded apart, in 1/256 bit. */
#define CKF_PLANES_BITS(n) ((uint32_t)(n)*256)

struct ckf_planes_guess {
	uint32_t byte_bits;		     /* of the bytes as they are */
	uint32_t word_bytes;		     /* 2 or 4, whichever is better */
	uint32_t bits;			     /* of the bytes in planes of such words, on average */
	uint32_t plane_bits[CKF_PLANES_MAX]; /* of the bytes of each plane */
};

/* From a sample of the bytes at src, a multiple of the page size. The same data, the same guess. */
void ckf_planes_look(const uint8_t *src, size_t bytes, struct ckf_planes_guess *out);

#endif
