/* SPDX-License-Identifier: MIT */
/* The GPUs with their queues, and memory on them, by libhsakmt; see engine.h. */
#include "engine.h"

#include <errno.h>
#include <stdlib.h>

#include "queue.h"

#define MAX_QUEUES 8u
/* Generations whose SDMA packets are those of queue.c. */
#define FIRST_GENERATION 9u
#define LAST_GENERATION 11u

struct gpu {
	HSAuint32 node;
	unsigned int generation;
	unsigned int nr_queues;
	struct engine_queue queues[MAX_QUEUES];
};

struct engines {
	const struct hsakmt *kmt;
	bool opened;
	bool acquired;
	void *staging;
	size_t staging_bytes;
	unsigned int nr_gpus;
	HSAuint32 *nodes; /* of the GPUs */
	struct gpu *gpus;
};

static int add_gpu(struct engines *e, HSAuint32 node, const HsaNodeProperties *props,
		   unsigned int nr_queues, struct ckf_error *err)
{
	struct gpu *gpu = &e->gpus[e->nr_gpus];

	gpu->node = e->nodes[e->nr_gpus] = node;
	gpu->generation = props->EngineId.ui32.Major;
	gpu->nr_queues = nr_queues ? nr_queues : props->NumSdmaEngines;
	if (gpu->nr_queues > MAX_QUEUES)
		gpu->nr_queues = MAX_QUEUES;
	if (gpu->generation < FIRST_GENERATION || gpu->generation > LAST_GENERATION ||
	    !gpu->nr_queues)
		return ckf_error_set(err, -EOPNOTSUPP,
				     "the SDMA engines of node %u, generation %u, are not known",
				     node, gpu->generation);
	e->nr_gpus++;
	return 0;
}

static int find_gpus(struct engines *e, unsigned int nr_queues, struct ckf_error *err)
{
	HsaSystemProperties system = { 0 };
	HSAKMT_STATUS res;
	int ret = 0;

	res = e->kmt->acquire(&system);
	if (res)
		return hsakmt_error(res, "cannot look at the GPUs", err);
	e->acquired = true;
	e->nodes = calloc(system.NumNodes, sizeof(*e->nodes));
	e->gpus = calloc(system.NumNodes, sizeof(*e->gpus));
	if (!e->nodes || !e->gpus)
		return ckf_error_set(err, -ENOMEM, "no memory");
	for (HSAuint32 node = 0; node < system.NumNodes && !ret; node++) {
		HsaNodeProperties props = { 0 };

		res = e->kmt->node(node, &props);
		if (res)
			ret = hsakmt_error(res, "cannot look at a GPU", err);
		else if (props.NumFComputeCores)
			ret = add_gpu(e, node, &props, nr_queues, err);
	}
	if (!ret && !e->nr_gpus)
		ret = ckf_error_set(err, -ENODEV, "there is no AMD GPU");
	return ret;
}

static int make_queues(struct engines *e, unsigned int timeout_ms, struct ckf_error *err)
{
	int ret = 0;

	for (unsigned int i = 0; i < e->nr_gpus && !ret; i++) {
		struct gpu *gpu = &e->gpus[i];

		for (unsigned int k = 0; k < gpu->nr_queues && !ret; k++)
			ret = queue_open(e->kmt, gpu->node, gpu->generation, timeout_ms,
					 &gpu->queues[k], err);
	}
	return ret;
}

int engines_open(const struct engines_opts *o, struct engines **out, struct ckf_error *err)
{
	struct engines *e = calloc(1, sizeof(*e));
	HSAKMT_STATUS res;
	int ret;

	if (!e)
		return ckf_error_set(err, -ENOMEM, "no memory");
	ret = hsakmt_load(&e->kmt, err);
	if (!ret) {
		res = e->kmt->open();
		e->opened = !res || res == HSAKMT_STATUS_KERNEL_ALREADY_OPENED;
		if (!e->opened)
			ret = hsakmt_error(res, "cannot open /dev/kfd", err);
	}
	if (!ret)
		ret = find_gpus(e, o->nr_queues, err);
	if (!ret) {
		e->staging_bytes = o->staging_bytes;
		ret = queue_host_memory(e->kmt, e->staging_bytes, false, e->nodes, e->nr_gpus,
					&e->staging, err);
	}
	if (!ret)
		ret = make_queues(e, o->timeout_ms, err);
	if (ret) {
		engines_close(e);
		return ret;
	}
	*out = e;
	return 0;
}

