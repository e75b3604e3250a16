/* SPDX-License-Identifier: MIT */
/*
 * Opens all AMD GPUs, with the slots of pinned memory that all of them share. Where the engines
 * cannot be had, the CPU stores through the BAR into objects that can be mapped.
 */
#include "amd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/ckf_opts.h"
#include "base/ckf_threads.h"

#define MAX_SLOTS 1024u
#define DEFAULT_SLOTS 16u
#define DEFAULT_SLOT_BYTES (4u << 20)
#define DEFAULT_TIMEOUT_MS 10000u
#define CANCEL_POLL_MS 100

static int make_slots(struct ckf_amd *amd, struct ckf_error *err)
{
	size_t bytes = (size_t)amd->nr_slots * amd->slot_bytes;

	amd->slots = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (amd->slots == MAP_FAILED) {
		amd->slots = NULL;
		return ckf_error_set(err, -ENOMEM, "no memory for slots");
	}
	return 0;
}

struct ckf_sink *amd_sinks_new(struct ckf_amd *amd, const struct ckf_amd_watch *watch)
{
	struct ckf_sink *sinks = calloc(amd->nr_sinks, sizeof(*sinks));

	for (unsigned int i = 0; sinks && i < amd->nr_sinks; i++) {
		sinks[i] = (struct ckf_sink){
			.amd = amd,
			.gpu = i,
			.nr_streams = amd->engines ? engines_nr_queues(amd->engines, i) : 1,
		};
		if (watch)
			sinks[i].watch = *watch;
	}
	return sinks;
}

static int make_sinks(struct ckf_amd *amd, struct ckf_error *err)
{
	amd->nr_sinks = amd->engines ? engines_nr_gpus(amd->engines) : 1;
	amd->sinks = amd_sinks_new(amd, NULL);
	amd->pending = calloc(amd->nr_slots, sizeof(*amd->pending));
	amd->free = calloc(amd->nr_slots, sizeof(*amd->free));
	if (!amd->sinks || !amd->pending || !amd->free)
		return ckf_error_set(err, -ENOMEM, "no memory");
	for (unsigned int i = 0; i < amd->nr_slots; i++)
		amd->free[i] = i;
	amd->nr_free = amd->nr_slots;
	return 0;
}

int ckf_amd_open(const struct ckf_amd_opts *opts, struct ckf_amd **out, struct ckf_error *err)
{
	struct engines_opts e = { 0 };
	struct ckf_amd_opts o;
	struct ckf_amd *amd;
	int ret;

	*out = NULL;
	ret = CKF_OPTS_TAKE(ckf_amd_opts, &o, opts, size, err);
	if (ret)
		return ret;
	if (o.nr_slots > MAX_SLOTS || o.slot_bytes % CKF_PAGE_BYTES || o.flags & ~CKF_AMD_STORES)
		return ckf_error_set(err, -EINVAL, "wrong options for AMD GPUs");
	amd = calloc(1, sizeof(*amd));
	if (!amd)
		return ckf_error_set(err, -ENOMEM, "no memory");
	amd->nr_slots = o.nr_slots ? o.nr_slots : DEFAULT_SLOTS;
	amd->slot_bytes = o.slot_bytes ? o.slot_bytes : DEFAULT_SLOT_BYTES;
	pthread_mutex_init(&amd->lock, NULL);
	ckf_cond_init(&amd->cond);
	e.nr_queues = o.nr_queues;
	e.timeout_ms = o.timeout_ms ? o.timeout_ms : DEFAULT_TIMEOUT_MS;
	e.staging_bytes = (size_t)amd->nr_slots * amd->slot_bytes;
	if (!(o.flags & CKF_AMD_STORES) && !engines_open(&e, &amd->engines, err))
		amd->slots = engines_staging(amd->engines);
	else
		ret = make_slots(amd, err);
	if (!ret)
		ret = make_sinks(amd, err);
	if (ret) {
		ckf_amd_close(amd);
		return ret;
	}
	*out = amd;
	return 0;
}

