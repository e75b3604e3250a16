/* SPDX-License-Identifier: MIT */
/* What a thread of the pool works with: the state of codecs, and memory for their output. */
#include <stdlib.h>

#include "worker.h"

void ckf_worker_free(void *worker)
{
	struct ckf_worker *w = worker;

	if (!w)
		return;
	ckf_codec_ctx_free(w->codec);
	free(w->scratch);
	free(w);
}

void *ckf_worker_new(size_t scratch_bytes)
{
	struct ckf_worker *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->scratch = aligned_alloc(CKF_PAGE_BYTES, ckf_align_up(scratch_bytes, CKF_PAGE_BYTES));
	if (w->scratch && !ckf_codec_ctx_new(&w->codec))
		return w;
	ckf_worker_free(w);
	return NULL;
}

int ckf_workers_start(struct ckf_pool **out, unsigned int threads, size_t scratch_bytes,
		      struct ckf_error *err)
{
	const struct ckf_pool_opts opts = {
		.threads = threads,
		.new_worker = ckf_worker_new,
		.free_worker = ckf_worker_free,
		.worker_bytes = scratch_bytes,
	};

	return ckf_pool_start(out, &opts, err);
}
