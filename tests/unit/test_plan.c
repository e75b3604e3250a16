/* SPDX-License-Identifier: MIT */
/* The plan: what children inherit, lanes, and ranges for huge pages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "convert/plan.h"
#include "convert/vma.h"

#define MIB (1ull << 20)
#define MAX_OPS 40000

/* Chunk 0 is zeros of 256 pages; the others are raw, of 256 pages. */
#define NR_CHUNKS 20000

struct fixture {
	struct ckf_index idx;
	struct ckf_dump dump;
	struct ckf_task tasks[3];
	const struct ckf_task *by_pid[3];
	struct ckf_vma vmas[3][4];
	struct ckf_target targets[3];
};

static struct fixture *fixture_new(void)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->idx.chunks = calloc(NR_CHUNKS, sizeof(*f->idx.chunks));
	f->idx.ops = calloc(MAX_OPS, sizeof(*f->idx.ops));
	assert_non_null(f->idx.chunks);
	assert_non_null(f->idx.ops);
	f->idx.nr_chunks = NR_CHUNKS;
	for (uint32_t i = 0; i < NR_CHUNKS; i++) {
		f->idx.chunks[i].nr_pages = 256;
		f->idx.chunks[i].codec = i ? CKF_CODEC_RAW : CKF_CODEC_ZERO;
		f->idx.chunks[i].stored_bytes = i ? MIB : 0;
	}
	f->idx.targets = f->targets;
	f->dump.tasks = f->tasks;
	f->dump.by_pid = f->by_pid;
	return f;
}

static void fixture_free(struct fixture *f)
{
	free(f->idx.chunks);
	free(f->idx.ops);
	free(f->idx.lanes);
	free(f->idx.huge);
	free(f);
}

/* A task with one private anonymous mapping, and its target. Pids ascend. */
static struct ckf_vma *add_task(struct fixture *f, uint32_t pid, uint32_t ppid, uint64_t start,
				uint64_t end)
{
	uint64_t n = f->dump.nr_tasks++;
	struct ckf_vma *v = &f->vmas[n][0];

	f->tasks[n] = (struct ckf_task){ .pid = pid, .ppid = ppid, .vmas = v, .nr_vmas = 1 };
	f->by_pid[n] = &f->tasks[n];
	*v = (struct ckf_vma){
		.start = start,
		.end = end,
		.flags = MAP_PRIVATE | MAP_ANONYMOUS,
		.status = CKF_VMA_AREA_REGULAR | CKF_VMA_ANON_PRIVATE,
	};
	f->targets[f->idx.nr_targets++] = (struct ckf_target){ .kind = CKF_TARGET_TASK,
							       .id = pid,
							       .first_op = f->idx.nr_ops };
	return v;
}

static void add_op(struct fixture *f, uint64_t place, uint32_t chunk, uint16_t first,
		   uint16_t nr_pages)
{
	struct ckf_target *t = &f->targets[f->idx.nr_targets - 1];

	assert_true(f->idx.nr_ops < MAX_OPS);
	f->idx.ops[f->idx.nr_ops++] = (struct ckf_op){ place, chunk, first, nr_pages };
	t->nr_ops++;
	t->nr_pages += nr_pages;
}

/* Whole chunks one after the other. */
static void add_chunks(struct fixture *f, uint64_t addr, uint32_t chunk, uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i++)
		add_op(f, addr + i * MIB, chunk + i, 0, 256);
}

static void plan(struct fixture *f)
{
	uint64_t at = 0, op = 0;

	assert_int_equal(ckf_plan_build(&f->idx, &f->dump, NULL), 0);
	for (uint64_t i = 0; i < f->idx.nr_targets; i++) {
		const struct ckf_target *t = &f->targets[i];
		uint64_t pages = 0;

		assert_int_equal(t->first_op, op);
		for (; op < t->first_op + t->nr_ops; op++)
			pages += f->idx.ops[op].nr_pages;
		assert_int_equal(pages, t->nr_pages);
		assert_int_equal(t->first_lane, at);
		for (uint64_t k = 0, first = t->first_op; k < t->nr_lanes; k++, at++) {
			assert_int_equal(f->idx.lanes[at].first_op, first);
			assert_int_equal(f->idx.lanes[at].target, i);
			assert_in_range(f->idx.lanes[at].fill_bytes, 1, CKF_LANE_MAX_BYTES);
			first += f->idx.lanes[at].nr_ops;
		}
	}
	assert_int_equal(at, f->idx.nr_lanes);
	assert_int_equal(op, f->idx.nr_ops);
}

static void assert_op(const struct ckf_op *op, uint64_t place, uint32_t chunk, uint16_t first,
		      uint16_t nr)
{
	assert_int_equal(op->place, place);
	assert_int_equal(op->chunk, chunk);
	assert_int_equal(op->first_page, first);
	assert_int_equal(op->nr_pages, nr);
}

