/* SPDX-License-Identifier: MIT */
/*
 * User queues of the SDMA engine, as libhsakmt makes them: a ring in memory of the process, a
 * doorbell that says how far it is written, and a thread that plays the engine. The thread belongs
 * to the process that made the queue and sees what that process has mapped on the GPU. After a
 * packet that cannot be run, and when the ring is full to its last byte, the engine stands still.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "kfd.h"
#include "memory.h"
#include "queue.h"
#include "sdma.h"

#define MAX_QUEUES 32
#define DOORBELL_BYTES 8u
#define IDLE_NS 20000 /* between looks at a doorbell, at first, and ever more up to the other */
#define IDLE_MAX_NS 1000000

struct queue {
	struct kfd_queue args; /* ring_bytes 0: free */
	struct amd_world *world;
	int slot;
	uint32_t gpu;
	volatile uint64_t *doorbell;
	atomic_bool stop;
	pthread_t engine;
};

/* Of this process. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of queues */
static struct queue queues[MAX_QUEUES];

static char *at(void *arg, uint64_t va, uint64_t bytes)
{
	struct queue *q = arg;

	return amd_memory_at(q->world, q->slot, q->gpu, va, bytes);
}

/* Runs the ring up to the doorbell; false if a packet cannot be run. */
static bool run_ring(struct queue *q, struct amd_sdma *s, uint64_t *pos, uint64_t end)
{
	const uint32_t *ring = (const uint32_t *)(uintptr_t)q->args.ring;
	volatile uint64_t *read_ptr = (volatile uint64_t *)(uintptr_t)q->args.read_ptr;

	while (*pos < end && !atomic_load(&q->stop)) {
		uint64_t off = *pos % q->args.ring_bytes;
		uint64_t left = q->args.ring_bytes - off;
		int n;

		if (left > end - *pos)
			left = end - *pos;
		n = amd_sdma_packet(s, ring + off / 4, (uint32_t)(left / 4));
		if (n < 0)
			return false;
		*pos += 4ul * (uint32_t)n;
		__atomic_store_n(read_ptr, *pos, __ATOMIC_RELEASE);
	}
	return true;
}

static void *engine(void *arg)
{
	struct queue *q = arg;
	struct amd_sdma s = { .at = at, .arg = q, .gpu = &q->world->gpus[q->gpu], .count_less = 1 };
	struct timespec idle = { 0, IDLE_NS };
	uint64_t pos = 0, end;
	bool runs = true;

	while (!atomic_load(&q->stop)) {
		end = __atomic_load_n(q->doorbell, __ATOMIC_ACQUIRE);
		if (!runs || end <= pos) {
			nanosleep(&idle, NULL);
			if (idle.tv_nsec < IDLE_MAX_NS)
				idle.tv_nsec += idle.tv_nsec / 8;
			continue;
		}
		idle.tv_nsec = IDLE_NS;
		amd_sdma_wake(&s);
		while (runs && end > pos) {
			runs = end - pos < q->args.ring_bytes && run_ring(q, &s, &pos, end);
			end = __atomic_load_n(q->doorbell, __ATOMIC_ACQUIRE);
			if (atomic_load(&q->stop))
				break;
		}
	}
	return NULL;
}

static uint64_t doorbell_page(int slot, uint32_t gpu)
{
	return AMD_DOORBELL_OFF + ((uint64_t)slot * AMD_MAX_GPUS + gpu) * AMD_DOORBELL_STEP;
}

static int start(struct queue *q, struct kfd_queue *a)
{
	uint64_t page = doorbell_page(q->slot, q->gpu);
	uint64_t off = (uint64_t)(q - queues) * DOORBELL_BYTES;
	int fd = amd_raw_open(AMD_KFD, O_RDWR | O_CLOEXEC, 0);
	char *map;

	if (fd < 0)
		return -errno;
	map = mmap(NULL, AMD_DOORBELL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)page);
	close(fd);
	if (map == MAP_FAILED)
		return -ENOMEM;
	q->doorbell = (volatile uint64_t *)(map + off);
	*q->doorbell = 0;
	*(volatile uint64_t *)(uintptr_t)a->read_ptr = 0;
	a->doorbell_off = page + off;
	a->queue_id = (uint32_t)(q - queues);
	q->args = *a;
	if (!pthread_create(&q->engine, NULL, engine, q))
		return 0;
	munmap(map, AMD_DOORBELL_BYTES);
	q->args.ring_bytes = 0;
	return -ENOMEM;
}

int amd_queue_create(struct amd_world *w, int slot, struct kfd_queue *a)
{
	int gpu = amd_find_gpu(w, &w->procs[slot], a->gpu_id);
	int ret = -ENOMEM;

	if (gpu < 0 || a->type != KFD_QUEUE_SDMA || !a->ring_bytes ||
	    (a->ring_bytes & (a->ring_bytes - 1)))
		return -EINVAL;
	pthread_mutex_lock(&lock);
	for (struct queue *q = queues; q < queues + MAX_QUEUES && ret == -ENOMEM; q++) {
		if (q->args.ring_bytes)
			continue;
		q->world = w;
		q->slot = slot;
		q->gpu = (uint32_t)gpu;
		atomic_store(&q->stop, false);
		ret = start(q, a);
		break;
	}
	pthread_mutex_unlock(&lock);
	return ret;
}

int amd_queue_destroy(uint32_t id)
{
	struct queue *q = &queues[id];
	uint64_t off = id * DOORBELL_BYTES;

	pthread_mutex_lock(&lock);
	if (id >= MAX_QUEUES || !q->args.ring_bytes) {
		pthread_mutex_unlock(&lock);
		return -EINVAL;
	}
	atomic_store(&q->stop, true);
	pthread_join(q->engine, NULL);
	munmap((char *)(uintptr_t)q->doorbell - off, AMD_DOORBELL_BYTES);
	q->args.ring_bytes = 0;
	pthread_mutex_unlock(&lock);
	return 0;
}
