/* SPDX-License-Identifier: MIT */
/*
 * The backend for CUDA: memory of the driver's virtual memory API, which can be handed to another
 * process, streams, and copies out of the pool's slots.
 *
 * Every function makes the device's context the current one of its thread: threads come and go, and
 * some of them work for several devices.
 */
#include "ckf_cuda_sink.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckf_opts.h"
#include "format/ckf_gpu_dump.h"
#include "ckf_cuda_pool.h"

#define MAX_STREAMS 64

struct ckf_sink {
	const struct ckf_cuda *cu;
	struct ckf_cuda_pool *pool;
	struct ckf_cuda_pool *own_pool; /* the same if it is this sink's, else NULL */
	struct ckf_cuda_dev *dev;
	unsigned int ordinal;
	int (*cancelled)(void *arg);
	void *arg;
	_Atomic uint64_t *done_bytes;
	atomic_bool uses_slots; /* it is a user of the device's slots, since it took the first */
	CUstream *streams;
	unsigned int nr_streams;
	struct ckf_sink_mem *mems; /* all that are not freed */
};

struct ckf_sink_mem {
	struct ckf_sink *sink;
	struct ckf_sink_mem *next;
	struct ckf_sink_mem **link; /* what points to this one */
	CUmemGenericAllocationHandle handle;
	CUdeviceptr va;	      /* 0: no addresses */
	uint64_t bytes;	      /* as the caller said */
	uint64_t whole_bytes; /* a multiple of the device's granularity */
	bool has_handle;
	bool mapped;
};

static int fail(const struct ckf_sink *sink, CUresult res, const char *what, struct ckf_error *err)
{
	return ckf_cuda_error(sink->cu, res, what, err);
}

static int use_device(const struct ckf_sink *sink, struct ckf_error *err)
{
	CUresult res = sink->cu->ctx_set_current(sink->dev->ctx);

	return res ? fail(sink, res, "cannot use the context of the GPU", err) : 0;
}

static void count(struct ckf_sink *sink, uint64_t bytes)
{
	if (sink->done_bytes)
		atomic_fetch_add(sink->done_bytes, bytes);
}

static CUmemAllocationProp mem_prop(const struct ckf_sink *sink, uint32_t flags)
{
	CUmemAllocationProp prop = {
		.type = CU_MEM_ALLOCATION_TYPE_PINNED,
		.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
		.location = { CU_MEM_LOCATION_TYPE_DEVICE, (int)sink->ordinal },
	};

	prop.allocFlags.gpuDirectRDMACapable = flags & CKF_GPU_ALLOC_RDMA ? 1 : 0;
	return prop;
}

int ckf_cuda_sink_open(struct ckf_cuda_pool *pool, const struct ckf_cuda_sink_opts *opts,
		       struct ckf_sink **out, struct ckf_error *err)
{
	struct ckf_cuda_sink_opts o;
	struct ckf_sink *sink;
	CUresult res;
	int ret;

	*out = NULL;
	ret = CKF_OPTS_TAKE(ckf_cuda_sink_opts, &o, opts, nr_streams, err);
	if (ret)
		return ret;
	if (!o.nr_streams || o.nr_streams > MAX_STREAMS)
		return ckf_error_set(err, -EINVAL, "wrong options of a CUDA sink");
	ret = ckf_cuda_pool_warm(pool, o.device, err);
	if (ret)
		return ret;
	sink = calloc(1, sizeof(*sink));
	if (!sink)
		return ckf_error_set(err, -ENOMEM, "no memory");
	sink->cu = pool->cu;
	sink->pool = pool;
	sink->dev = &pool->devs[o.device];
	sink->ordinal = o.device;
	sink->cancelled = o.cancelled;
	sink->arg = o.arg;
	sink->done_bytes = o.done_bytes;
	sink->streams = calloc(o.nr_streams, sizeof(*sink->streams));
	if (sink->streams)
		ret = use_device(sink, err);
	else
		ret = ckf_error_set(err, -ENOMEM, "no memory");
	while (!ret && sink->nr_streams < o.nr_streams) {
		res = sink->cu->stream_create(&sink->streams[sink->nr_streams],
					      CU_STREAM_NON_BLOCKING);
		if (res)
			ret = fail(sink, res, "cannot make a stream", err);
		else
			sink->nr_streams++;
	}
	if (ret) {
		ckf_cuda_sink_ops.close(sink);
		return ret;
	}
	*out = sink;
	return 0;
}

