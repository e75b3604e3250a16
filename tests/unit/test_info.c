/* SPDX-License-Identifier: MIT */
/* What ckfast.h tells of an image, against the index: facts, and the iterator over ops. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "fill_world.h"

static void assert_op(const struct world *w, const struct ckf_op_info *op, uint64_t nr)
{
	const struct ckf_op *want = &w->img->idx->ops[nr];
	const struct ckf_chunk *c = &w->img->idx->chunks[want->chunk];

	assert_non_null(op);
	assert_true(op->start == ckf_op_addr(want));
	assert_true(op->end == ckf_op_end(want));
	assert_int_equal(op->flags, ckf_op_flags(want));
	assert_int_equal(op->chunk, want->chunk);
	assert_int_equal(op->first_page, want->first_page);
	assert_int_equal(op->codec, c->codec);
	assert_int_equal(op->base, c->base);
}

static void test_walk(void **state)
{
	const struct ckf_op_info *op;
	const struct ckf_target *t;
	struct ckf_ops it;
	struct world w;

	(void)state;
	world_make(&w, 3, false, true, CKF_TARGET_TASK);
	t = ckf_image_target(w.img, 0);
	assert_true(t->nr_ops > 2 * CKF_OPS_AHEAD);
	ckf_ops_begin(&it, w.img, t, 0);
	op = ckf_ops_get(&it);
	for (uint64_t i = 0; i < t->nr_ops; i++, op = ckf_ops_next(&it))
		assert_op(&w, op, t->first_op + i);
	assert_null(op);
	assert_null(ckf_ops_next(&it));
	assert_null(ckf_ops_get(&it));
	world_fini(&w);
}

/* Each place as by a search of the whole index, wherever the iterator is before. */
static void test_seek(void **state)
{
	uint64_t seed = 4, addr = WORLD_BASE, nr;
	const struct ckf_op_info *op;
	const struct ckf_target *t;
	struct ckf_ops it;
	struct world w;

	(void)state;
	world_make(&w, 4, false, false, CKF_TARGET_TASK);
	t = ckf_image_target(w.img, 0);
	ckf_ops_begin(&it, w.img, t, addr);
	for (unsigned int i = 0; i < 20000; i++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		/* Mostly short ways, forth and back. */
		if (seed >> 33 & 7)
			addr += (seed >> 40 & 63) * CKF_PAGE_BYTES - 24 * CKF_PAGE_BYTES;
		else
			addr = WORLD_BASE + (seed >> 40) % (WORLD_PAGES + 9) * CKF_PAGE_BYTES;
		op = ckf_ops_seek(&it, addr);
		nr = ckf_index_find_op(w.img->idx, t, addr);
		if (nr == t->first_op + t->nr_ops)
			assert_null(op);
		else
			assert_op(&w, op, nr);
		if (op && seed >> 37 & 1) {
			op = ckf_ops_next(&it);
			if (nr + 1 < t->first_op + t->nr_ops)
				assert_op(&w, op, nr + 1);
			else
				assert_null(op);
		}
	}
	assert_null(ckf_ops_seek(&it, UINT64_MAX));
	assert_op(&w, ckf_ops_seek(&it, 0), t->first_op);
	world_fini(&w);
}

static void test_facts(void **state)
{
	struct ckf_target_info target = { .size = sizeof(target) };
	struct ckf_image_info info = { .size = sizeof(info) };
	struct ckf_chunk_info chunk = { .size = sizeof(chunk) };
	struct ckf_file_info file = { .size = sizeof(file) };
	struct ckf_lane_info lane = { .size = sizeof(lane) };
	struct ckf_base_info base = { .size = sizeof(base) };
	struct ckf_huge_info huge = { .size = sizeof(huge) };
	const struct ckf_index *idx;
	const struct ckf_target *t;
	struct world w;

	(void)state;
	world_make(&w, 5, true, true, CKF_TARGET_TASK);
	idx = w.img->idx;
	assert_int_equal(ckf_image_get_info(w.img, &info), 0);
	assert_memory_equal(info.id, idx->image_id, CKF_ID_BYTES);
	assert_true(info.pack_bytes == idx->pack_bytes);
	assert_true(info.nr_ops == idx->nr_ops);
	assert_int_equal(info.nr_bases, 1);
	assert_int_equal(info.nr_targets, 1);
	t = ckf_image_target(w.img, 0);
	assert_ptr_equal(t, idx->targets);
	assert_null(ckf_image_target(w.img, 1));
	assert_ptr_equal(ckf_image_find_target(w.img, t->kind, t->id), t);
	assert_null(ckf_image_find_target(w.img, t->kind, t->id + 1));
	assert_int_equal(ckf_target_get_info(w.img, t, &target), 0);
	assert_int_equal(target.nr, 0);
	assert_int_equal(target.id, t->id);
	assert_int_equal(target.nr_pages, t->nr_pages);
	assert_int_equal(target.nr_lanes, idx->nr_lanes);
	assert_string_equal(target.name, idx->files[t->file].name);

	for (uint64_t i = 0; i < idx->nr_chunks; i++) {
		assert_int_equal(ckf_image_get_chunk(w.img, i, &chunk), 0);
		assert_true(chunk.pack_off == idx->chunks[i].pack_off);
		assert_true(chunk.checksum == idx->chunks[i].checksum);
		assert_int_equal(chunk.base, idx->chunks[i].base);
	}
	assert_int_equal(ckf_image_get_chunk(w.img, idx->nr_chunks, &chunk), -EINVAL);
	assert_int_equal(ckf_image_get_file(w.img, 0, &file), 0);
	assert_string_equal(file.name, idx->files[0].name);
	assert_int_equal(ckf_image_get_file(w.img, idx->nr_files, &file), -EINVAL);
	assert_int_equal(ckf_image_get_lane(w.img, idx->nr_lanes - 1, &lane), 0);
	assert_int_equal(lane.nr_ops, idx->lanes[idx->nr_lanes - 1].nr_ops);
	assert_int_equal(ckf_image_get_lane(w.img, idx->nr_lanes, &lane), -EINVAL);
	assert_int_equal(ckf_image_get_base(w.img, 0, &base), -EINVAL);
	assert_int_equal(ckf_image_get_base(w.img, 1, &base), 0);
	assert_string_equal(base.path, idx->bases[0].path);
	assert_int_equal(ckf_image_get_base(w.img, 2, &base), -EINVAL);
	for (uint64_t i = 0; i < idx->nr_huge; i++) {
		assert_int_equal(ckf_image_get_huge(w.img, i, &huge), 0);
		assert_true(huge.addr == idx->huge[i].addr);
		assert_true(huge.bytes == idx->huge[i].nr_huge * (uint64_t)CKF_HUGE_BYTES);
		assert_true(ckf_target_wants_huge(w.img, t, huge.addr, huge.addr + 1));
		assert_false(ckf_target_wants_huge(w.img, t, huge.addr - 1, huge.addr));
		assert_true(
			ckf_target_wants_huge(w.img, t, huge.addr + huge.bytes - 1, UINT64_MAX));
	}
	assert_int_equal(ckf_image_get_huge(w.img, idx->nr_huge, &huge), -EINVAL);
	assert_true(idx->nr_huge > 0);
	assert_false(ckf_target_wants_huge(w.img, t, huge.addr + huge.bytes, UINT64_MAX));
	world_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_walk),
		cmocka_unit_test(test_seek),
		cmocka_unit_test(test_facts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
