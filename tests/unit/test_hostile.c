/* SPDX-License-Identifier: MIT */
/*
 * Indexes that are damaged as a whole: every byte, every length, sections that are missing or too
 * many, names and plans that no edit of a field makes, and inputs made to take long. Single rules
 * are in test_corrupt.c.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "img_builder.h"

struct sample {
	uint8_t *buf;
	size_t bytes;
};

static int setup(void **state)
{
	static struct sample s;
	struct img_builder b;

	img_sample(&b);
	s.buf = img_encode(&b, &s.bytes);
	img_fini(&b);
	*state = &s;
	return 0;
}

static int teardown(void **state)
{
	struct sample *s = *state;

	free(s->buf);
	return 0;
}

/* A copy in memory of its own, so that a sanitizer sees a read behind the end. */
static uint8_t *copy_of(const uint8_t *buf, size_t bytes)
{
	uint8_t *copy = malloc(bytes ? bytes : 1);

	assert_non_null(copy);
	memcpy(copy, buf, bytes);
	return copy;
}

/* buf is refused with this class and start of the message. Frees buf. */
static void refused(uint8_t *buf, size_t bytes, int code, const char *msg)
{
	struct ckf_error err = { 0 };
	struct ckf_index *idx;
	int ret = ckf_index_decode(buf, bytes, &idx, &err);

	if (ret != code || strncmp(err.msg, msg, strlen(msg)))
		print_error("want '%s', got '%s'\n", msg, err.msg);
	assert_int_equal(ret, code);
	assert_int_equal(strncmp(err.msg, msg, strlen(msg)), 0);
	free(buf);
}

static void test_missing_sections(void **state)
{
	static const char *const names[] = { "strings", "chunks", "refs",  "files",
					     "targets", "ops",	  "lanes", "huge" };
	const struct sample *s = *state;

	for (uint32_t gone = 0; gone < 8; gone++) {
		struct img_section sections[CKF_MAX_SECTIONS];
		uint8_t *buf;
		size_t bytes;
		char msg[128];

		img_split_sections(s->buf, sections);
		for (uint32_t i = gone; i < 7; i++)
			sections[i] = sections[i + 1];
		buf = img_join_sections(s->buf, sections, 7, &bytes);
		snprintf(msg, sizeof(msg),
			 "corrupt header at 0: R-sections: section %s, got none, want one",
			 names[gone]);
		refused(buf, bytes, -EBADMSG, msg);
	}
}

/* Bytes that no section names, and gaps. */
static void test_extra_bytes(void **state)
{
	const struct sample *s = *state;
	const struct ckf_disk_section *table = (const void *)(s->buf + 128);
	const size_t strings_end = ckf_get64(table[0].offset) + ckf_get64(table[0].count);
	const size_t chunks_off = ckf_get64(table[1].offset);
	uint8_t *buf = malloc(s->bytes + 1);
	struct ckf_disk_header *h = (void *)buf;

	assert_non_null(buf);
	memcpy(buf, s->buf, s->bytes);
	buf[s->bytes] = 0;
	h->idx_bytes = ckf_put64(s->bytes + 1);
	img_fix_checksums(buf, s->bytes + 1);
	refused(buf, s->bytes + 1, -EBADMSG,
		"corrupt header at 0: R-sections: end of the last section");
	assert_true(strings_end < chunks_off);
	for (size_t off = strings_end; off < chunks_off; off++) {
		buf = copy_of(s->buf, s->bytes);
		buf[off] = 1;
		img_fix_checksums(buf, s->bytes);
		refused(buf, s->bytes, -EBADMSG, "corrupt sections[1] at 160: R-padding: ");
	}
}

/* An unknown optional section is skipped, but not without a look at its place and bytes. */
static void test_optional_section(void **state)
{
	const struct sample *s = *state;
	struct img_section sections[CKF_MAX_SECTIONS];
	struct ckf_disk_section *added;
	uint8_t *buf;
	size_t bytes;

	img_split_sections(s->buf, sections);
	sections[8] = (struct img_section){ 0x80000001, 1, 5, "bytes" };
	for (int i = 0; i < 4; i++) {
		buf = img_join_sections(s->buf, sections, 9, &bytes);
		added = (struct ckf_disk_section *)(void *)(buf + 128) + 8;
		if (i == 0)
			added->offset = ckf_put64(ckf_get64(added->offset) + 64);
		else if (i == 1)
			added->count = ckf_put64(UINT64_MAX);
		else if (i == 2)
			added->type = ckf_put32(8);
		else
			buf[bytes - 1] ^= 1;
		if (i < 3)
			img_fix_checksums(buf, bytes);
		refused(buf, bytes, -EBADMSG,
			i == 3 ? "corrupt sections[8] at 384: R-checksum: "
			       : "corrupt sections[8] at 384: R-sections: ");
	}
}

/* Names that only a builder can make. */
static void test_taken_names(void **state)
{
	static const char *const names[] = { "ckfast.idx", "ckfast.pack", "..", ".", "a/../b" };

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct img_builder b;
		uint8_t *buf;
		size_t bytes;

		img_init(&b);
		img_file(&b, names[i], "x", 1);
		buf = img_encode(&b, &bytes);
		refused(buf, bytes, -EBADMSG, "corrupt files[0] at 448: R-file: name, got '");
		img_fini(&b);
	}
}

