/* SPDX-License-Identifier: MIT */
/* planes.h and the codec on top of it: every word comes back, by every way, and nothing else gets
 * in. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "format/ckf_planes.h"
#include "img_builder.h"

#define MAX_BYTES ((size_t)CKF_MAX_CHUNK_PAGES * CKF_PAGE_BYTES)
#define HEAD2 24u /* head and two planes */

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

static uint8_t *need(size_t bytes)
{
	uint8_t *p = calloc(1, bytes ? bytes : 1);

	assert_non_null(p);
	return p;
}

static uint8_t *noise(uint64_t seed, size_t bytes)
{
	uint8_t *p = need(bytes);

	for (size_t i = 0; i < bytes; i++)
		p[i] = (uint8_t)img_rand(&seed);
	return p;
}

/* Words whose upper bits are few values and whose lower bits are noise; sign and all. */
static uint8_t *floats(uint64_t seed, uint32_t word_bytes, size_t bytes)
{
	uint8_t *p = noise(seed, bytes);

	for (size_t i = 0; i < bytes; i += word_bytes) {
		uint8_t *top = p + i + word_bytes - 1;
		uint32_t exponent = 118 + (uint32_t)__builtin_ctzll(img_rand(&seed) | 1 << 9);

		*top = (uint8_t)((*top & 0x80) | exponent >> 1);
		top[-1] = (uint8_t)((top[-1] & 0x7f) | exponent << 7);
	}
	return p;
}

/* What SPEC.md says, one word at a time. */
static void want_planes(uint32_t word_bytes, const uint8_t *src, size_t nr_words, uint8_t *planes)
{
	for (size_t i = 0; i < nr_words; i++) {
		uint64_t v = 0;

		for (uint32_t b = word_bytes; b--;)
			v = v << 8 | src[i * word_bytes + b];
		v = v << 1 | v >> (8 * word_bytes - 1);
		for (uint32_t p = 0; p < word_bytes; p++)
			planes[p * nr_words + i] = (uint8_t)(v >> 8 * (word_bytes - 1 - p));
	}
}

static void check_ops(const struct ckf_planes_ops *ops, uint32_t word_bytes, size_t nr_words)
{
	const size_t bytes = nr_words * word_bytes;
	uint8_t *src = noise(nr_words, bytes);
	/* At odd addresses, and just as long as they may be. */
	uint8_t *want = need(bytes), *got = need(bytes + 1), *back = need(bytes + 1);
	uint8_t *planes[CKF_PLANES_MAX] = { NULL };
	const uint8_t *read[CKF_PLANES_MAX] = { NULL };

	want_planes(word_bytes, src, nr_words, want);
	for (uint32_t p = 0; p < word_bytes; p++)
		read[p] = planes[p] = got + 1 + p * nr_words;
	ops->split(word_bytes, src, nr_words, planes);
	assert_memory_equal(got + 1, want, bytes);
	ops->merge(word_bytes, read, nr_words, back + 1);
	assert_memory_equal(back + 1, src, bytes);
	free(src);
	free(want);
	free(got);
	free(back);
}

static void test_ways_agree(void **state)
{
	const struct ckf_planes_ops *ops;

	(void)state;
	assert_ptr_equal(ckf_planes_get(0), &ckf_planes_portable);
	for (unsigned int i = 0; (ops = ckf_planes_get(i)); i++) {
		for (size_t nr_words = 0; nr_words < 512; nr_words += CKF_PLANES_STEP) {
			check_ops(ops, 2, nr_words);
			check_ops(ops, 4, nr_words);
		}
	}
}

static void round_trip(struct ckf_codec_ctx *ctx, const uint8_t *src, size_t bytes, bool smaller)
{
	uint8_t *stored = need(bytes), *dst = need(bytes);
	int64_t n = ckf_encode(ctx, CKF_CODEC_BF16, 0, src, bytes, stored, bytes);

	assert_true(n >= 0 && n < (int64_t)bytes);
	assert_int_equal(n > 0, smaller);
	if (n) {
		stored = realloc(stored, (size_t)n);
		assert_int_equal(ckf_decode(ctx, CKF_CODEC_BF16, stored, (size_t)n, dst, bytes), 0);
		assert_memory_equal(src, dst, bytes);
		assert_int_equal(ckf_decode(ctx, CKF_CODEC_BF16, stored, (size_t)n - 1, dst, bytes),
				 -EBADMSG);
		assert_int_equal(
			ckf_decode(ctx, CKF_CODEC_BF16, stored, (size_t)n, dst, bytes - 4096),
			-EBADMSG);
		/* It does not fit into less. */
		assert_int_equal(ckf_encode(ctx, CKF_CODEC_BF16, 0, src, bytes, dst, (size_t)n - 1),
				 0);
	}
	free(stored);
	free(dst);
}

static void test_floats(void **state)
{
	static const size_t pages[] = { 1, 2, 3, 17, 256, CKF_MAX_CHUNK_PAGES };

	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		for (uint32_t word_bytes = 2; word_bytes <= 4; word_bytes += 2) {
			size_t bytes = pages[i] * CKF_PAGE_BYTES;
			uint8_t *src = floats(i, word_bytes, bytes);

			round_trip(*state, src, bytes, true);
			free(src);
		}
	}
}

/* Each of the 65536 words: all NaNs and subnormals, among exponents that make the codec pay. */
static void test_every_word(void **state)
{
	const size_t bytes = (size_t)1 << 20;
	uint8_t *src = floats(3, 2, bytes);

	for (uint32_t v = 0; v < 1 << 16; v++) {
		src[16 * v] = (uint8_t)v;
		src[16 * v + 1] = (uint8_t)(v >> 8);
	}
	round_trip(*state, src, bytes, true);
	free(src);
}

