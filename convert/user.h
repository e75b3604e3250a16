/* SPDX-License-Identifier: MIT */
/* The callbacks of the caller of convert, extract and flatten, in the thread of that call. */
#ifndef CKF_CONVERT_USER_H
#define CKF_CONVERT_USER_H

#include "ckfast.h"

/* How often progress is told at most, and how long a wait may put off a stop. */
#define CKF_USER_MS 200

struct ckf_user {
	const struct ckf_convert_opts *opts;
	uint64_t told_ns; /* when progress was told last */
};

/* -EINTR with a message when the caller wants an end, else 0. */
int ckf_user_stop(const struct ckf_convert_opts *opts, struct ckf_error *err);
/* The same, and tells of progress unless it was told right before. */
int ckf_user_check(struct ckf_user *u, const struct ckf_progress *p, struct ckf_error *err);

#endif
