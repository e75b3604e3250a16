/* SPDX-License-Identifier: MIT */
/* Ranges that may come as huge pages. Private to the plan. */
#ifndef CKF_CONVERT_PLAN_HUGE_H
#define CKF_CONVERT_PLAN_HUGE_H

#include "plan.h"

/* Fills idx->huge; everything else of the plan is there. */
int ckf_plan_huge(struct ckf_index *idx, const struct ckf_dump *d, struct ckf_error *err);

#endif
