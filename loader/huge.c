/* SPDX-License-Identifier: MIT */
/*
 * Huge pages without a trace.
 *
 * Where the plan fills a whole aligned 2 MiB range, the pages are first filled in scratch memory
 * that has MADV_HUGEPAGE, and then moved to their place with UFFDIO_MOVE (Linux 6.8 and later): a
 * page table operation. The mapping that they end in never had its own flags changed.
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
 * Zeros are not written: what is not there yet of a segment that is full is populated at the end.
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
#include "madvise.h"

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
#define SEG_MAX_BYTES (16ull << 20) /* small, so that moving starts early */
#define BUSY_TRIES 100		    /* a page may stay pinned for a moment after a direct read */
#define COLLAPSE_TRIES 3

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

/* A 2 MiB range while the ops that fill it go by. */
struct bucket {
	uint64_t addr;
	uint64_t pages;
};

static int end_bucket(struct fill_huge *h, const struct bucket *b)
{
	struct ckf_huge *last = h->nr_full ? &h->full[h->nr_full - 1] : NULL, *full;

	if (b->pages != HUGE_PAGES)
		return 0;
	if (last && last->addr + (uint64_t)last->nr_huge * CKF_HUGE_BYTES == b->addr) {
		last->nr_huge++;
		return 0;
	}
	full = realloc(h->full, (h->nr_full + 1) * sizeof(*full));
	if (!full)
		return -ENOMEM;
	h->full = full;
	full[h->nr_full++] = (struct ckf_huge){ .addr = b->addr, .nr_huge = 1 };
	return 0;
}

/* The ranges of shared memory that are filled all over. */
static int find_full(struct fill_huge *h, const struct ckf_index *idx, const struct ckf_target *t)
{
	struct bucket b = { 0 };
	int ret = 0;

	for (uint64_t i = t->first_op; i < t->first_op + t->nr_ops && !ret; i++) {
		const struct ckf_op *op = &idx->ops[i];
		uint64_t at = ckf_op_addr(op), end = ckf_op_end(op), to;

		for (; at < end && !ret; at = to) {
			uint64_t addr = at - at % CKF_HUGE_BYTES;

			if (addr != b.addr) {
				ret = end_bucket(h, &b);
				b = (struct bucket){ .addr = addr };
			}
			to = addr + CKF_HUGE_BYTES < end ? addr + CKF_HUGE_BYTES : end;
			b.pages += (to - at) >> CKF_PAGE_SHIFT;
		}
	}
	return ret ? ret : end_bucket(h, &b);
}

/* Worth a few system calls, and maybe with room for huge pages. */
static bool is_large(const struct ckf_dest *d)
{
	return d->flags & CKF_DEST_HUGE && d->end - d->start >= CKF_HUGE_BYTES;
}

static int add_seg(struct fill_huge *h, uint64_t start, uint64_t bytes, char *dst)
{
	struct fill_huge_seg *segs;

	segs = realloc(h->segs, (h->nr_segs + 1) * sizeof(*segs));
	if (!segs)
		return -ENOMEM;
	h->segs = segs;
	segs[h->nr_segs].start = start;
	segs[h->nr_segs].bytes = bytes;
	segs[h->nr_segs].dst = dst;
	segs[h->nr_segs].scratch = dst;
	segs[h->nr_segs].state = FILL_HUGE_NEW;
	atomic_init(&segs[h->nr_segs++].left_bytes, bytes);
	return 0;
}

/* The parts of the ranges from *r on that lie in d. */
static int collect_dest(struct fill_huge *h, const struct ckf_dest *d, const struct ckf_huge **r,
			const struct ckf_huge *end)
{
	const uint64_t mask = CKF_HUGE_BYTES - 1;
	/* Where they are made in place, one at a time: see make_ready() in lane.c. */
	const uint64_t max = h->uffd >= 0 ? SEG_MAX_BYTES : CKF_HUGE_BYTES;
	uint64_t a, b, range_end, bytes;
	int ret;

	for (; *r < end; (*r)++) {
		a = (*r)->addr;
		range_end = a + (uint64_t)(*r)->nr_huge * CKF_HUGE_BYTES;
		if (a >= d->end)
			return 0;
		b = range_end < d->end ? range_end : d->end & ~mask;
		if (a < d->start)
			a = (d->start + mask) & ~mask;
		if (d->flags & CKF_DEST_HUGE && (((uintptr_t)d->addr ^ d->start) & mask) == 0) {
			for (; a < b; a += bytes) {
				bytes = b - a < max ? b - a : max;
				ret = add_seg(h, a, bytes, d->addr + (a - d->start));
				if (ret)
					return ret;
			}
		}
		if (range_end > d->end) /* goes on in the next dest */
			return 0;
	}
	return 0;
}

