/* SPDX-License-Identifier: MIT */
/* Private to the agent: its table of allocations, and what its parts call of each other. */
#ifndef CKF_AGENT_PRIVATE_H
#define CKF_AGENT_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "gpu/suspend/ckf_agent.h"
#include "gpu/cuda/ckf_cuda.h"

/* Device memory is mapped in units of this: x86-64 hosts, all devices since Pascal. */
#define AGENT_GRAIN (2u << 20)
#define AGENT_MAX_DEVICES 64
#define AGENT_KEEP_FD 512 /* descriptors that are kept go above those that applications use */

/*
 * Handles that the application gets for memory that it makes itself are the agent's: the driver's
 * change when memory is given back. They are "addresses" where no device has any, each followed by
 * as many bytes as its memory has: a dump and its images name the memory by that.
 */
#define AGENT_HANDLES (1ull << 62)

/* What is more about memory that the application made itself, with cuMemCreate(). */
struct agent_own {
	CUmemAllocationProp prop; /* as it was asked for */
	unsigned int refs;	  /* that the application has on the handle */
	unsigned int views;
	unsigned int calls; /* under way, which have the driver's handle */
	bool shared;	    /* the driver's handle is known to others, for good */
};

/* Memory that the agent can take away: an allocation that it made, or the application's own. */
struct agent_alloc {
	CUdeviceptr addr; /* of an allocation; of the application's own: its handle */
	size_t bytes;
	size_t asked; /* by the application */
	CUcontext ctx;
	CUdevice device;
	uint32_t flags; /* CKF_GPU_ALLOC_ */
	CUmemGenericAllocationHandle handle;
	int fd;	     /* of memory that came from outside, which the driver does not export again; of
		      * memory that is away; or -1 */
	bool kept;   /* fd is here only until the memory is saved */
	bool held;   /* the handle is ours to release */
	bool mapped; /* of the application's own: is there, to be mapped */
	bool exported;	    /* others may have it: fd stays, since all must have one open file */
	bool imported;	    /* it is another process's: fd is what that has exported */
	uint32_t share;	    /* position in the list of shared memory, plus 1 */
	uint32_t opens;	    /* imported by CUDA IPC: how often */
	uint8_t secret[16]; /* of the handle of CUDA IPC; zero: none */
	struct agent_own own;
};

/* Where the application has mapped memory of its own. */
struct agent_view {
	CUdeviceptr addr;
	size_t bytes;
	CUdeviceptr handle;
	/* While the memory is away: a bit for each device that may read, or read and write. */
	uint64_t readers;
	uint64_t writers;
	bool mapped;
	bool going; /* is being unmapped */
};

struct agent_table {
	pthread_mutex_t lock;	    /* for all but peers */
	struct agent_alloc *allocs; /* ascending by addr */
	size_t nr;
	size_t cap;
	struct agent_view *views; /* ascending by addr; one address twice if the first is going */
	size_t nr_views;
	size_t cap_views;
	CUdeviceptr next_handle;
	/* Per device, without the lock: a bit for each device that may access its memory. */
	atomic_ullong peers[AGENT_MAX_DEVICES];
};

extern struct agent_table agent_table;	   /* memory.c */
extern struct ckf_agent_block agent_block; /* share.c */

/* gate.c: the driver, or NULL where there is none that the agent can work with, and until it was
 * looked for, at the first call of it. */
const struct ckf_cuda *agent_cuda(void);

/* memory.c: of nr items in the order of their ends, the position of the first that ends above addr.
 */
size_t agent_lower_bound(size_t nr, CUdeviceptr (*end)(size_t i), CUdeviceptr addr);
/* memory.c: items with room for one more than nr, or NULL and nothing has changed. */
void *agent_grown(void *items, size_t nr, size_t *cap, size_t item_bytes);

/* memory.c: with agent_table.lock held by the caller, or by nobody while all else is stopped. */
struct agent_alloc *agent_at(CUdeviceptr addr); /* the one that begins there, or NULL */
void agent_remove(struct agent_alloc *a);	/* out of the table */

/* memory.c: with agent_table.lock held by none. CUDA_SUCCESS or the driver's error. */
CUresult agent_alloc(const struct ckf_cuda *cu, size_t bytes, CUdeviceptr *out);
/* *ours: false when the address is not one of the agent's; then nothing was done. */
CUresult agent_free(const struct ckf_cuda *cu, CUdeviceptr addr, bool *ours);
/* A copy of the allocation that has the address. */
bool agent_find(CUdeviceptr addr, struct agent_alloc *out);
/* False when there is no memory for it. */
bool agent_insert(const struct agent_alloc *a);
/* Frees what was allocated in a context that is gone. */
void agent_drop_context(const struct ckf_cuda *cu, CUcontext ctx);
/* From now on, device may (not) access memory of owner. */
CUresult agent_set_peer(const struct ckf_cuda *cu, CUdevice owner, CUdevice device, bool on);

/* memory.c: maps a->handle at a->addr for all that may access it. */
CUresult agent_map(const struct ckf_cuda *cu, struct agent_alloc *a);
/* Takes its memory from the address, but for a->fd. After an error some of it is done, and the rest
 * may be tried again. */
