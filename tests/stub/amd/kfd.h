/* SPDX-License-Identifier: MIT */
/*
 * The calls of /dev/kfd that the fake and its program know, with the numbers and layouts of the
 * kernel's linux/kfd_ioctl.h. That header itself needs one of libdrm, which is seldom installed.
 */
#ifndef AMD_KFD_H
#define AMD_KFD_H

#include <stdint.h>
#include <sys/ioctl.h>

#define KFD_IOC_TYPE 'K'
#define KFD_VERSION_MAJOR 1
#define KFD_VERSION_MINOR 11

#define KFD_MEM_VRAM (1u << 0)
#define KFD_MEM_GTT (1u << 1)
#define KFD_MEM_USERPTR (1u << 2)
#define KFD_MEM_DOORBELL (1u << 3)
#define KFD_MEM_MMIO (1u << 4)
#define KFD_MEM_WRITABLE (1u << 31)

struct kfd_version {
	uint32_t major;
	uint32_t minor;
};

struct kfd_alloc {
	uint64_t addr;
	uint64_t bytes;
	uint64_t handle;      /* out */
	uint64_t mmap_offset; /* out; in: the host address, for userptr */
	uint32_t gpu_id;
	uint32_t flags;
};

struct kfd_free {
	uint64_t handle;
};

struct kfd_queue {
	uint64_t ring;
	uint64_t write_ptr; /* addresses of both pointers, which count bytes */
	uint64_t read_ptr;
	uint64_t doorbell_off; /* out; for mmap() */
	uint32_t ring_bytes;
	uint32_t gpu_id;
	uint32_t type;
	uint32_t percentage;
	uint32_t priority;
	uint32_t queue_id; /* out */
	uint64_t eop_addr;
	uint64_t eop_bytes;
	uint64_t save_addr;
	uint32_t save_bytes;
	uint32_t stack_bytes;
};
#define KFD_QUEUE_SDMA 1u

struct kfd_queue_id {
	uint32_t queue_id;
	uint32_t pad;
};

struct kfd_policy {
	uint64_t base;
	uint64_t bytes;
	uint32_t gpu_id;
	uint32_t policy;
	uint32_t alternate;
	uint32_t pad;
};

struct kfd_aperture {
	uint64_t lds_base;
	uint64_t lds_limit;
	uint64_t scratch_base;
	uint64_t scratch_limit;
	uint64_t vm_base;
	uint64_t vm_limit;
	uint32_t gpu_id;
	uint32_t pad;
};

struct kfd_apertures {
	uint64_t list;
	uint32_t nr; /* in: room; out: GPUs */
	uint32_t pad;
};

struct kfd_acquire {
	uint32_t drm_fd;
	uint32_t gpu_id;
};

struct kfd_map {
	uint64_t handle;
	uint64_t gpu_ids;
	uint32_t nr;
	uint32_t nr_done;
};

struct kfd_dmabuf_info {
	uint64_t bytes;
	uint64_t metadata;
	uint32_t metadata_bytes;
	uint32_t gpu_id;
	uint32_t flags;
	uint32_t fd;
};

struct kfd_import {
	uint64_t addr;
	uint64_t handle; /* out */
	uint32_t gpu_id;
	uint32_t fd;
};

enum kfd_criu_op {
	KFD_CRIU_PROCESS_INFO,
	KFD_CRIU_CHECKPOINT,
	KFD_CRIU_UNPAUSE,
	KFD_CRIU_RESTORE,
	KFD_CRIU_RESUME,
};

struct kfd_criu {
	uint64_t devices; /* of struct kfd_criu_device */
	uint64_t bos;	  /* of struct kfd_criu_bo */
	uint64_t priv_data;
	uint64_t priv_bytes;
	uint32_t nr_devices;
	uint32_t nr_bos;
	uint32_t nr_objects;
	uint32_t pid;
	uint32_t op; /* enum kfd_criu_op */
};

struct kfd_criu_device {
	uint32_t user_gpu_id;
	uint32_t actual_gpu_id;
	uint32_t drm_fd;
	uint32_t pad;
};

struct kfd_criu_bo {
	uint64_t addr;
	uint64_t bytes;
	uint64_t offset;
	uint64_t restored_offset;
	uint32_t gpu_id; /* as the process calls it */
	uint32_t flags;
	uint32_t dmabuf_fd;
	uint32_t pad;
};

#define KFD_IOC_VERSION _IOR(KFD_IOC_TYPE, 0x01, struct kfd_version)
#define KFD_IOC_QUEUE _IOWR(KFD_IOC_TYPE, 0x02, struct kfd_queue)
#define KFD_IOC_QUEUE_END _IOWR(KFD_IOC_TYPE, 0x03, struct kfd_queue_id)
#define KFD_IOC_POLICY _IOW(KFD_IOC_TYPE, 0x04, struct kfd_policy)
#define KFD_IOC_APERTURES _IOWR(KFD_IOC_TYPE, 0x14, struct kfd_apertures)
#define KFD_IOC_ACQUIRE _IOW(KFD_IOC_TYPE, 0x15, struct kfd_acquire)
#define KFD_IOC_ALLOC _IOWR(KFD_IOC_TYPE, 0x16, struct kfd_alloc)
#define KFD_IOC_FREE _IOW(KFD_IOC_TYPE, 0x17, struct kfd_free)
#define KFD_IOC_MAP _IOWR(KFD_IOC_TYPE, 0x18, struct kfd_map)
#define KFD_IOC_UNMAP _IOWR(KFD_IOC_TYPE, 0x19, struct kfd_map)
#define KFD_IOC_DMABUF_INFO _IOWR(KFD_IOC_TYPE, 0x1c, struct kfd_dmabuf_info)
#define KFD_IOC_IMPORT _IOWR(KFD_IOC_TYPE, 0x1d, struct kfd_import)
#define KFD_IOC_CRIU _IOWR(KFD_IOC_TYPE, 0x22, struct kfd_criu)

#endif
