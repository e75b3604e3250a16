/* SPDX-License-Identifier: MIT */
/* Devices, contexts and pinned slots of a process; see cuda_pool.h. */
#include "ckf_cuda_pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckf_opts.h"
#include "base/ckf_threads.h"

#define MAX_SLOTS 4096
#define CANCEL_POLL_MS 50 /* how often a wait for a slot asks whether to go on */

enum {
	HOST_ALLOC_PORTABLE = 1,    /* CU_MEMHOSTALLOC_PORTABLE: pinned for the contexts of all */
	HOST_REGISTER_PORTABLE = 1, /* CU_MEMHOSTREGISTER_PORTABLE: likewise */
};

static int look_at_device(struct ckf_cuda_pool *pool, unsigned int i, struct ckf_error *err)
{
	const struct ckf_cuda *cu = pool->cu;
	struct ckf_cuda_dev *d = &pool->devs[i];
	size_t total = 0;
	CUuuid uuid;
	CUresult res;

	d->used.first = CKF_CUDA_NO_SLOT;
	res = cu->device_get(&d->dev, (int)i);
	if (!res)
		res = cu->device_get_name(d->name, (int)sizeof(d->name), d->dev);
	if (!res)
		res = cu->device_get_uuid(&uuid, d->dev);
	if (!res)
		res = cu->device_total_mem(&total, d->dev);
	if (res)
		return ckf_cuda_error(cu, res, "cannot look at a GPU", err);
	d->name[sizeof(d->name) - 1] = '\0';
	memcpy(d->uuid, uuid.bytes, sizeof(d->uuid));
	d->total_bytes = total;
	return 0;
}

static int look_at_devices(struct ckf_cuda_pool *pool, struct ckf_error *err)
{
	CUresult res;
	int count = 0, ret = 0;

	res = pool->cu->init(0);
	if (res)
		return ckf_cuda_error(pool->cu, res, "cannot start the CUDA driver", err);
	res = pool->cu->device_get_count(&count);
	if (res)
		return ckf_cuda_error(pool->cu, res, "cannot count the GPUs", err);
	if (count <= 0)
		return ckf_error_set(err, -ENODEV, "there is no GPU");
	pool->devs = calloc((size_t)count, sizeof(*pool->devs));
	if (!pool->devs)
		return ckf_error_set(err, -ENOMEM, "no memory");
	pool->nr_devs = (unsigned int)count;
	for (unsigned int i = 0; i < pool->nr_devs; i++)
		pthread_mutex_init(&pool->devs[i].lock, NULL);
	for (unsigned int i = 0; i < pool->nr_devs && !ret; i++)
		ret = look_at_device(pool, i, err);
	return ret;
}

int ckf_cuda_pool_open(const struct ckf_cuda_pool_opts *opts, struct ckf_cuda_pool **out,
		       struct ckf_error *err)
{
	struct ckf_cuda_pool_opts o;
	struct ckf_cuda_pool *pool;
	int ret;

	*out = NULL;
	ret = CKF_OPTS_TAKE(ckf_cuda_pool_opts, &o, opts, slot_bytes, err);
	if (ret)
		return ret;
	if (!o.nr_slots || o.nr_slots > MAX_SLOTS || !o.slot_bytes || o.slot_bytes % CKF_PAGE_BYTES)
		return ckf_error_set(err, -EINVAL, "wrong number or size of slots");
	pool = calloc(1, sizeof(*pool));
	if (!pool)
		return ckf_error_set(err, -ENOMEM, "no memory");
	pool->nr_slots = o.nr_slots;
	pool->slot_bytes = o.slot_bytes;
	pthread_mutex_init(&pool->lock, NULL);
	ckf_cond_init(&pool->cond);
	pool->free.first = CKF_CUDA_NO_SLOT;
	pool->slot = calloc(pool->nr_slots, sizeof(*pool->slot));
	if (pool->slot)
		ret = ckf_cuda_load(&pool->cu, err);
	else
		ret = ckf_error_set(err, -ENOMEM, "no memory");
	if (!ret)
		ret = look_at_devices(pool, err);
	if (ret) {
		ckf_cuda_pool_close(pool);
		return ret;
	}
	*out = pool;
	return 0;
}

static void free_events(struct ckf_cuda_pool *pool, struct ckf_cuda_dev *d)
{
	for (unsigned int i = 0; d->events && i < pool->nr_slots; i++)
		if (d->events[i])
			pool->cu->event_destroy(d->events[i]);
	free(d->events);
	d->events = NULL;
}