static void test_not_floats(void **state)
{
	const size_t bytes = 8 * CKF_PAGE_BYTES;
	uint8_t *random = noise(1, bytes);
	uint8_t *pages = img_pages(1, 8);

	round_trip(*state, random, bytes, false);
	/* Each word is there 8 times in a row: no single byte is more frequent than others. */
	round_trip(*state, pages, bytes, false);
	memset(pages, 0, bytes);
	round_trip(*state, pages, bytes, true);
	memset(pages, 0xff, bytes);
	round_trip(*state, pages, bytes, true);
	free(random);
	free(pages);
}

static void test_look(void **state)
{
	const size_t bytes = 64 * CKF_PAGE_BYTES;
	struct ckf_planes_guess g;
	uint8_t *p;

	(void)state;
	for (uint32_t word_bytes = 2; word_bytes <= 4; word_bytes += 2) {
		p = floats(7, word_bytes, bytes);
		ckf_planes_look(p, bytes, &g);
		assert_int_equal(g.word_bytes, word_bytes);
		assert_true(g.bits + CKF_PLANES_BITS(1) / 4 < g.byte_bits);
		assert_true(g.plane_bits[0] < CKF_PLANES_BITS(3));
		for (uint32_t i = 1; i < word_bytes; i++)
			assert_int_equal(g.plane_bits[i], CKF_PLANES_BITS(8));
		free(p);
	}
	p = noise(7, bytes);
	ckf_planes_look(p, bytes, &g);
	assert_int_equal(g.bits, CKF_PLANES_BITS(8));
	assert_true(g.byte_bits > CKF_PLANES_BITS(7));
	memset(p, 'x', bytes);
	ckf_planes_look(p, CKF_PAGE_BYTES, &g);
	assert_int_equal(g.bits, 0);
	assert_int_equal(g.byte_bits, 0);
	free(p);
}

/* A chunk of one page whose planes are both raw: one byte larger than the page, and the head. */
static void test_head(void **state)
{
	static const struct {
		uint32_t off;
		uint8_t value;
	} edits[] = { { 0, 0 },	   { 0, 1 },  { 0, 3 },	 { 0, 4 },     { 0, 255 },
		      { 1, 1 },	   { 7, 1 },  { 8, 1 },	 { 11, 0x80 }, { 12, 0 },
		      { 12, 2 },   { 12, 3 }, { 12, 4 }, { 13, 1 },    { 15, 1 },
		      { 16, 255 }, { 20, 3 }, { 23, 9 }, { 19, 0xff } };
	uint8_t *stored = need(HEAD2 + CKF_PAGE_BYTES), *dst = need(CKF_PAGE_BYTES);

	stored[0] = 2;
	stored[9] = stored[17] = CKF_PAGE_BYTES / 2 / 256;
	stored[12] = stored[20] = CKF_CODEC_RAW;
	stored[HEAD2] = 0x7f;			   /* exponent of word 0 */
	stored[HEAD2 + CKF_PAGE_BYTES / 2] = 0x81; /* its mantissa 0x40, and the sign */
	assert_int_equal(ckf_decode(*state, CKF_CODEC_BF16, stored, HEAD2 + CKF_PAGE_BYTES, dst,
				    CKF_PAGE_BYTES),
			 0);
	assert_int_equal(dst[0] | dst[1] << 8, 0xbfc0);
	for (size_t i = 0; i < sizeof(edits) / sizeof(edits[0]); i++) {
		uint8_t old = stored[edits[i].off];

		stored[edits[i].off] = edits[i].value;
		assert_int_equal(ckf_decode(*state, CKF_CODEC_BF16, stored, HEAD2 + CKF_PAGE_BYTES,
					    dst, CKF_PAGE_BYTES),
				 -EBADMSG);
		stored[edits[i].off] = old;
	}
	for (size_t n = 0; n <= HEAD2; n++) {
		uint8_t *cut = need(n);

		memcpy(cut, stored, n);
		assert_int_equal(ckf_decode(*state, CKF_CODEC_BF16, cut, n, dst, CKF_PAGE_BYTES),
				 -EBADMSG);
		free(cut);
	}
	assert_int_equal(ckf_decode(*state, CKF_CODEC_BF16, stored, HEAD2, dst, 0), -EBADMSG);
	assert_int_equal(ckf_decode(NULL, CKF_CODEC_BF16, stored, HEAD2 + CKF_PAGE_BYTES, dst,
				    CKF_PAGE_BYTES),
			 -EINVAL);
	free(stored);
	free(dst);
}

/* Flipped bits may decode to something else of the same size, but stay within the buffers. */
static void test_flips(void **state)
{
	const size_t bytes = 2 * CKF_PAGE_BYTES;
	uint8_t *src = floats(5, 2, bytes), *stored = need(bytes), *dst = need(bytes);
	int64_t n = ckf_encode(*state, CKF_CODEC_BF16, 0, src, bytes, stored, bytes);

	assert_true(n > 0);
	stored = realloc(stored, (size_t)n);
	for (int64_t bit = 0; bit < 8 * n; bit++) {
		stored[bit / 8] ^= (uint8_t)(1 << bit % 8);
		ckf_decode(*state, CKF_CODEC_BF16, stored, (size_t)n, dst, bytes);
		stored[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_int_equal(ckf_decode(*state, CKF_CODEC_BF16, stored, (size_t)n, dst, bytes), 0);
	assert_memory_equal(src, dst, bytes);
	free(src);
	free(stored);
	free(dst);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ways_agree), cmocka_unit_test(test_floats),
		cmocka_unit_test(test_every_word), cmocka_unit_test(test_not_floats),
		cmocka_unit_test(test_look),	   cmocka_unit_test(test_head),
		cmocka_unit_test(test_flips),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
