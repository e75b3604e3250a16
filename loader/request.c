/* SPDX-License-Identifier: MIT */
/*
 * From the pieces of a lane to reads: says how each page gets to its place in this process, does
 * what needs no data (zero chunks, pages that the parent has), and joins the rest into reads of the
 * pack.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fill.h"
#include "ckf_read.h"

/*
 * Pages of zeros existed at the dump; otherwise the first access to each page faults. So they are
 * made, without being written; those of a segment when all else of it is in place. Where memory is
 * short they are left out.
 */
static void make_zeros(const struct fill_job *job, const struct fill_dest *d, char *dst,
		       uint64_t bytes)
{
	if (d->seg != FILL_NO_SEG || fill_is_frugal(job))
		return;
	if (d->place == FILL_UFFD)
		fill_huge_zeros(&job->huge, dst, bytes);
	else
		fill_populate(dst, bytes);
}

static void fill_zero(const struct fill_job *job, const struct fill_dest *d, char *dst,
		      uint64_t bytes, struct ckf_fill_stats *stats)
{
	if (d->fresh) {
		make_zeros(job, d, dst, bytes);
		stats->zero_bytes += bytes;
		return;
	}
	if (d->place != FILL_SHARED) {
		memset(dst, 0, bytes);
		stats->filled_bytes += bytes;
		return;
	}
	for (uint64_t off = 0; off < bytes; off += CKF_PAGE_BYTES) {
		if (ckf_is_zero(dst + off, CKF_PAGE_BYTES)) {
			stats->shared_bytes += CKF_PAGE_BYTES;
		} else {
			memset(dst + off, 0, CKF_PAGE_BYTES);
			stats->filled_bytes += CKF_PAGE_BYTES;
		}
	}
}

/* The segment that off bytes of a dest lie in. */
static uint32_t segment(const struct fill_dest *d, uint64_t off)
{
	return d->seg == FILL_NO_SEG ? FILL_NO_SEG : d->seg + (uint32_t)(off / CKF_HUGE_BYTES);
}

static int take_part(void *arg, const struct lane_part *part, struct ckf_error *err)
{
	const struct fill_lane *fl = arg;
	struct fill_job *job = fl->job;
	const struct fill_dest *d = &job->dests[part->dest];
	const uint64_t off = part->addr - job->planner.dests[part->dest].start;
	const uint32_t seg = segment(d, off);

	if (d->place == FILL_SKIP)
		return 0;
	if (d->place == FILL_SHARED && ckf_op_flags(part->op) & CKF_OP_INHERIT) {
		fl->stats->shared_bytes += part->bytes;
		return 0;
	}
	if (job->img->idx->chunks[part->op->chunk].codec != CKF_CODEC_ZERO)
		return 1;
	if (d->place == FILL_CHECK)
		return 0;
	atomic_fetch_add(&job->progress, 1);
	fill_zero(job, d, d->addr + off, part->bytes, fl->stats);
	return seg == FILL_NO_SEG ? 0
				  : fill_huge_zero(&job->huge, seg, part->bytes, fl->stats, err);
}

void fill_planner_init(struct fill_job *job)
{
	job->planner = (struct lane_planner){
		.img = job->img,
		.target = job->target,
		.nowhere = "which lies in no mapping of the dump",
		.take = take_part,
	};
}

int fill_lane_load(struct fill_lane *fl, const struct ckf_lane *l, struct ckf_error *err)
{
	return lane_load(&fl->job->planner, l, &fl->lane, fl, err);
}

/* Says where a piece goes. Right before the read, while a new huge page is in the CPU's cache. */
static struct fill_piece place_piece(struct fill_job *job, const struct lane_piece *p)
{
	const struct fill_dest *d = &job->dests[p->dest];
	const uint64_t off = p->addr - job->planner.dests[p->dest].start;
	struct fill_piece piece = {
		.dst = d->place == FILL_CHECK ? NULL : d->addr + off,
		.chunk = p->chunk,
		.first_page = p->first_page,
		.nr_pages = p->nr_pages,
		.place = d->place,
		.seg = segment(d, off),
	};
	char *at = piece.seg == FILL_NO_SEG ? NULL : fill_huge_ready(&job->huge, piece.seg);

	if (at) {
		piece.dst = at + off % CKF_HUGE_BYTES;
		piece.place = FILL_HUGE;
	}
	return piece;
}

/*
 * Raw data whose pieces are the whole chunk, each page once, can be read to where it belongs: the
 * checksum then is taken over the destinations. Mostly in huge pages: touching small ones for the
 * checksum costs more than a copy that does not (see copy.c).
 */