/* 32 hexadecimal digits, dashes anywhere. */
static bool parse_uuid(const char *s, uint8_t uuid[16])
{
	static const char hex[] = "0123456789abcdef";
	unsigned int n = 0;
	const char *digit;

	memset(uuid, 0, 16);
	if (!strncmp(s, "GPU-", 4))
		s += 4;
	for (; *s; s++) {
		if (*s == '-')
			continue;
		digit = strchr(hex, tolower((unsigned char)*s));
		if (!digit || n == 32)
			return false;
		uuid[n / 2] = (uint8_t)(uuid[n / 2] << 4 | (digit - hex));
		n++;
	}
	return n == 32;
}

static int find_device(const struct ckf_cuda_pool *pool, const char *name, struct ckf_error *err)
{
	uint8_t uuid[16];
	char *end;
	long nr;
	int i;

	if (!name)
		return 0;
	if (parse_uuid(name, uuid)) {
		i = ckf_cuda_pool_find(pool, uuid);
		if (i >= 0)
			return i;
	} else if (isdigit((unsigned char)*name)) {
		nr = strtol(name, &end, 10);
		if (!*end && nr >= 0 && nr < (long)pool->nr_devs)
			return (int)nr;
	}
	return ckf_error_set(err, -ENODEV, "there is no GPU %s", name);
}

static int sink_open(const struct ckf_sink_opts *opts, struct ckf_sink **out, struct ckf_error *err)
{
	struct ckf_cuda_sink_opts so = { .size = sizeof(so) };
	struct ckf_cuda_pool_opts po = { .size = sizeof(po) };
	struct ckf_cuda_pool *pool;
	struct ckf_sink_opts o;
	int ret;

	*out = NULL;
	ret = CKF_OPTS_TAKE(ckf_sink_opts, &o, opts, nr_streams, err);
	if (ret)
		return ret;
	so.nr_streams = o.nr_streams;
	po.nr_slots = o.nr_slots;
	po.slot_bytes = o.slot_bytes;
	ret = ckf_cuda_pool_open(&po, &pool, err);
	if (ret)
		return ret;
	ret = find_device(pool, o.device, err);
	if (ret >= 0) {
		so.device = (unsigned int)ret;
		ret = ckf_cuda_sink_open(pool, &so, out, err);
	}
	if (ret)
		ckf_cuda_pool_close(pool);
	else
		(*out)->own_pool = pool;
	return ret;
}

/*
 * Gives back all that there is of mem. What a call failed to give back once, because of a copy that
 * went wrong or one still under way, is tried again when the device is idle.
 */
static void mem_undo(struct ckf_sink_mem *mem)
{
	const struct ckf_cuda *cu = mem->sink->cu;

	for (int tries = 0; tries < 2; tries++) {
		if (tries)
			cu->ctx_synchronize();
		if (mem->mapped && !cu->mem_unmap(mem->va, mem->whole_bytes))
			mem->mapped = false;
		if (mem->va && !mem->mapped && !cu->mem_address_free(mem->va, mem->whole_bytes))
			mem->va = 0;
		if (mem->has_handle && !cu->mem_release(mem->handle))
			mem->has_handle = false;
		if (!mem->va && !mem->has_handle)
			return;
	}
}

