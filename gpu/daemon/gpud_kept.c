/* SPDX-License-Identifier: MIT */
/*
 * Images that gpud keeps: their device memory lies decoded, checked and pinned in gpud, and a
 * restore of one does nothing but copy.
 *
 * A fill uses a kept image when its client has opened the very files that were kept, unchanged; so
 * nobody gets bytes that he could not read, and none that are no longer in the image. A fill that
 * finds nothing wakes the keeper, a thread, which drops what has changed and keeps it anew.
 *
 * Whoever adds images, or takes their memory away, has the turn: one thread at a time, for as long
 * as it reads. The lock is held for moments only.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckf_threads.h"
#include "loader/ckf_kept.h"
#include "loader/ckf_memory.h"
#include "gpud.h"

#define SPARE_BYTES (512ull << 20) /* of the machine, or of the memory cgroup, stay free */
#define KEEPER_MS 2000		   /* how often the keeper looks whether memory is short */
#define TURN_POLL_MS 100
#define REFRESH_NS GPUD_NS_PER_S      /* between two looks at all images, whatever clients do */
#define RETRY_NS (10 * GPUD_NS_PER_S) /* until an image that could not be kept is tried again */

/* The memory of an image. */
struct gpud_kept_mem {
	struct gpud_kept *k;
	struct ckf_kept *kept;
	void *addr;
	uint64_t bytes;
	bool pinned;
	unsigned int users; /* fills, and the image that it is of; under the lock */
};

struct kept_image {
	struct kept_image *next;
	const char *path; /* of --keep; NULL: dir_fd is all that is known */
	int dir_fd;	  /* of what was read last; -1: nothing yet */
	/* Under the lock. */
	struct gpud_kept_mem *mem; /* NULL: not there */
	uint64_t hits;
	uint64_t kept_ns; /* when it was read */
	uint64_t used_ns;
	/* With the turn. */
	bool wanted;	   /* the keeper is to read it */
	uint64_t tried_ns; /* when it failed to; 0: it did not */
	uint64_t round;	   /* in which the keeper saw it last */
};

struct gpud_kept {
	struct ckf_gpud *g;
	pthread_t keeper;
	bool started;
	pthread_mutex_t lock; /* for all below */
	pthread_cond_t cond;
	bool turn; /* somebody has it. The list changes only with it and the lock */
	bool woken;
	struct kept_image *images;
	struct gpud_kept_counts counts;
};

static unsigned long long mib(uint64_t bytes)
{
	return bytes >> 20;
}

static int take_turn(struct gpud_kept *k, int (*cancelled)(void *arg), void *arg)
{
	int ret = 0;

	pthread_mutex_lock(&k->lock);
	while (!ret && k->turn) {
		(void)ckf_cond_wait_ms(&k->cond, &k->lock, TURN_POLL_MS);
		if (cancelled(arg))
			ret = -ECANCELED;
	}
	if (!ret)
		k->turn = true;
	pthread_mutex_unlock(&k->lock);
	return ret;
}

static void give_turn(struct gpud_kept *k)
{
	pthread_mutex_lock(&k->lock);
	k->turn = false;
	pthread_cond_broadcast(&k->cond);
	pthread_mutex_unlock(&k->lock);
}

static void mem_free(struct gpud_kept_mem *mem)
{
	struct gpud_kept *k = mem->k;
	/* What stays pinned stays mapped, and counts: its addresses must not become other memory's.
	 */
	const bool gone = !mem->pinned || ckf_cuda_pool_unpin(k->g->pool, mem->addr);

	if (mem->addr && gone)
		munmap(mem->addr, mem->bytes);
	ckf_kept_free(mem->kept);
	pthread_mutex_lock(&k->lock);
	k->counts.bytes -= gone ? mem->bytes : 0;
	pthread_mutex_unlock(&k->lock);
	free(mem);
}

void gpud_kept_put(struct gpud_kept_mem *mem)
{
	bool last;

	if (!mem)
		return;
	pthread_mutex_lock(&mem->k->lock);
	last = !--mem->users;
	pthread_mutex_unlock(&mem->k->lock);
	if (last)
		mem_free(mem);
}

/* Fills that use the memory go on. */
static void image_drop_mem(struct gpud_kept *k, struct kept_image *im, enum gpud_kept_drop why)
{
	struct gpud_kept_mem *mem;

	pthread_mutex_lock(&k->lock);
	mem = im->mem;
	im->mem = NULL;
	im->hits = 0;
	k->counts.dropped[why] += mem != NULL;
	pthread_mutex_unlock(&k->lock);
	gpud_kept_put(mem);
}

