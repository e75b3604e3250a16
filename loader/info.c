/* SPDX-License-Identifier: MIT */
/*
 * Facts of an image for those who do not see the index: copied into structs of the caller's size,
 * and an iterator over ops that copies a few of them at a time.
 */
#include <errno.h>
#include <string.h>

#include "base/ckf_opts.h"
#include "ckf_image.h"

int ckf_image_get_info(const struct ckf_image *img, struct ckf_image_info *out)
{
	const struct ckf_index *idx = img->idx;
	struct ckf_image_info i = {
		.version_major = idx->version_major,
		.version_minor = idx->version_minor,
		.nr_bases = idx->nr_bases,
		.incompat = idx->incompat,
		.compat = idx->compat,
		.pack_bytes = idx->pack_bytes,
		.nr_targets = idx->nr_targets,
		.nr_chunks = idx->nr_chunks,
		.nr_files = idx->nr_files,
		.nr_ops = idx->nr_ops,
		.nr_lanes = idx->nr_lanes,
		.nr_huge = idx->nr_huge,
		.extent_bytes = idx->extent_bytes,
		.max_chunk_pages = idx->max_chunk_pages,
		.storage = idx->storage,
		.own_cached = img->cached && img->cached[0],
	};

	memcpy(i.id, idx->image_id, sizeof(i.id));
	return ckf_opts_give(out, &i, sizeof(i));
}

int ckf_image_get_chunk(const struct ckf_image *img, uint64_t nr, struct ckf_chunk_info *out)
{
	const struct ckf_chunk *c;

	if (nr >= img->idx->nr_chunks)
		return -EINVAL;
	c = &img->idx->chunks[nr];
	return ckf_opts_give(out,
			     &(struct ckf_chunk_info){ .pack_off = c->pack_off,
						       .checksum = c->checksum,
						       .stored_bytes = c->stored_bytes,
						       .nr_pages = c->nr_pages,
						       .codec = c->codec,
						       .base = c->base },
			     sizeof(*out));
}

int ckf_image_get_file(const struct ckf_image *img, uint64_t nr, struct ckf_file_info *out)
{
	const struct ckf_file *f;

	if (nr >= img->idx->nr_files)
		return -EINVAL;
	f = &img->idx->files[nr];
	return ckf_opts_give(out,
			     &(struct ckf_file_info){ .name = f->name,
						      .link = f->target,
						      .bytes = f->size_bytes,
						      .checksum = f->checksum,
						      .mtime_sec = f->mtime_sec,
						      .mtime_nsec = f->mtime_nsec,
						      .mode = f->mode,
						      .uid = f->uid,
						      .gid = f->gid,
						      .kind = f->kind },
			     sizeof(*out));
}

int ckf_image_get_base(const struct ckf_image *img, unsigned int n, struct ckf_base_info *out)
{
	struct ckf_base_info i = { 0 };
	const struct ckf_base *b;

	if (!n || n > img->idx->nr_bases)
		return -EINVAL;
	b = &img->idx->bases[n - 1];
	memcpy(i.id, b->image_id, sizeof(i.id));
	i.pack_bytes = b->pack_bytes;
	i.path = b->path;
	return ckf_opts_give(out, &i, sizeof(i));
}

int ckf_image_get_lane(const struct ckf_image *img, uint64_t nr, struct ckf_lane_info *out)
{
	const struct ckf_lane *l;

	if (nr >= img->idx->nr_lanes)
		return -EINVAL;
	l = &img->idx->lanes[nr];
	return ckf_opts_give(out,
			     &(struct ckf_lane_info){ .target = l->target,
						      .nr_ops = l->nr_ops,
						      .read_bytes = l->read_bytes,
						      .fill_bytes = l->fill_bytes },
			     sizeof(*out));
}

static uint64_t huge_bytes(const struct ckf_huge *h)
{
	return (uint64_t)h->nr_huge * CKF_HUGE_BYTES;
}

int ckf_image_get_huge(const struct ckf_image *img, uint64_t nr, struct ckf_huge_info *out)
{
	const struct ckf_huge *h;

	if (nr >= img->idx->nr_huge)
		return -EINVAL;
	h = &img->idx->huge[nr];
	return ckf_opts_give(out,
			     &(struct ckf_huge_info){
				     .target = h->target, .addr = h->addr, .bytes = huge_bytes(h) },
			     sizeof(*out));
}

const struct ckf_target *ckf_image_target(const struct ckf_image *img, uint64_t nr)
{
	return nr < img->idx->nr_targets ? &img->idx->targets[nr] : NULL;
}

const struct ckf_target *ckf_image_find_target(const struct ckf_image *img, uint32_t kind,
					       uint64_t id)
{
	const int64_t nr = ckf_index_find_target(img->idx, kind, id);

	return nr < 0 ? NULL : &img->idx->targets[nr];
}

int ckf_target_get_info(const struct ckf_image *img, const struct ckf_target *t,
			struct ckf_target_info *out)
{
	return ckf_opts_give(out,
			     &(struct ckf_target_info){ .nr = (uint64_t)(t - img->idx->targets),
							.id = t->id,
							.nr_pages = t->nr_pages,
							.nr_ops = t->nr_ops,
							.nr_lanes = t->nr_lanes,
							.name = img->idx->files[t->file].name,
							.kind = t->kind,
							.parent = t->parent },
			     sizeof(*out));
}

/* Huge ranges are in the order of targets and addresses. */
bool ckf_target_wants_huge(const struct ckf_image *img, const struct ckf_target *t, uint64_t start,
			   uint64_t end)
{
	const struct ckf_index *idx = img->idx;
	const uint64_t target = (uint64_t)(t - idx->targets);
	uint64_t lo = 0, hi = idx->nr_huge;

	while (lo < hi) {
		const uint64_t mid = lo + (hi - lo) / 2;
		const struct ckf_huge *h = &idx->huge[mid];

		if (h->target < target || (h->target == target && h->addr + huge_bytes(h) <= start))
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < idx->nr_huge && idx->huge[lo].target == target && idx->huge[lo].addr < end;
}

void ckf_ops_refill(struct ckf_ops *it)
{
	const struct ckf_index *idx = it->img->idx;
	const uint64_t left = it->t->nr_ops - it->next;
	const struct ckf_op *ops = idx->ops + it->t->first_op + it->next;

	it->from = it->next ? ckf_op_end(ops - 1) : 0;
	it->pos = 0;
	it->nr = left < CKF_OPS_AHEAD ? (uint32_t)left : CKF_OPS_AHEAD;
	it->next += it->nr;
	for (uint32_t i = 0; i < it->nr; i++) {
		const struct ckf_chunk *c = &idx->chunks[ops[i].chunk];

		it->ops[i] = (struct ckf_op_info){ .start = ckf_op_addr(&ops[i]),
						   .end = ckf_op_end(&ops[i]),
						   .chunk = ops[i].chunk,
						   .first_page = ops[i].first_page,
						   .codec = c->codec,
						   .base = c->base,
						   .flags = ckf_op_flags(&ops[i]) };
	}
	it->to = it->nr && it->next < it->t->nr_ops ? it->ops[it->nr - 1].end : UINT64_MAX;
}

void ckf_ops_find(struct ckf_ops *it, uint64_t addr)
{
	it->next = ckf_index_find_op(it->img->idx, it->t, addr) - it->t->first_op;
	ckf_ops_refill(it);
}

void ckf_ops_begin(struct ckf_ops *it, const struct ckf_image *img, const struct ckf_target *t,
		   uint64_t addr)
{
	it->img = img;
	it->t = t;
	ckf_ops_find(it, addr);
}
