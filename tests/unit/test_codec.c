/* SPDX-License-Identifier: MIT */
/* ckf_codec.h: round trips, hostile stored bytes, hashes and the test for zeros. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <xxhash.h>
#include <zstd.h>

#include "format/ckf_sum.h"
#include "img_builder.h"

#define MAX_BYTES ((size_t)CKF_MAX_CHUNK_PAGES * CKF_PAGE_BYTES)

static const uint32_t packers[] = { CKF_CODEC_LZ4, CKF_CODEC_ZSTD };

static int setup(void **state)
{
	struct ckf_codec_ctx *ctx;
	int ret = ckf_codec_ctx_new(&ctx);

	*state = ctx;
	return ret;
}

static int teardown(void **state)
{
	ckf_codec_ctx_free(*state);
	return 0;
}

static uint8_t *random_pages(uint64_t seed, size_t nr_pages)
{
	uint8_t *p = img_pages(seed, nr_pages);

	for (size_t i = 0; i < ckf_pages_to_bytes(nr_pages); i++)
		p[i] = (uint8_t)img_rand(&seed);
	return p;
}

static void round_trip(struct ckf_codec_ctx *ctx, uint32_t codec, int level, size_t nr_pages)
{
	const size_t bytes = ckf_pages_to_bytes(nr_pages);
	uint8_t *src = img_pages(nr_pages, nr_pages);
	uint8_t *stored = malloc(bytes);
	uint8_t *dst = malloc(bytes);
	int64_t n;

	assert_true(src && stored && dst);
	n = ckf_encode(ctx, codec, level, src, bytes, stored, bytes);
	assert_true(n > 0 && (size_t)n < bytes);
	/* An exact copy, so that a sanitizer sees a read behind the end. */
	stored = realloc(stored, (size_t)n);
	assert_int_equal(ckf_decode(ctx, codec, stored, (size_t)n, dst, bytes), 0);
	assert_memory_equal(src, dst, bytes);
	/* Any other length of either side is refused. */
	assert_int_equal(ckf_decode(ctx, codec, stored, (size_t)n - 1, dst, bytes), -EBADMSG);
	assert_int_equal(ckf_decode(ctx, codec, stored, (size_t)n, dst, bytes - 1), -EBADMSG);
	assert_int_equal(ckf_decode(ctx, codec, stored, 0, dst, bytes), -EBADMSG);
	stored = realloc(stored, (size_t)n + 1);
	stored[n] = 0;
	assert_int_equal(ckf_decode(ctx, codec, stored, (size_t)n + 1, dst, bytes), -EBADMSG);
	free(src);
	free(stored);
	free(dst);
}

static void test_round_trip(void **state)
{
	static const size_t sizes[] = { 1, 2, 17, 512, CKF_MAX_CHUNK_PAGES };

	for (size_t c = 0; c < 2; c++) {
		int min;
		int max;

		ckf_codec_levels(packers[c], &min, &max);
		assert_int_equal(min, 1);
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
			round_trip(*state, packers[c], 0, sizes[i]);
		for (int level = min; level <= max; level++)
			round_trip(*state, packers[c], level, 3);
	}
}

/* The size that was decoded to must be exact from below too. */
static void test_longer_destination(void **state)
{
	uint8_t *src = img_pages(1, 2);
	uint8_t stored[2 * CKF_PAGE_BYTES];
	uint8_t dst[3 * CKF_PAGE_BYTES];

	for (size_t c = 0; c < 2; c++) {
		int64_t n = ckf_encode(*state, packers[c], 0, src, 2 * CKF_PAGE_BYTES, stored,
				       sizeof(stored));

		assert_true(n > 0);
		assert_int_equal(
			ckf_decode(*state, packers[c], stored, (size_t)n, dst, sizeof(dst)),
			-EBADMSG);
	}
	free(src);
}

