/* SPDX-License-Identifier: MIT */
/* Private to the agent: its table of allocations, and what its parts call of each other. */
#ifndef CKF_AGENT_PRIVATE_H
#define CKF_AGENT_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "../gpu/ckf_agent.h"
#include "../gpu/ckf_cuda.h"

/* Device memory is mapped in units of this: x86-64 hosts, all devices since Pascal. */
#define AGENT_GRAIN (2u << 20)
#define AGENT_MAX_DEVICES 64

/* One allocation of the application that the agent made. */
struct agent_alloc {
	CUdeviceptr addr;
	size_t bytes; /* mapped */
	size_t asked; /* by the application */
	CUcontext ctx;
	CUdevice device;
	uint32_t flags; /* CKF_GPU_ALLOC_ */
	CUmemGenericAllocationHandle handle;
	int fd; /* of memory that came from outside, which the driver does not export again; or -1
		 */
	bool held; /* the handle is ours to release */
	bool mapped;
};

struct agent_table {
	pthread_mutex_t lock;	    /* for allocs, nr and cap */
	struct agent_alloc *allocs; /* ascending by addr */
	size_t nr;
	size_t cap;
	/* Per device, without the lock: a bit for each device that may access its memory. */
	atomic_ullong peers[AGENT_MAX_DEVICES];
};

extern struct agent_table agent_table;
extern struct ckf_agent_block agent_block;

/* The driver, or NULL where there is none that the agent can work with. */
const struct ckf_cuda *agent_cuda(void);

/* memory.c: with agent_table.lock held by none. CUDA_SUCCESS or the driver's error. */
CUresult agent_alloc(const struct ckf_cuda *cu, size_t bytes, CUdeviceptr *out);
/* *ours: false when the address is not one of the agent's; then nothing was done. */
CUresult agent_free(const struct ckf_cuda *cu, CUdeviceptr addr, bool *ours);
/* A copy of the allocation that has the address. */
bool agent_find(CUdeviceptr addr, struct agent_alloc *out);
/* Frees what was allocated in a context that is gone. */
void agent_drop_context(const struct ckf_cuda *cu, CUcontext ctx);
/* From now on, device may (not) access memory of owner. */
CUresult agent_set_peer(const struct ckf_cuda *cu, CUdevice owner, CUdevice device, bool on);

/* memory.c: maps a->handle at a->addr for all that may access it. */
CUresult agent_map(const struct ckf_cuda *cu, struct agent_alloc *a);
/* Takes its memory from the address. After an error some of it is done, and the rest may be tried
 * again. */
CUresult agent_unmap(const struct ckf_cuda *cu, struct agent_alloc *a);

/* thread.c: starts the agent's thread unless it runs. */
void agent_thread_start(void);

#endif
