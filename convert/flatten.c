/* SPDX-License-Identifier: MIT */
/*
 * ckf_flatten(): an image that has bases becomes one that has none.
 *
 * Stored bytes are taken over as they are, checked on the way. Chunks of the image itself keep
 * their places and those of bases follow, in the order that they have already: no number of a chunk
 * changes, and all other tables stay.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "build.h"
#include "files.h"
#include "pack_writer.h"
#include "worker.h"
#include "user.h"

#define MAX_BATCHES (2 * CKF_POOL_MAX_THREADS)
#define BATCH_BYTES (2u << 20)

struct flatten;

/* Some chunks, one after the other. */
struct batch {
	struct ckf_job job; /* first: the job is the batch */
	struct flatten *f;
	uint64_t first;
	uint64_t nr;
	uint64_t pack_off; /* where the batches before end in the pack */
	int ret;	   /* of the job, with err */
	struct ckf_error err;
};

struct flatten {
	struct ckf_convert_opts opts;
	struct ckf_error *err;
	struct ckf_image *img;
	struct ckf_output out;
	int *pack_fds; /* to read from */
	int pack_fd;   /* to write to */
	struct ckf_pack_writer *pack;
	struct ckf_index idx; /* of the result; its tables are those of img, but for the chunks */
	struct ckf_pool *pool;
	struct batch batches[MAX_BATCHES];
	uint64_t pack_off; /* what is before is written by some batch */
	struct ckf_user user;
	struct ckf_progress progress;
};

/* Chunks of bases get places behind the image's own pack. */
static int place_chunks(struct flatten *f)
{
	const struct ckf_index *idx = f->img->idx;
	uint64_t end = idx->pack_bytes;

	f->idx = *idx;
	f->idx.bases = NULL;
	f->idx.nr_bases = 0;
	f->idx.chunks = malloc((size_t)(idx->nr_chunks + 1) * sizeof(*idx->chunks));
	if (!f->idx.chunks)
		return ckf_error_set(f->err, -ENOMEM, "no memory for the index");
	for (uint64_t i = 0; i < idx->nr_chunks; i++) {
		struct ckf_chunk *c = &f->idx.chunks[i];

		*c = idx->chunks[i];
		f->progress.total_bytes += c->stored_bytes;
		if (!c->base)
			continue;
		c->base = 0;
		c->pack_off = ckf_build_place(end, idx->extent_bytes, c);
		end = c->pack_off + c->stored_bytes;
	}
	f->idx.pack_bytes = ckf_align_up(end, CKF_PAGE_BYTES);
	return 0;
}

static size_t chunk_bytes(const struct flatten *f)
{
	return (size_t)ckf_pages_to_bytes(f->img->idx->max_chunk_pages);
}

static void run_batch(struct ckf_job *job, void *worker)
{
	struct ckf_worker *w = worker;
	struct batch *b = (struct batch *)job;
	struct flatten *f = b->f;
	uint8_t *data = w->scratch, *stored = w->scratch + chunk_bytes(f);
	uint64_t end = b->pack_off;

	for (uint64_t i = b->first; i < b->first + b->nr && !b->ret; i++) {
		const struct ckf_chunk *from = &f->img->idx->chunks[i], *to = &f->idx.chunks[i];
		struct iovec iov = { .iov_base = stored, .iov_len = from->stored_bytes };

		if (from->codec == CKF_CODEC_ZERO)
			continue;
		if (from->codec == CKF_CODEC_RAW)
			iov.iov_base = data;
		b->ret = ckf_image_read_chunk(f->img, f->pack_fds[from->base], i, w->codec, stored,
					      data, &b->err);
		if (b->ret)
			break;
		b->ret = ckf_pack_writer_put(f->pack, end, &iov, 1, to->pack_off);
		if (b->ret)
			ckf_pack_writer_error(b->ret, &b->err);
		end = to->pack_off + to->stored_bytes;
	}
	if (b->ret)
		ckf_pack_writer_fail(f->pack, b->ret);
}

static void begin_batch(struct flatten *f, struct batch *b, uint64_t *next)
{
	const struct ckf_index *idx = f->img->idx;
	uint64_t bytes = 0;

	*b = (struct batch){
		.job.run = run_batch, .f = f, .first = *next, .pack_off = f->pack_off
	};
	for (; *next < idx->nr_chunks && bytes < BATCH_BYTES; (*next)++) {
		const struct ckf_chunk *c = &f->idx.chunks[*next];

		bytes += ckf_pages_to_bytes(c->nr_pages);
		if (c->codec != CKF_CODEC_ZERO)
			f->pack_off = c->pack_off + c->stored_bytes;
	}
	b->nr = *next - b->first;
	ckf_pool_submit(f->pool, &b->job);
}

static int end_batch(struct flatten *f, const struct batch *b)
{
	for (uint64_t i = b->first; i < b->first + b->nr; i++)
		f->progress.done_bytes += f->idx.chunks[i].stored_bytes;
	return b->ret ? ckf_error_set(f->err, b->ret, "%s", b->err.msg) : 0;
}

