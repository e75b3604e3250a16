/* SPDX-License-Identifier: MIT */
/*
 * SAVE: writes the device memory of a process into a dump.
 *
 * The memory is imported by its descriptors and copied out through the pool's slots by several
 * threads, each with one slot: while one waits for its copy, others look for zeros and write. Zeros
 * become holes. The table comes last and by rename, so that a dump has both files or none.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "format/ckf_codec.h"
#include "ckfast.h"
#include "loader/ckf_gpu_read.h"
#include "base/ckf_threads.h"
#include "base/ckf_io_util.h"
#include "base/ckf_out_file.h"
#include "gpu/cuda/ckf_cuda_sink.h"
#include "gpud.h"

#define STREAMS 4
#define RECEIVE_S 300		 /* the client has all that it sends at hand */
#define ALLOC_ALIGN (2ull << 20) /* SPEC.md: of addresses and lengths */

struct save {
	struct gpud_conn *c;
	struct ckf_cuda_pool *pool;
	struct ckf_sink **sinks;    /* by ordinal; NULL where nothing is */
	struct ckf_sink_mem **mems; /* of each allocation of the dump */
	unsigned int *ordinals;	    /* of each device of the dump: in the pool */
	struct ckf_gpu_dump dump;
	uint32_t room; /* for allocations */
	int dir_fd;
	struct ckf_out_file pages;

	pthread_mutex_t lock; /* for all below */
	uint32_t next_alloc;
	uint64_t next_off; /* in next_alloc */
	uint64_t file_off;
	uint64_t used_bytes; /* that are not zero */
	int ret;
	struct ckf_error err;
};

/* What one thread copies at a time. */
struct piece {
	uint32_t alloc;
	uint64_t off; /* in the allocation */
	uint64_t file_off;
	uint32_t bytes;
};

static int no_memory(struct ckf_error *err)
{
	return ckf_error_set(err, -ENOMEM, "no memory");
}

/* number: in the task. */
static int add_device(struct save *s, unsigned int ordinal, uint32_t number, struct ckf_error *err)
{
	const struct ckf_cuda_dev *have = &s->pool->devs[ordinal];
	struct ckf_gpu_dump *d = &s->dump;
	struct ckf_gpu_device *dev = &d->devices[d->nr_devices];

	if (d->nr_devices == CKF_GPU_MAX_DEVICES)
		return ckf_error_set(err, -E2BIG, "more than %d GPUs", CKF_GPU_MAX_DEVICES);
	memcpy(dev->uuid, have->uuid, sizeof(dev->uuid));
	memcpy(dev->name, have->name, sizeof(dev->name));
	dev->total_bytes = have->total_bytes;
	dev->ordinal = number;
	s->ordinals[d->nr_devices++] = ordinal;
	return 0;
}

/* The position in dump.devices of the device of a message, which is new or not. */
static int find_device(struct save *s, const struct ckf_gpud_msg *m, uint32_t *nr,
		       struct ckf_error *err)
{
	const struct ckf_gpu_dump *d = &s->dump;
	int ordinal;

	for (*nr = 0; *nr < d->nr_devices; ++*nr)
		if (!memcmp(d->devices[*nr].uuid, m->uuid, sizeof(m->uuid)))
			return 0;
	ordinal = ckf_cuda_pool_find(s->pool, m->uuid);
	if (ordinal < 0)
		return ckf_error_set(err, -ENODEV,
				     "memory is on a GPU that gpud does not see "
				     "(CUDA_VISIBLE_DEVICES?)");
	return add_device(s, (unsigned int)ordinal, m->device, err);
}

/* Those that nothing is on: a restore has to tell the driver of them, too. */
static int add_others(struct save *s, struct ckf_error *err)
{
	bool known;
	int ret = 0;

	for (unsigned int i = 0; i < s->pool->nr_devs && !ret; i++) {
		known = false;
		for (uint32_t k = 0; k < s->dump.nr_devices; k++)
			known |= s->ordinals[k] == i;
		if (!known)
			ret = add_device(s, i, CKF_GPU_OTHER_ORDINAL + i, err);
	}
	return ret;
}

