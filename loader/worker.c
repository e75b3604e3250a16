/* SPDX-License-Identifier: MIT */
/*
 * One worker of a fill: takes lanes, keeps reads in flight, and turns what arrives into checked
 * memory. Runs in a thread of its own or in the caller's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "format/ckf_sum.h"
#include "base/ckf_io.h"
#include "copy.h"
#include "base/ckf_io_util.h"
#include "base/ckf_threads.h"
#include "ckf_read.h"
#include "worker.h"

struct worker {
	struct fill_job *job;
	struct ckf_codec_ctx *codec;
	struct ckf_sum *hash;
	struct ckf_io *io;
	struct ckf_packs packs;
	bool in_caller; /* in the thread that called ckf_fill() */
	unsigned int depth;
	struct fill_request *idle[FILL_DEPTH];
	unsigned int nr_idle;
	struct fill_lane lane;
	struct fill_lane zeros; /* of a lane without anything to read */
	char *map;		/* holds the requests, their slots, and the decode buffer; or */
	size_t map_bytes;
	char *heap; /* does */
	char *decoded;
	struct ckf_fill_stats stats;
	struct ckf_error err;
	struct fill_copy copy; /* large, and last */
};

/* What a small fill reads, at most. */
static uint64_t read_bytes(const struct fill_job *job)
{
	const struct ckf_lane *l = &job->img->idx->lanes[job->target->first_lane];
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < job->target->nr_lanes; i++)
		bytes += l[i].read_bytes;
	return bytes;
}

/*
 * In small pages: only what is used is ever there, and a huge page may cost more than all reads of
 * a small fill (see pace.c). Such a fill gets at once what its reads use, but for large chunks that
 * are not raw. Its buffers are not in the heap, which a process that has just been forked shares
 * with its parent: to find a large block there, malloc() writes to pages all over it, and each
 * becomes a page of its own.
 */
static char *map_room(struct worker *w, size_t bytes, size_t slots_at)
{
	char *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t used, most;

	if (map == MAP_FAILED)
		return NULL;
	w->map = map;
	w->map_bytes = bytes;
	if (w->job->small && !fill_is_frugal(w->job)) {
		used = read_bytes(w->job);
		most = fill_request_bytes(w->job);
		fill_populate(map + slots_at, used < most ? used : most);
	}
	return map;
}

/* Page by page, as direct reads want them: the requests, their slots, and the decode buffer. */
static int alloc_room(struct worker *w)
{
	const size_t slot = w->job->slot_bytes;
	const size_t slots_at = ckf_align_up(w->depth * sizeof(struct fill_request),
					     CKF_PAGE_BYTES);
	const size_t decoded_at = slots_at + w->depth * slot;
	const size_t bytes = decoded_at + ckf_pages_to_bytes(w->job->img->idx->max_chunk_pages);
	struct fill_request *req;
	char *room;

	/* The next fill of this process finds pages of the heap still there. */
	if (w->in_caller && !w->job->small) {
		w->heap = malloc(bytes + CKF_PAGE_BYTES);
		room = w->heap ? (char *)ckf_align_up((uintptr_t)w->heap, CKF_PAGE_BYTES) : NULL;
	} else {
		room = map_room(w, bytes, slots_at);
	}
	if (!room)
		return -ENOMEM;
	w->decoded = room + decoded_at;
	/* Not cleared: fill_lane_next() sets what counts. */
	req = (struct fill_request *)room;
	for (unsigned int i = 0; i < w->depth; i++) {
		req[i].slot = room + slots_at + i * slot;
		w->idle[w->nr_idle++] = &req[i];
	}
	return 0;
}

static int alloc_buffers(struct worker *w)
{
	w->hash = ckf_sum_new();
	if (!w->hash || ckf_codec_ctx_new(&w->codec))
		return -ENOMEM;
	return alloc_room(w);
}