/* Addresses for mem->handle, with access. */
static CUresult map(struct ckf_sink_mem *mem)
{
	const struct ckf_cuda *cu = mem->sink->cu;
	CUmemAccessDesc access = {
		.location = { CU_MEM_LOCATION_TYPE_DEVICE, (int)mem->sink->ordinal },
		.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
	};
	CUresult res;

	res = cu->mem_address_reserve(&mem->va, mem->whole_bytes, 0, 0, 0);
	if (res) {
		mem->va = 0;
		return res;
	}
	res = cu->mem_map(mem->va, mem->whole_bytes, 0, mem->handle, 0);
	if (res)
		return res;
	mem->mapped = true;
	return cu->mem_set_access(mem->va, mem->whole_bytes, &access, 1);
}

/* -EINVAL, or mem with its lengths, that has no memory yet. */
static int mem_new(struct ckf_sink *sink, uint64_t bytes, struct ckf_sink_mem **out,
		   struct ckf_error *err)
{
	CUmemAllocationProp prop = mem_prop(sink, 0);
	struct ckf_sink_mem *mem;
	size_t granularity = 0;
	uint64_t whole;
	CUresult res;
	int ret;

	ret = use_device(sink, err);
	if (ret)
		return ret;
	res = sink->cu->mem_get_granularity(&granularity, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
	if (res)
		return fail(sink, res, "cannot ask for the page size of the GPU", err);
	if (!bytes || !granularity || (granularity & (granularity - 1)) ||
	    ckf_add_overflow(bytes, granularity - 1, &whole))
		return ckf_error_set(err, -EINVAL, "wrong length of GPU memory: %llu bytes",
				     (unsigned long long)bytes);
	mem = calloc(1, sizeof(*mem));
	if (!mem)
		return ckf_error_set(err, -ENOMEM, "no memory");
	mem->sink = sink;
	mem->bytes = bytes;
	mem->whole_bytes = ckf_align_up(bytes, granularity);
	*out = mem;
	return 0;
}

/* Ends alloc and import: mem has a handle, or res says why it has none. */
static int mem_finish(struct ckf_sink_mem *mem, CUresult res, const char *what,
		      struct ckf_sink_mem **out, struct ckf_error *err)
{
	struct ckf_sink *sink = mem->sink;
	int ret;

	if (!res) {
		mem->has_handle = true;
		what = "cannot map GPU memory";
		res = map(mem);
	}
	if (res) {
		mem_undo(mem);
		ret = fail(sink, res, what, err);
		free(mem);
		return ret;
	}
	mem->next = sink->mems;
	mem->link = &sink->mems;
	if (mem->next)
		mem->next->link = &mem->next;
	sink->mems = mem;
	*out = mem;
	return 0;
}

int ckf_cuda_sink_alloc(struct ckf_sink *sink, uint64_t bytes, uint32_t flags,
			struct ckf_sink_mem **out, struct ckf_error *err)
{
	CUmemAllocationProp prop = mem_prop(sink, flags);
	struct ckf_sink_mem *mem;
	CUresult res;
	int ret;

	*out = NULL;
	ret = mem_new(sink, bytes, &mem, err);
	if (ret)
		return ret;
	res = sink->cu->mem_create(&mem->handle, mem->whole_bytes, &prop, 0);
	return mem_finish(mem, res, "cannot make GPU memory", out, err);
}

int ckf_cuda_sink_import(struct ckf_sink *sink, int fd, uint64_t bytes, struct ckf_sink_mem **out,
			 struct ckf_error *err)
{
	struct ckf_sink_mem *mem;
	CUresult res;
	int ret;

