/* SPDX-License-Identifier: MIT */
/*
 * Streams: queues of items, each with a thread that executes them in order, after a while. Who
 * waits for an item executes it himself if nobody has begun to: a GPU also goes on working while
 * the threads of a process are stopped.
 *
 * An item can wait for another stream. It waits only for what was submitted before it, so there
 * are no cycles.
 */
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include "stub.h"

#define STACK_BYTES (256u << 10)
#define PATIENCE_NS 10000000u
#define TOGETHER_NS 1000000u
#define REMOVE_BYTES (64u << 10) /* that it pays to give back instead of zeroing */

static struct stub_pool stream_pool = { .size = sizeof(struct CUstream_st) };
static struct stub_pool item_pool = { .size = sizeof(struct stub_item) };
static uint32_t progress; /* futex: changes whenever an item is done */

/* The page-aligned middle of a large zeroed range is given back, so that it takes no memory. */
static void set_zero(char *p, uint64_t bytes)
{
	uint64_t head = -(uint64_t)(uintptr_t)p % STUB_PAGE;
	uint64_t pages;

	if (bytes < REMOVE_BYTES) {
		memset(p, 0, bytes);
		return;
	}
	pages = (bytes - head) / STUB_PAGE * STUB_PAGE;
	memset(p, 0, head);
	if (madvise(p + head, pages, MADV_REMOVE))
		memset(p + head, 0, pages);
	memset(p + head + pages, 0, bytes - head - pages);
}

static void set_value(char *p, const struct stub_item *item)
{
	if (!item->value) {
		set_zero(p, item->bytes);
	} else if (item->width == 1) {
		memset(p, (int)item->value, item->bytes);
	} else {
		for (uint64_t at = 0; at < item->bytes; at += item->width)
			memcpy(p + at, &item->value, item->width);
	}
}

/* Device memory may be gone since the item was submitted. */
static bool sides_ok(const struct stub_item *item)
{
	return (!stub_is_device(item->dst) ||
		stub_range_ok(item->dst, item->bytes, item->device, true)) &&
	       (item->kind != STUB_COPY || !stub_is_device(item->src) ||
		stub_range_ok(item->src, item->bytes, item->device, false));
}

static void do_item(const struct stub_item *item)
{
	char *dst = (char *)(uintptr_t)item->dst;

	if (item->kind == STUB_RECORD) {
		item->event->time_ns = stub_now_ns();
	} else if (item->kind == STUB_COPY || item->kind == STUB_SET) {
		if (!sides_ok(item))
			stub.async_error = STUB_ERROR_ILLEGAL_ADDRESS;
		else if (item->kind == STUB_COPY)
			memmove(dst, (const void *)(uintptr_t)item->src, item->bytes);
		else
			set_value(dst, item);
	}
}

/* GPUs that have copies to do. */
static uint32_t copying_gpus(void)
{
	uint32_t gpus = 0;

	for (const struct CUstream_st *s = stub.streams; s; s = s->next)
		if (s->copies)
			gpus |= 1u << s->ctx->device;
	return (uint32_t)__builtin_popcount(gpus);
}

/* No copy is done before so many GPUs have one, once. */
static void wait_together(void)
{
	static bool seen;

	while (!seen && copying_gpus() < stub_together()) {
		pthread_mutex_unlock(&stub.lock);
		stub_sleep_ns(TOGETHER_NS);
		pthread_mutex_lock(&stub.lock);
	}
	seen = true;
}

static void execute_head(struct CUstream_st *s)
{
	struct stub_item *item = s->head;

	s->head = item->next;
	if (!s->head)
		s->tail = &s->head;
	s->busy = true;
	if (item->kind == STUB_COPY)
		wait_together();
	if ((item->kind == STUB_COPY || item->kind == STUB_SET) && stub_delay_ns()) {
		pthread_mutex_unlock(&stub.lock);
		stub_sleep_ns(stub_delay_ns());
		pthread_mutex_lock(&stub.lock);
	}
	do_item(item);
	s->copies -= item->kind == STUB_COPY;
	stub_pool_put(&item_pool, item);
	s->busy = false;
	s->done++;
	__atomic_add_fetch(&progress, 1, __ATOMIC_SEQ_CST);
	stub_futex_wake(&progress);
}

static void wait_progress(void)
{
	uint32_t seen = __atomic_load_n(&progress, __ATOMIC_SEQ_CST);

	pthread_mutex_unlock(&stub.lock);
	stub_futex_wait(&progress, seen, 0);
	pthread_mutex_lock(&stub.lock);
}

static void drain(struct CUstream_st *s, uint64_t upto)
{
	while (s->done < upto) {
		const struct stub_item *item = s->head;

		if (s->busy)
			wait_progress();
		else if (item->kind == STUB_WAIT && item->dep->done < item->dep_seq)
			drain(item->dep, item->dep_seq);
		else
			execute_head(s);
	}
}

void stub_drain_ctx(struct CUctx_st *ctx)
{
	for (struct CUstream_st *s = stub.streams; s; s = s->next) {
		if (!ctx || s->ctx == ctx)
			drain(s, s->submitted);
	}
}

