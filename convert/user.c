/* SPDX-License-Identifier: MIT */
/* The callbacks of a caller: user.h says when. */
#include <errno.h>

#include "base/ckf_threads.h"
#include "user.h"

int ckf_user_stop(const struct ckf_convert_opts *opts, struct ckf_error *err)
{
	if (opts->stop && opts->stop(opts->arg))
		return ckf_error_set(err, -EINTR, "stopped");
	return 0;
}

int ckf_user_check(struct ckf_user *u, const struct ckf_progress *p, struct ckf_error *err)
{
	int ret = ckf_user_stop(u->opts, err);
	uint64_t now_ns;

	if (ret || !u->opts->progress)
		return ret;
	now_ns = ckf_now_ns();
	if (now_ns - u->told_ns < CKF_USER_MS * 1000000ull)
		return 0;
	u->told_ns = now_ns;
	u->opts->progress(u->opts->arg, p);
	return 0;
}
