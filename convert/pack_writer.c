/* SPDX-License-Identifier: MIT */
/*
 * The pack on its way to the disk.
 *
 * The pack is windows of a MiB, one after the other, and there is a ring of buffers for them: each
 * is for one window, then for the one that comes so many windows later. When all bytes of a window
 * are there, the I/O thread writes it (base/ckf_io_thread.h); when it is written, the buffer is for
 * the next one. So memory is bounded, and since no thread can take the buffer of a window that
 * others need first, the first window that is not full is always one that those can fill who have
 * begun to.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/ckf_io_util.h"
#include "format/ckf_disk.h"
#include "base/ckf_out_file.h"
#include "pack_writer.h"
#include "base/ckf_io_thread.h"

/* No disk that was tried was faster with more in flight, or with larger ones. */
#define WINDOW_BYTES ((size_t)1 << 20)
#define NR_WINDOWS 16u /* twice as many as are in flight */
/* Through the page cache, the disk gets so much at once: a MiB at a time took twice as long. */
#define SYNC_BYTES (16u << 20)

struct window {
	struct ckf_transfer transfer; /* first: the transfer is the window */
	struct ckf_pack_writer *w;
	uint8_t *data;
	/* Under the lock of the writer. */
	uint64_t off;	  /* in the pack */
	size_t has_bytes; /* that were put so far */
};

struct ckf_pack_writer {
	struct ckf_out_file file;
	uint64_t start;			 /* of the pack, in the file */
	struct ckf_io_thread *io_thread; /* NULL: all is written plainly */
	uint8_t *data;
	struct window windows[NR_WINDOWS];

	pthread_mutex_t lock;
	pthread_cond_t change;
	/* Under lock. */
	unsigned int in_flight;
	uint64_t put_bytes;    /* plainly */
	uint64_t synced_bytes; /* up to there, the disk was told to begin */
	int ret;	       /* of the first write that failed */
};

/* What is put: zeros from from to off, then iov up to end. */
struct piece {
	uint64_t from;
	const struct iovec *iov;
	unsigned int nr;
	uint64_t off;
	uint64_t end;
};

/*
 * 1, 0 where the file system refuses, or -errno. A page of zeros, where the header will be, is
 * written for that: what the answer is to it, it is to all.
 */
static int takes_direct(const struct ckf_pack_writer *w, int fd)
{
	int ret;

	if (fcntl(fd, F_SETFL, O_DIRECT))
		return 0;
	ret = ckf_pwrite_all(fd, w->data, CKF_PAGE_BYTES, w->start);
	if (!ret)
		return 1;
	(void)fcntl(fd, F_SETFL, 0);
	return ret == -EINVAL || ret == -EOPNOTSUPP ? 0 : ret;
}

/* Without a io_thread, which may well be, everything is written plainly. */
static int try_direct(struct ckf_pack_writer *w, int fd)
{
	const size_t bytes = NR_WINDOWS * WINDOW_BYTES;
	void *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int ret;

	if (data == MAP_FAILED)
		return -errno;
	w->data = data;
	/* Only to be faster: the buffers are used over and over. */
	madvise(data, bytes, MADV_HUGEPAGE);
	for (unsigned int i = 0; i < NR_WINDOWS; i++)
		w->windows[i] = (struct window){
			.w = w,
			.data = w->data + i * WINDOW_BYTES,
			.off = i * WINDOW_BYTES,
		};
	ret = takes_direct(w, fd);
	if (ret > 0 && ckf_io_thread_start(&w->io_thread))
		(void)fcntl(fd, F_SETFL, 0);
	return ret < 0 ? ret : 0;
}

int ckf_pack_writer_error(int ret, struct ckf_error *err)
{
	return ckf_error_set(err, ret, "cannot write %s: %s", CKF_PACK_NAME, strerror(-ret));
}

int ckf_pack_writer_open(struct ckf_pack_writer **out, int fd, uint64_t start, uint64_t max_bytes,
			 bool direct, struct ckf_error *err)
{
	struct ckf_pack_writer *w = calloc(1, sizeof(*w));
	int ret = 0;

	if (!w)
		return ckf_error_set(err, -ENOMEM, "no memory for buffers");
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->change, NULL);
	w->start = start;
	ckf_out_file_init(&w->file, fd, true, start + max_bytes);
	if (direct && !w->file.tmpfs)
		ret = try_direct(w, fd);
	if (ret) {
		ckf_pack_writer_free(w);
		return ckf_pack_writer_error(ret, err);
	}
	*out = w;
	return 0;
}

static void written(struct ckf_transfer *t)
{
	struct window *win = (struct window *)t;
	struct ckf_pack_writer *w = win->w;

	pthread_mutex_lock(&w->lock);
	if (t->ret && !w->ret)
		w->ret = t->ret;
	win->off += NR_WINDOWS * WINDOW_BYTES;
	win->has_bytes = 0;
	w->in_flight--;
	pthread_cond_broadcast(&w->change);
	pthread_mutex_unlock(&w->lock);
}

static void submit(struct window *win, size_t bytes)
{
	win->transfer = (struct ckf_transfer){
		.fd = win->w->file.fd,
		.write = true,
		.iov = { win->data, bytes },
		.off = win->w->start + win->off,
		.done = written,
	};
	ckf_io_thread_submit(win->w->io_thread, &win->transfer);
}

