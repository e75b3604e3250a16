/* SPDX-License-Identifier: MIT */
/*
 * What all fills of one restore may take together: memory beside that of the tasks, and workers.
 *
 * Tasks are restored by processes of their own, at the same time, under limits that hold for all of
 * them. So the criu process checks the limits once, and the tasks share what came out.
 */
#include "base/ckf_opts.h"
#include "base/ckf_threads.h"
#include "budget.h"
#include "fill.h"

#define PAGE_TABLE_SHARE 256 /* a page table of one page maps 512 */
#define LOWEST_ID 300	     /* where the kernel goes on when it has given out all ids */

uint64_t budget_needed(const struct ckf_image *img)
{
	const struct ckf_index *idx = img->idx;
	uint64_t bytes = 0;

	for (uint64_t t = 0; t < idx->nr_targets; t++) {
		const struct ckf_target *target = &idx->targets[t];

		if (target->kind == CKF_TARGET_DEVICE)
			continue;
		for (uint64_t i = target->first_op; i < target->first_op + target->nr_ops; i++) {
			const struct ckf_op *op = &idx->ops[i];

			if (!(ckf_op_flags(op) & CKF_OP_INHERIT))
				bytes += ckf_op_end(op) - ckf_op_addr(op);
		}
	}
	return bytes + bytes / PAGE_TABLE_SHARE;
}

/* True when no read waits for a disk: a worker then has one at a time. */
static bool all_cached(const struct ckf_image *img)
{
	bool all = img->cached != NULL;

	for (unsigned int n = 0; all && n <= img->idx->nr_bases; n++)
		all = img->cached[n];
	return all;
}

static uint64_t worker_bytes(const struct ckf_image *img)
{
	return (all_cached(img) ? 1 : FILL_DEPTH) * (uint64_t)fill_slot_bytes(img) +
	       ckf_pages_to_bytes(img->idx->max_chunk_pages) + 2 * CKF_HUGE_BYTES;
}

/* Workers that have something to do beside the first one of each target. */
static uint64_t useful_more(const struct ckf_image *img, bool asked)
{
	uint64_t sum = 0;

	for (uint64_t t = 0; t < img->idx->nr_targets; t++) {
		const struct ckf_target *target = &img->idx->targets[t];
		uint64_t n = asked ? target->nr_lanes
				   : ckf_pages_to_bytes(target->nr_pages) / FILL_WORKER_BYTES;

		if (n > target->nr_lanes)
			n = target->nr_lanes;
		if (n && target->kind != CKF_TARGET_DEVICE)
			sum += n - 1;
	}
	return sum;
}

/* The one worker that each target has, even where all are filled at the same time. */
static uint64_t first_workers_bytes(const struct ckf_image *img, uint64_t each)
{
	uint64_t bytes = 0;

	for (uint64_t t = 0; t < img->idx->nr_targets; t++) {
		const struct ckf_target *target = &img->idx->targets[t];
		uint64_t own = ckf_pages_to_bytes(target->nr_pages);

		if (target->kind != CKF_TARGET_DEVICE)
			bytes += own < each ? own : each;
	}
	return bytes;
}

int ckf_budget_check(const struct ckf_image *img, const struct ckf_budget_opts *opts,
		     struct ckf_budget *out, struct ckf_error *err)
{
	const uint64_t each = worker_bytes(img);
	struct ckf_budget b = { .size = sizeof(b) };
	struct ckf_budget_opts o;
	uint64_t least, more;
	int ret;

	ret = CKF_OPTS_TAKE(ckf_budget_opts, &o, opts, headroom_bytes, err);
	if (ret)
		return ret;
	least = o.caller_bytes + budget_needed(img) + first_workers_bytes(img, each);
	more = useful_more(img, o.asked);
	b.workers = o.asked ? o.asked : o.cpus;
	if (!b.workers)
		b.workers = ckf_cpus();
	if (more > b.workers - 1)
		more = b.workers - 1;
	b.want_bytes = least + more * each;
	if (o.headroom_bytes >= b.want_bytes) {
		b.spare_bytes = o.headroom_bytes - b.want_bytes;
	} else {
		b.frugal = o.headroom_bytes < least;
		b.workers = b.frugal ? 1 : 1 + (uint32_t)((o.headroom_bytes - least) / each);
	}
	return ckf_opts_give(out, &b, sizeof(b));
}

void ckf_budget_lower(struct ckf_budget *all, const struct ckf_budget *by)
{
	uint32_t workers = __atomic_load_n(&all->workers, __ATOMIC_RELAXED);
	uint64_t spare = __atomic_load_n(&all->spare_bytes, __ATOMIC_RELAXED);
	const bool first = !workers;

	while ((!workers || by->workers < workers) &&
	       !__atomic_compare_exchange_n(&all->workers, &workers, by->workers, false,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	while ((first || by->spare_bytes < spare) &&
	       !__atomic_compare_exchange_n(&all->spare_bytes, &spare, by->spare_bytes, false,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	if (by->frugal)
		__atomic_store_n(&all->frugal, 1, __ATOMIC_RELAXED);
}

bool ckf_budget_take_spare(struct ckf_budget *all, uint64_t bytes)
{
	uint64_t left = __atomic_load_n(&all->spare_bytes, __ATOMIC_RELAXED);

	while (left >= bytes)
		if (__atomic_compare_exchange_n(&all->spare_bytes, &left, left - bytes, false,
						__ATOMIC_RELAXED, __ATOMIC_RELAXED))
			return true;
	return false;
}

unsigned int ckf_budget_workers(const struct ckf_budget *all, unsigned int wanted,
				unsigned int busy, uint64_t limit, uint64_t tree)
{
	const unsigned int budget = __atomic_load_n(&all->workers, __ATOMIC_RELAXED);
	unsigned int n = busy < budget ? budget - busy : 0;

	if (n > wanted)
		n = wanted;
	limit -= limit < busy ? limit : busy;
	limit -= limit < tree ? limit : tree;
	return n < limit ? n : (unsigned int)limit;
}

int ckf_far_id(const int *ids, size_t nr, int highest)
{
	int last = LOWEST_ID, at = 0, gap = 0;

	for (size_t i = 0; i <= nr; i++) {
		const int next = i < nr ? ids[i] : highest;

		if (next <= last)
			continue;
		if (next - last > gap) {
			gap = next - last;
			at = last + gap / 2;
		}
		last = next;
	}
	return at;
}
