/* SPDX-License-Identifier: MIT */
/* Chunks, refs and ops of an image that is being written. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "format/ckf_codec.h"
#include "build.h"
#include "img.h"

/* Stand-in numbers of zero chunks: this plus the number of pages. */
#define ZERO_BASE (UINT32_MAX - CKF_CUT_MAX_PAGES)

int ckf_build_init(struct ckf_build *b, uint32_t extent_bytes, uint64_t nr_targets,
		   struct ckf_error *err)
{
	memset(b, 0, sizeof(*b));
	b->extent_bytes = extent_bytes;
	b->pack_bytes = CKF_PAGE_BYTES; /* the header */
	b->nr_targets = nr_targets;
	if (!nr_targets)
		return 0;
	b->targets = calloc((size_t)nr_targets, sizeof(*b->targets));
	b->pages = calloc((size_t)nr_targets, sizeof(*b->pages));
	if (!b->targets || !b->pages) {
		ckf_build_fini(b);
		return ckf_error_set(err, -ENOMEM, "no memory for the index");
	}
	return 0;
}

void ckf_build_fini(struct ckf_build *b)
{
	free(b->chunks);
	free(b->refs);
	free(b->ops);
	free(b->targets);
	free(b->pages);
	memset(b, 0, sizeof(*b));
}

void ckf_build_begin(struct ckf_build *b, uint64_t target)
{
	if (!b->targets[target].nr_ops)
		b->targets[target].first_op = b->nr_ops;
	if (!b->pages[target].nr_refs)
		b->pages[target].first_ref = b->nr_refs;
}

uint32_t ckf_build_zero(struct ckf_build *b, uint16_t nr_pages)
{
	b->zero_used[nr_pages] = true;
	return ZERO_BASE + nr_pages;
}

static int grow_chunks(struct ckf_build *b, struct ckf_error *err)
{
	/* Leave numbers for the zero chunks. */
	if (b->nr_chunks >= ZERO_BASE - CKF_CUT_MAX_PAGES)
		return ckf_error_set(err, -E2BIG, "more than 2^32 chunks");
	if (ckf_array_grow(&b->chunks, b->nr_chunks, &b->cap_chunks, sizeof(*b->chunks)))
		return ckf_error_set(err, -ENOMEM, "no memory for the index");
	return 0;
}

uint64_t ckf_build_place(uint64_t end, uint32_t extent_bytes, const struct ckf_chunk *c)
{
	if (c->codec == CKF_CODEC_RAW)
		end = ckf_align_up(end, CKF_PAGE_BYTES);
	if (end % extent_bytes + c->stored_bytes > extent_bytes)
		end = ckf_align_up(end, extent_bytes);
	return end;
}

/* How well a chunk goes behind the last one: best in its extent, then if it is of its kind. */
static unsigned int fitness(const struct ckf_build *b, const struct ckf_chunk *c)
{
	uint64_t off = ckf_build_place(b->pack_bytes, b->extent_bytes, c);
	bool fits = off / b->extent_bytes == b->pack_bytes / b->extent_bytes;

	return 2u * fits + ((c->codec == CKF_CODEC_RAW) == b->last_raw);
}

/* Brings the chunk that is to come next to the front: of those that fit equally well, the first. */
static void choose_next(const struct ckf_build *b, struct ckf_new_chunk *fresh, uint32_t nr)
{
	unsigned int best = fitness(b, &fresh[0].chunk);
	struct ckf_new_chunk chosen;
	uint32_t at = 0;

	for (uint32_t i = 1; i < nr && best < 3; i++) {
		unsigned int fit = fitness(b, &fresh[i].chunk);

		if (fit > best) {
			best = fit;
			at = i;
		}
	}
	if (!at)
		return;
	chosen = fresh[at];
	memmove(fresh + 1, fresh, at * sizeof(*fresh));
	fresh[0] = chosen;
}

/*
 * Raw chunks begin on a page: what is between a compressed one and them is lost, and so is the end
 * of an extent that the next chunk does not fit into. So the chunks of a block are taken kind by
 * kind, and at the end of an extent any that fits.
 */
int ckf_build_chunks(struct ckf_build *b, struct ckf_new_chunk *fresh, uint32_t nr,
		     struct ckf_error *err)
{
	int ret;

	for (; nr; nr--, fresh++) {
		struct ckf_chunk *c = &fresh->chunk;

		ret = grow_chunks(b, err);
		if (ret)
			return ret;
		choose_next(b, fresh, nr);
		c->pack_off = ckf_build_place(b->pack_bytes, b->extent_bytes, c);
		b->pack_bytes = c->pack_off + c->stored_bytes;
		b->stored_bytes += c->stored_bytes;
		b->last_raw = c->codec == CKF_CODEC_RAW;
		fresh->number = (uint32_t)b->nr_chunks;
		b->chunks[b->nr_chunks++] = *c;
	}
	return 0;
}