/* Room for one more allocation in both arrays. */
static int grow(struct save *s, struct ckf_error *err)
{
	uint32_t room = s->room ? s->room * 2 : 64;
	struct ckf_gpu_alloc *allocs;
	struct ckf_sink_mem **mems;

	if (s->dump.nr_allocs < s->room)
		return 0;
	if (s->room >= CKF_GPU_MAX_ALLOCS)
		return ckf_error_set(err, -E2BIG, "more than %u allocations", CKF_GPU_MAX_ALLOCS);
	allocs = realloc(s->dump.allocs, room * sizeof(*allocs));
	if (!allocs)
		return no_memory(err);
	s->dump.allocs = allocs;
	mems = realloc(s->mems, room * sizeof(*mems));
	if (!mems)
		return no_memory(err);
	s->mems = mems;
	s->room = room;
	return 0;
}

/* As SPEC.md has them. */
static bool flags_fit(const struct ckf_gpud_msg *m)
{
	static const uint8_t none[sizeof(m->uuid2)];
	const bool shared = m->flags & CKF_GPU_ALLOC_SHARED;

	return !(m->flags & ~CKF_GPU_ALLOC_FLAGS_ALL) &&
	       (shared || !(m->flags & CKF_GPU_ALLOC_IMPORT)) &&
	       shared == !!memcmp(m->uuid2, none, sizeof(none));
}

static int check_memory(struct save *s, const struct ckf_gpud_msg *m, int fd, struct ckf_error *err)
{
	const struct ckf_gpu_alloc *last;
	uint64_t min = 0, end;

	if (s->dump.nr_allocs) {
		last = &s->dump.allocs[s->dump.nr_allocs - 1];
		min = last->addr + last->bytes;
	}
	if (!flags_fit(m))
		return gpud_bad(s->c, "wrong flags of memory", err);
	if (fd < 0 || m->addr < min || m->addr % ALLOC_ALIGN || !m->bytes ||
	    m->bytes % ALLOC_ALIGN || ckf_add_overflow(m->addr, m->bytes, &end))
		return gpud_bad(s->c, "wrong address, length or order of memory", err);
	return 0;
}

/* Takes one allocation in. */
static int add_memory(struct save *s, const struct ckf_gpud_msg *m, int fd, struct ckf_error *err)
{
	struct ckf_cuda_sink_opts so = { .size = sizeof(so),
					 .nr_streams = STREAMS,
					 .cancelled = gpud_cancelled,
					 .arg = s->c,
					 .done_bytes = &s->c->done_bytes };
	struct ckf_gpu_alloc a = { .addr = m->addr, .bytes = m->bytes, .flags = m->flags };
	const uint64_t pages_bytes = ckf_gpu_pages_bytes(&a);
	struct ckf_sink **sink;
	int ret;

	memcpy(a.shared_id, m->uuid2, sizeof(a.shared_id));
	ret = grow(s, err);
	if (!ret)
		ret = find_device(s, m, &a.device, err);
	if (ret)
		return ret;
	so.device = s->ordinals[a.device];
	sink = &s->sinks[so.device];
	if (!*sink && pages_bytes)
		ret = ckf_cuda_sink_open(s->pool, &so, sink, err);
	/* The owner's process sends the contents. */
	if (!ret && pages_bytes)
		ret = ckf_cuda_sink_import(*sink, fd, a.bytes, &s->mems[s->dump.nr_allocs], err);
	if (ret)
		return ret;
	s->dump.allocs[s->dump.nr_allocs++] = a;
	s->dump.bytes += pages_bytes;
	atomic_store(&s->c->total_bytes, s->dump.bytes);
	gpud_job_add_gpu(s->c, so.device, a.bytes);
	return 0;
}

/*
 * All messages until COMMIT. After an error the rest is still received, since the client sends all
 * before it looks for an answer; but not more than a dump has, nor for longer than that takes.
 */
static int receive(struct save *s, int ret, struct ckf_error *err)
{
	const uint64_t end = ckf_now_ns() + RECEIVE_S * GPUD_NS_PER_S;
	struct ckf_gpud_msg m;
	int fd, recv_ret;

	for (uint32_t nr = 0;; nr++) {
		recv_ret = gpud_recv_until(s->c->sock, &m, &fd, end, err);
		if (recv_ret) {
			s->c->bad = true;
			return recv_ret;
		}
		if (m.op == CKF_GPUD_COMMIT && fd < 0)
			return ret;
		if (m.op != CKF_GPUD_MEMORY)
			gpud_bad(s->c, "neither memory nor its end", err);
		else if (nr > CKF_GPU_MAX_ALLOCS || ckf_now_ns() > end)
			gpud_bad(s->c, "memory without an end", err);
		else if (!ret)
			ret = check_memory(s, &m, fd, err);
		if (!s->c->bad && !ret)
			ret = add_memory(s, &m, fd, err);
		if (fd >= 0)
			close(fd);
		if (s->c->bad)
			return -EPROTO;
	}
}

