/* SPDX-License-Identifier: MIT */
/*
 * What applications do with streams: copies, sets, events, and waiting.
 */
#include "stub.h"

static struct stub_pool event_pool = { .size = sizeof(struct CUevent_st) };
static struct CUevent_st *events;

enum side {
	HOST,
	DEVICE
};

/* A host address may also be one of the device: there is one space of addresses. */
static bool side_ok(enum side side, uint64_t addr, uint64_t bytes, bool write)
{
	if (side == HOST && !stub_is_device(addr))
		return addr != 0;
	return stub_range_ok(addr, bytes, stub_ctx()->device, write);
}

struct copy {
	enum side to, from;
	uint64_t dst, src, bytes;
	bool wait;
};

static CUresult copy(const struct copy *c, CUstream stream)
{
	const struct stub_item item = {
		.kind = STUB_COPY, .dst = c->dst, .src = c->src, .bytes = c->bytes
	};

	if (!c->bytes)
		return CUDA_SUCCESS;
	if (!side_ok(c->to, c->dst, c->bytes, true) || !side_ok(c->from, c->src, c->bytes, false))
		return CUDA_ERROR_INVALID_VALUE;
	return stub_submit(stream, &item, c->wait);
}

/*
 * The real driver looks memory up before it finds out that the process is locked. So does this: a
 * copy whose memory was unmapped and mapped again while it waited fails.
 */
struct lookup {
	uint64_t dst, src;
};

static uint64_t mapping_at(uint64_t addr)
{
	const struct stub_map *m = stub_map_find(addr);

	return m ? m->id : 0;
}

static struct lookup look_up(const struct copy *c)
{
	struct lookup found;

	stub_gate_call();
	pthread_mutex_lock(&stub.lock);
	found = (struct lookup){ mapping_at(c->dst), mapping_at(c->src) };
	pthread_mutex_unlock(&stub.lock);
	stub_gate_leave();
	stub_sleep_ns(stub_delay_ns());
	return found;
}

static CUresult copy_found(const struct copy *c, const struct lookup *found, CUstream stream)
{
	if (mapping_at(c->dst) != found->dst || mapping_at(c->src) != found->src)
		return CUDA_ERROR_INVALID_VALUE;
	return copy(c, stream);
}

#define ADDR(p) ((uint64_t)(uintptr_t)(p))
#define COPY(symbol, stream, ...)                                           \
	({                                                                  \
		const struct copy copy_ = { __VA_ARGS__ };                  \
		const struct lookup found_ = look_up(&copy_);               \
                                                                            \
		STUB_LOCKED(symbol, copy_found(&copy_, &found_, (stream))); \
	})

STUB_EXPORT CUresult cuMemcpy(CUdeviceptr dst, CUdeviceptr src, size_t bytes)
{
	return COPY(cuMemcpy, NULL, HOST, HOST, dst, src, bytes, true);
}

STUB_EXPORT CUresult cuMemcpyAsync(CUdeviceptr dst, CUdeviceptr src, size_t bytes, CUstream stream)
{
	return COPY(cuMemcpyAsync, stream, HOST, HOST, dst, src, bytes, false);
}

STUB_EXPORT CUresult cuMemcpyHtoD_v2(CUdeviceptr dst, const void *src, size_t bytes)
{
	return COPY(cuMemcpyHtoD_v2, NULL, DEVICE, HOST, dst, ADDR(src), bytes, true);
}

STUB_EXPORT CUresult cuMemcpyDtoH_v2(void *dst, CUdeviceptr src, size_t bytes)
{
	return COPY(cuMemcpyDtoH_v2, NULL, HOST, DEVICE, ADDR(dst), src, bytes, true);
}

STUB_EXPORT CUresult cuMemcpyDtoD_v2(CUdeviceptr dst, CUdeviceptr src, size_t bytes)
{
	return COPY(cuMemcpyDtoD_v2, NULL, DEVICE, DEVICE, dst, src, bytes, true);
}

STUB_EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr dst, const void *src, size_t bytes,
					  CUstream stream)
{
	return COPY(cuMemcpyHtoDAsync_v2, stream, DEVICE, HOST, dst, ADDR(src), bytes, false);
}

STUB_EXPORT CUresult cuMemcpyDtoHAsync_v2(void *dst, CUdeviceptr src, size_t bytes, CUstream stream)
{
	return COPY(cuMemcpyDtoHAsync_v2, stream, HOST, DEVICE, ADDR(dst), src, bytes, false);
}