static void test_inherit(void **state)
{
	struct fixture *f = fixture_new();
	struct ckf_op *ops;

	(void)state;
	add_task(f, 5, 1, 0x100000, 0x10000000);
	add_op(f, 0x100000, 1, 0, 10);
	add_op(f, 0x10a000, 2, 0, 20);
	add_op(f, 0x200000, 3, 0, 10);
	add_op(f, 0x300000, 4, 0, 10);
	add_task(f, 6, 5, 0x100000, 0x10000000);
	add_op(f, 0x100000, 1, 0, 10);		 /* all of it */
	add_op(f, 0x10a000, 2, 1, 20);		 /* same chunk, other pages */
	add_op(f, 0x1fe000, 3, 0, 10);		 /* the same, moved */
	add_op(f, 0x300000 - 0x2000, 4, 254, 2); /* before the parent's */
	add_op(f, 0x300000, 4, 0, 12);		 /* longer than the parent's */
	plan(f);
	ops = f->idx.ops + f->targets[1].first_op;
	assert_int_equal(f->targets[0].parent, 0);
	assert_int_equal(f->targets[1].parent, 1);
	assert_int_equal(f->targets[1].nr_ops, 6);
	assert_op(&ops[0], 0x100000 | CKF_OP_INHERIT, 1, 0, 10);
	assert_op(&ops[1], 0x10a000, 2, 1, 20);
	assert_op(&ops[2], 0x1fe000, 3, 0, 10);
	assert_op(&ops[3], 0x2fe000, 4, 254, 2);
	assert_op(&ops[4], 0x300000 | CKF_OP_INHERIT, 4, 0, 10);
	assert_op(&ops[5], 0x30a000, 4, 10, 2);
	fixture_free(f);
}

/* One op of the child over two of the parent that have the same pages between them. */
static void test_inherit_joined(void **state)
{
	struct fixture *f = fixture_new();
	struct ckf_op *ops;

	(void)state;
	add_task(f, 5, 1, 0, 0x10000000);
	add_op(f, 0x102000, 1, 2, 3);
	add_op(f, 0x105000, 1, 5, 3);
	add_op(f, 0x109000 | CKF_OP_DIRECT, 1, 9, 1);
	add_task(f, 6, 5, 0, 0x10000000);
	add_op(f, 0x100000 | CKF_OP_DIRECT, 1, 0, 10);
	plan(f);
	ops = f->idx.ops + f->targets[1].first_op;
	assert_int_equal(f->targets[1].nr_ops, 4);
	assert_op(&ops[0], 0x100000 | CKF_OP_DIRECT, 1, 0, 2);
	assert_op(&ops[1], 0x102000 | CKF_OP_DIRECT | CKF_OP_INHERIT, 1, 2, 6);
	assert_op(&ops[2], 0x108000 | CKF_OP_DIRECT, 1, 8, 1);
	assert_op(&ops[3], 0x109000 | CKF_OP_DIRECT | CKF_OP_INHERIT, 1, 9, 1);
	fixture_free(f);
}

/* A parent must come before its child, as for CRIU: circles and strangers are no parents. */
static void test_parents(void **state)
{
	struct fixture *f = fixture_new();

	(void)state;
	add_task(f, 5, 6, 0, 0x100000);
	add_task(f, 6, 5, 0, 0x100000);
	add_task(f, 7, 7, 0, 0x100000);
	plan(f);
	assert_int_equal(f->targets[0].parent, 0);
	assert_int_equal(f->targets[1].parent, 1);
	assert_int_equal(f->targets[2].parent, 0);
	assert_int_equal(f->idx.nr_lanes, 0);
	fixture_free(f);
}

static void test_lanes(void **state)
{
	struct fixture *f = fixture_new();

	(void)state;
	/* 70 MiB in chunks that lie across 2 MiB borders, with one gap. */
	add_task(f, 5, 0, 0, 1ull << 40);
	add_chunks(f, 16 * MIB + 4096, 1, 20);
	add_chunks(f, 64 * MIB + 4096, 21, 50);
	/* The same chunk twice counts once. */
	add_task(f, 6, 0, 0, 1ull << 40);
	add_op(f, 0x1000, 100, 0, 10);
	add_op(f, 0x100000, 100, 20, 10);
	add_op(f, 0x200000, 0, 20, 10);
	plan(f);
	assert_int_equal(f->targets[0].nr_lanes, 3);
	assert_int_equal(f->idx.lanes[0].nr_ops, 20);
	assert_int_equal(f->idx.lanes[0].read_bytes, 20 * MIB);
	assert_int_equal(f->idx.lanes[1].nr_ops, 32);
	assert_int_equal(f->targets[1].nr_lanes, 1);
	assert_int_equal(f->idx.lanes[3].read_bytes, MIB);
	assert_int_equal(f->idx.lanes[3].fill_bytes, 30 * CKF_PAGE_BYTES);
	fixture_free(f);
}