static void test_does_not_fit(void **state)
{
	uint8_t *noise = random_pages(5, 4);
	uint8_t *pages = img_pages(5, 4);
	const size_t bytes = 4 * CKF_PAGE_BYTES;
	uint8_t dst[8 * CKF_PAGE_BYTES];

	for (size_t c = 0; c < 2; c++) {
		for (int level = 0; level < 4; level++) {
			assert_true(!ckf_encode(*state, packers[c], level, noise, bytes, dst,
						sizeof(dst)));
			assert_true(!ckf_encode(*state, packers[c], level, pages, bytes, dst, 9));
			assert_true(!ckf_encode(*state, packers[c], level, pages, bytes, dst, 0));
		}
	}
	free(noise);
	free(pages);
}

static void test_caller_mistakes(void **state)
{
	uint8_t src[2 * CKF_PAGE_BYTES] = { 0 };
	uint8_t dst[2 * CKF_PAGE_BYTES];
	int min = 7;
	int max = 7;

	assert_true(ckf_encode(*state, CKF_CODEC_RAW, 0, src, 4096, dst, 4096) == -EINVAL);
	assert_true(ckf_encode(*state, CKF_CODEC_ZERO, 0, src, 4096, dst, 4096) == -EINVAL);
	assert_true(ckf_encode(*state, CKF_CODEC_END, 0, src, 4096, dst, 4096) == -EINVAL);
	assert_true(ckf_encode(*state, CKF_CODEC_LZ4, 0, src, 4095, dst, 4096) == -EINVAL);
	assert_true(ckf_encode(*state, CKF_CODEC_LZ4, 0, src, 0, dst, 4096) == -EINVAL);
	assert_true(ckf_encode(*state, CKF_CODEC_LZ4, 0, src, MAX_BYTES + 4096, dst, 4096) ==
		    -EINVAL);
	assert_true(ckf_encode(*state, CKF_CODEC_LZ4, 13, src, 4096, dst, 4096) == -EINVAL);
	assert_true(ckf_encode(*state, CKF_CODEC_ZSTD, 20, src, 4096, dst, 4096) == -EINVAL);
	assert_true(ckf_encode(*state, CKF_CODEC_ZSTD, -1, src, 4096, dst, 4096) == -EINVAL);
	assert_true(ckf_encode(NULL, CKF_CODEC_LZ4, 0, src, 4096, dst, 4096) == -EINVAL);
	assert_int_equal(ckf_decode(NULL, CKF_CODEC_ZSTD, src, 9, dst, 4096), -EINVAL);
	assert_int_equal(ckf_decode(*state, CKF_CODEC_END, src, 9, dst, 4096), -EOPNOTSUPP);
	assert_int_equal(ckf_decode(*state, UINT32_MAX, src, 9, dst, 4096), -EOPNOTSUPP);
	ckf_codec_levels(CKF_CODEC_RAW, &min, &max);
	assert_int_equal(min | max, 0);
	ckf_codec_levels(UINT32_MAX, &min, &max);
	assert_int_equal(min | max, 0);
	assert_string_equal(ckf_codec_name(CKF_CODEC_ZERO), "zero");
	assert_string_equal(ckf_codec_name(CKF_CODEC_RAW), "raw");
	assert_string_equal(ckf_codec_name(CKF_CODEC_LZ4), "lz4");
	assert_string_equal(ckf_codec_name(CKF_CODEC_ZSTD), "zstd");
	assert_string_equal(ckf_codec_name(CKF_CODEC_BF16), "bf16");
	assert_string_equal(ckf_codec_name(CKF_CODEC_END), "?");
}

static void test_zero_and_raw(void **state)
{
	uint8_t src[4096];
	uint8_t dst[4096];

	(void)state;
	memset(src, 7, sizeof(src));
	assert_int_equal(ckf_decode(NULL, CKF_CODEC_RAW, src, 4096, dst, 4096), 0);
	assert_memory_equal(src, dst, 4096);
	assert_int_equal(ckf_decode(NULL, CKF_CODEC_RAW, src, 4095, dst, 4096), -EBADMSG);
	assert_int_equal(ckf_decode(NULL, CKF_CODEC_RAW, src, 4096, dst, 4095), -EBADMSG);
	assert_int_equal(ckf_decode(NULL, CKF_CODEC_ZERO, NULL, 0, dst, 4096), 0);
	assert_true(ckf_is_zero(dst, 4096));
	assert_int_equal(ckf_decode(NULL, CKF_CODEC_ZERO, src, 1, dst, 4096), -EBADMSG);
}

