/* SPDX-License-Identifier: MIT */
/*
 * ckf_fill_sink(): device memory from a fast image.
 *
 * A worker takes a lane, clears what is zero, and sorts the rest by its place in the pack. Then it
 * fills one slot after the other: chunks go into the slot whole and side by side, since that is how
 * they are checked; the ops become copies out of it. Raw neighbours of the pack are neighbours in
 * the slot, too, and come in one read. Others are read to scratch memory and decoded into the slot.
 *
 * A pack in memory is read in small pieces, each hashed while it is in the CPU's cache: memory
 * would else be read twice, and that is what limits many threads. One on a disk is read with
 * several pieces in flight.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "format/ckf_codec.h"
#include "format/ckf_sum.h"
#include "base/ckf_io.h"
#include "base/ckf_io_util.h"
#include "ckf_read.h"
#include "lane.h"
#include "packs.h"
#include "sink.h"

#define READ_BYTES (512u << 10) /* together with what is copied from, fits into a CPU's L2 */
#define DEPTH 8			/* reads in flight per worker */
#define MAX_CHUNKS 1024		/* per slot */

struct source {
	const struct ckf_image *img;
	const struct ckf_target *target;
	int dir_fd;
	struct ckf_packs_io io;
	struct lane_planner planner; /* the groups of its dests are positions in job.sinks */
};

/* A chunk in the slot. */
struct place {
	uint32_t chunk;
	uint32_t slot_off;
	const char *stored; /* not raw: what is to be decoded */
};

/* Whole pages, with chunks that follow each other in the pack, all raw or none. */
struct pack_read {
	uint64_t pack_off;
	uint8_t base; /* whose pack it is; 0: the image's own */
	struct iovec iov;
	unsigned int first; /* in places */
	unsigned int nr;
	bool raw;
};

struct reader {
	struct sink_worker *w;
	const struct source *src;
	const struct ckf_index *idx;
	struct ckf_packs packs;
	struct ckf_io *io; /* NULL: the packs are in memory */
	struct ckf_codec_ctx *codec;
	struct ckf_sum *hash;
	char *scratch; /* stored bytes of chunks that are not raw */
	size_t scratch_bytes;

	struct lane lane; /* the lane at hand */

	/* Of the slot at hand. */
	struct place places[MAX_CHUNKS];
	unsigned int nr_places;
	struct pack_read reads[MAX_CHUNKS];
	unsigned int nr_reads;
	size_t scratch_used;
};

static int take_part(void *arg, const struct lane_part *part, struct ckf_error *err)
{
	struct reader *r = arg;

	(void)err; /* is that of the worker */
	return sink_clear_zeros(r->w, r->idx, part);
}

/* Room for the pages of any chunk that fits into a slot: it may begin and end within a page. */
static int need_scratch(struct reader *r)
{
	size_t bytes = r->w->slot.bytes + CKF_PAGE_BYTES;
	char *p;

	if (r->scratch_bytes >= bytes)
		return 0;
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return ckf_error_set(&r->w->err, -errno, "no memory to decode in");
	(void)madvise(p, bytes, MADV_HUGEPAGE);
	if (r->scratch)
		munmap(r->scratch, r->scratch_bytes);
	r->scratch = p;
	r->scratch_bytes = bytes;
	return 0;
}

/* The last read, if it can go on to the end of the chunk. */
static struct pack_read *find_read(struct reader *r, const struct ckf_chunk *c)
{
	struct pack_read *last = r->nr_reads ? &r->reads[r->nr_reads - 1] : NULL;

	if (last && last->raw == (c->codec == CKF_CODEC_RAW) && last->base == c->base &&
	    ckf_chunk_first(c) <= last->pack_off + last->iov.iov_len &&
	    ckf_chunk_end(c) - last->pack_off <= READ_BYTES)
		return last;
	return NULL;
}

