/* SPDX-License-Identifier: MIT */
/*
 * Blocks of pages go round a ring of buffers. Each passes, in order:
 *
 *	read	(thread)  its pages are read and hashed
 *	cut	(caller)  chunks are cut off; pages of an unfinished one go to the next block
 *	encode	(thread)  chunks that look like earlier ones are compared, others encoded in place
 *	place	(caller)  chunks get numbers and places, the tables grow
 *	write	(thread)  new chunks are written to the pack (pack_writer.h)
 *
 * What lies on a disk and not in the page cache is read before by a thread that has several blocks
 * in flight (base/ckf_io_thread.h): directly, or through the page cache where it is likely to be
 * read again.
 *
 * A buffer holds either the pages of a block or what they became, never both.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "format/ckf_sum.h"
#include "loader/ckf_read.h"
#include "block.h"
#include "user.h"

#define MAX_BLOCKS (2 * CKF_POOL_MAX_THREADS + 4)
#define ROOM_BYTES (16u << 20)
#define ZSTD_LEAN_LEVEL 6
#define ZSTD_SLOW_THREADS 8

struct pipeline {
	struct ckf_shared s;
	struct ckf_build *build;

	struct ckf_block blocks[MAX_BLOCKS];
	unsigned int nr_blocks;
	uint8_t *data;
	size_t data_bytes;
	/* Blocks ever begun, cut, placed and finished, each at most the one before. */
	uint64_t begun;
	uint64_t cut;
	uint64_t placed;
	uint64_t finished;

	/* Where reading is. */
	struct ckf_stream *read_stream;
	struct ckf_cursor read_cursor;
	struct ckf_io_thread *reader; /* NULL until a stream wants it */
	bool no_io_thread;
	uint64_t kept_pages; /* of streams read directly: through the page cache all the same */
	bool direct_read;    /* the stream is, */
	bool keep;	     /* but for what is new in it */
	bool no_more;

	/* Where cutting is: reset with each stream, but for what was found. */
	bool cut_open;
	struct ckf_sum *sum; /* of the file so far */
	struct ckf_cut cutter;
	struct ckf_cursor verbatim_cursor; /* of the pages that go into the cutter */
	struct ckf_cursor chunk_cursor;	   /* of the chunks that come out of it */
	bool verbatim;			   /* the open chunk is */
	uint8_t *carry;			   /* CKF_CARRY_PAGES pages: an unfinished chunk */
	uint64_t carry_hash[CKF_CARRY_PAGES];
	uint32_t nr_carry;
	uint64_t found_pages; /* all that look like earlier ones */
	uint64_t fresh_pages; /* those that do not, but for zeros */
	bool found;	      /* most of the last block that was not all zeros */

	/* Where placing is. */
	bool place_open;
	bool target_open;
	uint64_t target;
	struct ckf_cursor place_cursor;
	uint64_t pack_off; /* what is before is written by some block */

	struct ckf_user user;
};

static void submit(struct pipeline *p, struct ckf_block *b, void (*run)(struct ckf_job *, void *))
{
	b->job.run = run;
	ckf_pool_submit(p->s.pool, &b->job);
}

/*
 * What is found again has to be compared, and so what it is like is read twice. Where that is to be
 * expected it goes through the page cache the first time, so that the disk reads it once: in what
 * has a twin, unless as much was kept before and too little of it found again.
 */
static bool is_worth_keeping(const struct pipeline *p)
{
	const struct ckf_stream *s = p->read_stream;

	return s->has_twin && p->kept_pages <= 2 * p->found_pages + s->nr_pages / 4;
}

/*
 * Decides how a stream is read. Pages of parents lie all over their files, most device memory
 * is holes, and threads decode what CRIU has compressed.
 */
