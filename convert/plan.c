/* SPDX-License-Identifier: MIT */
/* Parents and inherited pages, and lanes. Huge ranges are in plan_huge.c. */
#include <errno.h>
#include <stdlib.h>

#include "base/ckf_table.h"
#include "img.h"
#include "plan.h"
#include "plan_huge.h"

/* A lane below this is not ended early just because a 2 MiB border comes by. */
#define LANE_GOOD_BYTES (CKF_LANE_MAX_BYTES / 2)
/* Each op has at least a page. */
#define LANE_MAX_OPS (CKF_LANE_MAX_BYTES / CKF_PAGE_BYTES)

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/*
 * Like CRIU, takes a parent only from among the tasks that come before in pstree.img: that there
 * are no circles follows.
 */
static void set_parent(struct ckf_index *idx, const struct ckf_dump *d, struct ckf_target *t)
{
	const struct ckf_task *task = ckf_dump_find_task(d, t->id);
	const struct ckf_task *parent;
	int64_t i;

	t->parent = 0;
	if (t->kind != CKF_TARGET_TASK || !task)
		return;
	parent = ckf_dump_find_task(d, task->ppid);
	if (!parent || parent >= task)
		return;
	i = ckf_index_find_target(idx, CKF_TARGET_TASK, parent->pid);
	if (i >= 0)
		t->parent = (uint32_t)i + 1;
}

/* Where a new list of ops goes; only counts while ops is NULL. */
struct op_out {
	struct ckf_op *ops;
	uint64_t nr;
};

static void put_op(struct op_out *out, const struct ckf_op *op, uint64_t from, uint64_t to,
		   uint64_t flags)
{
	uint64_t skip = (from - ckf_op_addr(op)) >> CKF_PAGE_SHIFT;

	if (out->ops)
		out->ops[out->nr] = (struct ckf_op){
			.place = from | ckf_op_flags(op) | flags,
			.chunk = op->chunk,
			.first_page = (uint16_t)(op->first_page + skip),
			.nr_pages = (uint16_t)((to - from) >> CKF_PAGE_SHIFT),
		};
	out->nr++;
}

/* True when both ops have the same page of the same chunk at each address that they share. */
static bool same_pages(const struct ckf_op *a, const struct ckf_op *b)
{
	return a->chunk == b->chunk && ckf_op_addr(a) - ckf_pages_to_bytes(a->first_page) ==
					       ckf_op_addr(b) - ckf_pages_to_bytes(b->first_page);
}

/*
 * Puts out one op of a child, in pieces where only a part of it is also in the parent. *pi moves on
 * in the parent's ops, of which those before it end below the op.
 */
static void inherit_op(const struct ckf_op *op, const struct ckf_op *parent, uint64_t nr_parent,
		       uint64_t *pi, struct op_out *out)
{
	uint64_t at = ckf_op_addr(op), end = ckf_op_end(op), start = at;
	bool open = false, inherit = false;

	while (*pi < nr_parent && ckf_op_end(&parent[*pi]) <= at)
		(*pi)++;
	for (uint64_t i = *pi; at < end;) {
		const struct ckf_op *p = i < nr_parent ? &parent[i] : NULL;
		uint64_t to = end;
		bool same = false;

		if (p && ckf_op_addr(p) > at) {
			to = min64(end, ckf_op_addr(p));
		} else if (p) {
			same = same_pages(op, p);
			to = min64(end, ckf_op_end(p));
			i++;
		}
		if (open && same != inherit) {
			put_op(out, op, start, at, inherit ? CKF_OP_INHERIT : 0);
			start = at;
		}
		open = true;
		inherit = same;
		at = to;
	}
	put_op(out, op, start, end, inherit ? CKF_OP_INHERIT : 0);
}

static void inherit_target(const struct ckf_index *idx, const struct ckf_target *t,
			   struct op_out *out)
{
	const struct ckf_target *parent = t->parent ? &idx->targets[t->parent - 1] : NULL;
	const struct ckf_op *ops = parent ? idx->ops + parent->first_op : NULL;
	uint64_t nr = parent ? parent->nr_ops : 0;
	uint64_t pi = 0;

	for (uint64_t i = 0; i < t->nr_ops; i++)
		inherit_op(&idx->ops[t->first_op + i], ops, nr, &pi, out);
}

