/* SPDX-License-Identifier: MIT */
/* ckf_extract(): the dump that a fast image was made from, byte for byte. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format/ckf_codec.h"
#include "format/ckf_sum.h"
#include "loader/ckf_image.h"
#include "base/ckf_out_file.h"
#include "ckfast.h"
#include "files.h"
#include "output.h"
#include "pool.h"
#include "user.h"

#define MAX_BATCHES (2 * CKF_POOL_MAX_THREADS + 2)
#define BATCH_BYTES (2u << 20)
#define DUMP_MARK "inventory.img" /* what CRIU opens first */

struct extract;

/* Some chunks of a pages file, one after the other. */
struct batch {
	struct ckf_job job; /* first: the job is the batch */
	struct extract *x;
	uint8_t *data;
	uint64_t *hashes; /* of its pages, where the checksum of the file is made of them */
	uint64_t first_ref;
	uint64_t nr_refs;
	uint64_t off; /* in the file */
	size_t bytes;
	int ret; /* of the job, with err */
	struct ckf_error err;
};

struct extract {
	struct ckf_convert_opts opts;
	struct ckf_error *err;
	struct ckf_image *img;
	struct ckf_in_place in_place;
	struct ckf_output out;
	struct ckf_progress progress;
	struct ckf_user user;

	/* For pages files. */
	struct ckf_pool *pool;
	struct ckf_sum *sum;
	int *pack_fds;		  /* by base of the chunks */
	struct ckf_out_file file; /* the one being written */
	struct batch batches[MAX_BATCHES];
	unsigned int nr_batches;
	uint8_t *data;
	uint64_t *hashes;
};

static void file_times(const struct ckf_file *f, struct timespec t[2])
{
	t[0] = (struct timespec){ .tv_nsec = UTIME_OMIT };
	t[1] = (struct timespec){ .tv_sec = f->mtime_sec, .tv_nsec = f->mtime_nsec };
}

/* The time after all writing. */
static int finish_file(struct extract *x, const struct ckf_file *f, int fd)
{
	struct ckf_access a = ckf_file_access(f);
	struct timespec times[2];
	int ret = ckf_output_set_access(&x->out, fd, f->name, &a, x->err);

	file_times(f, times);
	if (!ret && futimens(fd, times))
		ret = ckf_error_set(x->err, -errno, "cannot set the time of %s: %s", f->name,
				    strerror(errno));
	if (ret) {
		close(fd);
		return ret;
	}
	return ckf_output_finish_file(fd, f->name, x->err);
}

static int extract_verbatim(struct extract *x, const struct ckf_file *f)
{
	int fd = ckf_copy_verbatim(x->img, &x->out, f, &x->opts, x->err);

	if (fd == CKF_LEFT_OUT)
		return 0;
	return fd < 0 ? fd : finish_file(x, f, fd);
}

static int extract_link(struct extract *x, const struct ckf_file *f)
{
	struct timespec times[2];
	int ret;

	ret = ckf_check_sum(x->img, f, ckf_hash64(f->target, strlen(f->target)), x->err);
	if (ret)
		return ret;
	if (symlinkat(f->target, x->out.dir_fd, f->name))
		return ckf_error_set(x->err, -errno, "cannot make link %s: %s", f->name,
				     strerror(errno));
	if (fchownat(x->out.dir_fd, f->name, f->uid, f->gid, AT_SYMLINK_NOFOLLOW)) {
		if (!ckf_access_is_refusal(errno))
			return ckf_error_set(x->err, -errno, "cannot set the owner of %s: %s",
					     f->name, strerror(errno));
		x->out.own = true;
	}
	file_times(f, times);
	if (utimensat(x->out.dir_fd, f->name, times, AT_SYMLINK_NOFOLLOW))
		ret = ckf_error_set(x->err, -errno, "cannot set the time of %s: %s", f->name,
				    strerror(errno));
	return ret;
}

