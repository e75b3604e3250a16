/* SPDX-License-Identifier: MIT */
/* Checks a whole fast image: every checksum of every byte, and every rule that needs no dump
 * reader. */
#ifndef CKF_VERIFY_H
#define CKF_VERIFY_H

#include "ckf_image.h"

struct ckf_verify_stats {
	uint64_t stored_bytes;	/* chunk bytes read from the pack */
	uint64_t base_bytes;	/* and from those of bases */
	uint64_t decoded_bytes; /* checked, zero chunks left out */
	uint64_t padding_bytes; /* pack bytes checked to be zero */
	uint64_t file_bytes;	/* verbatim files that CRIU reads */
	uint64_t ns;
};

/*
 * Reads the whole pack, and of those of bases what the image has in them, with the given number of
 * threads (0: the CPUs), decodes and checks each chunk, checks the padding between chunks, the
 * verbatim files that CRIU reads (ckf_image_check_unread() checks the others), and the checksum of
 * each file of kind 2 put together from its chunks. done (may be NULL) is called in the calling
 * thread now and then. Reports the first error in the order of the pack.
 */
int ckf_verify(const struct ckf_image *img, unsigned int threads,
	       void (*done)(void *arg, uint64_t done_bytes, uint64_t total_bytes), void *arg,
	       struct ckf_verify_stats *stats, struct ckf_error *err);

#endif
