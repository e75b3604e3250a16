/* SPDX-License-Identifier: MIT */
/* The client's side of CKF_GPUD_FILL_AMD. */
#include <errno.h>
#include <unistd.h>

#include "base/ckf_opts.h"
#include "ckf_gpud_msg.h"
#include "ckfast_sink.h"

int ckf_amd_gpud_gpus(struct ckf_error *err)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_AMD_GPUS };
	int sock, ret;

	sock = ckf_gpud_connect(NULL, NULL, err);
	if (sock < 0)
		return sock;
	ret = ckf_gpud_call(sock, &m, -1, err);
	close(sock);
	if (!ret && !m.arg)
		ret = ckf_error_set(err, -ENODEV, "gpud serves no AMD GPUs");
	return ret ? ret : (int)m.arg;
}

/* Until gpud has imported all objects, and is told to begin. */
static int begin(int sock, int dir_fd, uint64_t target, const struct ckf_amd_object *objects,
		 size_t nr, struct ckf_error *err)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_FILL_AMD, .arg = target, .arg2 = nr };
	int ret;

	ret = ckf_gpud_send(sock, &m, dir_fd, err);
	for (size_t i = 0; i < nr && !ret; i++) {
		m = (struct ckf_gpud_msg){ .op = CKF_GPUD_MEMORY,
					   .addr = objects[i].start,
					   .bytes = objects[i].bytes };
		ret = ckf_gpud_send(sock, &m, objects[i].dmabuf, err);
	}
	if (!ret)
		ret = gpud_answer(sock, CKF_GPUD_ACCEPTED, &m, err);
	if (ret)
		return ret;
	m = (struct ckf_gpud_msg){ .op = CKF_GPUD_COMMIT };
	return ckf_gpud_send(sock, &m, -1, err);
}

int ckf_amd_gpud_fill(int dir_fd, uint64_t target, const struct ckf_amd_object *objects, size_t nr,
		      struct ckf_error *err)
{
	int sock, ret;

	sock = ckf_gpud_connect(NULL, NULL, err);
	if (sock < 0)
		return sock;
	ret = begin(sock, dir_fd, target, objects, nr, err);
	if (!ret)
		return sock;
	close(sock);
	return ret;
}

int ckf_amd_gpud_wait(int fill, struct ckf_gpu_fill_stats *stats, struct ckf_error *err)
{
	struct ckf_gpu_fill_stats got;
	struct ckf_gpud_msg m;
	int ret;

	ret = gpud_answer(fill, CKF_GPUD_DONE, &m, err);
	close(fill);
	if (ret || !stats)
		return ret;
	got = (struct ckf_gpu_fill_stats){ .size = sizeof(got), .bytes = m.arg, .ns = m.arg2 };
	return ckf_opts_give(stats, &got, sizeof(got));
}