/* A target with ops that no lane covers. */
static void test_no_lanes(void **state)
{
	struct img_builder b;
	uint8_t *buf;
	size_t bytes;

	(void)state;
	img_init(&b);
	img_chunk(&b, CKF_CODEC_ZERO, NULL, 1);
	img_file(&b, "pagemap-1.img", "x", 1);
	img_target(&b, CKF_TARGET_TASK, 1, 0, 0);
	img_op(&b, 0x1000, 0, 0, 1);
	buf = img_encode(&b, &bytes);
	refused(buf, bytes, -EBADMSG,
		"corrupt targets[0] at 640: R-lane: end of the last lane, got 0, want 1");
	img_fini(&b);
}

/* The last page below 2^63 is still a place. */
static void test_highest_address(void **state)
{
	struct ckf_index *idx;
	struct img_builder b;
	uint8_t *buf;
	size_t bytes;

	(void)state;
	img_init(&b);
	img_chunk(&b, CKF_CODEC_ZERO, NULL, 1);
	img_file(&b, "pagemap-1.img", "x", 1);
	img_target(&b, CKF_TARGET_TASK, 1, 0, 0);
	img_op(&b, CKF_MAX_ADDR - 4096, 0, 0, 1);
	img_lanes(&b, 0);
	buf = img_encode(&b, &bytes);
	assert_int_equal(ckf_index_decode(buf, bytes, &idx, NULL), 0);
	ckf_index_free(idx);
	free(buf);
	img_fini(&b);
}

static void test_table_past_the_end(void **state)
{
	struct img_builder b;
	struct ckf_disk_header *h;
	uint8_t *buf;
	size_t bytes;

	(void)state;
	img_init(&b);
	buf = img_encode(&b, &bytes);
	h = (void *)buf;
	h->nr_sections = ckf_put32(9);
	refused(buf, bytes, -EBADMSG,
		"corrupt header at 0: R-sections: section table, got 288 bytes, want at most 256");
	img_fini(&b);
}

/* Every byte changed in several ways: refused as it is; never a crash with the checksums fixed. */
static void test_each_byte(void **state)
{
	static const uint8_t masks[] = { 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff };
	const struct sample *s = *state;
	uint8_t *buf = copy_of(s->buf, s->bytes);

	for (size_t i = 0; i < s->bytes; i++) {
		for (size_t m = 0; m < sizeof(masks); m++) {
			struct ckf_error err = { 0 };
			struct ckf_index *idx;
			int ret;

			memcpy(buf, s->buf, s->bytes);
			buf[i] ^= masks[m];
			ret = ckf_index_decode(buf, s->bytes, &idx, &err);
			if (ret != -EBADMSG && ret != -EOPNOTSUPP)
				print_error("byte %zu ^ 0x%x: %d\n", i, masks[m], ret);
			assert_true(ret == -EBADMSG || ret == -EOPNOTSUPP);
			assert_true(!strncmp(err.msg, "corrupt ", 8) ||
				    !strncmp(err.msg, "unsupported ", 12));
			img_fix_checksums(buf, s->bytes);
			if (!ckf_index_decode(buf, s->bytes, &idx, NULL))
				ckf_index_free(idx);
		}
	}
	free(buf);
}

static void test_each_length(void **state)
{
	const struct sample *s = *state;

	for (size_t bytes = 0; bytes < s->bytes; bytes++) {
		uint8_t *buf = copy_of(s->buf, bytes);

		refused(buf, bytes, -EBADMSG, "corrupt header at 0: R-length: ");
		if (bytes < sizeof(struct ckf_disk_header))
			continue;
		buf = copy_of(s->buf, bytes);
		((struct ckf_disk_header *)(void *)buf)->idx_bytes = ckf_put64(bytes);
		img_fix_checksums(buf, bytes);
		refused(buf, bytes, -EBADMSG, "corrupt ");
	}
}

/* Many children of one large parent: time must not be the product of their sizes. */
static void test_no_quadratic_time(void **state)
{
	const uint32_t nr_parent_ops = 200000;
	const uint32_t nr_children = 50000;
	struct timespec start;
	struct timespec end;
	struct ckf_index *idx;
	struct img_builder b;
	uint8_t *buf;
	size_t bytes;

	(void)state;
	img_init(&b);
	img_chunk(&b, CKF_CODEC_ZERO, NULL, 1);
	img_file(&b, "pagemap-1.img", "x", 1);
	img_target(&b, CKF_TARGET_TASK, 1, 0, 0);
	for (uint64_t i = 1; i <= nr_parent_ops; i++)
		img_op(&b, i << CKF_PAGE_SHIFT, 0, 0, 1);
	img_lanes(&b, 1);
	for (uint32_t i = 0; i < nr_children; i++) {
		img_target(&b, CKF_TARGET_TASK, 2 + i, 0, 1);
		img_op(&b, (uint64_t)nr_parent_ops << CKF_PAGE_SHIFT | CKF_OP_INHERIT, 0, 0, 1);
		img_lanes(&b, 1);
	}
	buf = img_encode(&b, &bytes);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
	assert_int_equal(ckf_index_decode(buf, bytes, &idx, NULL), 0);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
	assert_true(end.tv_sec - start.tv_sec < 5);
	ckf_index_free(idx);
	free(buf);
	img_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_missing_sections),   cmocka_unit_test(test_extra_bytes),
		cmocka_unit_test(test_optional_section),   cmocka_unit_test(test_taken_names),
		cmocka_unit_test(test_no_lanes),	   cmocka_unit_test(test_highest_address),
		cmocka_unit_test(test_table_past_the_end), cmocka_unit_test(test_each_byte),
		cmocka_unit_test(test_each_length),	   cmocka_unit_test(test_no_quadratic_time),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
