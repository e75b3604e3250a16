/* SPDX-License-Identifier: MIT */
/*
 * The loader: executes the plan of one target into memory of this process.
 *
 * The caller says where each address of the target lies now (struct ckf_dest). The plan never
 * chooses destinations: an op outside of every dest ends the fill with -EBADMSG.
 *
 * ckf_fill() starts its workers, joins them and leaves no thread, no fd, no ring and no mapping
 * behind, however it ends. When it returns 0 every byte that was asked for is in place and every
 * chunk that was used has been checked. When it fails, the contents of the dests are unspecified.
 */
#ifndef CKF_FILL_H
#define CKF_FILL_H

#include "ckf_image.h"

/* The range reads as zeros now and was never touched: zero chunks need no write. Their pages are
 * made nevertheless, as they were at the dump, but not with FRUGAL. */
#define CKF_DEST_FRESH (1u << 0)
/* Holds the parent's pages: compare before writing, so that equal pages stay shared. Ops with
 * CKF_OP_INHERIT are skipped here. */
#define CKF_DEST_SHARED (1u << 1)
/* Ops in this range are left alone (not now, or CRIU's restorer reads them); their addresses are
 * checked nevertheless. */
#define CKF_DEST_SKIP (1u << 2)
/* With SKIP: read and check the chunks all the same, without writing anything. */
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
 * buffers, no huge pages, and no pages for zeros. See ckf_room.h. */
#define CKF_FILL_FRUGAL (1u << 4)

struct ckf_fill_opts {
	size_t size;	      /* sizeof(struct ckf_fill_opts) */
	int dir_fd;	      /* image directory; -1: the image's own */
	unsigned int threads; /* 0: by CPUs and size. 1: in the calling thread */
	uint32_t flags;	      /* CKF_FILL_ */
	/*
	 * stalled() is called, in the calling thread, when no read has completed, and no zeros were
	 * made, for timeout_ms (0: never). A read in flight cannot be taken back, so there is no
	 * way to return: the callback either ends the process, or returns to wait as long again.
	 * A fill of at most 128 KiB reads in the calling thread, as one without threads does:
	 * nobody watches it.
	 */
	unsigned int timeout_ms;
	void (*stalled)(void *arg);
	/*
	 * Called in each new worker before it does anything, with its thread id; a non-zero return
	 * makes the worker leave at once without having done anything (its work goes to the
	 * others). May be NULL.
	 */
	int (*worker_ok)(void *arg, int tid);
	/*
	 * Called around the start of workers, in the calling thread. The first one is told how many
	 * are wanted and returns how many there may be: with none the calling thread does the work.
	 * It is asked again for those that are missing, every few ms, while there is work for them.
	 * May be NULL.
	 */
	unsigned int (*before_workers)(void *arg, unsigned int wanted);
	void (*after_workers)(void *arg);
	void *arg;
};

struct ckf_fill_stats {
	uint64_t read_bytes;   /* from the pack */
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

#endif
