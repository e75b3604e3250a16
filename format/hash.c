/* SPDX-License-Identifier: MIT */
/*
 * Checksums, and the test for zero pages.
 *
 * xxHash is compiled into this file: its streaming state may only be placed by the caller when
 * library and header are one, and short inputs gain from inlining.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <string.h>

#include "ckf_codec.h"
#include "hash.h"

/* Below this, looking which way to go costs more than it gains. */
#define LONG_BYTES 1024

uint64_t ckf_hash64(const void *p, size_t bytes)
{
	if (bytes >= LONG_BYTES && ckf_hash_has_avx2())
		return ckf_hash_avx2(p, bytes);
	return XXH3_64bits(p, bytes);
}

void ckf_hash128(const void *p, size_t bytes, uint8_t out[CKF_ID_BYTES])
{
	XXH128_hash_t h = XXH3_128bits(p, bytes);
	ckf_le64 le[2] = { ckf_put64(h.low64), ckf_put64(h.high64) };

	static_assert(sizeof(le) == CKF_ID_BYTES, "image id");
	memcpy(out, le, sizeof(le));
}

/*
 * The state of the last call is kept per thread and only extended: the zero chunks of an index
 * ascend in length, so that checking all of them costs no more than the longest one.
 */
uint64_t ckf_hash64_zeros(size_t bytes)
{
	static const uint8_t zeros[CKF_PAGE_BYTES];
	static _Thread_local struct {
		XXH3_state_t state;
		size_t bytes;
		bool started;
	} last;

	if (!last.started || bytes < last.bytes) {
		XXH3_64bits_reset(&last.state);
		last.bytes = 0;
		last.started = true;
	}
	while (last.bytes < bytes) {
		size_t n = bytes - last.bytes;

		if (n > sizeof(zeros))
			n = sizeof(zeros);
		XXH3_64bits_update(&last.state, zeros, n);
		last.bytes += n;
	}
	return XXH3_64bits_digest(&last.state);
}

bool ckf_is_zero(const void *p, size_t bytes)
{
	const uint8_t *b = p;

	for (size_t i = 0; i < bytes; i += 64) {
		uint64_t w[8];

		/* A cache line per step: fast enough to be bound by memory, and leaves early. */
		memcpy(w, __builtin_assume_aligned(b + i, 8), sizeof(w));
		if (w[0] | w[1] | w[2] | w[3] | w[4] | w[5] | w[6] | w[7])
			return false;
	}
	return true;
}
