/* SPDX-License-Identifier: MIT */
/*
 * Huge pages without a trace.
 *
 * Where the plan fills a whole aligned 2 MiB range, a segment, its pages are first filled in
 * scratch memory that has MADV_HUGEPAGE, and then moved to their place with UFFDIO_MOVE (Linux 6.8
 * and later): a page table operation. The mapping that they end in never had its own flags changed.
 * A piece of scratch memory is used for one segment after the other: see scratch.c.
 *
 * Source and destination lie at the same place modulo 2 MiB, or the kernel would split the pages.
 *
 * What is not filled as huge pages in such a mapping, or in another large one, is copied to by
 * UFFDIO_COPY: for single pages that takes a fifth less time than process_vm_writev().
 *
 * Shared memory cannot be moved, and older kernels cannot move. There a page of the empty range is
 * touched, and MADV_COLLAPSE makes a huge page of it before it is filled (Linux 6.1 and later):
 * that changes no flags either. Of shared memory the plan has no huge ranges; those that are filled
 * all over are found here.
 *
 * Huge pages are a gain and never a must. Whether a segment gets one is decided when its first byte
 * arrives: small pages may cost less (pace.c), there may be no scratch memory left, or the kernel
 * refuses. Zeros are not written: what a segment lacks when all else is in place is made then.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#include "fill.h"
#include "base/ckf_madvise.h"
#include "base/ckf_threads.h"
#include "scratch.h"

/* From the kernel's uapi; older headers lack them. */
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFDIO_MOVE
#define UFFD_FEATURE_MOVE (1 << 16)
#define UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES ((__u64)1 << 1)
struct uffdio_move {
	__u64 dst;
	__u64 src;
	__u64 len;
	__u64 mode;
	__s64 move;
};
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#endif

#define HUGE_PAGES (CKF_HUGE_BYTES / CKF_PAGE_BYTES)
#define BUSY_TRIES 100 /* a page may stay pinned for a moment after a direct read */
#define COLLAPSE_TRIES 3
#define REGISTER_PAGES 64 /* UFFDIO_COPY gains about 0.1 us on each, registering costs some us */
#define ZEROS_BYTES (64u << 10) /* of zeros, to copy from */
#define COPIES_PER_SAMPLE 4	/* one of them is timed: asking for the time costs, too */

static int open_uffd(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MOVE };
	int fd;

	/* We handle no faults, so user mode is enough, and needs no privilege. */
	fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (fd < 0)
		return -errno;
	if (ioctl(fd, UFFDIO_API, &api) || !(api.features & UFFD_FEATURE_MOVE)) {
		close(fd);
		return -EOPNOTSUPP;
	}
	return fd;
}

/* The ranges of the plan for a target. */
static void find_ranges(const struct ckf_index *idx, uint32_t target, const struct ckf_huge **first,
			const struct ckf_huge **end)
{
	uint64_t lo = 0, hi = idx->nr_huge;

	while (lo < hi) {
		uint64_t mid = lo + (hi - lo) / 2;

		if (idx->huge[mid].target < target)
			lo = mid + 1;
		else
			hi = mid;
	}
	*first = &idx->huge[lo];
	while (lo < idx->nr_huge && idx->huge[lo].target == target)
		lo++;
	*end = &idx->huge[lo];
}

/* Of shared memory: a range that is filled all over. */
static int add_full(void *arg, const struct ckf_huge_part *part)
{
	struct fill_huge *h = arg;
	struct ckf_huge *last = h->nr_full ? &h->full[h->nr_full - 1] : NULL, *full;

	if (part->nr_pages != HUGE_PAGES)
		return 0;
	if (last && last->addr + (uint64_t)last->nr_huge * CKF_HUGE_BYTES == part->addr) {
		last->nr_huge++;
		return 0;
	}
	full = realloc(h->full, (h->nr_full + 1) * sizeof(*full));
	if (!full)
		return -ENOMEM;
	h->full = full;
	full[h->nr_full++] = (struct ckf_huge){ .addr = part->addr, .nr_huge = 1 };
	return 0;
}

/* Worth a few system calls, and maybe with room for huge pages. */
static bool is_large(const struct ckf_dest *d)
{
	return d->flags & CKF_DEST_HUGE && d->end - d->start >= CKF_HUGE_BYTES;
}

