/* SPDX-License-Identifier: MIT */
/* What a dump needs of a machine: the parts that needs.c and needs_files.c share. */
#ifndef CKF_CONVERT_NEEDS_H
#define CKF_CONVERT_NEEDS_H

#include "ckfast_needs.h"
#include "img.h"

struct need_path {
	char *path;
	uint64_t bytes;
	uint32_t id; /* CRIU's, of the open file */
	uint32_t mode;
	uint32_t pid;
	uint32_t kind; /* enum ckf_path_kind */
	bool external;
	bool remapped; /* need not be there: CRIU makes it, or has it under another name */
};

struct need_device {
	struct ckf_device_need info;
	char name[64];
};

struct need_cpu {
	struct ckf_cpu_need info;
	char name[64];
};

/* Namespaces have ids, from 1, in the order of need_ns_flags. 0: not known. */
#define NEED_NS 7

struct ckf_needs {
	struct ckf_needs_info info;
	uint32_t pid; /* of the task whose images are read */
	uint32_t criu_ns[NEED_NS];
	uint32_t root_ns[NEED_NS]; /* of the first task */
	uint32_t *ids;
	uint64_t ids_cap;
	struct need_path *paths; /* ascending by id */
	uint64_t paths_cap;
	struct need_device *devices;
	uint64_t devices_cap;
	struct need_cpu *cpus;
	uint64_t cpus_cap;
	uint32_t *ttys; /* ends of pseudoterminals, as CRIU numbers them */
	uint64_t nr_ttys;
	uint64_t ttys_cap;
};

/* Calls take for each record of an image, until it returns an error; an image that is not there has
 * none. */
int needs_each_record(struct ckf_needs *n, int dir_fd, const char *name, uint32_t magic,
		      int (*take)(struct ckf_needs *n, struct ckf_img *im, const uint8_t *rec,
				  size_t bytes, struct ckf_error *err),
		      struct ckf_error *err);

/* Files, sockets and mounts. After the tasks. */
int needs_read_files(struct ckf_needs *n, int dir_fd, const struct ckf_dump *dump,
		     struct ckf_error *err);

/* Terminals. */
int needs_read_ttys(struct ckf_needs *n, int dir_fd, struct ckf_error *err);

#endif
