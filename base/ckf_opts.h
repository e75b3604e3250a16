/* SPDX-License-Identifier: MIT */
/* Structs that begin with their size: those of a caller that was built with another version. */
#ifndef CKF_OPTS_H
#define CKF_OPTS_H

#include "ckfast.h"

/* Where a member ends: the least size of options that cannot do without it. */
#define CKF_END_OF(type, member) \
	(offsetof(struct type, member) + sizeof(((struct type *)0)->member))

/*
 * -EINVAL when user's struct has fewer than least_bytes, or is longer than own_bytes and not zero
 * beyond. what: for the message.
 */
int ckf_opts_check(size_t own_bytes, const void *user, size_t least_bytes, const char *what,
		   struct ckf_error *err);
/* For structs that are only filled in, which need nothing but a size. */
#define CKF_OPTS_CHECK(type, user, err) \
	ckf_opts_check(sizeof(struct type), user, CKF_END_OF(type, size), #type, err)

/* Checks user's struct and copies it to own, which has own_bytes; what user's lacks is zero. */
int ckf_opts_take(void *own, size_t own_bytes, const void *user, size_t least_bytes,
		  const char *what, struct ckf_error *err);
#define CKF_OPTS_TAKE(type, own, user, last, err) \
	ckf_opts_take(own, sizeof(struct type), user, CKF_END_OF(type, last), #type, err)

/* Copies own, which has own_bytes, to user's struct, which keeps its size; what it has beyond is
 * zeroed. -EINVAL when it has no size. */
int ckf_opts_give(void *user, const void *own, size_t own_bytes);

#endif