	*out = NULL;
	ret = mem_new(sink, bytes, &mem, err);
	if (ret)
		return ret;
	/* Of another granularity, it would be mapped beyond its end. */
	if (mem->whole_bytes != bytes) {
		free(mem);
		return ckf_error_set(err, -EINVAL, "wrong length of GPU memory: %llu bytes",
				     (unsigned long long)bytes);
	}
	res = sink->cu->mem_import(&mem->handle, (void *)(intptr_t)fd,
				   CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
	return mem_finish(mem, res, "cannot import GPU memory", out, err);
}

static int sink_alloc(struct ckf_sink *sink, uint64_t bytes, struct ckf_sink_mem **out,
		      struct ckf_error *err)
{
	return ckf_cuda_sink_alloc(sink, bytes, 0, out, err);
}

static void sink_free(struct ckf_sink_mem *mem)
{
	if (!mem)
		return;
	mem->sink->cu->ctx_set_current(mem->sink->dev->ctx);
	mem_undo(mem);
	*mem->link = mem->next;
	if (mem->next)
		mem->next->link = mem->link;
	free(mem);
}

static void sink_close(struct ckf_sink *sink)
{
	if (!sink)
		return;
	sink->cu->ctx_set_current(sink->dev->ctx);
	for (unsigned int i = 0; i < sink->nr_streams; i++) {
		sink->cu->stream_synchronize(sink->streams[i]);
		sink->cu->stream_destroy(sink->streams[i]);
	}
	while (sink->mems)
		sink_free(sink->mems);
	if (atomic_load(&sink->uses_slots))
		ckf_cuda_pool_drop_user(sink->pool, sink->dev);
	ckf_cuda_pool_close(sink->own_pool);
	free(sink->streams);
	free(sink);
}

static int sink_share(struct ckf_sink_mem *mem, struct ckf_error *err)
{
	struct ckf_sink *sink = mem->sink;
	CUresult res;
	int fd = -1, ret;

	ret = use_device(sink, err);
	if (ret)
		return ret;
	res = sink->cu->mem_export(&fd, mem->handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
	if (res)
		return fail(sink, res, "cannot export GPU memory", err);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	return fd;
}

static int sink_slot_take(struct ckf_sink *sink, struct ckf_sink_slot *out, struct ckf_error *err)
{
	int ret = use_device(sink, err);

	/* Fills from kept memory take none: others have their part of the slots. */
	if (!ret && !atomic_exchange(&sink->uses_slots, true))
		ckf_cuda_pool_add_user(sink->pool, sink->dev);
	if (!ret)
		ret = ckf_cuda_slot_take(sink->pool, sink->dev, sink->cancelled, sink->arg, out,
					 err);
	return ret;
}

static void sink_slot_put(struct ckf_sink *sink, const struct ckf_sink_slot *slot)
{
	ckf_cuda_slot_put(sink->pool, slot->nr, NULL);
}

static int check_copies(const struct ckf_sink *sink, unsigned int stream,
			const struct ckf_sink_copy *copies, size_t nr, struct ckf_error *err)
{
	for (size_t i = 0; i < nr; i++) {
		const struct ckf_sink_copy *c = &copies[i];

		if (c->mem->sink != sink || c->mem_off > c->mem->bytes ||
		    c->bytes > c->mem->bytes - c->mem_off || c->slot_off > sink->pool->slot_bytes ||
		    c->bytes > sink->pool->slot_bytes - c->slot_off)
			return ckf_error_set(err, -EINVAL, "a copy to the GPU is out of range");
	}
	if (stream >= sink->nr_streams)
		return ckf_error_set(err, -EINVAL, "there is no stream %u", stream);
	return 0;
}

static int sink_submit(struct ckf_sink *sink, unsigned int stream, const struct ckf_sink_slot *slot,
		       const struct ckf_sink_copy *copies, size_t nr, struct ckf_error *err)
{
	CUevent event = sink->dev->events[slot->nr];
	CUresult res = 0;
	int ret;

	ret = check_copies(sink, stream, copies, nr, err);
	if (!ret)
		ret = use_device(sink, err);
	if (ret) {
		sink_slot_put(sink, slot);
		return ret;
	}
	for (size_t i = 0; i < nr && !res; i++) {
		res = sink->cu->memcpy_htod_async(copies[i].mem->va + copies[i].mem_off,
						  (char *)slot->addr + copies[i].slot_off,
						  copies[i].bytes, sink->streams[stream]);
		count(sink, copies[i].bytes);
	}
	if (!res)
		res = sink->cu->event_record(event, sink->streams[stream]);
	if (res) {
		ret = fail(sink, res, "cannot copy to the GPU", err);
		/* What has been started must not read from the slot of somebody else. */
		sink->cu->stream_synchronize(sink->streams[stream]);
		event = NULL;
	}
	ckf_cuda_slot_put(sink->pool, slot->nr, event);
	return ret;
}

static int sink_fetch(struct ckf_sink *sink, unsigned int stream, const struct ckf_sink_slot *slot,
		      const struct ckf_sink_copy *copy, struct ckf_error *err)
{
	CUevent event = sink->dev->events[slot->nr];
	CUresult res;
	int ret;

	ret = check_copies(sink, stream, copy, 1, err);
	if (!ret)
		ret = use_device(sink, err);
	if (ret)
		return ret;
	res = sink->cu->memcpy_dtoh_async((char *)slot->addr + copy->slot_off,
					  copy->mem->va + copy->mem_off, copy->bytes,
					  sink->streams[stream]);
	if (!res)
		res = sink->cu->event_record(event, sink->streams[stream]);
	if (!res)
		res = sink->cu->event_synchronize(event);
	count(sink, copy->bytes);
	if (!res)
		return 0;
	/* Nothing may be written to the slot any more when somebody else has it. */
	sink->cu->stream_synchronize(sink->streams[stream]);
	return fail(sink, res, "cannot copy from the GPU", err);
}

/* Before bytes are written to a range by a stream, without a slot. */
static int begin_write(struct ckf_sink *sink, unsigned int stream, const struct ckf_sink_mem *mem,
		       uint64_t mem_off, uint64_t bytes, struct ckf_error *err)
{
	int ret;

	if (sink->cancelled && sink->cancelled(sink->arg))
		return -ECANCELED;
	if (mem->sink != sink || mem_off > mem->bytes || bytes > mem->bytes - mem_off ||
	    stream >= sink->nr_streams)
		return ckf_error_set(err, -EINVAL, "what the GPU is to write is out of range");
	ret = use_device(sink, err);
	if (!ret)
		count(sink, bytes);
	return ret;
}

int ckf_cuda_sink_upload(struct ckf_sink *sink, unsigned int stream, struct ckf_sink_mem *mem,
			 uint64_t mem_off, const void *src, uint64_t bytes, struct ckf_error *err)
{
	CUresult res;
	int ret;

	ret = begin_write(sink, stream, mem, mem_off, bytes, err);
	if (ret || !bytes)
		return ret;
	res = sink->cu->memcpy_htod_async(mem->va + mem_off, src, bytes, sink->streams[stream]);
	return res ? fail(sink, res, "cannot copy to the GPU", err) : 0;
}

static int sink_clear(struct ckf_sink *sink, unsigned int stream, struct ckf_sink_mem *mem,
		      uint64_t mem_off, uint64_t bytes, struct ckf_error *err)
{
	CUresult res;
	int ret;

	ret = begin_write(sink, stream, mem, mem_off, bytes, err);
	if (ret || !bytes)
		return ret;
	res = sink->cu->memset_d8_async(mem->va + mem_off, 0, bytes, sink->streams[stream]);
	return res ? fail(sink, res, "cannot clear GPU memory", err) : 0;
}

static unsigned int sink_nr_streams(const struct ckf_sink *sink)
{
	return sink->nr_streams;
}

static int sink_drain(struct ckf_sink *sink, struct ckf_error *err)
{
	CUresult res, first = 0;
	int ret;

	ret = use_device(sink, err);
	if (ret)
		return ret;
	for (unsigned int i = 0; i < sink->nr_streams; i++) {
		res = sink->cu->stream_synchronize(sink->streams[i]);
		if (!first)
			first = res;
	}
	return first ? fail(sink, first, "a copy to the GPU failed", err) : 0;
}

const struct ckf_sink_ops ckf_cuda_sink_ops = {
	.name = "cuda",
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