static bool next_piece(struct save *s, struct piece *p)
{
	uint64_t left;
	bool more;

	pthread_mutex_lock(&s->lock);
	while (s->next_alloc < s->dump.nr_allocs &&
	       !ckf_gpu_pages_bytes(&s->dump.allocs[s->next_alloc]))
		s->next_alloc++;
	more = !s->ret && s->next_alloc < s->dump.nr_allocs;
	if (more) {
		left = s->dump.allocs[s->next_alloc].bytes - s->next_off;
		p->alloc = s->next_alloc;
		p->off = s->next_off;
		p->file_off = s->file_off;
		p->bytes = left < s->pool->slot_bytes ? (uint32_t)left : s->pool->slot_bytes;
		s->next_off += p->bytes;
		s->file_off += p->bytes;
		if (p->bytes == left) {
			s->next_alloc++;
			s->next_off = 0;
		}
	}
	pthread_mutex_unlock(&s->lock);
	return more;
}

static int write_error(const struct save *s, int ret, struct ckf_error *err)
{
	char name[CKF_GPU_NAME_BYTES];

	return ckf_error_set(err, ret, "cannot write %s: %s", ckf_gpu_pages_name(s->dump.pid, name),
			     strerror(-ret));
}

/* Writes what is not zero. */
static int write_pages(struct save *s, const char *buf, const struct piece *p, uint64_t *used,
		       struct ckf_error *err)
{
	uint32_t off, end;
	int ret = 0;

	if (ckf_is_zero(buf, p->bytes))
		return 0;
	for (off = 0; off < p->bytes && !ret; off = end) {
		end = off + CKF_PAGE_BYTES;
		if (ckf_is_zero(buf + off, CKF_PAGE_BYTES))
			continue;
		while (end < p->bytes && !ckf_is_zero(buf + end, CKF_PAGE_BYTES))
			end += CKF_PAGE_BYTES;
		ret = ckf_out_file_write(&s->pages, buf + off, end - off, p->file_off + off);
		if (ret)
			ret = write_error(s, ret, err);
		*used += end - off;
	}
	return ret;
}

static int save_piece(struct save *s, const struct piece *p, unsigned int nr, uint64_t *used,
		      struct ckf_error *err)
{
	const struct ckf_gpu_alloc *a = &s->dump.allocs[p->alloc];
	struct ckf_sink *sink = s->sinks[s->ordinals[a->device]];
	struct ckf_sink_copy copy = { .mem = s->mems[p->alloc],
				      .mem_off = p->off,
				      .bytes = p->bytes };
	struct ckf_sink_slot slot;
	int ret;

	ret = ckf_cuda_sink_ops.slot_take(sink, &slot, err);
	if (ret)
		return ret;
	ret = ckf_cuda_sink_ops.fetch(sink, nr % STREAMS, &slot, &copy, err);
	if (!ret)
		ret = write_pages(s, slot.addr, p, used, err);
	ckf_cuda_sink_ops.slot_put(sink, &slot);
	return ret;
}

static void save_pieces(void *arg, unsigned int nr)
{
	struct save *s = arg;
	struct ckf_error err = { 0 };
	struct piece p;
	uint64_t used = 0;
	int ret = 0;

	while (!ret && next_piece(s, &p))
		ret = save_piece(s, &p, nr, &used, &err);
	pthread_mutex_lock(&s->lock);
	s->used_bytes += used;
	if (ret && !s->ret) {
		s->ret = ret;
		s->err = err;
	}
	pthread_mutex_unlock(&s->lock);
}

