/* SPDX-License-Identifier: MIT */
/* Filling device memory from a plain dump, as ckf_fill_sink() does from a fast image. */
#ifndef CKF_FILL_SINK_H
#define CKF_FILL_SINK_H

#include "ckfast_sink.h"
#include "format/ckf_gpu_dump.h"

/*
 * pages_fd is the dump's ckfast-gpu-pages-PID.img, of exactly d->bytes bytes, else -EBADMSG. Holes
 * are cleared. A dump has no checksums, so nothing is checked. The dests must cover all
 * allocations, else -EINVAL.
 */
int ckf_fill_sink_file(int pages_fd, const struct ckf_gpu_dump *d, const struct ckf_sink_ops *ops,
		       const struct ckf_sink_dest *dests, size_t nr_dests,
		       const struct ckf_fill_opts *opts, struct ckf_fill_stats *stats,
		       struct ckf_error *err);

#endif
