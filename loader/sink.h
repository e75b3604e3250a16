/* SPDX-License-Identifier: MIT */
/*
 * Private to the loader: what the two ways to fill device memory share.
 *
 *	job	one call of ckf_fill_sink() or ckf_fill_sink_file(); shared by its workers
 *	unit	a part of the job that one worker takes at a time
 *	slot	memory of the backend that a worker has, and the copies that are to come out of it
 *
 * A worker that has a slot waits for nothing but its own reads, so that slots never run out for
 * good. It gives the slot back before it takes one of another sink.
 */
#ifndef CKF_SINK_PRIVATE_H
#define CKF_SINK_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "ckfast_sink.h"
#include "ckf_fill_sink.h"
#include "lane.h"

struct sink_worker;

struct sink_job {
	const struct ckf_sink_ops *ops;
	const struct ckf_sink_dest *dests;
	size_t nr_dests;
	struct ckf_sink **sinks; /* each once */
	uint32_t nr_sinks;
	struct lane_dest *ranges; /* per dest; the group is a position in sinks */
	struct ckf_fill_opts opts;
	int (*fill)(struct sink_worker *w); /* until sink_next_unit() has no more */
	void *arg;
	pid_t caller; /* its thread id */
	uint64_t nr_units;
	uint64_t *order; /* in which units are taken; NULL: ascending */
	_Atomic uint64_t next_unit;
	atomic_bool failed;
	atomic_uint progress; /* reads completed */

	pthread_mutex_t lock; /* for all below */
	int ret;
	struct ckf_error err;
	struct ckf_fill_stats stats;
};

/* A range of device memory that is to be cleared. */
struct sink_clear {
	const struct ckf_sink_dest *dest;
	uint64_t addr;
	uint64_t bytes; /* 0: none */
};

struct sink_worker {
	struct sink_job *job;
	unsigned int nr;
	struct ckf_sink *sink; /* that the slot is of; NULL: no slot */
	struct ckf_sink_slot slot;
	struct ckf_sink_copy *copies; /* out of the slot */
	size_t nr_copies;
	size_t max_copies;
	unsigned int nr_submits; /* slots so far */
	struct sink_clear clear; /* not started yet */
	struct ckf_fill_stats stats;
	struct ckf_error err;
};

/* Checks opts, stats and dests. sink_job_fini() in any case. */
int sink_job_init(struct sink_job *job, const struct ckf_fill_opts *opts,
		  const struct ckf_fill_stats *stats, struct ckf_error *err);
void sink_job_fini(struct sink_job *job, struct ckf_fill_stats *stats);
/* Runs the workers, and waits until every copy has arrived, however they ended. */
int sink_job_run(struct sink_job *job, uint64_t bytes, struct ckf_error *err);

/*
 * With several sinks, lets each of them have its share of the units at all times: each has a link
 * of its own, which is idle while workers do nothing for it. sink_of: the position in job->sinks
 * that most of a unit goes to. -ENOMEM.
 */
int sink_job_order(struct sink_job *job,
		   uint32_t (*sink_of)(const struct sink_job *job, uint64_t unit),
		   struct ckf_error *err);

/* Of the workers, which use the streams of a sink in turn. */
unsigned int sink_stream(const struct sink_worker *w, const struct ckf_sink *sink);

/* False when none is left, or the job has failed. */
bool sink_next_unit(struct sink_worker *w, uint64_t *unit);

int sink_slot_take(struct sink_worker *w, struct ckf_sink *sink);
/* A copy out of the slot to addr, which with all bytes lies in dest. */
int sink_slot_add(struct sink_worker *w, const struct ckf_sink_dest *dest, uint64_t addr,
		  uint32_t slot_off, uint32_t bytes);
/* Starts the copies; the slot is gone, also when it fails. */
int sink_slot_submit(struct sink_worker *w);

/* Joins what touches; sink_clear_flush() starts the last one. */
int sink_clear_add(struct sink_worker *w, const struct ckf_sink_dest *dest, uint64_t addr,
		   uint64_t bytes);
int sink_clear_flush(struct sink_worker *w);
/* For lane_planner.take(): clears a part of zeros, and leaves others to be pieces. */
int sink_clear_zeros(struct sink_worker *w, const struct ckf_index *idx,
		     const struct lane_part *part);

/* The position in job->sinks of what holds addr, or the first byte of a lane; 0 where no dest does.
 */
uint32_t sink_of_addr(const struct sink_job *job, uint64_t addr);
uint32_t sink_of_lane(const struct sink_job *job, const struct ckf_index *idx,
		      const struct ckf_lane *l);

#endif