static void image_remove(struct gpud_kept *k, struct kept_image *im, enum gpud_kept_drop why)
{
	struct kept_image **link;

	image_drop_mem(k, im, why);
	pthread_mutex_lock(&k->lock);
	for (link = &k->images; *link != im; link = &(*link)->next)
		;
	*link = im->next;
	pthread_mutex_unlock(&k->lock);
	if (im->dir_fd >= 0)
		close(im->dir_fd);
	free(im);
}

static struct kept_image *image_add(struct gpud_kept *k, const char *path, int dir_fd)
{
	struct kept_image *im = calloc(1, sizeof(*im));

	if (!im)
		return NULL;
	im->path = path;
	im->dir_fd = dir_fd;
	pthread_mutex_lock(&k->lock);
	im->next = k->images;
	k->images = im;
	pthread_mutex_unlock(&k->lock);
	return im;
}

/* What could still be pinned: 0 where memory is short already. Or -errno: it cannot be told. */
static int spare_bytes(uint64_t *bytes)
{
	int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int ret = proc < 0 ? -errno : ckf_memory_available(proc, bytes);

	if (proc >= 0)
		close(proc);
	if (!ret)
		*bytes = *bytes > SPARE_BYTES ? *bytes - SPARE_BYTES : 0;
	return ret;
}

/* The one that was used least recently, of those that no fill uses; all: what they have together.
 */
static struct kept_image *find_idle(struct gpud_kept *k, uint64_t *all)
{
	struct kept_image *oldest = NULL;

	*all = 0;
	pthread_mutex_lock(&k->lock);
	for (struct kept_image *im = k->images; im; im = im->next) {
		if (!im->mem || im->mem->users > 1)
			continue;
		*all += im->mem->bytes;
		if (!oldest || im->used_ns < oldest->used_ns)
			oldest = im;
	}
	pthread_mutex_unlock(&k->lock);
	return oldest;
}

/* Takes a part of what may be kept, for which others are dropped. -EDQUOT, or -ENOMEM. */
static int make_room(struct gpud_kept *k, uint64_t bytes, struct ckf_error *err)
{
	const uint64_t limit = k->g->opts.keep_bytes ? k->g->opts.keep_bytes : UINT64_MAX;
	struct kept_image *oldest;
	uint64_t used, idle, spare;
	int ret;

	for (;;) {
		oldest = find_idle(k, &idle);
		ret = spare_bytes(&spare);
		if (ret)
			return ckf_error_set(err, ret, "cannot tell how much memory is free: %s",
					     strerror(-ret));
		pthread_mutex_lock(&k->lock);
		used = k->counts.bytes;
		if (bytes <= spare && bytes <= limit && used <= limit - bytes) {
			k->counts.bytes += bytes;
			pthread_mutex_unlock(&k->lock);
			return 0;
		}
		pthread_mutex_unlock(&k->lock);
		/* Nothing is dropped in vain. */
		if (bytes > limit || used - idle > limit - bytes)
			return ckf_error_set(err, -EDQUOT,
					     "the image takes %llu MiB, %llu MiB are in use by "
					     "restores, and %llu MiB may be kept (--keep-bytes)",
					     mib(bytes), mib(used - idle), mib(limit));
		if (!oldest || bytes > spare + idle)
			return ckf_error_set(err, -ENOMEM,
					     "the image takes %llu MiB, and the machine or the "
					     "memory cgroup can spare %llu MiB",
					     mib(bytes), mib(spare + idle));
		image_remove(k, oldest, GPUD_DROPPED_ROOM);
	}
}

/* Memory with all that is to be kept of the image. On failure nothing is left of it. */
static int mem_new(struct gpud_kept *k, const struct ckf_image *img, int (*cancelled)(void *arg),
		   void *arg, struct gpud_kept_mem **out, struct ckf_error *err)
{
	struct gpud_kept_mem *mem = calloc(1, sizeof(*mem));
	uint64_t bytes;
	int ret;

	if (!mem)
		return ckf_error_set(err, -ENOMEM, "no memory");
	mem->k = k;
	mem->users = 1;
	ret = ckf_kept_new(img, &mem->kept, err);
	if (ret)
		goto out;
	bytes = ckf_kept_bytes(mem->kept);
	bytes = ckf_align_up(bytes ? bytes : 1, CKF_HUGE_BYTES);
	ret = make_room(k, bytes, err);
	if (ret)
		goto out;
	mem->bytes = bytes;
	mem->addr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem->addr == MAP_FAILED) {
		mem->addr = NULL;
		ret = ckf_error_set(err, -errno, "cannot map memory: %s", strerror(errno));
		goto out;
	}
	(void)madvise(mem->addr, bytes, MADV_HUGEPAGE);
	(void)madvise(mem->addr, bytes, MADV_DONTDUMP);
	ret = ckf_kept_load(mem->kept, img, mem->addr, k->g->opts.threads, cancelled, arg, err);
	if (!ret)
		ret = ckf_cuda_pool_pin(k->g->pool, mem->addr, bytes, err);
	mem->pinned = !ret;
