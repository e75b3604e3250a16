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

static int read_table(const struct ckf_file_part *part, const char *name, struct ckf_gpu_dump **out,
		      struct ckf_error *err)
{
	const uint64_t size = part->bytes;
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
	ret = ckf_pread_all(part->fd, buf, size, part->off);
	if (ret)
		ckf_error_set(&inner, ret, "cannot read it: %s", strerror(-ret));
	else
		ret = ckf_gpu_dump_decode(buf, size, out, &inner);
	free(buf);
	if (ret)
		ckf_error_set(err, ret, "%s: %s", name, inner.msg);
	return ret;
}

int ckf_gpu_dump_read_part(const struct ckf_file_part *part, uint32_t pid,
			   struct ckf_gpu_dump **out, struct ckf_error *err)
{
	char name[CKF_GPU_NAME_BYTES];
	int ret;

	*out = NULL;
	ret = read_table(part, ckf_gpu_name(pid, name), out, err);
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
	struct ckf_file_part part = { 0 };
	int ret;

	*out = NULL;
	part.fd = ckf_image_open_regular(dir_fd, ckf_gpu_name(pid, name), 0, &part.bytes, err);
	if (part.fd < 0)
		return part.fd;
	ret = ckf_gpu_dump_read_part(&part, pid, out, err);
	close(part.fd);
	return ret;
}
