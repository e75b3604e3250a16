/* SPDX-License-Identifier: MIT */
/*
 * Little-endian on-disk integers and overflow-checked arithmetic.
 *
 * The on-disk types are byte arrays: they have no alignment, and the compiler refuses to read one
 * without the accessor.
 */
#ifndef CKF_TYPES_H
#define CKF_TYPES_H

#include "ckfast.h"

#define CKF_PAGE_SHIFT 12 /* of CKF_PAGE_BYTES */

typedef struct {
	uint8_t b[2];
} ckf_le16;
typedef struct {
	uint8_t b[4];
} ckf_le32;
typedef struct {
	uint8_t b[8];
} ckf_le64;

static inline uint16_t ckf_get16(ckf_le16 v)
{
	return (uint16_t)(v.b[0] | v.b[1] << 8);
}

static inline uint32_t ckf_get32(ckf_le32 v)
{
	return (uint32_t)v.b[0] | (uint32_t)v.b[1] << 8 | (uint32_t)v.b[2] << 16 |
	       (uint32_t)v.b[3] << 24;
}

static inline uint64_t ckf_get64(ckf_le64 v)
{
	ckf_le32 lo = { { v.b[0], v.b[1], v.b[2], v.b[3] } };
	ckf_le32 hi = { { v.b[4], v.b[5], v.b[6], v.b[7] } };

	return (uint64_t)ckf_get32(hi) << 32 | ckf_get32(lo);
}

static inline ckf_le16 ckf_put16(uint16_t v)
{
	return (ckf_le16){ { (uint8_t)v, (uint8_t)(v >> 8) } };
}

static inline ckf_le32 ckf_put32(uint32_t v)
{
	return (ckf_le32){ { (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16),
			     (uint8_t)(v >> 24) } };
}

static inline ckf_le64 ckf_put64(uint64_t v)
{
	return (ckf_le64){ { (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24),
			     (uint8_t)(v >> 32), (uint8_t)(v >> 40), (uint8_t)(v >> 48),
			     (uint8_t)(v >> 56) } };
}

/* Each returns true when the result does not fit; *r is then unspecified. */
static inline bool ckf_add_overflow(uint64_t a, uint64_t b, uint64_t *r)
{
	return __builtin_add_overflow(a, b, r);
}

static inline bool ckf_mul_overflow(uint64_t a, uint64_t b, uint64_t *r)
{
	return __builtin_mul_overflow(a, b, r);
}

static inline uint64_t ckf_pages_to_bytes(uint64_t pages)
{
	return pages << CKF_PAGE_SHIFT;
}

/* Rounds up; the caller has checked that bytes is far from 2^64. */
static inline uint64_t ckf_bytes_to_pages(uint64_t bytes)
{
	return (bytes + CKF_PAGE_BYTES - 1) >> CKF_PAGE_SHIFT;
}

static inline uint64_t ckf_align_up(uint64_t v, uint64_t power_of_two)
{
	return (v + power_of_two - 1) & ~(power_of_two - 1);
}

#endif
