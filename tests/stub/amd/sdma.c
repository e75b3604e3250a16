/* SPDX-License-Identifier: MIT */
/*
 * Runs packets of the SDMA engine, with the time that AMD_LATENCY_US and AMD_BYTES_PER_S give to
 * them. Each packet begins after the one before it and its latency; the bytes of all engines of a
 * GPU go over one link. An engine that is late because of this machine catches up.
 */
#include "sdma.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define COPY_DWORDS 7
#define FENCE_DWORDS 4
#define FILL_DWORDS 5
#define NS 1000000000ull

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

static uint64_t setting(const char *name)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 10) : 0;
}

void amd_sdma_wake(struct amd_sdma *s)
{
	s->now_ns = clock_ns();
}

static void spend(struct amd_sdma *s, uint64_t bytes)
{
	uint64_t speed = setting("AMD_BYTES_PER_S");
	uint64_t start = s->now_ns + setting("AMD_LATENCY_US") * 1000, begin;
	uint64_t free_ns = atomic_load(&s->gpu->link_free_ns);
	struct timespec t;

	do {
		begin = free_ns > start ? free_ns : start;
		s->now_ns = begin + (speed ? bytes * NS / speed : 0);
	} while (speed &&
		 !atomic_compare_exchange_weak(&s->gpu->link_free_ns, &free_ns, s->now_ns));
	if (s->now_ns <= clock_ns())
		return;
	t = (struct timespec){ (time_t)(s->now_ns / NS), (long)(s->now_ns % NS) };
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static uint64_t address(const uint32_t *dwords)
{
	return dwords[0] | (uint64_t)dwords[1] << 32;
}

static int copy(struct amd_sdma *s, const uint32_t *p)
{
	uint64_t bytes = (uint64_t)p[1] + s->count_less;
	const char *from = s->at(s->arg, address(p + 3), bytes);
	char *to = s->at(s->arg, address(p + 5), bytes);

	if (!from || !to || amd_fails("packet"))
		return -EFAULT;
	memcpy(to, from, bytes);
	spend(s, bytes);
	return COPY_DWORDS;
}

/* The value of 32 bits is 0, which is all that ckfast wants of it. */
static int fill(struct amd_sdma *s, const uint32_t *p)
{
	uint64_t bytes = (uint64_t)p[4] + s->count_less;
	char *to = s->at(s->arg, address(p + 1), bytes);

	if (!to || p[3] || amd_fails("packet"))
		return -EFAULT;
	memset(to, 0, bytes);
	spend(s, 0);
	return FILL_DWORDS;
}

static int fence(struct amd_sdma *s, const uint32_t *p)
{
	uint32_t *to = (uint32_t *)s->at(s->arg, address(p + 1), sizeof(*p));

	if (!to)
		return -EFAULT;
	__atomic_store_n(to, p[3], __ATOMIC_RELEASE);
	return FENCE_DWORDS;
}

int amd_sdma_packet(struct amd_sdma *s, const uint32_t *p, uint32_t left)
{
	static const struct {
		uint32_t op;
		uint32_t dwords;
		int (*run)(struct amd_sdma *s, const uint32_t *p);
	} ops[] = {
		{ SDMA_COPY, COPY_DWORDS, copy },
		{ SDMA_FENCE, FENCE_DWORDS, fence },
		{ SDMA_FILL, FILL_DWORDS, fill },
	};

	if (!(p[0] & 0xffff))
		return 1;
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		if ((p[0] & 0xffff) == ops[i].op)
			return left < ops[i].dwords ? -EINVAL : ops[i].run(s, p);
	return -EINVAL;
}
