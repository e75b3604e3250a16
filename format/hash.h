/* SPDX-License-Identifier: MIT */
/* Hashes that only format/ needs; the public ones are in ckf_codec.h. */
#ifndef CKF_HASH_H
#define CKF_HASH_H

#include "ckf_disk.h"

/* XXH3-128, low 64 bits first, each half little-endian (SPEC.md section 2). */
void ckf_hash128(const void *p, size_t bytes, uint8_t out[CKF_ID_BYTES]);

#ifdef __x86_64__
/* XXH3-64 on a CPU that has AVX2. */
uint64_t ckf_hash64_avx2(const void *p, size_t bytes);
#endif

#endif
