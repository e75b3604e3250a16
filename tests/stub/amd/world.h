/* SPDX-License-Identifier: MIT */
/*
 * The state of the fake AMD driver. It is in the file that stands for /dev/kfd, which every process
 * with the fake maps, so that criu sees what the dumped process has, and the restored one what criu
 * has made. The memory of a GPU is in the file that stands for its render node: an object lies
 * where mmap() of the node finds it, and programs map it without any help.
 *
 * An open /dev/kfd carries the number of its process as its file offset: that belongs to the open
 * file and not to the descriptor, as the driver's own pointer does.
 */
#ifndef AMD_WORLD_H
#define AMD_WORLD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#define AMD_KFD "/dev/kfd"
#define AMD_RENDER "/dev/dri/renderD"
#define AMD_MAGIC 0x414d444657524c44ull
#define AMD_DMABUF_MAGIC 0x414d444446554244ull
#define AMD_KFD_MAJOR 235
#define AMD_DRM_MAJOR 226
#define AMD_MAX_GPUS 4
#define AMD_MAX_PROCS 16
#define AMD_MAX_BOS 512
#define AMD_MAX_NODES 32 /* open render nodes with objects */
#define AMD_MAX_GEM 32
#define AMD_MAX_MAPPINGS 4
#define AMD_PAGE 4096ull
/* Where an open file says which process it belongs to, and where doorbells are mapped. */
#define AMD_PROC_POS (1ll << 40)
#define AMD_NODE_POS (1ll << 41)
#define AMD_DOORBELL_OFF (1ull << 32)
/* libhsakmt takes the lower half of an offset for a place in the page. */
#define AMD_DOORBELL_STEP (1ull << 32)
#define AMD_DOORBELL_BYTES 8192ull
#define AMD_MMIO_OFF (AMD_DOORBELL_OFF + AMD_MAX_PROCS * AMD_MAX_GPUS * AMD_DOORBELL_STEP)

struct amd_gpu {
	uint32_t gpu_id;
	uint32_t minor;
	uint64_t vram_bytes;
	uint64_t used_bytes; /* of VRAM */
	uint64_t next_off;   /* in the file of the render node; places are not used again */
	uint64_t ino;
	_Atomic uint64_t link_free_ns; /* when the link to the GPU is free, without the lock */
};

struct amd_bo {
	uint64_t handle;
	uint64_t addr;
	uint64_t bytes;
	uint64_t off;	    /* for mmap() */
	uint64_t user_addr; /* of userptr */
	uint32_t gpu;	    /* position in gpus */
	uint32_t flags;	    /* KFD_MEM_ */
	uint32_t mapped;    /* bits of the GPUs that it is mapped on */
	bool imported;	    /* it is somebody else's, who frees it */
};

struct amd_proc {
	pid_t pid; /* 0: free */
	bool paused;
	bool restored;
	uint32_t user_gpu_id[AMD_MAX_GPUS]; /* what the process calls the GPUs */
	uint32_t nr_bos;
	uint64_t next_handle;
	struct amd_bo bos[AMD_MAX_BOS];
};

struct amd_mapping {
	uint64_t addr;
	uint64_t bytes;
	uint64_t off;
	uint64_t flags;
};

/* An object of an open render node. */
struct amd_gem {
	uint32_t handle;
	uint32_t domains; /* GEM_DOMAIN_ */
	uint64_t bytes;
	uint64_t alignment;
	uint64_t flags;
	uint64_t off; /* for mmap() */
	uint32_t nr_mappings;
	struct amd_mapping mappings[AMD_MAX_MAPPINGS];
};

struct amd_node {
	pid_t pid; /* whose it is; 0: free */
	uint32_t gpu;
	uint32_t nr;
	struct amd_gem objects[AMD_MAX_GEM];
};

struct amd_world {
	uint64_t magic;
	_Atomic pid_t holder; /* of the lock of all that follows but dev, ino and what gpus are */
	uint64_t dev;
	uint64_t ino; /* of /dev/kfd */
	uint32_t nr_gpus;
	struct amd_gpu gpus[AMD_MAX_GPUS];
	struct amd_proc procs[AMD_MAX_PROCS];
	struct amd_node nodes[AMD_MAX_NODES];
	uint32_t last_handle; /* of objects of render nodes */
};

/* What a descriptor of a dma-buf has: the part of a render node that the buffer is. */
struct amd_dmabuf {
	uint64_t magic;
	uint32_t gpu;
	uint32_t pad;
	uint64_t off;
	uint64_t bytes;
};

/* The world, or NULL where there is none. */
struct amd_world *amd_world(void);
/* The lock of the world. A thread that has ended holds it no more, however it ended. */
void amd_lock(struct amd_world *w);
void amd_unlock(struct amd_world *w);
/* Without the fake in between. */
int amd_raw_stat(int dir_fd, const char *path, struct stat *st, int flags);
int amd_raw_open(const char *path, int flags, mode_t mode);
/* Position of the GPU whose render node fd is, -1 for another file. */
int amd_render_gpu(const struct amd_world *w, int fd);

/*
 * True once for the call that AMD_FAIL names, "NAME" or "NAME:N" for its N-th time. All calls of
 * the driver ask.
 */
bool amd_fails(const char *name);
/* GPU by the id that the process knows, or -1. */
int amd_find_gpu(const struct amd_world *w, const struct amd_proc *p, uint32_t user_gpu_id);

#endif
