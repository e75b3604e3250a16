/* SPDX-License-Identifier: MIT */
/*
 * What went wrong, where, in one line.
 *
 * Functions return 0 or -errno and take a nullable struct ckf_error * last. The first error wins:
 * ckf_error_set() on one that is already set changes nothing but still returns its code argument.
 *
 *	-EBADMSG	the image (or dump) is corrupt
 *	-EOPNOTSUPP	it uses something that this version does not know
 *	-E2BIG		over a stated limit
 *	-EINVAL		the caller's mistake
 *	-ENOMEM, -EIO and others	from the system
 *
 * Not thread-safe: one struct per thread, or under a lock of the owner.
 */
#ifndef CKF_ERROR_H
#define CKF_ERROR_H

#include <stdarg.h>
#include <stdint.h>

#define CKF_ERROR_MSG_BYTES 512

struct ckf_error {
	int code;     /* 0, or -errno */
	uint64_t off; /* bytes into the file that the message names, where that makes sense */
	char msg[CKF_ERROR_MSG_BYTES];
};

/* Exit codes of the command line, and the class of an error. */
enum ckf_exit {
	CKF_EXIT_OK = 0,
	CKF_EXIT_FAILED = 1,
	CKF_EXIT_USAGE = 2,
	CKF_EXIT_CORRUPT = 3,
	CKF_EXIT_UNSUPPORTED = 4,
};

/* Records code and message (printf style) unless one is there already. Returns code. err may be
 * NULL. */
int ckf_error_set(struct ckf_error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
int ckf_error_vset(struct ckf_error *err, int code, uint64_t off, const char *fmt, va_list ap);

/*
 * For broken rules of SPEC.md: "corrupt <section>[<i>] at <off>: <reason>" with code -EBADMSG, or
 * "unsupported …" with -EOPNOTSUPP. index < 0 leaves out "[<i>]". Returns code.
 */
int ckf_error_rule(struct ckf_error *err, int code, const char *section, int64_t index,
		   uint64_t off, const char *fmt, ...) __attribute__((format(printf, 6, 7)));

/* enum ckf_exit for a 0 or -errno code. */
int ckf_error_exit_code(int code);

#endif
