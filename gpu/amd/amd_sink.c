/* SPDX-License-Identifier: MIT */
/* The backend: slots, copies and memory of one GPU, as ckfast_sink.h wants them. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/ckf_opts.h"
#include "amd.h"

static bool by_stores(const struct ckf_sink *sink)
{
	return !sink->amd->engines;
}

static struct engine_queue *queue_of(const struct ckf_sink *sink, unsigned int stream)
{
	return engines_queue(sink->amd->engines, sink->gpu, stream);
}

static char *slot_addr(const struct ckf_amd *amd, uint32_t nr)
{
	return amd->slots + (size_t)nr * amd->slot_bytes;
}

static void sink_close(struct ckf_sink *sink)
{
	if (sink && sink->owns)
		ckf_amd_close(sink->amd);
}

static int sink_open(const struct ckf_sink_opts *opts, struct ckf_sink **out, struct ckf_error *err)
{
	struct ckf_amd_opts a = { .size = sizeof(a) };
	struct ckf_amd *amd;
	struct ckf_sink_opts o;
	char *end = NULL;
	unsigned long nr;
	int ret;

	*out = NULL;
	ret = CKF_OPTS_TAKE(ckf_sink_opts, &o, opts, nr_streams, err);
	if (ret)
		return ret;
	a.slot_bytes = o.slot_bytes;
	a.nr_slots = o.nr_slots;
	a.nr_queues = o.nr_streams;
	ret = ckf_amd_open(&a, &amd, err);
	if (ret)
		return ret;
	nr = o.device ? strtoul(o.device, &end, 10) : 0;
	if (!amd->engines || nr >= amd->nr_sinks || (end && (*end || end == o.device))) {
		ret = ckf_error_set(err, -ENODEV, "there is no AMD GPU %s", o.device);
		ckf_amd_close(amd);
		return ret;
	}
	*out = &amd->sinks[nr];
	(*out)->owns = true;
	return 0;
}

static int sink_alloc(struct ckf_sink *sink, uint64_t bytes, struct ckf_sink_mem **out,
		      struct ckf_error *err)
{
	struct ckf_sink_mem *mem;
	int ret;

	*out = NULL;
	if (by_stores(sink) || !bytes || bytes > SIZE_MAX - CKF_PAGE_BYTES)
		return ckf_error_set(err, -EINVAL, "wrong length of GPU memory: %llu bytes",
				     (unsigned long long)bytes);
	mem = calloc(1, sizeof(*mem));
	if (!mem)
		return ckf_error_set(err, -ENOMEM, "no memory");
	mem->sink = sink;
	bytes = (bytes + CKF_PAGE_BYTES - 1) / CKF_PAGE_BYTES * CKF_PAGE_BYTES;
	ret = engines_alloc(sink->amd->engines, sink->gpu, bytes, &mem->mem, err);
	if (ret) {
		free(mem);
		return ret;
	}
	*out = mem;
	return 0;
}

static int import_stores(int fd, uint64_t bytes, struct engine_mem *out, struct ckf_error *err)
{
	void *addr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (addr == MAP_FAILED)
		return ckf_error_set(err, -EOPNOTSUPP,
				     "memory of a GPU cannot be mapped for the CPU: %s",
				     strerror(errno));
	*out = (struct engine_mem){ .addr = (uintptr_t)addr, .bytes = bytes, .imported = true };
	return 0;
}

static void mem_undo(struct ckf_amd *amd, const struct engine_mem *mem)
{
	if (amd->engines)
		engines_free(amd->engines, mem);
	else
		munmap((void *)(uintptr_t)mem->addr, mem->bytes);
}

int amd_import(struct ckf_sink *sinks, int fd, uint64_t bytes, struct ckf_sink_mem **out,
	       struct ckf_error *err)
{
	struct ckf_sink_mem *mem = calloc(1, sizeof(*mem));
	struct ckf_amd *amd = sinks->amd;
	int ret;

	*out = NULL;
	if (!mem)
		return ckf_error_set(err, -ENOMEM, "no memory");
	if (amd->engines)
		ret = engines_import(amd->engines, fd, &mem->mem, err);
	else
		ret = import_stores(fd, bytes, &mem->mem, err);
	if (!ret && mem->mem.bytes < bytes) {
		ret = ckf_error_set(err, -EINVAL, "an object of a GPU has %llu bytes, want %llu",
				    (unsigned long long)mem->mem.bytes, (unsigned long long)bytes);
		mem_undo(amd, &mem->mem);
	}
	if (ret) {
		free(mem);
		return ret;
	}
	mem->sink = &sinks[mem->mem.gpu];
	*out = mem;
	return 0;
}

static void sink_free(struct ckf_sink_mem *mem)
{
	if (!mem)
		return;
	mem_undo(mem->sink->amd, &mem->mem);
	free(mem);
}

static int sink_share(struct ckf_sink_mem *mem, struct ckf_error *err)
{
	(void)mem;
	return ckf_error_set(err, -EOPNOTSUPP, "libhsakmt cannot export memory");
}

static int sink_slot_take(struct ckf_sink *sink, struct ckf_sink_slot *out, struct ckf_error *err)
{
	uint32_t nr;
	int ret = amd_slot_take(sink->amd, &sink->watch, &nr, err);

	if (!ret)
		*out = (struct ckf_sink_slot){ slot_addr(sink->amd, nr), sink->amd->slot_bytes,
					       nr };
	return ret;
}

static void sink_slot_put(struct ckf_sink *sink, const struct ckf_sink_slot *slot)
{
	amd_slot_put(sink->amd, slot->nr);
}

static int check_range(const struct ckf_sink *sink, unsigned int stream,
		       const struct ckf_sink_mem *mem, uint64_t off, uint64_t bytes,
		       struct ckf_error *err)
{
	if (mem->sink != sink || off > mem->mem.bytes || bytes > mem->mem.bytes - off ||
	    stream >= sink->nr_streams)
		return ckf_error_set(err, -EINVAL, "a copy to the GPU is out of range");
	return 0;
}

static int check_copy(const struct ckf_sink *sink, unsigned int stream,
		      const struct ckf_sink_copy *c, struct ckf_error *err)
{
	uint32_t slot_bytes = sink->amd->slot_bytes;

	if (c->slot_off > slot_bytes || c->bytes > slot_bytes - c->slot_off)
		return ckf_error_set(err, -EINVAL, "a copy to the GPU is out of range");
	return check_range(sink, stream, c->mem, c->mem_off, c->bytes, err);
}

static void count(const struct ckf_sink *sink, uint64_t bytes)
{
	if (sink->watch.done_bytes)
		atomic_fetch_add(sink->watch.done_bytes, bytes);
}

static int submit_engine(struct ckf_sink *sink, unsigned int stream,
			 const struct ckf_sink_slot *slot, const struct ckf_sink_copy *copies,
			 size_t nr, struct ckf_error *err)
{
	struct engine_copy *list = malloc((nr ? nr : 1) * sizeof(*list));
	struct amd_pending p = { queue_of(sink, stream), 0 };
	int ret;

	if (!list) {
		sink_slot_put(sink, slot);
		return ckf_error_set(err, -ENOMEM, "no memory for the copies");
	}
	for (size_t i = 0; i < nr; i++)
		list[i] = (struct engine_copy){
			.to = copies[i].mem->mem.addr + copies[i].mem_off,
			.from = (uintptr_t)slot->addr + copies[i].slot_off,
			.bytes = copies[i].bytes,
		};
	ret = engine_copy(p.queue, list, nr, &p.seq, err);
	sink->amd->pending[slot->nr] = p;
	amd_slot_put(sink->amd, slot->nr);
	free(list);
	return ret;
}

static int sink_submit(struct ckf_sink *sink, unsigned int stream, const struct ckf_sink_slot *slot,
		       const struct ckf_sink_copy *copies, size_t nr, struct ckf_error *err)
{
	int ret = 0;

	for (size_t i = 0; i < nr && !ret; i++) {
		ret = check_copy(sink, stream, &copies[i], err);
		if (!ret)
			count(sink, copies[i].bytes);
	}
	if (!ret && !by_stores(sink))
		return submit_engine(sink, stream, slot, copies, nr, err);
	for (size_t i = 0; i < nr && !ret; i++)
		memcpy((char *)(uintptr_t)copies[i].mem->mem.addr + copies[i].mem_off,
		       (const char *)slot->addr + copies[i].slot_off, copies[i].bytes);
	atomic_thread_fence(memory_order_seq_cst); /* stores through the BAR are combined */
	sink_slot_put(sink, slot);
	return ret;
}