static int write_table(struct save *s, struct ckf_error *err)
{
	char name[CKF_GPU_NAME_BYTES], tmp[CKF_GPU_NAME_BYTES];
	size_t bytes;
	void *buf;
	int fd, ret;

	ret = ckf_gpu_dump_encode(&s->dump, &buf, &bytes, err);
	if (ret)
		return ret;
	ckf_gpu_name(s->dump.pid, name);
	snprintf(tmp, sizeof(tmp), CKF_GPU_PREFIX "%u.tmp", s->dump.pid);
	unlinkat(s->dir_fd, tmp, 0);
	fd = openat(s->dir_fd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	ret = fd < 0 ? -errno : ckf_pwrite_all(fd, buf, bytes, 0);
	if (fd >= 0 && close(fd) && !ret)
		ret = -errno;
	if (!ret && renameat(s->dir_fd, tmp, s->dir_fd, name))
		ret = -errno;
	if (ret)
		unlinkat(s->dir_fd, tmp, 0);
	free(buf);
	return ret ? ckf_error_set(err, ret, "cannot write %s: %s", name, strerror(-ret)) : 0;
}

static void unlink_both(const struct save *s)
{
	char name[CKF_GPU_NAME_BYTES];

	unlinkat(s->dir_fd, ckf_gpu_name(s->dump.pid, name), 0);
	unlinkat(s->dir_fd, ckf_gpu_pages_name(s->dump.pid, name), 0);
}

/* The pages file, all of it a hole. There must be none of that name. */
static int create_pages(struct save *s, struct ckf_error *err)
{
	char name[CKF_GPU_NAME_BYTES];
	int fd, ret;

	fd = openat(s->dir_fd, ckf_gpu_pages_name(s->dump.pid, name),
		    O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return write_error(s, -errno, err);
	if (ftruncate(fd, (off_t)s->dump.bytes)) {
		ret = write_error(s, -errno, err);
		unlinkat(s->dir_fd, name, 0);
		close(fd);
		return ret;
	}
	ckf_out_file_init(&s->pages, fd, false, s->dump.bytes);
	return 0;
}

static int close_pages(struct save *s)
{
	ckf_out_file_fini(&s->pages);
	return close(s->pages.fd) ? -errno : 0;
}

static int write_files(struct save *s, struct ckf_error *err)
{
	struct ckf_threads_opts threads = { .work = save_pieces, .arg = s };
	int ret, close_ret;

	ret = create_pages(s, err);
	if (ret)
		return ret;
	threads.threads = ckf_fill_default_threads(s->dump.bytes);
	if (threads.threads > s->c->g->opts.threads)
		threads.threads = s->c->g->opts.threads;
	ckf_threads_run(&threads);
	if (s->ret)
		ret = ckf_error_set(err, s->ret, "%s", s->err.msg);
	close_ret = close_pages(s);
	if (!ret && close_ret)
		ret = write_error(s, close_ret, err);
	if (!ret)
		ret = add_others(s, err);
	return ret ? ret : write_table(s, err);
}

static int save_init(struct save *s, struct ckf_error *err)
{
	int ret;

	pthread_mutex_init(&s->lock, NULL);
	ret = gpud_pool(s->c->g, &s->pool, err);
	if (ret)
		return ret;
	s->sinks = calloc(s->pool->nr_devs, sizeof(*s->sinks));
	s->ordinals = calloc(CKF_GPU_MAX_DEVICES, sizeof(*s->ordinals));
	s->dump.devices = calloc(CKF_GPU_MAX_DEVICES, sizeof(*s->dump.devices));
	return s->sinks && s->ordinals && s->dump.devices ? 0 : no_memory(err);
}

static void save_fini(struct save *s)
{
	for (unsigned int i = 0; s->sinks && i < s->pool->nr_devs; i++)
		ckf_cuda_sink_ops.close(s->sinks[i]);
	free(s->sinks);
	free(s->mems);
	free(s->ordinals);
	free(s->dump.devices);
	free(s->dump.allocs);
	pthread_mutex_destroy(&s->lock);
}

int gpud_save(struct gpud_conn *c, const struct ckf_gpud_msg *m, int fd, struct ckf_error *err)
{
	struct save s = { .c = c, .dump.pid = m->pid, .dir_fd = fd };
	struct ckf_gpud_msg done = { .op = CKF_GPUD_DONE, .pid = m->pid };
	uint64_t start_ns = ckf_now_ns(), bytes;
	int ret, init;

	ret = gpud_job_start(c, GPUD_SAVING, fd, err);
	unlink_both(&s);
	init = save_init(&s, err);
	ret = ret ? ret : init;
	ret = receive(&s, ret, err);
	if (!ret && !s.dump.nr_allocs)
		ret = ckf_error_set(err, -EINVAL, "no memory to save");
	if (!ret)
		ret = write_files(&s, err);
	if (ret)
		unlink_both(&s);
	bytes = s.dump.bytes;
	save_fini(&s);
	done.arg = s.used_bytes;
	done.arg2 = ckf_now_ns() - start_ns;
	gpud_job_end(c, ret, bytes, err);
	return ret ? ret : gpud_send(c, &done, -1, err);
}
