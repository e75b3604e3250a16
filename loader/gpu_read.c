/* SPDX-License-Identifier: MIT */
/* Reads the table of a process's device memory. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ckf_gpu_read.h"
#include "base/ckf_io_util.h"
#include "ckf_read.h"

/* More than the longest table that the rules allow. */
#define MAX_TABLE_BYTES (64u << 20)

const char *ckf_gpu_name(uint32_t pid, char buf[CKF_GPU_NAME_BYTES])
{
	snprintf(buf, CKF_GPU_NAME_BYTES, CKF_GPU_PREFIX "%u.img", pid);
	return buf;
}

const char *ckf_gpu_pages_name(uint32_t pid, char buf[CKF_GPU_NAME_BYTES])
{
	snprintf(buf, CKF_GPU_NAME_BYTES, CKF_GPU_PAGES_PREFIX "%u.img", pid);
	return buf;
}

static int read_table(int fd, const char *name, uint64_t size, struct ckf_gpu_dump **out,
		      struct ckf_error *err)
{
	struct ckf_error inner = { 0 };
	void *buf;
	int ret;

	if (size > MAX_TABLE_BYTES)
		return ckf_error_rule(err, -EBADMSG, name, -1, 0,
				      "R-gpu: length of the file, got %" PRIu64 ", want at most %u",
				      size, MAX_TABLE_BYTES);
	buf = malloc(size ? size : 1);
	if (!buf)
		return ckf_error_set(err, -ENOMEM, "no memory for %s of %" PRIu64 " bytes", name,
				     size);
	ret = ckf_pread_all(fd, buf, size, 0);
	if (ret)
		ckf_error_set(&inner, ret, "cannot read it: %s", strerror(-ret));
	else
		ret = ckf_gpu_dump_decode(buf, size, out, &inner);
	free(buf);
	if (ret)
		ckf_error_set(err, ret, "%s: %s", name, inner.msg);
	return ret;
}

int ckf_gpu_dump_read_fd(int fd, uint64_t size, uint32_t pid, struct ckf_gpu_dump **out,
			 struct ckf_error *err)
{
	char name[CKF_GPU_NAME_BYTES];
	int ret;

	*out = NULL;
	ret = read_table(fd, ckf_gpu_name(pid, name), size, out, err);
	if (!ret && (*out)->pid != pid) {
		ret = ckf_error_rule(err, -EBADMSG, name, -1, 16,
				     "R-gpu: pid, got %u, want that of the name", (*out)->pid);
		ckf_gpu_dump_free(*out);
		*out = NULL;
	}
	return ret;
}

int ckf_gpu_dump_read(int dir_fd, uint32_t pid, struct ckf_gpu_dump **out, struct ckf_error *err)
{
	char name[CKF_GPU_NAME_BYTES];
	uint64_t size;
	int fd, ret;

	*out = NULL;
	fd = ckf_image_open_regular(dir_fd, ckf_gpu_name(pid, name), 0, &size, err);
	if (fd < 0)
		return fd;
	ret = ckf_gpu_dump_read_fd(fd, size, pid, out, err);
	close(fd);
	return ret;
}
