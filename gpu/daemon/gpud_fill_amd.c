/* SPDX-License-Identifier: MIT */
/*
 * FILL_AMD: fills objects of an AMD GPU, which KFD has made for the client, from a fast image.
 *
 * Each object is imported by its dma-buf as it comes, so that a client's descriptors do not pile up
 * here. Nothing is written before the client has said that it still waits for that: one that has
 * given up earlier may fill the objects itself.
 */
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/ckf_threads.h"
#include "gpud.h"

#define RECEIVE_S 300 /* the client has all that it sends at hand */

struct fill_amd {
	struct gpud_conn *c;
	struct ckf_amd *amd; /* NULL: not to be had */
	struct ckf_image *img;
	const struct ckf_target *target;
	uint64_t bytes; /* of the target */
	uint64_t objects_bytes;
	struct ckf_amd_objects *objects;

	/* Of the thread that fills. */
	int ret;
	struct ckf_error err;
};

static int open_target(struct fill_amd *f, int dir_fd, uint64_t id, struct ckf_error *err)
{
	struct ckf_target_info info = { .size = sizeof(info) };
	int ret;

	ret = ckf_image_open(dir_fd, &f->img, err);
	if (ret)
		return ret;
	/* Lower ids are those of CUDA's memory. */
	if (id > UINT32_MAX)
		f->target = ckf_image_find_target(f->img, CKF_TARGET_DEVICE, id);
	if (!f->target)
		return ckf_error_set(err, -ENOENT, "the image has no memory of AMD GPU %llx",
				     (unsigned long long)id);
	ckf_target_get_info(f->img, f->target, &info);
	f->bytes = ckf_pages_to_bytes(info.nr_pages);
	return 0;
}

/* What the job needs before there are objects. */
static int prepare(struct fill_amd *f, int dir_fd, uint64_t id, struct ckf_error *err)
{
	const struct ckf_amd_watch watch = { .cancelled = gpud_cancelled,
					     .arg = f->c,
					     .done_bytes = &f->c->done_bytes };
	int ret;

	ret = open_target(f, dir_fd, id, err);
	if (!ret)
		ret = gpud_client_hold(f->c, f->bytes, err);
	if (ret)
		return ret;
	atomic_store(&f->c->total_bytes, f->bytes);
	ret = gpud_amd_get(f->c->g->amd, &f->amd, err);
	if (ret) {
		f->amd = NULL;
		return ret;
	}
	return ckf_amd_objects_new(f->amd, &watch, &f->objects, err);
}

static int add_object(struct fill_amd *f, const struct ckf_gpud_msg *m, int fd,
		      struct ckf_error *err)
{
	const struct ckf_amd_object o = { .start = m->addr, .bytes = m->bytes, .dmabuf = fd };

	if (m->bytes > f->bytes - f->objects_bytes)
		return ckf_error_set(
			err, -EINVAL,
			"the objects of an AMD GPU are larger than those of the image");
	f->objects_bytes += m->bytes;
	return ckf_amd_objects_add(f->objects, &o, err);
}

/* One message that is expected by that time. */
static int receive(struct fill_amd *f, uint32_t op, struct ckf_gpud_msg *m, int *fd, uint64_t end,
		   struct ckf_error *err)
{
	int ret = gpud_recv_until(f->c->sock, m, fd, end, err);

	if (ret)
		f->c->bad = true;
	else if (m->op != op || (*fd >= 0) != (op == CKF_GPUD_MEMORY))
		ret = gpud_bad(f->c, "not what follows a request for AMD GPUs", err);
	return ret;
}

/*
 * All objects. After an error the rest is still received, since the client sends all before it
 * looks for an answer.
 */
static int receive_objects(struct fill_amd *f, uint64_t nr, int ret, struct ckf_error *err)
{
	const uint64_t end = ckf_now_ns() + RECEIVE_S * GPUD_NS_PER_S;
	struct ckf_gpud_msg m;
	int fd, recv_ret;

	if (nr > CKF_GPU_MAX_ALLOCS)
		return gpud_bad(f->c, "too many objects", err);
	for (uint64_t i = 0; i < nr; i++) {
		recv_ret = receive(f, CKF_GPUD_MEMORY, &m, &fd, end, err);
		if (!recv_ret && !ret)
			ret = add_object(f, &m, fd, err);
		if (fd >= 0)
			close(fd);
		if (recv_ret)
			return recv_ret;
	}
	if (!ret && f->objects_bytes != f->bytes)
		ret = ckf_error_set(err, -EINVAL,
				    "the objects of an AMD GPU have %llu bytes, those of the image "
				    "%llu",
				    (unsigned long long)f->objects_bytes,
				    (unsigned long long)f->bytes);
	return ret;
}

/* The client may have given up while objects were imported. */
static int agree(struct fill_amd *f, struct ckf_error *err)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_ACCEPTED };
	int fd = -1, ret;

	ret = gpud_send(f->c, &m, -1, err);
	if (!ret)
		ret = receive(f, CKF_GPUD_COMMIT, &m, &fd, ckf_now_ns() + RECEIVE_S * GPUD_NS_PER_S,
			      err);
	if (fd >= 0)
		close(fd);
	return ret;
}

/* In a thread of its own, which those that it starts take after. */
static void *fill_main(void *arg)
{
	struct fill_amd *f = arg;
	struct ckf_fill_opts fo = { .size = sizeof(fo),
				    .dir_fd = -1,
				    .threads = ckf_fill_default_threads(f->bytes) };

	if (fo.threads > f->c->g->opts.threads)
		fo.threads = f->c->g->opts.threads;
	(void)setpriority(PRIO_PROCESS, (id_t)gettid(), GPUD_FILL_NICE);
	f->ret = ckf_amd_fill(f->objects, f->img, f->target, &fo, NULL, &f->err);
	return NULL;
}

static int fill(struct fill_amd *f, struct ckf_error *err)
{
	pthread_t thread;
	int ret;

	for (unsigned int i = 0; i < ckf_amd_nr_gpus(f->amd); i++)
		gpud_job_add_gpu(f->c, i, ckf_amd_objects_bytes(f->objects, i));
	ret = ckf_thread_start(&thread, NULL, fill_main, f);
	if (ret)
		return ckf_error_set(err, ret, "cannot start a thread: %s", strerror(-ret));
	pthread_join(thread, NULL);
	return f->ret ? ckf_error_set(err, f->ret, "%s", f->err.msg) : 0;
}

int gpud_fill_amd(struct gpud_conn *c, const struct ckf_gpud_msg *m, int fd, struct ckf_error *err)
{
	struct fill_amd f = { .c = c };
	struct ckf_gpud_msg done = { .op = CKF_GPUD_DONE };
	const uint64_t start_ns = ckf_now_ns();
	int ret;

	ret = gpud_job_start(c, GPUD_FILLING_AMD, fd, err);
	if (!ret)
		ret = prepare(&f, fd, m->arg, err);
	ret = receive_objects(&f, m->arg2, ret, err);
	if (!ret)
		ret = agree(&f, err);
	if (!ret)
		ret = fill(&f, err);
	/* Unmapped: not even an engine that has stood still writes to them later. */
	ckf_amd_release(f.objects);
	if (f.amd)
		gpud_amd_put(c->g->amd);
	ckf_image_close(f.img);
	done.arg = f.bytes;
	done.arg2 = ckf_now_ns() - start_ns;
	gpud_job_end(c, ret, f.bytes, err);
	return ret ? ret : gpud_send(c, &done, -1, err);
}
