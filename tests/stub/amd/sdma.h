/* SPDX-License-Identifier: MIT */
/*
 * The SDMA engine: an interpreter of its packets, and the time that they take. Commands that
 * libdrm submits (drm.c) and those in the rings of user queues (queue.c) run through it.
 */
#ifndef AMD_SDMA_H
#define AMD_SDMA_H

#include "world.h"

/* Packets: the opcode is in bits 0 to 7, its variant in 8 to 15. */
#define SDMA_NOP 0u
#define SDMA_COPY 1u
#define SDMA_FENCE 5u
#define SDMA_FILL 11u

struct amd_sdma {
	/* The memory behind an address of the GPU, or NULL where not all of it is mapped. */
	char *(*at)(void *arg, uint64_t va, uint64_t bytes);
	void *arg;
	struct amd_gpu *gpu;
	uint32_t count_less; /* what a count lacks to the number of bytes */
	uint64_t now_ns;     /* when this engine has done all that it was given */
};

/* The engine was idle until now. */
void amd_sdma_wake(struct amd_sdma *s);
/*
 * Runs one packet of up to left dwords, and takes the time that it takes. The dwords of the packet,
 * or -errno: nothing that the address space lacks is touched.
 */
int amd_sdma_packet(struct amd_sdma *s, const uint32_t *p, uint32_t left);

#endif
