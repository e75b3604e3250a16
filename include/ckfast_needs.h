/* SPDX-License-Identifier: MIT */
/*
 * What a dump needs of the machine that it is restored on, as its images tell: process ids, files,
 * CPU features, devices. Of a dump, or of a fast image. And what a cgroup of the machine leaves.
 * All rules of ckfast.h hold.
 *
 * Names and numbers are what the dump says, and may be anything.
 */
#ifndef CKFAST_NEEDS_H
#define CKFAST_NEEDS_H

#include "ckfast.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct ckf_needs;

/* -ENOENT: dir_fd has no pstree.img. Free with ckf_needs_free(), which takes NULL. */
int ckf_needs_read(int dir_fd, struct ckf_needs **out, struct ckf_error *err);
void ckf_needs_free(struct ckf_needs *n);

struct ckf_needs_info {
	size_t size;
	uint64_t nr_tasks;
	uint64_t nr_ids; /* of processes and threads; the counts of what is asked for by number */
	uint64_t nr_paths;
	uint64_t nr_devices;
	uint64_t nr_cpus;
	uint64_t nr_tcp;	/* sockets with a connection */
	uint64_t nr_ext_unix;	/* sockets connected to ones outside of the dump */
	uint64_t nr_ext_mounts; /* mounts that --external has to name */
	uint64_t ghost_bytes;	/* of unlinked files, which are made anew */
	uint64_t xstate;	/* components of XSAVE in use: bits of XCR0 */
	uint32_t own_ns;	/* CLONE_NEW bits: namespaces that are made anew */
	bool outer_session;	/* of a session whose leader is not in the dump */
	uint32_t img_version; /* of CRIU's images: 2, or 3 from CRIU 4.3 on, if pages are compressed
			       */
	uint32_t nr_outer_ttys; /* pseudoterminals whose master is not in the dump */
	uint64_t nr_file_locks;
};
/* These return 0, or -EINVAL for a size that is too small and for numbers that there are not. */
int ckf_needs_get_info(const struct ckf_needs *n, struct ckf_needs_info *out);
int ckf_needs_get_id(const struct ckf_needs *n, uint64_t nr, uint32_t *id);

enum ckf_path_kind {
	CKF_PATH_FILE = 0, /* open, or mapped */
	CKF_PATH_EXE = 1,
	CKF_PATH_CWD = 2,
	CKF_PATH_ROOT = 3,
	CKF_PATH_SOCKET = 4, /* of a process outside of the dump, which a task is connected to */
};

/* A file or directory that has to be there when the restore begins. Slaves of pseudoterminals are
 * not among them. */
struct ckf_path_info {
	size_t size;
	const char *path;
	uint64_t bytes; /* that it has to have; CKF_UNLIMITED: any number */
	uint32_t mode;	/* that it has to have, with its type; 0: any */
	uint32_t pid;	/* of the first task whose executable or directory it is; or 0 */
	uint32_t kind;	/* enum ckf_path_kind */
	bool external;	/* --external has to name it, or a plugin makes it */
};
int ckf_needs_get_path(const struct ckf_needs *n, uint64_t nr, struct ckf_path_info *out);

/* Memory of a task on a GPU. */
struct ckf_device_need {
	size_t size;
	uint64_t bytes;
	uint64_t total_bytes; /* that the device had */
	const char *name;
	uint32_t pid;
	uint8_t uuid[16];
};
int ckf_needs_get_device(const struct ckf_needs *n, uint64_t nr, struct ckf_device_need *out);

#define CKF_CPU_WORDS 32

/* A CPU of the machine of the dump, where CRIU was told to record it. */
struct ckf_cpu_need {
	size_t size;
	uint32_t nr_words;
	/* Features, in the order of enum cpuid_leafs in compel's uapi/asm/cpu.h. Linux'
	 * cpufeatures.h has other features in words 11, 12 and 16. */
	uint32_t words[CKF_CPU_WORDS];
	uint32_t family;
	uint32_t model;
	const char *name; /* "" where it is not known */
};
int ckf_needs_get_cpu(const struct ckf_needs *n, uint64_t nr, struct ckf_cpu_need *out);

/*
 * What a machine has: the memory cgroup that decides ckf_memcg_self(), the one that leaves least.
 */
struct ckf_memcg_limits {
	size_t size;
	uint64_t headroom_bytes; /* as ckf_memcg_self() says */
	uint64_t limit_bytes;	 /* CKF_UNLIMITED: none; of version 1, the kernel has another one */
	uint64_t high_bytes;	 /* above it processes are slowed down; CKF_UNLIMITED: none */
	uint64_t used_bytes;	 /* the page cache included */
	uint64_t cache_bytes;	 /* of these, the page cache */
	uint64_t hard_headroom_bytes; /* below the limit; the least of all cgroups on the way up */
	uint64_t swap_headroom_bytes; /* that may be swapped out; likewise */
};
/* Where it cannot be found out, all is unlimited. -EINVAL when *out has no size. */
int ckf_memcg_limits_self(int proc_fd, struct ckf_memcg_limits *out);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
