/* SPDX-License-Identifier: MIT */
/*
 * Streams: the pages of a dump in the order in which they are read.
 *
 * A pagemap has one stream of its own pages file, and one for each parent dump that it takes pages
 * from. Cursors walk a stream and say where each page lies in its file and in the target.
 * A stream is read-only once made and may be shared by threads; a chain belongs to one thread but
 * for the directories that it has already opened.
 */
#ifndef CKF_CONVERT_STREAM_H
#define CKF_CONVERT_STREAM_H

#include "dedup.h"
#include "ckf_dump.h"
#include "packing.h"

/* Incremental dumps of a longer chain are refused: each holds a directory open. */
#define CKF_CHAIN_MAX 512

/* The dump directory, its parent, the parent of that… opened as they are needed. */
struct ckf_chain {
	struct ckf_chain_level {
		struct ckf_dir dir;
		uint64_t dev;
		uint64_t ino;
	} levels[CKF_CHAIN_MAX];
	uint32_t nr_levels;
	const struct ckf_dump *dump;   /* names of pages files come from its tables */
	struct ckf_packings *packings; /* of the compressed pages files */
};

/* dir stays the caller's. */
int ckf_chain_init(struct ckf_chain *c, const struct ckf_dir *dir, struct ckf_error *err);
void ckf_chain_fini(struct ckf_chain *c);
/* Opens the pages file of an origin whose level is open. 0, or -errno with a message. */
int ckf_chain_open_pages(const struct ckf_chain *c, const struct ckf_origin *o,
			 struct ckf_file_part *out, struct ckf_error *err);

#define CKF_ORIGIN_NAME_BYTES CKF_RENDER_NAME_BYTES
/* The name of the pages file. Returns buf. */
const char *ckf_origin_name(const struct ckf_dump *d, const struct ckf_origin *o,
			    char buf[CKF_ORIGIN_NAME_BYTES]);
/* Where the pages begin in the file. */
uint64_t ckf_origin_head_bytes(const struct ckf_origin *o);
/* The pages file that a pagemap itself names. */
struct ckf_origin ckf_origin_of(const struct ckf_pagemap *pm);

struct ckf_range {
	uint64_t start;
	uint64_t end;
};

/* Pages that a target takes from a parent dump: part of one run there. */
struct ckf_piece {
	uint64_t vaddr;
	uint64_t file_page; /* in the parent's pages file */
	uint64_t nr_pages;
};

struct ckf_stream {
	struct ckf_origin origin;
	uint64_t target; /* position of the pagemap */
	uint64_t nr_pages;
	bool is_file;		    /* of the image: its chunks are the contents of a pages file */
	bool has_twin;		    /* a later pages file is about as long: it may hold the same */
	const struct ckf_run *runs; /* level 0: of the pagemap, which lives longer */
	uint64_t nr_runs;
	struct ckf_piece *pieces; /* other levels */
	uint64_t nr_pieces;
	struct ckf_range *verbatim; /* sorted, apart: what CRIU's restorer reads itself */
	uint64_t nr_verbatim;
};

/*
 * The stream of a pagemap's own pages file, which has file_pages pages (more than the pagemap
 * names is allowed). task may be NULL.
 */
int ckf_stream_local(const struct ckf_pagemap *pm, uint64_t file_pages, const struct ckf_task *task,
		     struct ckf_stream **out, struct ckf_error *err);

/* The stream of the bytes of its compressed pages file, as they are. */
int ckf_stream_bytes(const struct ckf_pagemap *pm, uint64_t file_bytes, struct ckf_stream **out,
		     struct ckf_error *err);

/* Pages to be found in one parent of a pagemap's dump: the runs with in_parent set. */
struct ckf_parent_query {
	struct ckf_chain *chain;
	uint32_t level; /* of the parent, at least 1 */
	const struct ckf_pagemap *pm;
	const struct ckf_task *task; /* may be NULL */
	const struct ckf_run *runs;
	uint64_t nr_runs;
};

/* Pages that this parent has from its own parent: the runs of the next query. Free with free(). */
struct ckf_leftover {
	struct ckf_run *runs;
	uint64_t nr_runs;
};

/* The pages that are there make the stream, which may be empty; all others are left over. */
int ckf_stream_parent(const struct ckf_parent_query *q, struct ckf_stream **out,
		      struct ckf_leftover *left, struct ckf_error *err);
void ckf_stream_free(struct ckf_stream *s);

/* Pages that follow each other in the file and in the target, all verbatim or none. */
struct ckf_span {
	uint64_t vaddr;
	uint64_t file_page;
	uint32_t nr_pages;
	bool mapped; /* false: in the file, but no pagemap entry names it */
	bool verbatim;
};

struct ckf_cursor {
	const struct ckf_stream *stream;
	uint64_t item; /* run or piece */
	uint64_t done; /* pages of it */
	uint64_t page; /* of the stream */
	uint64_t range;
};

void ckf_cursor_init(struct ckf_cursor *c, const struct ckf_stream *s);
/* The next span of at most max_pages, which are there. */
void ckf_cursor_next(struct ckf_cursor *c, uint32_t max_pages, struct ckf_span *span);

#endif