/* True where the plan has enough pages for the dest, huge or small. */
static bool is_worth_it(const struct fill_job *job, const struct ckf_dest *d)
{
	const struct ckf_target *t = job->target;
	const struct ckf_op *ops = job->img->idx->ops;
	uint64_t pages = 0;

	if (!is_large(d))
		return false;
	for (uint64_t i = ckf_index_find_op(job->img->idx, t, d->start);
	     i < t->first_op + t->nr_ops && ckf_op_addr(&ops[i]) < d->end; i++) {
		pages += ops[i].nr_pages;
		if (pages >= REGISTER_PAGES)
			return true;
	}
	return false;
}

/* What fill_huge_init() makes of the caller's dests. */
struct cutter {
	struct fill_job *job;
	size_t max_segs;
};

static enum fill_place dest_place(const struct ckf_dest *d)
{
	if (d->flags & CKF_DEST_SKIP)
		return d->flags & CKF_DEST_CHECK ? FILL_CHECK : FILL_SKIP;
	return d->flags & CKF_DEST_SHARED ? FILL_SHARED : FILL_PLAIN;
}

/* Segments for [start, end) of a dest, and a dest that leads there. */
static int add_segs(struct cutter *c, const struct ckf_dest *d, uint64_t start, uint64_t end,
		    enum fill_place place)
{
	const size_t nr = (size_t)((end - start) / CKF_HUGE_BYTES);
	struct fill_huge *h = &c->job->huge;
	struct fill_huge_seg *s;

	if (h->nr_segs + nr > c->max_segs) {
		c->max_segs = (h->nr_segs + nr) * 2;
		s = realloc(h->segs, c->max_segs * sizeof(*s));
		if (!s)
			return -ENOMEM;
		h->segs = s;
	}
	if (fill_add_dest(c->job, d, start, end, place, (uint32_t)h->nr_segs))
		return -ENOMEM;
	for (size_t i = 0; i < nr; i++) {
		s = &h->segs[h->nr_segs++];
		s->dst = d->addr + (start - d->start) + i * CKF_HUGE_BYTES;
		s->at = NULL;
		s->prot = (uint8_t)d->prot;
		atomic_init(&s->state, FILL_HUGE_NEW);
		atomic_init(&s->zeros, false);
		atomic_init(&s->left_bytes, CKF_HUGE_BYTES);
	}
	return 0;
}

/* The next part of d that lies in the ranges from *r on, in whole huge pages; false: there is none.
 * A range that goes on behind d stays the first one. */
static bool next_part(const struct ckf_dest *d, const struct ckf_huge **r,
		      const struct ckf_huge *end, uint64_t *a, uint64_t *b)
{
	const uint64_t mask = CKF_HUGE_BYTES - 1, from = *b;

	for (; *r < end && (*r)->addr < d->end; (*r)++) {
		const uint64_t range_end = (*r)->addr + (uint64_t)(*r)->nr_huge * CKF_HUGE_BYTES;

		*a = (*r)->addr < from ? (from + mask) & ~mask : (*r)->addr;
		*b = range_end < d->end ? range_end : d->end & ~mask;
		if (*a < *b)
			return true;
		if (range_end > d->end)
			return false;
	}
	return false;
}

static int cut_dest(struct cutter *c, const struct ckf_dest *d, const struct ckf_huge **r,
		    const struct ckf_huge *end, enum fill_place place)
{
	uint64_t at = d->start, a = 0, b = d->start;
	int ret = 0;

	while (!ret && next_part(d, r, end, &a, &b)) {
		ret = fill_add_dest(c->job, d, at, a, place, FILL_NO_SEG);
		if (!ret)
			ret = add_segs(c, d, a, b, place);
		at = b;
	}
	return ret ? ret : fill_add_dest(c->job, d, at, d->end, place, FILL_NO_SEG);
}

/* Only past the ranges. */
static void skip_dest(const struct ckf_dest *d, const struct ckf_huge **r,
		      const struct ckf_huge *end)
{
	while (*r < end && (*r)->addr + (uint64_t)(*r)->nr_huge * CKF_HUGE_BYTES <= d->end)
		(*r)++;
}

