/* SPDX-License-Identifier: MIT */
/*
 * The calls of a render node that the fake and its program know, with the numbers and layouts of
 * the kernel's amdgpu_drm.h and drm.h.
 */
#ifndef AMD_GEM_H
#define AMD_GEM_H

#include <stdint.h>
#include <sys/ioctl.h>

#define GEM_IOC_TYPE 'd'
#define GEM_DOMAIN_GTT 2u
#define GEM_DOMAIN_VRAM 4u
#define GEM_OP_GET_MAPPINGS 2u
#define GEM_VA_MAP 1u

union gem_create {
	struct {
		uint64_t bytes;
		uint64_t alignment;
		uint64_t domains;
		uint64_t flags;
	} in;
	struct {
		uint32_t handle;
		uint32_t pad;
	} out;
};

union gem_mmap {
	uint32_t handle;
	uint64_t offset; /* out */
};

struct gem_va {
	uint32_t handle;
	uint32_t pad;
	uint32_t op;
	uint32_t flags;
	uint64_t addr;
	uint64_t off; /* in the object */
	uint64_t bytes;
};

struct gem_op {
	uint32_t handle;
	uint32_t op;
	uint64_t list; /* of struct gem_mapping */
	uint32_t nr;   /* in: room; out: mappings */
	uint32_t pad;
};

struct gem_mapping {
	uint64_t addr;
	uint64_t bytes;
	uint64_t off;
	uint64_t flags;
};

struct gem_list {
	uint64_t list; /* of struct gem_info */
	uint32_t nr;   /* in: room; out: objects */
	uint32_t pad;
};

struct gem_info {
	uint32_t handle;
	uint32_t flags;
	uint64_t bytes;
	uint64_t domains;
	uint64_t alloc_flags;
	uint64_t alignment;
};

struct gem_change {
	uint32_t handle;
	uint32_t new_handle;
};

#define GEM_IOC_CREATE _IOWR(GEM_IOC_TYPE, 0x40, union gem_create)
#define GEM_IOC_MMAP _IOWR(GEM_IOC_TYPE, 0x41, union gem_mmap)
#define GEM_IOC_VA _IOW(GEM_IOC_TYPE, 0x48, struct gem_va)
#define GEM_IOC_OP _IOWR(GEM_IOC_TYPE, 0x50, struct gem_op)
#define GEM_IOC_LIST _IOWR(GEM_IOC_TYPE, 0x59, struct gem_list)
#define GEM_IOC_CHANGE _IOWR(GEM_IOC_TYPE, 0xd2, struct gem_change)

struct amd_world;

/* A call of the open render node fd of a GPU. 0 or -errno. */
int amd_gem_ioctl(struct amd_world *w, int fd, int gpu, unsigned long request, void *arg);

#endif
