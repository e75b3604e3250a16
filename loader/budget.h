/* SPDX-License-Identifier: MIT */
/* What budget.c has beside ckfast.h: private to the loader, and its tests. */
#ifndef CKF_BUDGET_H
#define CKF_BUDGET_H

#include "ckf_image.h"

/* The memory that all tasks of an image together need, their page tables included. */
uint64_t budget_needed(const struct ckf_image *img);

#endif
