/* SPDX-License-Identifier: MIT */
/* Makes the pages files of a dump again, several batches of chunks at once. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "format/ckf_codec.h"
#include "loader/ckf_image.h"
#include "extraction.h"

#define BATCH_BYTES (2u << 20)

int ckf_extraction_check_user(struct ckf_extraction *x)
{
	x->user.opts = &x->opts;
	return ckf_user_check(&x->user, &x->progress, x->err);
}

static void run_batch(struct ckf_job *job, void *worker)
{
	struct ckf_worker *w = worker;
	struct ckf_extract_batch *b = (struct ckf_extract_batch *)job;
	struct ckf_extraction *x = b->x;
	const struct ckf_index *idx = x->img->idx;
	size_t at = 0;

	for (uint64_t i = 0; i < b->nr_refs && !b->ret; i++) {
		uint32_t chunk = idx->refs[b->first_ref + i];
		size_t bytes = (size_t)ckf_pages_to_bytes(idx->chunks[chunk].nr_pages);

		b->ret = ckf_image_read_chunk(x->img, x->pack_fds[idx->chunks[chunk].base], chunk,
					      w->codec, w->scratch, b->data + at, &b->err);
		/* Zero chunks stay holes: an index of zeros alone cannot fill the disk. */
		if (!b->ret && idx->chunks[chunk].codec != CKF_CODEC_ZERO)
			b->ret = ckf_out_file_write(&x->file, b->data + at, bytes,
						    x->start + b->off + at);
		at += bytes;
	}
	if (!b->ret && idx->page_sums)
		ckf_hash_pages(b->data, b->bytes >> CKF_PAGE_SHIFT, b->hashes);
}

static size_t batch_limit(const struct ckf_index *idx)
{
	size_t chunk = (size_t)ckf_pages_to_bytes(idx->max_chunk_pages);

	return chunk > BATCH_BYTES ? chunk : BATCH_BYTES;
}

/* Takes as many refs as fit into a batch, from *ref on, and starts it. */
static void begin_batch(struct ckf_extraction *x, struct ckf_extract_batch *b, uint64_t *ref,
			uint64_t end, uint64_t *off)
{
	const struct ckf_index *idx = x->img->idx;
	size_t limit = batch_limit(idx);

	b->x = x;
	b->first_ref = *ref;
	b->off = *off;
	b->bytes = 0;
	b->ret = 0;
	b->err.code = 0;
	while (*ref < end) {
		size_t n = (size_t)ckf_pages_to_bytes(idx->chunks[idx->refs[*ref]].nr_pages);

		if (b->bytes + n > limit)
			break;
		b->bytes += n;
		(*ref)++;
	}
	b->nr_refs = *ref - b->first_ref;
	*off += b->bytes;
	b->job.run = run_batch;
	ckf_pool_submit(x->pool, &b->job);
}

static int end_batch(struct ckf_extraction *x, const struct ckf_file *f,
		     const struct ckf_extract_batch *b)
{
	if (b->ret)
		return ckf_error_set(x->err, b->ret, "%s: %s", f->name,
				     b->err.code ? b->err.msg : strerror(-b->ret));
	ckf_sum_pages(x->sum, x->img->idx->page_sums, b->hashes, b->data,
		      b->bytes >> CKF_PAGE_SHIFT);
	x->progress.done_bytes += b->bytes;
	return 0;
}

/* No job of the file may run on when its descriptor is closed. */
static void drain(struct ckf_extraction *x, uint64_t ended, uint64_t begun)
{
	for (; ended < begun; ended++) {
		while (!ckf_pool_done(x->pool, &x->batches[ended % x->nr_batches].job))
			ckf_pool_wait(x->pool, CKF_USER_MS);
	}
}

static int write_batches(struct ckf_extraction *x, const struct ckf_file *f)
{
	uint64_t ref = f->first_ref, end = f->first_ref + f->nr_refs;
	uint64_t off = ckf_file_head_bytes(f), begun = 0, ended = 0;
	int ret = 0;

	ckf_sum_reset(x->sum);
	while (!ret && (ref < end || ended < begun)) {
		ret = ckf_extraction_check_user(x);
		if (ret)
			break;
		if (ref < end && begun - ended < x->nr_batches) {
			begin_batch(x, &x->batches[begun++ % x->nr_batches], &ref, end, &off);
			continue;
		}
		if (ckf_pool_done(x->pool, &x->batches[ended % x->nr_batches].job)) {
			ret = end_batch(x, f, &x->batches[ended % x->nr_batches]);
			ended++;
		} else {
			ckf_pool_wait(x->pool, CKF_USER_MS);
		}
	}
	drain(x, ended, begun);
	return ret ? ret : ckf_check_sum(x->img, f, ckf_sum_value(x->sum), x->err);
}