static int choose_read(struct pipeline *p, struct ckf_error *err)
{
	const struct ckf_stream *s = p->read_stream;
	struct ckf_file_part part;
	int ret;

	p->direct_read = false;
	if (p->no_io_thread || s->origin.level || s->origin.kind != CKF_ORIGIN_PAGES ||
	    !s->nr_pages || ckf_packings_find(p->s.opts->chain->packings, &s->origin))
		return 0;
	ret = ckf_chain_open_pages(p->s.opts->chain, &s->origin, &part, err);
	if (ret)
		return ret;
	/* In an archive, pages begin at any 512 bytes, and its one open file is there for all. */
	p->direct_read = !part.member &&
			 !ckf_fd_is_cached(part.fd, ckf_pages_to_bytes(s->nr_pages)) &&
			 !fcntl(part.fd, F_SETFL, O_DIRECT);
	close(part.fd);
	p->keep = p->direct_read && is_worth_keeping(p);
	if (!p->direct_read || p->reader)
		return 0;
	p->no_io_thread = ckf_io_thread_start(&p->reader) != 0;
	p->direct_read = !p->no_io_thread;
	return 0;
}

static int start_read(struct pipeline *p, struct ckf_block *b, struct ckf_error *err)
{
	struct ckf_file_part part;
	int ret;

	if (!p->direct_read) {
		submit(p, b, ckf_block_read);
		return 0;
	}
	ret = ckf_chain_open_pages(p->s.opts->chain, &b->stream->origin, &part, err);
	if (ret)
		return ret;
	if (p->keep && !p->found)
		p->kept_pages += b->nr_pages;
	else /* It could be done before; if not, the read is an indirect one. */
		(void)fcntl(part.fd, F_SETFL, O_DIRECT);
	b->job.run = ckf_block_hash;
	ckf_pool_announce(p->s.pool, &b->job);
	b->read = (struct ckf_transfer){
		.fd = part.fd,
		.iov = { ckf_block_page(b, CKF_CARRY_PAGES),
			 (size_t)ckf_pages_to_bytes(b->nr_pages) },
		.off = ckf_pages_to_bytes(b->from.page),
		.done = ckf_block_read_done,
	};
	ckf_io_thread_submit(p->reader, &b->read);
	return 0;
}

/* 1 when a block was begun, 0 when there is no more to read, -errno. */
static int begin_block(struct pipeline *p, struct ckf_error *err)
{
	struct ckf_block *b = &p->blocks[p->begun % p->nr_blocks];
	struct ckf_span span;
	uint64_t n;
	int ret;

	if (!p->read_stream) {
		ret = p->s.opts->next_stream(p->s.opts->arg, &p->read_stream, err);
		if (ret <= 0) {
			p->no_more = true;
			return ret;
		}
		ckf_cursor_init(&p->read_cursor, p->read_stream);
		ret = choose_read(p, err);
		if (ret)
			return ret;
	}
	n = p->read_stream->nr_pages - p->read_cursor.page;
	b->stream = p->read_stream;
	b->from = p->read_cursor;
	b->nr_pages = (uint32_t)(n < CKF_BLOCK_PAGES ? n : CKF_BLOCK_PAGES);
	b->last = n == b->nr_pages;
	b->nr_parts = 0;
	b->ret = 0;
	b->err.code = 0;
	for (uint32_t left = b->nr_pages; left; left -= span.nr_pages)
		ckf_cursor_next(&p->read_cursor, left, &span);
	if (b->last)
		p->read_stream = NULL;
	p->begun++;
	ret = start_read(p, b, err);
	return ret ? ret : 1;
}

/* A chunk is complete: looks for an equal one, and remembers it if there is none. */
static int add_part(struct pipeline *p, struct ckf_block *b, const struct ckf_cut_piece *piece,
		    struct ckf_error *err)
{
	struct ckf_extent x[CKF_CUT_MAX_PAGES];
	struct ckf_part *part = &b->parts[b->nr_parts];
	uint32_t nr = ckf_cursor_extents(&p->chunk_cursor, piece->nr_pages, x);
	uint64_t key;
	int64_t rec;

