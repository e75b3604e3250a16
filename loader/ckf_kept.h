/* SPDX-License-Identifier: MIT */
/*
 * Kept images: the chunks that the device memory of an image consists of, decoded and checked once,
 * in memory that devices copy from by themselves. A fill then reads, decodes and checks nothing.
 *
 * What is kept is for whoever could read it anyway: who asks for it has opened the same packs.
 */
#ifndef CKF_KEPT_H
#define CKF_KEPT_H

#include "ckfast_sink.h"

struct ckf_kept;
struct ckf_packs_seen;

/*
 * What is to be kept of an image, which need not live longer; none of it is there yet. -ENOENT: the
 * image has no device memory. -EAGAIN: a pack was changed less than a second ago, and whether it is
 * changed again could not be told. Free with ckf_kept_free(), which takes NULL.
 */
int ckf_kept_new(const struct ckf_image *img, struct ckf_kept **out, struct ckf_error *err);
void ckf_kept_free(struct ckf_kept *k);
/* The length of the memory that it needs. */
uint64_t ckf_kept_bytes(const struct ckf_kept *k);

/*
 * Reads, decodes and checks all of it into mem, which stays the caller's and must outlive k.
 * cancelled(arg) is asked by any thread, may be NULL, and ends it with -ECANCELED.
 */
int ckf_kept_load(struct ckf_kept *k, const struct ckf_image *img, void *mem, unsigned int threads,
		  int (*cancelled)(void *arg), void *arg, struct ckf_error *err);

/*
 * Opens the packs of an image, with the rights of the calling thread, and notes which files they
 * are, as ckf_kept_new() does. Free with free().
 */
int ckf_packs_see(const struct ckf_image *img, struct ckf_packs_seen **out, struct ckf_error *err);
/* True when k has all chunks of the image, and its packs, as seen, are the same unchanged files. */
bool ckf_kept_is_of(const struct ckf_kept *k, const struct ckf_image *img,
		    const struct ckf_packs_seen *seen);

struct ckf_kept_ops {
	const struct ckf_sink_ops *sink; /* clear and drain are used */
	/* Starts a copy from src, which stays as it is until the sink is drained. As submit. */
	int (*upload)(struct ckf_sink *sink, unsigned int stream, struct ckf_sink_mem *mem,
		      uint64_t mem_off, const void *src, uint64_t bytes, struct ckf_error *err);
};

/* As ckf_fill_sink(), of an image that k is of. */
int ckf_fill_kept(const struct ckf_kept *k, const struct ckf_image *img, const struct ckf_target *t,
		  const struct ckf_kept_ops *ops, const struct ckf_sink_dest *dests,
		  size_t nr_dests, const struct ckf_fill_opts *opts, struct ckf_fill_stats *stats,
		  struct ckf_error *err);

#endif