static int sink_fetch(struct ckf_sink *sink, unsigned int stream, const struct ckf_sink_slot *slot,
		      const struct ckf_sink_copy *copy, struct ckf_error *err)
{
	struct amd_pending p;
	struct engine_copy c;
	int ret;

	ret = check_copy(sink, stream, copy, err);
	if (ret)
		return ret;
	c.from = copy->mem->mem.addr + copy->mem_off;
	c.to = (uintptr_t)slot->addr + copy->slot_off;
	c.bytes = copy->bytes;
	if (by_stores(sink)) {
		memcpy((void *)(uintptr_t)c.to, (const void *)(uintptr_t)c.from, c.bytes);
		return 0;
	}
	p.queue = queue_of(sink, stream);
	ret = engine_copy(p.queue, &c, 1, &p.seq, err);
	if (!ret)
		ret = engine_wait(p.queue, p.seq, err);
	if (ret)
		sink->amd->pending[slot->nr] = p; /* the engine may still write to the slot */
	return ret;
}

static int sink_clear(struct ckf_sink *sink, unsigned int stream, struct ckf_sink_mem *mem,
		      uint64_t mem_off, uint64_t bytes, struct ckf_error *err)
{
	uint32_t seq;
	int ret;

	if (sink->watch.cancelled && sink->watch.cancelled(sink->watch.arg))
		return -ECANCELED;
	ret = check_range(sink, stream, mem, mem_off, bytes, err);
	if (ret || !bytes)
		return ret;
	count(sink, bytes);
	if (by_stores(sink)) {
		memset((char *)(uintptr_t)mem->mem.addr + mem_off, 0, bytes);
		atomic_thread_fence(memory_order_seq_cst);
		return 0;
	}
	return engine_clear(queue_of(sink, stream), mem->mem.addr + mem_off, bytes, &seq, err);
}

static int sink_drain(struct ckf_sink *sink, struct ckf_error *err)
{
	int ret = 0;

	for (unsigned int i = 0; i < sink->nr_streams && !by_stores(sink); i++) {
		int r = engine_drain(queue_of(sink, i), err);

		if (!ret)
			ret = r;
	}
	return ret;
}

static unsigned int sink_nr_streams(const struct ckf_sink *sink)
{
	return sink->nr_streams;
}

const struct ckf_sink_ops ckf_amd_sink_ops = {
	.name = "amd",
	.open = sink_open,
	.close = sink_close,
	.alloc = sink_alloc,
	.free = sink_free,
	.share = sink_share,
	.slot_take = sink_slot_take,
	.slot_put = sink_slot_put,
	.submit = sink_submit,
	.fetch = sink_fetch,
	.clear = sink_clear,
	.drain = sink_drain,
	.nr_streams = sink_nr_streams,
};