static void run_batch(struct ckf_job *job, struct ckf_worker *w)
{
	struct batch *b = (struct batch *)job;
	struct extract *x = b->x;
	const struct ckf_index *idx = x->img->idx;
	size_t at = 0;

	for (uint64_t i = 0; i < b->nr_refs && !b->ret; i++) {
		uint32_t chunk = idx->refs[b->first_ref + i];
		size_t bytes = (size_t)ckf_pages_to_bytes(idx->chunks[chunk].nr_pages);

		b->ret = ckf_image_read_chunk(x->img, x->pack_fds[idx->chunks[chunk].base], chunk,
					      w->codec, w->scratch, b->data + at, &b->err);
		/* Zero chunks stay holes: an index of zeros alone cannot fill the disk. */
		if (!b->ret && idx->chunks[chunk].codec != CKF_CODEC_ZERO)
			b->ret = ckf_out_file_write(&x->file, b->data + at, bytes, b->off + at);
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
static void begin_batch(struct extract *x, struct batch *b, uint64_t *ref, uint64_t end,
			uint64_t *off)
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

static int end_batch(struct extract *x, const struct ckf_file *f, const struct batch *b)
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
static void drain(struct extract *x, uint64_t ended, uint64_t begun)
{
	for (; ended < begun; ended++) {
		while (!ckf_pool_done(x->pool, &x->batches[ended % x->nr_batches].job))
			ckf_pool_wait(x->pool, CKF_USER_MS);
	}
}

static int write_batches(struct extract *x, const struct ckf_file *f)
{
	uint64_t ref = f->first_ref, end = f->first_ref + f->nr_refs;
	uint64_t off = 0, begun = 0, ended = 0;
	int ret = 0;

	ckf_sum_reset(x->sum);
	while (!ret && (ref < end || ended < begun)) {
		ret = ckf_user_check(&x->user, &x->progress, x->err);
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

static void leave_holes(struct extract *x, const struct ckf_file *f)
{
	const struct ckf_index *idx = x->img->idx;
	uint64_t off = 0;

	for (uint64_t i = f->first_ref; i < f->first_ref + f->nr_refs; i++) {
		const struct ckf_chunk *c = &idx->chunks[idx->refs[i]];
		uint64_t bytes = ckf_pages_to_bytes(c->nr_pages);

		if (c->codec == CKF_CODEC_ZERO)
			ckf_out_file_hole(&x->file, off, bytes);
		off += bytes;
	}
}

static int extract_pages(struct extract *x, const struct ckf_file *f)
{
	int fd, ret;

	fd = ckf_output_create(&x->out, f->name, x->err);
	if (fd < 0)
		return fd;
	ckf_out_file_init(&x->file, fd, true, f->size_bytes);
	leave_holes(x, f);
	ret = write_batches(x, f);
	if (!ret && ftruncate(fd, (off_t)f->size_bytes))
		ret = ckf_error_set(x->err, -errno, "cannot write %s: %s", f->name,
				    strerror(errno));
	ckf_out_file_fini(&x->file);
	if (ret) {
		close(fd);
		return ret;
	}
	return finish_file(x, f, fd);
}

/* What pages files need: threads and buffers, for as many batches as there can be. */
static int start_threads(struct extract *x)
{
	const struct ckf_index *idx = x->img->idx;
	unsigned int threads = ckf_pool_threads(x->opts.threads);
	size_t limit = batch_limit(idx);
	uint64_t batches = 1;
	int ret;

	for (uint64_t i = 0; i < idx->nr_files; i++) {
		if (idx->files[i].kind != CKF_FILE_PAGES)
			continue;
		x->progress.total_bytes += idx->files[i].size_bytes;
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
	return ckf_pool_start(&x->pool, threads, (size_t)ckf_pages_to_bytes(idx->max_chunk_pages),
			      x->err);
}

static int extract_files(struct extract *x)
{
	const struct ckf_index *idx = x->img->idx;
	int ret = start_threads(x);

	for (uint64_t i = 0; i < idx->nr_files && !ret; i++) {
		const struct ckf_file *f = &idx->files[i];

		ret = ckf_user_check(&x->user, &x->progress, x->err);
		if (ret)
			break;
		if (f->kind == CKF_FILE_VERBATIM)
			ret = extract_verbatim(x, f);
		else if (f->kind == CKF_FILE_PAGES)
			ret = extract_pages(x, f);
		else
			ret = extract_link(x, f);
	}
	return ret;
}

static void extract_free(struct extract *x)
{
	ckf_pool_stop(x->pool);
	ckf_sum_free(x->sum);
	free(x->data);
	free(x->hashes);
	if (x->img)
		ckf_image_close_packs(x->img, x->pack_fds);
	ckf_image_close(x->img);
	free(x);
}

static int open_output(struct extract *x, const char *dump)
{
	int ret = ckf_output_open(&x->out, dump, DUMP_MARK, x->opts.force, x->err);

	if (!ret)
		ret = ckf_check_outside(x->img, &x->out, x->err);
	if (!ret)
		ret = ckf_output_like_dir(&x->out, x->img->dir_fd, x->err);
	return ret;
}

/* Files of the image itself, and those that extract makes. */
static bool is_replaced(void *arg, const char *name)
{
	const struct ckf_index *idx = ((struct extract *)arg)->img->idx;

	for (uint64_t i = 0; i < idx->nr_files; i++) {
		if (!strcmp(idx->files[i].name, name))
			return true;
	}
	return !ckf_name_ok(name, strlen(name)) || !strcmp(name, CKF_README_NAME);
}

/* CRIU writes logs into the directory that it restores from: they stay. */
static int open_in_place(struct extract *x, const char *fast)
{
	int ret;

	if (ckf_image_is_stale(x->img))
		return ckf_error_set(x->err, -EBADMSG, "%s is not as it was made%s", fast,
				     ckf_image_stale_hint(x->img));
	ret = ckf_in_place_init(&x->in_place, fast, x->img->dir_fd, CKF_IDX_NAME, x->err);
	if (!ret)
		ret = ckf_output_open_in_place(&x->out, &x->in_place, DUMP_MARK, x->err);
	if (!ret)
		ret = ckf_output_keep_others(&x->out, is_replaced, x, x->err);
	return ret;
}

int ckf_extract(const char *fast, const char *dump, const struct ckf_convert_opts *opts,
		struct ckf_error *err)
{
	struct extract *x = calloc(1, sizeof(*x));
	int ret;

	if (!x)
		return ckf_error_set(err, -ENOMEM, "no memory to extract");
	x->err = err;
	x->user.opts = &x->opts;
	ret = ckf_opts_get(opts, &x->opts, err);
	if (ret)
		goto out;
	ret = ckf_open_source(fast, &x->opts, &x->img, err);
	if (ret)
		goto out;
	ret = dump ? open_output(x, dump) : open_in_place(x, fast);
	if (!ret)
		ret = extract_files(x);
	if (!ret)
		ret = ckf_output_seal(&x->out, NULL, NULL, err);
	if (!ret)
		ret = ckf_output_commit(&x->out, err);
	if (!ret)
		ckf_warn_own(&x->out, &x->opts);
	ckf_output_close(&x->out, x->opts.warn, x->opts.arg);
out:
	extract_free(x);
	return ret;
}