/* The pages of the chunk; one that it shares with the chunk before is read once. */
static void add_read(struct reader *r, const struct ckf_chunk *c, struct place *place)
{
	const bool raw = c->codec == CKF_CODEC_RAW;
	struct pack_read *rd = find_read(r, c);
	size_t bytes;

	if (!rd) {
		rd = &r->reads[r->nr_reads++];
		*rd = (struct pack_read){
			.pack_off = ckf_chunk_first(c),
			.base = c->base,
			.iov.iov_base = raw ? (char *)r->w->slot.addr + place->slot_off
					    : r->scratch + r->scratch_used,
			.first = r->nr_places,
			.raw = raw,
		};
	}
	bytes = ckf_chunk_end(c) - rd->pack_off - rd->iov.iov_len;
	rd->iov.iov_len += bytes;
	rd->nr++;
	if (raw)
		return;
	r->scratch_used += bytes;
	place->stored = (const char *)rd->iov.iov_base + (c->pack_off - rd->pack_off);
}

/* Copies for all pieces of the next chunk. */
static int add_copies(struct reader *r, uint32_t slot_off)
{
	struct lane *lane = &r->lane;
	const struct lane_piece first = lane->pieces[lane->pos];
	int ret = 0;

	while (!ret && lane->pos < lane->nr_pieces) {
		const struct lane_piece *p = &lane->pieces[lane->pos];

		if (p->chunk != first.chunk || p->group != first.group)
			break;
		ret = sink_slot_add(r->w, &r->w->job->dests[p->dest], p->addr,
				    slot_off + p->first_page * CKF_PAGE_BYTES,
				    p->nr_pages * CKF_PAGE_BYTES);
		lane->pos++;
	}
	return ret;
}

/* Whether the chunk's pages fit into scratch memory; those of the first one do. -ENOMEM. */
static int has_scratch(struct reader *r, const struct ckf_chunk *c)
{
	int ret;

	if (c->codec == CKF_CODEC_RAW)
		return 1;
	ret = need_scratch(r);
	if (ret)
		return ret;
	return ckf_chunk_end(c) - ckf_chunk_first(c) <= r->scratch_bytes - r->scratch_used;
}

/* Takes a slot and says what goes into it: the next chunks of one sink, as many as fit. */
static int plan_slot(struct reader *r)
{
	const struct lane *lane = &r->lane;
	const uint32_t sink = lane->pieces[lane->pos].group;
	uint32_t used = 0, bytes;
	int ret;

	r->nr_places = 0;
	r->nr_reads = 0;
	r->scratch_used = 0;
	ret = sink_slot_take(r->w, r->w->job->sinks[sink]);
	while (!ret && lane->pos < lane->nr_pieces && r->nr_places < MAX_CHUNKS) {
		const struct lane_piece *p = &lane->pieces[lane->pos];
		const struct ckf_chunk *c = &r->idx->chunks[p->chunk];
		struct place *place = &r->places[r->nr_places];

		bytes = c->nr_pages * CKF_PAGE_BYTES;
		if (p->group != sink || bytes > r->w->slot.bytes - used)
			break;
		ret = has_scratch(r, c);
		if (ret <= 0)
			break;
		*place = (struct place){ .chunk = p->chunk, .slot_off = used };
		add_read(r, c, place);
		r->nr_places++;
		ret = add_copies(r, used);
		used += bytes;
	}
	if (!ret && !r->nr_places)
		ret = ckf_error_set(&r->w->err, -EINVAL, "slots of %s are smaller than a chunk",
				    r->w->job->ops->name);
	return ret;
}

