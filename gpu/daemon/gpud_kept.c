/* SPDX-License-Identifier: MIT */
/*
 * Images that gpud keeps: their device memory lies decoded, checked and pinned in gpud, and a
 * restore of one does nothing but copy.
 *
 * A fill uses a kept image when its client has opened the very files that were kept, unchanged; so
 * nobody gets bytes that he could not read, and none that are no longer in the image. A fill that
 * finds nothing wakes the keeper when it has ended: a thread, which drops what has changed and
 * keeps it anew, and tries again to read images of --keep that are not in memory.
 *
 * One thread at a time changes the list and reads an image; it holds the turn. The lock is held for
 * moments only. It is enough for dropping: memory is taken from images, which stay in the list
 * until somebody with the turn removes them.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckf_threads.h"
#include "gpud_kept.h"

#define KEEPER_MS 2000		 /* how often the keeper looks whether memory is short */
#define REFRESH_NS GPUD_NS_PER_S /* between two looks at all images, whatever clients do */

/* Which images are those of a directory. */
struct dir_key {
	bool all;
	struct stat st;
	bool *paths; /* of --keep: which of them are the directory now */
};

static int is_stopping(void *arg)
{
	const struct gpud_kept *k = arg;

	return atomic_load(&k->g->stopping);
}

/* What the keeper did, which no client waits for. */
static void log_read(const struct gpud_kept *k, const struct gpud_image *im, uint64_t bytes,
		     uint64_t start_ns, const struct ckf_error *err)
{
	char text[CKF_ERROR_MSG_BYTES + 64], image[PATH_MAX];
	struct ckf_gpud_event e = { .failed = err->code != 0,
				    .text = text,
				    .bytes = bytes,
				    .ns = ckf_now_ns() - start_ns };

	if (!k->g->opts.log)
		return;
	if (im->path || gpud_dir_path(im->dir_fd, image, sizeof(image)))
		e.image = im->path ? im->path : image;
	if (e.failed)
		snprintf(text, sizeof(text), "keep: %s", err->msg);
	else
		snprintf(text, sizeof(text), "keep: %.1f MB in %.3f s", (double)e.bytes / 1e6,
			 (double)e.ns / 1e9);
	k->g->opts.log(k->g->opts.arg, &e);
}

/* With the lock. */
static bool is_due(const struct gpud_image *im, uint64_t now_ns)
{
	return !im->mem && !im->gone && im->wanted && now_ns >= im->retry_ns;
}

/* Drops what has changed, if it is to look for that, and reads what is wanted. With the turn. */
static void refresh_image(struct gpud_kept *k, struct gpud_image *im, bool look)
{
	struct gpud_load l = { .cancelled = is_stopping, .arg = k };
	const uint64_t start_ns = ckf_now_ns();
	struct ckf_error err = { 0 };
	uint64_t bytes;
	bool due;
	int ret;

	if (look)
		gpud_image_check(k, im);
	pthread_mutex_lock(&k->lock);
	due = is_due(im, start_ns);
	pthread_mutex_unlock(&k->lock);
	if (!due)
		return;
	ret = gpud_image_load(k, im, &l, &bytes, &err);
	if (ret == -ECANCELED || ret == -ESTALE || ret == -EAGAIN)
		return;
	/* What fails again is said once. */
	if (!ret || ret != im->told)
		log_read(k, im, bytes, start_ns, &err);
	im->told = ret;
}

static void refresh(struct gpud_kept *k, bool look)
{
	for (struct gpud_image *im = k->images; im && !is_stopping(k); im = im->next)
		refresh_image(k, im, look);
}

/* With the lock. */
static bool has_work(const struct gpud_kept *k, uint64_t now_ns)
{
	for (const struct gpud_image *im = k->images; im; im = im->next)
		if (gpud_image_is_gone(im) || is_due(im, now_ns))
			return true;
	return false;
}

/*
 * Until there is something to do, and the turn is taken: true; or memory is to be looked at.
 * next_ns: who wakes the keeper waits until then. *woken: all images are to be looked at.
 */
