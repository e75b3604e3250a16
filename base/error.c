/* SPDX-License-Identifier: MIT */
/*
 * struct ckf_error: the first error of a call chain, as one line of text.
 *
 * Messages may quote names out of hostile files. Control characters are replaced here, in the one
 * place that all messages pass, so that a message stays one line and cannot steer a terminal.
 */
#include "ckf_error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

static void keep_one_line(char *msg)
{
	for (unsigned char *p = (unsigned char *)msg; *p; p++) {
		if (*p < 0x20 || *p == 0x7f)
			*p = '?';
	}
}

int ckf_error_vset(struct ckf_error *err, int code, uint64_t off, const char *fmt, va_list ap)
{
	if (!err || err->code)
		return code;
	err->code = code;
	err->off = off;
	if (vsnprintf(err->msg, sizeof(err->msg), fmt, ap) < 0)
		err->msg[0] = '\0';
	keep_one_line(err->msg);
	return code;
}

int ckf_error_set(struct ckf_error *err, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	ckf_error_vset(err, code, 0, fmt, ap);
	va_end(ap);
	return code;
}

int ckf_error_rule(struct ckf_error *err, int code, const char *section, int64_t index,
		   uint64_t off, const char *fmt, ...)
{
	const char *class = code == -EOPNOTSUPP ? "unsupported" : "corrupt";
	char entry[32] = "";
	char reason[CKF_ERROR_MSG_BYTES];
	va_list ap;

	if (!err || err->code)
		return code;
	if (index >= 0)
		snprintf(entry, sizeof(entry), "[%" PRId64 "]", index);
	va_start(ap, fmt);
	if (vsnprintf(reason, sizeof(reason), fmt, ap) < 0)
		reason[0] = '\0';
	va_end(ap);
	ckf_error_set(err, code, "%s %s%s at %" PRIu64 ": %s", class, section, entry, off, reason);
	err->off = off;
	return code;
}

int ckf_error_exit_code(int code)
{
	switch (code) {
	case 0:
		return CKF_EXIT_OK;
	case -EBADMSG:
		return CKF_EXIT_CORRUPT;
	case -EOPNOTSUPP:
		return CKF_EXIT_UNSUPPORTED;
	default:
		return CKF_EXIT_FAILED;
	}
}
