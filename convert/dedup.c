/* SPDX-License-Identifier: MIT */
/*
 * The table of chunks seen: open addressing over 32-bit record numbers. A record takes 24 bytes, a
 * slot 4, and each run of pages in the source 8: a dump in single-page fragments must still fit.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "dedup.h"
#include "img.h"

struct rec {
	uint64_t key;
	uint32_t first_extent;
	uint32_t pages_id;
	uint32_t chunk;
	uint16_t level : 13;
	uint16_t kind : 3; /* enum ckf_origin_kind */
	uint16_t nr_extents;
};

struct ckf_dedup {
	/* Held where recs or extents move or grow, and where another thread reads them. */
	pthread_mutex_t lock;
	struct rec *recs;
	uint64_t nr_recs;
	uint64_t cap_recs;
	struct ckf_extent *extents;
	uint64_t nr_extents;
	uint64_t cap_extents;
	uint32_t *slots; /* 1 + record number, 0 for none; only the adding thread uses it */
	uint64_t nr_slots;
};

int ckf_dedup_new(struct ckf_dedup **out)
{
	struct ckf_dedup *d = calloc(1, sizeof(*d));

	if (!d)
		return -ENOMEM;
	d->nr_slots = 4096;
	d->slots = calloc((size_t)d->nr_slots, sizeof(*d->slots));
	if (!d->slots) {
		free(d);
		return -ENOMEM;
	}
	pthread_mutex_init(&d->lock, NULL);
	*out = d;
	return 0;
}

void ckf_dedup_free(struct ckf_dedup *d)
{
	if (!d)
		return;
	pthread_mutex_destroy(&d->lock);
	free(d->recs);
	free(d->extents);
	free(d->slots);
	free(d);
}

/* The slot of the key, or the empty one where it belongs. */
static uint64_t probe(const struct ckf_dedup *d, uint64_t key)
{
	uint64_t i = key & (d->nr_slots - 1);

	while (d->slots[i] && d->recs[d->slots[i] - 1].key != key)
		i = (i + 1) & (d->nr_slots - 1);
	return i;
}

uint32_t ckf_dedup_find(const struct ckf_dedup *d, uint64_t key)
{
	uint32_t slot = d->slots[probe(d, key)];

	return slot ? slot - 1 : CKF_DEDUP_NONE;
}

static int grow_slots(struct ckf_dedup *d)
{
	uint32_t *old = d->slots;

	if (d->nr_recs < d->nr_slots / 4 * 3)
		return 0;
	d->slots = calloc((size_t)d->nr_slots * 2, sizeof(*d->slots));
	if (!d->slots) {
		d->slots = old;
		return -ENOMEM;
	}
	free(old);
	d->nr_slots *= 2;
	for (uint64_t i = 0; i < d->nr_recs; i++)
		d->slots[probe(d, d->recs[i].key)] = (uint32_t)i + 1;
	return 0;
}

static int add_locked(struct ckf_dedup *d, const struct rec *rec, const struct ckf_extent *extents)
{
	int ret;

	for (uint32_t i = 0; i < rec->nr_extents; i++) {
		ret = ckf_array_grow(&d->extents, d->nr_extents, &d->cap_extents,
				     sizeof(*d->extents));
		if (ret)
			return ret;
		d->extents[d->nr_extents++] = extents[i];
	}
	ret = ckf_array_grow(&d->recs, d->nr_recs, &d->cap_recs, sizeof(*d->recs));
	if (ret)
		return ret;
	d->recs[d->nr_recs++] = *rec;
	return 0;
}

int64_t ckf_dedup_add(struct ckf_dedup *d, uint64_t key, const struct ckf_origin *origin,
		      const struct ckf_extent *extents, uint32_t nr_extents)
{
	struct rec rec = {
		.key = key,
		.first_extent = (uint32_t)d->nr_extents,
		.pages_id = origin->pages_id,
		.chunk = CKF_DEDUP_NONE,
		.level = (uint16_t)(origin->level & 0x1fff), /* below CKF_CHAIN_MAX */
		.kind = (uint16_t)(origin->kind & 7),
		.nr_extents = (uint16_t)nr_extents,
	};
	int ret;

	if (d->nr_extents + nr_extents > UINT32_MAX || d->nr_recs >= CKF_DEDUP_NONE - 1)
		return CKF_DEDUP_NONE;
	ret = grow_slots(d);
	if (ret)
		return ret;
	pthread_mutex_lock(&d->lock);
	ret = add_locked(d, &rec, extents);
	pthread_mutex_unlock(&d->lock);
	if (ret)
		return ret;
	d->slots[probe(d, key)] = (uint32_t)d->nr_recs;
	return (int64_t)d->nr_recs - 1;
}

void ckf_dedup_set_chunk(struct ckf_dedup *d, uint32_t rec, uint32_t chunk)
{
	d->recs[rec].chunk = chunk;
}

uint32_t ckf_dedup_chunk(const struct ckf_dedup *d, uint32_t rec)
{
	return d->recs[rec].chunk;
}

int ckf_dedup_origin(struct ckf_dedup *d, uint32_t rec, struct ckf_origin *origin,
		     struct ckf_extent *extents, uint32_t max)
{
	const struct rec *r;
	int ret = -E2BIG;

	pthread_mutex_lock(&d->lock);
	r = &d->recs[rec];
	if (r->nr_extents <= max) {
		origin->level = r->level;
		origin->kind = (enum ckf_origin_kind)r->kind;
		origin->pages_id = r->pages_id;
		memcpy(extents, d->extents + r->first_extent, r->nr_extents * sizeof(*extents));
		ret = r->nr_extents;
	}
	pthread_mutex_unlock(&d->lock);
	return ret;
}
