/* SPDX-License-Identifier: MIT */
/*
 * The table of device memory: what is encoded comes back, and every rule of SPEC.md section 10 is
 * held. A case changes bytes of a good table, makes the checksum right again, and names the class
 * and the words that the decoder has to use.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/ckf_uuid.h"
#include "format/ckf_codec.h"
#include "format/gpu_disk.h"
#include "loader/ckf_gpu_read.h"
#include "dump_maker.h"

#define MIB (1ull << 20)
#define HEADER 64
#define DEVICE(i) (HEADER + 96 * (i))
#define ALLOC(i) (DEVICE(2) + 32 * (i))
#define TABLE_BYTES ALLOC(3)

static struct ckf_gpu_device devices[2] = {
	{ .uuid = "0123456789abcde", .total_bytes = 80ull << 30, .ordinal = 1, .name = "Fast GPU" },
	{ .uuid = "0123456789abcdf", .total_bytes = 24ull << 30, .ordinal = 0, .name = "Slow GPU" },
};

/* Out of order: encode sorts. */
static struct ckf_gpu_alloc allocs[3] = {
	{ .addr = 0x7f0000400000, .bytes = 2 * MIB, .device = 1, .flags = CKF_GPU_ALLOC_RDMA },
	{ .addr = 0x7f0000000000, .bytes = 4 * MIB, .device = 0 },
	{ .addr = 0x7f8000000000, .bytes = 64 * MIB, .device = 0 },
};

#define SHARED_ALLOC(i) (DEVICE(2) + 48 * (i))
#define SHARED_TABLE_BYTES SHARED_ALLOC(3)

/* The same, the second as its task exports it, the third from another task. */
static uint8_t *shared_table(void)
{
	struct ckf_gpu_alloc own[3];
	struct ckf_gpu_dump d = {
		.pid = 77, .devices = devices, .nr_devices = 2, .allocs = own, .nr_allocs = 3
	};
	size_t bytes;
	void *buf;

	memcpy(own, allocs, sizeof(own));
	/* They may be sorted by now. */
	for (int i = 0; i < 3; i++) {
		if (own[i].flags & CKF_GPU_ALLOC_RDMA) {
			own[i].flags |= CKF_GPU_ALLOC_SHARED;
			memcpy(own[i].shared_id, "the one of a pair", 16);
		} else if (own[i].bytes == 64 * MIB) {
			own[i].flags |= CKF_GPU_ALLOC_SHARED | CKF_GPU_ALLOC_IMPORT;
			memcpy(own[i].shared_id, "one of two others", 16);
		}
	}
	assert_int_equal(ckf_gpu_dump_encode(&d, &buf, &bytes, NULL), 0);
	assert_int_equal(bytes, SHARED_TABLE_BYTES);
	assert_int_equal(d.bytes, 6 * MIB);
	assert_int_equal(d.major, 2);
	return buf;
}

static uint8_t *good_table(void)
{
	struct ckf_gpu_dump d = {
		.pid = 77, .devices = devices, .nr_devices = 2, .allocs = allocs, .nr_allocs = 3
	};
	size_t bytes;
	void *buf;

	assert_int_equal(ckf_gpu_dump_encode(&d, &buf, &bytes, NULL), 0);
	assert_int_equal(bytes, TABLE_BYTES);
	assert_int_equal(d.bytes, 70 * MIB);
	return buf;
}

static void fix(uint8_t *buf, size_t bytes)
{
	struct ckf_disk_gpu_header *h = (void *)buf;

	h->checksum = ckf_put64(0);
	h->checksum = ckf_put64(ckf_hash64(buf, bytes));
}

static void test_round_trip(void **state)
{
	uint8_t *buf = good_table();
	struct ckf_gpu_dump *d;

	(void)state;
	assert_int_equal(ckf_gpu_dump_decode(buf, TABLE_BYTES, &d, NULL), 0);
	assert_int_equal(d->pid, 77);
	assert_int_equal(d->nr_devices, 2);
	assert_memory_equal(d->devices, devices, sizeof(devices));
	assert_int_equal(d->nr_allocs, 3);
	assert_memory_equal(d->allocs, allocs, sizeof(allocs));
	assert_int_equal(d->allocs[0].addr, 0x7f0000000000);
	assert_int_equal(d->bytes, 70 * MIB);
	ckf_gpu_dump_free(d);
	ckf_gpu_dump_free(NULL);
	/* A newer minor version changes nothing. */
	buf[10] = 9;
	fix(buf, TABLE_BYTES);
	assert_int_equal(ckf_gpu_dump_decode(buf, TABLE_BYTES, &d, NULL), 0);
	ckf_gpu_dump_free(d);
	free(buf);
}