/* All of a dest, since a part would split the mapping. */
static bool register_dest(struct fill_huge *h, const struct ckf_dest *d)
{
	struct uffdio_register reg = {
		.range = { (uintptr_t)d->addr, d->end - d->start },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	struct uffdio_range *maps = realloc(h->maps, (h->nr_maps + 1) * sizeof(*maps));

	if (!maps)
		return false;
	h->maps = maps;
	if (ioctl(h->uffd, UFFDIO_REGISTER, &reg))
		return false;
	maps[h->nr_maps++] = reg.range;
	return true;
}

static int cut_dests(struct cutter *c, const struct ckf_huge *r, const struct ckf_huge *end)
{
	struct fill_huge *h = &c->job->huge;
	int ret = 0;

	for (size_t i = 0; i < c->job->nr_given && !ret; i++) {
		const struct ckf_dest *d = &c->job->given[i];
		enum fill_place place = dest_place(d);
		const bool large = place == FILL_PLAIN && is_worth_it(c->job, d);
		bool fits = large && !(((uintptr_t)d->addr ^ d->start) & (CKF_HUGE_BYTES - 1));

		if (h->uffd >= 0 && large) {
			if (register_dest(h, d))
				place = FILL_UFFD;
			else
				fits = false; /* nothing can be moved there */
		}
		if (fits) {
			ret = cut_dest(c, d, &r, end, place);
		} else {
			skip_dest(d, &r, end);
			ret = fill_add_dest(c->job, d, d->start, d->end, place, FILL_NO_SEG);
		}
	}
	return ret;
}

static int cut(struct cutter *c)
{
	struct fill_job *job = c->job;
	const struct ckf_index *idx = job->img->idx;
	struct fill_huge *h = &job->huge;
	const struct ckf_huge *r, *end;
	int ret = 0;

	if (job->target->kind == CKF_TARGET_SHMEM) {
		ret = ckf_index_each_huge(idx, job->target, add_full, h);
		r = h->full;
		end = h->full + h->nr_full;
	} else {
		find_ranges(idx, (uint32_t)(job->target - idx->targets), &r, &end);
	}
	return ret ? ret : cut_dests(c, r, end);
}

static bool wants_help(const struct fill_job *job)
{
	if (job->opts->flags & (CKF_FILL_NO_HUGE | CKF_FILL_FRUGAL))
		return false;
	for (size_t i = 0; i < job->nr_given; i++)
		if (is_worth_it(job, &job->given[i]))
			return true;
	return false;
}

/* The dests as they were given. */
static int take_all(struct fill_job *job)
{
	int ret = 0;

	job->planner.nr_dests = 0;
	for (size_t i = 0; i < job->nr_given && !ret; i++) {
		const struct ckf_dest *d = &job->given[i];

		ret = fill_add_dest(job, d, d->start, d->end, dest_place(d), FILL_NO_SEG);
	}
	return ret;
}

int fill_huge_init(struct fill_job *job, unsigned int workers)
{
	struct fill_huge *h = &job->huge;
	struct cutter c = { .job = job };

	if (!wants_help(job))
		return take_all(job);
	if (job->target->kind != CKF_TARGET_SHMEM && !(job->opts->flags & CKF_FILL_NO_MOVE))
		h->uffd = open_uffd();
	for (unsigned int i = 0; i < FILL_HUGE_LOCKS; i++)
		pthread_mutex_init(&h->locks[i], NULL);
	h->scratch = h->uffd >= 0 ? fill_scratch_new(workers) : NULL;
	if (cut(&c)) {
		fill_huge_fini(h);
		return take_all(job);
	}
	if (h->scratch)
		fill_scratch_limit(h->scratch, h->nr_segs);
	return 0;
}

/* Any failure is a wish for small pages: no support, no memory, a limit of the cgroup. */
static bool collapse(const struct fill_huge_seg *s)
{
	if (madvise(s->dst, CKF_PAGE_BYTES, MADV_POPULATE_WRITE))
		return false;
	for (int i = 0; i < COLLAPSE_TRIES; i++) {
		if (!madvise(s->dst, CKF_HUGE_BYTES, MADV_COLLAPSE))
			return true;
		if (errno != EAGAIN) /* a page that the kernel held for a moment */
			return false;
	}
	return false;
}

/* Where the segment is to be filled: a huge page that is there, or NULL. */
static char *make_huge(struct fill_huge *h, const struct fill_huge_seg *s)
{
	char *at;

	if (h->uffd < 0)
		return collapse(s) ? s->dst : NULL;
	at = h->scratch ? fill_scratch_take(h->scratch, s->prot) : NULL;
	if (at && madvise(at, CKF_HUGE_BYTES, MADV_POPULATE_WRITE)) {
		fill_scratch_give(h->scratch, s->prot, at, true);
		return NULL;
	}
	return at;
}

static enum fill_huge_state decide(struct fill_huge *h, struct fill_huge_seg *s)
{
	uint64_t start;

	if (fill_pace_choose(&h->pace) == FILL_WAY_SMALL)
		return FILL_HUGE_SMALL;
	start = ckf_cpu_ns();
	s->at = make_huge(h, s);
	if (!s->at)
		return FILL_HUGE_SMALL;
	fill_pace_tell(&h->pace, FILL_WAY_HUGE, CKF_HUGE_BYTES, ckf_cpu_ns() - start);
	return FILL_HUGE_READY;
}

char *fill_huge_ready(struct fill_huge *h, uint32_t seg)
{
	pthread_mutex_t *lock = &h->locks[seg % FILL_HUGE_LOCKS];
	struct fill_huge_seg *s = &h->segs[seg];

	if (atomic_load(&s->state) == FILL_HUGE_NEW) {
		pthread_mutex_lock(lock);
		if (atomic_load(&s->state) == FILL_HUGE_NEW)
			atomic_store(&s->state, decide(h, s));
		pthread_mutex_unlock(lock);
	}
	return atomic_load(&s->state) == FILL_HUGE_READY ? s->at : NULL;
}

/*
 * What to do where UFFDIO_COPY does not: the mapping gives up its registration, and from then on
 * is like any other, for all workers.
 */
static int copy_plainly(const struct fill_huge *h, char *dst, const char *src, uint64_t bytes)
{
	for (size_t i = 0; i < h->nr_maps; i++) {
		struct uffdio_range *m = &h->maps[i];

		if ((uintptr_t)dst - m->start < m->len && ioctl(h->uffd, UFFDIO_UNREGISTER, m))
			return -errno;
	}
	memcpy(dst, src, bytes);
	return 0;
}

static int copy(const struct fill_huge *h, char *dst, const char *src, uint64_t bytes)
{
	struct uffdio_copy cp = { .dst = (uintptr_t)dst, .src = (uintptr_t)src, .len = bytes };

	while (ioctl(h->uffd, UFFDIO_COPY, &cp)) {
		if (cp.copy > 0) {
			cp.dst += (uint64_t)cp.copy;
			cp.src += (uint64_t)cp.copy;
			cp.len -= (uint64_t)cp.copy;
		} else if (errno != EAGAIN) {
			return copy_plainly(h, (char *)(uintptr_t)cp.dst,
					    (const char *)(uintptr_t)cp.src, cp.len);
		}
		cp.copy = 0;
	}
	return 0;
}

int fill_huge_copy(struct fill_huge *h, char *dst, const char *src, uint64_t bytes)
{
	static _Thread_local unsigned int nr;
	uint64_t start;
	int ret;

	if (nr++ % COPIES_PER_SAMPLE)
		return copy(h, dst, src, bytes);
	start = ckf_cpu_ns();
	ret = copy(h, dst, src, bytes);
	fill_pace_tell(&h->pace, FILL_WAY_SMALL, bytes * COPIES_PER_SAMPLE,
		       (ckf_cpu_ns() - start) * COPIES_PER_SAMPLE);
	return ret;
}

void fill_huge_zeros(const struct fill_huge *h, char *dst, uint64_t bytes)
{
	/* Neither written nor const, and thus one page of zeros many times. */
	static char zeros[ZEROS_BYTES];

	while (bytes) {
		struct uffdio_copy cp = { .dst = (uintptr_t)dst,
					  .src = (uintptr_t)zeros,
					  .len = bytes < ZEROS_BYTES ? bytes : ZEROS_BYTES };
		uint64_t done = cp.len;

		if (ioctl(h->uffd, UFFDIO_COPY, &cp)) {
			if (cp.copy > 0)
				done = (uint64_t)cp.copy;
			else if (errno == EEXIST)
				done = CKF_PAGE_BYTES;
			else if (errno == EAGAIN)
				done = 0;
			else
				break;
		}
		dst += done;
		bytes -= done;
	}
	if (bytes)
		fill_populate(dst, bytes);
}

/* The zeros of a segment in small pages: what is not there of it when all else is. */
static void make_missing(struct fill_huge *h, const struct fill_huge_seg *s)
{
	const uint64_t start = ckf_cpu_ns();
	unsigned char there[HUGE_PAGES];
	uint64_t made = 0;
	size_t n;

	if (h->uffd < 0) {
		fill_populate(s->dst, CKF_HUGE_BYTES);
		return;
	}
	/* A page that was swapped out is not there either: fill_huge_zeros() leaves it alone. */
	if (mincore(s->dst, CKF_HUGE_BYTES, there))
		memset(there, 0, sizeof(there));
	for (size_t i = 0; i < HUGE_PAGES; i += n) {
		for (n = 1; i + n < HUGE_PAGES && !((there[i + n] ^ there[i]) & 1); n++)
			;
		if (there[i] & 1)
			continue;
		fill_huge_zeros(h, s->dst + ckf_pages_to_bytes(i), ckf_pages_to_bytes(n));
		made += ckf_pages_to_bytes(n);
	}
	fill_pace_tell(&h->pace, FILL_WAY_SMALL, made, ckf_cpu_ns() - start);
}

/* The pages from scratch memory to their place. *moved: none had to be copied. */
static int move(struct fill_huge *h, const struct fill_huge_seg *s, bool *moved)
{
	struct timespec pause = { .tv_nsec = 1000000 };
	uint64_t done = 0;
	int busy = 0;

	while (done < CKF_HUGE_BYTES) {
		struct uffdio_move mv = { .dst = (uintptr_t)s->dst + done,
					  .src = (uintptr_t)s->at + done,
					  .len = CKF_HUGE_BYTES - done,
					  .mode = UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES };
		bool again;

		if (!ioctl(h->uffd, UFFDIO_MOVE, &mv))
			break;
		again = errno == EAGAIN || errno == EBUSY;
		if (mv.move > 0) {
			done += (uint64_t)mv.move;
			busy = 0;
		} else if (again && ++busy <= BUSY_TRIES) {
			nanosleep(&pause, NULL);
		} else {
			*moved = false;
			return copy(h, s->dst + done, s->at + done, CKF_HUGE_BYTES - done);
		}
	}
	*moved = true;
	return 0;
}

/* The last of a segment has come. */
static int finish(struct fill_huge *h, uint32_t seg, struct ckf_fill_stats *stats)
{
	struct fill_huge_seg *s = &h->segs[seg];
	bool moved = true;
	int ret = 0;

	if (!fill_huge_ready(h, seg)) {
		if (atomic_load(&s->zeros))
			make_missing(h, s);
		return 0;
	}
	if (s->at != s->dst) {
		ret = move(h, s, &moved);
		fill_scratch_give(h->scratch, s->prot, s->at, !moved);
	}
	if (moved)
		stats->huge_pages++;
	return ret;
}

int fill_huge_done(struct fill_huge *h, uint32_t seg, uint64_t bytes, struct ckf_fill_stats *stats,
		   struct ckf_error *err)
{
	struct fill_huge_seg *s = &h->segs[seg];
	int ret;

	if (atomic_fetch_sub(&s->left_bytes, (uint32_t)bytes) != bytes)
		return 0;
	ret = finish(h, seg, stats);
	return ret ? ckf_error_set(err, ret, "cannot make memory at 0x%llx: %s",
				   (unsigned long long)(uintptr_t)s->dst, strerror(-ret))
		   : 0;
}

int fill_huge_zero(struct fill_huge *h, uint32_t seg, uint64_t bytes, struct ckf_fill_stats *stats,
		   struct ckf_error *err)
{
	atomic_store(&h->segs[seg].zeros, true);
	return fill_huge_done(h, seg, bytes, stats, err);
}

void fill_huge_fini(struct fill_huge *h)
{
	/* Explicitly: an exiting worker may hold the descriptor for a moment longer. */
	for (size_t i = 0; i < h->nr_maps; i++)
		(void)ioctl(h->uffd, UFFDIO_UNREGISTER, &h->maps[i]);
	fill_scratch_free(h->scratch);
	if (h->uffd >= 0)
		close(h->uffd);
	free(h->maps);
	free(h->segs);
	free(h->full);
	*h = (struct fill_huge){ .uffd = -1 };
}
