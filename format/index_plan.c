/* SPDX-License-Identifier: MIT */
/*
 * Decodes and checks the sections that say where pages go: targets, ops, lanes, huge
 * (SPEC.md 4.5-4.8).
 *
 * Ops are checked to be in order first. All searches after that are binary ones or walks that see
 * each op a bounded number of times, so that hostile plans cannot take quadratic time.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "index.h"

#define target_bad(d, i, ...) ckf_entry_bad(d, CKF_SECTION_TARGETS, i, __VA_ARGS__)
#define op_bad(d, i, ...) ckf_entry_bad(d, CKF_SECTION_OPS, i, __VA_ARGS__)
#define lane_bad(d, i, ...) ckf_entry_bad(d, CKF_SECTION_LANES, i, __VA_ARGS__)
#define huge_bad(d, i, ...) ckf_entry_bad(d, CKF_SECTION_HUGE, i, __VA_ARGS__)

/* Ops and lanes that the targets so far have taken. */
struct target_walk {
	uint64_t next_op;
	uint64_t next_lane;
};

static int check_target_parts(const struct ckf_decoder *d, uint64_t i, struct target_walk *w)
{
	const struct ckf_target *t = &d->idx->targets[i];
	const uint64_t ops_left = d->part[CKF_SECTION_OPS].count - w->next_op;
	const uint64_t lanes_left = d->part[CKF_SECTION_LANES].count - w->next_lane;

	if (t->first_op != w->next_op)
		return target_bad(d, i, "R-target: first_op, got %" PRIu64 ", want %" PRIu64,
				  t->first_op, w->next_op);
	if (t->nr_ops > ops_left)
		return target_bad(d, i, "R-target: nr_ops, got %" PRIu64 ", want at most %" PRIu64,
				  t->nr_ops, ops_left);
	if (t->first_lane != w->next_lane)
		return target_bad(d, i, "R-target: first_lane, got %u, want %" PRIu64,
				  t->first_lane, w->next_lane);
	if (t->nr_lanes > lanes_left)
		return target_bad(d, i, "R-target: nr_lanes, got %u, want at most %" PRIu64,
				  t->nr_lanes, lanes_left);
	w->next_op += t->nr_ops;
	w->next_lane += t->nr_lanes;
	return 0;
}

static int check_target(const struct ckf_decoder *d, uint64_t i, uint32_t reserved,
			struct target_walk *w)
{
	const struct ckf_index *idx = d->idx;
	const struct ckf_target *t = &idx->targets[i];

	if (t->kind < CKF_TARGET_TASK || t->kind >= CKF_TARGET_END)
		return ckf_entry_error(d, -EOPNOTSUPP, CKF_SECTION_TARGETS, i,
				       "R-target: kind, got %u, want 1 to %u", t->kind,
				       CKF_TARGET_END - 1);
	if (reserved)
		return target_bad(d, i, "R-reserved: reserved field, got %u, want 0", reserved);
	if (i && (t->kind < t[-1].kind || (t->kind == t[-1].kind && t->id <= t[-1].id)))
		return target_bad(
			d, i, "R-target: kind and id, got %u %" PRIu64 ", want above %u %" PRIu64,
			t->kind, t->id, t[-1].kind, t[-1].id);
	if (t->file >= idx->nr_files)
		return target_bad(d, i, "R-target: file, got %u, want below %" PRIu64, t->file,
				  idx->nr_files);
	if (idx->files[t->file].kind != CKF_FILE_VERBATIM)
		return target_bad(d, i, "R-target: kind of the file, got %u, want %u",
				  idx->files[t->file].kind, CKF_FILE_VERBATIM);
	return check_target_parts(d, i, w);
}

/* When all targets are decoded: a parent may come after its child. */
static int check_parent(const struct ckf_decoder *d, uint64_t i)
{
	const struct ckf_index *idx = d->idx;
	const struct ckf_target *t = &idx->targets[i];

	if (!t->parent)
		return 0;
	if (t->kind != CKF_TARGET_TASK)
		return target_bad(d, i, "R-target: parent of a %s target, got %u, want 0",
				  ckf_target_kind_name(t->kind), t->parent);
	if (t->parent > idx->nr_targets)
		return target_bad(d, i, "R-target: parent, got %u, want at most %" PRIu64,
				  t->parent, idx->nr_targets);
	if (t->parent == i + 1)
		return target_bad(d, i, "R-target: parent, got the target itself, want another");
	if (idx->targets[t->parent - 1].kind != CKF_TARGET_TASK)
		return target_bad(d, i, "R-target: kind of the parent, got %u, want %u",
				  idx->targets[t->parent - 1].kind, CKF_TARGET_TASK);
	return 0;
}