static int finish_read(struct reader *r, const struct pack_read *rd)
{
	int ret = 0;

	r->w->stats.read_bytes += rd->iov.iov_len;
	atomic_fetch_add(&r->w->job->progress, 1);
	for (unsigned int i = rd->first; i < rd->first + rd->nr && !ret; i++) {
		const struct place *p = &r->places[i];
		const struct ckf_chunk *c = &r->idx->chunks[p->chunk];
		size_t bytes = ckf_pages_to_bytes(c->nr_pages);
		char *dst = (char *)r->w->slot.addr + p->slot_off;

		if (!rd->raw)
			ret = ckf_chunk_decode(r->idx, p->chunk, r->codec, p->stored, dst,
					       &r->w->err);
		if (!ret)
			ret = ckf_chunk_check(r->idx, p->chunk, ckf_hash64(dst, bytes), &r->w->err);
	}
	return ret;
}

static struct ckf_packs_read read_of(const struct pack_read *rd)
{
	return (struct ckf_packs_read){ &rd->iov, 1, rd->base, rd->pack_off, rd->iov.iov_len };
}

static int read_error(struct reader *r, const struct pack_read *rd, int ret)
{
	const struct ckf_packs_read all = read_of(rd);

	return ckf_packs_error(&r->packs, &all, ret, &r->w->err);
}

/* One raw chunk that is longer than the cache likes. */
static int read_long(struct reader *r, const struct pack_read *rd, int fd)
{
	size_t at = 0, n;
	int ret;

	ckf_sum_reset(r->hash);
	for (; at < rd->iov.iov_len; at += n) {
		n = rd->iov.iov_len - at < READ_BYTES ? rd->iov.iov_len - at : READ_BYTES;
		ret = ckf_pread_all(fd, (char *)rd->iov.iov_base + at, n, rd->pack_off + at);
		if (ret)
			return read_error(r, rd, ret);
		ckf_sum_update(r->hash, (char *)rd->iov.iov_base + at, n);
	}
	r->w->stats.read_bytes += rd->iov.iov_len;
	atomic_fetch_add(&r->w->job->progress, 1);
	return ckf_chunk_check(r->idx, r->places[rd->first].chunk, ckf_sum_value(r->hash),
			       &r->w->err);
}

static int read_cached(struct reader *r)
{
	int ret = 0;

	for (unsigned int i = 0; i < r->nr_reads && !ret; i++) {
		const struct pack_read *rd = &r->reads[i];
		int fd = ckf_packs_fd(&r->packs, rd->base, &r->w->err);

		if (fd < 0)
			return fd;
		if (rd->raw && rd->iov.iov_len > READ_BYTES) {
			ret = read_long(r, rd, fd);
			continue;
		}
		ret = ckf_pread_all(fd, rd->iov.iov_base, rd->iov.iov_len, rd->pack_off);
		ret = ret ? read_error(r, rd, ret) : finish_read(r, rd);
	}
	return ret;
}

static int complete(struct reader *r)
{
	struct ckf_packs_read rd;
	void *tag;
	int ret, res;

	ret = ckf_io_wait(r->io, &tag, &res);
	if (ret)
		return ckf_error_set(&r->w->err, ret, "cannot wait for reads: %s", strerror(-ret));
	rd = read_of(tag);
	ret = ckf_packs_finish(&r->packs, &rd, res, &r->w->err);
	return ret ? ret : finish_read(r, tag);
}

static int read_in_flight(struct reader *r)
{
	unsigned int begun = 0, ended = 0;
	int ret = 0, fd;

	while (!ret && ended < r->nr_reads) {
		struct pack_read *rd = &r->reads[begun];

		if (begun < r->nr_reads && begun - ended < DEPTH) {
			fd = ckf_packs_fd(&r->packs, rd->base, &r->w->err);
			if (fd < 0)
				return fd;
			ret = ckf_io_submit(r->io, fd, &rd->iov, 1, rd->pack_off, rd);
			if (ret)
				return read_error(r, rd, ret);
			begun++;
			continue;
		}
		ret = complete(r);
		ended++;
	}
	return ret;
}