void ckf_amd_close(struct ckf_amd *amd)
{
	if (!amd)
		return;
	if (!amd->engines && amd->slots)
		munmap(amd->slots, (size_t)amd->nr_slots * amd->slot_bytes);
	engines_close(amd->engines);
	free(amd->sinks);
	free(amd->pending);
	free(amd->free);
	pthread_cond_destroy(&amd->cond);
	pthread_mutex_destroy(&amd->lock);
	free(amd);
}

/*
 * A slot that can be used at once, else the one that has waited longest: a GPU that is slower than
 * the others does not hold them up. With the lock held and a slot free.
 */
static uint32_t pick(struct ckf_amd *amd)
{
	unsigned int i;
	uint32_t nr;

	for (i = 0; i < amd->nr_free; i++) {
		const struct amd_pending *p = &amd->pending[amd->free[i]];

		if (!p->queue || engine_done(p->queue, p->seq))
			break;
	}
	if (i == amd->nr_free)
		i = 0;
	nr = amd->free[i];
	amd->nr_free--;
	memmove(&amd->free[i], &amd->free[i + 1], (amd->nr_free - i) * sizeof(*amd->free));
	return nr;
}

static bool is_cancelled(const struct ckf_amd_watch *watch)
{
	return watch->cancelled && watch->cancelled(watch->arg);
}

int amd_slot_take(struct ckf_amd *amd, const struct ckf_amd_watch *watch, uint32_t *nr,
		  struct ckf_error *err)
{
	struct amd_pending p;
	int ret;

	if (is_cancelled(watch))
		return -ECANCELED;
	pthread_mutex_lock(&amd->lock);
	while (!amd->nr_free) {
		if (ckf_cond_wait_ms(&amd->cond, &amd->lock, CANCEL_POLL_MS) ||
		    !is_cancelled(watch))
			continue;
		pthread_mutex_unlock(&amd->lock);
		return -ECANCELED;
	}
	*nr = pick(amd);
	p = amd->pending[*nr];
	pthread_mutex_unlock(&amd->lock);
	ret = p.queue ? engine_wait(p.queue, p.seq, err) : 0;
	if (!ret)
		amd->pending[*nr].queue = NULL;
	if (!ret && is_cancelled(watch))
		ret = -ECANCELED;
	if (ret)
		amd_slot_put(amd, *nr); /* a copy may be under way: the next one waits, too */
	return ret;
}

void amd_slot_put(struct ckf_amd *amd, uint32_t nr)
{
	pthread_mutex_lock(&amd->lock);
	amd->free[amd->nr_free++] = nr;
	pthread_cond_signal(&amd->cond);
	pthread_mutex_unlock(&amd->lock);
}

unsigned int ckf_amd_nr_gpus(const struct ckf_amd *amd)
{
	return amd->engines ? engines_nr_gpus(amd->engines) : 0;
}

unsigned int ckf_amd_nr_queues(const struct ckf_amd *amd, unsigned int gpu)
{
	return engines_nr_queues(amd->engines, gpu);
}

bool ckf_amd_failed(const struct ckf_amd *amd)
{
	for (unsigned int i = 0; i < ckf_amd_nr_gpus(amd); i++)
		for (unsigned int k = 0; k < engines_nr_queues(amd->engines, i); k++)
			if (engine_failed(engines_queue(amd->engines, i, k)))
				return true;
	return false;
}

struct ckf_amd_slots ckf_amd_slots(struct ckf_amd *amd)
{
	struct ckf_amd_slots s = { .total = amd->nr_slots, .slot_bytes = amd->slot_bytes };

	pthread_mutex_lock(&amd->lock);
	s.in_use = amd->nr_slots - amd->nr_free;
	pthread_mutex_unlock(&amd->lock);
	return s;
}
