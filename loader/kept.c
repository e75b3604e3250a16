/* SPDX-License-Identifier: MIT */
/*
 * Kept images: see ckf_kept.h.
 *
 * Chunks lie side by side in the order of their pack, each once, so that what was one range of the
 * device is one copy in most cases. The checksums of the image's chunk table say what they are: an
 * image with the same table has the same bytes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "format/ckf_codec.h"
#include "base/ckf_threads.h"
#include "ckf_kept.h"
#include "ckf_image.h"
#include "sink.h"

#define NOT_KEPT UINT64_MAX
#define LOAD_CHUNKS 16		   /* that a thread takes at a time */
#define UPLOAD_BYTES (16ull << 20) /* one copy: the fill can be cancelled after each */
#define NS_PER_S 1000000000ll
#define SETTLE_NS NS_PER_S /* after a write, another one may not yet show in ctime */

struct seen_pack {
	uint64_t dev;
	uint64_t ino;
	uint64_t bytes;
	/*
	 * ctime. Assumed: each write sets it, and the clock does not go back. It has the resolution
	 * of a tick, so two writes may leave the same; pages that are mapped set it only when they
	 * are first written to after they were last written back; and root can set the clock.
	 */
	struct timespec changed;
};

struct ckf_packs_seen {
	unsigned int nr;
	struct seen_pack packs[];
};

struct ckf_kept {
	struct ckf_packs_seen *seen;
	struct ckf_chunk *chunks; /* all of the image */
	uint64_t nr_chunks;
	uint64_t *offs; /* of each chunk in mem, or NOT_KEPT */
	uint64_t bytes;
	const char *mem;
};

int ckf_packs_see(const struct ckf_image *img, struct ckf_packs_seen **out, struct ckf_error *err)
{
	const unsigned int nr = img->idx->nr_bases + 1;
	struct ckf_packs_seen *seen = calloc(1, sizeof(*seen) + nr * sizeof(seen->packs[0]));
	struct stat st;
	int ret = 0, fd;

	*out = NULL;
	if (!seen)
		return ckf_error_set(err, -ENOMEM, "no memory");
	for (; seen->nr < nr && !ret; seen->nr++) {
		fd = ckf_image_open_pack_of(img, img->dir_fd, seen->nr, 0, err);
		if (fd < 0) {
			ret = fd;
			break;
		}
		if (fstat(fd, &st))
			ret = ckf_error_set(err, -errno, "cannot stat a pack: %s", strerror(errno));
		close(fd);
		seen->packs[seen->nr] = (struct seen_pack){
			.dev = st.st_dev,
			.ino = st.st_ino,
			.bytes = (uint64_t)st.st_size,
			.changed = st.st_ctim,
		};
	}
	if (ret)
		free(seen);
	else
		*out = seen;
	return ret;
}

