/* SPDX-License-Identifier: MIT */
/* One call of ckf_convert(): what its steps share. Private to convert/. */
#ifndef CKF_CONVERT_CONVERSION_H
#define CKF_CONVERT_CONVERSION_H

#include "files.h"
#include "pipeline.h"

#define CKF_NO_FILE (-1)

struct ckf_conversion {
	struct ckf_convert_opts opts;
	struct ckf_convert_stats stats;
	const char *dump_path;
	struct ckf_error *err;
	struct ckf_dir dir; /* of the dump */
	struct ckf_dump *dump;
	struct ckf_file_list list;
	bool has_tails;	      /* bytes behind the last whole page of a pages file, left out */
	int64_t *pages_file;  /* per pagemap: position in list, or CKF_NO_FILE */
	uint64_t *pagemap_of; /* per file of list that is a pages file */
	struct ckf_chain chain;
	struct ckf_bases *bases;
	struct ckf_in_place in_place;
	struct ckf_output out;
	int pack_fd;
	struct ckf_build build;
	struct ckf_index idx;
	struct ckf_encode_opts encode;
	struct ckf_decode_costs costs;

	/* Which stream comes next. */
	uint64_t target;
	uint32_t level;
	struct ckf_leftover left; /* wanted from the next level, after the first */
	uint32_t *open_streams;	  /* per pagemap: made and not done */
};

/* claim.c: opens the dump at c->dump_path, and reads and checks what its small images say. */
int ckf_conversion_open(struct ckf_conversion *c);
/* Finds and checks the pages file of each pagemap: these do not go into the image as they are. */
int ckf_conversion_claim(struct ckf_conversion *c);

#endif
