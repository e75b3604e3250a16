/* SPDX-License-Identifier: MIT */
/* Shared device memory across the tables of a dump: each import has one owner (SPEC.md 10.1). */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ckfast.h"
#include "ckf_gpu_dump.h"

static int compare_id(const void *id, const void *owner)
{
	return memcmp(id, ((const struct ckf_gpu_owner *)owner)->shared_id, 16);
}

static int compare_owner(const void *a, const void *b)
{
	return compare_id(((const struct ckf_gpu_owner *)a)->shared_id, b);
}

const struct ckf_gpu_owner *ckf_gpu_owner_find(const struct ckf_gpu_owners *o,
					       const uint8_t shared_id[16])
{
	return o->nr ? bsearch(shared_id, o->list, o->nr, sizeof(*o->list), compare_id) : NULL;
}

static bool is_owner(const struct ckf_gpu_alloc *a)
{
	return (a->flags & (CKF_GPU_ALLOC_SHARED | CKF_GPU_ALLOC_IMPORT)) == CKF_GPU_ALLOC_SHARED;
}

static size_t count(struct ckf_gpu_dump *const *dumps, size_t nr)
{
	size_t owners = 0;

	for (size_t i = 0; i < nr; i++)
		for (uint32_t k = 0; dumps[i] && k < dumps[i]->nr_allocs; k++)
			owners += is_owner(&dumps[i]->allocs[k]);
	return owners;
}

static void collect(struct ckf_gpu_dump *const *dumps, size_t nr, struct ckf_gpu_owners *o)
{
	for (size_t i = 0; i < nr; i++) {
		for (uint32_t k = 0; dumps[i] && k < dumps[i]->nr_allocs; k++) {
			const struct ckf_gpu_alloc *a = &dumps[i]->allocs[k];

			if (is_owner(a))
				o->list[o->nr++] = (struct ckf_gpu_owner){
					.shared_id = a->shared_id,
					.dump = (uint32_t)i,
					.alloc = k,
				};
		}
	}
	if (o->nr)
		qsort(o->list, o->nr, sizeof(*o->list), compare_owner);
}

/* As errors of one table are reported. */
#define owner_bad(err, dump, i, ...)                                                               \
	({                                                                                         \
		struct ckf_error rule_ = { 0 };                                                    \
                                                                                                   \
		ckf_error_rule(&rule_, -EBADMSG, "gpu-allocs", i, ckf_gpu_alloc_off(dump, i),      \
			       __VA_ARGS__);                                                       \
		ckf_error_set(err, -EBADMSG, CKF_GPU_PREFIX "%u.img: %s", (dump)->pid, rule_.msg); \
	})

static int check_unique(struct ckf_gpu_dump *const *dumps, const struct ckf_gpu_owners *o,
			struct ckf_error *err)
{
	for (size_t i = 1; i < o->nr; i++) {
		if (compare_owner(&o->list[i - 1], &o->list[i]))
			continue;
		return owner_bad(err, dumps[o->list[i].dump], o->list[i].alloc,
				 "R-gpu: shared_id, got that of an allocation of task %u, which "
				 "owns the memory, too",
				 dumps[o->list[i - 1].dump]->pid);
	}
	return 0;
}

static int check_import(struct ckf_gpu_dump *const *dumps, const struct ckf_gpu_owners *o,
			const struct ckf_gpu_dump *d, uint32_t i, struct ckf_error *err)
{
	const struct ckf_gpu_alloc *a = &d->allocs[i];
	const struct ckf_gpu_owner *owner;
	uint64_t bytes;

	if (!(a->flags & CKF_GPU_ALLOC_IMPORT))
		return 0;
	owner = ckf_gpu_owner_find(o, a->shared_id);
	if (!owner)
		return owner_bad(err, d, i,
				 "R-gpu: shared_id, got one that no allocation owns, want one");
	bytes = dumps[owner->dump]->allocs[owner->alloc].bytes;
	if (a->bytes <= bytes)
		return 0;
	return owner_bad(err, d, i,
			 "R-gpu: bytes, got %" PRIu64 ", want at most the %" PRIu64 " of its owner",
			 a->bytes, bytes);
}

int ckf_gpu_owners_new(struct ckf_gpu_dump *const *dumps, size_t nr, struct ckf_gpu_owners *out,
		       struct ckf_error *err)
{
	int ret;

	*out = (struct ckf_gpu_owners){ .list = calloc(count(dumps, nr) + 1, sizeof(*out->list)) };
	if (!out->list)
		return ckf_error_set(err, -ENOMEM, "no memory for a list of shared memory");
	collect(dumps, nr, out);
	ret = check_unique(dumps, out, err);
	for (size_t i = 0; i < nr && !ret; i++)
		for (uint32_t k = 0; dumps[i] && k < dumps[i]->nr_allocs && !ret; k++)
			ret = check_import(dumps, out, dumps[i], k, err);
	if (ret)
		ckf_gpu_owners_free(out);
	return ret;
}

void ckf_gpu_owners_free(struct ckf_gpu_owners *o)
{
	free(o->list);
	*o = (struct ckf_gpu_owners){ 0 };
}