static bool keeper_wait(struct gpud_kept *k, uint64_t next_ns, bool *woken)
{
	const uint64_t end_ns = ckf_now_ns() + KEEPER_MS * NS_PER_MS;
	bool turn = false;
	uint64_t now_ns;

	pthread_mutex_lock(&k->lock);
	while (!is_stopping(k)) {
		if (!k->images && !k->woken) {
			pthread_cond_wait(&k->cond, &k->lock);
			continue;
		}
		now_ns = ckf_now_ns();
		turn = !k->turn && (k->woken ? now_ns >= next_ns : has_work(k, now_ns));
		if (turn || now_ns >= end_ns)
			break;
		(void)ckf_cond_wait_until(&k->cond, &k->lock,
					  k->woken && !k->turn && next_ns < end_ns ? next_ns
										   : end_ns);
	}
	*woken = turn && k->woken;
	if (turn) {
		k->turn = true;
		k->woken = false;
	}
	pthread_mutex_unlock(&k->lock);
	return turn;
}

static void *keeper_main(void *arg)
{
	struct gpud_kept *k = arg;
	uint64_t next_ns = 0;
	bool turn, woken;

	(void)setpriority(PRIO_PROCESS, (id_t)gettid(), GPUD_FILL_NICE);
	while (!is_stopping(k)) {
		turn = keeper_wait(k, next_ns, &woken);
		/* The kernel cannot take pinned memory back: where it is short, it is given back.
		 */
		if (gpud_memory_is_short())
			gpud_image_drop_idle(k, GPUD_DROPPED_SHORT);
		if (!turn)
			continue;
		refresh(k, woken);
		next_ns = ckf_now_ns() + REFRESH_NS;
		gpud_turn_give(k);
	}
	return NULL;
}

static int key_init(const struct gpud_kept *k, int dir_fd, struct dir_key *key,
		    struct ckf_error *err)
{
	struct stat st;

	*key = (struct dir_key){ .all = dir_fd < 0 };
	if (key->all)
		return 0;
	if (fstat(dir_fd, &key->st))
		return ckf_error_set(err, -errno, "cannot stat the directory: %s", strerror(errno));
	key->paths = calloc(k->g->opts.nr_keep + 1ul, sizeof(*key->paths));
	if (!key->paths)
		return ckf_error_set(err, -ENOMEM, "no memory");
	for (unsigned int i = 0; i < k->g->opts.nr_keep; i++)
		key->paths[i] = !stat(k->g->opts.keep[i], &st) && st.st_dev == key->st.st_dev &&
				st.st_ino == key->st.st_ino;
	return 0;
}

static bool key_fits(const struct gpud_kept *k, const struct dir_key *key,
		     const struct gpud_image *im)
{
	if (key->all || (im->dir_fd >= 0 && im->dev == key->st.st_dev && im->ino == key->st.st_ino))
		return true;
	for (unsigned int i = 0; i < k->g->opts.nr_keep; i++)
		if (key->paths[i] && im->path == k->g->opts.keep[i])
			return true;
	return false;
}

/* An image in that directory, or NULL. With the lock. */
static struct gpud_image *find_image(struct gpud_kept *k, const struct dir_key *key)
{
	for (struct gpud_image *im = k->images; im; im = im->next)
		if (!im->gone && key_fits(k, key, im))
			return im;
	return NULL;
}

/* KEEP, in a thread of its own: its nice value stays as it is. */
struct keeping {
	struct gpud_kept *k;
	int dir_fd;
	struct gpud_conn *c;
	uint64_t bytes;
	int ret;
	struct ckf_error *err;
};

/* Asked after each chunk. */
static int keep_cancelled(void *arg)
{
	gpud_moves(arg);
	return gpud_cancelled(arg);
}

