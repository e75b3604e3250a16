/* SPDX-License-Identifier: MIT */
/* What a process of the fake sees of its objects and of dma-bufs. */
#ifndef AMD_MEMORY_H
#define AMD_MEMORY_H

#include "world.h"

/*
 * Memory of an object of this process that is mapped on the GPU, by its address there; NULL where
 * not all of the range is. Takes the world's lock.
 */
char *amd_memory_at(struct amd_world *w, int slot, uint32_t gpu, uint64_t va, uint64_t bytes);
/* Has an object ready for that, which an engine then does not wait for. Takes the world's lock. */
void amd_memory_map(struct amd_world *w, int slot, uint64_t handle);
/* The object has gone. */
void amd_memory_drop(uint64_t handle);
/* The place has no contents any more, and is not used again. Needs the world's lock. */
void amd_memory_clear(struct amd_gpu *gpu, uint64_t off, uint64_t bytes, bool vram);
/* A descriptor of a dma-buf: it says which part of which GPU's memory it is. -errno. */
int amd_dmabuf_export(uint32_t gpu, uint64_t off, uint64_t bytes);
/* Reads what a dma-buf is; false for any other file. */
bool amd_dmabuf_read(const struct amd_world *w, int fd, struct amd_dmabuf *out);

#endif
