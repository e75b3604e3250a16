/* SPDX-License-Identifier: MIT */
/*
 * The data path of a conversion: reads the streams, cuts them into chunks, stores those that are
 * new in the pack, and enters everything into the tables.
 *
 * The result does not depend on the number of threads: whatever decides is done in the calling
 * thread and in the order of the source; threads read, hash, compare, encode and write.
 */
#ifndef CKF_CONVERT_PIPELINE_H
#define CKF_CONVERT_PIPELINE_H

#include "bases.h"
#include "build.h"
#include "ckfast.h"
#include "encode.h"

struct ckf_pipeline_opts {
	const struct ckf_convert_opts *user;
	struct ckf_chain *chain;
	struct ckf_bases *bases; /* may be NULL */
	int pack_fd;
	uint64_t pack_start; /* where the pack begins in it */
	struct ckf_encode_opts encode;
	bool keep_cached;     /* the pack stays in the page cache */
	uint64_t total_bytes; /* of all streams */
	/*
	 * The next stream, which the pipeline frees: 1, 0 when there are no more, -errno. The
	 * streams of a target follow each other.
	 */
	int (*next_stream)(void *arg, struct ckf_stream **s, struct ckf_error *err);
	/* All pages of a stream are in the tables. */
	void (*stream_done)(void *arg, const struct ckf_stream *s);
	void *arg;
};

int ckf_pipeline_run(const struct ckf_pipeline_opts *opts, struct ckf_build *b,
		     struct ckf_error *err);

#endif