out:
	if (ret)
		gpud_kept_put(mem);
	else
		*out = mem;
	return ret;
}

/* A descriptor of where the image is now, or -errno. */
static int image_dir(const struct kept_image *im, struct ckf_error *err)
{
	int fd = im->path ? open(im->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
			  : fcntl(im->dir_fd, F_DUPFD_CLOEXEC, 0);

	return fd < 0 ? ckf_error_set(err, -errno, "cannot open the directory: %s", strerror(errno))
		      : fd;
}

/* Reads the image. With the turn. */
static int image_load(struct gpud_kept *k, struct kept_image *im, int (*cancelled)(void *arg),
		      void *arg, struct ckf_error *err)
{
	struct gpud_kept_mem *mem = NULL;
	struct ckf_image *img = NULL;
	struct ckf_cuda_pool *pool;
	int fd, ret;

	ret = gpud_pool(k->g, &pool, err);
	if (ret)
		return ret;
	fd = image_dir(im, err);
	if (fd < 0)
		return fd;
	if (!ckf_image_probe(fd))
		ret = ckf_error_set(err, -EOPNOTSUPP,
				    "it is no fast image, and only these are kept");
	if (!ret)
		ret = ckf_image_open(fd, &img, err);
	if (!ret)
		ret = mem_new(k, img, cancelled, arg, &mem, err);
	ckf_image_close(img);
	if (im->dir_fd >= 0)
		close(im->dir_fd);
	im->dir_fd = fd;
	pthread_mutex_lock(&k->lock);
	im->mem = mem;
	im->used_ns = im->kept_ns = ckf_now_ns();
	k->counts.reads += !ret;
	k->counts.failures += ret != 0;
	pthread_mutex_unlock(&k->lock);
	return ret;
}

/* Whether its memory is that of the image as it is now. With the turn. */
static bool image_is_current(const struct kept_image *im)
{
	struct ckf_packs_seen *seen = NULL;
	struct ckf_image *img = NULL;
	int fd = image_dir(im, NULL);
	bool is;

	is = fd >= 0 && !ckf_image_open(fd, &img, NULL) && !ckf_packs_see(img, &seen, NULL) &&
	     ckf_kept_is_of(im->mem->kept, img, seen);
	free(seen);
	ckf_image_close(img);
	if (fd >= 0)
		close(fd);
	return is;
}

static int is_stopping(void *arg)
{
	const struct gpud_kept *k = arg;

	return atomic_load(&k->g->stopping);
}

/* What the keeper did, which no client waits for. */
static void log_read(const struct gpud_kept *k, const struct kept_image *im, uint64_t start_ns,
		     const struct ckf_error *err)
{
	char text[CKF_ERROR_MSG_BYTES + 64], image[PATH_MAX];
	struct ckf_gpud_event e = { .failed = err->code != 0,
				    .text = text,
				    .ns = ckf_now_ns() - start_ns };

	if (!k->g->opts.log)
		return;
	e.bytes = im->mem ? im->mem->bytes : 0;
	if (im->path || gpud_dir_path(im->dir_fd, image, sizeof(image)))
		e.image = im->path ? im->path : image;
	if (e.failed)
		snprintf(text, sizeof(text), "keep: %s", err->msg);
	else
		snprintf(text, sizeof(text), "keep: %.1f MB in %.3f s", (double)e.bytes / 1e6,
			 (double)e.ns / 1e9);
	k->g->opts.log(k->g->opts.arg, &e);
}

/* Drops what has changed, and reads what is wanted. With the turn. */
static void refresh_image(struct gpud_kept *k, struct kept_image *im)
{
	const uint64_t start_ns = ckf_now_ns();
	struct ckf_error err = { 0 };
	int ret;

	if (im->mem && !image_is_current(im)) {
		image_drop_mem(k, im, GPUD_DROPPED_CHANGED);
		im->wanted = true;
		im->tried_ns = 0;
	}
	if (!im->wanted || (im->tried_ns && start_ns - im->tried_ns < RETRY_NS))
		return;
	ret = image_load(k, im, is_stopping, k, &err);
	if (ret == -ECANCELED)
		return;
	log_read(k, im, start_ns, &err);
	im->wanted = ret != 0;
	im->tried_ns = ret ? start_ns : 0;
	if (ret && !im->path)
		image_remove(k, im, GPUD_DROPPED_CHANGED);
}

/* One after the other: reading one may remove others. */
static void refresh(struct gpud_kept *k, uint64_t round)
{
	struct kept_image *im;

	while (!is_stopping(k)) {
		for (im = k->images; im && im->round == round; im = im->next)
			;
		if (!im)
			return;
		im->round = round;
		refresh_image(k, im);
	}
}

/* Pinned memory cannot be taken back by the kernel: where memory is short, it is given back here.
 */
static void shed(struct gpud_kept *k)
{
	struct kept_image *oldest;
	uint64_t idle, spare;

	if (spare_bytes(&spare) || spare)
		return;
	oldest = find_idle(k, &idle);
	if (oldest)
		image_remove(k, oldest, GPUD_DROPPED_SHORT);
}

/* Until there is something to do: true, or memory is to be looked at. next_ns: not before. */
static bool keeper_wait(struct gpud_kept *k, uint64_t next_ns)
{
	bool woken;

	pthread_mutex_lock(&k->lock);
	while (!k->woken && !k->images)
		pthread_cond_wait(&k->cond, &k->lock);
	if (!k->woken)
		(void)ckf_cond_wait_ms(&k->cond, &k->lock, KEEPER_MS);
	while (k->woken && !is_stopping(k) && ckf_cond_wait_until(&k->cond, &k->lock, next_ns))
		;
	woken = k->woken;
	k->woken = false;
	pthread_mutex_unlock(&k->lock);
	return woken;
}

static void *keeper_main(void *arg)
{
	struct gpud_kept *k = arg;
	uint64_t round = 0, next_ns = 0;
	bool woken;

	for (;;) {
		woken = keeper_wait(k, next_ns);
		if (is_stopping(k) || take_turn(k, is_stopping, k))
			return NULL;
		if (woken)
			refresh(k, ++round);
		next_ns = ckf_now_ns() + REFRESH_NS;
		shed(k);
		give_turn(k);
	}
}

static void wake_keeper(struct gpud_kept *k)
{
	pthread_mutex_lock(&k->lock);
	k->woken = true;
	pthread_cond_broadcast(&k->cond);
	pthread_mutex_unlock(&k->lock);
}

/* The image in that directory, or NULL. With the turn. */
static struct kept_image *find_dir(struct gpud_kept *k, int dir_fd)
{
	struct stat want, st;

	if (fstat(dir_fd, &want))
		return NULL;
	for (struct kept_image *im = k->images; im; im = im->next)
		if (im->dir_fd >= 0 && !fstat(im->dir_fd, &st) && st.st_dev == want.st_dev &&
		    st.st_ino == want.st_ino)
			return im;
	return NULL;
}

/* The image of the directory is there, and current. With the turn. */
static int keep_dir(struct gpud_kept *k, int dir_fd, struct gpud_conn *c, uint64_t *bytes,
		    struct ckf_error *err)
{
	struct kept_image *im = find_dir(k, dir_fd);
	int fd, ret = 0;

	if (im && im->mem && !image_is_current(im))
		image_drop_mem(k, im, GPUD_DROPPED_CHANGED);
	if (!im) {
		fd = fcntl(dir_fd, F_DUPFD_CLOEXEC, 0);
		im = fd >= 0 ? image_add(k, NULL, fd) : NULL;
		if (!im && fd >= 0)
			close(fd);
		if (!im)
			return ckf_error_set(err, -ENOMEM, "no memory, or no descriptor");
	}
	if (!im->mem)
		ret = image_load(k, im, gpud_cancelled, c, err);
	if (!ret)
		*bytes = im->mem->bytes;
	else if (!im->path)
		image_remove(k, im, GPUD_DROPPED_CHANGED);
	return ret;
}

int gpud_kept_keep(struct gpud_kept *k, int dir_fd, struct gpud_conn *c, uint64_t *bytes,
		   struct ckf_error *err)
{
	int ret = take_turn(k, gpud_cancelled, c);

	if (ret)
		return ret;
	ret = keep_dir(k, dir_fd, c, bytes, err);
	give_turn(k);
	return ret;
}

int gpud_kept_drop(struct gpud_kept *k, int dir_fd, struct gpud_conn *c, uint64_t *nr,
		   struct ckf_error *err)
{
	struct kept_image *im;
	int ret = take_turn(k, gpud_cancelled, c);

	*nr = 0;
	if (ret)
		return ret;
	while ((im = dir_fd >= 0 ? find_dir(k, dir_fd) : k->images)) {
		*nr += im->mem != NULL;
		image_remove(k, im, GPUD_DROPPED_ASKED);
	}
	give_turn(k);
	if (dir_fd >= 0 && !*nr)
		return ckf_error_set(err, -ENOENT, "the image is not kept");
	return 0;
}

static struct gpud_kept_mem *find_mem(struct gpud_kept *k, const struct ckf_image *img,
				      const struct ckf_packs_seen *seen)
{
	struct gpud_kept_mem *mem = NULL;

	pthread_mutex_lock(&k->lock);
	for (struct kept_image *im = k->images; im && !mem; im = im->next) {
		if (!im->mem || !ckf_kept_is_of(im->mem->kept, img, seen))
			continue;
		mem = im->mem;
		mem->users++;
		im->hits++;
		im->used_ns = ckf_now_ns();
	}
	k->counts.hits += mem != NULL;
	k->counts.misses += !mem;
	pthread_mutex_unlock(&k->lock);
	return mem;
}

static bool has_images(struct gpud_kept *k)
{
	bool has;

	pthread_mutex_lock(&k->lock);
	has = k->images != NULL;
	pthread_mutex_unlock(&k->lock);
	return has;
}

struct gpud_kept_mem *gpud_kept_get(struct gpud_kept *k, const struct ckf_image *img)
{
	struct gpud_kept_mem *mem = NULL;
	struct ckf_packs_seen *seen;

	if (!has_images(k))
		return NULL;
	/* Without the lock: the directory is the client's, and may be one that never answers. */
	if (!ckf_packs_see(img, &seen, NULL)) {
		mem = find_mem(k, img, seen);
		free(seen);
	}
	if (!mem)
		wake_keeper(k);
	return mem;
}

const struct ckf_kept *gpud_kept_of(const struct gpud_kept_mem *mem)
{
	return mem->kept;
}

void gpud_kept_count(struct gpud_kept *k, struct gpud_kept_counts *counts)
{
	pthread_mutex_lock(&k->lock);
	*counts = k->counts;
	counts->images = 0;
	for (const struct kept_image *im = k->images; im; im = im->next)
		counts->images += im->mem != NULL;
	pthread_mutex_unlock(&k->lock);
}

void gpud_kept_each(struct gpud_kept *k, void (*fn)(void *arg, const struct gpud_kept_info *info),
		    void *arg)
{
	const uint64_t now_ns = ckf_now_ns();
	char path[PATH_MAX];

	pthread_mutex_lock(&k->lock);
	for (const struct kept_image *im = k->images; im; im = im->next) {
		struct gpud_kept_info info = { .path = im->path };

		if (!im->mem)
			continue;
		if (!info.path && gpud_dir_path(im->dir_fd, path, sizeof(path)))
			info.path = path;
		info.bytes = im->mem->bytes;
		info.hits = im->hits;
		info.fills = im->mem->users - 1;
		info.age_ns = now_ns - im->kept_ns;
		info.idle_ns = now_ns - im->used_ns;
		fn(arg, &info);
	}
	pthread_mutex_unlock(&k->lock);
}

int gpud_kept_new(struct ckf_gpud *g, struct ckf_error *err)
{
	struct gpud_kept *k = calloc(1, sizeof(*k));
	struct kept_image *im;

	if (!k)
		return ckf_error_set(err, -ENOMEM, "no memory");
	k->g = g;
	g->kept = k;
	pthread_mutex_init(&k->lock, NULL);
	ckf_cond_init(&k->cond);
	for (unsigned int i = 0; i < g->opts.nr_keep; i++) {
		im = image_add(k, g->opts.keep[i], -1);
		if (!im) {
			gpud_kept_free(k);
			g->kept = NULL;
			return ckf_error_set(err, -ENOMEM, "no memory");
		}
		im->wanted = true;
	}
	k->woken = true;
	return 0;
}

int gpud_kept_start(struct gpud_kept *k, struct ckf_error *err)
{
	int ret = ckf_thread_start(&k->keeper, NULL, keeper_main, k);

	k->started = !ret;
	return ret ? ckf_error_set(err, ret, "cannot start a thread: %s", strerror(-ret)) : 0;
}

void gpud_kept_free(struct gpud_kept *k)
{
	if (!k)
		return;
	if (k->started) {
		wake_keeper(k);
		pthread_join(k->keeper, NULL);
	}
	while (k->images)
		image_remove(k, k->images, GPUD_DROPPED_ASKED);
	pthread_cond_destroy(&k->cond);
	pthread_mutex_destroy(&k->lock);
	free(k);
}
