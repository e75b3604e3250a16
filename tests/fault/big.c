/* SPDX-License-Identifier: MIT */
/*
 * Large blocks, kept for the next one who wants as much: AddressSanitizer maps and unmaps each of
 * them, and their shadow, which would take most of the time of the tests. While nobody has a block
 * it is poisoned, as if it were free.
 */
#include <pthread.h>
#include <stdlib.h>

#include "fault.h"

#define BIG_BYTES (256u << 10)
#define BIG_ALIGN 4096u
#define MAX_BLOCKS 256

/* There only with AddressSanitizer. */
void __asan_poison_memory_region(const volatile void *p, size_t bytes) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void *p, size_t bytes) __attribute__((weak));

int __real_posix_memalign(void **p, size_t align, size_t bytes); /* see wrap.c */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct block {
	void *p;
	size_t bytes;
	bool used;
} blocks[MAX_BLOCKS];
static unsigned int nr_blocks;

static void *take(struct block *b)
{
	b->used = true;
	if (__asan_unpoison_memory_region)
		__asan_unpoison_memory_region(b->p, b->bytes);
	return b->p;
}

void *fault_big_alloc(size_t bytes)
{
	void *p = NULL;

	if (bytes < BIG_BYTES || !__asan_poison_memory_region)
		return NULL;
	pthread_mutex_lock(&lock);
	for (unsigned int i = 0; i < nr_blocks && !p; i++) {
		if (!blocks[i].used && blocks[i].bytes == bytes)
			p = take(&blocks[i]);
	}
	if (!p && nr_blocks < MAX_BLOCKS) {
		if (!__real_posix_memalign(&p, BIG_ALIGN, bytes))
			blocks[nr_blocks++] = (struct block){ p, bytes, true };
	}
	pthread_mutex_unlock(&lock);
	return p;
}

/* The block at p that somebody has. With the lock. */
static struct block *find(const void *p)
{
	for (unsigned int i = 0; i < nr_blocks; i++) {
		if (blocks[i].used && blocks[i].p == p)
			return &blocks[i];
	}
	return NULL;
}

bool fault_big_free(void *p)
{
	struct block *b;

	pthread_mutex_lock(&lock);
	b = find(p);
	if (b) {
		b->used = false;
		__asan_poison_memory_region(b->p, b->bytes);
	}
	pthread_mutex_unlock(&lock);
	return b;
}

void fault_big_forget(void *p)
{
	struct block *b;

	pthread_mutex_lock(&lock);
	b = find(p);
	if (b)
		*b = blocks[--nr_blocks];
	pthread_mutex_unlock(&lock);
}
