/* SPDX-License-Identifier: MIT */
/* Hashes that only format/ needs; the public ones are in ckf_codec.h. */
#ifndef CKF_HASH_H
#define CKF_HASH_H

#include "ckf_disk.h"

/* XXH3-128, low 64 bits first, each half little-endian (SPEC.md section 2). */
void ckf_hash128(const void *p, size_t bytes, uint8_t out[CKF_ID_BYTES]);

/*
 * XXH3 with instructions that not every CPU has; the same values. Only after ckf_hash_has_avx2()
 * has said so. state: an XXH3_state_t.
 */
static inline bool ckf_hash_has_avx2(void)
{
#ifdef __x86_64__
	return __builtin_cpu_supports("avx2");
#else
	return false;
#endif
}
uint64_t ckf_hash_avx2(const void *p, size_t bytes);
void ckf_hash_avx2_update(void *state, const void *p, size_t bytes);

#endif