	*part = (struct ckf_part){
		.first = b->nr_parts ? part[-1].first + part[-1].nr_pages : b->first,
		.nr_pages = piece->nr_pages,
		.zero = piece->zero,
		.verbatim = p->verbatim,
		.match = CKF_DEDUP_NONE,
		.rec = CKF_DEDUP_NONE,
		.base = -ENOENT,
	};
	b->nr_parts++;
	if (piece->zero)
		return 0;
	key = ckf_sum_key(b->hash + part->first, part->nr_pages, part->verbatim);
	part->match = ckf_dedup_find(p->s.dedup, key);
	if (part->match != CKF_DEDUP_NONE) {
		p->found_pages += part->nr_pages;
		return 0;
	}
	p->fresh_pages += part->nr_pages;
	rec = ckf_dedup_add(p->s.dedup, key, &b->stream->origin, x, nr);
	if (rec < 0)
		return ckf_error_set(err, (int)rec, "no memory for the table of chunks");
	part->rec = (uint32_t)rec;
	return 0;
}

static int flush_cutter(struct pipeline *p, struct ckf_block *b, struct ckf_error *err)
{
	struct ckf_cut_piece pieces[2];
	unsigned int n = ckf_cut_flush(&p->cutter, pieces);
	int ret = 0;

	for (unsigned int i = 0; i < n && !ret; i++)
		ret = add_part(p, b, &pieces[i], err);
	return ret;
}

/* Feeds the pages of one span, none of which borders on another kind of memory. */
static int cut_span(struct pipeline *p, struct ckf_block *b, uint32_t page, uint32_t nr_pages,
		    struct ckf_error *err)
{
	struct ckf_cut_piece piece;
	int ret = 0;

	for (uint32_t i = page; i < page + nr_pages && !ret; i++) {
		/* What CRIU's restorer reads itself must be in the pack, zeros too. */
		if (p->verbatim)
			b->zero[i] = false;
		if (ckf_cut_page(&p->cutter, b->hash[i], b->zero[i], &piece))
			ret = add_part(p, b, &piece, err);
	}
	return ret;
}

/* The buffer begins with what the block before left over, and ends with what the next one gets. */
static void take_carry(struct pipeline *p, struct ckf_block *b)
{
	b->first = CKF_CARRY_PAGES - p->nr_carry;
	memcpy(ckf_block_page(b, b->first), p->carry, (size_t)ckf_pages_to_bytes(p->nr_carry));
	memcpy(b->hash + b->first, p->carry_hash, p->nr_carry * sizeof(*b->hash));
}

static void give_carry(struct pipeline *p, const struct ckf_block *b)
{
	uint32_t first;

	p->nr_carry = ckf_cut_pending(&p->cutter);
	first = CKF_CARRY_PAGES + b->nr_pages - p->nr_carry;
	memcpy(p->carry, ckf_block_page(b, first), (size_t)ckf_pages_to_bytes(p->nr_carry));
	memcpy(p->carry_hash, b->hash + first, p->nr_carry * sizeof(*b->hash));
}

static int cut_block(struct pipeline *p, struct ckf_block *b, struct ckf_error *err)
{
	struct ckf_build_pages *pages = &p->build->pages[b->stream->target];
	uint32_t page = CKF_CARRY_PAGES, end = CKF_CARRY_PAGES + b->nr_pages;
	uint64_t found = p->found_pages, fresh = p->fresh_pages;
	struct ckf_span span;
	int ret = 0;

	if (!p->cut_open) {
		p->cut_open = true;
		ckf_cut_init(&p->cutter);
		ckf_cursor_init(&p->verbatim_cursor, b->stream);
		ckf_cursor_init(&p->chunk_cursor, b->stream);
		p->verbatim = false;
		p->nr_carry = 0;
		ckf_sum_reset(p->sum);
	}
	ckf_sum_hashes(p->sum, b->hash + CKF_CARRY_PAGES, b->nr_pages);
	take_carry(p, b);
	while (!ret && page < end) {
		ckf_cursor_next(&p->verbatim_cursor, end - page, &span);
		if (span.verbatim != p->verbatim)
			ret = flush_cutter(p, b, err);
		p->verbatim = span.verbatim;
		if (!ret)
			ret = cut_span(p, b, page, span.nr_pages, err);
		page += span.nr_pages;
	}
	if (!ret && b->last)
		ret = flush_cutter(p, b, err);
	if (ret)
		return ret;
	give_carry(p, b);
	found = p->found_pages - found;
	fresh = p->fresh_pages - fresh;
	if (found || fresh)
		p->found = found > fresh;
	if (b->last) {
		p->cut_open = false;
		if (b->stream->is_file)
			pages->checksum = ckf_sum_value(p->sum);
	}
	p->cut++;
	submit(p, b, ckf_block_encode);
	return 0;
}

