/* SPDX-License-Identifier: MIT */
/*
 * Device memory in a dump: ckfast-gpu-PID.img, which says what there is, and
 * ckfast-gpu-pages-PID.img, which has its contents, one allocation after the other in the order of
 * the table, holes where it is zero. SPEC.md describes both.
 *
 * Pure, like all of format/. decode checks every rule; what it returns can be trusted.
 */
#ifndef CKF_GPU_DUMP_H
#define CKF_GPU_DUMP_H

#include "base/ckf_error.h"
#include "base/ckf_types.h"

#define CKF_GPU_MAGIC "CKFASTGD"
#define CKF_GPU_MAX_DEVICES 64
#define CKF_GPU_MAX_ALLOCS (1u << 20)

/* From here on: numbers of devices that the task has no allocations on, plus theirs in the machine.
 */
#define CKF_GPU_OTHER_ORDINAL (1u << 16)

#define CKF_GPU_ALLOC_RDMA (1u << 0)   /* made for GPUDirect RDMA */
#define CKF_GPU_ALLOC_SHARED (1u << 1) /* other allocations of the dump have the same memory */
#define CKF_GPU_ALLOC_IMPORT (1u << 2) /* and another one is its owner, which has the contents */
#define CKF_GPU_ALLOC_FLAGS_ALL (CKF_GPU_ALLOC_RDMA | CKF_GPU_ALLOC_SHARED | CKF_GPU_ALLOC_IMPORT)

struct ckf_gpu_device {
	uint8_t uuid[16];
	uint64_t total_bytes;
	uint32_t ordinal; /* in the process */
	char name[64];	  /* zero-terminated */
};

struct ckf_gpu_alloc {
	uint64_t addr;	 /* device address or, from 2^62 on, a name; a multiple of 2 MiB */
	uint64_t bytes;	 /* a multiple of 2 MiB */
	uint32_t device; /* position in devices */
	uint32_t flags;
	uint8_t shared_id[16]; /* that all allocations of the same memory have; zero if not shared
				*/
};

struct ckf_gpu_dump {
	uint16_t major; /* version of the table; encode sets it */
	uint32_t pid;	/* as in the name of the file */
	struct ckf_gpu_device *devices;
	uint32_t nr_devices;
	struct ckf_gpu_alloc *allocs; /* ascending by addr, not overlapping */
	uint32_t nr_allocs;
	uint64_t bytes; /* of all allocs but imports: the length of the pages file */
};

/* Those of an import are in the pages file of another allocation. */
static inline uint64_t ckf_gpu_pages_bytes(const struct ckf_gpu_alloc *a)
{
	return a->flags & CKF_GPU_ALLOC_IMPORT ? 0 : a->bytes;
}

/* -EBADMSG, -EOPNOTSUPP, -ENOMEM. Free with ckf_gpu_dump_free(), which takes NULL. */
int ckf_gpu_dump_decode(const void *buf, size_t bytes, struct ckf_gpu_dump **out,
			struct ckf_error *err);
void ckf_gpu_dump_free(struct ckf_gpu_dump *d);

/*
 * Sorts allocs by addr, sums up d->bytes, sets d->major, and hands over a malloc()ed buffer. Checks
 * nothing else: what it is given has to obey the rules of SPEC.md. -ENOMEM.
 */
int ckf_gpu_dump_encode(struct ckf_gpu_dump *d, void **buf, size_t *bytes, struct ckf_error *err);

/* Where the entry of an allocation begins in the file, for messages. */
uint64_t ckf_gpu_alloc_off(const struct ckf_gpu_dump *d, uint64_t i);

/* Which allocation of which table of a dump owns shared memory. */
struct ckf_gpu_owner {
	const uint8_t *shared_id;
	uint32_t dump; /* position among the tables */
	uint32_t alloc;
};

struct ckf_gpu_owners {
	struct ckf_gpu_owner *list; /* ascending by shared_id */
	size_t nr;
};

/*
 * Finds the owners of all shared memory, and checks that each import has one. Entries that are NULL
 * are left out. The tables must outlive out. -EBADMSG, -ENOMEM, and out is empty.
 */
int ckf_gpu_owners_new(struct ckf_gpu_dump *const *dumps, size_t nr, struct ckf_gpu_owners *out,
		       struct ckf_error *err);
void ckf_gpu_owners_free(struct ckf_gpu_owners *o);
/* NULL: none. */
const struct ckf_gpu_owner *ckf_gpu_owner_find(const struct ckf_gpu_owners *o,
					       const uint8_t shared_id[16]);

#endif
