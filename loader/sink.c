/* SPDX-License-Identifier: MIT */
/* What the two ways to fill device memory share: workers, slots, copies and clears. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ckf_threads.h"
#include "fill.h"
#include "sink.h"

bool sink_next_unit(struct sink_worker *w, uint64_t *unit)
{
	if (atomic_load(&w->job->failed))
		return false;
	*unit = atomic_fetch_add(&w->job->next_unit, 1);
	if (*unit >= w->job->nr_units)
		return false;
	if (w->job->order)
		*unit = w->job->order[*unit];
	return true;
}

/* A unit, and how far its sink has come when it is its turn: rank of nr, the units of the sink. */
struct turn {
	uint64_t unit;
	uint64_t rank;
	uint64_t nr;
	uint32_t sink;
};

static int compare_turn(const void *pa, const void *pb)
{
	const struct turn *a = pa, *b = pb;
	unsigned __int128 x = (unsigned __int128)(2 * a->rank + 1) * b->nr;
	unsigned __int128 y = (unsigned __int128)(2 * b->rank + 1) * a->nr;

	if (x != y)
		return x < y ? -1 : 1;
	return a->sink < b->sink ? -1 : a->sink > b->sink;
}

int sink_job_order(struct sink_job *job,
		   uint32_t (*sink_of)(const struct sink_job *job, uint64_t unit),
		   struct ckf_error *err)
{
	struct turn *turns;
	uint64_t *nr;
	int ret = 0;

	if (job->nr_sinks < 2)
		return 0;
	nr = calloc(job->nr_sinks, sizeof(*nr));
	turns = calloc(job->nr_units + 1, sizeof(*turns));
	job->order = malloc((job->nr_units + 1) * sizeof(*job->order));
	if (!nr || !turns || !job->order) {
		ret = ckf_error_set(err, -ENOMEM, "no memory for the plan");
		goto out;
	}
	for (uint64_t i = 0; i < job->nr_units; i++) {
		turns[i].unit = i;
		turns[i].sink = sink_of(job, i);
		turns[i].rank = nr[turns[i].sink]++;
	}
	for (uint64_t i = 0; i < job->nr_units; i++)
		turns[i].nr = nr[turns[i].sink];
	qsort(turns, job->nr_units, sizeof(*turns), compare_turn);
	for (uint64_t i = 0; i < job->nr_units; i++)
		job->order[i] = turns[i].unit;
out:
	free(nr);
	free(turns);
	return ret;
}

uint32_t sink_of_addr(const struct sink_job *job, uint64_t addr)
{
	size_t dest = lane_find_dest(job->ranges, job->nr_dests, addr);

	return dest < job->nr_dests ? job->ranges[dest].group : 0;
}

uint32_t sink_of_lane(const struct sink_job *job, const struct ckf_index *idx,
		      const struct ckf_lane *l)
{
	return sink_of_addr(job, ckf_op_addr(&idx->ops[l->first_op]));
}

unsigned int sink_stream(const struct sink_worker *w, const struct ckf_sink *sink)
{
	const struct ckf_sink_ops *ops = w->job->ops;

	/* Each slot to the next one: there may be fewer workers than streams. */
	return ops->nr_streams ? (w->nr + w->nr_submits) % ops->nr_streams(sink) : 0;
}

int sink_slot_take(struct sink_worker *w, struct ckf_sink *sink)
{
	int ret = w->job->ops->slot_take(sink, &w->slot, &w->err);

	if (ret)
		return ckf_error_set(&w->err, ret, "cannot get a slot of %s: %s", w->job->ops->name,
				     strerror(-ret));
	w->sink = sink;
	w->nr_copies = 0;
	return 0;
}

static void slot_put(struct sink_worker *w)
{
	if (w->sink)
		w->job->ops->slot_put(w->sink, &w->slot);
	w->sink = NULL;
}

/* True when c goes on where last ends, on both sides. */
static bool copy_continues(const struct ckf_sink_copy *last, const struct ckf_sink_copy *c)
{
	return last->mem == c->mem && last->mem_off + last->bytes == c->mem_off &&
	       last->slot_off + last->bytes == c->slot_off;
}

