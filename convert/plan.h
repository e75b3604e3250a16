/* SPDX-License-Identifier: MIT */
/*
 * The plan: which pages a task has from its parent, lanes, and ranges for huge pages.
 *
 * Pure: it works on the tables of an index and on what the dump says about VMAs.
 */
#ifndef CKF_CONVERT_PLAN_H
#define CKF_CONVERT_PLAN_H

#include "format/ckf_index.h"
#include "ckf_dump.h"

#define CKF_LANE_MAX_BYTES (32u << 20) /* SPEC.md section 4.7 */

/*
 * Targets are those of the dump's pagemaps, in the same order, with first_op, nr_ops and nr_pages;
 * ops are in order, without flag inherit. Sets parents, flags, lanes and huge. idx->ops may be
 * replaced: all arrays are malloc()ed and the caller's to free, also when it fails.
 */
int ckf_plan_build(struct ckf_index *idx, const struct ckf_dump *d, struct ckf_error *err);

#endif