/* Single pages of few chunks: a lane ends between two chunks though it could be fuller. */
static void test_lanes_fragmented(void **state)
{
	struct fixture *f = fixture_new();
	uint64_t first;

	(void)state;
	add_task(f, 5, 0, 0, 1ull << 40);
	for (uint32_t i = 0; i < 20000; i++)
		add_op(f, 0x100000 + i * 8192ull, 1 + i / 200, (uint16_t)(i % 200), 1);
	plan(f);
	assert_int_equal(f->targets[0].nr_lanes, 3);
	for (uint64_t i = 1; i < 3; i++) {
		first = f->idx.lanes[i].first_op;
		assert_int_not_equal(f->idx.ops[first].chunk, f->idx.ops[first - 1].chunk);
	}
	fixture_free(f);
}

static void test_huge(void **state)
{
	struct fixture *f = fixture_new();
	struct ckf_vma *v;

	(void)state;
	v = add_task(f, 5, 0, 3 * MIB, 64 * MIB);
	add_chunks(f, 3 * MIB, 1, 8);	/* 4 to 10: the border at 2 is not in the VMA */
	add_chunks(f, 12 * MIB, 10, 2); /* apart from the first */
	add_op(f, 14 * MIB, 0, 0, 256); /* zeros, and the next ones touch them */
	add_op(f, 15 * MIB, 0, 0, 256);
	add_op(f, 16 * MIB, 0, 0, 256); /* zeros and data */
	add_op(f, 17 * MIB, 20, 0, 256);
	add_op(f, 18 * MIB, 21, 0, 256); /* a page short */
	add_op(f, 19 * MIB, 22, 0, 255);
	add_op(f, 20 * MIB, 23, 0, 256); /* restored by others */
	add_op(f, 21 * MIB | CKF_OP_DIRECT, 24, 0, 256);
	add_chunks(f, 62 * MIB, 30, 4); /* beyond the end of the VMA */
	plan(f);
	assert_int_equal(f->idx.nr_huge, 3);
	assert_int_equal(f->idx.huge[0].addr, 4 * MIB);
	assert_int_equal(f->idx.huge[0].nr_huge, 3);
	assert_int_equal(f->idx.huge[1].addr, 12 * MIB);
	assert_int_equal(f->idx.huge[1].nr_huge, 3);
	assert_int_equal(f->idx.huge[2].addr, 62 * MIB);
	assert_int_equal(f->idx.huge[2].nr_huge, 1);

	for (int i = 0; i < 7; i++) {
		struct ckf_vma saved = *v;

		v->flags |= i == 0 ? MAP_HUGETLB : i == 1 ? MAP_GROWSDOWN : 0;
		v->madv = i == 2 ? 1ull << MADV_NOHUGEPAGE : 0;
		v->status |= i == 3 ? CKF_VMA_EXT_PLUGIN : 0;
		v->status &= i == 4 ? ~CKF_VMA_ANON_PRIVATE : i == 5 ? ~CKF_VMA_AREA_REGULAR : ~0u;
		f->tasks[0].thp_disabled = i == 6;
		f->idx.nr_huge = f->idx.nr_lanes = 0;
		free(f->idx.huge);
		free(f->idx.lanes);
		f->idx.huge = NULL;
		f->idx.lanes = NULL;
		plan(f);
		assert_int_equal(f->idx.nr_huge, 0);
		*v = saved;
	}
	fixture_free(f);
}

/* What a parent and a child share is restored in small pages on both sides. */
static void test_huge_shared(void **state)
{
	struct fixture *f = fixture_new();

	(void)state;
	add_task(f, 5, 0, 2 * MIB, 32 * MIB);
	add_chunks(f, 2 * MIB, 1, 12);
	add_task(f, 6, 5, 2 * MIB, 32 * MIB);
	add_chunks(f, 2 * MIB, 1, 2);	 /* inherited */
	add_chunks(f, 6 * MIB, 100, 1);	 /* its own, where the parent has pages too */
	add_chunks(f, 16 * MIB, 200, 2); /* its own alone */
	plan(f);
	assert_int_equal(f->idx.nr_huge, 3);
	assert_int_equal(f->idx.huge[0].addr, 4 * MIB);
	assert_int_equal(f->idx.huge[0].nr_huge, 1);
	assert_int_equal(f->idx.huge[1].addr, 8 * MIB);
	assert_int_equal(f->idx.huge[1].nr_huge, 3);
	assert_int_equal(f->idx.huge[2].target, 1);
	assert_int_equal(f->idx.huge[2].addr, 16 * MIB);
	fixture_free(f);

	/* Another mapping in the child: CRIU does not share it. */
	f = fixture_new();
	add_task(f, 5, 0, 2 * MIB, 32 * MIB);
	add_chunks(f, 2 * MIB, 1, 2);
	add_task(f, 6, 5, 2 * MIB, 30 * MIB);
	add_chunks(f, 2 * MIB, 100, 2);
	plan(f);
	assert_int_equal(f->idx.nr_huge, 2);
	fixture_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_inherit),		 cmocka_unit_test(test_inherit_joined),
		cmocka_unit_test(test_parents),		 cmocka_unit_test(test_lanes),
		cmocka_unit_test(test_lanes_fragmented), cmocka_unit_test(test_huge),
		cmocka_unit_test(test_huge_shared),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
