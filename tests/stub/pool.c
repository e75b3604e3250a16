/* SPDX-License-Identifier: MIT */
/*
 * Memory for the fake driver's own objects, in place of malloc(): see stub.h.
 *
 * An object that was given back may still be looked at, so that a handle that is no longer valid
 * is found out and does not crash.
 */
#include <string.h>
#include <sys/mman.h>

#include "stub.h"

#define CHUNK_BYTES (64u << 10)

static bool grow(struct stub_pool *pool)
{
	char *chunk = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);

	if (chunk == MAP_FAILED)
		return false;
	for (size_t at = 0; at + pool->size <= CHUNK_BYTES; at += pool->size)
		stub_pool_put(pool, chunk + at);
	return true;
}

void *stub_pool_get(struct stub_pool *pool)
{
	void *object;

	if (!pool->free && !grow(pool))
		return NULL;
	object = pool->free;
	pool->free = *(void **)object;
	memset(object, 0, pool->size);
	return object;
}

void stub_pool_put(struct stub_pool *pool, void *object)
{
	*(void **)object = pool->free;
	pool->free = object;
}
