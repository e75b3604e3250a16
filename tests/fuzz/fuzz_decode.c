/* SPDX-License-Identifier: MIT */
/*
 * ckf_decode() on hostile stored bytes, and the round trip of whatever comes out. The first byte of
 * the input picks the codec, the second the number of pages, the rest is what is stored. With the
 * high bit of the first byte, what is stored is instead what the codec makes of some pages, and the
 * rest are edits of it: two bytes offset, one byte value, each.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "format/ckf_codec.h"

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

/* Pages that every codec makes smaller: words with few exponents, every fourth one again. */
static void make_pages(uint8_t *p, size_t bytes, uint32_t word_bytes)
{
	uint64_t v = 88172645463325252;

	for (size_t i = 0; i < bytes; i++) {
		v ^= v << 13;
		v ^= v >> 7;
		v ^= v << 17;
		p[i] = (uint8_t)v;
		if (i % word_bytes == word_bytes - 1)
			p[i] = (uint8_t)(0x3c + v % 3);
		if (i >= 64 && i / 64 % 4 == 3)
			p[i] = p[i - 64];
	}
}

/* What is stored: malloc()ed, of exactly *stored_bytes. */
static uint8_t *encode_some(struct ckf_codec_ctx *ctx, uint32_t codec, bool wide, size_t dst_bytes,
			    size_t *stored_bytes)
{
	uint8_t *pages = malloc(dst_bytes), *stored = malloc(dst_bytes), *exact;
	int64_t n;

	if (!pages || !stored)
		abort();
	make_pages(pages, dst_bytes, wide ? 4 : 2);
	n = ckf_encode(ctx, codec, 0, pages, dst_bytes, stored, dst_bytes);
	if (n <= 0)
		abort();
	exact = realloc(stored, (size_t)n);
	if (!exact)
		abort();
	free(pages);
	*stored_bytes = (size_t)n;
	return exact;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct ckf_codec_ctx *ctx;
	size_t dst_bytes, stored_bytes;
	uint32_t codec;
	uint8_t *stored;
	uint8_t *dst;
	int ret;

	if (bytes < 2 || (!ctx && ckf_codec_ctx_new(&ctx)))
		return 0;
	dst_bytes = ckf_pages_to_bytes(1 + data[1] % 16);
	/* Buffers of exactly the stated lengths: a sanitizer sees any access beside them. */
	dst = malloc(dst_bytes);
	if (!dst)
		abort();
	codec = data[0] % (CKF_CODEC_END + 1);
	if (data[0] & 0x80) {
		codec = (data[0] & 0x7f) % (CKF_CODEC_END - CKF_CODEC_LZ4) + CKF_CODEC_LZ4;
		stored = encode_some(ctx, codec, data[1] & 0x80, dst_bytes, &stored_bytes);
		for (data += 2, bytes -= 2; bytes >= 3; data += 3, bytes -= 3)
			stored[(data[0] | (size_t)data[1] << 8) % stored_bytes] = data[2];
	} else {
		stored_bytes = bytes - 2;
		stored = malloc(stored_bytes ? stored_bytes : 1);
		if (!stored)
			abort();
		memcpy(stored, data + 2, stored_bytes);
	}
	ret = ckf_decode(ctx, codec, stored, stored_bytes, dst, dst_bytes);
	if (ret && ret != -EBADMSG && ret != -EOPNOTSUPP)
		abort();
	if (!ret)
		round_trip(ctx, dst, dst_bytes);
	free(stored);
	free(dst);
	return 0;
}
