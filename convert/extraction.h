/* SPDX-License-Identifier: MIT */
/* One call of ckf_extract(): what its steps share. Private to convert/. */
#ifndef CKF_CONVERT_EXTRACTION_H
#define CKF_CONVERT_EXTRACTION_H

#include "base/ckf_out_file.h"
#include "format/ckf_sum.h"
#include "archive.h"
#include "files.h"
#include "worker.h"
#include "user.h"

#define CKF_EXTRACT_MAX_BATCHES (2 * CKF_POOL_MAX_THREADS + 2)

struct ckf_extraction;

/* Some chunks of a pages file, one after the other. */
struct ckf_extract_batch {
	struct ckf_job job; /* first: the job is the batch */
	struct ckf_extraction *x;
	uint8_t *data;
	uint64_t *hashes; /* of its pages, where the checksum of the file is made of them */
	uint64_t first_ref;
	uint64_t nr_refs;
	uint64_t off; /* in the file */
	size_t bytes;
	int ret; /* of the job, with err */
	struct ckf_error err;
};

struct ckf_extraction {
	struct ckf_convert_opts opts;
	struct ckf_error *err;
	struct ckf_image *img;
	struct ckf_in_place in_place;
	struct ckf_output out;
	struct ckf_progress progress;
	struct ckf_user user;

	/* For pages files. */
	struct ckf_pool *pool;
	struct ckf_sum *sum;
	int *pack_fds;		  /* by base of the chunks */
	struct ckf_out_file file; /* the one being written */
	uint64_t start;		  /* where the pages file begins in it */
	struct ckf_extract_batch batches[CKF_EXTRACT_MAX_BATCHES];
	unsigned int nr_batches;
	uint8_t *data;
	uint64_t *hashes;
};

/* extract_pages.c: threads and buffers for the pages files of x->img; ckf_extraction_fini() ends
 * them. */
int ckf_extraction_start(struct ckf_extraction *x);
void ckf_extraction_fini(struct ckf_extraction *x);
/* Writes a pages file to fd, from start on, which is its end; checks it. */
int ckf_extraction_pages(struct ckf_extraction *x, const struct ckf_file *f, int fd,
			 uint64_t start);
/* Asks whether to stop (-EINTR), and tells of the progress. */
int ckf_extraction_check_user(struct ckf_extraction *x);

/* extract_archive.c: from the fast archive a, which is at fast, to the archive at path out; NULL:
 * in place. Takes a. */
int ckf_extraction_archive(struct ckf_extraction *x, struct ckf_archive *a, const char *fast,
			   const char *out);
/* The same into a file that the caller makes and commits. Can be called again. */
int ckf_extraction_layer(struct ckf_extraction *x, struct ckf_archive *a,
			 struct ckf_layer_place *at);

#endif