int64_t ckf_build_base_chunk(struct ckf_build *b, const struct ckf_chunk *c, struct ckf_error *err)
{
	int ret = grow_chunks(b, err);

	if (ret)
		return ret;
	b->chunks[b->nr_chunks] = *c;
	return (int64_t)b->nr_chunks++;
}

/* True when op goes on where last ends: same chunk, next pages, next addresses. */
static bool op_continues(const struct ckf_op *last, const struct ckf_op *op)
{
	return last->chunk == op->chunk && last->first_page + last->nr_pages == op->first_page &&
	       ckf_op_end(last) == ckf_op_addr(op) && ckf_op_flags(last) == ckf_op_flags(op);
}

static int add_op(struct ckf_build *b, struct ckf_target *t, const struct ckf_op *op)
{
	struct ckf_op *last = t->nr_ops ? &b->ops[b->nr_ops - 1] : NULL;

	t->nr_pages += op->nr_pages;
	if (last && op_continues(last, op)) {
		last->nr_pages = (uint16_t)(last->nr_pages + op->nr_pages);
		return 0;
	}
	if (ckf_array_grow(&b->ops, b->nr_ops, &b->cap_ops, sizeof(*b->ops)))
		return -ENOMEM;
	b->ops[b->nr_ops++] = *op;
	t->nr_ops++;
	return 0;
}

static int add_ref(struct ckf_build *b, struct ckf_build_pages *p, uint32_t chunk,
		   uint16_t nr_pages)
{
	if (ckf_array_grow(&b->refs, b->nr_refs, &b->cap_refs, sizeof(*b->refs)))
		return -ENOMEM;
	b->refs[b->nr_refs++] = chunk;
	p->nr_refs++;
	p->size_bytes += ckf_pages_to_bytes(nr_pages);
	return 0;
}

int ckf_build_use(struct ckf_build *b, struct ckf_cursor *cur, uint32_t chunk, uint16_t nr_pages,
		  struct ckf_error *err)
{
	uint64_t target = cur->stream->target;
	struct ckf_span span;
	uint16_t page = 0;
	int ret = 0;

	while (!ret && page < nr_pages) {
		struct ckf_op op = { .chunk = chunk, .first_page = page };

		ckf_cursor_next(cur, nr_pages - page, &span);
		op.nr_pages = (uint16_t)span.nr_pages;
		op.place = span.vaddr | (span.verbatim ? CKF_OP_DIRECT : 0);
		if (span.mapped)
			ret = add_op(b, &b->targets[target], &op);
		page = (uint16_t)(page + op.nr_pages);
	}
	if (!ret && cur->stream->is_file)
		ret = add_ref(b, &b->pages[target], chunk, nr_pages);
	if (ret)
		return ckf_error_set(err, ret, "no memory for the index");
	b->done_bytes += ckf_pages_to_bytes(nr_pages);
	return 0;
}

/* From numbers so far to those of the index. */
struct numbering {
	uint32_t zero[CKF_CUT_MAX_PAGES + 1]; /* by number of pages */
	uint32_t nr_zero;
	uint32_t *stored; /* by old number; NULL: the order stays */
};

static uint32_t final_number(const struct numbering *n, uint32_t chunk)
{
	if (chunk > ZERO_BASE)
		return n->zero[chunk - ZERO_BASE];
	return (n->stored ? n->stored[chunk] : chunk) + n->nr_zero;
}

/* A chunk of a base, and its number so far. */
struct far_chunk {
	struct ckf_chunk chunk;
	uint32_t old;
};

static int compare_far(const void *a, const void *b)
{
	const struct far_chunk *x = a, *y = b;

	if (x->chunk.base != y->chunk.base)
		return x->chunk.base < y->chunk.base ? -1 : 1;
	return (x->chunk.pack_off > y->chunk.pack_off) - (x->chunk.pack_off < y->chunk.pack_off);
}

/* Puts the chunks of bases behind the others, in the order of the bases and of their packs. */
static int order_chunks(struct ckf_build *b, struct numbering *n)
{
	struct far_chunk *far;
	uint64_t nr_far = 0, own = 0;

	for (uint64_t i = 0; i < b->nr_chunks; i++)
		nr_far += b->chunks[i].base != 0;
	if (!nr_far)
		return 0;
	n->stored = malloc((size_t)b->nr_chunks * sizeof(*n->stored));
	far = malloc((size_t)nr_far * sizeof(*far));
	if (!n->stored || !far) {
		free(far);
		return -ENOMEM;
	}
	nr_far = 0;
	for (uint64_t i = 0; i < b->nr_chunks; i++) {
		if (b->chunks[i].base) {
			far[nr_far++] = (struct far_chunk){ b->chunks[i], (uint32_t)i };
			continue;
		}
		n->stored[i] = (uint32_t)own;
		b->chunks[own++] = b->chunks[i];
	}
	qsort(far, (size_t)nr_far, sizeof(*far), compare_far);
	for (uint64_t i = 0; i < nr_far; i++) {
		n->stored[far[i].old] = (uint32_t)(own + i);
		b->chunks[own + i] = far[i].chunk;
	}
	free(far);
	return 0;
}