static int worker_init(struct worker *w, struct fill_job *job, bool may_uring)
{
	int ret;

	/* The iovs of copies are left alone: each page of a new stack costs a fault. */
	memset(w, 0, offsetof(struct worker, copy));
	fill_copy_init(&w->copy);
	w->job = job;
	w->in_caller = !may_uring;
	w->lane = (struct fill_lane){ .job = job, .stats = &w->stats };
	w->zeros = w->lane;
	w->stats.uring = may_uring && job->packs_io.uring && !fill_is_frugal(job);
	if (job->file > 0) {
		w->copy.file = job->file;
		w->copy.file_at = job->given->addr - job->given->start;
	}
	w->depth = w->stats.uring ? FILL_DEPTH : 1;
	ret = ckf_packs_init(&w->packs, job->img, job->dir_fd, &job->packs_io);
	if (!ret)
		ret = alloc_buffers(w);
	if (!ret)
		ret = ckf_io_new(w->depth, w->stats.uring ? CKF_IO_URING_NO_THREADS : CKF_IO_PLAIN,
				 &w->io);
	if (ret)
		return ckf_error_set(&w->err, ret, "cannot start a worker: %s", strerror(-ret));
	w->stats.uring = ckf_io_is_uring(w->io);
	return 0;
}

static void worker_fini(struct worker *w)
{
	ckf_io_free(w->io);
	if (w->map)
		munmap(w->map, w->map_bytes);
	free(w->heap);
	free(w->lane.lane.pieces);
	free(w->zeros.lane.pieces);
	ckf_sum_free(w->hash);
	ckf_codec_ctx_free(w->codec);
	w->stats.direct = w->packs.direct;
	ckf_packs_fini(&w->packs);
}

static struct ckf_packs_read read_of(const struct fill_request *req)
{
	return (struct ckf_packs_read){ req->iovs, req->nr_iovs, req->base, req->pack_off,
					req->bytes };
}

static int huge_done(struct worker *w, const struct fill_piece *p)
{
	if (p->seg == FILL_NO_SEG)
		return 0;
	return fill_huge_done(&w->job->huge, p->seg, ckf_pages_to_bytes(p->nr_pages), &w->stats,
			      &w->err);
}

/* Only the pages that are something else than what is there. */
static int write_changed(struct worker *w, char *dst, const char *src, uint64_t bytes)
{
	int ret = 0;

	for (uint64_t off = 0; off < bytes && !ret; off += CKF_PAGE_BYTES) {
		if (!memcmp(dst + off, src + off, CKF_PAGE_BYTES)) {
			w->stats.shared_bytes += CKF_PAGE_BYTES;
		} else {
			w->stats.filled_bytes += CKF_PAGE_BYTES;
			ret = fill_copy_add(&w->copy, dst + off, src + off, CKF_PAGE_BYTES);
		}
	}
	return ret;
}

/* Puts the pages of a piece, which are at src, into their place. */
static int put(struct worker *w, const struct fill_piece *p, const char *src)
{
	const uint64_t bytes = ckf_pages_to_bytes(p->nr_pages);
	int ret = 0;

	switch (p->place) {
	case FILL_SKIP:
	case FILL_CHECK:
		return 0;
	case FILL_SHARED:
		return write_changed(w, p->dst, src, bytes);
	case FILL_PLAIN:
		ret = fill_copy_add(&w->copy, p->dst, src, bytes);
		break;
	case FILL_UFFD:
		ret = fill_huge_copy(&w->job->huge, p->dst, src, bytes);
		break;
	case FILL_HUGE:
		memcpy(p->dst, src, bytes);
		break;
	case FILL_READ:
		break;
	}
	w->stats.filled_bytes += bytes;
	return ret ? ret : huge_done(w, p);
}

/* The copies that wait, which tell what small pages cost where none are copied by
 * fill_huge_copy(). */