void ckf_cuda_pool_close(struct ckf_cuda_pool *pool)
{
	if (!pool)
		return;
	if (pool->pinner_dev)
		pthread_join(pool->pinner, NULL);
	if (pool->slots) {
		pool->cu->ctx_set_current(pool->pinner_dev->ctx);
		pool->cu->mem_free_host(pool->slots);
	}
	for (unsigned int i = 0; i < pool->nr_devs; i++) {
		struct ckf_cuda_dev *d = &pool->devs[i];

		if (d->ctx) {
			pool->cu->ctx_set_current(d->ctx);
			free_events(pool, d);
			pool->cu->ctx_set_current(NULL);
			pool->cu->primary_ctx_release(d->dev);
		}
		pthread_mutex_destroy(&d->lock);
	}
	free(pool->devs);
	free(pool->slot);
	pthread_cond_destroy(&pool->cond);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

static void list_add(struct ckf_cuda_pool *pool, struct ckf_cuda_slots *list, uint32_t nr)
{
	pool->slot[nr].next = CKF_CUDA_NO_SLOT;
	if (list->first == CKF_CUDA_NO_SLOT)
		list->first = nr;
	else
		pool->slot[list->last].next = nr;
	list->last = nr;
}

static uint32_t list_take(struct ckf_cuda_pool *pool, struct ckf_cuda_slots *list)
{
	uint32_t nr = list->first;

	if (nr != CKF_CUDA_NO_SLOT)
		list->first = pool->slot[nr].next;
	return nr;
}

static void *pin_slots(void *arg)
{
	struct ckf_cuda_pool *pool = arg;
	const struct ckf_cuda *cu = pool->cu;
	struct ckf_error err = { 0 };
	void *slots = NULL;
	CUresult res;
	int ret = 0;

	res = cu->ctx_set_current(pool->pinner_dev->ctx);
	if (!res)
		res = cu->mem_host_alloc(&slots, (size_t)pool->nr_slots * pool->slot_bytes,
					 HOST_ALLOC_PORTABLE);
	if (res)
		ret = ckf_cuda_error(cu, res, "cannot make pinned memory", &err);
	pthread_mutex_lock(&pool->lock);
	if (!ret) {
		pool->slots = slots;
		for (unsigned int i = 0; i < pool->nr_slots; i++)
			list_add(pool, &pool->free, i);
	}
	pool->slots_ret = ret;
	pool->slots_err = err;
	pool->pinned = true;
	pthread_cond_broadcast(&pool->cond);
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

static int start_pinner(struct ckf_cuda_pool *pool, struct ckf_cuda_dev *d, struct ckf_error *err)
{
	int ret = 0;

	pthread_mutex_lock(&pool->lock);
	if (!pool->pinner_dev) {
		pool->pinner_dev = d;
		ret = ckf_thread_start(&pool->pinner, NULL, pin_slots, pool);
		if (ret)
			pool->pinner_dev = NULL;
	}
	pthread_mutex_unlock(&pool->lock);
	return ret ? ckf_error_set(err, ret, "cannot start a thread: %s", strerror(-ret)) : 0;
}

/* With the device's lock held. */
static int warm(struct ckf_cuda_pool *pool, struct ckf_cuda_dev *d, struct ckf_error *err)
{
	const struct ckf_cuda *cu = pool->cu;
	CUcontext ctx = NULL;
	CUresult res;

	res = cu->primary_ctx_retain(&ctx, d->dev);
	if (res)
		return ckf_cuda_error(cu, res, "cannot make a context on the GPU", err);
	res = cu->ctx_set_current(ctx);
	d->events = calloc(pool->nr_slots, sizeof(*d->events));
	for (unsigned int i = 0; d->events && i < pool->nr_slots && !res; i++)
		res = cu->event_create(&d->events[i], CU_EVENT_DISABLE_TIMING);
	if (!res && d->events) {
		d->ctx = ctx;
		return 0;
	}
	free_events(pool, d);
	cu->ctx_set_current(NULL);
	cu->primary_ctx_release(d->dev);
	if (res)
		return ckf_cuda_error(cu, res, "cannot make an event", err);
	return ckf_error_set(err, -ENOMEM, "no memory");
}

int ckf_cuda_pool_warm(struct ckf_cuda_pool *pool, unsigned int ordinal, struct ckf_error *err)
{
	struct ckf_cuda_dev *d;
	int ret = 0;

	if (ordinal >= pool->nr_devs)
		return ckf_error_set(err, -ENODEV, "there is no GPU %u", ordinal);
	d = &pool->devs[ordinal];
	pthread_mutex_lock(&d->lock);
	if (!d->ctx)
		ret = warm(pool, d, err);
	pthread_mutex_unlock(&d->lock);
	return ret ? ret : start_pinner(pool, d, err);
}

bool ckf_cuda_pool_is_warm(struct ckf_cuda_pool *pool, unsigned int ordinal)
{
	struct ckf_cuda_dev *d = &pool->devs[ordinal];
	bool is_warm;

	pthread_mutex_lock(&d->lock);
	is_warm = d->ctx != NULL;
	pthread_mutex_unlock(&d->lock);
	return is_warm;
}

int ckf_cuda_pool_wait(struct ckf_cuda_pool *pool, struct ckf_error *err)
{
	int ret;

	pthread_mutex_lock(&pool->lock);
	while (!pool->pinned)
		pthread_cond_wait(&pool->cond, &pool->lock);
	ret = pool->slots_ret;
	if (ret)
		ckf_error_set(err, ret, "%s", pool->slots_err.msg);
	pthread_mutex_unlock(&pool->lock);
	return ret;
}

int ckf_cuda_pool_find(const struct ckf_cuda_pool *pool, const uint8_t uuid[16])
{
	for (unsigned int i = 0; i < pool->nr_devs; i++)
		if (!memcmp(pool->devs[i].uuid, uuid, sizeof(pool->devs[i].uuid)))
			return (int)i;
	return -ENODEV;
}

int ckf_cuda_pool_free_bytes(struct ckf_cuda_pool *pool, unsigned int ordinal, uint64_t *bytes,
			     struct ckf_error *err)
{
	size_t free_bytes = 0, total = 0;
	CUresult res;

	res = pool->cu->ctx_set_current(pool->devs[ordinal].ctx);
	if (!res)
		res = pool->cu->mem_get_info(&free_bytes, &total);
	*bytes = free_bytes;
	return res ? ckf_cuda_error(pool->cu, res, "cannot ask for free memory of the GPU", err)
		   : 0;
}

/* The context of any device: the first that was warmed, or device 0. */
static int use_any_device(struct ckf_cuda_pool *pool, struct ckf_error *err)
{
	const struct ckf_cuda_dev *d;
	CUresult res;
	int ret;

	pthread_mutex_lock(&pool->lock);
	d = pool->pinner_dev;
	pthread_mutex_unlock(&pool->lock);
	if (!d) {
		ret = ckf_cuda_pool_warm(pool, 0, err);
		if (ret)
			return ret;
		d = &pool->devs[0];
	}
	res = pool->cu->ctx_set_current(d->ctx);
	return res ? ckf_cuda_error(pool->cu, res, "cannot use the context of the GPU", err) : 0;
}

int ckf_cuda_pool_pin(struct ckf_cuda_pool *pool, void *addr, uint64_t bytes, struct ckf_error *err)
{
	CUresult res;
	int ret;

	ret = use_any_device(pool, err);
	if (ret)
		return ret;
	res = pool->cu->mem_host_register(addr, bytes, HOST_REGISTER_PORTABLE);
	return res ? ckf_cuda_error(pool->cu, res, "cannot pin memory", err) : 0;
}

bool ckf_cuda_pool_unpin(struct ckf_cuda_pool *pool, void *addr)
{
	return !use_any_device(pool, NULL) && !pool->cu->mem_host_unregister(addr);
}

void ckf_cuda_pool_add_user(struct ckf_cuda_pool *pool, struct ckf_cuda_dev *d)
{
	pthread_mutex_lock(&pool->lock);
	if (!d->users++)
		pool->nr_users++;
	pthread_mutex_unlock(&pool->lock);
}

void ckf_cuda_pool_drop_user(struct ckf_cuda_pool *pool, struct ckf_cuda_dev *d)
{
	uint32_t nr;

	pthread_mutex_lock(&pool->lock);
	if (!--d->users) {
		pool->nr_users--;
		while ((nr = list_take(pool, &d->used)) != CKF_CUDA_NO_SLOT) {
			d->nr_slots--;
			list_add(pool, &pool->free, nr);
		}
	}
	pthread_cond_broadcast(&pool->cond);
	pthread_mutex_unlock(&pool->lock);
}

/* More than its part. */
static bool has_too_many(const struct ckf_cuda_pool *pool, const struct ckf_cuda_dev *d)
{
	return d->nr_slots * pool->nr_users > pool->nr_slots;
}

/*
 * A slot for the device, or CKF_CUDA_NO_SLOT: one of no device, as long as it has less than its
 * part; else the one whose copy it began first. Where its part is not free, others have more than
 * theirs.
 */
static uint32_t choose_slot(struct ckf_cuda_pool *pool, struct ckf_cuda_dev *d)
{
	const bool may_have_more = !d->nr_slots ||
				   (d->nr_slots + 1) * pool->nr_users <= pool->nr_slots;
	uint32_t nr = CKF_CUDA_NO_SLOT;

	if (may_have_more)
		nr = list_take(pool, &pool->free);
	for (unsigned int i = 0; i < pool->nr_devs && may_have_more && nr == CKF_CUDA_NO_SLOT;
	     i++) {
		struct ckf_cuda_dev *other = &pool->devs[i];

		if (other == d || !has_too_many(pool, other))
			continue;
		nr = list_take(pool, &other->used);
		other->nr_slots -= nr != CKF_CUDA_NO_SLOT;
	}
	if (nr == CKF_CUDA_NO_SLOT)
		return list_take(pool, &d->used);
	d->nr_slots++;
	pool->slot[nr].owner = (uint32_t)(d - pool->devs);
	return nr;
}

/* With the lock held, which is given up meanwhile. */
static int wait_for_slot(struct ckf_cuda_pool *pool, struct ckf_cuda_dev *d,
			 int (*cancelled)(void *arg), void *arg, uint32_t *nr)
{
	int ret = 0;

	*nr = CKF_CUDA_NO_SLOT;
	pool->nr_waiting++;
	while (!ret && !pool->slots_ret) {
		if (pool->pinned)
			*nr = choose_slot(pool, d);
		if (*nr != CKF_CUDA_NO_SLOT)
			break;
		(void)ckf_cond_wait_ms(&pool->cond, &pool->lock, CANCEL_POLL_MS);
		if (cancelled && cancelled(arg))
			ret = -ECANCELED;
	}
	pool->nr_waiting--;
	pool->nr_taken += *nr != CKF_CUDA_NO_SLOT;
	return ret ? ret : pool->slots_ret;
}

int ckf_cuda_slot_take(struct ckf_cuda_pool *pool, struct ckf_cuda_dev *d,
		       int (*cancelled)(void *arg), void *arg, struct ckf_sink_slot *out,
		       struct ckf_error *err)
{
	CUevent event;
	CUresult res;
	uint32_t nr;
	int ret;

	if (cancelled && cancelled(arg))
		return -ECANCELED;
	pthread_mutex_lock(&pool->lock);
	ret = wait_for_slot(pool, d, cancelled, arg, &nr);
	if (ret) {
		if (ret != -ECANCELED)
			ckf_error_set(err, ret, "%s", pool->slots_err.msg);
		pthread_mutex_unlock(&pool->lock);
		return ret;
	}
	event = pool->slot[nr].pending;
	pool->slot[nr].pending = NULL;
	pthread_mutex_unlock(&pool->lock);
	if (event) {
		res = pool->cu->event_synchronize(event);
		if (res) {
			/* Whoever takes it next has to wait as well: a copy may be under way. */
			ckf_cuda_slot_put(pool, nr, event);
			return ckf_cuda_error(pool->cu, res, "a copy to the GPU failed", err);
		}
	}
	out->addr = pool->slots + (size_t)nr * pool->slot_bytes;
	out->bytes = pool->slot_bytes;
	out->nr = nr;
	return 0;
}

void ckf_cuda_slot_put(struct ckf_cuda_pool *pool, uint32_t nr, CUevent event)
{
	struct ckf_cuda_dev *d;

	pthread_mutex_lock(&pool->lock);
	d = &pool->devs[pool->slot[nr].owner];
	pool->slot[nr].pending = event;
	if (event) {
		list_add(pool, &d->used, nr);
	} else {
		d->nr_slots--;
		list_add(pool, &pool->free, nr);
	}
	pool->nr_taken--;
	/* Those that wait for other devices may not have it. */
	pthread_cond_broadcast(&pool->cond);
	pthread_mutex_unlock(&pool->lock);
}

unsigned int ckf_cuda_slots_in_use(struct ckf_cuda_pool *pool)
{
	unsigned int n;

	pthread_mutex_lock(&pool->lock);
	n = pool->nr_taken;
	pthread_mutex_unlock(&pool->lock);
	return n;
}

unsigned int ckf_cuda_slots_waiting(struct ckf_cuda_pool *pool)
{
	unsigned int n;

	pthread_mutex_lock(&pool->lock);
	n = pool->nr_waiting;
	pthread_mutex_unlock(&pool->lock);
	return n;
}
