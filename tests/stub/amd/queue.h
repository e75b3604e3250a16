/* SPDX-License-Identifier: MIT */
/* User queues of the SDMA engine. */
#ifndef AMD_QUEUE_H
#define AMD_QUEUE_H

#include "world.h"

struct kfd_queue;

/* Both without the world's lock, which engines take. 0 or -errno. */
int amd_queue_create(struct amd_world *w, int slot, struct kfd_queue *a);
int amd_queue_destroy(uint32_t id);

#endif
