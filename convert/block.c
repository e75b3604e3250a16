/* SPDX-License-Identifier: MIT */
/* What threads do with the blocks of a conversion: pipeline.c says in which order. */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "block.h"

/* Codecs must save one byte of so many of a block. */
#define SAVE_OF_BLOCK 4

static struct ckf_block *block_of(struct ckf_transfer *t)
{
	return (struct ckf_block *)((char *)t - offsetof(struct ckf_block, read));
}

static void hash_pages(struct ckf_block *b)
{
	for (uint32_t i = CKF_CARRY_PAGES; i < CKF_CARRY_PAGES + b->nr_pages; i++) {
		b->zero[i] = ckf_is_zero(ckf_block_page(b, i), CKF_PAGE_BYTES);
		b->hash[i] = b->zero[i] ? b->s->zero_hash
					: ckf_hash64(ckf_block_page(b, i), CKF_PAGE_BYTES);
	}
}

void ckf_block_read(struct ckf_job *job, void *worker)
{
	struct ckf_block *b = (struct ckf_block *)job;
	struct ckf_place at = { .origin = b->stream->origin };
	struct ckf_cursor cur = b->from;

	(void)worker;
	at.nr = ckf_cursor_extents(&cur, b->nr_pages, at.extents);
	b->ret = ckf_place_read(b->s->opts->chain, &at, ckf_block_page(b, CKF_CARRY_PAGES),
				&b->err);
	if (!b->ret)
		hash_pages(b);
}

/* The reader has read it, or could not. */
void ckf_block_hash(struct ckf_job *job, void *worker)
{
	struct ckf_block *b = (struct ckf_block *)job;

	(void)worker;
	b->ret = b->read.ret;
	if (b->ret)
		ckf_origin_read_error(b->s->opts->chain, &b->stream->origin, b->ret, b->read.off,
				      &b->err);
	else
		hash_pages(b);
}

void ckf_block_read_done(struct ckf_transfer *t)
{
	struct ckf_block *b = block_of(t);

	close(t->fd);
	ckf_pool_submit(b->s->pool, &b->job);
}

/* 1 when the part's pages are those of the record that it matches, 0 when not, -errno. */
static int compare_match(struct ckf_block *b, const struct ckf_part *part, struct ckf_worker *w)
{
	uint64_t pages = 0;
	struct ckf_place at;
	int nr, ret;

	nr = ckf_dedup_origin(b->s->dedup, part->match, &at.origin, at.extents, CKF_PLACE_EXTENTS);
	if (nr < 0)
		return nr;
	at.nr = (uint32_t)nr;
	for (uint32_t i = 0; i < at.nr; i++)
		pages += at.extents[i].nr_pages;
	if (pages != part->nr_pages)
		return 0;
	ret = ckf_place_read(b->s->opts->chain, &at, w->scratch, &b->err);
	if (ret)
		return ret;
	return !memcmp(w->scratch, ckf_block_page(b, part->first),
		       (size_t)ckf_pages_to_bytes(pages));
}

static int64_t find_in_bases(struct ckf_block *b, const struct ckf_part *part, struct ckf_worker *w)
{
	const struct ckf_chunk want = { .checksum = part->checksum, .nr_pages = part->nr_pages };

	return ckf_bases_find(b->s->opts->bases, &want, ckf_block_page(b, part->first), w, &b->err);
}

static int encode_part(struct ckf_block *b, struct ckf_part *part, struct ckf_worker *w)
{
	uint8_t *data = ckf_block_page(b, part->first);
	struct ckf_encode_opts opts = b->s->encode;
	int ret;

	if (part->zero)
		return 0;
	if (part->match != CKF_DEDUP_NONE) {
		ret = compare_match(b, part, w);
		if (ret)
			return ret < 0 ? ret : 0;
		part->match = CKF_DEDUP_NONE;
	}
	if (part->verbatim)
		opts.codec = CKF_CODEC_RAW;
	part->checksum = ckf_hash64(data, (size_t)ckf_pages_to_bytes(part->nr_pages));
	if (b->s->opts->bases && !part->verbatim) {
		part->base = find_in_bases(b, part, w);
		if (part->base != -ENOENT)
			return part->base < 0 ? (int)part->base : 0;
	}
	ret = ckf_encode_chunk(w, &opts, data, part->nr_pages, &part->stored);
	if (ret)
		ckf_error_set(&b->err, ret, "cannot compress: %s", strerror(-ret));
	return ret;
}

static bool is_new(const struct ckf_part *part)
{
	return !part->zero && part->match == CKF_DEDUP_NONE && part->base < 0;
}

/*
 * A restore reads raw chunks that follow each other straight into place, and at once; each packed
 * one between them ends such a run. So a block in which codecs save little is raw altogether, where
 * they are not wanted for the bytes.
 */
static int smooth(struct ckf_block *b, struct ckf_worker *w)
{
	uint64_t saved = 0, all = 0;
	int ret = 0;

	for (uint32_t i = 0; i < b->nr_parts; i++) {
		const struct ckf_part *part = &b->parts[i];

		if (!is_new(part))
			continue;
		all += ckf_pages_to_bytes(part->nr_pages);
		saved += ckf_pages_to_bytes(part->nr_pages) - part->stored.stored_bytes;
	}
	if (!saved || saved >= all / SAVE_OF_BLOCK)
		return 0;
	for (uint32_t i = 0; i < b->nr_parts && !ret; i++) {
		struct ckf_part *part = &b->parts[i];

		if (is_new(part) && part->stored.codec != CKF_CODEC_RAW)
			ret = ckf_encode_undo(w, ckf_block_page(b, part->first), part->nr_pages,
					      &part->stored);
	}
	return ret;
}

void ckf_block_encode(struct ckf_job *job, void *worker)
{
	struct ckf_block *b = (struct ckf_block *)job;
	const struct ckf_encode_opts *opts = &b->s->encode;

	for (uint32_t i = 0; i < b->nr_parts && !b->ret; i++)
		b->ret = encode_part(b, &b->parts[i], worker);
	if (!b->ret && opts->codec == CKF_CODEC_AUTO && opts->goal == CKF_GOAL_FAST_WARM)
		b->ret = smooth(b, worker);
}

/* Writes the new chunks of a block, those that follow each other in the pack at once. */
void ckf_block_write(struct ckf_job *job, void *worker)
{
	struct ckf_block *b = (struct ckf_block *)job;
	struct iovec iov[CKF_BUF_PAGES];
	uint64_t from = b->pack_off, off = 0, end = 0;
	unsigned int nr = 0;

	(void)worker;
	for (uint32_t i = 0; i <= b->nr_fresh && !b->ret; i++) {
		const struct ckf_chunk *c = i < b->nr_fresh ? &b->fresh[i].chunk : NULL;

		if (nr && (!c || c->pack_off != end)) {
			b->ret = ckf_pack_writer_put(b->s->pack, from, iov, nr, off);
			from = end;
			nr = 0;
		}
		if (!c)
			break;
		if (!nr)
			off = c->pack_off;
		iov[nr++] = (struct iovec){ ckf_block_page(b, b->parts[b->fresh[i].tag].first),
					    c->stored_bytes };
		end = c->pack_off + c->stored_bytes;
	}
	if (b->ret)
		ckf_pack_writer_error(b->ret, &b->err);
}
