/* SPDX-License-Identifier: MIT */
/* What all parts of a fill share: its dests, its options, and its statistics. */
#include <errno.h>
#include <stdlib.h>

#include "base/ckf_opts.h"
#include "fill.h"

int fill_add_dest(struct fill_job *job, const struct ckf_dest *d, uint64_t start, uint64_t end,
		  enum fill_place place, uint32_t seg)
{
	struct lane_planner *pl = &job->planner;
	struct lane_dest *ranges;
	struct fill_dest *dests;

	if (start >= end)
		return 0;
	if (pl->nr_dests == job->max_dests) {
		const size_t max = job->max_dests ? job->max_dests * 2 : job->nr_given + 16;

		ranges = realloc(pl->dests, max * sizeof(*ranges));
		if (ranges)
			pl->dests = ranges;
		dests = realloc(job->dests, max * sizeof(*dests));
		if (dests)
			job->dests = dests;
		if (!ranges || !dests)
			return -ENOMEM;
		job->max_dests = max;
	}
	pl->dests[pl->nr_dests] = (struct lane_dest){
		.start = start,
		.end = end,
		.cut_bytes = seg == FILL_NO_SEG ? 0 : CKF_HUGE_BYTES,
	};
	job->dests[pl->nr_dests++] = (struct fill_dest){
		.addr = d->addr ? d->addr + (start - d->start) : NULL,
		.place = place,
		.fresh = d->flags & CKF_DEST_FRESH,
		.seg = seg,
	};
	return 0;
}

void fill_stats_add(struct ckf_fill_stats *sum, const struct ckf_fill_stats *s)
{
	sum->read_bytes += s->read_bytes;
	sum->cached_bytes += s->cached_bytes;
	sum->filled_bytes += s->filled_bytes;
	sum->zero_bytes += s->zero_bytes;
	sum->shared_bytes += s->shared_bytes;
	sum->huge_pages += s->huge_pages;
	sum->ns += s->ns;
	sum->workers += s->workers;
	sum->uring |= s->uring;
	sum->direct |= s->direct;
}

int fill_take_opts(struct ckf_fill_opts *own, const struct ckf_fill_opts *opts,
		   const struct ckf_fill_stats *stats, struct ckf_error *err)
{
	int ret = CKF_OPTS_TAKE(ckf_fill_opts, own, opts, flags, err);

	if (!ret && stats)
		ret = CKF_OPTS_CHECK(ckf_fill_stats, stats, err);
	return ret;
}

void fill_stats_give(struct ckf_fill_stats *stats, const struct ckf_fill_stats *add)
{
	struct ckf_fill_stats sum;

	if (!stats || CKF_OPTS_TAKE(ckf_fill_stats, &sum, stats, size, NULL))
		return;
	fill_stats_add(&sum, add);
	ckf_opts_give(stats, &sum, sizeof(sum));
}
