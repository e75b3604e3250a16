/* SPDX-License-Identifier: MIT */
/*
 * What the scratch of a worker holds while codecs are chosen: two chunks, then either a sample and
 * what becomes of it, or the data of the model.
 */
#ifndef CKF_CONVERT_ENCODE_SCRATCH_H
#define CKF_CONVERT_ENCODE_SCRATCH_H

#include "cut.h"

#define CKF_SCRATCH_SECOND_OFF ((size_t)CKF_CUT_MAX_PAGES * CKF_PAGE_BYTES)
#define CKF_SCRATCH_SAMPLE_OFF (2 * CKF_SCRATCH_SECOND_OFF)
#define CKF_SCRATCH_SAMPLE_BYTES ((size_t)64 << 10)
#define CKF_ENCODE_SCRATCH_BYTES (CKF_SCRATCH_SAMPLE_OFF + CKF_SCRATCH_SAMPLE_BYTES)

#endif
