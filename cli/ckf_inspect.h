/* SPDX-License-Identifier: MIT */
/* What ckfast inspect knows, gathered once and then printed as text or as JSON. */
#ifndef CKF_INSPECT_H
#define CKF_INSPECT_H

#include "convert/ckf_archive.h"
#include "convert/ckf_dump.h"
#include "convert/ckf_model.h"
#include "loader/ckf_image.h"
#include "ckf_cli.h"

enum insp_mem {
	INSP_MEM_ANON,
	INSP_MEM_FILE,
	INSP_MEM_SHARED_ANON,
	INSP_MEM_SHARED_FILE,
	INSP_MEM_SYSV,
	INSP_MEM_OTHER,
	INSP_MEM_END,
};

/* One task of the process tree, or a target of kind task that the tree does not have. */
struct insp_task {
	const struct ckf_task *task;	 /* NULL: not in pstree.img */
	const struct ckf_pagemap *pages; /* NULL: none */
	uint64_t pid;
	uint64_t mapped_bytes[INSP_MEM_END];
	uint64_t page_bytes[INSP_MEM_END]; /* in the dump or in its parent */
	uint64_t all_mapped_bytes;
	uint64_t all_page_bytes;
};

struct insp_codec {
	uint64_t nr_chunks;
	uint64_t decoded_bytes;
	uint64_t stored_bytes;
};

/* Another image that chunks lie in. */
struct insp_base {
	uint64_t nr_chunks;
	uint64_t decoded_bytes;
	uint64_t stored_bytes;
	struct ckf_error err; /* why it cannot be used; code 0: it is there */
};

/* One target of the plan. */
struct insp_target {
	uint64_t fill_bytes;
	uint64_t read_bytes;
	uint64_t zero_bytes;
	uint64_t inherit_bytes;
	uint64_t direct_bytes;
	uint64_t huge_bytes;
	uint64_t max_lane_bytes; /* filled by the lane that fills most */
};

struct insp {
	const char *path;
	struct ckf_archive *archive; /* that path is, or NULL */
	struct ckf_dir dir;	     /* path, or the checkpoint/ of it; fd -1: not open */
	struct ckf_dump *dump;
	struct ckf_image *img;	     /* NULL: path is a plain dump */
	struct ckf_error incomplete; /* of a plain dump: what is missing; code 0: nothing */

	struct insp_task *tasks;
	uint64_t nr_tasks;
	uint64_t nr_threads;
	uint64_t mapped_bytes[INSP_MEM_END];
	uint64_t page_bytes[INSP_MEM_END];
	uint64_t nr_shmem;
	uint64_t shmem_bytes;
	uint64_t device_bytes;	 /* of all tables of device memory */
	uint64_t all_page_bytes; /* of all pagemaps */
	uint64_t parent_bytes;	 /* of these: the pagemaps leave them to the parent dump */

	/* Only with img. */
	struct ckf_storage asked; /* to estimate for; bytes_per_s 0: none */
	struct insp_codec codecs[CKF_CODEC_END];
	struct insp_base *bases;     /* as idx->bases */
	struct insp_target *targets; /* as idx->targets */
	struct insp_target sum;
	uint64_t idx_bytes;
	uint64_t dup_bytes;    /* what the ops take more than once of chunks that are not zero */
	uint64_t stored_bytes; /* in the own pack */
	uint64_t base_bytes;   /* stored in bases */
	uint64_t nr_extents;
	struct ckf_restore_work work;		   /* of a restore of everything */
	double process_s;			   /* what making a process costs */
	double core_s;				   /* that the CPUs take to fill; -1: not known */
	struct ckf_speeds speeds;		   /* otherwise: to estimate with, of this image */
	uint64_t nr_files[CKF_FILE_CUT_PAGES + 1]; /* by kind */
	uint64_t file_bytes[CKF_FILE_CUT_PAGES + 1];
};

/* Opens and gathers. insp_close() in any case. */
int insp_open(const char *path, const struct cli_bases *bases, struct insp *insp,
	      struct ckf_error *err);
void insp_close(struct insp *insp);

/* "private anonymous"; for JSON keys: "private_anonymous". */
const char *insp_mem_name(enum insp_mem mem);
const char *insp_mem_key(enum insp_mem mem);
/* The feature of a bit of incompat; NULL above the last. */
const char *insp_feature_name(unsigned int bit);
/* How much the lanes differ: the largest over the mean, at least 1; 0 without lanes. */
double insp_lane_balance(const struct insp_target *it, uint64_t nr_lanes);
/* Resident after a restore, at most. */
uint64_t insp_restored_bytes(const struct insp *insp);

/* How long all CPUs of this machine take to fill host memory, with the pack in the page cache. -1
 * where that cannot be tried: a base is needed, there is device memory, or there is no headroom. */
double insp_rehearse(const struct insp *insp);
/* Waits for what fork() has returned: whether there is such a child, and it has ended with 0. */
bool insp_child_did(pid_t pid);
/* What making a process costs this machine, as ckf_model.h says. */
double insp_process_s(void);
/* Tries this machine, for insp_estimate_s(). Reads and fills a part of the image. */
void insp_measure(struct insp *insp);
/* The time of a restore from such storage, with the CPUs of this machine. */
double insp_estimate_s(const struct insp *insp, const struct ckf_storage *s);
/* The name of the task with this pid, fit to print, or "(not in pstree.img)". Returns buf. */
const char *insp_task_name(const struct insp *insp, uint64_t pid, char *buf, size_t buf_bytes);

void insp_print_text(const struct insp *insp);
void insp_print_plan(const struct insp *insp);
void insp_print_chunks(const struct insp *insp);
/* New reference, or NULL. */
json_t *insp_json(const struct insp *insp, bool plan, bool chunks);
/* Nothing, or an empty list, where no task has device memory. */
void insp_print_devices(const struct insp *insp);
json_t *insp_json_devices(const struct insp *insp);
/* The same for the memory of AMD GPUs. */
void insp_print_amd(const struct insp *insp);
json_t *insp_json_amd(const struct insp *insp);
json_t *insp_json_render(const struct insp *insp);
/* The name of a target that has memory of an AMD GPU. Returns buf. */
const char *insp_amd_target_name(const struct insp *insp, const struct ckf_target *target,
				 char *buf, size_t buf_bytes);

#endif
