/* SPDX-License-Identifier: MIT */
/*
 * Checks every byte of a fast image.
 *
 * Two passes over the pack, and in the normal case each byte is read once:
 *
 *  1. Contents. Workers take batches of refs in order, read and check their chunks side by side,
 *     hash their pages, and feed the hashes one batch after the other (by ticket) to one running
 *     checksum. In images whose checksums are those of all bytes, it is the bytes that are fed.
 *     Chunks that passed are marked.
 *  2. Extents. Workers take extents in order and check what is left: the padding, and chunks that
 *     no file refers to. After the last extent the chunks of bases count as extents, too, so many
 *     to one.
 *
 * When pass 1 fails it stops at once, and pass 2 checks every chunk again. Pass 2 finds the first
 * error of the pack whatever the number of threads: extents are handed out in ascending order, so
 * those below a broken one are already being checked, and the lowest error wins. What pass 1 found
 * counts only if the pack itself is whole.
 */
#include <errno.h>
#include <inttypes.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "format/ckf_codec.h"
#include "format/ckf_sum.h"
#include "ckf_image.h"
#include "base/ckf_io_util.h"
#include "base/ckf_opts.h"
#include "base/ckf_threads.h"

#define BATCH_REFS 4096
#define PAD_BYTES (64u << 10)
#define ZERO_PAGES 16u
#define MAX_WORKERS 256
#define BASE_CHUNKS 64 /* what counts as an extent, of chunks that lie in bases */

struct verify {
	const struct ckf_image *img;
	int *pack_fds; /* by base of the chunks; each worker has its own for 0 */
	unsigned int nr_workers;
	struct ckf_verify_opts opts;
	size_t batch_bytes; /* room for any chunk, and in the CPU's cache at the second checksum */
	uint64_t total_bytes;
	_Atomic uint64_t done_bytes;
	_Atomic uint64_t stored_bytes;
	_Atomic uint64_t decoded_bytes;
	_Atomic uint64_t base_bytes;
	_Atomic uint64_t padding_bytes;
	uint64_t file_bytes;
	uint64_t zero_hashes[ZERO_PAGES]; /* of pages of zeros */
	atomic_bool *checked;		  /* per chunk */

	pthread_mutex_t lock;
	pthread_cond_t turn_cond;

	/* Pass 1; under lock, but hash: that is of the batch whose ticket is turn. */
	uint64_t next_file;
	uint64_t next_ref; /* within next_file */
	uint64_t next_ticket;
	uint64_t turn;
	struct ckf_sum *hash;

	/* Pass 2. */
	uint64_t nr_extents; /* of the own pack */
	_Atomic uint64_t next_extent;
	_Atomic uint64_t stop_extent; /* none at or above needs a check */

	/* Under lock: the error of the pass, and in pass 2 the extent that it is in. */
	bool failed;
	uint64_t failed_extent;
	struct ckf_error err;
};

struct worker {
	struct verify *v;
	bool first; /* the calling thread */
	int pack_fd;
	struct ckf_codec_ctx *ctx;
	char *stored;
	char *decoded;
	uint64_t *hashes; /* of the pages in decoded */
	char *pad;
};

struct batch {
	const struct ckf_file *file; /* NULL: nothing left */
	uint64_t first_ref;
	uint64_t nr_refs;
	uint64_t ticket;
	bool last; /* of the file */
};

static uint64_t chunk_bytes(const struct ckf_chunk *c)
{
	return ckf_pages_to_bytes(c->nr_pages);
}

static void tell_progress(const struct verify *v, uint64_t done_bytes)
{
	const struct ckf_progress p = { .done_bytes = done_bytes, .total_bytes = v->total_bytes };

	if (v->opts.progress)
		v->opts.progress(v->opts.arg, &p);
}

static void add_done(struct worker *w, uint64_t bytes)
{
	struct verify *v = w->v;
	uint64_t sum = atomic_fetch_add(&v->done_bytes, bytes) + bytes;

	if (w->first)
		tell_progress(v, sum);
}

/* Reads and checks chunk i into w->decoded + at_bytes. */
static int check_chunk(struct worker *w, uint64_t i, uint64_t at_bytes, struct ckf_error *err)
{
	struct verify *v = w->v;
	const struct ckf_chunk *c = &v->img->idx->chunks[i];
	int rc;

	rc = ckf_image_read_chunk(v->img, c->base ? v->pack_fds[c->base] : w->pack_fd, i, w->ctx,
				  w->stored, w->decoded + at_bytes, err);
	if (rc)
		return rc;
	if (!atomic_exchange(&v->checked[i], true)) {
		atomic_fetch_add(c->base ? &v->base_bytes : &v->stored_bytes, c->stored_bytes);
		atomic_fetch_add(&v->decoded_bytes, chunk_bytes(c));
	}
	return 0;
}

