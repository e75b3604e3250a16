/* SPDX-License-Identifier: MIT */
/* The index of a compressed pages file: 4 bytes for each block, and 8 for every 64th. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckf_array.h"
#include "packing.h"

struct ckf_packing *ckf_packing_new(void)
{
	return calloc(1, sizeof(struct ckf_packing));
}

void ckf_packing_free(struct ckf_packing *p)
{
	if (!p)
		return;
	free(p->parts);
	free(p->sizes);
	free(p->marks);
	free(p);
}

static uint64_t part_end(const struct ckf_packing *p, uint64_t part)
{
	return part + 1 < p->nr_parts ? p->parts[part + 1].page : p->nr_pages;
}

/* Nothing is between this entry and the last part, whose last block is whole. */
static bool goes_on(const struct ckf_packing *p, const struct ckf_packing_entry *e, uint64_t off)
{
	const struct ckf_packing_part *last = p->nr_parts ? &p->parts[p->nr_parts - 1] : NULL;

	return last && last->block_pages == e->block_pages && off == p->file_bytes &&
	       (!e->block_pages || (p->nr_pages - last->page) % e->block_pages == 0);
}

static int add_part(struct ckf_packing *p, const struct ckf_packing_entry *e, uint64_t off)
{
	if (goes_on(p, e, off))
		return 0;
	if (ckf_array_grow(&p->parts, p->nr_parts, &p->cap_parts, sizeof(*p->parts)))
		return -ENOMEM;
	p->parts[p->nr_parts++] = (struct ckf_packing_part){
		.page = p->nr_pages,
		.off = off,
		.block = p->nr_blocks,
		.block_pages = e->block_pages,
	};
	return 0;
}

static int add_block(struct ckf_packing *p, uint32_t size, uint64_t off)
{
	if (ckf_array_grow(&p->sizes, p->nr_blocks, &p->cap_blocks, sizeof(*p->sizes)))
		return -ENOMEM;
	if (p->nr_blocks % CKF_PACKING_STRIDE == 0) {
		if (ckf_array_grow(&p->marks, p->nr_marks, &p->cap_marks, sizeof(*p->marks)))
			return -ENOMEM;
		p->marks[p->nr_marks++] = off;
	}
	p->sizes[p->nr_blocks++] = size;
	return 0;
}

int ckf_packing_add(struct ckf_packing *p, const struct ckf_packing_entry *e)
{
	/* No overflow: neither offsets nor pages come near 2^63. */
	uint64_t off = e->aligned ? ckf_align_up(p->file_bytes, CKF_PAGE_BYTES) : p->file_bytes;
	uint64_t start;
	int ret;

	if (e->nr_pages > CKF_MAX_FILE_PAGES - p->nr_pages)
		return -E2BIG;
	if (!e->nr_pages)
		return 0;
	ret = add_part(p, e, off);
	start = off;
	for (uint64_t i = 0; i < e->nr_sizes && !ret; i++) {
		ret = add_block(p, e->sizes[i], off);
		off += e->sizes[i];
	}
	if (ret)
		return ret;
	if (!e->block_pages)
		off += ckf_pages_to_bytes(e->nr_pages);
	p->nr_pages += e->nr_pages;
	p->file_bytes = off;
	if (off > start)
		p->min_bytes = off;
	p->packed |= e->block_pages != 0;
	if (p->max_block_pages < e->block_pages)
		p->max_block_pages = e->block_pages;
	return 0;
}

static void fill(const struct ckf_packing *p, uint64_t part, uint64_t block, uint64_t off,
		 struct ckf_packed *out)
{
	const struct ckf_packing_part *at = &p->parts[part];
	uint64_t end = part_end(p, part);

	*out = (struct ckf_packed){ .page = at->page, .off = off, .part = part, .block = block };
	out->plain = !at->block_pages;
	out->nr_pages = end - at->page;
	if (out->plain) {
		out->bytes = ckf_pages_to_bytes(out->nr_pages);
		return;
	}
	out->page += (block - at->block) * at->block_pages;
	out->nr_pages = end - out->page < at->block_pages ? end - out->page : at->block_pages;
	out->bytes = p->sizes[block];
}

