/* SPDX-License-Identifier: MIT */
/*
 * A queue of an SDMA engine: packets go into a ring, a doorbell tells the engine how far it is
 * written, and a fence packet at the end of each submission writes a number into memory of the
 * host. The layout of packets is that of GPUs since Vega; a count is the number of bytes less 1.
 */
#include "queue.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "base/ckf_threads.h"

#define RING_BYTES (64u << 10)
#define FENCE_OFF RING_BYTES
#define MEMORY_BYTES (RING_BYTES + 4096)
/* Of one copy or clear: all generations know 22 bits of count. */
#define PIECE_BYTES (2ull << 20)

#define OP_COPY 1u
#define OP_FENCE 5u
#define OP_FILL 11u
/* The memory type of the fence's word, on GPUs that have the field. */
#define FENCE_UNCACHED (3u << 16)

#define SPINS 200
#define WAIT_NS 20000 /* at first */
#define WAIT_MAX_NS 500000

static uint32_t low(uint64_t v)
{
	return (uint32_t)v;
}

static uint32_t high(uint64_t v)
{
	return (uint32_t)(v >> 32);
}

int queue_host_memory(const struct hsakmt *kmt, size_t bytes, bool coherent, HSAuint32 *nodes,
		      unsigned int nr_nodes, void **out, struct ckf_error *err)
{
	HsaMemFlags flags = { 0 };
	HsaMemMapFlags map = { 0 };
	HSAuint64 addr = 0;
	HSAKMT_STATUS res;

	/* Paged: anonymous memory, which O_DIRECT can read into, pinned when it is mapped. */
	flags.ui32.HostAccess = 1;
	flags.ui32.NoNUMABind = 1;
	flags.ui32.ExecuteAccess = coherent;
	flags.ui32.CoarseGrain = !coherent;
	*out = NULL;
	res = kmt->alloc(0, bytes, flags, out);
	if (res)
		return hsakmt_error(res, "cannot make memory for the GPUs", err);
	res = kmt->map(*out, bytes, &addr, map, nr_nodes, nodes);
	if (!res)
		return 0;
	kmt->free(*out, bytes);
	*out = NULL;
	return hsakmt_error(res, "cannot map memory of the host on the GPUs", err);
}

void queue_host_free(const struct hsakmt *kmt, void *memory, size_t bytes)
{
	kmt->unmap(memory);
	kmt->free(memory, bytes);
}

int queue_open(const struct hsakmt *kmt, HSAuint32 node, unsigned int generation,
	       unsigned int timeout_ms, struct engine_queue *q, struct ckf_error *err)
{
	HSAKMT_STATUS res;
	int ret;

	*q = (struct engine_queue){ .kmt = kmt,
				    .timeout_ms = timeout_ms,
				    .fence_uncached = generation >= 10 };
	ret = queue_host_memory(kmt, MEMORY_BYTES, true, &node, 1, &q->memory, err);
	if (ret)
		return ret;
	memset(q->memory, 0, MEMORY_BYTES);
	res = kmt->queue_create(node, HSA_QUEUE_SDMA, 100, HSA_QUEUE_PRIORITY_NORMAL, q->memory,
				RING_BYTES, NULL, &q->res);
	if (res) {
		queue_host_free(kmt, q->memory, MEMORY_BYTES);
		q->memory = NULL;
		return hsakmt_error(res, "cannot make a queue of an SDMA engine", err);
	}
	q->fence = (_Atomic uint32_t *)((char *)q->memory + FENCE_OFF);
	pthread_mutex_init(&q->lock, NULL);
	return 0;
}

void queue_close(struct engine_queue *q)
{
	if (!q->memory)
		return;
	q->kmt->queue_destroy(q->res.QueueId);
	queue_host_free(q->kmt, q->memory, MEMORY_BYTES);
	pthread_mutex_destroy(&q->lock);
	q->memory = NULL;
}

static int fail(struct engine_queue *q, struct ckf_error *err)
{
	atomic_store(&q->failed, true);
	return ckf_error_set(err, -EIO, "an SDMA engine has done nothing for %u ms", q->timeout_ms);
}

/*
 * Waits until ready(): by spinning, since a copy takes some 100 us, and then by sleeping, longer
 * and longer, since the CPUs have memory to read and to check. The engine has failed when its read
 * pointer stands still for too long.
 */
static int wait_until(struct engine_queue *q, bool (*ready)(const struct engine_queue *, uint64_t),
		      uint64_t arg, struct ckf_error *err)
{
	struct timespec pause = { 0, WAIT_NS };
	uint64_t moved_ns = ckf_now_ns(), pos = 0, now;

	for (unsigned int spins = 0; !ready(q, arg); spins++) {
		if (atomic_load(&q->failed))
			return fail(q, err);
		if (spins < SPINS) {
			sched_yield();
			continue;
		}
		nanosleep(&pause, NULL);
		/* By no more than a part of what the wait has taken so far. */
		if (pause.tv_nsec < WAIT_MAX_NS)
			pause.tv_nsec += pause.tv_nsec / 8;
		now = *(volatile uint64_t *)q->res.Queue_read_ptr_aql;
		if (now != pos)
			moved_ns = ckf_now_ns();
		pos = now;
		if (ckf_now_ns() - moved_ns > q->timeout_ms * 1000000ull && !ready(q, arg))
			return fail(q, err);
	}
	return 0;
}

