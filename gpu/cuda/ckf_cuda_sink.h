/* SPDX-License-Identifier: MIT */
/*
 * The backend for CUDA, and what it can do beyond ckfast_sink.h.
 *
 * A sink of ckf_cuda_sink_open() uses the contexts and slots of a pool and is cheap; one of
 * ckf_cuda_sink_ops.open() has a pool of its own, and names devices by ordinal ("0") or UUID (32
 * hexadecimal digits, with or without "GPU-" in front and dashes).
 */
#ifndef CKF_CUDA_SINK_H
#define CKF_CUDA_SINK_H

#include "ckfast_sink.h"

struct ckf_cuda_pool;

extern const struct ckf_sink_ops ckf_cuda_sink_ops;

struct ckf_cuda_sink_opts {
	size_t size;	     /* sizeof(struct ckf_cuda_sink_opts) */
	unsigned int device; /* ordinal */
	unsigned int nr_streams;
	/* Asked before each slot and each clear, by any thread: non-zero ends them with -ECANCELED.
	 * May be NULL. */
	int (*cancelled)(void *arg);
	void *arg;
	_Atomic uint64_t *done_bytes; /* what is copied or cleared is added; may be NULL */
};

/* Warms the device if it is not warm. The pool must outlive the sink. */
int ckf_cuda_sink_open(struct ckf_cuda_pool *pool, const struct ckf_cuda_sink_opts *opts,
		       struct ckf_sink **out, struct ckf_error *err);

/* alloc() with CKF_GPU_ALLOC_ flags of format/ckf_gpu_dump.h. */
int ckf_cuda_sink_alloc(struct ckf_sink *sink, uint64_t bytes, uint32_t flags,
			struct ckf_sink_mem **out, struct ckf_error *err);

/* Starts a copy from pinned memory, which stays as it is until the sink is drained. As submit(). */
int ckf_cuda_sink_upload(struct ckf_sink *sink, unsigned int stream, struct ckf_sink_mem *mem,
			 uint64_t mem_off, const void *src, uint64_t bytes, struct ckf_error *err);

/* Memory of another process, by its descriptor, which stays the caller's. */
int ckf_cuda_sink_import(struct ckf_sink *sink, int fd, uint64_t bytes, struct ckf_sink_mem **out,
			 struct ckf_error *err);

#endif
