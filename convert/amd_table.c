/* SPDX-License-Identifier: MIT */
/*
 * The table of CRIU's amdgpu plugin: 8 bytes that say how long it is, and one message, of which
 * proto/amdgpu.proto has the fields that matter here.
 *
 * The plugin trusts its counts, and indexes arrays by them: what would make it read beyond an array
 * is corrupt. What it restores, but nobody writes, is unsupported.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "img.h"
#include "amdgpu.pb-c.h"

#define TABLE_PREFIX "amdgpu-kfd-"
#define MAX_FILE_ID INT32_MAX

/* linux/kfd_ioctl.h, KFD_IOC_ALLOC_MEM_FLAGS_: the plugin copies the contents of these. */
#define FLAG_VRAM (1u << 0)
#define FLAG_GTT (1u << 1)

const char *ckf_amd_pages_name(uint32_t file_id, uint32_t gpu_id, char buf[CKF_AMD_NAME_BYTES])
{
	snprintf(buf, CKF_AMD_NAME_BYTES, "amdgpu-pages-%u-%04x.img", file_id, gpu_id);
	return buf;
}

bool ckf_amd_name_parse(const char *name, uint32_t *file_id)
{
	const size_t len = sizeof(TABLE_PREFIX) - 1;
	uint64_t id;

	if (strncmp(name, TABLE_PREFIX, len) != 0 ||
	    !ckf_img_id_parse(name + len, MAX_FILE_ID, &id) || !id)
		return false;
	*file_id = (uint32_t)id;
	return true;
}

static int compare_gpu(const void *a, const void *b)
{
	const struct ckf_amd_gpu *x = a, *y = b;

	return x->gpu_id < y->gpu_id ? -1 : x->gpu_id > y->gpu_id;
}

static struct ckf_amd_gpu *find_gpu(const struct ckf_amd_table *t, uint32_t gpu_id)
{
	const struct ckf_amd_gpu key = { .gpu_id = gpu_id };

	return t->nr_gpus ? bsearch(&key, t->gpus, t->nr_gpus, sizeof(key), compare_gpu) : NULL;
}

static int read_gpus(const struct ckf_img *im, struct ckf_amd_table *t, const CkfAmdKfd *kfd,
		     struct ckf_error *err)
{
	int ret = ckf_img_check_count(im, "devices", (uint64_t)kfd->nr_gpus + kfd->nr_cpus,
				      kfd->n_devices, err);

	if (ret)
		return ret;
	for (size_t i = 0; i < kfd->n_devices; i++)
		t->nr_gpus += kfd->devices[i]->gpu_id != 0;
	if (t->nr_gpus != kfd->nr_gpus)
		return ckf_img_bad(im, -EBADMSG, err, "GPUs, got a count of %u, want %u",
				   kfd->nr_gpus, t->nr_gpus);
	if (t->nr_gpus > CKF_AMD_MAX_GPUS)
		return ckf_img_bad(im, -EOPNOTSUPP, err, "GPUs, got %u, want at most %u",
				   t->nr_gpus, CKF_AMD_MAX_GPUS);
	t->gpus = calloc(t->nr_gpus + 1, sizeof(*t->gpus));
	if (!t->gpus)
		return -ENOMEM;
	for (size_t i = 0, k = 0; i < kfd->n_devices; i++) {
		if (kfd->devices[i]->gpu_id)
			t->gpus[k++] = (struct ckf_amd_gpu){
				.gpu_id = kfd->devices[i]->gpu_id,
				.vram_bytes = kfd->devices[i]->vram_bytes,
			};
	}
	qsort(t->gpus, t->nr_gpus, sizeof(*t->gpus), compare_gpu);
	for (uint32_t i = 1; i < t->nr_gpus; i++) {
		if (t->gpus[i].gpu_id == t->gpus[i - 1].gpu_id)
			return ckf_img_bad(im, -EBADMSG, err, "GPU %04x is there twice",
					   t->gpus[i].gpu_id);
	}
	return 0;
}

static bool has_contents(const CkfAmdObject *o)
{
	return o->alloc_flags & (FLAG_VRAM | FLAG_GTT);
}

