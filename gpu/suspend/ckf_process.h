/* SPDX-License-Identifier: MIT */
/* What fill_client.c gives to a process, whose other calls are in ckfast.h. */
#ifndef CKF_PROCESS_H
#define CKF_PROCESS_H

#include "ckfast.h"

/* An allocation, with a descriptor of its memory, owned by whoever has the struct. */
struct ckf_gpu_memory {
	uint64_t addr;
	uint64_t bytes;
	uint32_t device; /* ordinal in the process */
	uint32_t flags;	 /* CKF_GPU_ALLOC_ */
	uint8_t uuid[16];
	uint8_t shared_id[16]; /* as in the table of the image */
	int fd;
};

/* What was taken or given. */
struct ckf_gpu_memory *ckf_gpu_process_memory(struct ckf_gpu_process *p, size_t *nr);

/*
 * Memory for an adopted process: m's, whose descriptor is then ours. It may be given after wake,
 * which takes time that memory can be filled in.
 */
int ckf_gpu_process_give(struct ckf_gpu_process *p, const struct ckf_gpu_memory *m,
			 struct ckf_error *err);

/* For wake and resume: the driver is to use another device, with another UUID, in place of one. */
int ckf_gpu_process_pair(struct ckf_gpu_process *p, const uint8_t old_uuid[16],
			 const uint8_t new_uuid[16], struct ckf_error *err);

#endif