/* Pass 1: contents */

/* The next files of pages that have no refs are taken as batches of none. */
static void batch_take(struct verify *v, struct batch *b)
{
	const struct ckf_index *idx = v->img->idx;
	uint64_t bytes = 0;

	memset(b, 0, sizeof(*b));
	pthread_mutex_lock(&v->lock);
	while (v->next_file < idx->nr_files && !ckf_file_has_pages(&idx->files[v->next_file]))
		v->next_file++;
	if (v->failed || v->next_file == idx->nr_files)
		goto out;
	b->file = &idx->files[v->next_file];
	b->first_ref = v->next_ref;
	b->ticket = v->next_ticket++;
	while (b->first_ref + b->nr_refs < b->file->nr_refs && b->nr_refs < BATCH_REFS) {
		uint64_t ref = b->file->first_ref + b->first_ref + b->nr_refs;
		const struct ckf_chunk *c = &idx->chunks[idx->refs[ref]];

		if (c->codec != CKF_CODEC_ZERO) {
			bytes += chunk_bytes(c);
			if (bytes > v->batch_bytes)
				break;
		}
		b->nr_refs++;
	}
	v->next_ref += b->nr_refs;
	b->last = v->next_ref == b->file->nr_refs;
	if (b->last) {
		v->next_file++;
		v->next_ref = 0;
	}
out:
	pthread_mutex_unlock(&v->lock);
}

static const struct ckf_chunk *batch_chunk(const struct ckf_index *idx, const struct batch *b,
					   uint64_t i, uint32_t *nr)
{
	*nr = idx->refs[b->file->first_ref + b->first_ref + i];
	return &idx->chunks[*nr];
}

static int batch_read(struct worker *w, const struct batch *b, struct ckf_error *err)
{
	const struct ckf_index *idx = w->v->img->idx;
	uint64_t at_bytes = 0;

	for (uint64_t i = 0; i < b->nr_refs; i++) {
		uint32_t nr;
		const struct ckf_chunk *c = batch_chunk(idx, b, i, &nr);
		int rc;

		if (c->codec == CKF_CODEC_ZERO)
			continue;
		rc = check_chunk(w, nr, at_bytes, err);
		if (rc)
			return rc;
		at_bytes += chunk_bytes(c);
	}
	if (idx->page_sums)
		ckf_hash_pages(w->decoded, at_bytes >> CKF_PAGE_SHIFT, w->hashes);
	return 0;
}

static void feed_zeros(struct verify *v, uint64_t nr)
{
	static const char zeros[ZERO_PAGES * CKF_PAGE_BYTES];

	for (uint64_t n; nr; nr -= n) {
		n = nr < ZERO_PAGES ? nr : ZERO_PAGES;
		ckf_sum_pages(v->hash, v->img->idx->page_sums, v->zero_hashes, zeros, n);
	}
}

/* Returns the file bytes that the batch stands for. */
static uint64_t batch_hash(struct worker *w, const struct batch *b)
{
	const struct ckf_index *idx = w->v->img->idx;
	uint64_t at = 0, pages = 0;

	for (uint64_t i = 0; i < b->nr_refs; i++) {
		uint32_t nr;
		const struct ckf_chunk *c = batch_chunk(idx, b, i, &nr);

		pages += c->nr_pages;
		if (c->codec == CKF_CODEC_ZERO) {
			feed_zeros(w->v, c->nr_pages);
			continue;
		}
		ckf_sum_pages(w->v->hash, idx->page_sums, w->hashes + at,
			      w->decoded + ckf_pages_to_bytes(at), c->nr_pages);
		at += c->nr_pages;
	}
	return ckf_pages_to_bytes(pages);
}

/* False when the pass has failed in the meantime. */
static bool turn_wait(struct verify *v, uint64_t ticket)
{
	bool ok;

	pthread_mutex_lock(&v->lock);
	while (v->turn != ticket && !v->failed)
		pthread_cond_wait(&v->turn_cond, &v->lock);
	ok = !v->failed;
	pthread_mutex_unlock(&v->lock);
	return ok;
}