static int fill_lane(struct reader *r, const struct ckf_lane *l)
{
	int ret = lane_load(&r->src->planner, l, &r->lane, r, &r->w->err);

	while (!ret && r->lane.pos < r->lane.nr_pieces) {
		if (atomic_load(&r->w->job->failed))
			return 0;
		ret = plan_slot(r);
		if (!ret)
			ret = r->io ? read_in_flight(r) : read_cached(r);
		if (!ret)
			ret = sink_slot_submit(r->w);
	}
	return ret;
}

static int reader_init(struct reader *r)
{
	const struct source *src = r->src;
	struct sink_worker *w = r->w;
	int ret;

	ret = ckf_packs_init(&r->packs, src->img, src->dir_fd, &src->io);
	r->hash = ckf_sum_new();
	if (!r->hash || ckf_codec_ctx_new(&r->codec))
		ret = -ENOMEM;
	if (!ret && (src->io.any_direct || src->io.uring))
		ret = ckf_io_new(DEPTH, src->io.uring ? CKF_IO_URING : CKF_IO_PLAIN, &r->io);
	if (ret)
		return ckf_error_set(&w->err, ret, "cannot start a worker: %s", strerror(-ret));
	w->stats.uring = r->io && ckf_io_is_uring(r->io);
	return 0;
}

/* Reads into the slot have ended when this returns. */
static void reader_free(struct reader *r)
{
	ckf_io_free(r->io);
	if (r->scratch)
		munmap(r->scratch, r->scratch_bytes);
	free(r->lane.pieces);
	ckf_sum_free(r->hash);
	ckf_codec_ctx_free(r->codec);
	r->w->stats.direct = r->packs.direct;
	ckf_packs_fini(&r->packs);
	free(r);
}

static int fill(struct sink_worker *w)
{
	const struct source *src = w->job->arg;
	struct reader *r = calloc(1, sizeof(*r));
	uint64_t lane;
	int ret;

	if (!r)
		return ckf_error_set(&w->err, -ENOMEM, "no memory to start a worker");
	r->w = w;
	r->src = src;
	r->idx = src->img->idx;
	ret = reader_init(r);
	while (!ret && sink_next_unit(w, &lane))
		ret = fill_lane(r, &r->idx->lanes[src->target->first_lane + lane]);
	reader_free(r);
	return ret;
}

static uint32_t sink_of_unit(const struct sink_job *job, uint64_t unit)
{
	const struct source *src = job->arg;
	const struct ckf_index *idx = src->img->idx;

	return sink_of_lane(job, idx, &idx->lanes[src->target->first_lane + unit]);
}

int ckf_fill_sink(const struct ckf_image *img, const struct ckf_target *t,
		  const struct ckf_sink_ops *ops, const struct ckf_sink_dest *dests,
		  size_t nr_dests, const struct ckf_fill_opts *opts, struct ckf_fill_stats *stats,
		  struct ckf_error *err)
{
	struct source src = {
		.img = img,
		.target = t,
		.planner = {
			.img = img,
			.target = t,
			.nowhere = "where no memory was made",
			.take = take_part,
		},
	};
	struct sink_job job = {
		.ops = ops,
		.dests = dests,
		.nr_dests = nr_dests,
		.fill = fill,
		.arg = &src,
		.nr_units = t->nr_lanes,
	};
	int ret;

	ret = sink_job_init(&job, opts, stats, err);
	if (ret)
		goto out;
	src.planner.dests = job.ranges;
	src.planner.nr_dests = nr_dests;
	src.dir_fd = job.opts.dir_fd >= 0 ? job.opts.dir_fd : img->dir_fd;
	ret = ckf_packs_choose(img, src.dir_fd, job.opts.flags, &src.io, err);
	if (!ret)
		ret = sink_job_order(&job, sink_of_unit, err);
	if (!ret)
		ret = sink_job_run(&job, ckf_pages_to_bytes(t->nr_pages), err);
out:
	sink_job_fini(&job, stats);
	return ret;
}