static void test_empty(void **state)
{
	struct ckf_gpu_dump in = { .pid = 1 }, *d;
	size_t bytes;
	void *buf;

	(void)state;
	assert_int_equal(ckf_gpu_dump_encode(&in, &buf, &bytes, NULL), 0);
	assert_int_equal(bytes, HEADER);
	assert_int_equal(ckf_gpu_dump_decode(buf, bytes, &d, NULL), 0);
	assert_int_equal(d->bytes + d->nr_allocs + d->nr_devices, 0);
	ckf_gpu_dump_free(d);
	free(buf);
}

static const struct bad {
	size_t off;
	size_t width;
	uint64_t value;
	const char *words;
} cases[] = {
	{ 0, 1, 'X', "corrupt gpu-header at 0: R-gpu: magic" },
	{ 8, 2, 3, "unsupported gpu-header at 0: R-gpu: version_major, got 3" },
	{ 8, 2, 2, "R-gpu: length of the file, got 352, want 400" },
	{ 8, 2, 0, "R-gpu: version_major, got 0" },
	{ 12, 4, 128, "R-gpu: header_bytes, got 128, want 64" },
	{ 20, 4, 65, "R-gpu: nr_devices, got 65, want at most 64" },
	{ 20, 4, 1, "R-gpu: length of the file, got 352, want 256" },
	{ 20, 4, UINT32_MAX, "R-gpu: nr_devices" },
	{ 24, 4, (1 << 20) + 1, "R-gpu: nr_allocs, got 1048577, want at most 1048576" },
	{ 24, 4, 2, "R-gpu: length of the file, got 352, want 320" },
	{ 24, 4, 4, "R-gpu: length of the file, got 352, want 384" },
	{ 28, 4, 1, "corrupt gpu-header at 0: R-reserved" },
	{ 40, 1, 1, "corrupt gpu-header at 0: R-reserved" },
	{ 55, 1, 1, "corrupt gpu-header at 0: R-reserved" },
	{ 32, 8, 72 * MIB, "R-gpu: pages_bytes, got 75497472, want 73400320" },
	{ DEVICE(1) + 24, 4, 1, "corrupt gpu-devices[1] at 160: R-gpu: ordinal, got 1" },
	{ DEVICE(0) + 28, 4, 1, "corrupt gpu-devices[0] at 64: R-reserved" },
	{ DEVICE(1) + 95, 1, 'x', "corrupt gpu-devices[1] at 160: R-padding" },
	{ ALLOC(0), 8, 0x7f0000001000, "corrupt gpu-allocs[0] at 256: R-gpu: address" },
	{ ALLOC(1), 8, 0x7f0000200000,
	  "corrupt gpu-allocs[1] at 288: R-gpu: address, got 0x7f0000200000, want at least "
	  "0x7f0000400000" },
	{ ALLOC(2), 8, 0x7f0000400000, "corrupt gpu-allocs[2] at 320: R-gpu: address" },
	{ ALLOC(2), 8, (1ull << 63) - 62 * MIB, "want an end at most 0x8000000000000000" },
	{ ALLOC(2), 8, 0ull - 2 * MIB, "want an end at most 0x8000000000000000" },
	{ ALLOC(1) + 8, 8, 0, "R-gpu: bytes, got 0" },
	{ ALLOC(1) + 8, 8, MIB, "R-gpu: bytes, got 1048576" },
	{ ALLOC(2) + 8, 8, 0ull - 2 * MIB, "want an end at most 0x8000000000000000" },
	{ ALLOC(1) + 16, 4, 2, "R-gpu: device, got 2, want below 2" },
	{ ALLOC(1) + 20, 4, 2, "R-reserved: flags, got 0x2, want only 0x1" },
	{ ALLOC(1) + 24, 8, 1ull << 63, "corrupt gpu-allocs[1] at 288: R-reserved" },
};

static const struct bad shared_cases[] = {
	{ 8, 2, 1, "R-gpu: length of the file, got 400, want 352" },
	{ 32, 8, 70 * MIB, "R-gpu: pages_bytes, got 73400320, want 6291456" },
	{ SHARED_ALLOC(0) + 20, 4, 8, "R-reserved: flags, got 0x8, want only 0x7" },
	{ SHARED_ALLOC(0) + 20, 4, 2, "R-gpu: shared_id, got zero for shared memory" },
	{ SHARED_ALLOC(0) + 20, 4, 4, "R-gpu: flags, got an import that is not shared" },
	{ SHARED_ALLOC(1) + 20, 4, 1, "corrupt gpu-allocs[1] at 304: R-gpu: shared_id, got one" },
	{ SHARED_ALLOC(0) + 47, 1, 1, "R-gpu: shared_id, got one for other memory" },
	{ SHARED_ALLOC(2) + 24, 8, 1, "corrupt gpu-allocs[2] at 352: R-reserved" },
};

