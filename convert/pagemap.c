/* SPDX-License-Identifier: MIT */
/*
 * Pagemap files: which pages of a task or shared object a dump holds, and where. Tables of device
 * memory are read as if they were pagemaps, whose entries are the allocations.
 *
 * Entries of CRIU before 4.2 have their length in field 2 and, long ago, had no flags; later ones
 * have both a 64-bit length in field 5 and flags. Since CRIU 4.3, field 6 may say that the pages
 * are compressed, and a flag that they begin on a page of the file (packing.h).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "loader/ckf_gpu_read.h"
#include "img.h"
#include "page-blocks.pb-c.h"
#include "pagemap.pb-c.h"

#define PE_PARENT (1u << 0) /* criu/include/pagemap.h */
#define PE_LAZY (1u << 1)
#define PE_PRESENT (1u << 2)
#define PE_ALIGNED (1u << 3) /* CRIU 4.3 */
#define PE_ALL (PE_PARENT | PE_LAZY | PE_PRESENT | PE_ALIGNED)

#define BLOCKS_TAG 6

bool ckf_img_id_parse(const char *s, uint64_t max, uint64_t *id)
{
	uint64_t v = 0;

	if (*s == '0' && s[1] != '.')
		return false;
	if (*s < '0' || *s > '9')
		return false;
	for (; *s >= '0' && *s <= '9'; s++) {
		if (ckf_mul_overflow(v, 10, &v) || ckf_add_overflow(v, (uint64_t)(*s - '0'), &v))
			return false;
	}
	if (v > max || strcmp(s, ".img") != 0)
		return false;
	*id = v;
	return true;
}

bool ckf_pagemap_name_parse(const char *name, uint32_t *kind, uint64_t *id)
{
	static const char task[] = "pagemap-", shmem[] = "pagemap-shmem-";
	static const char device[] = CKF_GPU_PREFIX;

	if (!strncmp(name, device, sizeof(device) - 1)) {
		*kind = CKF_TARGET_DEVICE;
		return ckf_img_id_parse(name + sizeof(device) - 1, UINT32_MAX, id);
	}
	if (!strncmp(name, shmem, sizeof(shmem) - 1)) {
		*kind = CKF_TARGET_SHMEM;
		return ckf_img_id_parse(name + sizeof(shmem) - 1, UINT64_MAX, id);
	}
	if (!strncmp(name, task, sizeof(task) - 1)) {
		*kind = CKF_TARGET_TASK;
		return ckf_img_id_parse(name + sizeof(task) - 1, UINT32_MAX, id);
	}
	return false;
}

int ckf_pagemap_reader_open(struct ckf_pagemap_reader *r, const struct ckf_dir *dir,
			    const char *name, bool in_image, struct ckf_error *err)
{
	PagemapHead *head = NULL;
	const uint8_t *rec = NULL;
	size_t bytes = 0;
	int ret;

	memset(r, 0, sizeof(*r));
	ret = ckf_img_open(&r->img, dir, name, CKF_PAGEMAP_MAGIC, err);
	if (ret)
		return ret;
	ret = ckf_img_next(&r->img, &rec, &bytes, err);
	if (ret < 0)
		goto out;
	if (ret > 0)
		head = pagemap_head__unpack(&r->img.alloc, bytes, rec);
	if (!head) {
		ret = ckf_img_bad(&r->img, -EBADMSG, err, "no pagemap head");
		goto out;
	}
	r->pages_id = head->pages_id;
	pagemap_head__free_unpacked(head, NULL);
	r->packing = in_image ? NULL : ckf_packing_new();
	if (!in_image && !r->packing)
		ret = ckf_error_set(err, -ENOMEM, "no memory for the entries of %s", name);
	else
		ret = 0;
out:
	if (ret)
		ckf_img_close(&r->img);
	return ret;
}

void ckf_pagemap_reader_close(struct ckf_pagemap_reader *r)
{
	ckf_packing_free(r->packing);
	r->packing = NULL;
	ckf_img_close(&r->img);
}

