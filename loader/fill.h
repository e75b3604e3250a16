/* SPDX-License-Identifier: MIT */
/*
 * Private to the loader: how a fill is cut into jobs, lanes, pieces and requests.
 *
 *	job	one call of ckf_fill(); shared by its workers
 *	lane	a part of the plan that one worker takes at a time (SPEC.md 4.7)
 *	dest	a range of the target and where it goes
 *	piece	pages of one chunk that go to one place in this process
 *	request	one read of the pack, or of one chunk by parts, with the pieces that it brings
 */
#ifndef CKF_FILL_PRIVATE_H
#define CKF_FILL_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

#include "format/ckf_codec.h"
#include "base/ckf_madvise.h"
#include "lane.h"
#include "pace.h"
#include "packs.h"

/* What one read into a buffer brings at most, unless one chunk is larger and not raw. */
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
#define FILL_SMALL_BYTES (512u << 10)
/* What one read of such a fill brings: the pages of its buffer are all new in a process that has
 * just been forked, and a fault for each costs more than another read. */
#define FILL_SMALL_REQUEST_BYTES (32u << 10)
#define FILL_COPY_IOVS 512 /* copies that go into one system call */

/* Below, starting a thread costs more than it gains. */
#define FILL_WORKER_BYTES (16ull << 20)

struct uffdio_range;
struct fill_scratch;

/* How a page gets to where it belongs. Of a piece; a dest has one of the first five. */
enum fill_place {
	FILL_SKIP,   /* not at all */
	FILL_CHECK,  /* its chunk is checked, and that is all */
	FILL_SHARED, /* compared with what is there, and written where that is something else */
	FILL_PLAIN,  /* copied, together with others (copy.c) */
	FILL_UFFD,   /* the dest is registered: only fill_huge_copy() may write to it */
	FILL_HUGE,   /* written to a huge page that is there, in scratch memory or in place */
	FILL_READ    /* the read itself put it there: all pieces of a chunk, or none */
};

#define FILL_NO_SEG UINT32_MAX

/* Where a range of planner.dests goes, at the same position. */
struct fill_dest {
	char *addr; /* of its start; NULL: nowhere */
	enum fill_place place;
	bool fresh;   /* reads as zeros */
	uint32_t seg; /* the first of its segments (huge.c), which follow each other; FILL_NO_SEG */
};

struct fill_piece {
	char *dst; /* NULL: nowhere */
	uint32_t chunk;
	uint16_t first_page;
	uint16_t nr_pages;
	enum fill_place place;
	uint32_t seg; /* is told when it is there; FILL_NO_SEG */
};

struct fill_request {
	char *slot; /* stored bytes that do not go straight to a destination, at their offset in the
		   read */
	uint64_t pack_off; /* whole pages, and so is bytes */
	size_t bytes;
	uint8_t base;	   /* whose pack it reads; 0: the image's own */
	bool cached;	   /* to be read through the page cache */
	bool all_in_place; /* where memory is short: none of it goes to the slot */
	bool in_parts;	   /* all of one chunk, which the slot takes part by part: no iovs */
	unsigned int nr_iovs;
	unsigned int nr_pieces;
	struct iovec iovs[FILL_REQUEST_IOVS];
	struct fill_piece pieces[FILL_REQUEST_PIECES];
};

/* The pieces of one lane, handed out as requests. Zeroed but for job and stats to begin with. */
struct fill_lane {
	struct fill_job *job;
	struct ckf_fill_stats *stats;
	struct lane lane;
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
	/* Starts workers that are missing, where the budget allows them by now. In the calling
	 * thread, which works itself or watches the others. */
	void (*grow)(struct fill_job *job);
	const struct ckf_dest *given; /* the caller's dests */
	size_t nr_given;
	struct lane_planner planner; /* with these, the segments of huge.c apart */
	struct fill_dest *dests;
	size_t max_dests;
	struct fill_huge huge;
	int dir_fd;
	struct ckf_packs_io packs_io;
	size_t slot_bytes;	/* the buffer of one read */
	bool small;		/* FILL_SMALL_BYTES or less */
	int file;		/* above 0: the only worker writes to it, see copy.c */
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
	unsigned int missing; /* workers that could not be started yet */
	uint64_t grow_ns;     /* when to ask for it again */

	int ret; /* with the lock again, until all workers have ended */
	struct ckf_error err;
	struct ckf_fill_stats stats;
};

static inline bool fill_is_frugal(const struct fill_job *job)
{
	return job->opts->flags & CKF_FILL_FRUGAL;
}

/* What one read of the job into a buffer brings at most, unless one chunk is larger and not read in
 * parts. Reads in place: see most_bytes(). */
static inline size_t fill_request_bytes(const struct fill_job *job)
{
	if (job->small)
		return FILL_SMALL_REQUEST_BYTES;
	return fill_is_frugal(job) ? FILL_FRUGAL_BYTES : FILL_REQUEST_BYTES;
}

/*
 * Whether a chunk may come straight to such a place. That touches the place, which is quick in huge
 * pages only. Where memory is short, two more cases pay: a large chunk, for which there is no
 * buffer, and a direct read, for which the kernel makes the pages itself.
 */
static inline bool fill_may_touch(const struct fill_job *job, const struct ckf_chunk *c,
				  enum fill_place place)
{
	if (place == FILL_HUGE)
		return true;
	return fill_is_frugal(job) && place == FILL_PLAIN &&
	       ((c->codec == CKF_CODEC_RAW && job->packs_io.direct[c->base]) ||
		ckf_pages_to_bytes(c->nr_pages) > FILL_FRUGAL_BYTES);
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
/* job.c: adds what s counts to sum. */
void fill_stats_add(struct ckf_fill_stats *sum, const struct ckf_fill_stats *s);
/* job.c: the options of a caller, in our size; its stats, which may be NULL, must have a size. */
int fill_take_opts(struct ckf_fill_opts *own, const struct ckf_fill_opts *opts,
		   const struct ckf_fill_stats *stats, struct ckf_error *err);
/* job.c: adds to stats, which the caller of the library has; may be NULL. */
void fill_stats_give(struct ckf_fill_stats *stats, const struct ckf_fill_stats *add);

/* job.c: [start, end) of d becomes a dest of the job; seg: its first segment. -ENOMEM. */
int fill_add_dest(struct fill_job *job, const struct ckf_dest *d, uint64_t start, uint64_t end,
		  enum fill_place place, uint32_t seg);

/* request.c: says how the lanes of the job are cut; its dests come later. */
void fill_planner_init(struct fill_job *job);
/* request.c: the pieces of l, and at once what needs no data. */
int fill_lane_load(struct fill_lane *fl, const struct ckf_lane *l, struct ckf_error *err);
bool fill_lane_next(struct fill_lane *fl, struct fill_request *req);

/* huge.c */

/*
 * Makes the dests of the job, with segments where the kernel helps with huge pages and there is
 * memory for all of it. -ENOMEM: not even without.
 */
int fill_huge_init(struct fill_job *job, unsigned int workers);
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
/* Copies to fresh memory of a FILL_UFFD dest. 0 or -errno. */
int fill_huge_copy(struct fill_huge *h, char *dst, const char *src, uint64_t bytes);
/* The pages of such memory that are not there yet. Those that cannot be made read as zeros, too. */
void fill_huge_zeros(const struct fill_huge *h, char *dst, uint64_t bytes);
void fill_huge_fini(struct fill_huge *h);

#endif