int sink_slot_add(struct sink_worker *w, const struct ckf_sink_dest *dest, uint64_t addr,
		  uint32_t slot_off, uint32_t bytes)
{
	const struct ckf_sink_copy c = { dest->mem, addr - dest->start, slot_off, bytes };
	size_t max = w->max_copies ? w->max_copies * 2 : 64;
	struct ckf_sink_copy *p;

	w->stats.filled_bytes += bytes;
	if (w->nr_copies && copy_continues(&w->copies[w->nr_copies - 1], &c)) {
		w->copies[w->nr_copies - 1].bytes += bytes;
		return 0;
	}
	if (w->nr_copies == w->max_copies) {
		p = realloc(w->copies, max * sizeof(*p));
		if (!p)
			return ckf_error_set(&w->err, -ENOMEM, "no memory for the copies");
		w->copies = p;
		w->max_copies = max;
	}
	w->copies[w->nr_copies++] = c;
	return 0;
}

int sink_slot_submit(struct sink_worker *w)
{
	struct ckf_sink *sink = w->sink;
	int ret;

	w->sink = NULL;
	ret = w->job->ops->submit(sink, sink_stream(w, sink), &w->slot, w->copies, w->nr_copies,
				  &w->err);
	w->nr_submits++;
	return ret ? ckf_error_set(&w->err, ret, "cannot copy to %s: %s", w->job->ops->name,
				   strerror(-ret))
		   : 0;
}

int sink_clear_flush(struct sink_worker *w)
{
	const struct sink_clear c = w->clear;
	int ret;

	if (!c.bytes)
		return 0;
	w->clear.bytes = 0;
	w->stats.zero_bytes += c.bytes;
	ret = w->job->ops->clear(c.dest->sink, sink_stream(w, c.dest->sink), c.dest->mem,
				 c.addr - c.dest->start, c.bytes, &w->err);
	return ret ? ckf_error_set(&w->err, ret, "cannot clear memory of %s: %s", w->job->ops->name,
				   strerror(-ret))
		   : 0;
}

int sink_clear_add(struct sink_worker *w, const struct ckf_sink_dest *dest, uint64_t addr,
		   uint64_t bytes)
{
	struct sink_clear *c = &w->clear;
	int ret;

	if (c->bytes && c->dest == dest && c->addr + c->bytes == addr) {
		c->bytes += bytes;
		return 0;
	}
	ret = sink_clear_flush(w);
	*c = (struct sink_clear){ dest, addr, bytes };
	return ret;
}

int sink_clear_zeros(struct sink_worker *w, const struct ckf_index *idx,
		     const struct lane_part *part)
{
	if (idx->chunks[part->op->chunk].codec != CKF_CODEC_ZERO)
		return 1;
	return sink_clear_add(w, &w->job->dests[part->dest], part->addr, part->bytes);
}

/* The position of a sink in job->sinks, where it is put if it is new; or -ENOMEM. */
static int find_sink(struct sink_job *job, struct ckf_sink *sink, uint32_t *nr)
{
	struct ckf_sink **p;

	for (*nr = 0; *nr < job->nr_sinks && job->sinks[*nr] != sink; (*nr)++)
		;
	if (*nr < job->nr_sinks)
		return 0;
	p = realloc(job->sinks, (*nr + 1ul) * sizeof(*p));
	if (!p)
		return -ENOMEM;
	p[*nr] = sink;
	job->sinks = p;
	job->nr_sinks++;
	return 0;
}

