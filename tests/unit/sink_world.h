/* SPDX-License-Identifier: MIT */
/*
 * What tests of ckf_fill_sink() work on: an image of the memory of two devices, in a directory of
 * its own, and a model of that memory.
 *
 *	sw_init(&w, seed);
 *	sw_open_sinks(&w, 4);
 *	sw_add_dests(&w);
 *	sw_count_all(&w);
 *	sw_fill(&w, flags, threads, &stats, &err);
 *	sw_assert_clean(&w);
 *	sw_assert_dests(&w);
 *	sw_free_dests(&w);
 *	sw_close_sinks(&w);
 *	sw_fini(&w);
 */
#ifndef CKF_TEST_SINK_WORLD_H
#define CKF_TEST_SINK_WORLD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "loader/ckf_image.h"
#include "ckfast_sink.h"
#include "img_builder.h"

#define SW_BASE 0x7f0000000000ull
#define SW_AREA_BYTES (12ull << 20)
#define SW_SLOT_BYTES (2u << 20)
#define SW_EXACT_PAGES 256 /* two pieces of what a thread reads at a time, without a rest */

/*
 * Two devices and three ranges: A on the first device, B right behind it on the second, and C on
 * the first again. Ops cross the border of A and B.
 */
#define SW_NR_DESTS 3

struct sink_world {
	char dir[64];
	int dir_fd;
	int base_fd; /* a base of half the chunks, of worlds with an even seed; else -1 */
	struct img_builder b;
	struct ckf_image *img;
	uint8_t *model;
	struct ckf_sink *sinks[2];
	struct ckf_sink_dest dests[SW_NR_DESTS];
	unsigned int tasks;
	unsigned int fds;
};

/* Begins without ops, which cover the whole area in the end; then the image is written and opened.
 * based: with a base. */
void sw_begin(struct sink_world *w, uint64_t seed);
void sw_end(struct sink_world *w, bool based);

/* All of it, with a random plan. */
void sw_init(struct sink_world *w, uint64_t seed);
void sw_fini(struct sink_world *w);

/* Each device has so many slots of SW_SLOT_BYTES, and two streams. */
void sw_open_sinks(struct sink_world *w, unsigned int nr_slots);
void sw_close_sinks(struct sink_world *w);

/* New memory on the devices. */
void sw_add_dests(struct sink_world *w);
void sw_free_dests(struct sink_world *w);

/* All bytes of the dests are those of the model. */
void sw_assert_dests(const struct sink_world *w);

/* The first target. */
int sw_fill(struct sink_world *w, uint32_t flags, unsigned int threads,
	    struct ckf_fill_stats *stats, struct ckf_error *err);

/* Puts the packs out of the page cache. */
void sw_drop_caches(struct sink_world *w);

/* Since sw_count_all(), no thread and no descriptor was left behind; no slot is taken, and no copy
 * is under way. */
void sw_count_all(struct sink_world *w);
void sw_assert_clean(struct sink_world *w);

/* Changes a byte of a file; once more, and it is what it was. */
void sw_flip(int fd, off_t off);

#endif
