/* SPDX-License-Identifier: MIT */
/*
 * KEEP and DROP: clients say which images stay in memory (gpud_kept.c). Only those who are trusted
 * may: the memory is the machine's, and is gone until somebody drops it.
 */
#include <errno.h>

#include "base/ckf_threads.h"
#include "gpud.h"

static int check_trusted(const struct gpud_conn *c, struct ckf_error *err)
{
	if (gpud_client_trusted(&c->peer))
		return 0;
	return ckf_error_set(err, -EPERM,
			     "only root, and the user that started gpud, may say "
			     "which images are kept");
}

int gpud_keep(struct gpud_conn *c, int fd, struct ckf_error *err)
{
	struct ckf_gpud_msg done = { .op = CKF_GPUD_DONE };
	const uint64_t start_ns = ckf_now_ns();
	int ret;

	ret = gpud_job_start(c, GPUD_KEEPING, fd, err);
	if (!ret)
		ret = check_trusted(c, err);
	if (!ret)
		ret = gpud_kept_keep(c->g->kept, fd, c, &done.arg, err);
	done.arg2 = ckf_now_ns() - start_ns;
	gpud_job_end(c, ret, done.arg, err);
	return ret ? ret : gpud_send(c, &done, -1, err);
}

int gpud_drop(struct gpud_conn *c, int fd, struct ckf_error *err)
{
	struct ckf_gpud_msg done = { .op = CKF_GPUD_DONE };
	int ret;

	ret = check_trusted(c, err);
	if (!ret)
		ret = gpud_kept_drop_dir(c->g->kept, fd, &done.arg, err);
	return ret ? ret : gpud_send(c, &done, -1, err);
}

int ckf_gpud_keep(int sock, int dir_fd, uint64_t *bytes, struct ckf_error *err)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_KEEP };
	uint64_t deadline_ns;
	int ret;

	/* Reading a large image takes as long as its storage does: whoever waits may go away. */
	ret = gpud_call_send(sock, &m, dir_fd, &deadline_ns, err);
	if (!ret)
		ret = gpud_call_recv(sock, &m, 0, err);
	*bytes = m.arg;
	return ret;
}

int ckf_gpud_drop(int sock, int dir_fd, uint64_t *nr, struct ckf_error *err)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_DROP };
	int ret = ckf_gpud_call(sock, &m, dir_fd, err);

	*nr = m.arg;
	return ret;
}