static int copy_chunks(struct flatten *f)
{
	uint64_t next = 0, begun = 0, ended = 0;
	int ret = 0;

	while (!ret && (next < f->idx.nr_chunks || ended < begun)) {
		struct batch *oldest = &f->batches[ended % MAX_BATCHES];

		if (next < f->idx.nr_chunks && begun - ended < MAX_BATCHES) {
			begin_batch(f, &f->batches[begun++ % MAX_BATCHES], &next);
			continue;
		}
		ret = ckf_user_check(&f->user, &f->progress, f->err);
		if (!ret && ckf_pool_done(f->pool, &oldest->job)) {
			ret = end_batch(f, oldest);
			ended++;
		} else if (!ret) {
			ckf_pool_wait(f->pool, CKF_USER_MS);
		}
	}
	return ret;
}

static int copy_files(struct flatten *f)
{
	const struct ckf_index *idx = f->img->idx;
	int fd, ret = 0;

	for (uint64_t i = 0; i < idx->nr_files && !ret; i++) {
		const struct ckf_file *file = &idx->files[i];

		if (file->kind != CKF_FILE_VERBATIM)
			continue;
		fd = ckf_copy_verbatim(f->img, &f->out, file, &f->opts, f->err);
		if (fd == CKF_LEFT_OUT)
			continue;
		if (fd < 0)
			return fd;
		ret = ckf_finish_image_file(&f->out, fd, file, f->err);
	}
	return ret;
}

/*
 * Written directly, gaps are written as zeros: not so where there is more of them than of chunks,
 * or an index of a few bytes could fill the disk.
 */
static bool is_dense(const struct flatten *f)
{
	return f->progress.total_bytes >= f->idx.pack_bytes / 2;
}

/* The new pack holds what is in all of these, and bases may be in directories of fewer readers. */
static int gather_access(struct flatten *f)
{
	struct ckf_access a;
	int ret = 0;

	for (unsigned int n = 0; n <= f->img->idx->nr_bases && !ret; n++) {
		int dir;

		ret = ckf_access_get(f->pack_fds[n], &a);
		if (!ret)
			ckf_access_narrow(&f->out.memory, &a);
		if (ret || !n)
			continue;
		dir = ckf_image_open_base_dir(f->img, n, f->err);
		if (dir < 0)
			return dir;
		ret = ckf_access_get(dir, &a);
		close(dir);
		if (!ret)
			ckf_access_narrow_by_dir(&f->out.memory, &a);
	}
	if (ret)
		return ckf_error_set(f->err, ret, "cannot stat a pack: %s", strerror(-ret));
	return 0;
}

static int write_pack(struct flatten *f)
{
	int ret;

	ret = ckf_image_open_packs(f->img, f->img->dir_fd, &f->pack_fds, f->err);
	if (!ret)
		ret = gather_access(f);
	if (!ret)
		ret = ckf_pack_writer_open(&f->pack, f->pack_fd, 0, f->idx.pack_bytes, is_dense(f),
					   f->err);
	if (!ret)
		ret = ckf_workers_start(&f->pool, ckf_pool_threads(f->opts.threads),
					2 * chunk_bytes(f), f->err);
	if (!ret)
		ret = copy_chunks(f);
	/* No job may run on when the files are closed. */
	ckf_pool_stop(f->pool);
	if (!ret)
		ret = ckf_pack_writer_finish(f->pack, f->err);
	ckf_pack_writer_free(f->pack);
	return ret;
}

static int copy_pack(struct flatten *f)
{
	uint64_t idx_bytes;
	int ret;

	f->pack_fd = ckf_output_create(&f->out, CKF_PACK_NAME, f->err);
	if (f->pack_fd < 0)
		return f->pack_fd;
	ret = write_pack(f);
	if (!ret)
		ret = ckf_write_index(&f->out, &f->idx, f->pack_fd, &idx_bytes, f->err);
	if (ret) {
		close(f->pack_fd);
		return ret;
	}
	return ckf_finish_memory_file(&f->out, f->pack_fd, CKF_PACK_NAME, f->err);
}

static int flatten_into(struct flatten *f, const char *out)
{
	int ret;

	ret = ckf_output_open(&f->out, out, CKF_IDX_NAME, f->opts.force, f->err);
	if (ret)
		return ret;
	ret = ckf_check_outside(f->img, &f->out, f->err);
	if (!ret)
		ret = ckf_output_like_dir(&f->out, f->img->dir_fd, f->err);
	if (!ret)
		ret = place_chunks(f);
	if (!ret)
		ret = copy_files(f);
	if (!ret)
		ret = copy_pack(f);
	if (!ret)
		ret = ckf_write_readme(&f->out, f->img->idx, f->err);
	if (!ret)
		ret = ckf_output_seal(&f->out, CKF_IDX_PARTIAL_NAME, CKF_IDX_NAME, f->err);
	return ckf_finish_output(&f->out, ret, &f->opts, f->err);
}

int ckf_flatten(const char *fast, const char *out, const struct ckf_convert_opts *opts,
		struct ckf_error *err)
{
	struct flatten *f = calloc(1, sizeof(*f));
	int ret;

	if (!f)
		return ckf_error_set(err, -ENOMEM, "no memory to flatten");
	f->err = err;
	f->user.opts = &f->opts;
	ret = ckf_opts_get(opts, &f->opts, err);
	if (!ret)
		ret = ckf_open_source(fast, &f->opts, &f->img, err);
	if (!ret)
		ret = flatten_into(f, out);
	free(f->idx.chunks);
	if (f->img)
		ckf_image_close_packs(f->img, f->pack_fds);
	ckf_image_close(f->img);
	free(f);
	return ret;
}
