/* SPDX-License-Identifier: MIT */
/*
 * Decides which contents of AMD GPUs' memory an image takes. What CRIU restores and the format
 * cannot hold stays a file like all others.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ckf_io_util.h"
#include "amd.h"
#include "img.h"

/* The number that the file begins with: CRIU's plugin reads so many bytes behind it. */
static int read_head(const struct ckf_dump *d, const char *name, uint64_t *bytes,
		     struct ckf_error *err)
{
	struct ckf_file_part part;
	ckf_le64 head;
	int ret = ckf_open_of_dump(&d->dir, name, &part);

	if (!ret) {
		ret = ckf_pread_all(part.fd, &head, sizeof(head), part.off);
		close(part.fd);
	}
	if (ret)
		return ckf_error_set(err, ret, "cannot read %s: %s", name, strerror(-ret));
	*bytes = ckf_get64(head);
	return 0;
}

/* 1 when the image takes the contents of the file, 0 when the file stays as it is, -errno. */
static int check_pages(const struct ckf_dump *d, const struct ckf_file_list *l,
		       const struct ckf_amd_table *t, const struct ckf_amd_gpu *gpu,
		       const struct ckf_convert_opts *opts, struct ckf_error *err)
{
	char name[CKF_AMD_NAME_BYTES];
	int64_t at = ckf_file_list_find(l, ckf_amd_pages_name(t->file_id, gpu->gpu_id, name));
	uint64_t bytes = 0, file_bytes;
	int ret;

	if (ckf_file_list_has_odd(l, name))
		return ckf_error_set(err, -EOPNOTSUPP, "%s is not a regular file", name);
	if (at < 0)
		return ckf_error_set(err, -EBADMSG, "corrupt dump: there is no %s, which %s names",
				     name, t->name);
	if (l->files[at].kind != CKF_FILE_VERBATIM)
		return ckf_error_set(err, -EOPNOTSUPP, "%s is not a regular file", name);
	file_bytes = l->files[at].size_bytes;
	if (file_bytes < CKF_SIZED_HEAD_BYTES)
		return ckf_error_rule(err, -EBADMSG, name, -1, file_bytes,
				      "the file ends before its head does");
	ret = read_head(d, name, &bytes, err);
	if (ret)
		return ret;
	if (bytes != gpu->bytes)
		return ckf_error_rule(err, -EBADMSG, name, -1, 0,
				      "length, got %" PRIu64 " bytes, want those of %s, %" PRIu64,
				      bytes, t->name, gpu->bytes);
	if (file_bytes - CKF_SIZED_HEAD_BYTES < bytes)
		return ckf_error_rule(err, -EBADMSG, name, -1, file_bytes,
				      "shorter than its head says, got %" PRIu64
				      " bytes, want %" PRIu64,
				      file_bytes - CKF_SIZED_HEAD_BYTES, bytes);
	if (file_bytes - CKF_SIZED_HEAD_BYTES == bytes)
		return bytes > 0;
	ckf_warn(opts, "%s is longer than its head says: kept as it is", name);
	return 0;
}

static int add_pagemap(struct ckf_dump *d, uint64_t table, uint32_t gpu_index, uint64_t *cap)
{
	const struct ckf_amd_table *t = &d->amd[table];
	struct ckf_amd_gpu *gpu = &t->gpus[gpu_index];
	struct ckf_pagemap *pm;
	char *name = strdup(t->name);

	if (!name || ckf_array_grow(&d->pagemaps, d->nr_pagemaps, cap, sizeof(*d->pagemaps))) {
		free(name);
		return -ENOMEM;
	}
	/* All other pagemaps have lower ids or kinds: the order stays. */
	pm = &d->pagemaps[d->nr_pagemaps++];
	*pm = (struct ckf_pagemap){
		.kind = CKF_TARGET_DEVICE,
		.id = ckf_amd_target_id(t->file_id, gpu->gpu_id),
		.name = name,
		.pages_id = (uint32_t)(table * CKF_AMD_MAX_GPUS + gpu_index),
		.runs = gpu->runs,
		.nr_runs = gpu->nr_objects,
		.nr_pages = gpu->bytes >> CKF_PAGE_SHIFT,
		.nr_local_pages = gpu->bytes >> CKF_PAGE_SHIFT,
	};
	gpu->runs = NULL;
	return 0;
}

static int take_table(struct ckf_dump *d, const struct ckf_file_list *l, uint64_t table,
		      uint64_t *cap, const struct ckf_convert_opts *opts, struct ckf_error *err)
{
	const struct ckf_amd_table *t = &d->amd[table];
	int ret = 0;

	if (t->err.code == -EOPNOTSUPP && ckf_file_list_find(l, t->name) >= 0) {
		ckf_warn(opts, "the memory of GPUs is kept as it is: %s", t->err.msg);
		return 0;
	}
	if (t->err.code)
		return ckf_error_set(err, t->err.code, "%s", t->err.msg);
	for (uint32_t i = 0; i < t->nr_gpus && ret >= 0; i++) {
		ret = check_pages(d, l, t, &t->gpus[i], opts, err);
		if (ret > 0 && add_pagemap(d, table, i, cap))
			ret = ckf_error_set(err, -ENOMEM, "no memory for the pagemaps");
	}
	return ret < 0 ? ret : 0;
}

int ckf_amd_take(struct ckf_dump *d, const struct ckf_file_list *l,
		 const struct ckf_convert_opts *opts, struct ckf_error *err)
{
	uint64_t cap = d->nr_pagemaps;
	int ret = 0;

	for (uint64_t i = 0; i < d->nr_amd && !ret; i++)
		ret = take_table(d, l, i, &cap, opts, err);
	return ret;
}
