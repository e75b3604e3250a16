/* SPDX-License-Identifier: MIT */
/*
 * XXH3 once more, compiled for AVX2: with what every x86-64 has, a checksum takes longer than the
 * copy out of the page cache that it goes with.
 */
#ifdef __x86_64__

/* Before the pragma: what these headers define is not to be compiled for AVX2. */
#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

#define XXH_INLINE_ALL
#define XXH_VECTOR 2 /* XXH_AVX2 */
#include <xxhash.h>

uint64_t ckf_hash_avx2(const void *p, size_t bytes)
{
	return XXH3_64bits(p, bytes);
}

void ckf_hash_avx2_update(void *state, const void *p, size_t bytes)
{
	XXH3_64bits_update(state, p, bytes);
}

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