STUB_EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr dst, CUdeviceptr src, size_t bytes,
					  CUstream stream)
{
	return COPY(cuMemcpyDtoDAsync_v2, stream, DEVICE, DEVICE, dst, src, bytes, false);
}

struct set {
	uint64_t dst, count;
	uint32_t value, width;
	bool wait;
};

static CUresult set(const struct set *s, CUstream stream)
{
	struct stub_item item = {
		.kind = STUB_SET, .dst = s->dst, .value = s->value, .width = s->width
	};

	if (__builtin_mul_overflow(s->count, s->width, &item.bytes) || s->dst % s->width)
		return CUDA_ERROR_INVALID_VALUE;
	if (!s->count)
		return CUDA_SUCCESS;
	if (!side_ok(DEVICE, item.dst, item.bytes, true))
		return CUDA_ERROR_INVALID_VALUE;
	return stub_submit(stream, &item, s->wait);
}

#define SET(...) (&(const struct set){ __VA_ARGS__ })

STUB_EXPORT CUresult cuMemsetD8_v2(CUdeviceptr dst, unsigned char value, size_t n)
{
	return STUB_LOCKED(cuMemsetD8_v2, set(SET(dst, n, value, 1, true), NULL));
}

STUB_EXPORT CUresult cuMemsetD16_v2(CUdeviceptr dst, unsigned short value, size_t n)
{
	return STUB_LOCKED(cuMemsetD16_v2, set(SET(dst, n, value, 2, true), NULL));
}

STUB_EXPORT CUresult cuMemsetD32_v2(CUdeviceptr dst, unsigned int value, size_t n)
{
	return STUB_LOCKED(cuMemsetD32_v2, set(SET(dst, n, value, 4, true), NULL));
}

STUB_EXPORT CUresult cuMemsetD8Async(CUdeviceptr dst, unsigned char value, size_t n,
				     CUstream stream)
{
	return STUB_LOCKED(cuMemsetD8Async, set(SET(dst, n, value, 1, false), stream));
}

STUB_EXPORT CUresult cuMemsetD16Async(CUdeviceptr dst, unsigned short value, size_t n,
				      CUstream stream)
{
	return STUB_LOCKED(cuMemsetD16Async, set(SET(dst, n, value, 2, false), stream));
}

STUB_EXPORT CUresult cuMemsetD32Async(CUdeviceptr dst, unsigned int value, size_t n,
				      CUstream stream)
{
	return STUB_LOCKED(cuMemsetD32Async, set(SET(dst, n, value, 4, false), stream));
}

static CUresult ctx_synchronize(void)
{
	stub_drain_ctx(stub_ctx());
	return stub.async_error;
}

STUB_EXPORT CUresult cuCtxSynchronize(void)
{
	return STUB_LOCKED(cuCtxSynchronize, ctx_synchronize());
}

STUB_EXPORT CUresult cuStreamCreate(CUstream *out, unsigned int flags)
{
	return STUB_LOCKED(cuStreamCreate, flags & ~(unsigned int)CU_STREAM_NON_BLOCKING
						   ? CUDA_ERROR_INVALID_VALUE
						   : stub_stream_new(stub_ctx(), flags, out));
}

STUB_EXPORT CUresult cuStreamCreateWithPriority(CUstream *out, unsigned int flags, int priority)
{
	(void)priority;
	return STUB_LOCKED(cuStreamCreateWithPriority, stub_stream_new(stub_ctx(), flags, out));
}