void engines_close(struct engines *e)
{
	if (!e)
		return;
	for (unsigned int i = 0; i < e->nr_gpus; i++)
		for (unsigned int k = 0; k < e->gpus[i].nr_queues; k++)
			queue_close(&e->gpus[i].queues[k]);
	if (e->staging)
		queue_host_free(e->kmt, e->staging, e->staging_bytes);
	if (e->acquired)
		e->kmt->release();
	if (e->opened)
		e->kmt->close();
	free(e->gpus);
	free(e->nodes);
	free(e);
}

void *engines_staging(struct engines *e)
{
	return e->staging;
}

unsigned int engines_nr_gpus(const struct engines *e)
{
	return e->nr_gpus;
}

unsigned int engines_nr_queues(const struct engines *e, unsigned int gpu)
{
	return e->gpus[gpu].nr_queues;
}

struct engine_queue *engines_queue(struct engines *e, unsigned int gpu, unsigned int nr)
{
	return &e->gpus[gpu].queues[nr];
}

static int map(struct engines *e, const struct engine_mem *mem, struct ckf_error *err)
{
	HsaMemMapFlags flags = { 0 };
	HSAuint64 addr = 0;
	HSAKMT_STATUS res;

	res = e->kmt->map((void *)(uintptr_t)mem->addr, mem->bytes, &addr, flags, 1,
			  &e->nodes[mem->gpu]);
	if (!res)
		return 0;
	return hsakmt_error(res, "cannot map memory of a GPU", err);
}

int engines_import(struct engines *e, int fd, struct engine_mem *out, struct ckf_error *err)
{
	HsaGraphicsResourceInfo info = { 0 };
	HsaPointerInfo where = { 0 };
	HSAKMT_STATUS res;
	int ret = 0;

	res = e->kmt->import((HSAuint64)fd, &info, e->nr_gpus, e->nodes);
	if (res)
		return hsakmt_error(res, "cannot import memory of a GPU", err);
	*out = (struct engine_mem){ .addr = (uintptr_t)info.MemoryAddress,
				    .bytes = info.SizeInBytes,
				    .imported = true };
	res = e->kmt->info(info.MemoryAddress, &where);
	if (res)
		ret = hsakmt_error(res, "cannot ask whose memory it is", err);
	while (out->gpu < e->nr_gpus && e->nodes[out->gpu] != where.Node)
		out->gpu++;
	if (!ret && out->gpu == e->nr_gpus)
		ret = ckf_error_set(err, -ENODEV, "memory of a GPU that is not there");
	if (!ret)
		ret = map(e, out, err);
	if (ret)
		e->kmt->deregister(info.MemoryAddress);
	return ret;
}

int engines_alloc(struct engines *e, unsigned int gpu, uint64_t bytes, struct engine_mem *out,
		  struct ckf_error *err)
{
	HsaMemFlags flags = { 0 };
	void *addr = NULL;
	HSAKMT_STATUS res;
	int ret;

	flags.ui32.NonPaged = 1;
	flags.ui32.CoarseGrain = 1;
	res = e->kmt->alloc(e->nodes[gpu], bytes, flags, &addr);
	if (res)
		return hsakmt_error(res, "cannot make memory of a GPU", err);
	*out = (struct engine_mem){ .addr = (uintptr_t)addr, .bytes = bytes, .gpu = gpu };
	ret = map(e, out, err);
	if (ret)
		e->kmt->free(addr, bytes);
	return ret;
}

void engines_free(struct engines *e, const struct engine_mem *mem)
{
	void *addr = (void *)(uintptr_t)mem->addr;

	e->kmt->unmap(addr);
	if (mem->imported)
		e->kmt->deregister(addr);
	else
		e->kmt->free(addr, mem->bytes);
}