static void refuse_zstd(struct ckf_codec_ctx *ctx, const void *stored, size_t bytes)
{
	uint8_t *dst = malloc(CKF_PAGE_BYTES);

	assert_non_null(dst);
	assert_int_equal(ckf_decode(ctx, CKF_CODEC_ZSTD, stored, bytes, dst, CKF_PAGE_BYTES),
			 -EBADMSG);
	free(dst);
}

/* Frames that the library would take, but SPEC.md 4.2 does not. */
static void test_zstd_frames(void **state)
{
	static const uint8_t skippable[] = { 0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4 };
	uint8_t pages[CKF_PAGE_BYTES] = { 1, 2, 3 };
	uint8_t frames[2 * CKF_PAGE_BYTES];
	size_t half;
	size_t n;

	/* Two frames that make up the page together. */
	half = ZSTD_compress(frames, sizeof(frames), pages, 2048, 1);
	assert_false(ZSTD_isError(half));
	n = ZSTD_compress(frames + half, sizeof(frames) - half, pages + 2048, 2048, 1);
	assert_false(ZSTD_isError(n));
	refuse_zstd(*state, frames, half + n);
	/* A frame behind, and one before, a skippable one. */
	memcpy(frames, skippable, sizeof(skippable));
	n = ZSTD_compress(frames + sizeof(skippable), 4096, pages, 4096, 1);
	refuse_zstd(*state, frames, sizeof(skippable) + n);
	memcpy(frames + sizeof(skippable) + n, skippable, sizeof(skippable));
	refuse_zstd(*state, frames + sizeof(skippable), n + sizeof(skippable));
	refuse_zstd(*state, skippable, sizeof(skippable));
	/* The frame alone is fine. */
	assert_int_equal(ckf_decode(*state, CKF_CODEC_ZSTD, frames + sizeof(skippable), n, pages,
				    sizeof(pages)),
			 0);
	/* Magic of an old format. */
	frames[sizeof(skippable)] = 0x27;
	refuse_zstd(*state, frames + sizeof(skippable), n);
}

/* A frame need not say how long its contents are; what it decodes to counts. */
static void test_zstd_unknown_size(void **state)
{
	uint8_t *pages = img_pages(3, 2);
	uint8_t frame[2 * CKF_PAGE_BYTES];
	uint8_t dst[2 * CKF_PAGE_BYTES];
	ZSTD_CCtx *cctx = ZSTD_createCCtx();
	size_t n;

	assert_non_null(cctx);
	ZSTD_CCtx_setParameter(cctx, ZSTD_c_contentSizeFlag, 0);
	n = ZSTD_compress2(cctx, frame, sizeof(frame), pages, sizeof(dst));
	assert_false(ZSTD_isError(n));
	assert_true(ZSTD_getFrameContentSize(frame, n) == ZSTD_CONTENTSIZE_UNKNOWN);
	assert_int_equal(ckf_decode(*state, CKF_CODEC_ZSTD, frame, n, dst, sizeof(dst)), 0);
	assert_memory_equal(dst, pages, sizeof(dst));
	assert_int_equal(ckf_decode(*state, CKF_CODEC_ZSTD, frame, n, dst, 4096), -EBADMSG);
	ZSTD_freeCCtx(cctx);
	free(pages);
}

/* One repeated byte under a window of 2 GiB, which one-pass decoding never allocates. */
static void test_zstd_window(void **state)
{
	static const uint8_t frame[] = { 0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 0x03, 0x80, 0, 'x' };
	uint8_t dst[CKF_PAGE_BYTES];

	assert_int_equal(ckf_decode(*state, CKF_CODEC_ZSTD, frame, sizeof(frame), dst, sizeof(dst)),
			 0);
	for (size_t i = 0; i < sizeof(dst); i++)
		assert_int_equal(dst[i], 'x');
}

