/* SPDX-License-Identifier: MIT */
/*
 * Chooses how a chunk is stored, and does it. Pure; a worker belongs to one thread, and its scratch
 * has CKF_ENCODE_SCRATCH_BYTES.
 */
#ifndef CKF_CONVERT_ENCODE_H
#define CKF_CONVERT_ENCODE_H

#include "ckf_decode_costs.h"
#include "encode_scratch.h"
#include "worker.h"

/* What CKF_CODEC_AUTO looks for. */
enum ckf_encode_goal {
	CKF_GOAL_FAST_WARM = 0, /* from that storage, but never much slower from memory */
	CKF_GOAL_FAST,		/* from that storage */
	CKF_GOAL_SMALL,		/* the fewest bytes, whatever it takes */
};

struct ckf_encode_opts {
	int codec; /* CKF_CODEC_AUTO or an enum ckf_codec other than zero */
	int level;
	/* For CKF_CODEC_AUTO. */
	enum ckf_encode_goal goal;
	struct ckf_storage storage;
	const struct ckf_decode_costs *costs;
};

struct ckf_encoded {
	uint8_t codec;
	uint32_t stored_bytes;
};

/*
 * Encodes the chunk at data in its place: data then begins with its stored_bytes bytes. Chunks have
 * at most CKF_CUT_MAX_PAGES. Says raw where nothing else is worth it. 0 or -errno.
 */
int ckf_encode_chunk(struct ckf_worker *w, const struct ckf_encode_opts *opts, uint8_t *data,
		     uint32_t nr_pages, struct ckf_encoded *out);

/* Makes a chunk raw after all: data is again what it was. 0 or -errno. */
int ckf_encode_undo(struct ckf_worker *w, uint8_t *data, uint32_t nr_pages,
		    struct ckf_encoded *out);

#endif