/*
 * There is room for the ring to be written up to end. Never to its last byte: an engine compares
 * pointers modulo the ring, and would take a full one for empty.
 */
static bool has_room(const struct engine_queue *q, uint64_t end)
{
	return end - *(volatile uint64_t *)q->res.Queue_read_ptr_aql < RING_BYTES;
}

static bool is_done(const struct engine_queue *q, uint64_t seq)
{
	return engine_done(q, (uint32_t)seq);
}

bool engine_done(const struct engine_queue *q, uint32_t seq)
{
	return (int32_t)(atomic_load_explicit(q->fence, memory_order_acquire) - seq) >= 0;
}

bool engine_failed(const struct engine_queue *q)
{
	return atomic_load(&q->failed);
}

int engine_wait(struct engine_queue *q, uint32_t seq, struct ckf_error *err)
{
	return wait_until(q, is_done, seq, err);
}

int engine_drain(struct engine_queue *q, struct ckf_error *err)
{
	uint32_t seq;

	pthread_mutex_lock(&q->lock);
	seq = q->seq;
	pthread_mutex_unlock(&q->lock);
	return engine_wait(q, seq, err);
}

static void ring_doorbell(struct engine_queue *q)
{
	atomic_thread_fence(memory_order_release);
	*(volatile uint64_t *)q->res.Queue_write_ptr_aql = q->write_pos;
	atomic_thread_fence(memory_order_seq_cst);
	*(volatile uint64_t *)q->res.Queue_DoorBell_aql = q->write_pos;
}

/* One packet into the ring, whose end none may cross. With the lock held. */
static int put(struct engine_queue *q, const uint32_t *packet, unsigned int dwords,
	       struct ckf_error *err)
{
	uint64_t bytes = 4ull * dwords, off = q->write_pos % RING_BYTES, pad = 0;
	int ret;

	if (off + bytes > RING_BYTES)
		pad = RING_BYTES - off;
	if (!has_room(q, q->write_pos + pad + bytes)) {
		ring_doorbell(q);
		ret = wait_until(q, has_room, q->write_pos + pad + bytes, err);
		if (ret)
			return ret;
	}
	memset((char *)q->memory + off, 0, pad); /* of packets that do nothing */
	q->write_pos += pad;
	memcpy((char *)q->memory + q->write_pos % RING_BYTES, packet, bytes);
	q->write_pos += bytes;
	return 0;
}

/* Ends a submission. With the lock held. */
static int put_fence(struct engine_queue *q, uint32_t *seq, struct ckf_error *err)
{
	uint64_t at = (uintptr_t)q->fence;
	const uint32_t packet[] = { OP_FENCE | (q->fence_uncached ? FENCE_UNCACHED : 0), low(at),
				    high(at), q->seq + 1 };
	int ret = put(q, packet, 4, err);

	if (ret)
		return ret;
	*seq = ++q->seq;
	ring_doorbell(q);
	return 0;
}

static uint64_t piece(uint64_t bytes)
{
	return bytes < PIECE_BYTES ? bytes : PIECE_BYTES;
}

static int put_copy(struct engine_queue *q, struct engine_copy c, struct ckf_error *err)
{
	for (uint64_t n; c.bytes; c.bytes -= n, c.from += n, c.to += n) {
		int ret;

		n = piece(c.bytes);
		ret = put(q,
			  (const uint32_t[]){ OP_COPY, (uint32_t)n - 1, 0, low(c.from),
					      high(c.from), low(c.to), high(c.to) },
			  7, err);
		if (ret)
			return ret;
	}
	return 0;
}

/*
 * Begins a submission, with the lock held. *seq is the number of a fence that a queue never gets
 * once it has failed.
 */
static int begin(struct engine_queue *q, uint32_t *seq, struct ckf_error *err)
{
	*seq = q->seq + 1;
	return atomic_load(&q->failed) ? fail(q, err) : 0;
}

int engine_copy(struct engine_queue *q, const struct engine_copy *copies, size_t nr, uint32_t *seq,
		struct ckf_error *err)
{
	int ret;

	pthread_mutex_lock(&q->lock);
	ret = begin(q, seq, err);
	for (size_t i = 0; i < nr && !ret; i++)
		ret = put_copy(q, copies[i], err);
	if (!ret)
		ret = put_fence(q, seq, err);
	pthread_mutex_unlock(&q->lock);
	return ret;
}

int engine_clear(struct engine_queue *q, uint64_t to, uint64_t bytes, uint32_t *seq,
		 struct ckf_error *err)
{
	int ret;

	pthread_mutex_lock(&q->lock);
	ret = begin(q, seq, err);
	for (uint64_t n; bytes && !ret; bytes -= n, to += n) {
		n = piece(bytes);
		ret = put(q, (const uint32_t[]){ OP_FILL, low(to), high(to), 0, (uint32_t)n - 1 },
			  5, err);
	}
	if (!ret)
		ret = put_fence(q, seq, err);
	pthread_mutex_unlock(&q->lock);
	return ret;
}