/* All of a dest, since a part would split the mapping. */
static int register_dest(struct fill_huge *h, struct ckf_dest *d)
{
	struct uffdio_register reg = {
		.range = { (uintptr_t)d->addr, d->end - d->start },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	struct fill_huge_map *maps;

	maps = realloc(h->maps, (h->nr_maps + 1) * sizeof(*maps));
	if (!maps)
		return -ENOMEM;
	h->maps = maps;
	if (ioctl(h->uffd, UFFDIO_REGISTER, &reg))
		return -errno;
	maps[h->nr_maps++] = (struct fill_huge_map){ .dst = d->addr,
						     .dst_bytes = d->end - d->start };
	d->flags |= FILL_REGISTERED;
	return 0;
}

/* Scratch memory for segs[first..]: all of one dest, the one registered last, with its protection,
 * as UFFDIO_MOVE wants. */
static int map_scratch(struct fill_huge *h, size_t first, const struct ckf_dest *d)
{
	struct fill_huge_map *m = &h->maps[h->nr_maps - 1];
	uint64_t bytes = 0;
	char *map, *p;

	for (size_t i = first; i < h->nr_segs; i++)
		bytes += h->segs[i].bytes;
	map = mmap(NULL, bytes + CKF_HUGE_BYTES, (int)d->prot,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED)
		return -errno;
	m->map = map;
	m->map_bytes = bytes + CKF_HUGE_BYTES;
	p = (char *)ckf_align_up((uintptr_t)map, CKF_HUGE_BYTES);
	/* Refused where the kernel has no huge pages: then small pages are moved, no harm. */
	(void)madvise(p, bytes, MADV_HUGEPAGE);
	for (size_t i = first; i < h->nr_segs; i++) {
		h->segs[i].scratch = p;
		h->segs[i].state = FILL_HUGE_READY;
		p += h->segs[i].bytes;
	}
	return 0;
}

static int collect_dests(struct fill_job *job, const struct ckf_huge *r, const struct ckf_huge *end)
{
	struct fill_huge *h = &job->huge;
	size_t first;
	int ret;

	for (size_t i = 0; i < job->nr_dests; i++) {
		struct ckf_dest *d = &job->dests[i].d;

		first = h->nr_segs;
		ret = collect_dest(h, d, &r, end);
		if (!ret && h->uffd >= 0 && h->nr_segs > first) {
			ret = register_dest(h, d);
			if (!ret)
				ret = map_scratch(h, first, d);
		} else if (!ret && h->uffd >= 0 && is_large(d)) {
			(void)register_dest(h, d); /* or else without */
		}
		if (ret)
			return ret;
	}
	return 0;
}

static int collect(struct fill_job *job)
{
	const struct ckf_index *idx = job->img->idx;
	struct fill_huge *h = &job->huge;
	const struct ckf_huge *r, *end;
	int ret = 0;

	if (job->target->kind == CKF_TARGET_SHMEM) {
		ret = find_full(h, idx, job->target);
		r = h->full;
		end = h->full + h->nr_full;
	} else {
		find_ranges(idx, (uint32_t)(job->target - idx->targets), &r, &end);
	}
	if (!ret)
		ret = collect_dests(job, r, end);
	for (size_t i = 0; i < h->nr_segs; i++)
		pthread_mutex_init(&h->segs[i].lock, NULL);
	return ret;
}

/* job->dests with every segment as a dest of its own that leads to the scratch memory. */
static int redirect(struct fill_job *job)
{
	const struct fill_huge *h = &job->huge;
	struct fill_dest *out;
	size_t n = 0;
	uint32_t s = 0;

	out = calloc(job->nr_dests + 2 * h->nr_segs, sizeof(*out));
	if (!out)
		return -ENOMEM;
	for (size_t i = 0; i < job->nr_dests; i++) {
		struct ckf_dest d = job->dests[i].d;

		for (; s < h->nr_segs && h->segs[s].start < d.end; s++) {
			const struct fill_huge_seg *seg = &h->segs[s];

			if (seg->start > d.start) {
				out[n].d = d;
				out[n++].d.end = seg->start;
			}
			out[n].seg = s;
			out[n].d = d;
			out[n].d.start = seg->start;
			out[n].d.end = seg->start + seg->bytes;
			out[n].d.addr = seg->scratch;
			out[n].d.flags |= FILL_SEG;
			d.addr += out[n].d.end - d.start;
			d.start = out[n++].d.end;
		}
		if (d.start < d.end)
			out[n++].d = d;
	}
	free(job->dests);
	job->dests = out;
	job->nr_dests = n;
	return 0;
}

static bool wants_help(const struct fill_job *job)
{
	if (job->opts->flags & (CKF_FILL_NO_HUGE | CKF_FILL_FRUGAL))
		return false;
	for (size_t i = 0; i < job->nr_dests; i++)
		if (is_large(&job->dests[i].d))
			return true;
	return false;
}

int fill_huge_init(struct fill_job *job, struct ckf_error *err)
{
	struct fill_huge *h = &job->huge;
	int ret;

	if (!wants_help(job))
		return 0;
	if (job->target->kind != CKF_TARGET_SHMEM && !(job->opts->flags & CKF_FILL_NO_MOVE))
		h->uffd = open_uffd();
	ret = collect(job);
	if (!ret && h->nr_segs)
		ret = redirect(job);
	if (ret)
		return ckf_error_set(err, ret, "cannot prepare huge pages: %s", strerror(-ret));
	return 0;
}

/* Any failure is a wish for small pages: no support, no memory, a limit of the cgroup. */
static bool collapse(const struct fill_huge_seg *s)
{
	for (uint64_t off = 0; off < s->bytes; off += CKF_HUGE_BYTES)
		if (madvise(s->dst + off, CKF_PAGE_BYTES, MADV_POPULATE_WRITE))
			return false;
	for (int i = 0; i < COLLAPSE_TRIES; i++) {
		if (!madvise(s->dst, s->bytes, MADV_COLLAPSE))
			return true;
		if (errno != EAGAIN) /* a page that the kernel held for a moment */
			return false;
	}
	return false;
}

bool fill_huge_ready(struct fill_huge *h, uint32_t seg)
{
	struct fill_huge_seg *s = &h->segs[seg];
	bool ready;

	pthread_mutex_lock(&s->lock);
	if (s->state == FILL_HUGE_NEW)
		s->state = collapse(s) ? FILL_HUGE_READY : FILL_HUGE_REFUSED;
	ready = s->state == FILL_HUGE_READY;
	pthread_mutex_unlock(&s->lock);
	return ready;
}

int fill_huge_copy(const struct fill_huge *h, char *dst, const char *src, uint64_t bytes)
{
	struct uffdio_copy cp = { .dst = (uintptr_t)dst, .src = (uintptr_t)src, .len = bytes };

	while (ioctl(h->uffd, UFFDIO_COPY, &cp)) {
		if (errno != EAGAIN)
			return -errno;
		if (cp.copy > 0) {
			cp.dst += (uint64_t)cp.copy;
			cp.src += (uint64_t)cp.copy;
			cp.len -= (uint64_t)cp.copy;
		}
	}
	return 0;
}

static int move_seg(const struct fill_huge *h, const struct fill_huge_seg *seg)
{
	struct timespec pause = { .tv_nsec = 1000000 };
	uint64_t done = 0;
	int busy = 0;

	while (done < seg->bytes) {
		struct uffdio_move mv = { .dst = (uintptr_t)seg->dst + done,
					  .src = (uintptr_t)seg->scratch + done,
					  .len = seg->bytes - done,
					  .mode = UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES };

		if (!ioctl(h->uffd, UFFDIO_MOVE, &mv))
			return 0;
		if (errno != EAGAIN && errno != EBUSY)
			return -errno;
		if (mv.move > 0) {
			done += (uint64_t)mv.move;
			busy = 0;
		} else if (++busy > BUSY_TRIES) {
			return fill_huge_copy(h, seg->dst + done, seg->scratch + done,
					      seg->bytes - done);
		} else {
			nanosleep(&pause, NULL);
		}
	}
	return 0;
}

int fill_huge_done(struct fill_huge *h, uint32_t seg, uint64_t bytes, struct ckf_fill_stats *stats,
		   struct ckf_error *err)
{
	struct fill_huge_seg *s = &h->segs[seg];
	const bool in_place = s->scratch == s->dst;
	int ret = 0;

	if (atomic_fetch_sub(&s->left_bytes, bytes) != bytes)
		return 0;
	if (in_place && fill_huge_ready(h, seg)) {
		stats->huge_pages += s->bytes / CKF_HUGE_BYTES;
		return 0;
	}
	fill_populate(s->scratch, s->bytes);
	if (in_place)
		return 0;
	ret = move_seg(h, s);
	if (ret)
		return ckf_error_set(err, ret, "cannot move huge pages to 0x%llx: %s",
				     (unsigned long long)s->start, strerror(-ret));
	stats->huge_pages += s->bytes / CKF_HUGE_BYTES;
	return 0;
}

void fill_huge_fini(struct fill_huge *h)
{
	for (size_t i = 0; i < h->nr_maps; i++) {
		struct uffdio_range range = { (uintptr_t)h->maps[i].dst, h->maps[i].dst_bytes };

		/* Explicitly: an exiting worker may hold the descriptor for a moment longer. */
		(void)ioctl(h->uffd, UFFDIO_UNREGISTER, &range);
		if (h->maps[i].map)
			munmap(h->maps[i].map, h->maps[i].map_bytes);
	}
	if (h->uffd >= 0)
		close(h->uffd);
	for (size_t i = 0; i < h->nr_segs; i++)
		pthread_mutex_destroy(&h->segs[i].lock);
	free(h->maps);
	free(h->segs);
	free(h->full);
}