/* Targets are in the order of their kinds: those of device memory come last. */
static int check_device_feature(const struct ckf_decoder *d)
{
	const struct ckf_index *idx = d->idx;
	const bool want = idx->nr_targets &&
			  idx->targets[idx->nr_targets - 1].kind == CKF_TARGET_DEVICE;

	if (want == !!(idx->incompat & CKF_INCOMPAT_DEVICES))
		return 0;
	return ckf_error_rule(d->err, -EBADMSG, "header", -1, 0,
			      "R-feature: incompat, got 0x%" PRIx64 ", want bit 4 %s",
			      idx->incompat, want ? "set" : "clear");
}

/* That following the parents ends. Each target is looked at once: it is marked with where the walk
 * that came by began. */
static int check_circles(struct ckf_decoder *d)
{
	const struct ckf_index *idx = d->idx;
	uint32_t *seen = ckf_decoder_alloc(d, CKF_SECTION_TARGETS, sizeof(*seen));
	int ret = 0;

	if (!seen)
		return -ENOMEM;
	memset(seen, 0, (size_t)idx->nr_targets * sizeof(*seen));
	for (uint64_t i = 0; !ret && i < idx->nr_targets; i++) {
		uint64_t at = i + 1;

		while (at && !seen[at - 1]) {
			seen[at - 1] = (uint32_t)i + 1;
			at = idx->targets[at - 1].parent;
		}
		if (at && seen[at - 1] == (uint32_t)i + 1)
			ret = target_bad(d, at - 1,
					 "R-target: parent, got a circle of parents, want none");
	}
	free(seen);
	return ret;
}

int ckf_decode_targets(struct ckf_decoder *d)
{
	const struct ckf_disk_target *disk = ckf_decoder_part(d, CKF_SECTION_TARGETS);
	struct target_walk w = { 0, 0 };
	struct ckf_index *idx = d->idx;
	int ret = 0;

	idx->targets = ckf_decoder_alloc(d, CKF_SECTION_TARGETS, sizeof(*idx->targets));
	if (!idx->targets)
		return -ENOMEM;
	idx->nr_targets = d->part[CKF_SECTION_TARGETS].count;
	for (uint64_t i = 0; !ret && i < idx->nr_targets; i++) {
		idx->targets[i] = (struct ckf_target){
			.id = ckf_get64(disk[i].id),
			.nr_pages = ckf_get64(disk[i].nr_pages),
			.first_op = ckf_get64(disk[i].first_op),
			.nr_ops = ckf_get64(disk[i].nr_ops),
			.first_lane = ckf_get32(disk[i].first_lane),
			.nr_lanes = ckf_get32(disk[i].nr_lanes),
			.kind = ckf_get32(disk[i].kind),
			.file = ckf_get32(disk[i].file),
			.parent = ckf_get32(disk[i].parent),
		};
		ret = check_target(d, i, ckf_get32(disk[i].reserved), &w);
	}
	for (uint64_t i = 0; !ret && i < idx->nr_targets; i++)
		ret = check_parent(d, i);
	if (!ret)
		ret = check_device_feature(d);
	if (!ret)
		ret = check_circles(d);
	if (ret)
		return ret;
	if (w.next_op != d->part[CKF_SECTION_OPS].count)
		return op_bad(d, w.next_op,
			      "R-target: end of the last target, got %" PRIu64 ", want %" PRIu64,
			      w.next_op, d->part[CKF_SECTION_OPS].count);
	if (w.next_lane != d->part[CKF_SECTION_LANES].count)
		return lane_bad(d, w.next_lane,
				"R-target: end of the last target, got %" PRIu64 ", want %" PRIu64,
				w.next_lane, d->part[CKF_SECTION_LANES].count);
	return 0;
}

