/* SPDX-License-Identifier: MIT */
/*
 * From a lane of the plan to reads: finds where each op goes in this process, does what needs no
 * data (zero chunks, pages that the parent has), and joins the rest into reads of the pack.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fill.h"
#include "ckf_read.h"

static const struct fill_dest *find_dest(const struct fill_job *job, uint64_t addr)
{
	size_t lo = 0, hi = job->nr_dests;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (job->dests[mid].d.end <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < job->nr_dests && job->dests[lo].d.start <= addr ? &job->dests[lo] : NULL;
}

/*
 * The pages of zeros were there at the dump, so that who touches them now should find them: they
 * are made without being written, those of segments at the end of these. Where memory is short they
 * are left out.
 */
static void make_zeros(const struct fill_job *job, char *dst, uint64_t bytes, uint32_t flags)
{
	if (flags & FILL_SEG || fill_is_frugal(job))
		return;
	if (flags & FILL_REGISTERED)
		fill_huge_zeros(&job->huge, dst, bytes);
	else
		fill_populate(dst, bytes);
}

static void fill_zero(struct fill_job *job, char *dst, uint64_t bytes, uint32_t flags,
		      struct ckf_fill_stats *stats)
{
	atomic_fetch_add(&job->progress, 1);
	if (flags & CKF_DEST_FRESH) {
		make_zeros(job, dst, bytes, flags);
		stats->zero_bytes += bytes;
		return;
	}
	if (!(flags & CKF_DEST_SHARED)) {
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

static struct fill_piece *new_piece(struct fill_lane *lane)
{
	struct fill_piece *p;
	size_t max;

	if (lane->nr_pieces == lane->max_pieces) {
		max = lane->max_pieces ? lane->max_pieces * 2 : 512;
		p = realloc(lane->pieces, max * sizeof(*p));
		if (!p)
			return NULL;
		lane->pieces = p;
		lane->max_pieces = max;
	}
	return &lane->pieces[lane->nr_pieces++];
}

/* A part of an op, from addr on, that lies in one dest and, with FILL_SEG, in one segment. */
struct part {
	const struct ckf_op *op;
	const struct fill_dest *dest;
	uint64_t addr;
	uint64_t bytes;
	uint32_t seg;
};

/* How far the op, which ends at end, may go on from where the part begins. */
static void cut_part(struct part *part, uint64_t end)
{
	const struct ckf_dest *d = &part->dest->d;
	uint64_t off = part->addr - d->start;

	part->bytes = (end < d->end ? end : d->end) - part->addr;
	if (!(d->flags & FILL_SEG))
		return;
	part->seg = part->dest->seg + (uint32_t)(off / CKF_HUGE_BYTES);
	off = CKF_HUGE_BYTES - off % CKF_HUGE_BYTES;
	if (part->bytes > off)
		part->bytes = off;
}

static int add_piece(struct fill_lane *lane, const struct part *part, uint32_t flags)
{
	const struct ckf_dest *d = &part->dest->d;
	struct fill_piece *p = new_piece(lane);

	if (!p)
		return -ENOMEM;
	p->dst = flags & CKF_DEST_SKIP ? NULL : d->addr + (part->addr - d->start);
	p->chunk = part->op->chunk;
	p->first_page = (uint16_t)(part->op->first_page +
				   ((part->addr - ckf_op_addr(part->op)) >> CKF_PAGE_SHIFT));
	p->nr_pages = (uint16_t)(part->bytes >> CKF_PAGE_SHIFT);
	p->flags = flags;
	p->seg = part->seg;
	return 0;
}

static int load_part(struct fill_job *job, struct fill_lane *lane, const struct part *part,
		     struct ckf_fill_stats *stats, struct ckf_error *err)
{
	const struct ckf_dest *d = &part->dest->d;
	uint32_t flags = d->flags;

	if ((flags & CKF_DEST_SKIP) && !(flags & CKF_DEST_CHECK))
		return 0;
	if ((flags & CKF_DEST_SHARED) && (ckf_op_flags(part->op) & CKF_OP_INHERIT)) {
		stats->shared_bytes += part->bytes;
		return 0;
	}
	if (job->img->idx->chunks[part->op->chunk].codec != CKF_CODEC_ZERO)
		return add_piece(lane, part, flags)
			       ? ckf_error_set(err, -ENOMEM, "no memory for the plan")
			       : 0;
	if (!(flags & CKF_DEST_SKIP))
		fill_zero(job, d->addr + (part->addr - d->start), part->bytes, flags, stats);
	return flags & FILL_SEG ? fill_huge_zero(&job->huge, part->seg, part->bytes, stats, err)
				: 0;
}

static int load_op(struct fill_job *job, struct fill_lane *lane, const struct ckf_op *op,
		   struct ckf_fill_stats *stats, struct ckf_error *err)
{
	struct part part = { .op = op, .addr = ckf_op_addr(op) };
	const uint64_t end = ckf_op_end(op);
	int ret;

	for (; part.addr < end; part.addr += part.bytes) {
		part.dest = find_dest(job, part.addr);
		if (!part.dest)
			return ckf_error_rule(
				err, -EBADMSG, "ops", op - job->img->idx->ops, 0,
				"the plan writes to 0x%llx of %s %llu, which lies in no "
				"mapping of the dump",
				(unsigned long long)part.addr,
				ckf_target_kind_name(job->target->kind),
				(unsigned long long)job->target->id);
		cut_part(&part, end);
		ret = load_part(job, lane, &part, stats, err);
		if (ret)
			return ret;
	}
	return 0;
}

static int cmp_piece(const void *pa, const void *pb)
{
	const struct fill_piece *a = pa, *b = pb;

	if (a->chunk != b->chunk)
		return a->chunk < b->chunk ? -1 : 1;
	if (a->first_page != b->first_page)
		return a->first_page < b->first_page ? -1 : 1;
	return 0;
}

int fill_lane_load(struct fill_job *job, const struct ckf_lane *l, struct fill_lane *lane,
		   struct ckf_fill_stats *stats, struct ckf_error *err)
{
	const struct ckf_op *ops = job->img->idx->ops;
	bool sorted = true;
	int ret;

	lane->nr_pieces = 0;
	lane->pos = 0;
	for (uint64_t i = l->first_op; i < l->first_op + l->nr_ops; i++) {
		ret = load_op(job, lane, &ops[i], stats, err);
		if (ret)
			return ret;
	}
	for (size_t i = 1; i < lane->nr_pieces && sorted; i++)
		sorted = cmp_piece(&lane->pieces[i - 1], &lane->pieces[i]) <= 0;
	/* Deduplicated chunks lie elsewhere in the pack: read in its order. */
	if (!sorted)
		qsort(lane->pieces, lane->nr_pieces, sizeof(*lane->pieces), cmp_piece);
	return 0;
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
		if (p[i].first_page != page || !fill_may_touch(job, c, p[i].flags))
			return false;
		page += p[i].nr_pages;
	}
	return page == c->nr_pages;
}

/* Reads the pages of the chunk that the request does not have yet. */
static void add_unit(struct fill_request *req, const struct ckf_chunk *c,
		     const struct fill_piece *p, size_t n, bool in_place)
{
	size_t bytes = ckf_chunk_end(c) - req->pack_off - req->bytes;

	for (size_t i = 0; i < n; i++) {
		struct fill_piece *q = &req->pieces[req->nr_pieces++];

		*q = p[i];
		if (in_place) {
			q->flags |= FILL_IN_PLACE;
			fill_add_iov(req->iovs, &req->nr_iovs, p[i].dst,
				     ckf_pages_to_bytes(p[i].nr_pages));
		}
	}
	if (!in_place)
		fill_add_iov(req->iovs, &req->nr_iovs, req->slot + req->bytes, bytes);
	req->bytes += bytes;
}

/* Right before the read, while the new huge pages are in the CPU's cache. */
static void make_ready(struct fill_job *job, struct fill_piece *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char *at;

		if ((p[i].flags & (FILL_SEG | FILL_HUGE)) != FILL_SEG)
			continue;
		at = fill_huge_ready(&job->huge, p[i].seg);
		if (at) {
			p[i].dst = at + (p[i].dst - job->huge.segs[p[i].seg].dst);
			p[i].flags |= FILL_HUGE;
		}
	}
}

