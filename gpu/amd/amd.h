/* SPDX-License-Identifier: MIT */
/* What the files of gpu/amd/ share: all GPUs of a process, with one set of slots. */
#ifndef AMD_H
#define AMD_H

#include <pthread.h>

#include "ckf_amd_sink.h"
#include "engine.h"

/* What still reads or writes a slot. */
struct amd_pending {
	struct engine_queue *queue; /* NULL: nothing */
	uint32_t seq;
};

struct ckf_sink {
	struct ckf_amd *amd;
	unsigned int gpu;
	unsigned int nr_streams;
	bool owns; /* close() closes amd, too */
	struct ckf_amd_watch watch;
};

struct ckf_amd {
	struct engines *engines; /* NULL: the CPU stores */
	struct ckf_sink *sinks;	 /* one for each GPU; by stores, one for all */
	unsigned int nr_sinks;
	unsigned int nr_slots;
	uint32_t slot_bytes;
	char *slots;

	pthread_mutex_t lock; /* of all below */
	pthread_cond_t cond;
	struct amd_pending *pending; /* by slot; that of a taken one is for its taker alone */
	uint32_t *free;		     /* the one that has been free longest first */
	unsigned int nr_free;
};

struct ckf_sink_mem {
	struct ckf_sink *sink;
	struct engine_mem mem; /* by stores, an address of this process */
};

/* One sink for each GPU, or one for all by stores, for free(); NULL: no memory. */
struct ckf_sink *amd_sinks_new(struct ckf_amd *amd, const struct ckf_amd_watch *watch);

/*
 * Waits for a slot that nothing reads or writes any more; nothing is pending in it then. -ECANCELED
 * by watch.
 */
int amd_slot_take(struct ckf_amd *amd, const struct ckf_amd_watch *watch, uint32_t *nr,
		  struct ckf_error *err);
/* Gives a slot back. Whoever takes it next waits for what is pending. */
void amd_slot_put(struct ckf_amd *amd, uint32_t nr);

/* The object of a dma-buf, for one of sinks. bytes: of it, page-aligned. */
int amd_import(struct ckf_sink *sinks, int fd, uint64_t bytes, struct ckf_sink_mem **out,
	       struct ckf_error *err);

#endif