static int flush(struct worker *w)
{
	struct fill_huge *h = &w->job->huge;
	const uint64_t bytes = w->copy.bytes;
	uint64_t start;
	int ret;

	if (!bytes || h->uffd >= 0 || !h->nr_segs)
		return fill_copy_flush(&w->copy);
	start = ckf_cpu_ns();
	ret = fill_copy_flush(&w->copy);
	fill_pace_tell(&h->pace, FILL_WAY_SMALL, bytes, ckf_cpu_ns() - start);
	return ret;
}

static int copy_error(struct worker *w, int ret)
{
	return ckf_error_set(&w->err, ret, "cannot write memory of %s %llu: %s",
			     ckf_target_kind_name(w->job->target->kind),
			     (unsigned long long)w->job->target->id, strerror(-ret));
}

static int finish_in_place(struct worker *w, const struct fill_piece *p, size_t n)
{
	int ret;

	ckf_sum_reset(w->hash);
	for (size_t i = 0; i < n; i++)
		ckf_sum_update(w->hash, p[i].dst, ckf_pages_to_bytes(p[i].nr_pages));
	ret = ckf_chunk_check(w->job->img->idx, p->chunk, ckf_sum_value(w->hash), &w->err);
	for (size_t i = 0; i < n && !ret; i++)
		ret = put(w, &p[i], p[i].dst);
	return ret;
}

/* All pieces of one chunk whose stored bytes are at src. */
static int finish_decode(struct worker *w, const struct fill_piece *p, size_t n, const char *src)
{
	const struct ckf_index *idx = w->job->img->idx;
	const struct ckf_chunk *c = &idx->chunks[p->chunk];
	size_t bytes = ckf_pages_to_bytes(c->nr_pages);
	bool whole = n == 1 && p->nr_pages == c->nr_pages && fill_may_touch(w->job, c, p->place);
	char *dst = whole ? p->dst : w->decoded;
	const char *data = src;
	int ret = 0;

	if (c->codec != CKF_CODEC_RAW) {
		ret = ckf_chunk_decode(idx, p->chunk, w->codec, src, dst, &w->err);
		data = dst;
	}
	if (!ret)
		ret = ckf_chunk_check(idx, p->chunk, ckf_hash64(data, bytes), &w->err);
	if (ret)
		return ret;
	if (data == p->dst) {
		w->stats.filled_bytes += bytes;
		return huge_done(w, p);
	}
	for (size_t i = 0; i < n && !ret; i++)
		ret = put(w, &p[i], data + ckf_pages_to_bytes(p[i].first_page));
	/* The decode buffer is about to be used again. */
	if (!ret && data == w->decoded)
		ret = flush(w);
	return ret ? copy_error(w, ret) : 0;
}

static int finish_request(struct worker *w, struct fill_request *req, int res)
{
	const struct ckf_chunk *chunks = w->job->img->idx->chunks;
	const struct ckf_packs_read rd = read_of(req);
	const struct fill_piece *p;
	unsigned int i, n;
	int ret;

	ret = ckf_packs_finish(&w->packs, &rd, res, &w->err);
	w->stats.read_bytes += req->bytes;
	atomic_fetch_add(&w->job->progress, 1);
	for (i = 0; i < req->nr_pieces && !ret; i += n) {
		p = &req->pieces[i];
		for (n = 1; i + n < req->nr_pieces && p[n].chunk == p->chunk; n++)
			;
		if (p->place == FILL_READ)
			ret = finish_in_place(w, p, n);
		else
			ret = finish_decode(
				w, p, n, req->slot + (chunks[p->chunk].pack_off - req->pack_off));
	}
	if (!ret) {
		ret = flush(w);
		if (ret)
			copy_error(w, ret);
	}
	w->idle[w->nr_idle++] = req;
	return ret;
}

/* What of a pack is in the page cache is copied from there: the disk has enough to do with the
 * rest. */