/* Puts the zero chunks in front. */
static int insert_zero_chunks(struct ckf_build *b, struct numbering *num)
{
	uint32_t n = 0;
	void *p;

	for (uint32_t i = 1; i <= CKF_CUT_MAX_PAGES; i++) {
		if (b->zero_used[i])
			num->zero[i] = n++;
	}
	num->nr_zero = n;
	if (!n)
		return 0;
	p = realloc(b->chunks, (size_t)(b->nr_chunks + n) * sizeof(*b->chunks));
	if (!p)
		return -ENOMEM;
	b->chunks = p;
	memmove(b->chunks + n, b->chunks, (size_t)b->nr_chunks * sizeof(*b->chunks));
	b->nr_chunks += n;
	b->cap_chunks = b->nr_chunks;
	for (uint32_t i = 1; i <= CKF_CUT_MAX_PAGES; i++) {
		if (b->zero_used[i])
			b->chunks[num->zero[i]] = (struct ckf_chunk){
				.nr_pages = (uint16_t)i,
				.codec = CKF_CODEC_ZERO,
				.checksum = ckf_hash64_zeros((size_t)ckf_pages_to_bytes(i)),
			};
	}
	return 0;
}

static int compare_op(const void *a, const void *b)
{
	const struct ckf_op *x = a, *y = b;

	return x->place < y->place ? -1 : x->place > y->place;
}

/* A target with pages from parents has its ops stream after stream: one order, then merged. */
static void sort_ops(struct ckf_build *b)
{
	uint64_t out = 0;

	for (uint64_t i = 0; i < b->nr_targets; i++) {
		struct ckf_target *t = &b->targets[i];
		struct ckf_op *ops;
		uint64_t first = out;

		if (!t->nr_ops) {
			t->first_op = first;
			continue;
		}
		ops = b->ops + t->first_op;
		for (uint64_t k = 1; k < t->nr_ops; k++) {
			if (ops[k].place < ops[k - 1].place) {
				qsort(ops, (size_t)t->nr_ops, sizeof(*ops), compare_op);
				break;
			}
		}
		for (uint64_t k = 0; k < t->nr_ops; k++) {
			if (out > first && op_continues(&b->ops[out - 1], &ops[k]))
				b->ops[out - 1].nr_pages =
					(uint16_t)(b->ops[out - 1].nr_pages + ops[k].nr_pages);
			else
				b->ops[out++] = ops[k];
		}
		t->first_op = first;
		t->nr_ops = out - first;
	}
	b->nr_ops = out;
}

int ckf_build_finish(struct ckf_build *b, struct ckf_error *err)
{
	struct numbering num = { .nr_zero = 0 };
	int ret = order_chunks(b, &num);

	if (!ret)
		ret = insert_zero_chunks(b, &num);
	if (ret)
		goto out;
	for (uint64_t i = 0; i < b->nr_ops; i++)
		b->ops[i].chunk = final_number(&num, b->ops[i].chunk);
	for (uint64_t i = 0; i < b->nr_refs; i++)
		b->refs[i] = final_number(&num, b->refs[i]);
	sort_ops(b);
	b->pack_bytes = ckf_align_up(b->pack_bytes, CKF_PAGE_BYTES);
out:
	free(num.stored);
	return ret ? ckf_error_set(err, ret, "no memory for the index") : 0;
}

int ckf_build_order_refs(struct ckf_build *b, const uint64_t *order, uint64_t nr,
			 struct ckf_error *err)
{
	uint32_t *refs;
	uint64_t n = 0;

	if (!b->nr_refs)
		return 0;
	refs = malloc((size_t)b->nr_refs * sizeof(*refs));
	if (!refs)
		return ckf_error_set(err, -ENOMEM, "no memory for the index");
	for (uint64_t i = 0; i < nr; i++) {
		struct ckf_build_pages *p = &b->pages[order[i]];

		memcpy(refs + n, b->refs + p->first_ref, (size_t)p->nr_refs * sizeof(*refs));
		p->first_ref = n;
		n += p->nr_refs;
	}
	free(b->refs);
	b->refs = refs;
	b->cap_refs = b->nr_refs;
	return 0;
}