static void leave_holes(struct ckf_extraction *x, const struct ckf_file *f)
{
	const struct ckf_index *idx = x->img->idx;
	uint64_t off = ckf_file_head_bytes(f);

	for (uint64_t i = f->first_ref; i < f->first_ref + f->nr_refs; i++) {
		const struct ckf_chunk *c = &idx->chunks[idx->refs[i]];
		uint64_t bytes = ckf_pages_to_bytes(c->nr_pages);

		if (c->codec == CKF_CODEC_ZERO)
			ckf_out_file_hole(&x->file, x->start + off, bytes);
		off += bytes;
	}
}

/* What is before the pages. */
static int write_head(struct ckf_extraction *x, const struct ckf_file *f)
{
	const ckf_le64 head = ckf_put64(ckf_file_head(f));
	int ret;

	if (!ckf_file_head_bytes(f))
		return 0;
	static_assert(sizeof(head) == CKF_SIZED_HEAD_BYTES, "a head is one number");
	ret = ckf_out_file_write(&x->file, &head, sizeof(head), x->start);
	return ret ? ckf_error_set(x->err, ret, "cannot write %s: %s", f->name, strerror(-ret)) : 0;
}

int ckf_extraction_pages(struct ckf_extraction *x, const struct ckf_file *f, int fd, uint64_t start)
{
	int ret;

	x->start = start;
	ckf_out_file_init(&x->file, fd, true, start + f->size_bytes);
	leave_holes(x, f);
	ret = write_head(x, f);
	if (!ret)
		ret = write_batches(x, f);
	if (!ret && ftruncate(fd, (off_t)(start + f->size_bytes)))
		ret = ckf_error_set(x->err, -errno, "cannot write %s: %s", f->name,
				    strerror(errno));
	ckf_out_file_fini(&x->file);
	return ret;
}

/* What pages files need: threads and buffers, for as many batches as there can be. */
int ckf_extraction_start(struct ckf_extraction *x)
{
	const struct ckf_index *idx = x->img->idx;
	unsigned int threads = ckf_pool_threads(x->opts.threads);
	size_t limit = batch_limit(idx);
	uint64_t batches = 1;
	int ret;

	for (uint64_t i = 0; i < idx->nr_files; i++) {
		if (!ckf_file_has_pages(&idx->files[i]))
			continue;
		x->progress.total_bytes += ckf_file_page_bytes(&idx->files[i]);
		if (batches < idx->files[i].nr_refs)
			batches = idx->files[i].nr_refs;
	}
	x->nr_batches = batches < 2 * threads + 2 ? (unsigned int)batches : 2 * threads + 2;
	x->sum = ckf_sum_new();
	x->data = aligned_alloc(CKF_PAGE_BYTES, x->nr_batches * limit);
	x->hashes = calloc(x->nr_batches, limit / CKF_PAGE_BYTES * sizeof(*x->hashes));
	if (!x->sum || !x->data || !x->hashes)
		return ckf_error_set(x->err, -ENOMEM, "no memory for buffers");
	for (unsigned int i = 0; i < x->nr_batches; i++) {
		x->batches[i].data = x->data + i * limit;
		x->batches[i].hashes = x->hashes + i * (limit / CKF_PAGE_BYTES);
	}
	ret = ckf_image_open_packs(x->img, x->img->dir_fd, &x->pack_fds, x->err);
	if (ret)
		return ret;
	return ckf_workers_start(&x->pool, threads,
				 (size_t)ckf_pages_to_bytes(idx->max_chunk_pages), x->err);
}

void ckf_extraction_fini(struct ckf_extraction *x)
{
	ckf_pool_stop(x->pool);
	ckf_sum_free(x->sum);
	free(x->data);
	free(x->hashes);
	if (x->img)
		ckf_image_close_packs(x->img, x->pack_fds);
	x->pool = NULL;
	x->sum = NULL;
	x->data = NULL;
	x->hashes = NULL;
	x->pack_fds = NULL;
}
