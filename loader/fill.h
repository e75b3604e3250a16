/* SPDX-License-Identifier: MIT */
/*
 * Private to the loader: how a fill is cut into jobs, lanes, pieces and requests.
 *
 *	job	one call of ckf_fill(); shared by its workers
 *	lane	a part of the plan that one worker takes at a time (SPEC.md 4.7)
 *	piece	pages of one chunk that go to one place in this process
 *	request	one read of the pack, with the pieces that come out of it
 */
#ifndef CKF_FILL_PRIVATE_H
#define CKF_FILL_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

#include "format/ckf_codec.h"
#include "base/ckf_madvise.h"
#include "pace.h"
#include "packs.h"

/* What one read brings at most, unless one chunk is larger. */
#define FILL_REQUEST_BYTES (1u << 20)
#define FILL_FRUGAL_BYTES (64u << 10) /* the same where memory is short */
#define FILL_REQUEST_IOVS 512	      /* below IOV_MAX */
#define FILL_REQUEST_PIECES 1024      /* one for each page of the largest chunk */
#define FILL_DEPTH 8		      /* reads in flight per worker */
#define FILL_MAX_WORKERS 64
/*
 * A fill of no more is over before threads, a ring, huge buffers or a look at the page cache could
 * pay: it reads in the calling thread, through the page cache, which reads ahead for the next one.
 */
#define FILL_SMALL_BYTES (128u << 10)
#define FILL_COPY_IOVS 512 /* copies that go into one system call */

/* Below, starting a thread costs more than it gains. */
#define FILL_WORKER_BYTES (16ull << 20)

struct uffdio_range;
struct fill_scratch;

struct fill_piece {
	char *dst; /* NULL: only check the chunk */
	uint32_t chunk;
	uint16_t first_page;
	uint16_t nr_pages;
	uint32_t flags; /* CKF_DEST_ bits of the dest, and the FILL_ bits below */
	uint32_t seg;	/* with FILL_SEG: in fill_huge.segs */
};

/* The read went straight to the destinations. Set on all pieces of a chunk or on none. */
#define FILL_IN_PLACE (1u << 31)
/* Part of a segment of huge.c, which is told when it is there. */
#define FILL_SEG (1u << 30)
/* Registered with the userfaultfd: only fill_huge_copy() may write to it. */
#define FILL_REGISTERED (1u << 29)
/* Leads to a huge page that is there: to scratch memory, or in place. */
#define FILL_HUGE (1u << 28)

/* A dest of the caller, or a part of it. */
struct fill_dest {
	struct ckf_dest d; /* with FILL_ bits in its flags */
	uint32_t seg;	   /* with FILL_SEG: the first one; they follow each other */
};

struct fill_request {
	char *slot; /* stored bytes that do not go straight to a destination, at their offset in the
		   read */
	uint64_t pack_off; /* whole pages, and so is bytes */
	size_t bytes;
	uint8_t base; /* whose pack it reads; 0: the image's own */
	bool cached;  /* to be read through the page cache */
	unsigned int nr_iovs;
	unsigned int nr_pieces;
	struct iovec iovs[FILL_REQUEST_IOVS];
	struct fill_piece pieces[FILL_REQUEST_PIECES];
};

/* The pieces of one lane, sorted by chunk, handed out as requests from pos on. */
struct fill_lane {
	struct fill_piece *pieces;
	size_t nr_pieces;
	size_t max_pieces;
	size_t pos;
};

/*
 * 2 MiB of a target that the plan fills all over. Either they are filled in scratch memory, and
 * moved to dst by whoever fills the last of it; or whoever comes first makes a huge page in place,
 * and at is dst; or they are small pages after all.
 */
struct fill_huge_seg {
	char *dst;
	char *at;			 /* with READY: where to fill */
	atomic_uint_fast32_t left_bytes; /* not filled yet */
	uint8_t prot;
	atomic_bool zeros; /* pages of zeros, which nobody writes, are part of it */
	_Atomic enum fill_huge_state {
		FILL_HUGE_NEW,
		FILL_HUGE_READY,
		FILL_HUGE_SMALL
	} state;
};

#define FILL_HUGE_LOCKS 64

struct fill_huge {
	int uffd;
	struct ckf_huge *full; /* of shared memory: what the plan's huge ranges are of a task */
	size_t nr_full;
	struct fill_huge_seg *segs;
	size_t nr_segs;
	pthread_mutex_t locks[FILL_HUGE_LOCKS]; /* of segments, by number: to leave NEW */
	struct fill_scratch *scratch;
	struct fill_pace pace;
	struct uffdio_range *maps; /* of dests that are registered */
	size_t nr_maps;
};

struct fill_job {
	const struct ckf_image *img;
	const struct ckf_target *target;
	const struct ckf_fill_opts *opts;
	struct fill_dest *dests; /* the caller's, with the huge segments cut out and redirected */
	size_t nr_dests;
	struct fill_huge huge;
	int dir_fd;
	struct ckf_packs_io packs_io;
	size_t slot_bytes;	/* the buffer of one read */
	bool small;		/* FILL_SMALL_BYTES or less */
	atomic_uint next_lane;	/* of those with something to read */
	atomic_uint next_zeros; /* of those with nothing but zeros */
	atomic_bool failed;
	atomic_uint progress; /* reads completed, and zeros seen to */