int sink_job_init(struct sink_job *job, const struct ckf_fill_opts *opts,
		  const struct ckf_fill_stats *stats, struct ckf_error *err)
{
	const struct ckf_sink_dest *d = job->dests;
	int ret;

	pthread_mutex_init(&job->lock, NULL);
	ret = fill_take_opts(&job->opts, opts, stats, err);
	if (ret)
		return ret;
	for (size_t i = 0; i < job->nr_dests; i++) {
		if (d[i].start >= d[i].end || (d[i].start | d[i].end) % CKF_PAGE_BYTES ||
		    (i && d[i].start < d[i - 1].end))
			return ckf_error_set(err, -EINVAL, "dest %zu is out of order", i);
	}
	job->ranges = calloc(job->nr_dests ? job->nr_dests : 1, sizeof(*job->ranges));
	ret = job->ranges ? 0 : -ENOMEM;
	for (size_t i = 0; i < job->nr_dests && !ret; i++) {
		job->ranges[i] = (struct lane_dest){ .start = d[i].start, .end = d[i].end };
		ret = find_sink(job, d[i].sink, &job->ranges[i].group);
	}
	return ret ? ckf_error_set(err, ret, "no memory for the plan") : 0;
}

void sink_job_fini(struct sink_job *job, struct ckf_fill_stats *stats)
{
	free(job->sinks);
	free(job->ranges);
	free(job->order);
	pthread_mutex_destroy(&job->lock);
	fill_stats_give(stats, &job->stats);
}

static void run_worker(struct sink_job *job, unsigned int nr)
{
	struct sink_worker w = { .job = job, .nr = nr };
	int ret;

	ret = job->fill(&w);
	if (!ret)
		ret = sink_clear_flush(&w);
	slot_put(&w);
	free(w.copies);
	pthread_mutex_lock(&job->lock);
	if (ret && !job->ret) {
		job->ret = ret;
		job->err = w.err;
	}
	if (ret)
		atomic_store(&job->failed, true);
	fill_stats_add(&job->stats, &w.stats);
	pthread_mutex_unlock(&job->lock);
}

/* In a thread of its own, or in the caller's where there is no other: that one always works. */
static void thread_work(void *arg, unsigned int nr)
{
	struct sink_job *job = arg;
	const struct ckf_fill_opts *o = &job->opts;

	if (gettid() != job->caller && o->worker_ok && o->worker_ok(o->arg, gettid()))
		return;
	run_worker(job, nr);
}

static void run_workers(struct sink_job *job, struct ckf_threads_opts *threads)
{
	const struct ckf_fill_opts *o = &job->opts;
	unsigned int n = threads->threads;

	job->caller = gettid();
	if (o->before_workers && n > 1)
		n = o->before_workers(o->arg, n);
	if (n > 1 || !o->before_workers) {
		threads->threads = n;
		threads->started = n > 1 ? o->after_workers : NULL;
		threads->started_arg = o->arg;
		job->stats.workers = ckf_threads_run(threads);
	} else {
		job->stats.workers = 1;
		if (o->after_workers && threads->threads > 1)
			o->after_workers(o->arg);
	}
	if (!atomic_load(&job->failed) && atomic_load(&job->next_unit) < job->nr_units)
		run_worker(job, 0);
}

int sink_job_run(struct sink_job *job, uint64_t bytes, struct ckf_error *err)
{
	const struct ckf_fill_opts *o = &job->opts;
	struct ckf_threads_opts threads = {
		.threads = o->threads ? o->threads : ckf_fill_default_threads(bytes),
		.work = thread_work,
		.arg = job,
		.timeout_ms = o->timeout_ms,
		.progress = &job->progress,
		.stalled = o->stalled,
		.stalled_arg = o->arg,
	};
	uint64_t start_ns = ckf_now_ns();
	struct ckf_error inner;
	int ret;

	if (threads.threads > job->nr_units)
		threads.threads = (unsigned int)job->nr_units;
	run_workers(job, &threads);
	for (uint32_t i = 0; i < job->nr_sinks; i++) {
		inner = (struct ckf_error){ 0 };
		ret = job->ops->drain(job->sinks[i], &inner);
		if (ret && !job->ret) {
			job->ret = ret;
			ckf_error_set(&job->err, ret, "copies to %s failed: %s", job->ops->name,
				      inner.code ? inner.msg : strerror(-ret));
		}
	}
	job->stats.ns = ckf_now_ns() - start_ns;
	return job->ret ? ckf_error_set(err, job->ret, "%s", job->err.msg) : 0;
}
