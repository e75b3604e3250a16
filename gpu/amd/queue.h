/* SPDX-License-Identifier: MIT */
/* One queue of an SDMA engine. */
#ifndef AMD_QUEUE_H
#define AMD_QUEUE_H

#include <pthread.h>

#include "engine.h"
#include "hsakmt.h"

struct engine_queue {
	const struct hsakmt *kmt;
	void *memory; /* the ring, and the word that fences write; NULL: there is no queue */
	HsaQueueResource res;
	unsigned int timeout_ms;
	bool fence_uncached;
	_Atomic bool failed;
	_Atomic uint32_t *fence; /* the last number that has been done */
	pthread_mutex_t lock;	 /* of what follows */
	uint64_t write_pos;	 /* in bytes, ever growing */
	uint32_t seq;		 /* of the last fence */
};

/* A queue on one node, whose GPU is of the given generation (9: Vega, MI). */
int queue_open(const struct hsakmt *kmt, HSAuint32 node, unsigned int generation,
	       unsigned int timeout_ms, struct engine_queue *q, struct ckf_error *err);
/* Takes a queue that is not open. */
void queue_close(struct engine_queue *q);

/* Memory of the host that the GPUs of nodes reach, page-aligned. */
int queue_host_memory(const struct hsakmt *kmt, size_t bytes, bool coherent, HSAuint32 *nodes,
		      unsigned int nr_nodes, void **out, struct ckf_error *err);
void queue_host_free(const struct hsakmt *kmt, void *memory, size_t bytes);

#endif