/* The image of the directory is there, and current. With the turn. */
static int keep_dir(struct keeping *w, const struct dir_key *key)
{
	struct gpud_load l = { .cancelled = keep_cancelled, .arg = w->c, .may_drop = true };
	struct gpud_kept *k = w->k;
	struct gpud_image *im;
	int fd;

	pthread_mutex_lock(&k->lock);
	im = find_image(k, key);
	pthread_mutex_unlock(&k->lock);
	if (!im) {
		fd = fcntl(w->dir_fd, F_DUPFD_CLOEXEC, 0);
		im = fd >= 0 ? gpud_image_add(k, NULL, fd) : NULL;
		if (!im && fd >= 0)
			close(fd);
		if (!im)
			return ckf_error_set(w->err, -ENOMEM, "no memory, or no descriptor");
	}
	w->bytes = gpud_image_check(k, im);
	return w->bytes ? 0 : gpud_image_load(k, im, &l, &w->bytes, w->err);
}

static void *keep_main(void *arg)
{
	struct keeping *w = arg;
	struct dir_key key;

	(void)setpriority(PRIO_PROCESS, (id_t)gettid(), GPUD_FILL_NICE);
	w->ret = key_init(w->k, w->dir_fd, &key, w->err);
	if (!w->ret)
		w->ret = keep_dir(w, &key);
	free(key.paths);
	return NULL;
}

int gpud_kept_keep(struct gpud_kept *k, int dir_fd, struct gpud_conn *c, uint64_t *bytes,
		   struct ckf_error *err)
{
	struct keeping w = { .k = k, .dir_fd = dir_fd, .c = c, .err = err };
	pthread_t thread;
	int ret = gpud_turn_take(k, gpud_cancelled, c);

	if (ret)
		return ret;
	ret = ckf_thread_start(&thread, NULL, keep_main, &w);
	if (!ret)
		pthread_join(thread, NULL);
	else
		ckf_error_set(err, ret, "cannot start a thread: %s", strerror(-ret));
	gpud_turn_give(k);
	*bytes = w.bytes;
	return ret ? ret : w.ret;
}

int gpud_kept_drop_dir(struct gpud_kept *k, int dir_fd, uint64_t *nr, struct ckf_error *err)
{
	struct gpud_kept_mem *mem;
	struct gpud_image *im;
	struct dir_key key;
	int ret = key_init(k, dir_fd, &key, err);

	*nr = 0;
	while (!ret) {
		mem = NULL;
		pthread_mutex_lock(&k->lock);
		im = find_image(k, &key);
		if (im) {
			mem = gpud_image_take_mem(k, im, GPUD_DROPPED_ASKED);
			im->gone = true;
			if (k->loading == im)
				atomic_store(&k->load->dropped, true);
			pthread_cond_broadcast(&k->cond);
		}
		pthread_mutex_unlock(&k->lock);
		gpud_kept_put(mem);
		if (!im)
			break;
		++*nr;
	}
	free(key.paths);
	if (!ret && !key.all && !*nr)
		ret = ckf_error_set(err, -ENOENT, "the image is not kept");
	return ret;
}

int gpud_kept_new(struct ckf_gpud *g, struct ckf_error *err)
{
	struct gpud_kept *k = calloc(1, sizeof(*k));
	struct gpud_image *im;

	if (!k)
		return ckf_error_set(err, -ENOMEM, "no memory");
	k->g = g;
	g->kept = k;
	pthread_mutex_init(&k->lock, NULL);
	ckf_cond_init(&k->cond);
	/* The first is read first. */
	for (unsigned int i = g->opts.nr_keep; i--;) {
		im = gpud_image_add(k, g->opts.keep[i], -1);
		if (!im) {
			gpud_kept_free(k);
			g->kept = NULL;
			return ckf_error_set(err, -ENOMEM, "no memory");
		}
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
	uint64_t nr;

	if (!k)
		return;
	if (k->started) {
		gpud_keeper_wake(k);
		pthread_join(k->keeper, NULL);
	}
	gpud_kept_drop_dir(k, -1, &nr, NULL);
	gpud_turn_give(k);
	pthread_cond_destroy(&k->cond);
	pthread_mutex_destroy(&k->lock);
	free(k);
}
