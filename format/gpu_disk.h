/* SPDX-License-Identifier: MIT */
/* The on-disk structures of SPEC.md section 10, byte for byte, like those of ckf_disk.h. */
#ifndef CKF_GPU_DISK_H
#define CKF_GPU_DISK_H

#include <assert.h>

#include "base/ckf_types.h"

#define CKF_GPU_VERSION_MAJOR 2 /* of tables with shared memory; all others are of version 1 */
#define CKF_GPU_VERSION_MINOR 0

struct ckf_disk_gpu_header {
	uint8_t magic[8];
	ckf_le16 version_major;
	ckf_le16 version_minor;
	ckf_le32 header_bytes;
	ckf_le32 pid;
	ckf_le32 nr_devices;
	ckf_le32 nr_allocs;
	ckf_le32 reserved;
	ckf_le64 pages_bytes;
	uint8_t reserved2[16];
	ckf_le64 checksum;
};

struct ckf_disk_gpu_device {
	uint8_t uuid[16];
	ckf_le64 total_bytes;
	ckf_le32 ordinal;
	ckf_le32 reserved;
	char name[64];
};

struct ckf_disk_gpu_alloc {
	ckf_le64 addr;
	ckf_le64 bytes;
	ckf_le32 device;
	ckf_le32 flags;
	ckf_le64 reserved;
};

/* Of version 2. */
struct ckf_disk_gpu_shared_alloc {
	struct ckf_disk_gpu_alloc alloc;
	uint8_t shared_id[16];
};

#define CKF_AT(type, field, off) \
	static_assert(offsetof(struct type, field) == (off), #type "." #field)
#define CKF_SIZE(type, size) static_assert(sizeof(struct type) == (size), #type)

CKF_SIZE(ckf_disk_gpu_header, 64);
CKF_AT(ckf_disk_gpu_header, version_major, 8);
CKF_AT(ckf_disk_gpu_header, version_minor, 10);
CKF_AT(ckf_disk_gpu_header, header_bytes, 12);
CKF_AT(ckf_disk_gpu_header, pid, 16);
CKF_AT(ckf_disk_gpu_header, nr_devices, 20);
CKF_AT(ckf_disk_gpu_header, nr_allocs, 24);
CKF_AT(ckf_disk_gpu_header, reserved, 28);
CKF_AT(ckf_disk_gpu_header, pages_bytes, 32);
CKF_AT(ckf_disk_gpu_header, reserved2, 40);
CKF_AT(ckf_disk_gpu_header, checksum, 56);
CKF_SIZE(ckf_disk_gpu_device, 96);
CKF_AT(ckf_disk_gpu_device, total_bytes, 16);
CKF_AT(ckf_disk_gpu_device, ordinal, 24);
CKF_AT(ckf_disk_gpu_device, reserved, 28);
CKF_AT(ckf_disk_gpu_device, name, 32);
CKF_SIZE(ckf_disk_gpu_alloc, 32);
CKF_AT(ckf_disk_gpu_alloc, bytes, 8);
CKF_AT(ckf_disk_gpu_alloc, device, 16);
CKF_AT(ckf_disk_gpu_alloc, flags, 20);
CKF_AT(ckf_disk_gpu_alloc, reserved, 24);
CKF_SIZE(ckf_disk_gpu_shared_alloc, 48);
CKF_AT(ckf_disk_gpu_shared_alloc, shared_id, 32);

#undef CKF_AT
#undef CKF_SIZE

#endif