static CUresult stream_destroy(CUstream stream)
{
	struct CUstream_st *s = stub_stream_of(stream);

	if (!s || s == s->ctx->null_stream)
		return STUB_ERROR_INVALID_HANDLE;
	stub_stream_sync(s, s->submitted);
	s->live = false;
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuStreamDestroy_v2(CUstream stream)
{
	return STUB_LOCKED(cuStreamDestroy_v2, stream_destroy(stream));
}

static CUresult stream_synchronize(CUstream stream)
{
	struct CUstream_st *s = stub_stream_of(stream);

	return s ? stub_stream_sync(s, s->submitted) : STUB_ERROR_INVALID_HANDLE;
}

STUB_EXPORT CUresult cuStreamSynchronize(CUstream stream)
{
	return STUB_LOCKED(cuStreamSynchronize, stream_synchronize(stream));
}

static CUresult stream_query(CUstream stream)
{
	struct CUstream_st *s = stub_stream_of(stream);

	if (!s)
		return STUB_ERROR_INVALID_HANDLE;
	return stub_stream_poll(s, s->submitted) ? stub.async_error : CUDA_ERROR_NOT_READY;
}

STUB_EXPORT CUresult cuStreamQuery(CUstream stream)
{
	return STUB_LOCKED(cuStreamQuery, stream_query(stream));
}

struct CUevent_st *stub_event_of(CUevent event)
{
	struct CUevent_st *e = events;

	while (e && e != event)
		e = e->next;
	return e && e->live ? e : NULL;
}

static bool event_done(const struct CUevent_st *e)
{
	return !e->stream || e->stream->done >= e->seq;
}

CUresult stub_event_new(CUevent *out, unsigned int flags)
{
	struct CUevent_st *e = events;

	/* One that is still to be recorded must not be used again before. */
	while (e && (e->live || !event_done(e)))
		e = e->next;
	if (!e) {
		e = stub_pool_get(&event_pool);
		if (!e)
			return CUDA_ERROR_OUT_OF_MEMORY;
		e->next = events;
		events = e;
	}
	e->stream = NULL;
	e->ctx = stub_ctx();
	e->flags = flags;
	e->live = true;
	*out = e;
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuEventCreate(CUevent *out, unsigned int flags)
{
	return STUB_LOCKED(cuEventCreate, stub_event_new(out, flags));
}

static CUresult event_destroy(CUevent event)
{
	struct CUevent_st *e = stub_event_of(event);

	if (!e)
		return STUB_ERROR_INVALID_HANDLE;
	e->live = false;
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuEventDestroy_v2(CUevent event)
{
	return STUB_LOCKED(cuEventDestroy_v2, event_destroy(event));
}

static CUresult event_record(CUevent event, CUstream stream)
{
	const struct stub_item item = { .kind = STUB_RECORD, .event = event };
	struct CUstream_st *s = stub_stream_of(stream);
	CUresult res;

	if (!s || !stub_event_of(event))
		return STUB_ERROR_INVALID_HANDLE;
	res = stub_submit(stream, &item, false);
	if (!res) {
		event->stream = s;
		event->seq = s->submitted;
	}
	return res;
}

STUB_EXPORT CUresult cuEventRecord(CUevent event, CUstream stream)
{
	return STUB_LOCKED(cuEventRecord, event_record(event, stream));
}

static CUresult event_synchronize(CUevent event)
{
	const struct CUevent_st *e = stub_event_of(event);

	if (!e)
		return STUB_ERROR_INVALID_HANDLE;
	return e->stream ? stub_stream_sync(e->stream, e->seq) : CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuEventSynchronize(CUevent event)
{
	return STUB_LOCKED(cuEventSynchronize, event_synchronize(event));
}

static CUresult event_query(CUevent event)
{
	const struct CUevent_st *e = stub_event_of(event);

	if (!e)
		return STUB_ERROR_INVALID_HANDLE;
	return !e->stream || stub_stream_poll(e->stream, e->seq) ? stub.async_error
								 : CUDA_ERROR_NOT_READY;
}

STUB_EXPORT CUresult cuEventQuery(CUevent event)
{
	return STUB_LOCKED(cuEventQuery, event_query(event));
}

static CUresult elapsed_time(float *ms, CUevent from, CUevent to)
{
	const struct CUevent_st *a = stub_event_of(from), *b = stub_event_of(to);

	if (!a || !b || !a->stream || !b->stream || (a->flags | b->flags) & CU_EVENT_DISABLE_TIMING)
		return STUB_ERROR_INVALID_HANDLE;
	if (!event_done(a) || !event_done(b))
		return CUDA_ERROR_NOT_READY;
	*ms = (float)((double)(int64_t)(b->time_ns - a->time_ns) / 1e6);
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuEventElapsedTime(float *ms, CUevent from, CUevent to)
{
	return STUB_LOCKED(cuEventElapsedTime, elapsed_time(ms, from, to));
}

static CUresult stream_wait_event(CUstream stream, CUevent event)
{
	struct CUstream_st *s = stub_stream_of(stream);
	const struct CUevent_st *e = stub_event_of(event);

	if (!s || !e)
		return STUB_ERROR_INVALID_HANDLE;
	return e->stream ? stub_stream_wait(s, e->stream, e->seq) : CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags)
{
	(void)flags;
	return STUB_LOCKED(cuStreamWaitEvent, stream_wait_event(stream, event));
}