void ckf_packing_find(const struct ckf_packing *p, uint64_t page, struct ckf_packed *out)
{
	uint64_t lo = 0, hi = p->nr_parts - 1, block, from, off;
	const struct ckf_packing_part *at;

	while (lo < hi) {
		uint64_t mid = lo + (hi - lo + 1) / 2;

		if (p->parts[mid].page <= page)
			lo = mid;
		else
			hi = mid - 1;
	}
	at = &p->parts[lo];
	if (!at->block_pages) {
		fill(p, lo, at->block, at->off, out);
		return;
	}
	block = at->block + (page - at->page) / at->block_pages;
	from = block - block % CKF_PACKING_STRIDE;
	off = at->off;
	if (from > at->block)
		off = p->marks[from / CKF_PACKING_STRIDE];
	else
		from = at->block;
	for (; from < block; from++)
		off += p->sizes[from];
	fill(p, lo, block, off, out);
}

bool ckf_packing_next(const struct ckf_packing *p, struct ckf_packed *at)
{
	uint64_t page = at->page + at->nr_pages;
	uint64_t next = at->part + 1;

	if (page == p->nr_pages)
		return false;
	if (page == part_end(p, at->part))
		fill(p, next, p->parts[next].block, p->parts[next].off, at);
	else
		fill(p, at->part, at->block + 1, at->off + at->bytes, at);
	return true;
}

struct named {
	struct ckf_origin origin;
	struct ckf_packing *packing;
};

struct ckf_packings {
	pthread_mutex_t lock; /* of all that follows */
	struct named *v;      /* ascending by level and pages_id */
	uint64_t nr;
	uint64_t cap;
};

int ckf_packings_new(struct ckf_packings **out)
{
	struct ckf_packings *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	pthread_mutex_init(&t->lock, NULL);
	*out = t;
	return 0;
}

void ckf_packings_free(struct ckf_packings *t)
{
	if (!t)
		return;
	for (uint64_t i = 0; i < t->nr; i++)
		ckf_packing_free(t->v[i].packing);
	pthread_mutex_destroy(&t->lock);
	free(t->v);
	free(t);
}

static int compare(const struct ckf_origin *a, const struct ckf_origin *b)
{
	if (a->level != b->level)
		return a->level < b->level ? -1 : 1;
	return (a->pages_id > b->pages_id) - (a->pages_id < b->pages_id);
}

/* Where the origin is, or would be. */
static uint64_t position(const struct ckf_packings *t, const struct ckf_origin *o, bool *there)
{
	uint64_t lo = 0, hi = t->nr;

	while (lo < hi) {
		uint64_t mid = lo + (hi - lo) / 2;

		if (compare(&t->v[mid].origin, o) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	*there = lo < t->nr && !compare(&t->v[lo].origin, o);
	return lo;
}

static int add(struct ckf_packings *t, const struct ckf_origin *o, struct ckf_packing *p)
{
	bool there;
	uint64_t at = position(t, o, &there);

	if (there)
		return p || t->v[at].packing ? -EEXIST : 0;
	if (ckf_array_grow(&t->v, t->nr, &t->cap, sizeof(*t->v)))
		return -ENOMEM;
	memmove(&t->v[at + 1], &t->v[at], (size_t)(t->nr - at) * sizeof(*t->v));
	t->v[at] = (struct named){ *o, p };
	t->nr++;
	return 0;
}

int ckf_packings_add(struct ckf_packings *t, const struct ckf_origin *o, struct ckf_packing *p)
{
	int ret;

	pthread_mutex_lock(&t->lock);
	ret = add(t, o, p);
	pthread_mutex_unlock(&t->lock);
	if (ret)
		ckf_packing_free(p);
	return ret;
}

const struct ckf_packing *ckf_packings_find(struct ckf_packings *t, const struct ckf_origin *o)
{
	const struct ckf_packing *p = NULL;
	uint64_t at;
	bool there;

	if (o->kind != CKF_ORIGIN_PAGES)
		return NULL;
	pthread_mutex_lock(&t->lock);
	at = position(t, o, &there);
	if (there)
		p = t->v[at].packing;
	pthread_mutex_unlock(&t->lock);
	return p;
}
