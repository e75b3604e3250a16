/* SPDX-License-Identifier: MIT */
/*
 * ckf_decode() on hostile stored bytes, and the round trip of whatever comes out. The first byte of
 * the input picks the codec, the second the number of pages, the rest is what is stored.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../../format/ckf_codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* The pages at src come back from every codec that takes them. */
static void round_trip(struct ckf_codec_ctx *ctx, const uint8_t *src, size_t bytes)
{
	for (uint32_t codec = CKF_CODEC_LZ4; codec < CKF_CODEC_END; codec++) {
		uint8_t *stored = malloc(bytes);
		uint8_t *dst = malloc(bytes);
		int64_t n;

		if (!stored || !dst)
			abort();
		n = ckf_encode(ctx, codec, 0, src, bytes, stored, bytes);
		if (n < 0 || n >= (int64_t)bytes)
			abort();
		if (n && ckf_decode(ctx, codec, stored, (size_t)n, dst, bytes))
			abort();
		if (n && memcmp(src, dst, bytes))
			abort();
		free(stored);
		free(dst);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct ckf_codec_ctx *ctx;
	uint8_t *stored;
	size_t dst_bytes;
	uint8_t *dst;
	int ret;

	if (bytes < 2 || (!ctx && ckf_codec_ctx_new(&ctx)))
		return 0;
	dst_bytes = ckf_pages_to_bytes(1 + data[1] % 16);
	/* Buffers of exactly the stated lengths: a sanitizer sees any access beside them. */
	stored = malloc(bytes - 2 ? bytes - 2 : 1);
	dst = malloc(dst_bytes);
	if (!stored || !dst)
		abort();
	memcpy(stored, data + 2, bytes - 2);
	ret = ckf_decode(ctx, data[0] % (CKF_CODEC_END + 1), stored, bytes - 2, dst, dst_bytes);
	if (ret && ret != -EBADMSG && ret != -EOPNOTSUPP)
		abort();
	if (!ret)
		round_trip(ctx, dst, dst_bytes);
	free(stored);
	free(dst);
	return 0;
}
