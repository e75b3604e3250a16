/* SPDX-License-Identifier: MIT */
/* What a thread of the pool works with, in all of convert/. */
#ifndef CKF_CONVERT_WORKER_H
#define CKF_CONVERT_WORKER_H

#include "base/ckf_pool.h"
#include "format/ckf_codec.h"

struct ckf_worker {
	struct ckf_codec_ctx *codec;
	uint8_t *scratch; /* page-aligned */
};

/* A struct ckf_worker, with the types that a pool wants; NULL: no memory. */
void *ckf_worker_new(size_t scratch_bytes);
void ckf_worker_free(void *worker);

/* A pool whose jobs get a struct ckf_worker. */
int ckf_workers_start(struct ckf_pool **out, unsigned int threads, size_t scratch_bytes,
		      struct ckf_error *err);

#endif
