/* SPDX-License-Identifier: MIT */
/*
 * The loader for device memory: executes the plan of a device target through a backend
 * (loader/ckf_sink.h). Bytes are read into the backend's slots, or decoded into them, checked
 * there, and copied to the device from there; zero chunks are cleared on the device.
 *
 * Both functions leave no thread and no fd behind, and no copy under way, however they end. When
 * they fail the contents of the device memory are unspecified.
 */
#ifndef CKF_FILL_SINK_H
#define CKF_FILL_SINK_H

#include "format/ckf_gpu_dump.h"
#include "ckf_fill.h"

struct ckf_sink;
struct ckf_sink_mem;
struct ckf_sink_ops;

/* Device memory that part of a target's addresses is filled into. */
struct ckf_sink_dest {
	uint64_t start; /* in the target, multiple of the page size */
	uint64_t end;	/* exclusive */
	struct ckf_sink *sink;
	struct ckf_sink_mem *mem; /* its first byte is start's */
};

/*
 * dests: sorted by start, not overlapping; their memory may have any contents. Every op of the
 * target must lie in dests, else -EBADMSG. Of opts: dir_fd, threads (0: the CPUs), flags and
 * timeout_ms with stalled. Returns when all copies have arrived (each sink is drained); every chunk
 * has been checked then. stats->filled_bytes counts bytes copied, zero_bytes bytes cleared.
 *
 * Each thread has one slot at a time and waits for the next while its copies run: two slots for
 * each thread keep both reads and copies going. -EINVAL when a slot is smaller than a chunk.
 */
int ckf_fill_sink(const struct ckf_image *img, const struct ckf_target *t,
		  const struct ckf_sink_ops *ops, const struct ckf_sink_dest *dests,
		  size_t nr_dests, const struct ckf_fill_opts *opts, struct ckf_fill_stats *stats,
		  struct ckf_error *err);

/*
 * The same from a plain dump: pages_fd is its ckfast-gpu-pages-PID.img, of exactly d->bytes bytes,
 * else -EBADMSG. Holes are cleared. A dump has no checksums, so nothing is checked. The dests must
 * cover all allocations, else -EINVAL.
 */
int ckf_fill_sink_file(int pages_fd, const struct ckf_gpu_dump *d, const struct ckf_sink_ops *ops,
		       const struct ckf_sink_dest *dests, size_t nr_dests,
		       const struct ckf_fill_opts *opts, struct ckf_fill_stats *stats,
		       struct ckf_error *err);

#endif
