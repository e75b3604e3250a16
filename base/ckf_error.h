/* SPDX-License-Identifier: MIT */
/*
 * What went wrong, where, in one line: what ckfast.h does not have of it.
 *
 * The first error wins: ckf_error_set() on one that is already set changes nothing but still
 * returns its code argument. Not thread-safe: one struct per thread, or under a lock of the owner.
 */
#ifndef CKF_ERROR_H
#define CKF_ERROR_H

#include <stdarg.h>

#include "ckfast.h"

int ckf_error_vset(struct ckf_error *err, int code, uint64_t off, const char *fmt, va_list ap);

/*
 * For broken rules of SPEC.md: "corrupt <section>[<i>] at <off>: <reason>" with code -EBADMSG, or
 * "unsupported …" with -EOPNOTSUPP. index < 0 leaves out "[<i>]". Returns code.
 */
int ckf_error_rule(struct ckf_error *err, int code, const char *section, int64_t index,
		   uint64_t off, const char *fmt, ...) __attribute__((format(printf, 6, 7)));

#endif