static void put(uint8_t *buf, const struct bad *e)
{
	for (size_t i = 0; i < e->width; i++)
		buf[e->off + i] = (uint8_t)(e->value >> 8 * i);
}

static void expect_bad(const uint8_t *buf, size_t bytes, int want, const char *words)
{
	struct ckf_gpu_dump *d = (void *)&bytes;
	struct ckf_error err = { 0 };
	int ret = ckf_gpu_dump_decode(buf, bytes, &d, &err);

	if (ret != want || !strstr(err.msg, words))
		fail_msg("want %d '%s', got %d '%s'", want, words, ret, err.msg);
	assert_null(d);
	assert_int_equal(ckf_gpu_dump_decode(buf, bytes, &d, NULL), want);
}

static void test_rules(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		uint8_t *buf = good_table();

		put(buf, &cases[i]);
		fix(buf, TABLE_BYTES);
		expect_bad(buf, TABLE_BYTES,
			   strncmp(cases[i].words, "unsupported", 11) ? -EBADMSG : -EOPNOTSUPP,
			   cases[i].words);
		free(buf);
	}
}

static void test_shared_rules(void **state)
{
	uint8_t *buf = shared_table();
	struct ckf_gpu_dump *d;

	(void)state;
	assert_int_equal(ckf_gpu_dump_decode(buf, SHARED_TABLE_BYTES, &d, NULL), 0);
	assert_int_equal(d->bytes, 6 * MIB);
	assert_int_equal(d->allocs[1].flags, CKF_GPU_ALLOC_RDMA | CKF_GPU_ALLOC_SHARED);
	assert_memory_equal(d->allocs[1].shared_id, "the one of a pair", 16);
	assert_memory_equal(d->allocs[2].shared_id, "one of two others", 16);
	ckf_gpu_dump_free(d);
	free(buf);
	for (size_t i = 0; i < sizeof(shared_cases) / sizeof(*shared_cases); i++) {
		buf = shared_table();
		put(buf, &shared_cases[i]);
		fix(buf, SHARED_TABLE_BYTES);
		expect_bad(buf, SHARED_TABLE_BYTES, -EBADMSG, shared_cases[i].words);
		free(buf);
	}
	buf = shared_table();
	for (int i = 0; i < 3; i++) {
		buf[SHARED_ALLOC(i) + 20] &= 1;
		memset(buf + SHARED_ALLOC(i) + 32, 0, 16);
	}
	fix(buf, SHARED_TABLE_BYTES);
	expect_bad(buf, SHARED_TABLE_BYTES, -EBADMSG, "R-gpu: version_major, got 2, want 1");
	free(buf);
}

static struct ckf_gpu_dump *shared_dump(void)
{
	uint8_t *buf = shared_table();
	struct ckf_gpu_dump *d;

	assert_int_equal(ckf_gpu_dump_decode(buf, SHARED_TABLE_BYTES, &d, NULL), 0);
	free(buf);
	return d;
}

static void expect_owners(struct ckf_gpu_dump **dumps, const char *words)
{
	struct ckf_error err = { 0 };
	struct ckf_gpu_owners owners;
	int ret = ckf_gpu_owners_new(dumps, 3, &owners, &err);

	if (ret != (words ? -EBADMSG : 0) || (words && !strstr(err.msg, words)))
		fail_msg("want '%s', got %d '%s'", words ? words : "no error", ret, err.msg);
	ckf_gpu_owners_free(&owners);
}

