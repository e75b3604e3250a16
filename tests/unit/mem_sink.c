/* SPDX-License-Identifier: MIT */
/* A backend for tests. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "mem_sink.h"

#define GARBAGE 0x5a /* in slots */
#define MAX_SLOTS 64

enum slot_state {
	SLOT_FREE,
	SLOT_TAKEN,
	SLOT_COPYING,
};

/* Copies out of a slot, or a range to clear (no slot). */
struct job {
	struct job *next;
	bool clear;
	struct ckf_sink_slot slot;
	size_t nr;
	struct ckf_sink_copy copies[];
};

struct ckf_sink {
	struct ckf_sink_opts opts;
	atomic_uint streams; /* bits of those that were used */
	uint8_t *slots;
	pthread_t thread;
	pthread_mutex_t lock; /* for all below */
	pthread_cond_t cond;
	enum slot_state state[MAX_SLOTS];
	struct job *first;
	struct job **last;
	bool busy;
	bool stop;
	int ret; /* the first error of a copy */
	unsigned int nr_mems;
};

struct ckf_sink_mem {
	struct ckf_sink *sink;
	uint64_t bytes;
	uint8_t *data;
};

static struct {
	pthread_mutex_t lock;
	enum mem_sink_call call;
	unsigned int nth;
	unsigned int count[MEM_SINK_CALLS];
} inject = { .lock = PTHREAD_MUTEX_INITIALIZER };

void mem_sink_fail(enum mem_sink_call call, unsigned int nth)
{
	pthread_mutex_lock(&inject.lock);
	memset(inject.count, 0, sizeof(inject.count));
	inject.call = call;
	inject.nth = nth;
	pthread_mutex_unlock(&inject.lock);
}

unsigned int mem_sink_count(enum mem_sink_call call)
{
	unsigned int n;

	pthread_mutex_lock(&inject.lock);
	n = inject.count[call];
	pthread_mutex_unlock(&inject.lock);
	return n;
}

static bool fails(enum mem_sink_call call)
{
	bool any, one;

	pthread_mutex_lock(&inject.lock);
	one = ++inject.count[call] == inject.nth && inject.call == call;
	any = call != MEM_SINK_COPY && ++inject.count[MEM_SINK_ANY] == inject.nth &&
	      inject.call == MEM_SINK_ANY;
	pthread_mutex_unlock(&inject.lock);
	return one || any;
}

static void run_job(struct ckf_sink *s, const struct job *j)
{
	const uint8_t *slot = j->slot.addr;

	for (size_t i = 0; i < j->nr; i++) {
		const struct ckf_sink_copy *c = &j->copies[i];

		if (j->clear)
			memset(c->mem->data + c->mem_off, 0, c->bytes);
		else
			memcpy(c->mem->data + c->mem_off, slot + c->slot_off, c->bytes);
	}
	if (!j->clear)
		memset(j->slot.addr, GARBAGE, s->opts.slot_bytes);
}

