/* SPDX-License-Identifier: MIT */
/*
 * The list of kept images, who may change it, and the memory of each; gpud_kept.c says more.
 *
 * One thread at a time changes the list and reads an image; it holds the turn. The lock is held for
 * moments only. It is enough for dropping: memory is taken from images, which stay in the list
 * until somebody with the turn removes them.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckf_threads.h"
#include "loader/ckf_kept.h"
#include "gpud_kept.h"

#define TURN_POLL_MS 100

int gpud_turn_take(struct gpud_kept *k, int (*cancelled)(void *arg), void *arg)
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

bool gpud_image_is_gone(const struct gpud_image *im)
{
	return !im->mem && (im->gone || (!im->path && !im->wanted));
}

static struct gpud_image *unlink_gone(struct gpud_kept *k)
{
	struct gpud_image **link = &k->images, *im;

	while (*link && !gpud_image_is_gone(*link))
		link = &(*link)->next;
	im = *link;
	if (im)
		*link = im->next;
	return im;
}

void gpud_turn_give(struct gpud_kept *k)
{
	struct gpud_image *im;

	pthread_mutex_lock(&k->lock);
	while ((im = unlink_gone(k))) {
		if (im->dir_fd >= 0)
			close(im->dir_fd);
		free(im);
	}
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

struct gpud_kept_mem *gpud_image_take_mem(struct gpud_kept *k, struct gpud_image *im,
					  enum gpud_kept_drop why)
{
	struct gpud_kept_mem *mem = im->mem;

	if (!mem)
		return NULL;
	im->mem = NULL;
	im->hits = 0;
	im->wanted = im->path || why == GPUD_DROPPED_CHANGED;
	im->retry_ns = why == GPUD_DROPPED_CHANGED ? 0 : ckf_now_ns() + RETRY_NS;
	k->counts.dropped[why]++;
	return mem;
}

void gpud_image_drop_mem(struct gpud_kept *k, struct gpud_image *im, enum gpud_kept_drop why)
{
	struct gpud_kept_mem *mem;

	pthread_mutex_lock(&k->lock);
	mem = gpud_image_take_mem(k, im, why);
	pthread_mutex_unlock(&k->lock);
	gpud_kept_put(mem);
}

struct gpud_image *gpud_image_add(struct gpud_kept *k, const char *path, int dir_fd)
{
	struct gpud_image *im = calloc(1, sizeof(*im));
	struct stat st;

	if (!im)
		return NULL;
	im->path = path;
	im->dir_fd = dir_fd;
	if (dir_fd >= 0 && !fstat(dir_fd, &st)) {
		im->dev = st.st_dev;
		im->ino = st.st_ino;
	}
	im->wanted = path != NULL;
	pthread_mutex_lock(&k->lock);
	im->next = k->images;
	k->images = im;
	pthread_mutex_unlock(&k->lock);
	return im;
}

void gpud_image_set_dir(struct gpud_kept *k, struct gpud_image *im, int fd)
{
	struct stat st = { 0 };
	int old;

	(void)fstat(fd, &st);
	pthread_mutex_lock(&k->lock);
	old = im->dir_fd;
	im->dir_fd = fd;
	im->dev = st.st_dev;
	im->ino = st.st_ino;
	pthread_mutex_unlock(&k->lock);
	if (old >= 0)
		close(old);
}

struct gpud_image *gpud_image_find_idle(struct gpud_kept *k, uint64_t *all)
{
	struct gpud_image *oldest = NULL;

	*all = 0;
	for (struct gpud_image *im = k->images; im; im = im->next) {
		if (!im->mem || im->mem->users > 1)
			continue;
		*all += im->mem->bytes;
		if (!oldest || im->used_ns < oldest->used_ns)
			oldest = im;
	}
	return oldest;
}

void gpud_image_drop_idle(struct gpud_kept *k, enum gpud_kept_drop why)
{
	struct gpud_kept_mem *mem = NULL;
	struct gpud_image *oldest;
	uint64_t all;

	pthread_mutex_lock(&k->lock);
	oldest = gpud_image_find_idle(k, &all);
	if (oldest)
		mem = gpud_image_take_mem(k, oldest, why);
	pthread_mutex_unlock(&k->lock);
	gpud_kept_put(mem);
}

static struct gpud_kept_mem *find_mem(struct gpud_kept *k, const struct ckf_image *img,
				      const struct ckf_packs_seen *seen)
{
	struct gpud_kept_mem *mem = NULL;

	pthread_mutex_lock(&k->lock);
	for (struct gpud_image *im = k->images; im && !mem; im = im->next) {
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

void gpud_keeper_wake(struct gpud_kept *k)
{
	pthread_mutex_lock(&k->lock);
	k->woken = true;
	pthread_cond_broadcast(&k->cond);
	pthread_mutex_unlock(&k->lock);
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
	return mem;
}

void gpud_kept_missed(struct gpud_kept *k)
{
	if (has_images(k))
		gpud_keeper_wake(k);
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
	for (const struct gpud_image *im = k->images; im; im = im->next)
		counts->images += im->mem != NULL;
	pthread_mutex_unlock(&k->lock);
}

void gpud_kept_each(struct gpud_kept *k, void (*fn)(void *arg, const struct gpud_kept_info *info),
		    void *arg)
{
	const uint64_t now_ns = ckf_now_ns();
	char path[PATH_MAX];

	pthread_mutex_lock(&k->lock);
	for (const struct gpud_image *im = k->images; im; im = im->next) {
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
