/* SPDX-License-Identifier: MIT */
/* ckf_types.h: little-endian integers and checked arithmetic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "base/ckf_types.h"

static void test_byte_order(void **state)
{
	static const uint8_t bytes[] = { 0x01, 0x82, 0x03, 0x84, 0x05, 0x86, 0x07, 0x88 };
	ckf_le16 v16;
	ckf_le32 v32;
	ckf_le64 v64;

	(void)state;
	memcpy(&v16, bytes, sizeof(v16));
	memcpy(&v32, bytes, sizeof(v32));
	memcpy(&v64, bytes, sizeof(v64));
	assert_int_equal(ckf_get16(v16), 0x8201);
	assert_int_equal(ckf_get32(v32), 0x84038201);
	assert_true(ckf_get64(v64) == 0x8807860584038201);
	v16 = ckf_put16(0x8201);
	v32 = ckf_put32(0x84038201);
	v64 = ckf_put64(0x8807860584038201);
	assert_memory_equal(&v16, bytes, sizeof(v16));
	assert_memory_equal(&v32, bytes, sizeof(v32));
	assert_memory_equal(&v64, bytes, sizeof(v64));
}

static void test_extremes(void **state)
{
	(void)state;
	assert_int_equal(ckf_get16(ckf_put16(0)), 0);
	assert_int_equal(ckf_get16(ckf_put16(UINT16_MAX)), UINT16_MAX);
	assert_true(ckf_get32(ckf_put32(UINT32_MAX)) == UINT32_MAX);
	assert_true(ckf_get64(ckf_put64(UINT64_MAX)) == UINT64_MAX);
	for (int bit = 0; bit < 64; bit++)
		assert_true(ckf_get64(ckf_put64(1ull << bit)) == 1ull << bit);
}

static void test_overflow(void **state)
{
	uint64_t r;

	(void)state;
	assert_false(ckf_add_overflow(UINT64_MAX, 0, &r));
	assert_true(r == UINT64_MAX);
	assert_true(ckf_add_overflow(UINT64_MAX, 1, &r));
	assert_true(ckf_add_overflow(1ull << 63, 1ull << 63, &r));
	assert_false(ckf_mul_overflow(UINT32_MAX, UINT32_MAX, &r));
	assert_true(r == 0xfffffffe00000001);
	assert_true(ckf_mul_overflow(1ull << 32, 1ull << 32, &r));
	assert_false(ckf_mul_overflow(UINT64_MAX, 0, &r));
	assert_true(r == 0);
}

static void test_units(void **state)
{
	(void)state;
	assert_true(ckf_pages_to_bytes(0) == 0);
	assert_true(ckf_pages_to_bytes(1ull << 40) == 1ull << 52);
	assert_true(ckf_bytes_to_pages(0) == 0);
	assert_true(ckf_bytes_to_pages(1) == 1);
	assert_true(ckf_bytes_to_pages(4096) == 1);
	assert_true(ckf_bytes_to_pages(4097) == 2);
	assert_true(ckf_align_up(0, 64) == 0);
	assert_true(ckf_align_up(1, 64) == 64);
	assert_true(ckf_align_up(64, 64) == 64);
	assert_true(ckf_align_up(65, 64) == 128);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_byte_order),
		cmocka_unit_test(test_extremes),
		cmocka_unit_test(test_overflow),
		cmocka_unit_test(test_units),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