/* Only direct reads pass by the page cache. */
static bool wanted_again(const struct fill_job *job, uint32_t chunk)
{
	const uint8_t *again = job->img->wanted_again;

	return job->packs_io.direct[job->img->idx->chunks[chunk].base] && again &&
	       again[chunk / 8] & 1u << chunk % 8;
}

/*
 * True when the pages of the chunk begin in the request or where it ends: in it with the one page
 * that two chunks share. The pages of raw chunks are theirs alone, and so are those in place.
 */
static bool follows(const struct fill_request *req, const struct ckf_chunk *c)
{
	return c->base == req->base && ckf_chunk_first(c) <= req->pack_off + req->bytes;
}

/*
 * Fills req with the next read: the pieces of neighbouring chunks of the pack. A chunk with more
 * pieces than a request holds is read more than once. False when the lane has nothing left.
 */
bool fill_lane_next(struct fill_job *job, struct fill_lane *lane, struct fill_request *req)
{
	const size_t max = job->small ? FILL_SMALL_BYTES : FILL_REQUEST_BYTES;
	const size_t limit = fill_is_frugal(job) ? FILL_FRUGAL_BYTES : max;

	req->bytes = 0;
	req->nr_iovs = 0;
	req->nr_pieces = 0;
	while (lane->pos < lane->nr_pieces) {
		struct fill_piece *p = &lane->pieces[lane->pos];
		const struct ckf_chunk *c = &job->img->idx->chunks[p->chunk];
		const bool cached = wanted_again(job, p->chunk);
		bool in_place;
		size_t n = 1;

		while (lane->pos + n < lane->nr_pieces && p[n].chunk == p->chunk &&
		       n < FILL_REQUEST_PIECES)
			n++;
		make_ready(job, p, n);
		in_place = fits_in_place(job, c, p, n);
		if (!req->bytes) {
			req->pack_off = ckf_chunk_first(c);
			req->base = c->base;
			req->cached = cached;
		} else if (!follows(req, c) || ckf_chunk_end(c) - req->pack_off > limit ||
			   req->cached != cached || req->nr_pieces + n > FILL_REQUEST_PIECES ||
			   req->nr_iovs + (in_place ? n : 1) > FILL_REQUEST_IOVS) {
			break;
		}
		add_unit(req, c, p, n, in_place);
		lane->pos += n;
	}
	return req->bytes > 0;
}
