/* SPDX-License-Identifier: MIT */
/*
 * Which GPU of this machine stands for which GPU of an image: itself where it is here, else one of
 * the same kind. Two of an image never become one.
 *
 * The driver wants to know it of all GPUs that were in the machine, so those without memory get
 * what is left; and where one has gone to the place of another, the other goes to its place.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckf_uuid.h"
#include "gpud.h"

#define LIST_BYTES 256

static struct gpud_place *find_place(const struct gpud_map *map, const uint8_t uuid[16])
{
	for (unsigned int i = 0; i < map->nr; i++)
		if (!memcmp(map->places[i].old_uuid, uuid, sizeof(map->places[i].old_uuid)))
			return &map->places[i];
	return NULL;
}

/* One place for each device that any of the dumps names, with the bytes that go there. */
static int collect(struct ckf_gpu_dump *const *dumps, unsigned int nr, struct gpud_map *map,
		   struct ckf_error *err)
{
	struct gpud_place *p;

	for (unsigned int i = 0; i < nr; i++) {
		const struct ckf_gpu_dump *d = dumps[i];

		p = realloc(map->places, (map->nr + d->nr_devices) * sizeof(*p));
		if (!p && map->nr + d->nr_devices)
			return ckf_error_set(err, -ENOMEM, "no memory");
		map->places = p;
		for (uint32_t k = 0; k < d->nr_devices; k++) {
			if (find_place(map, d->devices[k].uuid))
				continue;
			p = &map->places[map->nr++];
			memset(p, 0, sizeof(*p));
			memcpy(p->old_uuid, d->devices[k].uuid, sizeof(p->old_uuid));
			p->wanted = &d->devices[k];
		}
		for (uint32_t k = 0; k < d->nr_allocs; k++) {
			p = find_place(map, d->devices[d->allocs[k].device].uuid);
			if (ckf_add_overflow(p->bytes, ckf_gpu_pages_bytes(&d->allocs[k]),
					     &p->bytes))
				return ckf_error_set(err, -E2BIG, "too much GPU memory");
		}
	}
	return 0;
}

static bool same_kind(const struct ckf_cuda_dev *have, const struct ckf_gpu_device *want)
{
	return !strcmp(have->name, want->name) && have->total_bytes == want->total_bytes;
}

/* Says what is missing and what is there. */
static int none_left(const struct ckf_cuda_pool *pool, const struct gpud_place *p,
		     struct ckf_error *err)
{
	char want[CKF_GPU_UUID_TEXT_BYTES], have[CKF_GPU_UUID_TEXT_BYTES], list[LIST_BYTES] = "";
	size_t len = 0;

	for (unsigned int i = 0; i < pool->nr_devs && len < sizeof(list); i++)
		len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%s (%s, %llu MiB)",
					i ? ", " : "", pool->devs[i].name,
					ckf_gpu_uuid_text(pool->devs[i].uuid, have),
					(unsigned long long)pool->devs[i].total_bytes >> 20);
	return ckf_error_set(err, -ENODEV,
			     "the image wants a %s (%s, %llu MiB), and none like it is left; "
			     "this machine has: %s",
			     p->wanted->name, ckf_gpu_uuid_text(p->old_uuid, want),
			     (unsigned long long)p->wanted->total_bytes >> 20, list);
}

static bool is_taken(const struct gpud_map *map, const uint8_t uuid[16])
{
	for (unsigned int i = 0; i < map->nr; i++)
		if (map->places[i].found && !memcmp(map->places[i].new_uuid, uuid, 16))
			return true;
	return false;
}

static bool place(struct gpud_place *p, const uint8_t uuid[16], unsigned int ordinal)
{
	memcpy(p->new_uuid, uuid, sizeof(p->new_uuid));
	p->ordinal = ordinal;
	p->found = true;
	return true;
}

static bool place_itself(const struct ckf_cuda_pool *pool, const struct gpud_map *map,
			 struct gpud_place *p)
{
	int i = ckf_cuda_pool_find(pool, p->old_uuid);

	return i >= 0 && !is_taken(map, p->old_uuid) && place(p, p->old_uuid, (unsigned int)i);
}

/* The first of its kind that is free. */
static bool place_alike(const struct ckf_cuda_pool *pool, const struct gpud_map *map,
			struct gpud_place *p)
{
	for (unsigned int k = 0; k < pool->nr_devs; k++)
		if (!is_taken(map, pool->devs[k].uuid) && same_kind(&pool->devs[k], p->wanted))
			return place(p, pool->devs[k].uuid, k);
	return false;
}

/* One that something else has left. We need not see it: nothing is put there. */
static void place_swapped(const struct ckf_cuda_pool *pool, const struct gpud_map *map,
			  struct gpud_place *p)
{
	for (unsigned int i = 0; i < map->nr && !p->found; i++)
		if (map->places[i].found && !is_taken(map, map->places[i].old_uuid))
			place(p, map->places[i].old_uuid, pool->nr_devs);
}

static int assign(const struct ckf_cuda_pool *pool, struct gpud_map *map, struct ckf_error *err)
{
	struct gpud_place *p, *end = map->places + map->nr;

	for (p = map->places; p < end; p++)
		if (p->bytes)
			place_itself(pool, map, p);
	for (p = map->places; p < end; p++) {
		if (!p->bytes || p->found)
			continue;
		if (!place_alike(pool, map, p))
			return none_left(pool, p, err);
		map->moved = true;
	}
	for (p = map->places; p < end; p++)
		if (!p->found)
			place_itself(pool, map, p);
	for (p = map->places; p < end; p++)
		if (!p->found && !place_alike(pool, map, p))
			place_swapped(pool, map, p);
	return 0;
}

int gpud_map_new(const struct ckf_cuda_pool *pool, struct ckf_gpu_dump *const *dumps,
		 unsigned int nr, struct gpud_map *out, struct ckf_error *err)
{
	int ret;

	memset(out, 0, sizeof(*out));
	ret = collect(dumps, nr, out, err);
	if (!ret)
		ret = assign(pool, out, err);
	if (ret)
		gpud_map_free(out);
	return ret;
}

void gpud_map_free(struct gpud_map *map)
{
	free(map->places);
	memset(map, 0, sizeof(*map));
}

unsigned int gpud_map_ordinal(const struct gpud_map *map, const struct ckf_gpu_dump *d,
			      uint32_t device)
{
	return find_place(map, d->devices[device].uuid)->ordinal;
}