static int fd_for(struct worker *w, const struct fill_request *req)
{
	int fd;

	if (!req->cached && !w->job->packs_io.direct[req->base])
		return ckf_packs_fd(&w->packs, req->base, &w->err);
	fd = ckf_packs_buffered_fd(&w->packs, req->base, &w->err);
	if (fd < 0 || req->cached)
		return fd;
	if (!ckf_range_is_cached(fd, req->pack_off, req->bytes))
		return ckf_packs_fd(&w->packs, req->base, &w->err);
	w->stats.cached_bytes += req->bytes;
	return fd;
}

/* Puts those pages of a piece that are in [first, first + nr) of its chunk. src has page first. */
static int put_part(struct worker *w, const struct fill_piece *p, uint32_t first, uint32_t nr,
		    const char *src)
{
	const uint32_t from = p->first_page > first ? p->first_page : first;
	const uint32_t p_end = p->first_page + (uint32_t)p->nr_pages;
	const uint32_t end = p_end < first + nr ? p_end : first + nr;
	struct fill_piece part = *p;

	if (from >= end)
		return 0;
	part.first_page = (uint16_t)from;
	part.nr_pages = (uint16_t)(end - from);
	if (p->dst)
		part.dst += ckf_pages_to_bytes(from - p->first_page);
	return put(w, &part, src + ckf_pages_to_bytes(from - first));
}

/* Reads a part of the request into its slot. */
static int read_part(struct worker *w, struct fill_request *req, int fd, uint64_t off, size_t bytes)
{
	const struct iovec iov = { req->slot, bytes };
	const struct ckf_packs_read rd = { &iov, 1, req->base, off, bytes };
	void *tag;
	int ret, res;

	ret = ckf_io_submit(w->io, fd, &iov, 1, off, req);
	if (!ret)
		ret = ckf_io_wait(w->io, &tag, &res);
	if (ret)
		return ckf_packs_error(&w->packs, &rd, ret, &w->err);
	w->stats.read_bytes += bytes;
	atomic_fetch_add(&w->job->progress, 1);
	return ckf_packs_finish(&w->packs, &rd, res, &w->err);
}

/*
 * Reads a raw chunk part by part, as the slot holds it. The parts are in place before the checksum
 * of all of them is known: with a wrong one the fill fails.
 */
static int fill_in_parts(struct worker *w, struct fill_request *req)
{
	const struct ckf_index *idx = w->job->img->idx;
	const uint32_t chunk = req->pieces[0].chunk, nr_pages = idx->chunks[chunk].nr_pages;
	const uint32_t most = (uint32_t)(fill_request_bytes(w->job) / CKF_PAGE_BYTES);
	const int fd = fd_for(w, req);
	int ret = fd < 0 ? fd : 0;
	uint32_t nr;

	ckf_sum_reset(w->hash);
	for (uint32_t first = 0; first < nr_pages && !ret; first += nr) {
		nr = nr_pages - first < most ? nr_pages - first : most;
		ret = read_part(w, req, fd, req->pack_off + ckf_pages_to_bytes(first),
				ckf_pages_to_bytes(nr));
		if (ret)
			return ret;
		ckf_sum_update(w->hash, req->slot, ckf_pages_to_bytes(nr));
		for (unsigned int i = 0; i < req->nr_pieces && !ret; i++)
			ret = put_part(w, &req->pieces[i], first, nr, req->slot);
		if (!ret)
			ret = flush(w);
		if (ret)
			return copy_error(w, ret);
	}
	return ret ? ret : ckf_chunk_check(idx, chunk, ckf_sum_value(w->hash), &w->err);
}

/* The next lane that nobody has: with something to read, or with nothing but zeros. NULL: there is
 * none. */
static const struct ckf_lane *next_lane(struct fill_job *job, bool zeros)
{
	atomic_uint *next = zeros ? &job->next_zeros : &job->next_lane;
	const struct ckf_lane *l;
	unsigned int i;

	while ((i = atomic_fetch_add(next, 1)) < job->target->nr_lanes) {
		l = &job->img->idx->lanes[job->target->first_lane + i];
		if (zeros == !l->read_bytes)
			return l;
	}
	return NULL;
}

