/* SPDX-License-Identifier: MIT */
/*
 * A block of pages on its way through a conversion, and the jobs that threads do with it. Private
 * to pipeline.c and block.c. Each job has the block to itself.
 */
#ifndef CKF_CONVERT_BLOCK_H
#define CKF_CONVERT_BLOCK_H

#include "encode.h"
#include "pack_writer.h"
#include "pipeline.h"
#include "source.h"
#include "base/ckf_io_thread.h"

#define CKF_BLOCK_PAGES 512u
#define CKF_CARRY_PAGES CKF_CUT_MAX_PAGES /* room in front, for what the block before left over */
#define CKF_BUF_PAGES (CKF_CARRY_PAGES + CKF_BLOCK_PAGES)

/* A chunk of a block. match and rec are records of the dedup table, or CKF_DEDUP_NONE. */
struct ckf_part {
	uint32_t first; /* page in the buffer */
	uint16_t nr_pages;
	bool zero;
	bool verbatim;
	struct ckf_encoded stored;
	uint64_t checksum;
	uint32_t chunk; /* its number, once it is placed, if it is stored by this block */
	uint32_t match; /* record that it may be equal to, until encode finds that it is not */
	uint32_t rec;	/* its own record */
	int64_t base;	/* position in the bases where its bytes are; below 0: nowhere */
};

/* What all blocks of a conversion share. */
struct ckf_shared {
	const struct ckf_pipeline_opts *opts;
	struct ckf_encode_opts encode;
	struct ckf_pool *pool;
	struct ckf_dedup *dedup;
	uint64_t zero_hash; /* of a page */
	struct ckf_pack_writer *pack;
};

struct ckf_block {
	struct ckf_job job; /* first: the job is the block */
	struct ckf_shared *s;
	struct ckf_stream *stream;
	bool last; /* of its stream */
	struct ckf_cursor from;
	uint32_t nr_pages;
	uint32_t first; /* page in the buffer, after the cut */
	uint8_t *data;	/* CKF_BUF_PAGES pages */
	uint64_t *hash; /* per page */
	bool *zero;
	struct ckf_part *parts;
	uint32_t nr_parts;
	struct ckf_new_chunk *fresh; /* once placed, in the order of the pack; tag is the part */
	uint32_t nr_fresh;
	uint64_t pack_off; /* where the blocks before end in the pack */
	struct ckf_transfer read;
	int ret; /* of the job, with err */
	struct ckf_error err;
};

static inline uint8_t *ckf_block_page(const struct ckf_block *b, uint32_t page)
{
	return b->data + (size_t)page * CKF_PAGE_BYTES;
}

/* Reads the pages, and hashes them. */
void ckf_block_read(struct ckf_job *job, void *worker);
/* Hashes the pages that the reader has read, which calls the second when it has. */
void ckf_block_hash(struct ckf_job *job, void *worker);
void ckf_block_read_done(struct ckf_transfer *t);
/* Compares chunks with those that they look like, encodes the others in place. */
void ckf_block_encode(struct ckf_job *job, void *worker);
/* Writes the new chunks to their places in the pack. */
void ckf_block_write(struct ckf_job *job, void *worker);

#endif
