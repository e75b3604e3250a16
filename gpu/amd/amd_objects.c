/* SPDX-License-Identifier: MIT */
/* The objects of a process on AMD GPUs: filled from an image, and saved to a file. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckf_array.h"
#include "base/ckf_io_util.h"
#include "base/ckf_threads.h"
#include "amd.h"

struct ckf_amd_objects {
	struct ckf_amd *amd;
	struct ckf_sink *sinks; /* of this job, by GPU */
	struct ckf_sink_dest *dests;
	size_t nr;
	uint64_t cap;
};

static int check_object(const struct ckf_amd_objects *set, const struct ckf_amd_object *o,
			struct ckf_error *err)
{
	uint64_t before = set->nr ? set->dests[set->nr - 1].end : 0;

	if (o->bytes && !(o->bytes % CKF_PAGE_BYTES) && o->start >= before &&
	    o->start <= INT64_MAX && o->bytes <= INT64_MAX - o->start)
		return 0;
	return ckf_error_set(err, -EINVAL, "object %zu of a GPU is out of order", set->nr);
}

int ckf_amd_objects_new(struct ckf_amd *amd, const struct ckf_amd_watch *watch,
			struct ckf_amd_objects **out, struct ckf_error *err)
{
	struct ckf_amd_objects *set = calloc(1, sizeof(*set));

	*out = NULL;
	if (!set)
		return ckf_error_set(err, -ENOMEM, "no memory");
	set->amd = amd;
	set->sinks = amd_sinks_new(amd, watch);
	if (!set->sinks) {
		free(set);
		return ckf_error_set(err, -ENOMEM, "no memory");
	}
	*out = set;
	return 0;
}

int ckf_amd_objects_add(struct ckf_amd_objects *set, const struct ckf_amd_object *o,
			struct ckf_error *err)
{
	struct ckf_sink_mem *mem;
	int ret;

	ret = check_object(set, o, err);
	if (!ret && ckf_array_grow(&set->dests, set->nr, &set->cap, sizeof(*set->dests)))
		ret = ckf_error_set(err, -ENOMEM, "no memory");
	if (!ret)
		ret = amd_import(set->sinks, o->dmabuf, o->bytes, &mem, err);
	if (ret)
		return ret;
	set->dests[set->nr++] = (struct ckf_sink_dest){
		.start = o->start,
		.end = o->start + o->bytes,
		.sink = mem->sink,
		.mem = mem,
	};
	return 0;
}

uint64_t ckf_amd_objects_bytes(const struct ckf_amd_objects *set, unsigned int gpu)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < set->nr; i++)
		if (set->dests[i].sink == &set->sinks[gpu])
			sum += set->dests[i].end - set->dests[i].start;
	return sum;
}

int ckf_amd_import(struct ckf_amd *amd, const struct ckf_amd_object *objects, size_t nr,
		   struct ckf_amd_objects **out, struct ckf_error *err)
{
	struct ckf_amd_objects *set;
	int ret;

	*out = NULL;
	ret = ckf_amd_objects_new(amd, NULL, &set, err);
	if (ret)
		return ret;
	for (size_t i = 0; i < nr && !ret; i++)
		ret = ckf_amd_objects_add(set, &objects[i], err);
	if (ret) {
		ckf_amd_release(set);
		return ret;
	}
	*out = set;
	return 0;
}

void ckf_amd_release(struct ckf_amd_objects *objects)
{
	if (!objects)
		return;
	for (size_t i = 0; i < objects->nr; i++)
		ckf_amd_sink_ops.free(objects->dests[i].mem);
	free(objects->dests);
	free(objects->sinks);
	free(objects);
}

int ckf_amd_fill(const struct ckf_amd_objects *objects, const struct ckf_image *img,
		 const struct ckf_target *t, const struct ckf_fill_opts *opts,
		 struct ckf_fill_stats *stats, struct ckf_error *err)
{
	return ckf_fill_sink(img, t, &ckf_amd_sink_ops, objects->dests, objects->nr, opts, stats,
			     err);
}

/* Threads take pieces of up to a slot, each the next one. */
struct save {
	const struct ckf_amd_objects *objects;
	int fd;
	pthread_mutex_t lock; /* of all below */
	size_t object;
	uint64_t off; /* in that object */
	int ret;
	struct ckf_error err;
};

static bool next_piece(struct save *s, const struct ckf_sink_dest **dest, struct ckf_sink_copy *c)
{
	uint32_t most = s->objects->amd->slot_bytes;
	bool any;

	pthread_mutex_lock(&s->lock);
	any = !s->ret && s->object < s->objects->nr;
	if (any) {
		uint64_t left;

		*dest = &s->objects->dests[s->object];
		left = (*dest)->end - (*dest)->start - s->off;
		*c = (struct ckf_sink_copy){ .mem = (*dest)->mem,
					     .mem_off = s->off,
					     .bytes = left < most ? (uint32_t)left : most };
		s->off += c->bytes;
		if (c->bytes == left) {
			s->object++;
			s->off = 0;
		}
	}
	pthread_mutex_unlock(&s->lock);
	return any;
}

static int save_piece(struct save *s, const struct ckf_sink_dest *dest,
		      const struct ckf_sink_copy *c, unsigned int nr, struct ckf_error *err)
{
	const struct ckf_sink_ops *ops = &ckf_amd_sink_ops;
	struct ckf_sink_slot slot;
	int ret;

	ret = ops->slot_take(dest->sink, &slot, err);
	if (ret)
		return ret;
	ret = ops->fetch(dest->sink, nr % ops->nr_streams(dest->sink), &slot, c, err);
	if (!ret) {
		ret = ckf_pwrite_all(s->fd, slot.addr, c->bytes, dest->start + c->mem_off);
		if (ret)
			ckf_error_set(err, ret, "cannot write memory of a GPU: %s", strerror(-ret));
	}
	ops->slot_put(dest->sink, &slot);
	return ret;
}

static void save_work(void *arg, unsigned int nr)
{
	const struct ckf_sink_dest *dest;
	struct ckf_error err = { 0 };
	struct save *s = arg;
	struct ckf_sink_copy c;
	int ret = 0;

	while (!ret && next_piece(s, &dest, &c))
		ret = save_piece(s, dest, &c, nr, &err);
	if (!ret)
		return;
	pthread_mutex_lock(&s->lock);
	if (!s->ret) {
		s->ret = ret;
		s->err = err;
	}
	pthread_mutex_unlock(&s->lock);
}

int ckf_amd_save(const struct ckf_amd_objects *objects, int fd, unsigned int threads,
		 struct ckf_error *err)
{
	struct save s = { .objects = objects, .fd = fd };
	const struct ckf_amd *amd = objects->amd;
	struct ckf_threads_opts o = { .threads = threads, .work = save_work, .arg = &s };

	if (!threads)
		o.threads = 2 * amd->sinks[0].nr_streams * amd->nr_sinks;
	if (o.threads > amd->nr_slots)
		o.threads = amd->nr_slots;
	pthread_mutex_init(&s.lock, NULL);
	ckf_threads_run(&o);
	pthread_mutex_destroy(&s.lock);
	return s.ret ? ckf_error_set(err, s.ret, "%s", s.err.msg) : 0;
}