static int turn_end(struct verify *v, const struct batch *b, struct ckf_error *err)
{
	const struct ckf_index *idx = v->img->idx;
	int rc = 0;

	if (b->last) {
		uint64_t sum = ckf_sum_value(v->hash);

		ckf_sum_reset(v->hash);
		if (sum != b->file->checksum)
			rc = ckf_error_rule(err, -EBADMSG, "files", b->file - idx->files, 0,
					    "R-file: checksum of %s, got 0x%" PRIx64
					    ", want 0x%" PRIx64,
					    b->file->name, sum, b->file->checksum);
	}
	pthread_mutex_lock(&v->lock);
	v->turn++;
	pthread_cond_broadcast(&v->turn_cond);
	pthread_mutex_unlock(&v->lock);
	return rc;
}

static int pass_contents(struct worker *w)
{
	struct verify *v = w->v;
	struct ckf_error err = { 0 };

	for (;;) {
		struct batch b;
		uint64_t bytes;
		int rc;

		batch_take(v, &b);
		if (!b.file)
			return 0;
		rc = batch_read(w, &b, &err);
		if (!rc) {
			if (!turn_wait(v, b.ticket))
				return 0;
			bytes = batch_hash(w, &b);
			rc = turn_end(v, &b, &err);
			add_done(w, bytes);
		}
		if (rc) {
			pthread_mutex_lock(&v->lock);
			if (!v->failed)
				v->err = err;
			v->failed = true;
			pthread_cond_broadcast(&v->turn_cond);
			pthread_mutex_unlock(&v->lock);
			return rc;
		}
	}
}

/* Pass 2: extents */

/* The first byte that is not zero, or NULL. */
static const char *find_nonzero(const char *p, size_t bytes)
{
	const char *end = p + bytes;

	while (p < end && ((uintptr_t)p % 64 || (size_t)(end - p) < 64)) {
		if (*p)
			return p;
		p++;
	}
	if (ckf_is_zero(p, (size_t)(end - p) & ~(size_t)63))
		p += (size_t)(end - p) & ~(size_t)63;
	while (p < end && !*p)
		p++;
	return p < end ? p : NULL;
}

static int check_padding(struct worker *w, uint64_t off, uint64_t end, struct ckf_error *err)
{
	while (off < end) {
		size_t n = end - off < PAD_BYTES ? end - off : PAD_BYTES;
		int rc = ckf_pread_all(w->pack_fd, w->pad, n, w->v->img->pack_start + off);
		const char *bad;

		if (rc)
			return ckf_error_set(err, rc,
					     "cannot read " CKF_PACK_NAME " at %" PRIu64 ": %s",
					     off, strerror(-rc));
		bad = find_nonzero(w->pad, n);
		if (bad)
			return ckf_error_rule(err, -EBADMSG, "pack", -1,
					      off + (uint64_t)(bad - w->pad),
					      "R-padding: byte of " CKF_PACK_NAME " is not zero");
		off += n;
		atomic_fetch_add(&w->v->padding_bytes, n);
	}
	return 0;
}