/* The next read of this worker: of its lane, or of the next one. 1: there is none. */
static int next_request(struct worker *w, struct fill_request *req)
{
	const struct ckf_lane *l;
	int ret;

	while (!fill_lane_next(&w->lane, req)) {
		if (w->in_caller)
			w->job->grow(w->job);
		l = next_lane(w->job, false);
		if (!l)
			return 1;
		ret = fill_lane_load(&w->lane, l, &w->err);
		if (ret)
			return ret;
	}
	return 0;
}

static int submit(struct worker *w, struct fill_request *req)
{
	const struct ckf_packs_read rd = read_of(req);
	int fd = fd_for(w, req);
	int ret;

	if (fd < 0)
		return fd;
	ret = ckf_io_submit(w->io, fd, req->iovs, req->nr_iovs, req->pack_off, req);
	return ret ? ckf_packs_error(&w->packs, &rd, ret, &w->err) : 0;
}

/* Makes the zeros of a lane, while the disk is busy: 0, or 1 where there are none left. */
static int load_zeros(struct worker *w)
{
	const struct ckf_lane *l = next_lane(w->job, true);

	return l ? fill_lane_load(&w->zeros, l, &w->err) : 1;
}

static int fill_lanes(struct worker *w)
{
	struct fill_request *req;
	unsigned int done = 0;
	bool more = true, zeros = true;
	void *tag;
	int ret, res;

	for (;;) {
		while (more && w->nr_idle) {
			if (atomic_load(&w->job->failed))
				return -ECANCELED;
			req = w->idle[w->nr_idle - 1];
			ret = next_request(w, req);
			if (ret < 0)
				return ret;
			if (ret) {
				more = false;
				break;
			}
			ret = req->in_parts ? fill_in_parts(w, req) : submit(w, req);
			if (ret)
				return ret;
			w->nr_idle -= !req->in_parts;
		}
		/* A lane now and then, so that what has been read does not wait for all of them. */
		if (zeros && (w->nr_idle == w->depth || done++ % w->depth == 0)) {
			ret = load_zeros(w);
			if (ret < 0)
				return ret;
			zeros = !ret;
			continue;
		}
		if (w->nr_idle == w->depth)
			return 0;
		ret = ckf_io_wait(w->io, &tag, &res);
		if (ret)
			return ckf_error_set(&w->err, ret, "cannot wait for reads: %s",
					     strerror(-ret));
		ret = finish_request(w, tag, res);
		if (ret)
			return ret;
	}
}

static void fail(struct fill_job *job, int ret, const struct ckf_error *err)
{
	pthread_mutex_lock(&job->lock);
	if (!job->ret && ret != -ECANCELED) {
		job->ret = ret;
		job->err = *err;
	}
	atomic_store(&job->failed, true);
	pthread_mutex_unlock(&job->lock);
}

/* A thread that has no memory for its buffers leaves its part to the others; the caller does it
 * where there are none. */
static void leave(struct fill_job *job)
{
	pthread_mutex_lock(&job->lock);
	job->active--;
	pthread_mutex_unlock(&job->lock);
}

void fill_worker_run(struct fill_job *job, bool may_uring)
{
	struct worker w;
	int ret;

	ret = worker_init(&w, job, may_uring);
	if (ret == -ENOMEM && may_uring) {
		worker_fini(&w);
		leave(job);
		return;
	}
	if (!ret)
		ret = fill_lanes(&w);
	if (ret)
		fail(job, ret, &w.err);
	worker_fini(&w);
	w.stats.workers = 1;
	pthread_mutex_lock(&job->lock);
	fill_stats_add(&job->stats, &w.stats);
	pthread_mutex_unlock(&job->lock);
}