/* protobuf-c leaves the length in front of what it does not know. */
static bool strip_length(ProtobufCBinaryData *data)
{
	size_t i = 0;

	while (i < data->len && data->data[i] & 0x80)
		i++;
	if (i == data->len)
		return false;
	data->data += i + 1;
	data->len -= i + 1;
	return true;
}

/* *out is NULL where the pages are plain. */
static int unpack_blocks(struct ckf_pagemap_reader *r, const PagemapEntry *pe, PageBlocks **out,
			 struct ckf_error *err)
{
	const ProtobufCMessageUnknownField *f = pe->base.unknown_fields;
	ProtobufCBinaryData data;

	*out = NULL;
	if (!pe->base.n_unknown_fields)
		return 0;
	for (unsigned int i = 0; i < pe->base.n_unknown_fields; i++) {
		if (f[i].tag != BLOCKS_TAG)
			return ckf_img_bad(&r->img, -EOPNOTSUPP, err,
					   "field %u is that of a newer CRIU", f[i].tag);
	}
	if (pe->base.n_unknown_fields > 1)
		return ckf_img_bad(&r->img, -EBADMSG, err, "field 6 is there twice");
	data = (ProtobufCBinaryData){ f->len, f->data };
	if (f->wire_type != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED || !strip_length(&data))
		return ckf_img_bad(&r->img, -EBADMSG, err, "field 6 holds no blocks");
	*out = page_blocks__unpack(&r->img.alloc, data.len, data.data);
	if (!*out)
		return ckf_img_bad(&r->img, -EBADMSG, err, "field 6 holds no blocks");
	/* It may say that blocks lie elsewhere. */
	if ((*out)->base.n_unknown_fields)
		return ckf_img_bad(&r->img, -EOPNOTSUPP, err, "field 6.%u is that of a newer CRIU",
				   (*out)->base.unknown_fields[0].tag);
	return 0;
}

static int check_blocks(struct ckf_pagemap_reader *r, const struct ckf_packing_entry *e,
			uint64_t total, struct ckf_error *err)
{
	uint64_t left = e->nr_pages, sum = 0;

	if (!e->block_pages || e->block_pages > CKF_PACKING_MAX_PAGES)
		return ckf_img_bad(&r->img, -EBADMSG, err, "blocks of %u pages, want 1 to %u",
				   e->block_pages, CKF_PACKING_MAX_PAGES);
	if (e->nr_sizes != left / e->block_pages + (left % e->block_pages != 0))
		return ckf_img_bad(&r->img, -EBADMSG, err, "%llu blocks of %u pages for %llu pages",
				   (unsigned long long)e->nr_sizes, e->block_pages,
				   (unsigned long long)left);
	for (uint64_t i = 0; i < e->nr_sizes; i++) {
		uint64_t pages = left < e->block_pages ? left : e->block_pages;

		if (e->sizes[i] > ckf_pages_to_bytes(pages))
			return ckf_img_bad(&r->img, -EBADMSG, err,
					   "block %llu has %u bytes, more than its %llu pages",
					   (unsigned long long)i, e->sizes[i],
					   (unsigned long long)pages);
		sum += e->sizes[i];
		left -= pages;
	}
	if (sum != total)
		return ckf_img_bad(&r->img, -EBADMSG, err, "its blocks have %llu bytes, want %llu",
				   (unsigned long long)sum, (unsigned long long)total);
	return 0;
}

/* Where the pages of an entry that are here lie in the file. */
static int add_packing(struct ckf_pagemap_reader *r, const PagemapEntry *pe,
		       const struct ckf_run *run, struct ckf_error *err)
{
	struct ckf_packing_entry e = { .nr_pages = run->nr_pages,
				       .aligned = pe->has_flags && pe->flags & PE_ALIGNED };
	PageBlocks *blocks = NULL;
	int ret;

	if (!r->packing)
		return 0;
	ret = unpack_blocks(r, pe, &blocks, err);
	if (!ret && run->in_parent && (blocks || e.aligned))
		ret = ckf_img_bad(&r->img, -EBADMSG, err,
				  "its pages are in the parent dump, but compressed here");
	if (!ret && blocks) {
		e.block_pages = blocks->block_pages;
		e.sizes = blocks->sizes;
		e.nr_sizes = blocks->n_sizes;
		ret = check_blocks(r, &e, blocks->total_bytes, err);
	}
	if (!ret && !run->in_parent) {
		ret = ckf_packing_add(r->packing, &e);
		if (ret == -E2BIG)
			ckf_img_bad(&r->img, ret, err, "the pages file has too many pages");
		else if (ret)
			ckf_error_set(err, ret, "no memory for the blocks of %s", r->img.name);
	}
	if (blocks)
		page_blocks__free_unpacked(blocks, &r->img.alloc);
	return ret;
}

