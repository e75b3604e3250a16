/* SPDX-License-Identifier: MIT */
/*
 * Cheap checks before a codec is tried on a chunk: most chunks that it would not shrink are told
 * from a few pages, or from how their bits are distributed.
 */
#ifndef CKF_CONVERT_PREFILTER_H
#define CKF_CONVERT_PREFILTER_H

#include "worker.h"

/* True: the codec will not make the chunk smaller. w's scratch as in encode_scratch.h. */
bool ckf_prefilter_rejects(struct ckf_worker *w, uint32_t codec, const uint8_t *data,
			   uint32_t nr_pages);

#endif
