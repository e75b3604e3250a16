/* SPDX-License-Identifier: MIT */
/* Chooses how a chunk is stored, and does it. Pure; a worker belongs to one thread. */
#ifndef CKF_CONVERT_ENCODE_H
#define CKF_CONVERT_ENCODE_H

#include "ckf_model.h"
#include "cut.h"
#include "pool.h"

/* What the scratch of a worker must hold: two chunks, a sample and what becomes of it. */
#define CKF_ENCODE_SAMPLE_PAGES 4
#define CKF_ENCODE_SCRATCH_BYTES \
	(2 * ((size_t)CKF_CUT_MAX_PAGES + CKF_ENCODE_SAMPLE_PAGES) * CKF_PAGE_BYTES)

struct ckf_encode_opts {
	int codec; /* CKF_CODEC_AUTO or an enum ckf_codec other than zero */
	int level;
	struct ckf_storage storage; /* for CKF_CODEC_AUTO */
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

#endif