static int entry_flags(const struct ckf_pagemap_reader *r, const PagemapEntry *pe,
		       uint32_t *in_parent, struct ckf_error *err)
{
	uint32_t flags = pe->has_flags ? pe->flags : 0;

	if (pe->has_in_parent && pe->in_parent)
		flags |= PE_PARENT;
	else if (!pe->has_flags)
		flags = PE_PRESENT;
	if (flags & ~PE_ALL)
		return ckf_img_bad(&r->img, -EOPNOTSUPP, err, "unknown flags %#x", flags);
	if ((flags & PE_PARENT) && (flags & PE_PRESENT))
		return ckf_img_bad(&r->img, -EBADMSG, err,
				   "its pages are both here and in the parent dump");
	if (!(flags & (PE_PARENT | PE_PRESENT)))
		return ckf_img_bad(&r->img, -EOPNOTSUPP, err,
				   "its pages are not in the dump (left on a page server)");
	*in_parent = !!(flags & PE_PARENT);
	return 0;
}

static int entry_to_run(struct ckf_pagemap_reader *r, const PagemapEntry *pe, struct ckf_run *run,
			struct ckf_error *err)
{
	uint64_t bytes, end;
	int ret;

	run->vaddr = pe->vaddr;
	run->nr_pages = pe->has_nr_pages ? pe->nr_pages : pe->compat_nr_pages;
	ret = entry_flags(r, pe, &run->in_parent, err);
	if (ret)
		return ret;
	if (run->vaddr % CKF_PAGE_BYTES)
		return ckf_img_bad(&r->img, -EBADMSG, err, "address %#llx is not that of a page",
				   (unsigned long long)run->vaddr);
	if (ckf_mul_overflow(run->nr_pages, CKF_PAGE_BYTES, &bytes) ||
	    ckf_add_overflow(run->vaddr, bytes, &end) || end > CKF_MAX_ADDR)
		return ckf_img_bad(&r->img, -EBADMSG, err, "%llu pages at %#llx are too many",
				   (unsigned long long)run->nr_pages,
				   (unsigned long long)run->vaddr);
	if (run->vaddr < r->prev_end)
		return ckf_img_bad(&r->img, -EBADMSG, err,
				   "address %#llx is below the end of the entry before it, %#llx",
				   (unsigned long long)run->vaddr, (unsigned long long)r->prev_end);
	r->prev_end = end;
	return add_packing(r, pe, run, err);
}

int ckf_pagemap_reader_next(struct ckf_pagemap_reader *r, struct ckf_run *run,
			    struct ckf_error *err)
{
	const uint8_t *rec;
	PagemapEntry *pe;
	size_t bytes;
	int ret;

	do {
		ret = ckf_img_next(&r->img, &rec, &bytes, err);
		if (ret <= 0)
			return ret;
		pe = pagemap_entry__unpack(&r->img.alloc, bytes, rec);
		if (!pe)
			return ckf_img_bad(&r->img, -EBADMSG, err, "not a pagemap entry");
		ret = entry_to_run(r, pe, run, err);
		pagemap_entry__free_unpacked(pe, NULL);
		if (ret)
			return ret;
	} while (!run->nr_pages);
	return 1;
}