CUresult agent_unmap(const struct ckf_cuda *cu, struct agent_alloc *a);
void agent_close_fd(struct agent_alloc *a);
/* The same, of memory that is not needed any more. */
CUresult agent_discard(const struct ckf_cuda *cu, struct agent_alloc *a);

/*
 * handles.c: memory that the application makes itself. With agent_table.lock held by none; handles
 * are those of the agent (agent_is_handle()), and INVALID_VALUE if there is no such.
 */
static inline bool agent_is_handle(CUmemGenericAllocationHandle handle)
{
	return handle >= AGENT_HANDLES;
}
/* Can memory that is asked for so be taken away? Else it is the driver's. */
bool agent_may_own(const CUmemAllocationProp *prop, size_t bytes, unsigned long long flags);
CUresult agent_own_create(const struct ckf_cuda *cu, size_t bytes, const CUmemAllocationProp *prop,
			  CUmemGenericAllocationHandle *out);
/* For a handle that the application has imported; fd: what from, or -1 if that is not known: then
 * the memory cannot be taken away. */
CUresult agent_own_imported(const struct ckf_cuda *cu, CUmemGenericAllocationHandle real,
			    const CUmemAllocationProp *prop, int fd,
			    CUmemGenericAllocationHandle *out);
/* After a call that was counted with it. */
CUresult agent_own_put(const struct ckf_cuda *cu, CUdeviceptr handle);
CUresult agent_own_release(const struct ckf_cuda *cu, CUmemGenericAllocationHandle handle);
CUresult agent_own_map(const struct ckf_cuda *cu, CUdeviceptr addr, size_t bytes,
		       CUmemGenericAllocationHandle handle);
/* Of any range, of whosever memory. */
CUresult agent_own_unmap(const struct ckf_cuda *cu, CUdeviceptr addr, size_t bytes);
CUresult agent_own_export(const struct ckf_cuda *cu, CUmemGenericAllocationHandle handle, int type,
			  int *fd);
/* Of any of the agent's memory: a descriptor, the caller's, of the memory that begins there;
 * secret: unless NULL, that of its handle of CUDA IPC. */
CUresult agent_export(const struct ckf_cuda *cu, CUdeviceptr addr, int *fd, uint8_t secret[16]);
CUresult agent_own_properties(CUmemGenericAllocationHandle handle, CUmemAllocationProp *out);
/* The handle of the memory that is mapped there, and what was asked for; false: none of ours. */
bool agent_own_at(CUdeviceptr addr, CUmemGenericAllocationHandle *out, CUmemAllocationProp *prop);
CUresult agent_own_retain(CUmemGenericAllocationHandle handle);
/* The driver's handle, for calls after which it is never taken away again. */
CUresult agent_own_lend(CUmemGenericAllocationHandle handle, CUmemGenericAllocationHandle *out);

/* handles.c: for the agent's thread. Memory that has to stay where it is. */
static inline bool agent_stays(const struct agent_alloc *a)
{
	return a->own.calls || a->own.shared;
}
/* Unmaps, and maps again, all views of memory that does not stay. Both may be tried again. */
CUresult agent_unmap_views(const struct ckf_cuda *cu);
CUresult agent_map_views(const struct ckf_cuda *cu);

/*
 * share.c: memory that processes share, as others see it (ckf_agent.h). The first three with the
 * table's lock held.
 */
/* False: there is no room for it. */
bool agent_share_add(struct agent_alloc *a);
void agent_share_update(const struct agent_alloc *a); /* its fd is another one */
void agent_share_remove(struct agent_alloc *a);
/* A copy of the memory's descriptor for the secret, or -EAGAIN: it is away; -ENOENT: none. Takes no
 * lock. */
int agent_share_find(const uint8_t secret[16]);
/* In a child. */
void agent_share_after_fork(void);

/* ipc.c: CUDA IPC of the agent's allocations. false: the handle or address is not of them. */
bool agent_ipc_get(const struct ckf_cuda *cu, CUipcMemHandle *out, CUdeviceptr ptr, CUresult *res);
bool agent_ipc_open(const struct ckf_cuda *cu, CUdeviceptr *out, const CUipcMemHandle *handle,
		    unsigned int flags, CUresult *res);
bool agent_ipc_close(const struct ckf_cuda *cu, CUdeviceptr ptr, CUresult *res);
void agent_ipc_after_fork(void);
/* ipc_hooks.c */
void agent_driver_ipc_after_fork(void);

/* memory.c: a descriptor above those that applications use, if there is room; takes fd. */
int agent_keep_fd(int fd);
/* memory.c: frees it like agent_free(), without waiting for the device. */
CUresult agent_forget(const struct ckf_cuda *cu, CUdeviceptr addr);
/* memory.c: memory from outside, at an address of its own, in the table. */
CUresult agent_map_import(const struct ckf_cuda *cu, struct agent_alloc *a);

/* thread.c: starts the agent's thread unless it runs. */
void agent_thread_start(void);
void agent_after_fork(void);

#endif