/* An op of target t by itself. min_addr: the end of the op before it in the target, or 0. */
static int check_op(const struct ckf_decoder *d, uint64_t i, const struct ckf_target *t,
		    uint64_t min_addr)
{
	const struct ckf_op *op = &d->idx->ops[i];
	const uint32_t flags = ckf_op_flags(op);
	const struct ckf_chunk *c;

	if (op->chunk >= d->idx->nr_chunks)
		return op_bad(d, i, "R-op: chunk, got %u, want below %" PRIu64, op->chunk,
			      d->idx->nr_chunks);
	c = &d->idx->chunks[op->chunk];
	if (!op->nr_pages)
		return op_bad(d, i, "R-op: nr_pages, got 0, want at least 1");
	if (op->first_page + op->nr_pages > c->nr_pages)
		return op_bad(d, i, "R-op: end in the chunk, got %u, want at most %u",
			      op->first_page + op->nr_pages, c->nr_pages);
	if (flags & ~CKF_OP_FLAGS_ALL)
		return op_bad(d, i, "R-reserved: flags, got 0x%x, want only 0x%x", flags,
			      CKF_OP_FLAGS_ALL);
	if (flags && t->kind == CKF_TARGET_DEVICE)
		return op_bad(d, i, "R-gpu: flags of device memory, got 0x%x, want 0", flags);
	if ((flags & CKF_OP_DIRECT) && c->codec != CKF_CODEC_ZERO && c->codec != CKF_CODEC_RAW)
		return op_bad(d, i, "R-op: codec with flag direct, got %u, want %u or %u", c->codec,
			      CKF_CODEC_ZERO, CKF_CODEC_RAW);
	if ((flags & CKF_OP_DIRECT) && c->base)
		return op_bad(d, i, "R-op: base with flag direct, got %u, want 0", c->base);
	if ((flags & CKF_OP_INHERIT) && !t->parent)
		return op_bad(d, i, "R-op: flag inherit, got a target without parent, want one");
	if (ckf_op_addr(op) < min_addr)
		return op_bad(d, i, "R-op: address, got 0x%" PRIx64 ", want at least 0x%" PRIx64,
			      ckf_op_addr(op), min_addr);
	if (ckf_op_addr(op) > CKF_MAX_ADDR - ckf_pages_to_bytes(op->nr_pages))
		return op_bad(d, i,
			      "R-op: address, got %u pages at 0x%" PRIx64
			      ", want an end at most 0x%llx",
			      op->nr_pages, ckf_op_addr(op), CKF_MAX_ADDR);
	return 0;
}

static int decode_target_ops(struct ckf_decoder *d, uint64_t target)
{
	const struct ckf_disk_op *disk = ckf_decoder_part(d, CKF_SECTION_OPS);
	const struct ckf_target *t = &d->idx->targets[target];
	uint64_t nr_pages = 0;
	uint64_t end = 0;
	int ret;

	for (uint64_t i = t->first_op; i < t->first_op + t->nr_ops; i++) {
		struct ckf_op *op = &d->idx->ops[i];

		op->place = ckf_get64(disk[i].place);
		op->chunk = ckf_get32(disk[i].chunk);
		op->first_page = ckf_get16(disk[i].first_page);
		op->nr_pages = ckf_get16(disk[i].nr_pages);
		ret = check_op(d, i, t, end);
		if (ret)
			return ret;
		end = ckf_op_end(op);
		nr_pages += op->nr_pages;
	}
	if (t->nr_pages != nr_pages)
		return target_bad(d, target, "R-target: nr_pages, got %" PRIu64 ", want %" PRIu64,
				  t->nr_pages, nr_pages);
	return 0;
}

/* The page of op's chunk that op puts to addr. */
static uint64_t op_page_at(const struct ckf_op *op, uint64_t addr)
{
	return op->first_page + ((addr - ckf_op_addr(op)) >> CKF_PAGE_SHIFT);
}

/* That op i puts the same pages to the same addresses as the parent's ops do. */
static int check_inherit(const struct ckf_decoder *d, uint64_t i, const struct ckf_target *parent)
{
	const struct ckf_index *idx = d->idx;
	const struct ckf_op *op = &idx->ops[i];
	const uint64_t end = ckf_op_end(op);
	const uint64_t parent_end = parent->first_op + parent->nr_ops;
	uint64_t addr = ckf_op_addr(op);

	for (uint64_t p = ckf_index_find_op(idx, parent, addr); addr < end; p++) {
		const struct ckf_op *pop = &idx->ops[p];

		if (p == parent_end || ckf_op_addr(pop) > addr || pop->chunk != op->chunk ||
		    op_page_at(pop, addr) != op_page_at(op, addr))
			return op_bad(d, i,
				      "R-op: flag inherit, got a parent with other pages at "
				      "0x%" PRIx64 ", want the same",
				      addr);
		addr = ckf_op_end(pop);
	}
	return 0;
}