/* The buffer of the window at off, once it is for that one. */
static int await_window(struct ckf_pack_writer *w, uint64_t off, struct window **out)
{
	struct window *win = &w->windows[off / WINDOW_BYTES % NR_WINDOWS];
	int ret;

	pthread_mutex_lock(&w->lock);
	while (!w->ret && win->off < off)
		pthread_cond_wait(&w->change, &w->lock);
	ret = w->ret;
	/* That one is written already. */
	if (!ret && win->off != off)
		ret = -EINVAL;
	pthread_mutex_unlock(&w->lock);
	*out = win;
	return ret;
}

static void add_bytes(struct ckf_pack_writer *w, struct window *win, size_t bytes)
{
	bool full;

	pthread_mutex_lock(&w->lock);
	win->has_bytes += bytes;
	full = win->has_bytes == WINDOW_BYTES;
	w->in_flight += full;
	pthread_mutex_unlock(&w->lock);
	if (full)
		submit(win, WINDOW_BYTES);
}

static void copy_part(const struct piece *p, uint64_t at, uint8_t *dst, size_t bytes)
{
	size_t zeros = 0;

	if (at < p->off) {
		zeros = p->off - at < bytes ? (size_t)(p->off - at) : bytes;
		memset(dst, 0, zeros);
		at += zeros;
	}
	ckf_iov_copy(p->iov, p->nr, at - p->off, dst + zeros, bytes - zeros);
}

static int gather(struct ckf_pack_writer *w, const struct piece *p)
{
	struct window *win;
	int ret = 0;

	for (uint64_t at = p->from, next; at < p->end && !ret; at = next) {
		uint64_t off = at - at % WINDOW_BYTES;

		next = off + WINDOW_BYTES < p->end ? off + WINDOW_BYTES : p->end;
		ret = await_window(w, off, &win);
		if (ret)
			break;
		copy_part(p, at, win->data + (at - off), (size_t)(next - at));
		add_bytes(w, win, (size_t)(next - at));
	}
	return ret;
}

/*
 * To the disk now, so that the end has little left to wait for. Threads put what follows in about
 * that order: what one of them puts late is left to the end.
 */
static void sync_full(struct ckf_pack_writer *w, uint64_t put_bytes)
{
	uint64_t off;
	bool full;

	pthread_mutex_lock(&w->lock);
	w->put_bytes += put_bytes;
	off = w->synced_bytes;
	full = w->put_bytes - off >= SYNC_BYTES;
	if (full)
		w->synced_bytes += SYNC_BYTES;
	pthread_mutex_unlock(&w->lock);
	if (full)
		sync_file_range(w->file.fd, (off_t)(w->start + off), SYNC_BYTES,
				SYNC_FILE_RANGE_WRITE);
}

int ckf_pack_writer_put(struct ckf_pack_writer *w, uint64_t from, struct iovec *iov,
			unsigned int nr, uint64_t off)
{
	struct piece p = { .from = from, .iov = iov, .nr = nr, .off = off, .end = off };
	int ret;

	for (unsigned int i = 0; i < nr; i++)
		p.end += iov[i].iov_len;
	if (w->io_thread)
		return gather(w, &p);
	ret = ckf_out_file_writev(&w->file, iov, nr, w->start + off);
	if (!ret && !w->file.tmpfs)
		sync_full(w, p.end - from);
	return ret;
}

void ckf_pack_writer_fail(struct ckf_pack_writer *w, int ret)
{
	pthread_mutex_lock(&w->lock);
	if (!w->ret)
		w->ret = ret;
	pthread_cond_broadcast(&w->change);
	pthread_mutex_unlock(&w->lock);
}

/* The last window, up to the end of a page. */
static void submit_last(struct ckf_pack_writer *w)
{
	for (unsigned int i = 0; i < NR_WINDOWS; i++) {
		struct window *win = &w->windows[i];
		size_t has, bytes;

		pthread_mutex_lock(&w->lock);
		has = win->has_bytes;
		if (has == WINDOW_BYTES)
			has = 0;
		w->in_flight += has != 0;
		pthread_mutex_unlock(&w->lock);
		bytes = (size_t)ckf_align_up(has, CKF_PAGE_BYTES);
		memset(win->data + has, 0, bytes - has);
		if (has)
			submit(win, bytes);
	}
}

int ckf_pack_writer_finish(struct ckf_pack_writer *w, struct ckf_error *err)
{
	int ret;

	if (!w->io_thread)
		return 0;
	submit_last(w);
	pthread_mutex_lock(&w->lock);
	while (w->in_flight)
		pthread_cond_wait(&w->change, &w->lock);
	ret = w->ret;
	pthread_mutex_unlock(&w->lock);
	/* What is still to come, the header say, is not of whole pages. */
	if (fcntl(w->file.fd, F_SETFL, 0) && !ret)
		ret = -errno;
	return ret ? ckf_pack_writer_error(ret, err) : 0;
}

void ckf_pack_writer_free(struct ckf_pack_writer *w)
{
	if (!w)
		return;
	ckf_io_thread_stop(w->io_thread);
	if (w->data)
		munmap(w->data, NR_WINDOWS * WINDOW_BYTES);
	ckf_out_file_fini(&w->file);
	pthread_cond_destroy(&w->change);
	pthread_mutex_destroy(&w->lock);
	free(w);
}