static int check_object(const struct ckf_img *im, struct ckf_amd_table *t, size_t i,
			const CkfAmdObject *o, struct ckf_error *err)
{
	struct ckf_amd_gpu *gpu = find_gpu(t, o->gpu_id);

	if (!gpu)
		return ckf_img_bad(im, -EBADMSG, err, "object %zu is on GPU %04x, which is missing",
				   i, o->gpu_id);
	if (!has_contents(o))
		return 0;
	if (!o->bytes)
		return ckf_img_bad(im, -EBADMSG, err, "object %zu has no bytes", i);
	if (o->bytes % CKF_PAGE_BYTES)
		return ckf_img_bad(im, -EOPNOTSUPP, err,
				   "object %zu, got %" PRIu64 " bytes, want whole pages", i,
				   o->bytes);
	if (ckf_add_overflow(gpu->bytes, o->bytes, &gpu->bytes) || gpu->bytes > CKF_MAX_ADDR / 2)
		return ckf_img_bad(im, -EBADMSG, err,
				   "object %zu, got %" PRIu64 " bytes, which are too many", i,
				   o->bytes);
	gpu->nr_objects++;
	return 0;
}

/*
 * The place of an object begins at the first multiple of 2 MiB that is above the end of the one
 * before. Objects have addresses, too, but any number of them may have the same.
 */
static int place_objects(const struct ckf_amd_table *t, const CkfAmdKfd *kfd)
{
	uint32_t nr[CKF_AMD_MAX_GPUS] = { 0 };
	uint64_t end[CKF_AMD_MAX_GPUS] = { 0 };

	for (uint32_t i = 0; i < t->nr_gpus; i++) {
		t->gpus[i].runs = calloc(t->gpus[i].nr_objects + 1, sizeof(*t->gpus[i].runs));
		if (!t->gpus[i].runs)
			return -ENOMEM;
	}
	for (size_t i = 0; i < kfd->n_objects; i++) {
		const CkfAmdObject *o = kfd->objects[i];
		const struct ckf_amd_gpu *gpu = find_gpu(t, o->gpu_id);
		const ptrdiff_t k = gpu - t->gpus;
		const uint64_t start = nr[k] ? ckf_align_up(end[k] + 1, CKF_HUGE_BYTES) : 0;

		if (!has_contents(o))
			continue;
		/* All objects together have at most 2^62 bytes, and the gaps a small part of that.
		 */
		gpu->runs[nr[k]++] = (struct ckf_run){ start, o->bytes >> CKF_PAGE_SHIFT, 0 };
		end[k] = start + o->bytes;
	}
	return 0;
}

static int take_message(const struct ckf_img *im, struct ckf_amd_table *t, const CkfAmdKfd *kfd,
			struct ckf_error *err)
{
	int ret = read_gpus(im, t, kfd, err);

	t->pid = kfd->pid;
	t->nr_objects = kfd->n_objects;
	if (!ret)
		ret = ckf_img_check_count(im, "objects", kfd->nr_objects, kfd->n_objects, err);
	for (size_t i = 0; i < kfd->n_objects && !ret; i++)
		ret = check_object(im, t, i, kfd->objects[i], err);
	return ret ? ret : place_objects(t, kfd);
}

static int take_record(struct ckf_img *im, void *table, const uint8_t *rec, size_t bytes,
		       struct ckf_error *err)
{
	CkfAmdKfd *kfd = ckf_amd_kfd__unpack(&im->alloc, bytes, rec);
	int ret;

	if (!kfd)
		return ckf_img_bad(im, -EBADMSG, err, "not a table of GPU memory");
	ret = take_message(im, table, kfd, err);
	ckf_amd_kfd__free_unpacked(kfd, NULL);
	return ret;
}

int ckf_amd_table_read(const struct ckf_dir *dir, const char *name, struct ckf_amd_table *out,
		       struct ckf_error *err)
{
	memset(out, 0, sizeof(*out));
	if (!ckf_amd_name_parse(name, &out->file_id))
		return ckf_error_set(err, -EINVAL, "%s is not the name of a table", name);
	out->name = strdup(name);
	if (!out->name)
		return ckf_error_set(err, -ENOMEM, "no memory for the objects of %s", name);
	return ckf_img_read_sized(dir, name, CKF_IMG_MAX_RECORD_BYTES, take_record, out, &out->err,
				  err);
}

void ckf_amd_table_fini(struct ckf_amd_table *t)
{
	for (uint32_t i = 0; t->gpus && i < t->nr_gpus; i++)
		free(t->gpus[i].runs);
	free(t->gpus);
	free(t->name);
	memset(t, 0, sizeof(*t));
}

const struct ckf_amd_gpu *ckf_amd_find(const struct ckf_amd_table *tables, uint64_t nr_tables,
				       uint64_t target_id, const struct ckf_amd_table **table)
{
	for (uint64_t i = 0; i < nr_tables; i++) {
		if (tables[i].file_id != target_id >> 32)
			continue;
		*table = &tables[i];
		return tables[i].err.code ? NULL : find_gpu(&tables[i], (uint32_t)target_id);
	}
	return NULL;
}
