/* SPDX-License-Identifier: MIT */
/*
 * Scratch memory: pieces of 2 MiB in which huge pages are filled before they are moved to their
 * place. Private to the loader.
 *
 * Moving leaves a piece empty, so it serves one segment after the other. How many are half filled
 * at a time is a matter of the workers, not of the size of the memory.
 */
#ifndef CKF_SCRATCH_H
#define CKF_SCRATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fill_scratch;

/* For so many workers; NULL without memory. Nothing is mapped before a piece is taken. */
struct fill_scratch *fill_scratch_new(unsigned int workers);

/*
 * Tells how many pieces are to be filled in all, before the first is taken: no more are mapped, and
 * a small part of that where the address space is limited.
 */
void fill_scratch_limit(struct fill_scratch *s, uint64_t nr_segs);

/*
 * A piece with these PROT_ bits, at a multiple of 2 MiB, with no page in it; NULL when none is
 * free. give: when it is empty again, or dirty, with pages that are no longer of use. Any number
 * of threads at once.
 */
char *fill_scratch_take(struct fill_scratch *s, unsigned int prot);
void fill_scratch_give(struct fill_scratch *s, unsigned int prot, char *piece, bool dirty);

/* All pieces, also those that were not given back. Takes NULL. */
void fill_scratch_free(struct fill_scratch *s);

#endif