bool stub_drain_until(uint64_t deadline_ns)
{
	for (struct CUstream_st *s = stub.streams; s; s = s->next) {
		while (s->done < s->submitted) {
			if (stub_now_ns() >= deadline_ns)
				return false;
			drain(s, s->done + 1);
		}
	}
	return true;
}

/* One item at a time, so that the gate can be closed between them. */
static void *stream_thread(void *arg)
{
	struct CUstream_st *s = arg;

	for (;;) {
		uint32_t seen = __atomic_load_n(&s->wake, __ATOMIC_SEQ_CST);
		bool more;

		stub_gate_enter();
		pthread_mutex_lock(&stub.lock);
		if (s->done < s->submitted)
			drain(s, s->done + 1);
		more = s->done < s->submitted;
		pthread_mutex_unlock(&stub.lock);
		stub_gate_leave();
		if (!more)
			stub_futex_wait(&s->wake, seen, 0);
	}
	return NULL;
}

bool stub_thread_start(void *(*fn)(void *), void *arg)
{
	pthread_attr_t attr;
	sigset_t all, old;
	pthread_t thread;
	int ret;

	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&thread, &attr, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return !ret;
}

CUresult stub_stream_new(struct CUctx_st *ctx, uint32_t flags, struct CUstream_st **out)
{
	struct CUstream_st *s = stub.streams;

	while (s && s->live)
		s = s->next;
	if (!s) {
		s = stub_pool_get(&stream_pool);
		if (!s)
			return CUDA_ERROR_OUT_OF_MEMORY;
		s->tail = &s->head;
		if (!stub_thread_start(stream_thread, s)) {
			stub_pool_put(&stream_pool, s);
			return CUDA_ERROR_OUT_OF_MEMORY;
		}
		s->next = stub.streams;
		stub.streams = s;
	}
	s->ctx = ctx;
	s->flags = flags;
	s->live = true;
	*out = s;
	return CUDA_SUCCESS;
}

void stub_streams_end(struct CUctx_st *ctx)
{
	for (struct CUstream_st *s = stub.streams; s; s = s->next) {
		if (s->ctx == ctx)
			s->live = false;
	}
}

struct CUstream_st *stub_stream_of(CUstream stream)
{
	const uintptr_t special = 2; /* CU_STREAM_LEGACY and CU_STREAM_PER_THREAD: 1 and 2 */
	struct CUstream_st *s = stub.streams;

	if ((uintptr_t)stream <= special)
		return stub_ctx()->null_stream;
	while (s && s != stream)
		s = s->next;
	return s && s->live ? s : NULL;
}

static CUresult append(struct CUstream_st *s, const struct stub_item *item)
{
	struct stub_item *copy = stub_pool_get(&item_pool);

	if (!copy)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*copy = *item;
	copy->next = NULL;
	copy->device = s->ctx->device;
	copy->time_ns = stub_now_ns();
	*s->tail = copy;
	s->tail = &copy->next;
	s->submitted++;
	s->copies += item->kind == STUB_COPY;
	__atomic_add_fetch(&s->wake, 1, __ATOMIC_SEQ_CST);
	stub_futex_wake(&s->wake);
	return CUDA_SUCCESS;
}

static CUresult append_wait(struct CUstream_st *s, struct CUstream_st *dep, uint64_t seq)
{
	const struct stub_item item = { .kind = STUB_WAIT, .dep = dep, .dep_seq = seq };

	return s == dep || dep->done >= seq ? CUDA_SUCCESS : append(s, &item);
}

/* The null stream waits for all others of its context, and they for it, unless they say no. */
static CUresult append_barrier(struct CUstream_st *s)
{
	struct CUstream_st *null = s->ctx->null_stream;
	CUresult res = CUDA_SUCCESS;

	if (s != null)
		return s->flags & CU_STREAM_NON_BLOCKING ? CUDA_SUCCESS
							 : append_wait(s, null, null->submitted);
	for (struct CUstream_st *o = stub.streams; o && !res; o = o->next) {
		if (o->live && o->ctx == s->ctx && !(o->flags & CU_STREAM_NON_BLOCKING))
			res = append_wait(s, o, o->submitted);
	}
	return res;
}

CUresult stub_submit(CUstream stream, const struct stub_item *item, bool wait)
{
	struct CUstream_st *s = stub_stream_of(stream);
	CUresult res;

	if (!s)
		return STUB_ERROR_INVALID_HANDLE;
	if (stub.async_error)
		return stub.async_error;
	res = append_barrier(s);
	if (!res)
		res = append(s, item);
	if (!res && wait) {
		drain(s, s->submitted);
		res = stub.async_error;
	}
	return res;
}

CUresult stub_stream_sync(struct CUstream_st *s, uint64_t upto)
{
	drain(s, upto);
	return stub.async_error;
}

/* What has been waiting for long gets done here: the stream's thread may be stopped. */
bool stub_stream_poll(struct CUstream_st *s, uint64_t upto)
{
	if (s->done < upto && !s->busy &&
	    stub_now_ns() > s->head->time_ns + stub_delay_ns() + PATIENCE_NS)
		drain(s, s->done + 1);
	return s->done >= upto;
}

CUresult stub_stream_wait(struct CUstream_st *s, struct CUstream_st *dep, uint64_t seq)
{
	return append_wait(s, dep, seq);
}