static void *copier(void *arg)
{
	struct ckf_sink *s = arg;
	struct job *j;

	pthread_mutex_lock(&s->lock);
	for (;;) {
		while (!s->first && !s->stop)
			pthread_cond_wait(&s->cond, &s->lock);
		j = s->first;
		if (!j)
			break;
		s->first = j->next;
		if (!s->first)
			s->last = &s->first;
		s->busy = true;
		pthread_mutex_unlock(&s->lock);
		run_job(s, j);
		pthread_mutex_lock(&s->lock);
		if (fails(MEM_SINK_COPY) && !s->ret)
			s->ret = -EIO;
		if (!j->clear)
			s->state[j->slot.nr] = SLOT_FREE;
		s->busy = false;
		free(j);
		pthread_cond_broadcast(&s->cond);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static int mem_open(const struct ckf_sink_opts *opts, struct ckf_sink **out, struct ckf_error *err)
{
	struct ckf_sink *s;

	(void)err;
	assert_true(opts->size == sizeof(*opts) && opts->nr_slots <= MAX_SLOTS);
	s = calloc(1, sizeof(*s));
	assert_non_null(s);
	s->opts = *opts;
	s->slots = aligned_alloc(CKF_PAGE_BYTES, (size_t)opts->nr_slots * opts->slot_bytes);
	assert_non_null(s->slots);
	s->last = &s->first;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->cond, NULL);
	assert_int_equal(pthread_create(&s->thread, NULL, copier, s), 0);
	*out = s;
	return 0;
}

static void mem_close(struct ckf_sink *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	assert_int_equal(s->nr_mems, 0);
	for (unsigned int i = 0; i < s->opts.nr_slots; i++)
		assert_int_equal(s->state[i], SLOT_FREE);
	pthread_cond_destroy(&s->cond);
	pthread_mutex_destroy(&s->lock);
	free(s->slots);
	free(s);
}

static int mem_alloc(struct ckf_sink *s, uint64_t bytes, struct ckf_sink_mem **out,
		     struct ckf_error *err)
{
	struct ckf_sink_mem *m = calloc(1, sizeof(*m));

	(void)err;
	assert_non_null(m);
	m->sink = s;
	m->bytes = bytes;
	m->data = malloc(bytes);
	assert_non_null(m->data);
	memset(m->data, MEM_SINK_BACKGROUND, bytes);
	s->nr_mems++;
	*out = m;
	return 0;
}

static void mem_free(struct ckf_sink_mem *m)
{
	assert_true(mem_sink_idle(m->sink));
	m->sink->nr_mems--;
	free(m->data);
	free(m);
}

static int mem_share(struct ckf_sink_mem *m, struct ckf_error *err)
{
	(void)m;
	return ckf_error_set(err, -EOPNOTSUPP, "memory of a test is not shared");
}

static int mem_slot_take(struct ckf_sink *s, struct ckf_sink_slot *out, struct ckf_error *err)
{
	uint32_t i;

	if (fails(MEM_SINK_TAKE))
		return ckf_error_set(err, -EIO, "injected");
	pthread_mutex_lock(&s->lock);
	for (;;) {
		for (i = 0; i < s->opts.nr_slots && s->state[i] != SLOT_FREE; i++)
			;
		if (i < s->opts.nr_slots)
			break;
		pthread_cond_wait(&s->cond, &s->lock);
	}
	s->state[i] = SLOT_TAKEN;
	pthread_mutex_unlock(&s->lock);
	*out = (struct ckf_sink_slot){
		.addr = s->slots + (size_t)i * s->opts.slot_bytes,
		.bytes = s->opts.slot_bytes,
		.nr = i,
	};
	return 0;
}

static void set_state(struct ckf_sink *s, const struct ckf_sink_slot *slot, enum slot_state state)
{
	pthread_mutex_lock(&s->lock);
	assert_int_equal(s->state[slot->nr], SLOT_TAKEN);
	s->state[slot->nr] = state;
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

static void mem_slot_put(struct ckf_sink *s, const struct ckf_sink_slot *slot)
{
	set_state(s, slot, SLOT_FREE);
}

static void check_range(const struct ckf_sink *s, const struct ckf_sink_mem *m, uint64_t off,
			uint64_t bytes)
{
	assert_ptr_equal(m->sink, s);
	assert_true(bytes && bytes % CKF_PAGE_BYTES == 0 && off % CKF_PAGE_BYTES == 0);
	assert_true(off <= m->bytes && bytes <= m->bytes - off);
}

static void append(struct ckf_sink *s, struct job *j)
{
	pthread_mutex_lock(&s->lock);
	*s->last = j;
	s->last = &j->next;
	pthread_cond_broadcast(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

static int mem_submit(struct ckf_sink *s, unsigned int stream, const struct ckf_sink_slot *slot,
		      const struct ckf_sink_copy *copies, size_t nr, struct ckf_error *err)
{
	struct job *j;

	assert_true(stream < s->opts.nr_streams && nr > 0);
	for (size_t i = 0; i < nr; i++) {
		check_range(s, copies[i].mem, copies[i].mem_off, copies[i].bytes);
		assert_true(copies[i].slot_off <= slot->bytes &&
			    copies[i].bytes <= slot->bytes - copies[i].slot_off);
	}
	if (fails(MEM_SINK_SUBMIT)) {
		set_state(s, slot, SLOT_FREE);
		return ckf_error_set(err, -EIO, "injected");
	}
	set_state(s, slot, SLOT_COPYING);
	atomic_fetch_or(&s->streams, 1u << stream);
	j = calloc(1, sizeof(*j) + nr * sizeof(*copies));
	assert_non_null(j);
	j->slot = *slot;
	j->nr = nr;
	memcpy(j->copies, copies, nr * sizeof(*copies));
	append(s, j);
	return 0;
}

static int mem_clear(struct ckf_sink *s, unsigned int stream, struct ckf_sink_mem *mem,
		     uint64_t mem_off, uint64_t bytes, struct ckf_error *err)
{
	struct job *j;

	assert_true(stream < s->opts.nr_streams && bytes <= UINT32_MAX);
	check_range(s, mem, mem_off, bytes);
	if (fails(MEM_SINK_CLEAR))
		return ckf_error_set(err, -EIO, "injected");
	j = calloc(1, sizeof(*j) + sizeof(j->copies[0]));
	assert_non_null(j);
	j->clear = true;
	j->nr = 1;
	j->copies[0] = (struct ckf_sink_copy){ mem, mem_off, 0, (uint32_t)bytes };
	append(s, j);
	return 0;
}

static int mem_drain(struct ckf_sink *s, struct ckf_error *err)
{
	int ret;

	pthread_mutex_lock(&s->lock);
	while (s->first || s->busy)
		pthread_cond_wait(&s->cond, &s->lock);
	ret = s->ret;
	s->ret = 0;
	pthread_mutex_unlock(&s->lock);
	if (fails(MEM_SINK_DRAIN) || ret)
		return ckf_error_set(err, -EIO, "injected");
	return 0;
}

static unsigned int mem_nr_streams(const struct ckf_sink *s)
{
	return s->opts.nr_streams;
}

unsigned int mem_sink_streams(const struct ckf_sink *s)
{
	return atomic_load(&s->streams);
}

uint8_t *mem_sink_bytes(struct ckf_sink_mem *mem)
{
	return mem->data;
}

bool mem_sink_idle(struct ckf_sink *s)
{
	bool idle;

	pthread_mutex_lock(&s->lock);
	idle = !s->first && !s->busy;
	for (unsigned int i = 0; i < s->opts.nr_slots; i++)
		idle = idle && s->state[i] == SLOT_FREE;
	pthread_mutex_unlock(&s->lock);
	return idle;
}

const struct ckf_sink_ops mem_sink_ops = {
	.name = "memory",
	.open = mem_open,
	.close = mem_close,
	.alloc = mem_alloc,
	.free = mem_free,
	.share = mem_share,
	.slot_take = mem_slot_take,
	.slot_put = mem_slot_put,
	.submit = mem_submit,
	.clear = mem_clear,
	.drain = mem_drain,
	.nr_streams = mem_nr_streams,
};