int ckf_decode_ops(struct ckf_decoder *d)
{
	struct ckf_index *idx = d->idx;
	int ret = 0;

	idx->ops = ckf_decoder_alloc(d, CKF_SECTION_OPS, sizeof(*idx->ops));
	if (!idx->ops)
		return -ENOMEM;
	idx->nr_ops = d->part[CKF_SECTION_OPS].count;
	for (uint64_t t = 0; !ret && t < idx->nr_targets; t++)
		ret = decode_target_ops(d, t);
	/* The search in a parent's ops needs all of them in order. */
	for (uint64_t t = 0; !ret && t < idx->nr_targets; t++) {
		const struct ckf_target *target = &idx->targets[t];

		for (uint64_t i = target->first_op; !ret && i < target->first_op + target->nr_ops;
		     i++) {
			if (ckf_op_flags(&idx->ops[i]) & CKF_OP_INHERIT)
				ret = check_inherit(d, i, &idx->targets[target->parent - 1]);
		}
	}
	return ret;
}

/* seen[chunk] is 1 + the last lane that had an op of the chunk. */
static int check_lane_sums(const struct ckf_decoder *d, uint32_t i, uint32_t *seen)
{
	const struct ckf_index *idx = d->idx;
	const struct ckf_lane *l = &idx->lanes[i];
	uint64_t read_bytes = 0;
	uint64_t fill_bytes = 0;

	for (uint64_t o = l->first_op; o < l->first_op + l->nr_ops; o++) {
		const struct ckf_op *op = &idx->ops[o];

		fill_bytes += ckf_pages_to_bytes(op->nr_pages);
		if (seen[op->chunk] == i + 1)
			continue;
		seen[op->chunk] = i + 1;
		read_bytes += idx->chunks[op->chunk].stored_bytes;
	}
	if (l->read_bytes != read_bytes)
		return lane_bad(d, i, "R-lane: read_bytes, got %" PRIu64 ", want %" PRIu64,
				l->read_bytes, read_bytes);
	if (l->fill_bytes != fill_bytes)
		return lane_bad(d, i, "R-lane: fill_bytes, got %" PRIu64 ", want %" PRIu64,
				l->fill_bytes, fill_bytes);
	return 0;
}

/* The lanes of one target, which have to cover its ops one after the other. */
static int check_target_lanes(const struct ckf_decoder *d, uint64_t target, uint32_t *seen)
{
	const struct ckf_index *idx = d->idx;
	const struct ckf_target *t = &idx->targets[target];
	const uint64_t end = t->first_op + t->nr_ops;
	uint64_t next = t->first_op;
	int ret;

	for (uint32_t i = t->first_lane; i < t->first_lane + t->nr_lanes; i++) {
		const struct ckf_lane *l = &idx->lanes[i];

		if (l->target != target)
			return lane_bad(d, i, "R-lane: target, got %u, want %" PRIu64, l->target,
					target);
		if (l->first_op != next)
			return lane_bad(d, i, "R-lane: first_op, got %" PRIu64 ", want %" PRIu64,
					l->first_op, next);
		if (l->nr_ops < 1 || l->nr_ops > end - next)
			return lane_bad(d, i, "R-lane: nr_ops, got %" PRIu64 ", want 1 to %" PRIu64,
					l->nr_ops, end - next);
		ret = check_lane_sums(d, i, seen);
		if (ret)
			return ret;
		next += l->nr_ops;
	}
	if (next != end)
		return target_bad(d, target,
				  "R-lane: end of the last lane, got %" PRIu64 ", want %" PRIu64,
				  next, end);
	return 0;
}