/* Marks what children have from their parents. Most dumps need no op cut for it. */
static int plan_inherit(struct ckf_index *idx, struct ckf_error *err)
{
	struct op_out count = { 0 }, out = { 0 };
	uint64_t bytes;
	bool any = false;

	for (uint64_t i = 0; i < idx->nr_targets; i++) {
		inherit_target(idx, &idx->targets[i], &count);
		any |= idx->targets[i].parent != 0;
	}
	if (!any)
		return 0;
	if (ckf_mul_overflow(count.nr + 1, sizeof(*out.ops), &bytes) || bytes > SIZE_MAX / 2)
		return ckf_error_set(err, -ENOMEM, "no memory for the plan");
	out.ops = malloc((size_t)bytes);
	if (!out.ops)
		return ckf_error_set(err, -ENOMEM, "no memory for the plan");
	for (uint64_t i = 0; i < idx->nr_targets; i++)
		inherit_target(idx, &idx->targets[i], &out);
	/* Only now may the tables change: children were compared with them. */
	count.nr = 0;
	for (uint64_t i = 0; i < idx->nr_targets; i++) {
		struct ckf_target *t = &idx->targets[i];
		uint64_t first = count.nr, pages = 0;

		while (pages < t->nr_pages)
			pages += out.ops[count.nr++].nr_pages;
		t->first_op = first;
		t->nr_ops = count.nr - first;
	}
	free(idx->ops);
	idx->ops = out.ops;
	idx->nr_ops = out.nr;
	return 0;
}

/* Where the lane that begins at first ends: the number of its ops. */
static uint64_t lane_ops(const struct ckf_op *ops, uint64_t nr)
{
	uint64_t bytes = 0, ok = 0, good = 0;

	for (uint64_t i = 0; i < nr; i++) {
		if (i && ops[i].chunk != ops[i - 1].chunk) {
			ok = i;
			if (bytes >= LANE_GOOD_BYTES &&
			    (ckf_op_end(&ops[i - 1]) - 1) / CKF_HUGE_BYTES !=
				    ckf_op_addr(&ops[i]) / CKF_HUGE_BYTES)
				good = i;
		}
		if (bytes + ckf_pages_to_bytes(ops[i].nr_pages) > CKF_LANE_MAX_BYTES) {
			if (good)
				return good;
			return ok ? ok : i;
		}
		bytes += ckf_pages_to_bytes(ops[i].nr_pages);
	}
	return nr;
}

static void sum_lane(const struct ckf_index *idx, struct ckf_lane *l, uint32_t *scratch)
{
	const struct ckf_op *ops = idx->ops + l->first_op;

	for (uint64_t i = 0; i < l->nr_ops; i++) {
		l->fill_bytes += ckf_pages_to_bytes(ops[i].nr_pages);
		scratch[i] = ops[i].chunk;
	}
	qsort(scratch, (size_t)l->nr_ops, sizeof(*scratch), ckf_compare_u32);
	for (uint64_t i = 0; i < l->nr_ops; i++) {
		if (!i || scratch[i] != scratch[i - 1])
			l->read_bytes += idx->chunks[scratch[i]].stored_bytes;
	}
}

static int plan_lanes(struct ckf_index *idx, struct ckf_error *err)
{
	uint32_t *scratch = malloc(LANE_MAX_OPS * sizeof(*scratch));
	uint64_t cap = 0;
	int ret = scratch ? 0 : -ENOMEM;

	for (uint64_t i = 0; i < idx->nr_targets && !ret; i++) {
		struct ckf_target *t = &idx->targets[i];
		uint64_t at = t->first_op, end = t->first_op + t->nr_ops;

		t->first_lane = (uint32_t)idx->nr_lanes;
		while (at < end) {
			struct ckf_lane l = { .first_op = at, .target = (uint32_t)i };

			if (idx->nr_lanes == UINT32_MAX) {
				ret = ckf_error_set(err, -E2BIG, "more than 2^32 lanes");
				break;
			}
			ret = ckf_array_grow(&idx->lanes, idx->nr_lanes, &cap, sizeof(l));
			if (ret)
				break;
			l.nr_ops = lane_ops(idx->ops + at, end - at);
			sum_lane(idx, &l, scratch);
			idx->lanes[idx->nr_lanes++] = l;
			at += l.nr_ops;
		}
		t->nr_lanes = (uint32_t)(idx->nr_lanes - t->first_lane);
	}
	free(scratch);
	return ret ? ckf_error_set(err, ret, "no memory for the plan") : 0;
}

int ckf_plan_build(struct ckf_index *idx, const struct ckf_dump *d, struct ckf_error *err)
{
	int ret;

	for (uint64_t i = 0; i < idx->nr_targets; i++)
		set_parent(idx, d, &idx->targets[i]);
	ret = plan_inherit(idx, err);
	if (!ret)
		ret = plan_lanes(idx, err);
	if (!ret)
		ret = ckf_plan_huge(idx, d, err);
	return ret;
}
