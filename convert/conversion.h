/* SPDX-License-Identifier: MIT */
/* One call of ckf_convert(): what its steps share. Private to convert/. */
#ifndef CKF_CONVERT_CONVERSION_H
#define CKF_CONVERT_CONVERSION_H

#include "archive.h"
#include "files.h"
#include "pipeline.h"

#define CKF_NO_FILE (-1)

struct ckf_conversion {
	struct ckf_convert_opts opts;
	struct ckf_convert_stats stats;
	const char *dump_path;
	struct ckf_error *err;
	struct ckf_dir dir;	     /* of the dump */
	struct ckf_archive *archive; /* that it lies in, or NULL */
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
	uint64_t pack_start; /* in it */
	uint64_t out_start;  /* of an archive, in its file */
	uint64_t out_end;
	struct ckf_build build;
	struct ckf_index idx;
	struct ckf_encode_opts encode;
	struct ckf_decode_costs costs;

	/* Which stream comes next. */
	uint64_t target;
	uint32_t level;
	struct ckf_leftover left; /* wanted from the next level, after the first */
	uint32_t *open_streams;	  /* per pagemap: made and not done */
	uint64_t bytes_target;	  /* whose compressed pages file may come next, as it is */
};

/* conversion.c: one with those options, for an error to be told in err. */
int ckf_conversion_new(const struct ckf_convert_opts *opts, struct ckf_error *err,
		       struct ckf_conversion **out);
void ckf_conversion_free(struct ckf_conversion *c);
/* The dump is open: finds and checks what it is made of. */
int ckf_conversion_take(struct ckf_conversion *c);
/* The index is made: what it tells. */
void ckf_conversion_fill_stats(struct ckf_conversion *c);
/* All of the conversion of one layer. Takes a; adds to stats. */
int ckf_convert_layer(struct ckf_archive *a, const struct ckf_convert_opts *opts,
		      const struct ckf_output *o, struct ckf_layer_place *at,
		      struct ckf_convert_stats *stats, struct ckf_error *err);

/* claim.c: opens the dump at c->dump_path. */
int ckf_conversion_open(struct ckf_conversion *c);
/* Reads and checks what the small images of c->dir say. */
int ckf_conversion_read(struct ckf_conversion *c);
/* Finds and checks the pages file of each pagemap: these do not go into the image as they are. */
int ckf_conversion_claim(struct ckf_conversion *c);

/* convert_pages.c: writes the pack, but for its header, and makes the index. */
int ckf_conversion_make(struct ckf_conversion *c);
/* Is the file still what was read? */
int ckf_conversion_check_unchanged(struct ckf_conversion *c, const struct ckf_file *f);

/* convert_archive.c: the dump is in c->archive. */
int ckf_conversion_enter_archive(struct ckf_conversion *c);
/* Writes the archive with the image; fast NULL: in place. */
int ckf_conversion_into_archive(struct ckf_conversion *c, const char *fast);
/* The same into a file of the output o, which the caller makes and commits. */
int ckf_conversion_into_layer(struct ckf_conversion *c, const struct ckf_output *o,
			      struct ckf_layer_place *at);

#endif