static bool fits_in_place(const struct fill_job *job, const struct ckf_chunk *c,
			  const struct fill_piece *p, size_t n)
{
	uint32_t page = 0;

	if (c->codec != CKF_CODEC_RAW || n > FILL_REQUEST_IOVS)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (p[i].first_page != page || !fill_may_touch(job, c, p[i].place))
			return false;
		page += p[i].nr_pages;
	}
	return page == c->nr_pages;
}

/*
 * True for a chunk that is larger than a read of the job, and can be put into place, and checked,
 * as it comes: with a buffer for all of it each of its pages would be touched once more. Workers of
 * such jobs have one read at a time.
 */
static bool comes_in_parts(const struct fill_job *job, const struct ckf_chunk *c)
{
	return (job->small || fill_is_frugal(job)) && c->codec == CKF_CODEC_RAW &&
	       ckf_pages_to_bytes(c->nr_pages) > fill_request_bytes(job);
}

/* Reads the pages of the chunk that the request does not have yet, for its next n pieces. */
static void add_unit(struct fill_request *req, const struct ckf_chunk *c, size_t n, bool in_place)
{
	size_t bytes = ckf_chunk_end(c) - req->pack_off - req->bytes;

	for (size_t i = 0; i < n && in_place; i++) {
		struct fill_piece *p = &req->pieces[req->nr_pieces + i];

		p->place = FILL_READ;
		fill_add_iov(req->iovs, &req->nr_iovs, p->dst, ckf_pages_to_bytes(p->nr_pages));
	}
	if (!in_place && !req->in_parts)
		fill_add_iov(req->iovs, &req->nr_iovs, req->slot + req->bytes, bytes);
	req->nr_pieces += (unsigned int)n;
	req->bytes += bytes;
}

/*
 * True for a chunk that is to be read through the page cache, since other lanes need it as well:
 * direct reads would leave nothing there for them.
 */
static bool is_read_cached(const struct fill_job *job, uint32_t chunk)
{
	const uint8_t *shared = job->img->shared_chunks;

	return job->packs_io.direct[job->img->idx->chunks[chunk].base] && shared &&
	       shared[chunk / 8] & 1u << chunk % 8;
}

/*
 * True when the pages of the chunk begin in the request or where it ends: in it with the one page
 * that two chunks share. The pages of raw chunks are theirs alone, and so are those in place.
 */
static bool follows(const struct fill_request *req, const struct ckf_chunk *c)
{
	return c->base == req->base && ckf_chunk_first(c) <= req->pack_off + req->bytes;
}

/* What the request brings at most: more where a direct read needs no buffer. */
static size_t most_bytes(const struct fill_job *job, const struct fill_request *req)
{
	return req->all_in_place && job->packs_io.direct[req->base] ? FILL_REQUEST_BYTES
								    : fill_request_bytes(job);
}

/* Whether n pieces of the chunk can still go into a request that has something. */
static bool has_room(const struct fill_job *job, const struct fill_request *req,
		     const struct ckf_chunk *c, size_t n)
{
	return follows(req, c) && ckf_chunk_end(c) - req->pack_off <= most_bytes(job, req) &&
	       req->nr_pieces + n <= FILL_REQUEST_PIECES;
}

/*
 * Fills req with the next read: the pieces of neighbouring chunks of the pack. A chunk with more
 * pieces than a request holds is read more than once. False when the lane has nothing left.
 */
bool fill_lane_next(struct fill_lane *fl, struct fill_request *req)
{
	struct fill_job *job = fl->job;
	struct lane *lane = &fl->lane;

	req->bytes = 0;
	req->nr_iovs = 0;
	req->nr_pieces = 0;
	while (lane->pos < lane->nr_pieces) {
		const struct lane_piece *p = &lane->pieces[lane->pos];
		const struct ckf_chunk *c = &job->img->idx->chunks[p->chunk];
		const bool cached = is_read_cached(job, p->chunk);
		struct fill_piece *to = &req->pieces[req->nr_pieces];
		bool in_place;
		size_t n = 1;

		while (lane->pos + n < lane->nr_pieces && p[n].chunk == p->chunk &&
		       n < FILL_REQUEST_PIECES)
			n++;
		if (req->bytes && (req->cached != cached || !has_room(job, req, c, n)))
			break;
		for (size_t i = 0; i < n; i++)
			to[i] = place_piece(job, &p[i]);
		in_place = fits_in_place(job, c, to, n);
		if (!req->bytes) {
			req->pack_off = ckf_chunk_first(c);
			req->base = c->base;
			req->cached = cached;
			req->all_in_place = in_place && fill_is_frugal(job);
			req->in_parts = !in_place && comes_in_parts(job, c);
		} else if (req->nr_iovs + (in_place ? n : 1) > FILL_REQUEST_IOVS ||
			   (req->all_in_place && !in_place)) {
			break;
		}
		add_unit(req, c, n, in_place);
		lane->pos += n;
	}
	return req->bytes > 0;
}
