/* SPDX-License-Identifier: MIT */
/*
 * Which 2 MiB ranges may be filled as huge pages.
 *
 * Those that are filled all over, also with zeros, and lie in one private anonymous mapping that
 * the task did not ask to keep small. Left out is what a parent shares with its children: CRIU
 * restores such memory in the parent and compares the children's with it, page by page.
 */
#include <errno.h>
#include <stdlib.h>

#include "img.h"
#include "plan_huge.h"
#include "vma.h"

#define HUGE_PAGES (CKF_HUGE_BYTES / CKF_PAGE_BYTES)

/* A mapping that a child has at the same addresses. */
struct shared_vma {
	uint64_t vma; /* position in vmas */
	const struct ckf_target *child;
};

struct huge_plan {
	struct ckf_index *idx;
	const struct ckf_dump *dump;
	uint64_t cap;
	/* Of the target at hand: */
	uint32_t target;
	uint64_t first;	      /* entry of idx->huge */
	struct ckf_vma *vmas; /* mappings that may be huge, sorted */
	uint64_t nr_vmas;
	struct shared_vma *shared; /* sorted by vma */
	uint64_t nr_shared;
	uint64_t cap_shared;
};

static int compare_vma(const void *a, const void *b)
{
	const struct ckf_vma *x = a, *y = b;

	if (x->start != y->start)
		return x->start < y->start ? -1 : 1;
	return x->end < y->end ? -1 : x->end > y->end;
}

static int compare_shared(const void *a, const void *b)
{
	const struct shared_vma *x = a, *y = b;

	return x->vma < y->vma ? -1 : x->vma > y->vma;
}

static int collect_vmas(struct huge_plan *h, const struct ckf_task *task)
{
	free(h->vmas);
	h->vmas = NULL;
	h->nr_vmas = 0;
	if (!task || task->thp_disabled || !task->nr_vmas)
		return 0;
	h->vmas = calloc((size_t)task->nr_vmas, sizeof(*h->vmas));
	if (!h->vmas)
		return -ENOMEM;
	for (uint64_t i = 0; i < task->nr_vmas; i++) {
		if (ckf_vma_may_be_huge(&task->vmas[i]))
			h->vmas[h->nr_vmas++] = task->vmas[i];
	}
	qsort(h->vmas, (size_t)h->nr_vmas, sizeof(*h->vmas), compare_vma);
	return 0;
}

static int add_shared(struct huge_plan *h, const struct ckf_target *child,
		      const struct ckf_task *task)
{
	for (uint64_t i = 0; task && i < task->nr_vmas; i++) {
		const struct ckf_vma *v = bsearch(&task->vmas[i], h->vmas, (size_t)h->nr_vmas,
						  sizeof(*v), compare_vma);

		if (!v)
			continue;
		if (ckf_array_grow(&h->shared, h->nr_shared, &h->cap_shared, sizeof(*h->shared)))
			return -ENOMEM;
		h->shared[h->nr_shared++] = (struct shared_vma){ (uint64_t)(v - h->vmas), child };
	}
	return 0;
}

static int collect_shared(struct huge_plan *h, uint64_t target)
{
	int ret = 0;

	h->nr_shared = 0;
	for (uint64_t i = 0; i < h->idx->nr_targets && h->nr_vmas && !ret; i++) {
		const struct ckf_target *child = &h->idx->targets[i];

		if (child->parent == target + 1)
			ret = add_shared(h, child, ckf_dump_find_task(h->dump, child->id));
	}
	if (h->nr_shared)
		qsort(h->shared, (size_t)h->nr_shared, sizeof(*h->shared), compare_shared);
	return ret;
}

/* True when a child has pages in the range, in a mapping that is the same as here. */
static bool child_has(const struct huge_plan *h, uint64_t vma, uint64_t addr)
{
	uint64_t lo = 0, hi = h->nr_shared;

	while (lo < hi) {
		uint64_t mid = lo + (hi - lo) / 2;

		if (h->shared[mid].vma < vma)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < h->nr_shared && h->shared[lo].vma == vma; lo++) {
		const struct ckf_target *c = h->shared[lo].child;
		uint64_t op = ckf_index_find_op(h->idx, c, addr);

		if (op < c->first_op + c->nr_ops &&
		    ckf_op_addr(&h->idx->ops[op]) < addr + CKF_HUGE_BYTES)
			return true;
	}
	return false;
}

/* The mapping that has the whole range, or -1. VMAs of a real task do not overlap. */
static int64_t find_vma(const struct huge_plan *h, uint64_t addr)
{
	uint64_t lo = 0, hi = h->nr_vmas;

	while (lo < hi) {
		uint64_t mid = lo + (hi - lo) / 2;

		if (h->vmas[mid].start <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo || h->vmas[lo - 1].end < addr + CKF_HUGE_BYTES)
		return -1;
	return (int64_t)lo - 1;
}

/* Adds a range that is filled all over, by nobody else, and lies in one mapping. */
static int add_range(void *arg, const struct ckf_huge_part *part)
{
	struct huge_plan *h = arg;
	struct ckf_index *idx = h->idx;
	struct ckf_huge *last = idx->nr_huge > h->first ? &idx->huge[idx->nr_huge - 1] : NULL;
	int64_t vma;

	if (part->nr_pages != HUGE_PAGES || part->flags)
		return 0;
	vma = find_vma(h, part->addr);
	if (vma < 0 || child_has(h, (uint64_t)vma, part->addr))
		return 0;
	if (last && last->addr + (uint64_t)last->nr_huge * CKF_HUGE_BYTES == part->addr) {
		last->nr_huge++;
		return 0;
	}
	if (ckf_array_grow(&idx->huge, idx->nr_huge, &h->cap, sizeof(*idx->huge)))
		return -ENOMEM;
	idx->huge[idx->nr_huge++] = (struct ckf_huge){ part->addr, 1, h->target };
	return 0;
}

int ckf_plan_huge(struct ckf_index *idx, const struct ckf_dump *d, struct ckf_error *err)
{
	struct huge_plan h = { .idx = idx, .dump = d };
	int ret = 0;

	for (uint64_t i = 0; i < idx->nr_targets && !ret; i++) {
		const struct ckf_target *t = &idx->targets[i];

		if (t->kind != CKF_TARGET_TASK)
			continue;
		ret = collect_vmas(&h, ckf_dump_find_task(d, t->id));
		if (!ret)
			ret = collect_shared(&h, i);
		h.target = (uint32_t)i;
		h.first = idx->nr_huge;
		if (!ret && h.nr_vmas)
			ret = ckf_index_each_huge(idx, t, add_range, &h);
	}
	free(h.vmas);
	free(h.shared);
	return ret ? ckf_error_set(err, ret, "no memory for the plan") : 0;
}