/* The number of a chunk that lies in a base: a new one, or the one that it has got before. */
static int64_t place_base_chunk(struct pipeline *p, const struct ckf_part *part, uint64_t bytes,
				struct ckf_error *err)
{
	struct ckf_bases *bases = p->s.opts->bases;
	uint32_t *number = ckf_bases_number(bases, (uint64_t)part->base);
	int64_t n;

	p->build->base_bytes += bytes;
	if (*number != CKF_BASES_NONE)
		return *number;
	n = ckf_build_base_chunk(p->build, ckf_bases_chunk(bases, (uint64_t)part->base), err);
	if (n >= 0)
		*number = (uint32_t)n;
	return n;
}

/* Places the chunks that the block stores. */
static int place_fresh(struct pipeline *p, struct ckf_block *b, struct ckf_error *err)
{
	int ret;

	b->nr_fresh = 0;
	for (uint32_t i = 0; i < b->nr_parts; i++) {
		const struct ckf_part *part = &b->parts[i];

		if (part->zero || part->match != CKF_DEDUP_NONE || part->base >= 0)
			continue;
		b->fresh[b->nr_fresh++] = (struct ckf_new_chunk){
			.chunk.checksum = part->checksum,
			.chunk.stored_bytes = part->stored.stored_bytes,
			.chunk.nr_pages = part->nr_pages,
			.chunk.codec = part->stored.codec,
			.tag = i,
		};
	}
	ret = ckf_build_chunks(p->build, b->fresh, b->nr_fresh, err);
	if (ret)
		return ret;
	for (uint32_t i = 0; i < b->nr_fresh; i++)
		b->parts[b->fresh[i].tag].chunk = b->fresh[i].number;
	b->pack_off = p->pack_off;
	if (b->nr_fresh)
		p->pack_off = p->build->pack_bytes;
	return 0;
}

static int place_part(struct pipeline *p, const struct ckf_stream *s, const struct ckf_part *part,
		      uint32_t *chunk, struct ckf_error *err)
{
	/* Only memory is counted. */
	uint64_t bytes = s->origin.kind == CKF_ORIGIN_BYTES ? 0
							    : ckf_pages_to_bytes(part->nr_pages);
	int64_t n = part->chunk;

	if (part->zero) {
		p->build->zero_bytes += bytes;
		*chunk = ckf_build_zero(p->build, part->nr_pages);
		return 0;
	}
	if (part->match != CKF_DEDUP_NONE) {
		p->build->dup_bytes += bytes;
		*chunk = ckf_dedup_chunk(p->s.dedup, part->match);
		return 0;
	}
	if (part->base >= 0)
		n = place_base_chunk(p, part, bytes, err);
	if (n < 0)
		return (int)n;
	*chunk = (uint32_t)n;
	if (part->rec != CKF_DEDUP_NONE)
		ckf_dedup_set_chunk(p->s.dedup, part->rec, *chunk);
	return 0;
}

static void end_stream(struct pipeline *p, struct ckf_block *b)
{
	p->s.opts->stream_done(p->s.opts->arg, b->stream);
	ckf_stream_free(b->stream);
	b->stream = NULL;
	p->place_open = false;
}