static void test_zstd_dictionary(void **state)
{
	uint8_t *dict = img_pages(9, 1);
	uint8_t *pages = img_pages(9, 1);
	uint8_t frame[2 * CKF_PAGE_BYTES];
	ZSTD_CCtx *cctx = ZSTD_createCCtx();
	size_t n;

	assert_non_null(cctx);
	n = ZSTD_compress_usingDict(cctx, frame, sizeof(frame), pages, 4096, dict, 4096, 3);
	assert_false(ZSTD_isError(n));
	refuse_zstd(*state, frame, n);
	ZSTD_freeCCtx(cctx);
	free(dict);
	free(pages);
}

/* Little input, a lot of output: 64 MiB of zeros, with and without the size in the frame. */
static void test_bombs(void **state)
{
	const size_t bytes = (size_t)64 << 20;
	uint8_t *zeros = calloc(1, bytes);
	uint8_t *stored = malloc(1 << 20);
	ZSTD_CCtx *cctx = ZSTD_createCCtx();
	uint8_t lz4[4096];
	size_t n;

	assert_true(zeros && stored && cctx);
	for (int flag = 0; flag < 2; flag++) {
		ZSTD_CCtx_setParameter(cctx, ZSTD_c_contentSizeFlag, flag);
		n = ZSTD_compress2(cctx, stored, 1 << 20, zeros, bytes);
		assert_false(ZSTD_isError(n));
		refuse_zstd(*state, stored, n);
	}
	/* One literal, then a match of about 255 bytes for each byte of input. */
	memset(lz4, 0xff, sizeof(lz4));
	memcpy(lz4, (uint8_t[]){ 0x1f, 'x', 1, 0 }, 4);
	assert_int_equal(ckf_decode(NULL, CKF_CODEC_LZ4, lz4, sizeof(lz4), zeros, 4096), -EBADMSG);
	ZSTD_freeCCtx(cctx);
	free(zeros);
	free(stored);
}

/* A match that would reach back to before the destination. */
static void test_lz4_before_start(void **state)
{
	static const uint8_t block[] = {
		0x1f, 'x', 0xff, 0xff, 0x10, 0x50, 'a', 'b', 'c', 'd', 'e'
	};
	uint8_t *dst = malloc(CKF_PAGE_BYTES);

	(void)state;
	assert_non_null(dst);
	assert_int_equal(ckf_decode(NULL, CKF_CODEC_LZ4, block, sizeof(block), dst, CKF_PAGE_BYTES),
			 -EBADMSG);
	free(dst);
}