static int add_run(struct ckf_pagemap *pm, uint64_t *cap, const struct ckf_run *run)
{
	struct ckf_run *last = pm->nr_runs ? &pm->runs[pm->nr_runs - 1] : NULL;
	int ret;

	/* No overflow: all runs are apart and below 2^63 bytes. */
	pm->nr_pages += run->nr_pages;
	if (!run->in_parent)
		pm->nr_local_pages += run->nr_pages;
	if (last && last->in_parent == run->in_parent &&
	    last->vaddr + ckf_pages_to_bytes(last->nr_pages) == run->vaddr) {
		last->nr_pages += run->nr_pages;
		return 0;
	}
	ret = ckf_array_grow(&pm->runs, pm->nr_runs, cap, sizeof(*pm->runs));
	if (ret)
		return ret;
	pm->runs[pm->nr_runs++] = *run;
	return 0;
}

static int read_runs(const struct ckf_dir *dir, bool in_image, struct ckf_pagemap *pm,
		     struct ckf_error *err)
{
	struct ckf_pagemap_reader r;
	struct ckf_run run;
	uint64_t cap = 0;
	int ret;

	ret = ckf_pagemap_reader_open(&r, dir, pm->name, in_image, err);
	if (ret)
		return ret;
	pm->pages_id = r.pages_id;
	do {
		ret = ckf_pagemap_reader_next(&r, &run, err);
		if (ret > 0 && add_run(pm, &cap, &run))
			ret = -ENOMEM;
	} while (ret > 0);
	if (!ret && r.packing && r.packing->packed) {
		pm->packing = r.packing;
		r.packing = NULL;
	}
	ckf_pagemap_reader_close(&r);
	return ret;
}

static int read_table(const struct ckf_dir *dir, struct ckf_pagemap *pm, struct ckf_error *err)
{
	struct ckf_file_part part;
	int ret = ckf_open_img(dir, pm->name, &part, err);

	if (ret)
		return ret;
	ret = ckf_gpu_dump_read_part(&part, pm->pages_id, &pm->gpu, err);
	close(part.fd);
	return ret;
}

static int read_allocs(const struct ckf_dir *dir, struct ckf_pagemap *pm, struct ckf_error *err)
{
	uint64_t cap = 0;
	int ret;

	pm->pages_id = (uint32_t)pm->id;
	ret = read_table(dir, pm, err);
	for (uint32_t i = 0; !ret && i < pm->gpu->nr_allocs; i++) {
		const struct ckf_gpu_alloc *a = &pm->gpu->allocs[i];

		if (ckf_gpu_pages_bytes(a))
			ret = add_run(pm, &cap,
				      &(struct ckf_run){ a->addr, a->bytes >> CKF_PAGE_SHIFT, 0 });
	}
	return ret;
}

int ckf_pagemap_read(const struct ckf_dir *dir, const char *name, bool in_image,
		     struct ckf_pagemap *out, struct ckf_error *err)
{
	int ret;

	memset(out, 0, sizeof(*out));
	if (!ckf_pagemap_name_parse(name, &out->kind, &out->id))
		return ckf_error_set(err, -EINVAL, "%s is not the name of a pagemap", name);
	out->name = strdup(name);
	if (!out->name)
		ret = -ENOMEM;
	else if (out->kind == CKF_TARGET_DEVICE)
		ret = read_allocs(dir, out, err);
	else
		ret = read_runs(dir, in_image, out, err);
	if (ret == -ENOENT)
		ckf_error_set(err, ret, "there is no %s", name);
	if (ret == -ENOMEM)
		ckf_error_set(err, ret, "no memory for the entries of %s", name);
	if (ret)
		ckf_pagemap_fini(out);
	return ret;
}

bool ckf_pagemap_fits(const struct ckf_pagemap *pm, uint64_t file_bytes)
{
	if (pm->packing)
		return file_bytes >= pm->packing->min_bytes &&
		       file_bytes <= pm->packing->file_bytes;
	return file_bytes >= ckf_pages_to_bytes(pm->nr_local_pages);
}

void ckf_pagemap_fini(struct ckf_pagemap *pm)
{
	ckf_packing_free(pm->packing);
	ckf_gpu_dump_free(pm->gpu);
	free(pm->runs);
	free(pm->name);
	memset(pm, 0, sizeof(*pm));
}
