/* SPDX-License-Identifier: MIT */
/*
 * What a dump says about the memory of processes that use AMD GPUs by ROCm: amdgpu-kfd-ID.img, the
 * table that CRIU's amdgpu plugin writes for each open /dev/kfd. SPEC.md 10.3 describes it and the
 * files with the contents.
 *
 * No AMD hardware was at hand: this stands on the plugin's source and on linux/kfd_ioctl.h alone.
 */
#ifndef CKF_AMD_H
#define CKF_AMD_H

#include "base/ckf_dir.h"
#include "base/ckf_error.h"
#include "base/ckf_types.h"

#define CKF_AMD_MAX_GPUS 64
#define CKF_AMD_NAME_BYTES 48

struct ckf_run;

/* What the objects with contents have on one GPU. */
struct ckf_amd_gpu {
	uint32_t gpu_id;
	uint32_t nr_objects;
	uint64_t bytes;	     /* of these: the pages of amdgpu-pages-ID-GPU.img */
	uint64_t vram_bytes; /* the memory of the GPU */
	/* One per object, at the place that SPEC.md gives it. NULL once a pagemap has them. */
	struct ckf_run *runs;
};

struct ckf_amd_table {
	uint32_t file_id; /* CRIU's number of the open file */
	uint32_t pid;
	char *name;
	struct ckf_amd_gpu *gpus; /* ascending by gpu_id */
	uint32_t nr_gpus;
	uint64_t nr_objects; /* all, those without contents included */
	/*
	 * Why the contents cannot be taken, or code 0. -EBADMSG: no restore can succeed;
	 * -EOPNOTSUPP: CRIU may restore it.
	 */
	struct ckf_error err;
};

/* The id of the target for a GPU. Those of tasks, and of CUDA's device memory, are below 2^32. */
static inline uint64_t ckf_amd_target_id(uint32_t file_id, uint32_t gpu_id)
{
	return (uint64_t)file_id << 32 | gpu_id;
}

static inline bool ckf_amd_is_target_id(uint64_t id)
{
	return id > UINT32_MAX;
}

/* "amdgpu-pages-ID-GPU.img". Returns buf. */
const char *ckf_amd_pages_name(uint32_t file_id, uint32_t gpu_id, char buf[CKF_AMD_NAME_BYTES]);
/* True when name is that of a table; file_id says of which open file. */
bool ckf_amd_name_parse(const char *name, uint32_t *file_id);

/*
 * Reads a table. 0 also for a wrong one, which out->err tells of: whoever keeps it as it is need
 * not know. -ENOMEM, -EIO…; ckf_amd_table_fini() in any case.
 */
int ckf_amd_table_read(const struct ckf_dir *dir, const char *name, struct ckf_amd_table *out,
		       struct ckf_error *err);
void ckf_amd_table_fini(struct ckf_amd_table *t);

/* The GPU of a target, or NULL; *table is set if there is the table, be it with an error. */
const struct ckf_amd_gpu *ckf_amd_find(const struct ckf_amd_table *tables, uint64_t nr_tables,
				       uint64_t target_id, const struct ckf_amd_table **table);

#endif