static bool same_pack(const struct seen_pack *a, const struct seen_pack *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->bytes == b->bytes &&
	       a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

/* Targets with other ids are memory of AMD GPUs, which CRIU fills. */
static bool is_kept(const struct ckf_target *t)
{
	return t->kind == CKF_TARGET_DEVICE && t->id <= UINT32_MAX;
}

/* Another image may have the same chunks, and other ones of them in device memory. */
static bool has_all(const struct ckf_kept *k, const struct ckf_index *idx)
{
	for (uint64_t i = 0; i < idx->nr_targets; i++) {
		const struct ckf_target *t = &idx->targets[i];

		for (uint64_t op = t->first_op; is_kept(t) && op < t->first_op + t->nr_ops; op++) {
			const uint32_t chunk = idx->ops[op].chunk;

			if (k->offs[chunk] == NOT_KEPT && k->chunks[chunk].codec != CKF_CODEC_ZERO)
				return false;
		}
	}
	return true;
}

bool ckf_kept_is_of(const struct ckf_kept *k, const struct ckf_image *img,
		    const struct ckf_packs_seen *seen)
{
	const struct ckf_index *idx = img->idx;

	if (seen->nr != k->seen->nr || idx->nr_chunks != k->nr_chunks)
		return false;
	for (unsigned int i = 0; i < seen->nr; i++)
		if (!same_pack(&seen->packs[i], &k->seen->packs[i]))
			return false;
	return !memcmp(idx->chunks, k->chunks, k->nr_chunks * sizeof(*k->chunks)) &&
	       has_all(k, idx);
}

/* Gives each chunk that device memory needs its place. */
static void place_chunks(struct ckf_kept *k, const struct ckf_index *idx)
{
	for (uint64_t i = 0; i < k->nr_chunks; i++)
		k->offs[i] = NOT_KEPT;
	for (uint64_t i = 0; i < idx->nr_targets; i++) {
		const struct ckf_target *t = &idx->targets[i];

		for (uint64_t op = t->first_op; is_kept(t) && op < t->first_op + t->nr_ops; op++)
			k->offs[idx->ops[op].chunk] = 0;
	}
	for (uint64_t i = 0; i < k->nr_chunks; i++) {
		if (k->offs[i] == NOT_KEPT)
			continue;
		k->offs[i] = NOT_KEPT;
		if (k->chunks[i].codec == CKF_CODEC_ZERO)
			continue;
		k->offs[i] = k->bytes;
		k->bytes += ckf_pages_to_bytes(k->chunks[i].nr_pages);
	}
}

/* Whether a write from now on shows: the last one is not of this moment. */
static int check_settled(const struct ckf_packs_seen *seen, struct ckf_error *err)
{
	struct timespec now;
	int64_t s;

	(void)timespec_get(&now, TIME_UTC);
	for (unsigned int i = 0; i < seen->nr; i++) {
		const struct timespec *t = &seen->packs[i].changed;

		s = now.tv_sec - t->tv_sec;
		if (s < 2 && s * NS_PER_S + now.tv_nsec - t->tv_nsec < SETTLE_NS)
			return ckf_error_set(
				err, -EAGAIN,
				"a pack was changed less than a second ago: try again");
	}
	return 0;
}

static bool has_device_memory(const struct ckf_index *idx)
{
	for (uint64_t i = 0; i < idx->nr_targets; i++)
		if (is_kept(&idx->targets[i]))
			return true;
	return false;
}

int ckf_kept_new(const struct ckf_image *img, struct ckf_kept **out, struct ckf_error *err)
{
	const struct ckf_index *idx = img->idx;
	struct ckf_kept *k;
	int ret;

	*out = NULL;
	if (!has_device_memory(idx))
		return ckf_error_set(err, -ENOENT, "there is no GPU memory in this image");
	k = calloc(1, sizeof(*k));
	if (!k)
		return ckf_error_set(err, -ENOMEM, "no memory");
	k->nr_chunks = idx->nr_chunks;
	k->offs = malloc((k->nr_chunks + 1) * sizeof(*k->offs));
	k->chunks = malloc((k->nr_chunks + 1) * sizeof(*k->chunks));
	if (k->offs && k->chunks)
		ret = ckf_packs_see(img, &k->seen, err);
	else
		ret = ckf_error_set(err, -ENOMEM, "no memory");
	if (!ret)
		ret = check_settled(k->seen, err);
	if (ret) {
		ckf_kept_free(k);
		return ret;
	}
	memcpy(k->chunks, idx->chunks, k->nr_chunks * sizeof(*k->chunks));
	place_chunks(k, idx);
	*out = k;
	return 0;
}

void ckf_kept_free(struct ckf_kept *k)
{
	if (!k)
		return;
	free(k->seen);
	free(k->chunks);
	free(k->offs);
	free(k);
}

uint64_t ckf_kept_bytes(const struct ckf_kept *k)
{
	return k->bytes;
}

struct load {
	struct ckf_kept *k;
	const struct ckf_image *img;
	char *mem;
	int *fds; /* of the packs */
	uint32_t stored_bytes;
	int (*cancelled)(void *arg);
	void *arg;
	_Atomic uint64_t next;
	atomic_bool failed;
	pthread_mutex_t lock; /* for ret and err */
	int ret;
	struct ckf_error err;
};

static int load_chunks(struct load *l, uint64_t first, struct ckf_codec_ctx *ctx, void *stored,
		       struct ckf_error *err)
{
	const struct ckf_kept *k = l->k;
	uint64_t end = first + LOAD_CHUNKS < k->nr_chunks ? first + LOAD_CHUNKS : k->nr_chunks;
	int ret = 0;

	if (l->cancelled && l->cancelled(l->arg))
		return -ECANCELED;
	for (uint64_t i = first; i < end && !ret; i++)
		if (k->offs[i] != NOT_KEPT)
			ret = ckf_image_read_chunk(l->img, l->fds[k->chunks[i].base], i, ctx,
						   stored, l->mem + k->offs[i], err);
	return ret;
}

static void load_thread(void *arg, unsigned int nr)
{
	struct load *l = arg;
	void *stored = malloc(l->stored_bytes + 1ul);
	struct ckf_codec_ctx *ctx = NULL;
	struct ckf_error err = { 0 };
	uint64_t first;
	int ret = 0;

	(void)nr;
	if (!stored || ckf_codec_ctx_new(&ctx))
		ret = ckf_error_set(&err, -ENOMEM, "no memory");
	while (!ret && !atomic_load(&l->failed)) {
		first = atomic_fetch_add(&l->next, LOAD_CHUNKS);
		if (first >= l->k->nr_chunks)
			break;
		ret = load_chunks(l, first, ctx, stored, &err);
	}
	ckf_codec_ctx_free(ctx);
	free(stored);
	if (!ret)
		return;
	atomic_store(&l->failed, true);
	pthread_mutex_lock(&l->lock);
	if (!l->ret) {
		l->ret = ret;
		l->err = err;
	}
	pthread_mutex_unlock(&l->lock);
}

int ckf_kept_load(struct ckf_kept *k, const struct ckf_image *img, void *mem, unsigned int threads,
		  int (*cancelled)(void *arg), void *arg, struct ckf_error *err)
{
	struct load l = { .k = k, .img = img, .mem = mem, .cancelled = cancelled, .arg = arg };
	struct ckf_threads_opts o = { .threads = threads, .work = load_thread, .arg = &l };
	int ret;

	for (uint64_t i = 0; i < k->nr_chunks; i++)
		if (k->offs[i] != NOT_KEPT && k->chunks[i].stored_bytes > l.stored_bytes)
			l.stored_bytes = k->chunks[i].stored_bytes;
	ret = ckf_image_open_packs(img, img->dir_fd, &l.fds, err);
	if (!ret) {
		pthread_mutex_init(&l.lock, NULL);
		ckf_threads_run(&o);
		pthread_mutex_destroy(&l.lock);
		ret = l.ret;
		if (ret && ret != -ECANCELED)
			ckf_error_set(err, ret, "%s", l.err.msg);
	}
	ckf_image_close_packs(img, l.fds);
	if (!ret)
		k->mem = mem;
	return ret;
}

struct source {
	const struct ckf_kept *k;
	const struct ckf_kept_ops *ops;
	const struct ckf_image *img;
	const struct ckf_target *target;
	struct lane_planner planner;
};

/* What is copied next. */
struct run {
	const struct ckf_sink_dest *dest;
	uint64_t addr;
	const char *src;
	uint64_t bytes; /* 0: nothing */
};

static int take_part(void *arg, const struct lane_part *part, struct ckf_error *err)
{
	struct sink_worker *w = arg;
	const struct source *src = w->job->arg;

	(void)err; /* is that of the worker */
	return sink_clear_zeros(w, src->img->idx, part);
}

static int upload(struct sink_worker *w, const struct run *r)
{
	const struct source *src = w->job->arg;
	struct ckf_sink *sink = r->dest->sink;
	int ret;

	w->stats.filled_bytes += r->bytes;
	atomic_fetch_add(&w->job->progress, 1);
	ret = src->ops->upload(sink, sink_stream(w, sink), r->dest->mem, r->addr - r->dest->start,
			       r->src, r->bytes, &w->err);
	return ret ? ckf_error_set(&w->err, ret, "cannot copy to %s: %s", w->job->ops->name,
				   strerror(-ret))
		   : 0;
}

/* Joins pieces that go on from each other on both sides. */
static int fill_lane(struct sink_worker *w, const struct lane *lane)
{
	const struct source *src = w->job->arg;
	struct run r = { .bytes = 0 };
	int ret = 0;

	for (size_t i = 0; i < lane->nr_pieces && !ret; i++) {
		const struct lane_piece *p = &lane->pieces[i];
		const uint64_t bytes = ckf_pages_to_bytes(p->nr_pages);
		const char *from = src->k->mem + src->k->offs[p->chunk] +
				   ckf_pages_to_bytes(p->first_page);

		if (r.bytes && r.dest == &w->job->dests[p->dest] && r.addr + r.bytes == p->addr &&
		    r.src + r.bytes == from && r.bytes + bytes <= UPLOAD_BYTES) {
			r.bytes += bytes;
			continue;
		}
		if (r.bytes)
			ret = upload(w, &r);
		r = (struct run){ &w->job->dests[p->dest], p->addr, from, bytes };
	}
	return ret || !r.bytes ? ret : upload(w, &r);
}

static const struct ckf_lane *lane_of(const struct source *src, uint64_t unit)
{
	return &src->img->idx->lanes[src->target->first_lane + unit];
}

static int fill(struct sink_worker *w)
{
	const struct source *src = w->job->arg;
	struct lane lane = { .pieces = NULL };
	uint64_t unit;
	int ret = 0;

	while (!ret && sink_next_unit(w, &unit)) {
		ret = lane_load(&src->planner, lane_of(src, unit), &lane, w, &w->err);
		if (!ret)
			ret = fill_lane(w, &lane);
	}
	free(lane.pieces);
	return ret;
}

static uint32_t sink_of_unit(const struct sink_job *job, uint64_t unit)
{
	const struct source *src = job->arg;

	return sink_of_lane(job, src->img->idx, lane_of(src, unit));
}

int ckf_fill_kept(const struct ckf_kept *k, const struct ckf_image *img, const struct ckf_target *t,
		  const struct ckf_kept_ops *ops, const struct ckf_sink_dest *dests,
		  size_t nr_dests, const struct ckf_fill_opts *opts, struct ckf_fill_stats *stats,
		  struct ckf_error *err)
{
	struct source src = {
		.k = k,
		.ops = ops,
		.img = img,
		.target = t,
		.planner = {
			.img = img,
			.target = t,
			.nowhere = "where no memory was made",
			.take = take_part,
			.nr_dests = nr_dests,
		},
	};
	struct sink_job job = {
		.ops = ops->sink,
		.dests = dests,
		.nr_dests = nr_dests,
		.fill = fill,
		.arg = &src,
		.nr_units = t->nr_lanes,
	};
	int ret;

	ret = sink_job_init(&job, opts, stats, err);
	src.planner.dests = job.ranges;
	if (!ret)
		ret = sink_job_order(&job, sink_of_unit, err);
	if (!ret)
		ret = sink_job_run(&job, ckf_pages_to_bytes(t->nr_pages), err);
	sink_job_fini(&job, stats);
	return ret;
}