static int place_block(struct pipeline *p, struct ckf_block *b, struct ckf_error *err)
{
	uint32_t chunk = 0;
	int ret;

	if (!p->place_open) {
		p->place_open = true;
		ckf_cursor_init(&p->place_cursor, b->stream);
		if (!p->target_open || p->target != b->stream->target)
			ckf_build_begin(p->build, b->stream->target);
		p->target_open = true;
		p->target = b->stream->target;
	}
	ret = place_fresh(p, b, err);
	for (uint32_t i = 0; i < b->nr_parts && !ret; i++) {
		ret = place_part(p, b->stream, &b->parts[i], &chunk, err);
		if (!ret)
			ret = ckf_build_use(p->build, &p->place_cursor, chunk, b->parts[i].nr_pages,
					    err);
	}
	if (ret)
		return ret;
	if (b->last)
		end_stream(p, b);
	p->placed++;
	submit(p, b, ckf_block_write);
	return 0;
}

static int take_error(const struct ckf_block *b, struct ckf_error *err)
{
	if (b->ret && b->err.code)
		return ckf_error_set(err, b->ret, "%s", b->err.msg);
	return b->ret ? ckf_error_set(err, b->ret, "%s", strerror(-b->ret)) : 0;
}

/* The block at a place of the ring, if its job has ended; *ret is then that of the job. */
static struct ckf_block *ready_block(struct pipeline *p, uint64_t at, uint64_t before, int *ret,
				     struct ckf_error *err)
{
	struct ckf_block *b = &p->blocks[at % p->nr_blocks];

	if (at == before || !ckf_pool_done(p->s.pool, &b->job))
		return NULL;
	*ret = take_error(b, err);
	return b;
}

/* Does one thing that can be done now. 1, 0 when there is none, -errno. */
static int step(struct pipeline *p, struct ckf_error *err)
{
	struct ckf_block *b;
	int ret = 0;

	if (ready_block(p, p->finished, p->placed, &ret, err)) {
		p->finished++;
		return ret ? ret : 1;
	}
	b = ready_block(p, p->placed, p->cut, &ret, err);
	if (b) {
		if (!ret)
			ret = place_block(p, b, err);
		return ret ? ret : 1;
	}
	b = ready_block(p, p->cut, p->begun, &ret, err);
	if (b) {
		if (!ret)
			ret = cut_block(p, b, err);
		return ret ? ret : 1;
	}
	if (!p->no_more && p->begun - p->finished < p->nr_blocks)
		return begin_block(p, err);
	return 0;
}

static int check_user(struct pipeline *p, struct ckf_error *err)
{
	const struct ckf_progress progress = {
		.done_bytes = p->build->done_bytes,
		.total_bytes = p->s.opts->total_bytes,
		.stored_bytes = p->build->stored_bytes,
	};

	return ckf_user_check(&p->user, &progress, err);
}

static int run_all(struct pipeline *p, struct ckf_error *err)
{
	int ret = 0;

	while (ret >= 0 && !(p->no_more && p->finished == p->begun)) {
		ret = check_user(p, err);
		if (!ret)
			ret = step(p, err);
		if (!ret && p->finished != p->begun)
			ckf_pool_wait(p->s.pool, CKF_USER_MS);
	}
	return ret < 0 ? ret : 0;
}

static int alloc_block(struct pipeline *p, unsigned int i)
{
	struct ckf_block *b = &p->blocks[i];

	b->s = &p->s;
	b->data = p->data + (size_t)i * CKF_BUF_PAGES * CKF_PAGE_BYTES;
	b->hash = calloc(CKF_BUF_PAGES, sizeof(*b->hash));
	b->zero = calloc(CKF_BUF_PAGES, sizeof(*b->zero));
	b->parts = calloc(CKF_BUF_PAGES, sizeof(*b->parts));
	b->fresh = calloc(CKF_BUF_PAGES, sizeof(*b->fresh));
	return b->hash && b->zero && b->parts && b->fresh ? 0 : -ENOMEM;
}

