/* SPDX-License-Identifier: MIT */
/*
 * A backend of ckfast_sink.h whose device is memory of this process: a thread does the copies
 * later, slots hold garbage afterwards, and any call can be made to fail. What a backend may rely
 * on is checked; what breaks that ends the test.
 */
#ifndef CKF_TEST_MEM_SINK_H
#define CKF_TEST_MEM_SINK_H

#include "ckfast_sink.h"

#define MEM_SINK_BACKGROUND 0xa5 /* in memory that nothing was copied to */

enum mem_sink_call {
	MEM_SINK_ANY,
	MEM_SINK_TAKE,
	MEM_SINK_SUBMIT,
	MEM_SINK_CLEAR,
	MEM_SINK_DRAIN,
	MEM_SINK_COPY, /* not a call: a copy that fails later, seen by drain */
	MEM_SINK_CALLS,
};

extern const struct ckf_sink_ops mem_sink_ops;

/* The nth call (from 1) of a kind from now on fails, and all counters start anew. 0: none. */
void mem_sink_fail(enum mem_sink_call call, unsigned int nth);
/* Calls since then. */
unsigned int mem_sink_count(enum mem_sink_call call);

uint8_t *mem_sink_bytes(struct ckf_sink_mem *mem);
/* Bit n: something was submitted on stream n. */
unsigned int mem_sink_streams(const struct ckf_sink *sink);
/* Nothing is under way and no slot is taken. */
bool mem_sink_idle(struct ckf_sink *sink);

#endif
