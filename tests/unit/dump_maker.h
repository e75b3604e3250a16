/* SPDX-License-Identifier: MIT */
/*
 * Makes CRIU dumps for tests: image files packed by protobuf-c, and pages whose contents follow
 * from a number. Directories are fds; what fails ends the test.
 */
#ifndef CKF_TEST_DUMP_MAKER_H
#define CKF_TEST_DUMP_MAKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "convert/ckf_dump.h"

#define DM_PARENT 1u /* flags of a pagemap entry */
#define DM_LAZY 2u
#define DM_PRESENT 4u
#define DM_ALIGNED 8u

/* How CRIU wrote pagemap entries over time. */
enum dm_style {
	DM_OLD,	  /* in_parent and no flags */
	DM_41,	  /* flags, pages in field 2 */
	DM_42,	  /* flags, pages in field 5 */
	DM_NEWER, /* and a field that nobody knows */
};

struct dm_entry {
	uint64_t vaddr;
	uint64_t nr_pages;
	uint32_t flags;
};

/* A new directory of its own; path gets its name. dm_remove() takes it away with all in it. */
void dm_tempdir(char path[64]);
void dm_remove(const char *path);
int dm_mkdir(const char *base, const char *name, char *path, size_t path_bytes);

void dm_write(int dir, const char *name, const void *p, size_t bytes);

/* An image file: two magics, then records as they are added. */
int dm_image(int dir, const char *name, uint32_t magic);
void dm_record(int fd, const void *p, size_t bytes);

void dm_inventory(int dir);
/* With another version of CRIU's images than 2. */
void dm_inventory_of(int dir, uint32_t img_version);
/* What field 6 of a pagemap entry holds; sizes NULL: the pages are plain. */
struct dm_blocks {
	const uint32_t *sizes;
	size_t nr;
	uint32_t block_pages;
	uint64_t total;
	uint32_t newer; /* a field that nobody knows, or 0 */
};
/* A pagemap of CRIU 4.3: blocks has one for each entry. */
void dm_packed_pagemap(int dir, const char *name, uint32_t pages_id, const struct dm_entry *entries,
		       const struct dm_blocks *blocks, size_t nr);
void dm_pagemap(int dir, const char *name, uint32_t pages_id, enum dm_style style,
		const struct dm_entry *entries, size_t nr);
/*
 * tasks: pid, ppid, comm, VMAs and thp_disabled; makes pstree, core and mm images. Of nr_threads 2,
 * the second thread is pid + 1000, and has no core.
 */
void dm_tasks(int dir, const struct ckf_task *tasks, size_t nr);

/* ids-PID.img with an IPC namespace, memfd.img with one memfd, and a segment of a namespace. */
void dm_ids(int dir, uint32_t pid, uint32_t ipc_ns);
void dm_memfd(int dir, uint32_t shmid);
void dm_segment(int dir, uint32_t ipc_ns, uint32_t shmid, bool in_pagemaps);

/*
 * The contents of a page: value 0 zeros, else by its remainder modulo 3 random, compressible by
 * LZ4, or compressible by zstd alone.
 */
void dm_page(uint32_t value, void *page);
/* pages-ID.img */
void dm_pages(int dir, uint32_t id, const uint32_t *values, size_t nr);

/*
 * The same as CRIU 4.3 compresses it, in blocks, of which there are at most 64: makes
 * pagemap-PID.img too, of one entry at vaddr.
 */
void dm_packed(int dir, uint32_t pid, uint32_t id, uint64_t vaddr, const uint32_t *values,
	       size_t nr, uint32_t block_pages);

/* An object of an AMD GPU, as in linux/kfd_ioctl.h: flags bit 0 VRAM, 1 GTT, 2 userptr, 3 doorbell.
 */
struct dm_amd_object {
	uint32_t gpu_id;
	uint32_t flags;
	uint64_t bytes;
};
/* amdgpu-kfd-ID.img of pid, with the GPUs and a CPU. */
void dm_amd_table(int dir, uint32_t id, uint32_t pid, const uint32_t *gpus, size_t nr_gpus,
		  const struct dm_amd_object *objects, size_t nr);
/* amdgpu-pages-ID-GPU.img */
void dm_amd_pages(int dir, uint32_t id, uint32_t gpu, const uint32_t *values, size_t nr);

/*
 * amdgpu-renderD-ID.img, with objects of these lengths; minor 0: as CRIU 4.2.1 writes it. For files
 * of contents: amdgpu-drm-pages-ID-MINOR-N.img.
 */
void dm_render_table(int dir, uint32_t id, uint32_t minor, const uint64_t *bytes, size_t nr);
void dm_render_pages(int dir, const char *name, uint64_t head, const uint32_t *values, size_t nr);

/* A small generator: the same numbers for the same seed. */
uint32_t dm_rand(uint64_t *state);
/* CKF_SEED, or one from the clock; printed either way. */
uint64_t dm_seed(void);

#endif
