/* SPDX-License-Identifier: MIT */
/* ckf_index.h on valid images: round trips, layout, look-ups. Broken ones: test_corrupt.c. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "img_builder.h"

#define ROUNDS 300

static struct ckf_index *decode(const uint8_t *buf, size_t bytes)
{
	struct ckf_error err = { 0 };
	struct ckf_index *idx;
	int ret = ckf_index_decode(buf, bytes, &idx, &err);

	if (ret)
		print_error("%s\n", err.msg);
	assert_int_equal(ret, 0);
	assert_int_equal(err.code, 0);
	return idx;
}

static void assert_same_files(const struct ckf_index *a, const struct ckf_index *b)
{
	assert_int_equal(a->nr_files, b->nr_files);
	for (uint64_t i = 0; i < a->nr_files; i++) {
		const struct ckf_file *x = &a->files[i];
		const struct ckf_file *y = &b->files[i];

		assert_string_equal(x->name, y->name);
		assert_true(!x->target == !y->target);
		if (x->target)
			assert_string_equal(x->target, y->target);
		assert_true(x->size_bytes == y->size_bytes && x->checksum == y->checksum);
		assert_true(x->mtime_sec == y->mtime_sec && x->mtime_nsec == y->mtime_nsec);
		assert_true(x->mode == y->mode && x->uid == y->uid && x->gid == y->gid);
		assert_true(x->first_ref == y->first_ref && x->nr_refs == y->nr_refs);
		assert_int_equal(x->kind, y->kind);
	}
}

static void assert_same_arrays(const struct ckf_index *a, const struct ckf_index *b)
{
	assert_int_equal(a->nr_chunks, b->nr_chunks);
	for (uint64_t i = 0; i < a->nr_chunks; i++) {
		const struct ckf_chunk *x = &a->chunks[i];
		const struct ckf_chunk *y = &b->chunks[i];

		assert_true(x->pack_off == y->pack_off && x->checksum == y->checksum);
		assert_true(x->stored_bytes == y->stored_bytes && x->nr_pages == y->nr_pages);
		assert_int_equal(x->codec, y->codec);
	}
	assert_int_equal(a->nr_refs, b->nr_refs);
	for (uint64_t i = 0; i < a->nr_refs; i++)
		assert_int_equal(a->refs[i], b->refs[i]);
	assert_int_equal(a->nr_targets, b->nr_targets);
	for (uint64_t i = 0; i < a->nr_targets; i++) {
		const struct ckf_target *x = &a->targets[i];
		const struct ckf_target *y = &b->targets[i];

		assert_true(x->id == y->id && x->nr_pages == y->nr_pages && x->kind == y->kind);
		assert_true(x->first_op == y->first_op && x->nr_ops == y->nr_ops);
		assert_true(x->first_lane == y->first_lane && x->nr_lanes == y->nr_lanes);
		assert_true(x->file == y->file && x->parent == y->parent);
	}
	assert_int_equal(a->nr_ops, b->nr_ops);
	for (uint64_t i = 0; i < a->nr_ops; i++) {
		assert_true(a->ops[i].place == b->ops[i].place);
		assert_int_equal(a->ops[i].chunk, b->ops[i].chunk);
		assert_int_equal(a->ops[i].first_page, b->ops[i].first_page);
		assert_int_equal(a->ops[i].nr_pages, b->ops[i].nr_pages);
	}
	assert_int_equal(a->nr_lanes, b->nr_lanes);
	for (uint64_t i = 0; i < a->nr_lanes; i++) {
		const struct ckf_lane *x = &a->lanes[i];
		const struct ckf_lane *y = &b->lanes[i];

		assert_true(x->first_op == y->first_op && x->nr_ops == y->nr_ops);
		assert_true(x->read_bytes == y->read_bytes && x->fill_bytes == y->fill_bytes);
		assert_int_equal(x->target, y->target);
	}
	assert_int_equal(a->nr_huge, b->nr_huge);
	for (uint64_t i = 0; i < a->nr_huge; i++) {
		assert_true(a->huge[i].addr == b->huge[i].addr);
		assert_int_equal(a->huge[i].nr_huge, b->huge[i].nr_huge);
		assert_int_equal(a->huge[i].target, b->huge[i].target);
	}
}

static void assert_same(const struct ckf_index *a, const struct ckf_index *b)
{
	assert_true(a->incompat == b->incompat && a->compat == b->compat);
	assert_int_equal(a->page_sums, b->page_sums);
	assert_true(a->pack_bytes == b->pack_bytes);
	assert_int_equal(a->extent_bytes, b->extent_bytes);
	assert_int_equal(a->max_chunk_pages, b->max_chunk_pages);
	assert_int_equal(a->version_major, b->version_major);
	assert_int_equal(a->version_minor, b->version_minor);
	assert_memory_equal(a->image_id, b->image_id, sizeof(a->image_id));
	assert_same_files(a, b);
	assert_same_arrays(a, b);
}

/* Encodes what b holds, decodes it, and encodes that again: nothing may change. */
static void check_round_trip(struct img_builder *b)
{
	struct ckf_index *idx;
	size_t bytes;
	size_t again_bytes;
	uint8_t *buf = img_encode(b, &bytes);
	void *again;

	idx = decode(buf, bytes);
	assert_same(&b->idx, idx);
	assert_int_equal(ckf_index_share(idx), 0);
	assert_same(&b->idx, idx);
	assert_int_equal(ckf_index_encode(idx, &again, &again_bytes, NULL), 0);
	assert_int_equal(bytes, again_bytes);
	assert_memory_equal(buf, again, bytes);
	ckf_index_free(idx);
	free(again);
	free(buf);
}

