/* SPDX-License-Identifier: MIT */
/*
 * The devices of this process with their contexts, and one set of pinned slots for all of them:
 * what costs time to make, made once. Backend objects (cuda_sink.c) are cheap and made per job.
 *
 * Devices that are in use share the slots: each may have its part of them whatever the others do,
 * and all of them while it is alone. A device that is behind with its copies thus keeps no other
 * one waiting.
 *
 * Opening a pool initialises the driver and looks at the devices; a device gets its context when
 * it is warmed. Slots are pinned by a thread of the pool, started by the first device that is
 * warmed, so that memory of the device can be made meanwhile.
 *
 * Threads: open and close are for one thread and close only when nothing else is under way. All
 * else may be called by many threads at once.
 */
#ifndef CKF_CUDA_POOL_H
#define CKF_CUDA_POOL_H

#include <pthread.h>

#include "ckf_cuda.h"
#include "ckfast_sink.h"

#define CKF_CUDA_NAME_BYTES 64

/* A slot is free in this order: which numbers, and the first and the last of them. */
struct ckf_cuda_slots {
	uint32_t first; /* CKF_CUDA_NO_SLOT: none */
	uint32_t last;
};
#define CKF_CUDA_NO_SLOT UINT32_MAX

struct ckf_cuda_slot {
	CUevent pending; /* to be waited for before it is used, or NULL */
	uint32_t next;	 /* in its list */
	uint32_t owner; /* ordinal of the device that it counts for, where it is in no pool->free */
};

struct ckf_cuda_dev {
	uint64_t total_bytes;
	CUdevice dev;
	uint8_t uuid[16];
	char name[CKF_CUDA_NAME_BYTES];
	pthread_mutex_t lock; /* while it is warmed */
	/* Under lock until the device is warm, read-only afterwards. */
	CUcontext ctx;	 /* NULL: not warm */
	CUevent *events; /* one for each slot of the pool */
	/* Under the lock of the pool. */
	unsigned int users;	    /* sinks that are open */
	unsigned int nr_slots;	    /* that count for it: those taken, and those below */
	struct ckf_cuda_slots used; /* free when its copies have ended, the oldest first */
};

struct ckf_cuda_pool_opts {
	size_t size; /* sizeof(struct ckf_cuda_pool_opts) */
	unsigned int nr_slots;
	uint32_t slot_bytes; /* a multiple of the page size */
};

struct ckf_cuda_pool {
	const struct ckf_cuda *cu;
	struct ckf_cuda_dev *devs; /* by ordinal */
	unsigned int nr_devs;
	unsigned int nr_slots;
	uint32_t slot_bytes;

	pthread_mutex_t lock; /* for all below */
	pthread_cond_t cond;
	pthread_t pinner;
	struct ckf_cuda_dev *pinner_dev; /* NULL: the thread was not started */
	bool pinned;			 /* the thread has ended; slots_ret says how */
	int slots_ret;
	struct ckf_error slots_err;
	char *slots;
	struct ckf_cuda_slot *slot; /* by number */
	struct ckf_cuda_slots free; /* of no device */
	unsigned int nr_taken;
	unsigned int nr_waiting; /* threads that wait for a slot */
	unsigned int nr_users;	 /* devices that have users */
};

int ckf_cuda_pool_open(const struct ckf_cuda_pool_opts *opts, struct ckf_cuda_pool **out,
		       struct ckf_error *err);
/* Takes NULL. */
void ckf_cuda_pool_close(struct ckf_cuda_pool *pool);

/* Gives the device its context, if it has none. */
int ckf_cuda_pool_warm(struct ckf_cuda_pool *pool, unsigned int ordinal, struct ckf_error *err);
bool ckf_cuda_pool_is_warm(struct ckf_cuda_pool *pool, unsigned int ordinal);
/* Waits until the slots are there. A device must have been warmed. */
int ckf_cuda_pool_wait(struct ckf_cuda_pool *pool, struct ckf_error *err);

/* The ordinal of the device, or -ENODEV. */
int ckf_cuda_pool_find(const struct ckf_cuda_pool *pool, const uint8_t uuid[16]);

/* Free memory of a warm device. */
int ckf_cuda_pool_free_bytes(struct ckf_cuda_pool *pool, unsigned int ordinal, uint64_t *bytes,
			     struct ckf_error *err);

/*
 * Pins memory of this process, all of which is there, for copies to all devices. Whoever unmaps it
 * unpins it before; where that fails, it stays.
 */
int ckf_cuda_pool_pin(struct ckf_cuda_pool *pool, void *addr, uint64_t bytes,
		      struct ckf_error *err);
bool ckf_cuda_pool_unpin(struct ckf_cuda_pool *pool, void *addr);

/* The device has one user of slots more, or less: its part of them is kept for it. */
void ckf_cuda_pool_add_user(struct ckf_cuda_pool *pool, struct ckf_cuda_dev *d);
void ckf_cuda_pool_drop_user(struct ckf_cuda_pool *pool, struct ckf_cuda_dev *d);

/*
 * Waits until a slot is free for the device, which has users. cancelled(arg) is asked on the way,
 * may be NULL, and ends the wait with -ECANCELED.
 */
int ckf_cuda_slot_take(struct ckf_cuda_pool *pool, struct ckf_cuda_dev *d,
		       int (*cancelled)(void *arg), void *arg, struct ckf_sink_slot *out,
		       struct ckf_error *err);
/* event: of what still reads or writes the slot, or NULL. */
void ckf_cuda_slot_put(struct ckf_cuda_pool *pool, uint32_t nr, CUevent event);
unsigned int ckf_cuda_slots_in_use(struct ckf_cuda_pool *pool);
/* Threads that wait for one. */
unsigned int ckf_cuda_slots_waiting(struct ckf_cuda_pool *pool);

#endif
