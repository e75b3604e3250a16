/* SPDX-License-Identifier: MIT */
/*
 * libckfast: fast images of CRIU dumps. They are opened, listed, checked, restored from and made.
 *
 * Errors. An int function returns 0 (or what its comment says) or -errno: -EBADMSG the image or
 * dump is corrupt, -EOPNOTSUPP it uses something that this version does not know, -E2BIG it is over
 * a stated limit, -EINVAL the caller's mistake, -ENOMEM, -EIO and others from the system. err,
 * always last, says more; it may be NULL, and must be zeroed before its first use.
 *
 * Sizes. Options and what is reported lie in structs that begin with their size in bytes, which the
 * caller sets. Both the library and its caller may be the newer one: what a shorter struct lacks is
 * taken as zero, or not reported; what a longer one has beyond is refused (-EINVAL) unless it is
 * zero, and reported as zero. A struct without a size never changes.
 *
 * Units. Names end in them; addresses are bytes, a page has CKF_PAGE_BYTES.
 *
 * Ownership. Descriptors and strings that are passed stay the caller's. Strings and handles that
 * are reported live as long as the image. All descriptors that the library opens are close-on-exec.
 *
 * Threads. An image does not change once it is prepared: any number of threads and of forked
 * processes may use it at once. Every other object is for one thread at a time, unless its comment
 * says more. The library prints nothing and installs no signal handler.
 */
#ifndef CKFAST_H
#define CKFAST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define CKF_PAGE_BYTES 4096u	  /* SPEC.md section 2 */
#define CKF_HUGE_BYTES (2u << 20) /* x86-64 PMD size; SPEC.md section 4.8 */
#define CKF_UNLIMITED UINT64_MAX

/* The names of an image's own files; all others are those of the dump. */
#define CKF_IDX_NAME "ckfast.idx"
#define CKF_PACK_NAME "ckfast.pack"
#define CKF_README_NAME "README.ckfast" /* for people: nothing depends on it */

/* The version of the library, such as "0.2.0", and the newest one of the format that it reads. */
const char *ckf_version(void);
const char *ckf_format_version(void);

#ifndef __cplusplus
/* The address of options with some members set: CKF_OPTS(ckf_verify_opts, .threads = 2). */
#define CKF_OPTS(type, ...) (&(struct type){ .size = sizeof(struct type), __VA_ARGS__ })
#endif

/* Errors */

#define CKF_ERROR_MSG_BYTES 512

struct ckf_error {
	int code;     /* 0, or -errno */
	uint64_t off; /* bytes into the file that the message names, where that makes sense */
	char msg[CKF_ERROR_MSG_BYTES];
};

/* Exit codes of the command line, and the class of an error. */
enum ckf_exit {
	CKF_EXIT_OK = 0,
	CKF_EXIT_FAILED = 1,
	CKF_EXIT_USAGE = 2,
	CKF_EXIT_CORRUPT = 3,
	CKF_EXIT_UNSUPPORTED = 4,
};

