/* SPDX-License-Identifier: MIT */
/*
 * Reads what a CRIU dump says about its processes and their memory. Works on a dump directory and
 * on a fast image alike, since both hold the small .img files.
 *
 * Every byte of a dump is hostile. -EBADMSG with "corrupt <file>[<entry>] at <offset>: …".
 */
#ifndef CKF_DUMP_H
#define CKF_DUMP_H

#include "base/ckf_dir.h"
#include "base/ckf_error.h"
#include "format/ckf_disk.h"
#include "format/ckf_gpu_dump.h"
#include "ckf_amd.h"
#include "ckf_render.h"

/* A run of pages of a pagemap. */
struct ckf_run {
	uint64_t
		vaddr; /* address (of the task or of its devices), or offset in the shared object */
	uint64_t nr_pages;
	uint32_t in_parent; /* 1: the bytes are in the parent dump */
};

struct ckf_packing;

/* What a pagemap file says, or the table of a process's device memory. */
struct ckf_pagemap {
	uint32_t kind; /* enum ckf_target_kind */
	uint64_t id;   /* pid or shmid, from the file name */
	char *name;    /* file name */
	/* N of pages-N.img, or of ckfast-gpu-pages-N.img; for AMD GPUs see struct ckf_origin */
	uint32_t pages_id;
	struct ckf_run *runs; /* ascending, not overlapping */
	uint64_t nr_runs;
	uint64_t nr_pages;	  /* all */
	uint64_t nr_local_pages;  /* in the pages file: these make up its length, if it is plain */
	struct ckf_gpu_dump *gpu; /* of kind device, but for AMD GPUs */
	struct ckf_packing *packing; /* of a compressed pages file until it is claimed, else NULL */
	bool render;		     /* of kind device: of an object of a render node */
	bool unreadable;	     /* of what the dump does not have: nobody has to read it */
	bool stray;		     /* left of an older dump, and to be left out */
};

struct ckf_vma {
	uint64_t start;
	uint64_t end;
	uint64_t pgoff;
	uint64_t shmid;
	uint32_t prot;
	uint32_t flags;	 /* MAP_ */
	uint32_t status; /* CRIU's VMA_ bits */
	uint64_t madv;	 /* bit per MADV_ value */
};

struct ckf_task {
	uint32_t pid;
	uint32_t ppid;
	uint32_t nr_threads;
	uint32_t state; /* CRIU's TASK_ value */
	char comm[32];
	struct ckf_vma *vmas;
	uint64_t nr_vmas;
	bool thp_disabled;
};

/* True for a task that had ended, TASK_DEAD or TASK_ZOMBIE: CRIU restores none of its memory. */
static inline bool ckf_task_is_dead(const struct ckf_task *t)
{
	return t->state == 2 || t->state == 6; /* compel/include/uapi/task-state.h */
}

#define CKF_DUMP_MISSING_BYTES 32

struct ckf_dump {
	struct ckf_dir dir;		/* fd is owned */
	struct ckf_task *tasks;		/* in the order of pstree.img */
	const struct ckf_task **by_pid; /* the same, ascending by pid */
	uint64_t nr_tasks;
	struct ckf_pagemap *pagemaps; /* ascending by (kind, id) */
	uint64_t nr_pagemaps;
	struct ckf_amd_table *amd; /* ascending by file_id; no pagemaps stand for them */
	uint64_t nr_amd;
	struct ckf_render_table *render; /* likewise */
	uint64_t nr_render;
	uint64_t *shmids; /* of its shared memory, ascending, some more than once */
	uint64_t nr_shmids;
	bool knows_shmids; /* shmids has all of them */
	bool has_parent;   /* there is a "parent" link */
	bool in_image;	   /* the files are those of a fast image */
	bool has_inventory;
	bool has_cores;			      /* there is some core-*.img */
	char missing[CKF_DUMP_MISSING_BYTES]; /* the first file that pstree.img wants, or "" */
};

/*
 * Opens the directory and reads pstree, cores, mm and pagemaps. A directory without pstree.img or
 * inventory.img (a pre-dump has no pstree) is read as far as it goes; nr_tasks may be 0.
 * The caller frees with ckf_dump_close().
 */
int ckf_dump_open(const char *path, struct ckf_dump **out, struct ckf_error *err);
int ckf_dump_openat(int dir_fd, const char *path, struct ckf_dump **out, struct ckf_error *err);
/* The same of a dump or image that may lie in an archive, whose members live longer. */
int ckf_dump_open_dir(const struct ckf_dir *dir, bool in_image, struct ckf_dump **out,
		      struct ckf_error *err);
void ckf_dump_close(struct ckf_dump *d);

/* The pagemap of (kind, id), or NULL. */
const struct ckf_pagemap *ckf_dump_find_pagemap(const struct ckf_dump *d, uint32_t kind,
						uint64_t id);
/* Puts pagemaps that were added into their order. */
void ckf_dump_sort_pagemaps(struct ckf_dump *d);
/* The task with this pid, or NULL. */
const struct ckf_task *ckf_dump_find_task(const struct ckf_dump *d, uint64_t pid);
/* False when CRIU will not open the pagemap of (kind, id), which is left of an older dump. */
bool ckf_dump_has_target(const struct ckf_dump *d, uint32_t kind, uint64_t id);

/*
 * Says what is missing of the dump, where something is: -ENOENT when it is no dump at all, -EBADMSG
 * when criu dump cannot have ended well. A pre-dump is complete without tasks.
 */
int ckf_dump_check(const struct ckf_dump *d, struct ckf_error *err);

/*
 * One pagemap file, or table of device memory, of a directory. Free with ckf_pagemap_fini(). In an
 * image, nothing depends on how its pages file is compressed, and packing is NULL.
 */
int ckf_pagemap_read(const struct ckf_dir *dir, const char *name, bool in_image,
		     struct ckf_pagemap *out, struct ckf_error *err);
void ckf_pagemap_fini(struct ckf_pagemap *pm);
/* Whether a pages file of that length has the pages that the pagemap says. */
bool ckf_pagemap_fits(const struct ckf_pagemap *pm, uint64_t file_bytes);

#endif
