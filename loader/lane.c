/* SPDX-License-Identifier: MIT */
/* From a lane of the plan to pieces: see lane.h. */
#include <errno.h>
#include <stdlib.h>

#include "lane.h"

size_t lane_find_dest(const struct lane_dest *dests, size_t nr_dests, uint64_t addr)
{
	size_t lo = 0, hi = nr_dests;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (dests[mid].end <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < nr_dests && dests[lo].start <= addr ? lo : nr_dests;
}

static struct lane_piece *new_piece(struct lane *lane)
{
	struct lane_piece *p;
	size_t max;

	if (lane->nr_pieces == lane->max_pieces) {
		max = lane->max_pieces ? lane->max_pieces * 2 : 512;
		p = realloc(lane->pieces, max * sizeof(*p));
		if (!p)
			return NULL;
		lane->pieces = p;
		lane->max_pieces = max;
	}
	return &lane->pieces[lane->nr_pieces++];
}

static int add_piece(struct lane *lane, const struct lane_part *part, uint32_t group)
{
	const struct ckf_op *op = part->op;
	struct lane_piece *p = new_piece(lane);

	if (!p)
		return -ENOMEM;
	*p = (struct lane_piece){
		.addr = part->addr,
		.dest = part->dest,
		.group = group,
		.chunk = op->chunk,
		.first_page = (uint16_t)(op->first_page +
					 ((part->addr - ckf_op_addr(op)) >> CKF_PAGE_SHIFT)),
		.nr_pages = (uint16_t)(part->bytes >> CKF_PAGE_SHIFT),
	};
	return 0;
}

/* How far the op, which ends at end, goes on in this dest from where the part begins. */
static uint64_t cut_part(const struct lane_dest *d, uint64_t addr, uint64_t end)
{
	uint64_t bytes = (end < d->end ? end : d->end) - addr;

	if (d->cut_bytes) {
		uint64_t left = d->cut_bytes - (addr - d->start) % d->cut_bytes;

		return bytes < left ? bytes : left;
	}
	return bytes;
}

static int load_op(const struct lane_planner *pl, struct lane *lane, const struct ckf_op *op,
		   void *arg, struct ckf_error *err)
{
	struct lane_part part = { .op = op, .addr = ckf_op_addr(op) };
	const uint64_t end = ckf_op_end(op);
	int ret;

	for (; part.addr < end; part.addr += part.bytes) {
		size_t i = lane_find_dest(pl->dests, pl->nr_dests, part.addr);

		if (i == pl->nr_dests)
			return ckf_error_rule(err, -EBADMSG, "ops", op - pl->img->idx->ops, 0,
					      "the plan writes to 0x%llx of %s %llu, %s",
					      (unsigned long long)part.addr,
					      ckf_target_kind_name(pl->target->kind),
					      (unsigned long long)pl->target->id, pl->nowhere);
		part.dest = (uint32_t)i;
		part.bytes = cut_part(&pl->dests[i], part.addr, end);
		ret = pl->take(arg, &part, err);
		if (ret > 0 && add_piece(lane, &part, pl->dests[i].group))
			ret = ckf_error_set(err, -ENOMEM, "no memory for the plan");
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int compare_piece(const void *pa, const void *pb)
{
	const struct lane_piece *a = pa, *b = pb;

	if (a->group != b->group)
		return a->group < b->group ? -1 : 1;
	if (a->chunk != b->chunk)
		return a->chunk < b->chunk ? -1 : 1;
	if (a->first_page != b->first_page)
		return a->first_page < b->first_page ? -1 : 1;
	return a->addr < b->addr ? -1 : a->addr > b->addr;
}

int lane_load(const struct lane_planner *pl, const struct ckf_lane *l, struct lane *lane, void *arg,
	      struct ckf_error *err)
{
	const struct ckf_op *ops = pl->img->idx->ops;
	bool sorted = true;
	int ret;

	lane->nr_pieces = 0;
	lane->pos = 0;
	for (uint64_t i = l->first_op; i < l->first_op + l->nr_ops; i++) {
		ret = load_op(pl, lane, &ops[i], arg, err);
		if (ret)
			return ret;
	}
	for (size_t i = 1; i < lane->nr_pieces && sorted; i++)
		sorted = compare_piece(&lane->pieces[i - 1], &lane->pieces[i]) <= 0;
	/* Deduplicated chunks lie elsewhere in the pack: read in its order. */
	if (!sorted)
		qsort(lane->pieces, lane->nr_pieces, sizeof(*lane->pieces), compare_piece);
	return 0;
}