/* Each task has what the other one imports. */
static void test_owners(void **state)
{
	struct ckf_gpu_dump *dumps[3] = { shared_dump(), NULL, shared_dump() };
	struct ckf_gpu_alloc *one = dumps[0]->allocs, *two = dumps[2]->allocs;
	struct ckf_gpu_owners owners;

	(void)state;
	dumps[2]->pid = 78;
	memcpy(two[1].shared_id, one[2].shared_id, 16);
	memcpy(two[2].shared_id, one[1].shared_id, 16);
	one[2].bytes = two[2].bytes = two[1].bytes = 2 * MIB;
	assert_int_equal(ckf_gpu_owners_new(dumps, 3, &owners, NULL), 0);
	assert_int_equal(owners.nr, 2);
	assert_int_equal(ckf_gpu_owner_find(&owners, one[2].shared_id)->dump, 2);
	assert_int_equal(ckf_gpu_owner_find(&owners, one[1].shared_id)->dump, 0);
	assert_int_equal(ckf_gpu_owner_find(&owners, one[1].shared_id)->alloc, 1);
	assert_null(ckf_gpu_owner_find(&owners, (const uint8_t *)"no such shared id"));
	ckf_gpu_owners_free(&owners);
	one[2].bytes += 2 * MIB;
	expect_owners(dumps,
		      "ckfast-gpu-77.img: corrupt gpu-allocs[2] at 352: R-gpu: bytes, got 4194304");
	one[2].bytes -= 2 * MIB;
	one[2].shared_id[3] ^= 1;
	expect_owners(
		dumps,
		"ckfast-gpu-77.img: corrupt gpu-allocs[2] at 352: R-gpu: shared_id, got one that");
	one[2].shared_id[3] ^= 1;
	memcpy(two[1].shared_id, one[1].shared_id, 16);
	expect_owners(dumps, "R-gpu: shared_id, got that of an allocation of task 7");
	ckf_gpu_dump_free(dumps[0]);
	ckf_gpu_dump_free(dumps[2]);
}

/* A name without end, every length, and every single bit. */
static void test_bytes(void **state)
{
	uint8_t *buf = good_table();

	(void)state;
	for (size_t bytes = 0; bytes < TABLE_BYTES; bytes++) {
		uint8_t *cut = malloc(bytes ? bytes
					    : 1); /* a sanitizer sees any access beside it */

		assert_non_null(cut);
		memcpy(cut, buf, bytes);
		expect_bad(cut, bytes, -EBADMSG, "R-gpu: length of the file");
		free(cut);
	}
	for (size_t bit = 0; bit < TABLE_BYTES * 8; bit++) {
		struct ckf_gpu_dump *d;

		buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_true(ckf_gpu_dump_decode(buf, TABLE_BYTES, &d, NULL) < 0);
		buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	memset(buf + DEVICE(0) + 32, 'x', 64);
	fix(buf, TABLE_BYTES);
	expect_bad(buf, TABLE_BYTES, -EBADMSG, "R-gpu: name, got no byte 0");
	free(buf);
}

static void test_read(void **state)
{
	uint8_t *buf = good_table();
	struct ckf_error err = { 0 };
	struct ckf_gpu_dump *d;
	char base[64];
	int dir;

	(void)state;
	dm_tempdir(base);
	dir = open(base, O_RDONLY | O_DIRECTORY);
	assert_int_equal(ckf_gpu_dump_read(dir, 77, &d, &err), -ENOENT);
	assert_int_equal(err.code, 0);
	dm_write(dir, "ckfast-gpu-77.img", buf, TABLE_BYTES);
	assert_int_equal(ckf_gpu_dump_read(dir, 77, &d, &err), 0);
	assert_int_equal(d->nr_allocs, 3);
	ckf_gpu_dump_free(d);
	dm_write(dir, "ckfast-gpu-78.img", buf, TABLE_BYTES);
	assert_int_equal(ckf_gpu_dump_read(dir, 78, &d, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "pid, got 77"));
	assert_null(d);
	dm_write(dir, "ckfast-gpu-79.img", buf, TABLE_BYTES - 1);
	err.code = 0;
	assert_int_equal(ckf_gpu_dump_read(dir, 79, &d, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "ckfast-gpu-79.img: corrupt gpu-header"));
	assert_int_equal(symlinkat("ckfast-gpu-77.img", dir, "ckfast-gpu-80.img"), 0);
	assert_int_equal(ckf_gpu_dump_read(dir, 80, &d, NULL), -EBADMSG);
	close(dir);
	dm_remove(base);
	free(buf);
}

static void test_uuid(void **state)
{
	char buf[CKF_GPU_UUID_TEXT_BYTES];
	uint8_t uuid[16];

	(void)state;
	for (uint8_t i = 0; i < 16; i++)
		uuid[i] = (uint8_t)(i * 0x11);
	assert_string_equal(ckf_gpu_uuid_text(uuid, buf),
			    "GPU-00112233-4455-6677-8899-aabbccddeeff");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip), cmocka_unit_test(test_empty),
		cmocka_unit_test(test_rules),	   cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_read),	   cmocka_unit_test(test_uuid),
		cmocka_unit_test(test_owners),	   cmocka_unit_test(test_shared_rules),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
