/* SPDX-License-Identifier: MIT */
/*
 * The SDMA engines of all GPUs, by libhsakmt: memory that they reach, and queues of copies.
 *
 * Threads: open and close are for one thread. All else may be called by many at once; a copy is
 * waited for by whoever wants to know, and a queue that has failed once stays so.
 */
#ifndef AMD_ENGINE_H
#define AMD_ENGINE_H

#include "base/ckf_error.h"

struct engines;
struct engine_queue;

/* A piece of memory of a GPU, or the staging memory, by its address there. */
struct engine_mem {
	uint64_t addr;
	uint64_t bytes;
	unsigned int gpu; /* from 0, in the order of libhsakmt's nodes */
	bool imported;
};

struct engine_copy {
	uint64_t to;
	uint64_t from;
	uint64_t bytes;
};

struct engines_opts {
	unsigned int nr_queues;	 /* for each GPU; 0: one for each engine */
	unsigned int timeout_ms; /* without progress, after which a queue has failed */
	size_t staging_bytes;
};

/*
 * Opens all GPUs, makes their queues, and memory of the host that all of them reach. -ENODEV there
 * is no library, no driver or no GPU; -EOPNOTSUPP built without libhsakmt, or a GPU whose engines
 * are not known; -ENOMEM, -EIO.
 */
int engines_open(const struct engines_opts *o, struct engines **out, struct ckf_error *err);
/* Takes NULL. No copy is under way. */
void engines_close(struct engines *e);

void *engines_staging(struct engines *e);
unsigned int engines_nr_gpus(const struct engines *e);
unsigned int engines_nr_queues(const struct engines *e, unsigned int gpu);
struct engine_queue *engines_queue(struct engines *e, unsigned int gpu, unsigned int nr);

/* The object of a dma-buf, on the GPU that it is of. */
int engines_import(struct engines *e, int fd, struct engine_mem *out, struct ckf_error *err);
int engines_alloc(struct engines *e, unsigned int gpu, uint64_t bytes, struct engine_mem *out,
		  struct ckf_error *err);
void engines_free(struct engines *e, const struct engine_mem *mem);

/*
 * Starts copies, of any length; *seq is for engine_wait(). -EIO: the queue has failed, some may be
 * under way, and *seq is never reached.
 */
int engine_copy(struct engine_queue *q, const struct engine_copy *copies, size_t nr, uint32_t *seq,
		struct ckf_error *err);
/* Starts writing zeros, likewise; bytes is a multiple of 4. */
int engine_clear(struct engine_queue *q, uint64_t to, uint64_t bytes, uint32_t *seq,
		 struct ckf_error *err);
/* True when what has that number has been done. */
bool engine_done(const struct engine_queue *q, uint32_t seq);
/* Waits for that: -EIO when the engine stands still. */
int engine_wait(struct engine_queue *q, uint32_t seq, struct ckf_error *err);
/* True when one has waited in vain: what is started on the queue from then on is never done. */
bool engine_failed(const struct engine_queue *q);
/* Waits for everything that was started so far. */
int engine_drain(struct engine_queue *q, struct ckf_error *err);

#endif