static int alloc_all(struct pipeline *p, unsigned int threads, struct ckf_error *err)
{
	uint64_t blocks = p->s.opts->total_bytes / (CKF_BLOCK_PAGES * CKF_PAGE_BYTES) + 2;
	int ret;

	p->nr_blocks = 2 * threads + 4;
	if (p->nr_blocks > blocks)
		p->nr_blocks = (unsigned int)blocks;
	p->data_bytes = (size_t)p->nr_blocks * CKF_BUF_PAGES * CKF_PAGE_BYTES;
	p->data = mmap(NULL, p->data_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);
	if (p->data == MAP_FAILED) {
		p->data = NULL;
		goto no_memory;
	}
	/* Only to be faster: the buffers are used over and over. */
	madvise(p->data, p->data_bytes, MADV_HUGEPAGE);
	p->carry = aligned_alloc(CKF_PAGE_BYTES, (size_t)CKF_CARRY_PAGES * CKF_PAGE_BYTES);
	p->sum = ckf_sum_new();
	p->s.zero_hash = ckf_hash64_zeros(CKF_PAGE_BYTES);
	ret = p->carry && p->sum ? ckf_dedup_new(&p->s.dedup) : -ENOMEM;
	for (unsigned int i = 0; i < p->nr_blocks && !ret; i++)
		ret = alloc_block(p, i);
	if (!ret)
		return 0;
no_memory:
	return ckf_error_set(err, -ENOMEM, "no memory for buffers");
}

static void free_all(struct pipeline *p)
{
	/* A stream that failed half-way belongs to its blocks, the last of which frees it. */
	for (uint64_t i = p->placed; i < p->begun; i++) {
		struct ckf_block *b = &p->blocks[i % p->nr_blocks];

		if (b->last)
			ckf_stream_free(b->stream);
	}
	ckf_stream_free(p->read_stream);
	for (unsigned int i = 0; i < p->nr_blocks; i++) {
		free(p->blocks[i].hash);
		free(p->blocks[i].zero);
		free(p->blocks[i].parts);
		free(p->blocks[i].fresh);
	}
	if (p->data)
		munmap(p->data, p->data_bytes);
	free(p->carry);
	ckf_sum_free(p->sum);
	ckf_dedup_free(p->s.dedup);
	ckf_pack_writer_free(p->s.pack);
	free(p);
}

/* The slow levels of zstd want some 20 MiB for each thread. */
static unsigned int thread_count(const struct ckf_convert_opts *u)
{
	unsigned int n = ckf_pool_threads(u->threads);
	bool slow = u->smallest || (u->codec == CKF_CODEC_ZSTD && u->level > ZSTD_LEAN_LEVEL);

	return slow && n > ZSTD_SLOW_THREADS ? ZSTD_SLOW_THREADS : n;
}

int ckf_pipeline_run(const struct ckf_pipeline_opts *opts, struct ckf_build *b,
		     struct ckf_error *err)
{
	struct pipeline *p = calloc(1, sizeof(*p));
	unsigned int threads = thread_count(opts->user);
	int ret;

	if (!p)
		return ckf_error_set(err, -ENOMEM, "no memory for buffers");
	p->s.opts = opts;
	p->user.opts = opts->user;
	p->s.encode = opts->encode;
	p->build = b;
	p->no_io_thread = opts->user->no_uring || opts->user->no_direct;
	/* No pack is as long: padding is a small part of it. */
	ret = ckf_pack_writer_open(&p->s.pack, opts->pack_fd, opts->pack_start,
				   2 * opts->total_bytes + ROOM_BYTES,
				   !p->no_io_thread && !opts->keep_cached, err);
	if (!ret)
		ret = alloc_all(p, threads, err);
	if (!ret)
		ret = ckf_workers_start(&p->s.pool, threads, CKF_ENCODE_SCRATCH_BYTES, err);
	if (!ret)
		ret = run_all(p, err);
	/* First the reader, which gives the pool jobs. */
	ckf_io_thread_stop(p->reader);
	ckf_pool_stop(p->s.pool);
	if (!ret)
		ret = ckf_pack_writer_finish(p->s.pack, err);
	free_all(p);
	return ret;
}