/* Flipped bits may decode to something else of the same size, but stay within the buffers. */
static void test_flips(void **state)
{
	uint8_t *pages = img_pages(11, 1);
	uint8_t *dst = malloc(CKF_PAGE_BYTES);

	assert_non_null(dst);
	for (size_t c = 0; c < 2; c++) {
		uint8_t *stored = malloc(CKF_PAGE_BYTES);
		int64_t n = ckf_encode(*state, packers[c], 0, pages, CKF_PAGE_BYTES, stored,
				       CKF_PAGE_BYTES);

		assert_true(n > 0);
		stored = realloc(stored, (size_t)n);
		for (int64_t bit = 0; bit < 8 * n; bit++) {
			stored[bit / 8] ^= (uint8_t)(1 << bit % 8);
			ckf_decode(*state, packers[c], stored, (size_t)n, dst, CKF_PAGE_BYTES);
			stored[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
		assert_int_equal(
			ckf_decode(*state, packers[c], stored, (size_t)n, dst, CKF_PAGE_BYTES), 0);
		assert_memory_equal(pages, dst, CKF_PAGE_BYTES);
		free(stored);
	}
	free(pages);
	free(dst);
}

static void test_hash_zeros(void **state)
{
	/* Up, down, the same again, not only pages: the state that is kept must not show. */
	static const size_t sizes[] = { 0,    1,    240,  241,	   4096, 4096,	 12288,
					8192, 4096, 4097, 1 << 22, 100,	 1 << 22 };
	uint8_t *zeros = calloc(1, 1 << 22);

	(void)state;
	assert_non_null(zeros);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		assert_true(ckf_hash64_zeros(sizes[i]) == ckf_hash64(zeros, sizes[i]));
	free(zeros);
}

/* With and without what the CPU has for it; in pieces is never with it. */
static void test_hash_long(void **state)
{
	uint8_t *p = random_pages(3, 5);

	(void)state;
	for (size_t n = 0; n <= 5 * CKF_PAGE_BYTES - 1; n += 1 + n / 7) {
		XXH3_state_t *pieces = XXH3_createState();

		XXH3_64bits_reset(pieces);
		for (size_t i = 0; i < n; i += 100)
			XXH3_64bits_update(pieces, p + 1 + i, n - i < 100 ? n - i : 100);
		assert_true(ckf_hash64(p + 1, n) == XXH3_64bits_digest(pieces));
		XXH3_freeState(pieces);
	}
	free(p);
}

/* Values of the xxHash command line tool: seed 0, and the order of bytes of the library. */
static void test_hash_known(void **state)
{
	(void)state;
	assert_true(ckf_hash64("", 0) == 0x2d06800538d394c2);
	assert_true(ckf_hash64("abc", 3) == 0x78af5f94892f3950);
}

/* All at once and in two pieces, at any alignment, as the library has it: whatever the CPU can do.
 */
static void test_hash_library(void **state)
{
	uint8_t *p = random_pages(7, 2);
	struct ckf_sum *sum = ckf_sum_new();

	(void)state;
	assert_non_null(sum);
	for (size_t n = 0; n < CKF_PAGE_BYTES; n += 1 + n / 16) {
		for (size_t at = 0; at < 3; at++) {
			uint64_t want = XXH3_64bits(p + at, n);

			assert_true(ckf_hash64(p + at, n) == want);
			ckf_sum_reset(sum);
			ckf_sum_update(sum, p + at, n / 3);
			ckf_sum_update(sum, p + at + n / 3, n - n / 3);
			assert_true(ckf_sum_value(sum) == want);
		}
	}
	ckf_sum_free(sum);
	free(p);
}

static void test_is_zero(void **state)
{
	_Alignas(64) uint8_t buf[4096 + 64] = { 0 };

	(void)state;
	assert_true(ckf_is_zero(buf, 0));
	assert_true(ckf_is_zero(buf + 8, 4096));
	for (size_t i = 0; i < 4096; i++) {
		buf[i] = (uint8_t)(1 << i % 8);
		assert_false(ckf_is_zero(buf, 4096));
		assert_int_equal(ckf_is_zero(buf, 64), i >= 64);
		buf[i] = 0;
	}
	buf[4096] = 1;
	assert_true(ckf_is_zero(buf, 4096));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),	  cmocka_unit_test(test_longer_destination),
		cmocka_unit_test(test_does_not_fit),	  cmocka_unit_test(test_caller_mistakes),
		cmocka_unit_test(test_zero_and_raw),	  cmocka_unit_test(test_zstd_frames),
		cmocka_unit_test(test_zstd_unknown_size), cmocka_unit_test(test_zstd_window),
		cmocka_unit_test(test_zstd_dictionary),	  cmocka_unit_test(test_bombs),
		cmocka_unit_test(test_lz4_before_start),  cmocka_unit_test(test_flips),
		cmocka_unit_test(test_hash_zeros),	  cmocka_unit_test(test_hash_known),
		cmocka_unit_test(test_hash_long),	  cmocka_unit_test(test_hash_library),
		cmocka_unit_test(test_is_zero),
	};

	ckf_codec_ctx_free(NULL);
	return cmocka_run_group_tests(tests, setup, teardown);
}
