/* SPDX-License-Identifier: MIT */
/* Whether the fills of an image, all at the same time, keep a disk busy with one read each. */
#include "fill.h"
#include "readers.h"

/* So many direct reads at a time, up to 1 MiB each, keep a disk busy. */
#define ENOUGH_READERS 3

/* What fills of the target read that are not small: neither zeros nor what a parent has. */
static uint64_t read_pages(const struct ckf_index *idx, const struct ckf_target *t)
{
	uint64_t pages = 0;

	for (uint64_t i = t->first_op; i < t->first_op + t->nr_ops; i++)
		if (!(ckf_op_flags(&idx->ops[i]) & CKF_OP_INHERIT) &&
		    idx->chunks[idx->ops[i].chunk].codec != CKF_CODEC_ZERO)
			pages += idx->ops[i].nr_pages;
	return ckf_pages_to_bytes(pages) > FILL_SMALL_BYTES ? pages : 0;
}

bool ckf_many_readers(const struct ckf_index *idx)
{
	uint64_t sum = 0, most = 0;

	for (uint64_t t = 0; t < idx->nr_targets; t++) {
		const uint64_t pages = idx->targets[t].kind == CKF_TARGET_DEVICE
					       ? 0
					       : read_pages(idx, &idx->targets[t]);

		sum += pages;
		most = pages > most ? pages : most;
	}
	return most && sum / ENOUGH_READERS >= most;
}