int ckf_decode_lanes(struct ckf_decoder *d)
{
	const struct ckf_disk_lane *disk = ckf_decoder_part(d, CKF_SECTION_LANES);
	struct ckf_index *idx = d->idx;
	uint32_t *seen = NULL;
	int ret = 0;

	idx->lanes = ckf_decoder_alloc(d, CKF_SECTION_LANES, sizeof(*idx->lanes));
	if (!idx->lanes)
		return -ENOMEM;
	idx->nr_lanes = d->part[CKF_SECTION_LANES].count;
	for (uint64_t i = 0; i < idx->nr_lanes; i++) {
		idx->lanes[i] = (struct ckf_lane){
			.first_op = ckf_get64(disk[i].first_op),
			.nr_ops = ckf_get64(disk[i].nr_ops),
			.read_bytes = ckf_get64(disk[i].read_bytes),
			.fill_bytes = ckf_get64(disk[i].fill_bytes),
			.target = ckf_get32(disk[i].target),
		};
		if (ckf_get32(disk[i].reserved))
			return lane_bad(d, i, "R-reserved: reserved field, got %u, want 0",
					ckf_get32(disk[i].reserved));
	}
	seen = calloc(idx->nr_chunks + 1, sizeof(*seen));
	if (!seen)
		return ckf_error_set(d->err, -ENOMEM, "no memory to check lanes");
	for (uint64_t t = 0; !ret && t < idx->nr_targets; t++)
		ret = check_target_lanes(d, t, seen);
	free(seen);
	return ret;
}

/* The first address at or after addr, up to end, that no op of t fills. */
static uint64_t filled_until(const struct ckf_index *idx, const struct ckf_target *t, uint64_t addr,
			     uint64_t end)
{
	const uint64_t ops_end = t->first_op + t->nr_ops;

	for (uint64_t o = ckf_index_find_op(idx, t, addr); addr < end; o++) {
		if (o == ops_end || ckf_op_addr(&idx->ops[o]) > addr)
			return addr;
		addr = ckf_op_end(&idx->ops[o]);
	}
	return end;
}

static int check_huge(const struct ckf_decoder *d, uint64_t i)
{
	const struct ckf_index *idx = d->idx;
	const struct ckf_huge *h = &idx->huge[i];
	const struct ckf_huge *prev = i ? h - 1 : NULL;
	const uint64_t bytes = (uint64_t)h->nr_huge * CKF_HUGE_BYTES;
	const struct ckf_target *t;
	uint64_t hole;

	if (h->target >= idx->nr_targets)
		return huge_bad(d, i, "R-huge: target, got %u, want below %" PRIu64, h->target,
				idx->nr_targets);
	t = &idx->targets[h->target];
	if (t->kind != CKF_TARGET_TASK)
		return huge_bad(d, i, "R-huge: kind of the target, got %u, want %u", t->kind,
				CKF_TARGET_TASK);
	if (!h->nr_huge)
		return huge_bad(d, i, "R-huge: nr_huge, got 0, want at least 1");
	if (h->addr % CKF_HUGE_BYTES)
		return huge_bad(d, i,
				"R-huge: address, got 0x%" PRIx64 ", want a multiple of 2 MiB",
				h->addr);
	if (h->addr > CKF_MAX_ADDR || bytes > CKF_MAX_ADDR - h->addr)
		return huge_bad(d, i,
				"R-huge: address, got %u huge pages at 0x%" PRIx64
				", want an end at most 0x%llx",
				h->nr_huge, h->addr, CKF_MAX_ADDR);
	if (prev && h->target < prev->target)
		return huge_bad(d, i, "R-huge: target, got %u, want at least %u", h->target,
				prev->target);
	if (prev && h->target == prev->target &&
	    h->addr <= prev->addr + (uint64_t)prev->nr_huge * CKF_HUGE_BYTES)
		return huge_bad(d, i, "R-huge: address, got 0x%" PRIx64 ", want above 0x%" PRIx64,
				h->addr, prev->addr + (uint64_t)prev->nr_huge * CKF_HUGE_BYTES);
	hole = filled_until(idx, t, h->addr, h->addr + bytes);
	if (hole != h->addr + bytes)
		return huge_bad(
			d, i, "R-huge: range, got no op for 0x%" PRIx64 ", want every page filled",
			hole);
	return 0;
}

int ckf_decode_huge(struct ckf_decoder *d)
{
	const struct ckf_disk_huge *disk = ckf_decoder_part(d, CKF_SECTION_HUGE);
	struct ckf_index *idx = d->idx;
	int ret = 0;

	idx->huge = ckf_decoder_alloc(d, CKF_SECTION_HUGE, sizeof(*idx->huge));
	if (!idx->huge)
		return -ENOMEM;
	idx->nr_huge = d->part[CKF_SECTION_HUGE].count;
	for (uint64_t i = 0; !ret && i < idx->nr_huge; i++) {
		idx->huge[i].addr = ckf_get64(disk[i].addr);
		idx->huge[i].nr_huge = ckf_get32(disk[i].nr_huge);
		idx->huge[i].target = ckf_get32(disk[i].target);
		ret = check_huge(d, i);
	}
	return ret;
}