	pthread_mutex_t lock; /* for all below */
	pthread_cond_t cond;
	unsigned int starting; /* workers created that have not said yet whether they take part */
	unsigned int active;   /* workers that take part */
	unsigned int running;  /* workers that have not ended */
	int tids[FILL_MAX_WORKERS];
	unsigned int nr_tids;

	/* Of the calling thread alone. */
	pthread_t threads[FILL_MAX_WORKERS];
	unsigned int nr_threads;
	unsigned int missing; /* workers that there is no room for yet */
	uint64_t grow_ns;     /* when to ask for it again */

	int ret; /* with the lock again, until all workers have ended */
	struct ckf_error err;
	struct ckf_fill_stats stats;
};

static inline bool fill_is_frugal(const struct fill_job *job)
{
	return job->opts->flags & CKF_FILL_FRUGAL;
}

/*
 * Whether a chunk may come straight to a destination with these flags, which touches it. That is
 * quick in huge pages only, but where memory is short there is none for a large buffer.
 */
static inline bool fill_may_touch(const struct fill_job *job, const struct ckf_chunk *c,
				  uint32_t flags)
{
	if (flags & FILL_HUGE)
		return true;
	return fill_is_frugal(job) && ckf_pages_to_bytes(c->nr_pages) > FILL_FRUGAL_BYTES &&
	       !(flags & (CKF_DEST_SKIP | CKF_DEST_SHARED));
}

/* Adds bytes at base to v[0..*n): to the last one where they go on from it, which needs no room. */
static inline void fill_add_iov(struct iovec *v, unsigned int *n, char *base, uint64_t bytes)
{
	if (*n && (char *)v[*n - 1].iov_base + v[*n - 1].iov_len == base) {
		v[*n - 1].iov_len += bytes;
		return;
	}
	v[*n].iov_base = base;
	v[(*n)++].iov_len = bytes;
}

/* Makes the pages of a range that are not there yet. Those that cannot be made read as zeros, too.
 */
static inline void fill_populate(char *addr, uint64_t bytes)
{
	(void)madvise(addr, bytes, MADV_POPULATE_WRITE);
}

/* fill.c: what the buffer of one read has at most. */
size_t fill_slot_bytes(const struct ckf_image *img);
/* fill.c: adds what s counts to sum. */
void fill_stats_add(struct ckf_fill_stats *sum, const struct ckf_fill_stats *s);
/* fill.c: the options of a caller, in our size; its stats, which may be NULL, must have a size. */
int fill_take_opts(struct ckf_fill_opts *own, const struct ckf_fill_opts *opts,
		   const struct ckf_fill_stats *stats, struct ckf_error *err);
/* fill.c: adds to stats, which the caller of the library has; may be NULL. */
void fill_stats_give(struct ckf_fill_stats *stats, const struct ckf_fill_stats *add);

/* fill.c: starts workers that are missing, where there is room for them by now. In the calling
 * thread, which works itself or watches the others. */
void fill_grow(struct fill_job *job);

/* lane.c */
int fill_lane_load(struct fill_job *job, const struct ckf_lane *l, struct fill_lane *lane,
		   struct ckf_fill_stats *stats, struct ckf_error *err);
bool fill_lane_next(struct fill_job *job, struct fill_lane *lane, struct fill_request *req);

/* huge.c */

/*
 * Finds the segments, and replaces job->dests by one that leads there. Without the kernel's help,
 * without memory, or without segments, it leaves everything as it is.
 */
void fill_huge_init(struct fill_job *job, unsigned int workers);
/*
 * Before anything is written to a segment: where its huge page is, or NULL when it is in small
 * pages, written to in place. Any number of threads at once.
 */
char *fill_huge_ready(struct fill_huge *h, uint32_t seg);
/*
 * Tells that bytes of a segment are filled, or are zeros that need no write; when it is full, what
 * it lacks is made, and it is moved. Any number of threads at once.
 */
int fill_huge_done(struct fill_huge *h, uint32_t seg, uint64_t bytes, struct ckf_fill_stats *stats,
		   struct ckf_error *err);
int fill_huge_zero(struct fill_huge *h, uint32_t seg, uint64_t bytes, struct ckf_fill_stats *stats,
		   struct ckf_error *err);
/* Copies to fresh memory of a FILL_REGISTERED dest. 0 or -errno. */
int fill_huge_copy(struct fill_huge *h, char *dst, const char *src, uint64_t bytes);
/* The pages of such memory that are not there yet. Those that cannot be made read as zeros, too. */
void fill_huge_zeros(const struct fill_huge *h, char *dst, uint64_t bytes);
void fill_huge_fini(struct fill_huge *h);

#endif