/* Position of the first chunk at or after off; zero chunks, which have no place, come first. */
static uint64_t find_chunk(const struct ckf_index *idx, uint64_t off)
{
	uint64_t lo = 0;
	uint64_t hi = idx->nr_own_chunks;

	while (lo < hi) {
		uint64_t mid = lo + (hi - lo) / 2;

		if (idx->chunks[mid].pack_off < off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int check_extent(struct worker *w, uint64_t extent, struct ckf_error *err)
{
	const struct ckf_index *idx = w->v->img->idx;
	uint64_t off = extent * idx->extent_bytes;
	uint64_t end = off + idx->extent_bytes;
	int rc = 0;

	if (end > idx->pack_bytes)
		end = idx->pack_bytes;
	if (!extent)
		off = sizeof(struct ckf_disk_pack_header);
	for (uint64_t i = find_chunk(idx, off); i < idx->nr_own_chunks; i++) {
		const struct ckf_chunk *c = &idx->chunks[i];

		if (c->pack_off >= end)
			break;
		rc = check_padding(w, off, c->pack_off, err);
		if (!rc && !atomic_load(&w->v->checked[i]))
			rc = check_chunk(w, i, 0, err);
		if (rc)
			return rc;
		off = c->pack_off + c->stored_bytes;
	}
	return check_padding(w, off, end, err);
}

/* The chunks of bases that no file refers to, of one group of them. */
static int check_base_chunks(struct worker *w, uint64_t group, struct ckf_error *err)
{
	const struct ckf_index *idx = w->v->img->idx;
	uint64_t first = idx->nr_own_chunks + group * BASE_CHUNKS;
	int rc = 0;

	for (uint64_t i = first; i < idx->nr_chunks && i < first + BASE_CHUNKS && !rc; i++)
		if (!atomic_load(&w->v->checked[i]))
			rc = check_chunk(w, i, 0, err);
	return rc;
}

static int pass_extents(struct worker *w)
{
	struct verify *v = w->v;

	for (;;) {
		uint64_t extent = atomic_fetch_add(&v->next_extent, 1);
		struct ckf_error err = { 0 };
		int rc;

		if (extent >= atomic_load(&v->stop_extent))
			return 0;
		if (extent < v->nr_extents)
			rc = check_extent(w, extent, &err);
		else
			rc = check_base_chunks(w, extent - v->nr_extents, &err);
		if (!rc) {
			add_done(w, v->img->idx->extent_bytes);
			continue;
		}
		pthread_mutex_lock(&v->lock);
		if (!v->failed || extent < v->failed_extent) {
			v->err = err;
			v->failed_extent = extent;
			atomic_store(&v->stop_extent, extent);
		}
		v->failed = true;
		pthread_mutex_unlock(&v->lock);
		return rc;
	}
}

/* Workers */

static void worker_fini(struct worker *w)
{
	if (w->pack_fd >= 0)
		close(w->pack_fd);
	ckf_codec_ctx_free(w->ctx);
	free(w->stored);
	free(w->decoded);
	free(w->hashes);
	free(w->pad);
}

/* Each has an open file of its own: read-ahead follows the reads of one thread. */
static int worker_init(struct worker *w, struct verify *v, struct ckf_error *err)
{
	int rc;

	w->v = v;
	w->pack_fd = ckf_image_open_pack(v->img, v->img->dir_fd, 0, err);
	if (w->pack_fd < 0)
		return w->pack_fd;
	posix_fadvise(w->pack_fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	rc = ckf_codec_ctx_new(&w->ctx);
	if (rc)
		return ckf_error_set(err, rc, "no memory for the decoders");
	w->stored = aligned_alloc(CKF_PAGE_BYTES, v->batch_bytes);
	w->decoded = aligned_alloc(CKF_PAGE_BYTES, v->batch_bytes);
	w->hashes = calloc(v->batch_bytes / CKF_PAGE_BYTES, sizeof(*w->hashes));
	w->pad = aligned_alloc(CKF_PAGE_BYTES, PAD_BYTES);
	if (!w->stored || !w->decoded || !w->hashes || !w->pad)
		return ckf_error_set(err, -ENOMEM, "no memory for read buffers");
	return 0;
}

struct pass {
	struct worker *workers;
	int (*run)(struct worker *w);
};

static void run_worker(void *arg, unsigned int nr)
{
	const struct pass *p = arg;

	p->run(&p->workers[nr]);
}

/* A thread that cannot be started is work for the others; progress is told by the calling one. */
static void run_pass(struct verify *v, struct worker *workers, int (*run)(struct worker *w))
{
	struct pass pass = { workers, run };
	const struct ckf_threads_opts threads = {
		.threads = v->nr_workers,
		.with_caller = true,
		.work = run_worker,
		.arg = &pass,
	};

	ckf_threads_run(&threads);
}

static int run_passes(struct verify *v, struct worker *workers, struct ckf_error *err)
{
	const struct ckf_index *idx = v->img->idx;
	struct ckf_error first;

	run_pass(v, workers, pass_contents);
	first = v->err;
	if (v->failed) {
		for (uint64_t i = 0; i < idx->nr_chunks; i++)
			atomic_store(&v->checked[i], false);
		atomic_store(&v->stored_bytes, 0);
		atomic_store(&v->base_bytes, 0);
		atomic_store(&v->decoded_bytes, 0);
		v->failed = false;
	}
	run_pass(v, workers, pass_extents);
	if (v->failed)
		first = v->err;
	if (first.code && err && !err->code)
		*err = first;
	return first.code;
}

static int check_files(struct verify *v, struct ckf_error *err)
{
	const struct ckf_index *idx = v->img->idx;
	int rc;

	rc = ckf_image_check_files(v->img, CKF_FILES_ALL, err);
	for (uint64_t i = 0; !rc && i < idx->nr_files; i++)
		if (idx->files[i].kind == CKF_FILE_VERBATIM && !ckf_file_is_unread(&idx->files[i]))
			v->file_bytes += idx->files[i].size_bytes;
	return rc;
}

static int verify_init(struct verify *v, const struct ckf_image *img)
{
	const struct ckf_index *idx = img->idx;

	v->img = img;
	v->batch_bytes = (size_t)ckf_pages_to_bytes(idx->max_chunk_pages);
	v->nr_extents = (idx->pack_bytes + idx->extent_bytes - 1) / idx->extent_bytes;
	v->stop_extent = v->nr_extents +
			 (idx->nr_chunks - idx->nr_own_chunks + BASE_CHUNKS - 1) / BASE_CHUNKS;
	v->total_bytes = v->stop_extent * idx->extent_bytes;
	for (uint64_t i = 0; i < idx->nr_files; i++) {
		const struct ckf_file *f = &idx->files[i];

		if (ckf_file_has_pages(f))
			v->total_bytes += ckf_file_page_bytes(f);
		else if (f->kind != CKF_FILE_SYMLINK)
			v->total_bytes += f->size_bytes;
	}
	v->checked = calloc(idx->nr_chunks ? idx->nr_chunks : 1, sizeof(*v->checked));
	v->hash = ckf_sum_new();
	if (!v->checked || !v->hash)
		return -ENOMEM;
	ckf_sum_reset(v->hash);
	for (unsigned int i = 0; i < ZERO_PAGES; i++)
		v->zero_hashes[i] = ckf_hash64_zeros(CKF_PAGE_BYTES);
	return 0;
}

static void verify_stats(struct verify *v, struct ckf_verify_stats *stats, uint64_t start_ns)
{
	const struct ckf_verify_stats own = {
		.stored_bytes = atomic_load(&v->stored_bytes),
		.base_bytes = atomic_load(&v->base_bytes),
		.decoded_bytes = atomic_load(&v->decoded_bytes),
		.padding_bytes = atomic_load(&v->padding_bytes),
		.file_bytes = v->file_bytes,
		.ns = ckf_now_ns() - start_ns,
	};

	ckf_opts_give(stats, &own, sizeof(own));
}

int ckf_verify(const struct ckf_image *img, const struct ckf_verify_opts *opts,
	       struct ckf_verify_stats *stats, struct ckf_error *err)
{
	struct verify v = { .opts = { .size = sizeof(v.opts) } };
	struct worker *workers = NULL;
	uint64_t start_ns = ckf_now_ns();
	int rc = 0;

	if (opts)
		rc = CKF_OPTS_TAKE(ckf_verify_opts, &v.opts, opts, size, err);
	if (!rc && stats)
		rc = CKF_OPTS_CHECK(ckf_verify_stats, stats, err);
	if (rc)
		return rc;
	pthread_mutex_init(&v.lock, NULL);
	pthread_cond_init(&v.turn_cond, NULL);
	rc = verify_init(&v, img);
	v.nr_workers = v.opts.threads ? v.opts.threads : ckf_cpus();
	if (v.nr_workers > MAX_WORKERS)
		v.nr_workers = MAX_WORKERS;
	if (v.nr_workers > v.stop_extent)
		v.nr_workers = (unsigned int)v.stop_extent;
	if (!rc) {
		workers = calloc(v.nr_workers, sizeof(*workers));
		rc = workers ? 0 : -ENOMEM;
	}
	if (rc) {
		ckf_error_set(err, rc, "no memory for the state of the check");
		goto out;
	}
	workers[0].first = true;
	for (unsigned int i = 0; i < v.nr_workers; i++)
		workers[i].pack_fd = -1;
	rc = ckf_image_open_packs(img, img->dir_fd, &v.pack_fds, err);
	for (unsigned int i = 0; !rc && i < v.nr_workers; i++)
		rc = worker_init(&workers[i], &v, err);
	if (rc)
		goto out;
	rc = run_passes(&v, workers, err);
	if (!rc)
		rc = check_files(&v, err);
	if (!rc)
		tell_progress(&v, v.total_bytes);
	if (stats)
		verify_stats(&v, stats, start_ns);
out:
	for (unsigned int i = 0; workers && i < v.nr_workers; i++)
		worker_fini(&workers[i]);
	free(workers);
	ckf_image_close_packs(img, v.pack_fds);
	ckf_sum_free(v.hash);
	free(v.checked);
	pthread_cond_destroy(&v.turn_cond);
	pthread_mutex_destroy(&v.lock);
	return rc;
}