static void test_round_trip(void **state)
{
	const char *given = getenv("CKF_TEST_SEED");
	const uint64_t seed = given ? strtoull(given, NULL, 0) : 20240101;

	(void)state;
	print_message("seed %llu (CKF_TEST_SEED)\n", (unsigned long long)seed);
	for (uint64_t i = 0; i < ROUNDS; i++) {
		struct img_builder b;

		img_random(&b, seed + i);
		check_round_trip(&b);
		img_fini(&b);
	}
}

static void test_sample(void **state)
{
	struct img_builder b;

	(void)state;
	img_sample(&b);
	check_round_trip(&b);
	assert_true(b.idx.incompat == (CKF_INCOMPAT_LZ4 | CKF_INCOMPAT_ZSTD));
	/* One chunk follows the other without a gap. */
	b.idx.chunks[4].pack_off = b.idx.chunks[3].pack_off + b.idx.chunks[3].stored_bytes;
	check_round_trip(&b);
	assert_true(b.idx.incompat == (CKF_INCOMPAT_LZ4 | CKF_INCOMPAT_ZSTD | CKF_INCOMPAT_PACKED));
	img_fini(&b);
}

/* A fork has the tables themselves, and no copy of them. */
static void test_share(void **state)
{
	struct img_builder b;
	struct ckf_index *idx;
	size_t bytes;
	uint8_t *buf;
	int status;
	pid_t pid;

	(void)state;
	img_sample(&b);
	buf = img_encode(&b, &bytes);
	idx = decode(buf, bytes);
	assert_int_equal(ckf_index_share(idx), 0);
	assert_int_equal(ckf_index_share(idx), 0);
	pid = fork();
	if (!pid) {
		idx->chunks[0].nr_pages++;
		idx->huge[0].nr_huge++;
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(idx->chunks[0].nr_pages, b.idx.chunks[0].nr_pages + 1);
	assert_int_equal(idx->huge[0].nr_huge, b.idx.huge[0].nr_huge + 1);
	ckf_index_free(idx);
	free(buf);
	img_fini(&b);
}

static void test_empty(void **state)
{
	struct img_builder b;
	struct ckf_index *idx;
	size_t bytes;
	uint8_t *buf;

	(void)state;
	img_init(&b);
	check_round_trip(&b);
	buf = img_encode(&b, &bytes);
	assert_int_equal(bytes, 128 + 8 * 32);
	idx = decode(buf, bytes);
	assert_int_equal(idx->nr_chunks + idx->nr_files + idx->nr_targets + idx->nr_ops, 0);
	assert_int_equal(ckf_index_find_target(idx, CKF_TARGET_TASK, 1), -ENOENT);
	ckf_index_free(idx);
	free(buf);
	img_fini(&b);
}

/* The encoder's layout against an independent one. */
static void test_layout(void **state)
{
	struct img_section sections[CKF_MAX_SECTIONS];
	struct img_builder b;
	size_t bytes;
	size_t joined_bytes;
	uint8_t *buf;
	uint8_t *joined;
	uint32_t nr;

	(void)state;
	img_sample(&b);
	buf = img_encode(&b, &bytes);
	nr = img_split_sections(buf, sections);
	assert_int_equal(nr, 8);
	joined = img_join_sections(buf, sections, nr, &joined_bytes);
	assert_int_equal(bytes, joined_bytes);
	assert_memory_equal(buf, joined, bytes);
	free(joined);
	free(buf);
	img_fini(&b);
}

/* Unknown optional sections are skipped, a higher minor version and compat bits are let pass. */
static void test_newer_minor(void **state)
{
	struct img_section sections[CKF_MAX_SECTIONS];
	struct ckf_disk_header *h;
	struct img_builder b;
	struct ckf_index *idx;
	size_t bytes;
	uint8_t *joined;
	uint8_t *buf;
	uint32_t nr;

	(void)state;
	img_sample(&b);
	buf = img_encode(&b, &bytes);
	nr = img_split_sections(buf, sections);
	sections[nr++] = (struct img_section){ 0x80000000, 3, 5, "fifteen bytes.." };
	sections[nr++] = (struct img_section){ 0xffffffff, 0, 1ull << 60, "" };
	joined = img_join_sections(buf, sections, nr, &bytes);
	h = (void *)joined;
	h->version_minor = ckf_put16(7);
	h->compat = ckf_put64(1ull << 63);
	img_fix_checksums(joined, bytes);
	idx = decode(joined, bytes);
	assert_int_equal(idx->version_minor, 7);
	assert_true(idx->compat == 1ull << 63);
	assert_same_arrays(&b.idx, idx);
	assert_same_files(&b.idx, idx);
	ckf_index_free(idx);
	free(joined);
	free(buf);
	img_fini(&b);
}

/* Parts of strings may overlap: the decoder may not put terminators in place. */
static void test_shared_strings(void **state)
{
	struct img_section sections[CKF_MAX_SECTIONS];
	struct ckf_disk_file files[3] = { 0 };
	struct img_builder b;
	struct ckf_index *idx;
	size_t bytes;
	uint8_t *joined;
	uint8_t *buf;

	(void)state;
	for (uint16_t i = 0; i < 3; i++) {
		files[i].name_len = ckf_put16((uint16_t)(i + 1));
		files[i].kind = CKF_FILE_VERBATIM;
	}
	img_init(&b);
	buf = img_encode(&b, &bytes);
	img_split_sections(buf, sections);
	sections[0] = (struct img_section){ CKF_SECTION_STRINGS, 1, 3, "abc" };
	sections[3] = (struct img_section){ CKF_SECTION_FILES, 88, 3, files };
	joined = img_join_sections(buf, sections, 8, &bytes);
	idx = decode(joined, bytes);
	assert_string_equal(idx->files[0].name, "a");
	assert_string_equal(idx->files[1].name, "ab");
	assert_string_equal(idx->files[2].name, "abc");
	ckf_index_free(idx);
	free(joined);
	free(buf);
	img_fini(&b);
}

static void test_find(void **state)
{
	const struct ckf_target *t;
	struct img_builder b;

	(void)state;
	img_sample(&b);
	assert_int_equal(ckf_index_find_target(&b.idx, CKF_TARGET_TASK, 1), 0);
	assert_int_equal(ckf_index_find_target(&b.idx, CKF_TARGET_TASK, 2), 1);
	assert_int_equal(ckf_index_find_target(&b.idx, CKF_TARGET_TASK, 3), 2);
	assert_int_equal(ckf_index_find_target(&b.idx, CKF_TARGET_SHMEM, 5), 3);
	assert_int_equal(ckf_index_find_target(&b.idx, CKF_TARGET_TASK, 5), -ENOENT);
	assert_int_equal(ckf_index_find_target(&b.idx, CKF_TARGET_SHMEM, 1), -ENOENT);
	assert_int_equal(ckf_index_find_target(&b.idx, 0, 0), -ENOENT);
	assert_int_equal(ckf_index_find_target(&b.idx, 9, 0), -ENOENT);
	t = &b.idx.targets[1];
	assert_int_equal(ckf_index_find_op(&b.idx, t, 0), 6);
	assert_int_equal(ckf_index_find_op(&b.idx, t, 0x11fff), 6);
	assert_int_equal(ckf_index_find_op(&b.idx, t, 0x12000), 7);
	assert_int_equal(ckf_index_find_op(&b.idx, t, 0x14000), 8);
	assert_int_equal(ckf_index_find_op(&b.idx, t, 0x3fffff), 9);
	assert_int_equal(ckf_index_find_op(&b.idx, t, 0x400000), 10);
	assert_int_equal(ckf_index_find_op(&b.idx, t, UINT64_MAX), 10);
	assert_int_equal(ckf_index_find_op(&b.idx, &b.idx.targets[2], 0), 10);
	img_fini(&b);
}

struct parts {
	struct ckf_huge_part part[4];
	unsigned int nr;
	unsigned int stop; /* at the part of this number */
};

static int add_part(void *arg, const struct ckf_huge_part *part)
{
	struct parts *p = arg;

	assert_true(p->nr < 4);
	p->part[p->nr++] = *part;
	return p->nr == p->stop ? -ENOMEM : 0;
}

/* Whole and in parts, across a border, and not at all. */
static void test_each_huge(void **state)
{
	const uint64_t base = 1ull << 32, huge = CKF_HUGE_BYTES, page = CKF_PAGE_BYTES;
	struct ckf_op ops[] = {
		{ .place = 0, .nr_pages = 9 }, /* of another target */
		{ .place = base + page, .nr_pages = 1 },
		{ .place = (base + huge - 2 * page) | CKF_OP_INHERIT, .nr_pages = 4 },
		{ .place = base + 3 * huge, .nr_pages = 512 },
	};
	const struct ckf_index idx = { .ops = ops, .nr_ops = 4 };
	const struct ckf_target t = { .first_op = 1, .nr_ops = 3 }, none = { .first_op = 1 };
	struct parts p = { 0 };

	(void)state;
	assert_int_equal(ckf_index_each_huge(&idx, &none, add_part, &p), 0);
	assert_int_equal(p.nr, 0);
	assert_int_equal(ckf_index_each_huge(&idx, &t, add_part, &p), 0);
	assert_int_equal(p.nr, 3);
	assert_true(p.part[0].addr == base && p.part[0].nr_pages == 3);
	assert_int_equal(p.part[0].flags, CKF_OP_INHERIT);
	assert_true(p.part[1].addr == base + huge && p.part[1].nr_pages == 2);
	assert_int_equal(p.part[1].flags, CKF_OP_INHERIT);
	assert_true(p.part[2].addr == base + 3 * huge && p.part[2].nr_pages == 512);
	assert_int_equal(p.part[2].flags, 0);
	p = (struct parts){ .stop = 2 };
	assert_int_equal(ckf_index_each_huge(&idx, &t, add_part, &p), -ENOMEM);
	assert_int_equal(p.nr, 2);
}

static void test_names(void **state)
{
	char name[256];

	(void)state;
	memset(name, 'x', sizeof(name));
	assert_true(ckf_name_ok("a", 1));
	assert_true(ckf_name_ok("...", 3));
	assert_true(ckf_name_ok("ckfast.idx2", 11));
	assert_true(ckf_name_ok("\xff\n", 2));
	assert_true(ckf_name_ok(name, 255));
	assert_false(ckf_name_ok(name, 256));
	assert_false(ckf_name_ok("", 0));
	assert_false(ckf_name_ok(".", 1));
	assert_false(ckf_name_ok("..", 2));
	assert_false(ckf_name_ok("a/b", 3));
	assert_false(ckf_name_ok("/", 1));
	assert_false(ckf_name_ok("a\0b", 3));
	assert_false(ckf_name_ok(CKF_IDX_NAME, strlen(CKF_IDX_NAME)));
	assert_false(ckf_name_ok(CKF_PACK_NAME, strlen(CKF_PACK_NAME)));
	assert_string_equal(ckf_target_kind_name(CKF_TARGET_TASK), "task");
	assert_string_equal(ckf_target_kind_name(CKF_TARGET_SHMEM), "shmem");
	assert_string_equal(ckf_target_kind_name(0), "?");
}

static void test_pack_header(void **state)
{
	const struct ckf_disk_pack_header *h;
	struct ckf_error err = { 0 };
	struct img_builder b;
	size_t bytes;

	(void)state;
	img_sample(&b);
	free(img_encode(&b, &bytes));
	h = (const void *)b.pack;
	assert_memory_equal(h->magic, "CKFASTPK", 8);
	assert_memory_equal(h->image_id, b.idx.image_id, 16);
	assert_true(ckf_get64(h->pack_bytes) == b.idx.pack_bytes);
	assert_int_equal(ckf_pack_header_check(&b.idx, h, &err), 0);
	assert_int_equal(err.code, 0);
	img_fini(&b);
}

/* Equal indexes give equal bytes and ids; any change of metadata gives another id. */
static void test_id(void **state)
{
	uint8_t id[CKF_ID_BYTES];
	struct img_builder b;
	struct img_builder c;
	size_t bytes;

	(void)state;
	img_sample(&b);
	img_sample(&c);
	free(img_encode(&b, &bytes));
	free(img_encode(&c, &bytes));
	assert_memory_equal(b.idx.image_id, c.idx.image_id, sizeof(id));
	memcpy(id, b.idx.image_id, sizeof(id));
	b.idx.files[0].mtime_nsec--;
	free(img_encode(&b, &bytes));
	assert_memory_not_equal(b.idx.image_id, id, sizeof(id));
	img_fini(&b);
	img_fini(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),  cmocka_unit_test(test_sample),
		cmocka_unit_test(test_empty),	    cmocka_unit_test(test_layout),
		cmocka_unit_test(test_newer_minor), cmocka_unit_test(test_shared_strings),
		cmocka_unit_test(test_find),	    cmocka_unit_test(test_names),
		cmocka_unit_test(test_pack_header), cmocka_unit_test(test_id),
		cmocka_unit_test(test_share),	    cmocka_unit_test(test_each_huge),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