/* Records code and message (printf style) unless one is there already. Returns code. */
int ckf_error_set(struct ckf_error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* enum ckf_exit for a 0 or -errno code. */
int ckf_error_exit_code(int code);

/* Images */

#define CKF_ID_BYTES 16
#define CKF_MIN_EXTENT_BYTES (4u << 20)
#define CKF_MAX_EXTENT_BYTES (16u << 20)

enum ckf_codec {
	CKF_CODEC_ZERO = 0, /* all bytes are zero: nothing is stored */
	CKF_CODEC_RAW = 1,
	CKF_CODEC_LZ4 = 2,
	CKF_CODEC_ZSTD = 3,
	CKF_CODEC_BF16 = 4,
	CKF_CODEC_END,
};

enum ckf_file_kind {
	CKF_FILE_VERBATIM = 1, /* is in the image as it was in the dump */
	CKF_FILE_PAGES = 2,    /* its contents are chunks; extract makes it again */
	CKF_FILE_SYMLINK = 3,
	CKF_FILE_SIZED_PAGES = 4,  /* CKF_FILE_PAGES behind 8 bytes: its length */
	CKF_FILE_HEADED_PAGES = 5, /* CKF_FILE_PAGES behind any 8 bytes */
	CKF_FILE_CUT_PAGES = 6,	   /* CKF_FILE_PAGES but for a part of its last page */
};

enum ckf_target_kind {
	CKF_TARGET_TASK = 1,   /* private memory of a process; id: its pid */
	CKF_TARGET_SHMEM = 2,  /* shared memory; id: its shmid */
	CKF_TARGET_DEVICE = 3, /* device memory; id: the pid, or from 2^32 on: SPEC.md 4.5 */
	CKF_TARGET_END,
};

/* "task", "shmem", "device"; "zero", "raw", "lz4", "zstd", "bf16"; "?" for unknown values. */
const char *ckf_target_kind_name(uint32_t kind);
const char *ckf_codec_name(uint32_t codec);
/* The levels that ckf_convert_opts.level may have for a codec; both 0 where it has none. */
void ckf_codec_levels(uint32_t codec, int *min, int *max);

/* What the codecs of an image are chosen for; numbers without a name are as good as the first. */
enum ckf_profile {
	CKF_PROFILE_NUMBER = 0,
	CKF_PROFILE_RAM = 1,
	CKF_PROFILE_NVME = 2,
	CKF_PROFILE_SSD = 3,
	CKF_PROFILE_NETWORK = 4,
	CKF_PROFILE_END,
};

struct ckf_storage {
	uint64_t bytes_per_s; /* 0: not known */
	uint32_t profile;     /* enum ckf_profile */
	uint16_t nr_cores;    /* that decode at the same time */
	bool measured;	      /* else somebody named it */
};

/* "ram", "nvme", "ssd", "network"; "number" for others. */
const char *ckf_profile_name(uint32_t profile);
/* CKF_PROFILE_NUMBER and all that have no name: of a speed that is not known. */
void ckf_profile_get(uint32_t profile, struct ckf_storage *out);

struct ckf_image;

struct ckf_image_opts {
	size_t size;
	/* Directories of bases that are no longer where the index says; found by their ids. */
	const char *const *base_dirs;
	size_t nr_base_dirs;
	/* Does without the bases, for those who read no chunk: see ckf_image_check_base(). */
	bool no_bases;
};

/* True when the directory has a ckfast.idx, whatever is in it. */
bool ckf_image_probe(int dir_fd);

/*
 * Reads and checks ckfast.idx and the header and length of ckfast.pack and of the bases. -ENOENT:
 * not a fast image, or a base is missing; -ESTALE: another image in place of a base. opts may be
 * NULL. Close with ckf_image_close(), which takes NULL.
 */
int ckf_image_open(int dir_fd, struct ckf_image **out, struct ckf_error *err);
int ckf_image_open_opts(int dir_fd, const struct ckf_image_opts *opts, struct ckf_image **out,
			struct ckf_error *err);
/*
 * The same of the image at a path: in a directory, in a checkpoint archive, which may be
 * compressed, or the only one in an OCI image layout. Such an image can be looked at and checked; a
 * fill from it is refused (-EOPNOTSUPP).
 */
int ckf_image_open_path(const char *path, const struct ckf_image_opts *opts, struct ckf_image **out,
			struct ckf_error *err);
void ckf_image_close(struct ckf_image *img);

/*
 * Finds out what each fill would find out for itself: which chunks several lanes need, and which
 * packs are in the page cache. Pays where an image is filled from more than once. Before any other
 * thread or process has the image. -ENOMEM, or why a pack cannot be opened.
 */
int ckf_image_prepare(struct ckf_image *img, struct ckf_error *err);

/* Checks that base n (from 1) is there, and that it is the one meant. */
int ckf_image_check_base(const struct ckf_image *img, unsigned int n, struct ckf_error *err);
/*
 * The verbatim files that CRIU reads. Large ones with the contents of unlinked files can be checked
 * later than the others, while CRIU copies them: but before a process runs that sees the copy.
 */
enum ckf_files {
	CKF_FILES_ALL,
	CKF_FILES_FIRST,
	CKF_FILES_LATER
};
bool ckf_image_has_later_files(const struct ckf_image *img);
/* Checks size and checksum of these files: -EBADMSG for the first wrong one. */
int ckf_image_check_files(const struct ckf_image *img, enum ckf_files which, struct ckf_error *err);
/* The same of all others: changed is called for each that is gone or has changed: no error. */
int ckf_image_check_unread(const struct ckf_image *img,
			   void (*changed)(void *arg, const char *name), void *arg,
			   struct ckf_error *err);
/* Opens ckfast.pack for reading: a descriptor, the caller's. dir_fd: the image's directory. */
int ckf_image_open_pack(const struct ckf_image *img, int dir_fd, int flags, struct ckf_error *err);

/*
 * Facts of an image, by number from 0 up to the count in struct ckf_image_info. All these return 0,
 * or -EINVAL for a size that is too small and for numbers that there are not.
 */
struct ckf_image_info {
	size_t size;
	uint8_t id[CKF_ID_BYTES];
	uint16_t version_major; /* of the format */
	uint16_t version_minor;
	uint32_t nr_bases;
	uint64_t incompat; /* features, bits of SPEC.md 2.1 */
	uint64_t compat;
	uint64_t pack_bytes;
	uint64_t nr_targets;
	uint64_t nr_chunks;
	uint64_t nr_files;
	uint64_t nr_ops;
	uint64_t nr_lanes;
	uint64_t nr_huge;
	uint32_t extent_bytes;
	uint32_t max_chunk_pages;
	struct ckf_storage storage;
	uint32_t own_cached; /* 1: ckf_image_prepare() has found the own pack in the page cache */
};
int ckf_image_get_info(const struct ckf_image *img, struct ckf_image_info *out);

/* Pages that are equal are stored once, as part of a chunk. */
struct ckf_chunk_info {
	size_t size;
	uint64_t pack_off; /* bytes */
	uint64_t checksum; /* of the decoded bytes */
	uint32_t stored_bytes;
	uint32_t nr_pages; /* decoded */
	uint32_t codec;	   /* enum ckf_codec */
	uint32_t base;	   /* 0: in the own pack; n: in that of base n */
};
int ckf_image_get_chunk(const struct ckf_image *img, uint64_t nr, struct ckf_chunk_info *out);

struct ckf_file_info {
	size_t size;
	const char *name;
	const char *link; /* where a symbolic link leads, else NULL */
	uint64_t bytes;
	uint64_t checksum;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	uint32_t mode; /* permission bits only */
	uint32_t uid;
	uint32_t gid;
	uint32_t kind; /* enum ckf_file_kind */
};
int ckf_image_get_file(const struct ckf_image *img, uint64_t nr, struct ckf_file_info *out);

/* Another fast image, whose pack holds some of the chunks. Its number here begins with 1. */
struct ckf_base_info {
	size_t size;
	uint8_t id[CKF_ID_BYTES];
	uint64_t pack_bytes;
	const char *path; /* from the image's directory */
};
int ckf_image_get_base(const struct ckf_image *img, unsigned int n, struct ckf_base_info *out);

/* A part of a target that one worker fills at a time; lanes of a target follow each other. */
struct ckf_lane_info {
	size_t size;
	uint64_t target;
	uint64_t nr_ops;
	uint64_t read_bytes;
	uint64_t fill_bytes;
};
int ckf_image_get_lane(const struct ckf_image *img, uint64_t nr, struct ckf_lane_info *out);

/* A range that was in huge pages, and that the plan fills all over. */
struct ckf_huge_info {
	size_t size;
	uint64_t target;
	uint64_t addr; /* a multiple of CKF_HUGE_BYTES */
	uint64_t bytes;
};
int ckf_image_get_huge(const struct ckf_image *img, uint64_t nr, struct ckf_huge_info *out);

/* Targets: what is filled as a whole. A handle lives as long as its image. */
struct ckf_target;

/* NULL when there is none with that number, or of that kind and id. */
const struct ckf_target *ckf_image_target(const struct ckf_image *img, uint64_t nr);
const struct ckf_target *ckf_image_find_target(const struct ckf_image *img, uint32_t kind,
					       uint64_t id);

struct ckf_target_info {
	size_t size;
	uint64_t nr; /* of the target in the image */
	uint64_t id;
	uint64_t nr_pages;
	uint64_t nr_ops;
	uint64_t nr_lanes;
	const char *name; /* of its pagemap file */
	uint32_t kind;	  /* enum ckf_target_kind */
	uint32_t parent;  /* 0, or 1 + number of the target that CKF_OP_INHERIT refers to */
};
int ckf_target_get_info(const struct ckf_image *img, const struct ckf_target *t,
			struct ckf_target_info *out);

/* True when huge pages of the plan lie between start and end. */
bool ckf_target_wants_huge(const struct ckf_image *img, const struct ckf_target *t, uint64_t start,
			   uint64_t end);

/* The ops of a target: runs of pages with the place that they come from, ascending by address. */
#define CKF_OP_INHERIT (1u << 0) /* equal to the parent's */
#define CKF_OP_DIRECT (1u << 1)	 /* CRIU's restorer reads it out of the pack by itself */
#define CKF_OP_FLAGS_ALL (CKF_OP_INHERIT | CKF_OP_DIRECT)

struct ckf_op_info {
	uint64_t start; /* address in the target */
	uint64_t end;	/* exclusive */
	uint32_t chunk;
	uint16_t first_page; /* in the chunk */
	uint8_t codec;	     /* of the chunk, enum ckf_codec */
	uint8_t base;	     /* of the chunk: 0, or where it lies */
	uint32_t flags;	     /* CKF_OP_ */
	uint32_t reserved;
};

/*
 * Walks over ops. Costs a call of the library for every CKF_OPS_AHEAD of them. Users call the
 * functions and leave the members alone; it holds nothing that has to be released.
 *
 *	struct ckf_ops it;
 *	ckf_ops_begin(&it, img, t, addr);
 *	for (op = ckf_ops_get(&it); op && op->start < end; op = ckf_ops_next(&it))
 */
#define CKF_OPS_AHEAD 14

struct ckf_ops {
	const struct ckf_image *img;
	const struct ckf_target *t;
	uint64_t next; /* number in the target of the first op behind ops */
	uint64_t from; /* ops answer for addresses from here */
	uint64_t to;   /* to here, exclusive */
	uint32_t pos;
	uint32_t nr;
	struct ckf_op_info ops[CKF_OPS_AHEAD];
};

/* At the first op that ends above addr. */
void ckf_ops_begin(struct ckf_ops *it, const struct ckf_image *img, const struct ckf_target *t,
		   uint64_t addr);
/* What the two below call when the ops at hand do not do. */
void ckf_ops_refill(struct ckf_ops *it);
void ckf_ops_find(struct ckf_ops *it, uint64_t addr);

/* The op that it is at; NULL behind the last one. Valid until it moves. */
static inline const struct ckf_op_info *ckf_ops_get(const struct ckf_ops *it)
{
	return it->pos < it->nr ? &it->ops[it->pos] : NULL;
}

static inline const struct ckf_op_info *ckf_ops_next(struct ckf_ops *it)
{
	if (++it->pos >= it->nr)
		ckf_ops_refill(it);
	return ckf_ops_get(it);
}

/* Moves to the first op that ends above addr. Short ways cost nothing, in both directions. */
static inline const struct ckf_op_info *ckf_ops_seek(struct ckf_ops *it, uint64_t addr)
{
	if (addr < it->from || addr >= it->to) {
		ckf_ops_find(it, addr);
		return ckf_ops_get(it);
	}
	while (it->pos && it->ops[it->pos - 1].end > addr)
		it->pos--;
	while (it->pos < it->nr && it->ops[it->pos].end <= addr)
		it->pos++;
	return ckf_ops_get(it);
}

/*
 * Filling: executes the plan of one target into memory of this process.
 *
 * The caller says where each address of the target lies now. The plan never chooses destinations:
 * an op outside of every dest ends the fill with -EBADMSG. The call starts its workers, joins them
 * and leaves no thread, no descriptor, no ring and no mapping behind, however it ends. When it
 * returns 0 every byte that was asked for is in place and every chunk that was used has been
 * checked. When it fails, the contents of the dests are unspecified.
 */

/* The range reads as zeros now and was never touched: zero chunks need no write. Their pages are
 * made nevertheless, as they were at the dump, but not with FRUGAL. */
#define CKF_DEST_FRESH (1u << 0)
/* Holds the parent's pages: compare before writing, so that equal pages stay shared. Ops with
 * CKF_OP_INHERIT are skipped here. */
#define CKF_DEST_SHARED (1u << 1)
/* Ops in this range are left alone (not now, or CRIU's restorer reads them); their addresses are
 * checked nevertheless. */
#define CKF_DEST_SKIP (1u << 2)
/* With SKIP: read and check the chunks, without writing anything. */
#define CKF_DEST_CHECK (1u << 3)
/* Fresh memory that may be backed by huge pages where the image fills all of them: private
 * anonymous memory, or shared memory mapped at the same place modulo 2 MiB as its offset. */
#define CKF_DEST_HUGE (1u << 4)

struct ckf_dest {
	uint64_t start; /* in the target, multiple of the page size */
	uint64_t end;	/* exclusive */
	char *addr;	/* where start is mapped in this process; NULL with SKIP */
	uint32_t flags; /* CKF_DEST_ */
	uint32_t prot;	/* PROT_ bits that the mapping has now; for HUGE */
};

#define CKF_FILL_NO_URING (1u << 0)
#define CKF_FILL_NO_DIRECT (1u << 1)
#define CKF_FILL_NO_HUGE (1u << 2)
#define CKF_FILL_NO_MOVE (1u << 3) /* huge pages as without UFFDIO_MOVE */
/* With as little memory beside that of the dests as can be: one worker, one read at a time, small
 * buffers, no huge pages, and no pages for zeros. See struct ckf_budget. */
#define CKF_FILL_FRUGAL (1u << 4)

struct ckf_fill_opts {
	size_t size;	      /* at least up to flags */
	int dir_fd;	      /* image directory; -1: the image's own */
	unsigned int threads; /* 0: by CPUs and size. 1: in the calling thread */
	uint32_t flags;	      /* CKF_FILL_ */
	/*
	 * stalled() is called, in the calling thread, when no read has completed, and no zeros were
	 * made, for timeout_ms (0: never). A read in flight cannot be taken back, so there is no
	 * way to return: the callback either ends the process, or returns to wait as long again.
	 * A fill of at most 512 KiB reads in the calling thread, as one without threads does:
	 * nobody watches it.
	 */
	unsigned int timeout_ms;
	void (*stalled)(void *arg);
	/*
	 * Called in each new worker before it does anything, with its thread id; a non-zero return
	 * makes the worker leave at once, its work goes to the others. May be NULL.
	 */
	int (*worker_ok)(void *arg, int tid);
	/*
	 * Called around the start of workers, in the calling thread. The first one is told how many
	 * are wanted and returns how many there may be: with none the calling thread does the work.
	 * It is asked again every few ms for those that are missing, while there is work. Or NULL.
	 */
	unsigned int (*before_workers)(void *arg, unsigned int wanted);
	void (*after_workers)(void *arg);
	void *arg;
	int file; /* above 0: a file for writing that the only dest maps, offset by offset */
};

struct ckf_fill_stats {
	size_t size;
	uint64_t read_bytes;   /* from the pack */
	uint64_t cached_bytes; /* of these, by reads that need not be direct: all was cached */
	uint64_t filled_bytes; /* written to dests */
	uint64_t zero_bytes;   /* zero pages that needed no write, made or left out */
	uint64_t shared_bytes; /* equal to the parent's: not written */
	uint64_t huge_pages;   /* 2 MiB pages put in place */
	uint64_t ns;	       /* wall time of the call */
	unsigned int workers;
	bool uring;
	bool direct;
};

/* dests: sorted by start, not overlapping. stats may be NULL; it is added to. */
int ckf_fill(const struct ckf_image *img, const struct ckf_target *t, const struct ckf_dest *dests,
	     size_t nr_dests, const struct ckf_fill_opts *opts, struct ckf_fill_stats *stats,
	     struct ckf_error *err);

/* The number of workers that threads = 0 stands for. */
unsigned int ckf_fill_default_threads(uint64_t fill_bytes);

/*
 * Limits: how much memory, and how many threads, the cgroups of both versions leave, so that a fill
 * can do with little. What is read is good for a decision, and may be out of date a moment later.
 */

/*
 * Bytes that the memory cgroup whose directory is dir_fd, and each of those above it, may still
 * charge before it is at its limit: the least of them, or CKF_UNLIMITED. The page cache counts as
 * headroom, since the kernel gives it up first.
 */
uint64_t ckf_memcg_of_dir(int dir_fd);
/* The same of a process, by its mounts. proc_fd: such as /proc/self. Not known: CKF_UNLIMITED. */
uint64_t ckf_memcg_self(int proc_fd);
/* The path of its memory cgroup from the root of the hierarchy: 0, or -ENOENT, -ENAMETOOLONG.
 * *unified: of version 2. */
int ckf_memcg_path(int proc_fd, char *path, size_t path_bytes, bool *unified);

/* The number of threads that pids cgroups leave, likewise. */
uint64_t ckf_pids_of_dir(int dir_fd);
uint64_t ckf_pids_self(int proc_fd);

struct ckf_budget_opts {
	size_t size;
	uint64_t headroom_bytes; /* of ckf_memcg_self() or ckf_memcg_of_dir(), before any fill */
	uint64_t caller_bytes;	 /* what the caller takes beside the memory of the tasks */
	unsigned int asked;	 /* workers that the user wants; 0: by the CPUs */
	unsigned int cpus;	 /* 0: those that this process may use */
};

/* What the fills of an image may take, all of its tasks together. */
struct ckf_budget {
	size_t size;
	uint64_t want_bytes;  /* of headroom, for all workers that have something to do */
	uint64_t spare_bytes; /* of headroom beyond that, for pages that are there twice */
	uint32_t workers;     /* at least 1; a task that finds none left fills by itself */
	uint32_t frugal;      /* 1: memory is short: CKF_FILL_FRUGAL */
};

/* All workers where memory leaves headroom for those that have something to do, else as many as it
 * does, and a frugal fill where there is headroom for none. */
int ckf_budget_check(const struct ckf_image *img, const struct ckf_budget_opts *opts,
		     struct ckf_budget *out, struct ckf_error *err);
/*
 * For a budget in memory that several processes share; any number of them at once. lower() makes it
 * as small as by is; zeroed, it is one that nothing has lowered yet. take_spare() takes bytes out
 * of spare_bytes, or returns false.
 */
void ckf_budget_lower(struct ckf_budget *all, const struct ckf_budget *by);
bool ckf_budget_take_spare(struct ckf_budget *all, uint64_t bytes);
/*
 * How many of the wanted workers may start, beside those that are busy, in a tree of processes that
 * has tree threads in the end. limit: threads that ckf_pids_self() left before the tree was there.
 */
unsigned int ckf_budget_workers(const struct ckf_budget *all, unsigned int wanted,
				unsigned int busy, uint64_t limit, uint64_t tree);

/* An id for threads that is as far as can be from all ids (ascending) of processes and threads that
 * are yet to be restored, the middle of the widest gap up to highest. 0: there is no gap. */
int ckf_far_id(const int *ids, size_t nr, int highest);

/* Progress of what takes long. */
struct ckf_progress {
	uint64_t done_bytes;
	uint64_t total_bytes;
	uint64_t stored_bytes; /* written to the pack so far */
};

/* Checking */

struct ckf_verify_opts {
	size_t size;
	unsigned int threads; /* 0: the CPUs */
	/* Called in the calling thread now and then. May be NULL. */
	void (*progress)(void *arg, const struct ckf_progress *p);
	void *arg;
};

struct ckf_verify_stats {
	size_t size;
	uint64_t stored_bytes;	/* chunk bytes read from the pack */
	uint64_t base_bytes;	/* and from those of bases */
	uint64_t decoded_bytes; /* checked, zero chunks left out */
	uint64_t padding_bytes; /* pack bytes checked to be zero */
	uint64_t file_bytes;	/* verbatim files that CRIU reads */
	uint64_t ns;
};

/*
 * Reads the whole pack, and of those of bases what the image has in them, decodes and checks each
 * chunk, checks the padding between chunks, the verbatim files that CRIU reads
 * (ckf_image_check_unread() checks the others), and the checksum of each pages file put together
 * from its chunks. Reports the first error in the order of the pack. opts and stats may be NULL.
 */
int ckf_verify(const struct ckf_image *img, const struct ckf_verify_opts *opts,
	       struct ckf_verify_stats *stats, struct ckf_error *err);

struct ckf_plan_stats {
	size_t size;
	bool pagemaps;		/* the ops of each target are the pages of its pagemap */
	uint64_t unknown_tasks; /* targets that pstree.img has no task for: not checked further */
};

/* Checks the plan against the images that CRIU reads: pagemaps, and the mappings of each task.
 * stats may be NULL, and is filled in also when a check fails. */
int ckf_verify_plan(const struct ckf_image *img, struct ckf_plan_stats *stats,
		    struct ckf_error *err);

/*
 * Making images. All three work on a temporary name beside the destination and rename at the end;
 * when they fail, or are killed, the source is as it was and nothing that looks like a finished
 * result is left. dump, fast and out are paths of directories; the last one must be absent, or
 * empty, and then is replaced, unless force. Where the source of convert or extract is a regular
 * file, it is a checkpoint archive, plain or compressed, and the destination is a plain one:
 * SPEC.md 13. An OCI image layout, as a directory or as an archive, becomes another one.
 */

#define CKF_CODEC_AUTO (-1)

struct ckf_convert_opts {
	size_t size;	       /* at least up to codec */
	int codec;	       /* CKF_CODEC_AUTO, or RAW, LZ4, ZSTD, BF16 */
	int level;	       /* 0: the codec's default */
	uint32_t extent_bytes; /* 0: 16 MiB */
	unsigned int threads;  /* 0: the CPUs that may be used */
	/*
	 * What CKF_CODEC_AUTO is to choose for; bytes_per_s 0: the storage of the destination,
	 * found out where that is worth it and taken for nvme else. Only for a storage that is
	 * named here and slower than memory is a codec chosen that makes a restore from the page
	 * cache more than a tenth slower.
	 */
	struct ckf_storage storage;
	bool force;	/* replace an existing destination of the same kind */
	bool no_uring;	/* plain reads and writes, as where io_uring is forbidden */
	bool no_direct; /* all through the page cache, as where O_DIRECT is refused */
	/* Directories of other fast images. convert: what they hold is not stored again. extract
	 * and flatten: where bases are that are no longer where the image says. */
	const char *const *bases;
	size_t nr_bases;
	/* Called in the calling thread, a few times a second at most. May be NULL. */
	void (*progress)(void *arg, const struct ckf_progress *p);
	/* The log: things the user should know that are no errors. May be NULL. */
	void (*warn)(void *arg, const char *msg);
	/* Polled; non-zero ends the work with -EINTR and cleans up. May be NULL. */
	int (*stop)(void *arg);
	void *arg;
	bool smallest; /* convert, with CKF_CODEC_AUTO: the fewest bytes; storage does not matter */
	bool no_cache; /* convert: leave nothing of the pack in the page cache */
	bool amd; /* convert: pack the memory of AMD GPUs; it takes the patched amdgpu plugin */
};

struct ckf_convert_stats {
	size_t size;
	uint64_t page_bytes;   /* page data in the dump, resolved parents included */
	uint64_t zero_bytes;   /* of these: zero */
	uint64_t dup_bytes;    /* of these: stored before */
	uint64_t base_bytes;   /* of these: in bases */
	uint64_t stored_bytes; /* chunk bytes in the pack */
	uint64_t pack_bytes, idx_bytes;
	uint64_t other_bytes; /* verbatim files */
	uint64_t nr_chunks;
	uint64_t nr_bases; /* that the image needs */
	uint64_t nr_tasks;
	uint64_t nr_left_out; /* entries of the dump that the image lacks: warn tells of them */
	uint64_t ns;
	struct ckf_storage storage;		  /* what was chosen for */
	uint64_t nr_compressed, compressed_bytes; /* pages files that CRIU has compressed */
};

/*
 * opts and stats may be NULL. fast NULL: in place of dump, as ckf_extract() does it, too. The
 * result is made beside dump and checked, the two are exchanged by one rename, and what was there
 * goes. Owner, mode, attributes and time of the directory stay. -EINVAL if something was left out.
 */
int ckf_convert(const char *dump, const char *fast, const struct ckf_convert_opts *opts,
		struct ckf_convert_stats *stats, struct ckf_error *err);

/*
 * Both use threads, force, bases, progress, warn, stop of opts, which may be NULL. dump NULL: in
 * place of fast; files there that are not of the image stay.
 */
int ckf_extract(const char *fast, const char *dump, const struct ckf_convert_opts *opts,
		struct ckf_error *err);
/* Writes to the directory out an image that is equal to fast but has all its chunks itself. */
int ckf_flatten(const char *fast, const char *out, const struct ckf_convert_opts *opts,
		struct ckf_error *err);

/*
 * Device memory of a running process: taken away before it is dumped, given back afterwards.
 *
 * The order of a dump: open and lock while the process runs; then, if it likes, the caller stops
 * all its threads with ptrace; then suspend. Afterwards resume, or let the process be killed.
 * Single threads that the caller has stopped are let run where the driver or the agent has work to
 * do, and are stopped again when a call returns, however it ends.
 *
 * All calls are for the thread that traces the process, if any does. gpud is a socket of
 * ckf_gpud_connect().
 *
 * A thread may be stopped while it has a lock that the driver or the agent needs, as that of an
 * arena of malloc(). Suspend, resume, wake, sleep and adopt then end with -EDEADLK after seconds,
 * and the socket gpud is not to be used any more: a call is under way on it. The process keeps all
 * that it has; ckf_gpu_process_resume_late() does the rest.
 */
#define CKF_GPU_PREFIX "ckfast-gpu-" /* PID.img: the table of a process's device memory */
#define CKF_GPU_PAGES_PREFIX "ckfast-gpu-pages-" /* PID.img: its contents */
#define CKF_AGENT_LIBRARY "libckfast-cuda.so"	 /* what ckfast run preloads */
#define CKF_GPUD_SPARE_BYTES (64ull << 20)	 /* of a device, which gpud leaves to the driver */
#define CKF_GPUD_SOCKET "/run/ckfast/gpud.sock"	 /* by default for root alone */

/*
 * Connects to `ckfast gpud` at path (NULL: $CKFAST_GPUD_SOCKET, or CKF_GPUD_SOCKET); where none
 * answers, or it ends before it has said hello, starts a helper for this connection: the program at
 * helper (NULL: never), with "gpud --fd N". A socket, the caller's to close, or -errno.
 */
int ckf_gpud_connect(const char *path, const char *helper, struct ckf_error *err);
/* What gpud says about itself, JSON, for free(). */
int ckf_gpud_status(int gpud, char **json, struct ckf_error *err);
/* A program or library of ckfast's own installation: name, relative to the folder above the one
 * that the running program is in, such as "bin/ckfast". -ENOENT when it is not there. */
int ckf_gpu_find_own(const char *name, char *buf, size_t bytes, struct ckf_error *err);
/* The helper for ckf_gpud_connect(): $CKFAST_GPUD_HELPER, or our own program in buf, or NULL. */
const char *ckf_gpu_find_helper(char *buf, size_t bytes);

struct ckf_gpu_process;
/* -ESRCH when the process does not use CUDA. The process may run. */
int ckf_gpu_process_open(pid_t pid, int gpud, struct ckf_gpu_process **out, struct ckf_error *err);
/* Closes the descriptors of memory that was not given back, which frees it. Takes NULL. */
void ckf_gpu_process_close(struct ckf_gpu_process *p);
pid_t ckf_gpu_process_pid(const struct ckf_gpu_process *p);
/* Bytes that were taken or given, for messages. */
uint64_t ckf_gpu_process_bytes(const struct ckf_gpu_process *p);
/* -EBUSY unless all that these processes share of device memory can be saved and given back, and no
 * other process has it: the error names one. They may run. Without an agent nobody knows. */
int ckf_gpu_check_shared(const pid_t *pids, size_t nr, struct ckf_error *err);
/* For processes that are locked, all that share memory, before any of it is saved: which one saves
 * it. -EBUSY when one of them imports memory that none of them has made. */
int ckf_gpu_processes_share(struct ckf_gpu_process *const *list, size_t nr, struct ckf_error *err);
/* Lets gpud begin to save the memory of a locked process; suspend waits for it. */
int ckf_gpu_process_save(struct ckf_gpu_process *p, int gpud, int dir_fd, struct ckf_error *err);
/* The pid in the innermost pid namespace, which images are named by. 0, or -errno. */
int ckf_gpu_image_pid(pid_t pid, uint32_t *image_pid, struct ckf_error *err);

/*
 * From here on calls of CUDA wait; returns when no thread is in one, all work is done and the
 * memory of the agent's allocations is away: it lives on in descriptors here until close. When it
 * fails the process is as before, or gpud has ended and there is memory (ckf_gpu_process_bytes()):
 * adopt and resume it with another. -EBUSY: somebody else has locked or suspended it.
 */
int ckf_gpu_process_lock(struct ckf_gpu_process *p, int gpud, unsigned int timeout_ms,
			 struct ckf_error *err);

/* Locked, and stopped or not: writes the memory that was taken away to images in dir_fd and lets
 * the driver put the rest into host memory. When it fails the process is to be resumed. */
int ckf_gpu_process_suspend(struct ckf_gpu_process *p, int gpud, int dir_fd, struct ckf_error *err);

/* The driver's part of what suspend and lock did, the other way round; then resume does the rest.
 */
int ckf_gpu_process_wake(struct ckf_gpu_process *p, int gpud, struct ckf_error *err);

/*
 * Begin with what suspend, wake and resume have driver and agent do, so that they serve several
 * processes at the same time; suspend first waits for its save, and is to be resumed when that
 * fails. The call itself ends what was begun; what could not begin, it does from the start.
 */
int ckf_gpu_process_begin_suspend(struct ckf_gpu_process *p, int gpud, int dir_fd,
				  struct ckf_error *err);
void ckf_gpu_process_begin_wake(struct ckf_gpu_process *p, int gpud);
void ckf_gpu_process_begin_resume(struct ckf_gpu_process *p);
/* The opposite of wake: the process is locked, and suspended by the driver, as it was before. */
int ckf_gpu_process_sleep(struct ckf_gpu_process *p, int gpud, struct ckf_error *err);

/*
 * The opposite of suspend and lock, whichever of them happened: with the memory that was taken, or
 * with what ckf_gpu_fill_memory() brought. When memory could not be given back the process is
 * locked again: it waits at its next call of CUDA, and this may be tried again.
 */
int ckf_gpu_process_resume(struct ckf_gpu_process *p, int gpud, struct ckf_error *err);

/*
 * Resume after -EDEADLK, from a process that does not trace it: waits, for as long as the process
 * is stopped, and gives it what it has to have when it runs. Until then it waits at its next call
 * of CUDA. -ESRCH when it ends before that.
 */
int ckf_gpu_process_resume_late(struct ckf_gpu_process *p, int gpud, struct ckf_error *err);
void ckf_gpu_process_kill(const struct ckf_gpu_process *p);

/* A process that somebody else has suspended, or that was restored: asks the driver how it is. */
int ckf_gpu_process_adopt(struct ckf_gpu_process *p, int gpud, struct ckf_error *err);
/* Of an adopted one: memory of the agent's allocations is away, was saved, and has to be given.
 * What was not saved before whoever took it has died, the agent still has. */
bool ckf_gpu_process_needs_memory(const struct ckf_gpu_process *p);

/*
 * Filling device memory from an image by gpud: started at the first moment of a restore, waited for
 * when a process is to get its memory. For one thread.
 */
struct ckf_gpu_fill;
/* True when the directory has images of device memory. */
bool ckf_gpu_images_probe(int dir_fd);
/* Asks gpud (whose socket may be used meanwhile) to fill memory for all images of device memory in
 * dir_fd, and returns while it works; what it refuses within a moment is returned at once. */
int ckf_gpu_fill_start(int gpud, int dir_fd, struct ckf_gpu_fill **out, struct ckf_error *err);
/* Waits until gpud has found that the images fit this machine, and tells p which devices take the
 * place of others. */
int ckf_gpu_fill_accepted(struct ckf_gpu_fill *f, struct ckf_gpu_process *p, struct ckf_error *err);
/* Waits until gpud has made all memory and gives that of the process image_pid to p, which may map
 * it; but it must not run before ckf_gpu_fill_wait(). 0 also when there is none. */
int ckf_gpu_fill_memory(struct ckf_gpu_fill *f, uint32_t image_pid, struct ckf_gpu_process *p,
			struct ckf_error *err);
/* Waits for the same. -EBUSY when these processes share memory with another one of the images. */
int ckf_gpu_fill_check_shared(struct ckf_gpu_fill *f, const uint32_t *image_pids, size_t nr,
			      struct ckf_error *err);

struct ckf_gpu_fill_stats {
	size_t size;
	uint64_t bytes;
	uint64_t ns; /* from the request until it was filled */
};

/* Waits until the memory of the process image_pid is filled and checked. 0 also when there is none.
 * stats may be NULL. */
int ckf_gpu_fill_wait(struct ckf_gpu_fill *f, uint32_t image_pid, struct ckf_gpu_fill_stats *stats,
		      struct ckf_error *err);

/* Ends it; memory that nobody got is freed. Takes NULL. */
void ckf_gpu_fill_close(struct ckf_gpu_fill *f);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
