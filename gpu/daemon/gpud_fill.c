/* SPDX-License-Identifier: MIT */
/*
 * FILL: makes the device memory of an image, hands it over, and fills it.
 *
 * All memory is made first, so that what does not fit is known before anything was read; the plan,
 * which takes about as long to read and check, is opened meanwhile. Processes are filled side by
 * side, and so are the devices of each. Descriptors are sent beside it: the client may be busy with
 * other parts of a restore, and a socket does not hold many.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "loader/ckf_fill_sink.h"
#include "loader/ckf_kept.h"
#include "base/ckf_threads.h"
#include "gpu/cuda/ckf_cuda_sink.h"
#include "gpud.h"

#define MAX_PARALLEL 16 /* processes filled, or devices warmed, at once */
#define STREAMS 4	/* more do not copy faster */
#define IN_FLIGHT_PAUSE_MS 1

/* Of a process: what is filled, ascending; imports are in the memory of another process. */
struct memory {
	struct ckf_sink_dest *dests;
	uint32_t nr_dests;
	uint32_t *dest_of; /* each allocation: position in dests, of imports UINT32_MAX */
};

struct fill {
	struct gpud_conn *c;
	int dir_fd;
	uint64_t start_ns;
	struct gpud_source src;
	struct gpud_kept_mem *kept; /* of the image; NULL: it is read */
	struct gpud_map map;
	struct ckf_cuda_pool *pool;
	struct ckf_sink **sinks;      /* by ordinal; NULL where nothing goes */
	struct ckf_gpu_dump **dumps;  /* of each part */
	struct ckf_gpu_owners owners; /* of shared memory */
	int *shared_fds;	      /* of each owner, from when it was first handed over; or -1 */
	struct memory *memories;      /* per part */
	_Atomic uint64_t bytes;

	/* Of what is done side by side: for_each(). */
	int (*item)(struct fill *f, unsigned int i, struct ckf_error *err);
	unsigned int nr_items;
	unsigned int parallel;
	atomic_uint next; /* that nobody has taken */
	atomic_bool failed;
	pthread_mutex_t lock; /* for ret and err */
	int ret;
	struct ckf_error err;
};

/* Something that is done beside the rest. */
struct aside {
	pthread_t thread;
	bool started;
	struct fill *f;
	int (*work)(struct fill *f, struct ckf_error *err);
	int ret;
	struct ckf_error err;
};

static void *aside_main(void *arg)
{
	struct aside *a = arg;

	a->ret = a->work(a->f, &a->err);
	return NULL;
}

/* Without a thread it is done at once. */
static void aside_start(struct aside *a)
{
	a->started = !ckf_thread_start(&a->thread, NULL, aside_main, a);
	if (!a->started)
		aside_main(a);
}

static int aside_join(struct aside *a, struct ckf_error *err)
{
	if (a->started)
		pthread_join(a->thread, NULL);
	a->started = false;
	return a->ret ? ckf_error_set(err, a->ret, "%s", a->err.msg) : 0;
}

static void take_items(void *arg, unsigned int nr)
{
	struct fill *f = arg;
	struct ckf_error err = { 0 };
	unsigned int i;
	int ret;

	(void)nr;
	while (!atomic_load(&f->failed)) {
		i = atomic_fetch_add(&f->next, 1);
		if (i >= f->nr_items)
			return;
		ret = f->item(f, i, &err);
		if (!ret)
			continue;
		pthread_mutex_lock(&f->lock);
		if (!f->ret) {
			f->ret = ret;
			f->err = err;
		}
		pthread_mutex_unlock(&f->lock);
		atomic_store(&f->failed, true);
	}
}

/* item() for 0 to nr - 1, several at once; the first error. */
static int for_each(struct fill *f, unsigned int nr,
		    int (*item)(struct fill *f, unsigned int i, struct ckf_error *err),
		    struct ckf_error *err)
{
	struct ckf_threads_opts threads = { .work = take_items, .arg = f };

	f->item = item;
	f->nr_items = nr;
	f->parallel = nr < MAX_PARALLEL ? nr : MAX_PARALLEL;
	/* Each has a thread at least, and all of them as many as the job may have. */
	if (f->parallel > f->c->g->opts.threads)
		f->parallel = f->c->g->opts.threads;
	atomic_store(&f->next, 0);
	threads.threads = f->parallel;
	ckf_threads_run(&threads);
	return f->ret ? ckf_error_set(err, f->ret, "%s", f->err.msg) : 0;
}

/* What the tables say of each other. */
static int look_at_tables(struct fill *f, struct ckf_error *err)
{
	int ret;

	f->dumps = calloc(f->src.nr, sizeof(struct ckf_gpu_dump *));
	if (!f->dumps)
		return ckf_error_set(err, -ENOMEM, "no memory");
	for (unsigned int i = 0; i < f->src.nr; i++)
		f->dumps[i] = f->src.parts[i].dump;
	ret = ckf_gpu_owners_new(f->dumps, f->src.nr, &f->owners, err);
	if (ret)
		return ret;
	f->shared_fds = malloc((f->owners.nr + 1) * sizeof(*f->shared_fds));
	if (!f->shared_fds)
		return ckf_error_set(err, -ENOMEM, "no memory");
	for (size_t i = 0; i < f->owners.nr; i++)
		f->shared_fds[i] = -1;
	return 0;
}

/* Before anything is made: is there room for all of it on this device? */
static int check_room(struct fill *f, unsigned int i, struct ckf_error *err)
{
	const struct gpud_place *p = &f->map.places[i];
	uint64_t have;
	int ret;

	if (!p->bytes)
		return 0;
	ret = ckf_cuda_pool_warm(f->pool, p->ordinal, err);
	if (!ret)
		ret = ckf_cuda_pool_free_bytes(f->pool, p->ordinal, &have, err);
	if (ret)
		return ret;
	if (have >= CKF_GPUD_SPARE_BYTES && have - CKF_GPUD_SPARE_BYTES >= p->bytes)
		return 0;
	return ckf_error_set(err, -ENOMEM,
			     "GPU %u (%s) has %llu MiB free, the image needs %llu MiB and %llu to "
			     "spare",
			     p->ordinal, f->pool->devs[p->ordinal].name,
			     (unsigned long long)have >> 20, (unsigned long long)p->bytes >> 20,
			     CKF_GPUD_SPARE_BYTES >> 20);
}

/* The client may go on with its part: what is left to go wrong is reading and the device. */
static int accept_job(struct fill *f, struct ckf_error *err)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_PAIR };
	struct ckf_gpud_msg accepted = { .op = CKF_GPUD_ACCEPTED };
	int ret = 0;

	for (unsigned int i = 0; i < f->map.nr && f->map.moved && !ret; i++) {
		const struct gpud_place *p = &f->map.places[i];

		if (!p->found)
			continue;
		memcpy(m.uuid, p->old_uuid, sizeof(m.uuid));
		memcpy(m.uuid2, p->new_uuid, sizeof(m.uuid2));
		ret = gpud_send(f->c, &m, -1, err);
	}
	return ret ? ret : gpud_send(f->c, &accepted, -1, err);
}

static int open_sinks(struct fill *f, struct ckf_error *err)
{
	struct ckf_cuda_sink_opts so = { .size = sizeof(so),
					 .nr_streams = STREAMS,
					 .cancelled = gpud_cancelled,
					 .arg = f->c,
					 .done_bytes = &f->c->done_bytes };
	int ret = 0;

	f->sinks = calloc(f->pool->nr_devs, sizeof(*f->sinks));
	f->memories = calloc(f->src.nr, sizeof(*f->memories));
	if (!f->sinks || !f->memories)
		return ckf_error_set(err, -ENOMEM, "no memory");
	for (unsigned int i = 0; i < f->map.nr && !ret; i++) {
		const struct gpud_place *p = &f->map.places[i];

		so.device = p->ordinal;
		if (!p->bytes)
			continue;
		ret = ckf_cuda_sink_open(f->pool, &so, &f->sinks[so.device], err);
		gpud_job_add_gpu(f->c, p->ordinal, p->bytes);
	}
	return ret;
}

static int make_memory(struct fill *f, const struct ckf_gpu_dump *d, uint32_t i, struct memory *mem,
		       struct ckf_error *err)
{
	const struct ckf_gpu_alloc *a = &d->allocs[i];
	struct ckf_sink_dest *dest = &mem->dests[mem->nr_dests];

	mem->dest_of[i] = UINT32_MAX;
	if (!ckf_gpu_pages_bytes(a))
		return 0;
	if (gpud_cancelled(f->c))
		return -ECANCELED;
	mem->dest_of[i] = mem->nr_dests++;
	dest->start = a->addr;
	dest->end = a->addr + a->bytes;
	dest->sink = f->sinks[gpud_map_ordinal(&f->map, d, a->device)];
	return ckf_cuda_sink_alloc(dest->sink, a->bytes, a->flags, &dest->mem, err);
}

/* The descriptor of memory is owner's where that is not NULL: all who share it get the same one. */
static int share(struct fill *f, const struct ckf_gpu_owner *owner,
		 const struct ckf_sink_dest *dest, struct ckf_error *err)
{
	int *fd = owner ? &f->shared_fds[owner - f->owners.list] : NULL;

	if (!fd)
		return ckf_cuda_sink_ops.share(dest->mem, err);
	if (*fd < 0)
		*fd = ckf_cuda_sink_ops.share(dest->mem, err);
	return *fd;
}

static int hand_over(struct fill *f, unsigned int part, uint32_t i, struct ckf_error *err)
{
	const struct ckf_gpu_dump *d = f->dumps[part];
	const struct ckf_gpu_alloc *a = &d->allocs[i];
	const struct ckf_gpu_owner *owner = NULL;
	struct ckf_gpud_msg m = { .op = CKF_GPUD_MEMORY,
				  .pid = d->pid,
				  .addr = a->addr,
				  .bytes = a->bytes,
				  .device = d->devices[a->device].ordinal,
				  .flags = a->flags };
	uint64_t end;
	int fd, ret;

	if (a->flags & CKF_GPU_ALLOC_SHARED) {
		owner = ckf_gpu_owner_find(&f->owners, a->shared_id);
		part = owner->dump;
		i = owner->alloc;
	}
	memcpy(m.uuid2, a->shared_id, sizeof(m.uuid2));
	fd = share(f, owner, &f->memories[part].dests[f->memories[part].dest_of[i]], err);
	if (fd < 0)
		return fd;
	d = f->dumps[part];
	memcpy(m.uuid, f->pool->devs[gpud_map_ordinal(&f->map, d, d->allocs[i].device)].uuid,
	       sizeof(m.uuid));
	/* A user may have so many descriptors in flight, and the client reads when it gets to it.
	 */
	end = ckf_now_ns() + GPUD_SEND_S * GPUD_NS_PER_S;
	while ((ret = gpud_send(f->c, &m, fd, err)) == -ETOOMANYREFS && !gpud_cancelled(f->c) &&
	       ckf_now_ns() < end)
		poll(NULL, 0, IN_FLIGHT_PAUSE_MS);
	if (!owner)
		close(fd);
	return ret;
}

static int hand_over_all(struct fill *f, struct ckf_error *err)
{
	struct ckf_gpud_msg made = { .op = CKF_GPUD_MADE };
	int ret = 0;

	for (unsigned int i = 0; i < f->src.nr; i++) {
		for (uint32_t k = 0; k < f->dumps[i]->nr_allocs && !ret; k++) {
			/* There is an error to be said. */
			if (atomic_load(&f->failed))
				return 0;
			ret = hand_over(f, i, k, err);
		}
	}
	return ret ? ret : gpud_send(f->c, &made, -1, err);
}

static int make_all(struct fill *f, struct ckf_error *err)
{
	int ret = 0;

	for (unsigned int i = 0; i < f->src.nr && !ret; i++) {
		const struct ckf_gpu_dump *d = f->dumps[i];
		struct memory *mem = &f->memories[i];

		mem->dests = calloc((size_t)d->nr_allocs + 1, sizeof(*mem->dests));
		mem->dest_of = calloc((size_t)d->nr_allocs + 1, sizeof(*mem->dest_of));
		if (!mem->dests || !mem->dest_of)
			return ckf_error_set(err, -ENOMEM, "no memory");
		for (uint32_t k = 0; k < d->nr_allocs && !ret; k++)
			ret = make_memory(f, d, k, mem, err);
	}
	return ret;
}

static bool has_imports(const struct ckf_gpu_dump *d)
{
	for (uint32_t i = 0; i < d->nr_allocs; i++)
		if (d->allocs[i].flags & CKF_GPU_ALLOC_IMPORT)
			return true;
	return false;
}

static int say_ready(struct fill *f, unsigned int i, struct ckf_error *err)
{
	struct ckf_gpud_msg ready = { .op = CKF_GPUD_READY,
				      .pid = f->dumps[i]->pid,
				      .arg = f->dumps[i]->bytes,
				      .arg2 = ckf_now_ns() - f->start_ns };

	return gpud_send(f->c, &ready, -1, err);
}

static const struct ckf_kept_ops kept_ops = {
	.sink = &ckf_cuda_sink_ops,
	.upload = ckf_cuda_sink_upload,
};

/* Of one process: as many as its memory pays, but one for each GPU, or links would be idle. */
static unsigned int part_threads(const struct fill *f, unsigned int i)
{
	const unsigned int most = f->c->g->opts.threads / f->parallel;
	const struct memory *mem = &f->memories[i];
	unsigned int threads = ckf_fill_default_threads(f->dumps[i]->bytes), gpus = 0;

	for (unsigned int k = 0; k < f->pool->nr_devs; k++)
		for (uint32_t d = 0; d < mem->nr_dests; d++) {
			if (!f->sinks[k] || mem->dests[d].sink != f->sinks[k])
				continue;
			gpus++;
			break;
		}
	if (threads < gpus)
		threads = gpus;
	return threads < most ? threads : most;
}

/* Fills the memory of one process. */
static int fill_part(struct fill *f, unsigned int i, struct ckf_error *err)
{
	struct gpud_part *p = &f->src.parts[i];
	const struct memory *mem = &f->memories[i];
	struct ckf_fill_opts fo = { .size = sizeof(fo),
				    .dir_fd = -1,
				    .threads = part_threads(f, i) };
	struct ckf_fill_stats stats = { .size = sizeof(stats) };
	int ret = 0;

	if (f->kept)
		ret = ckf_fill_kept(gpud_kept_of(f->kept), f->src.img, p->target, &kept_ops,
				    mem->dests, mem->nr_dests, &fo, &stats, err);
	else if (p->target)
		ret = ckf_fill_sink(f->src.img, p->target, &ckf_cuda_sink_ops, mem->dests,
				    mem->nr_dests, &fo, &stats, err);
	else if (p->pages_fd >= 0)
		ret = ckf_fill_sink_file(p->pages_fd, p->dump, &ckf_cuda_sink_ops, mem->dests,
					 mem->nr_dests, &fo, &stats, err);
	if (ret)
		return ret;
	atomic_fetch_add(&f->bytes, p->dump->bytes);
	return has_imports(p->dump) ? 0 : say_ready(f, i, err);
}

static void fill_fini(struct fill *f)
{
	/* With its sinks goes what this process holds of the memory. */
	for (unsigned int i = 0; f->sinks && i < f->pool->nr_devs; i++)
		ckf_cuda_sink_ops.close(f->sinks[i]);
	for (unsigned int i = 0; f->memories && i < f->src.nr; i++) {
		free(f->memories[i].dests);
		free(f->memories[i].dest_of);
	}
	for (size_t i = 0; f->shared_fds && i < f->owners.nr; i++) {
		if (f->shared_fds[i] >= 0)
			close(f->shared_fds[i]);
	}
	free(f->shared_fds);
	free(f->sinks);
	free(f->memories);
	gpud_kept_put(f->kept);
	ckf_gpu_owners_free(&f->owners);
	free(f->dumps);
	gpud_map_free(&f->map);
	gpud_source_close(&f->src);
	pthread_mutex_destroy(&f->lock);
}

static uint64_t total_bytes(const struct gpud_source *src)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < src->nr; i++)
		sum += src->parts[i].dump->bytes;
	return sum;
}

static int open_contents(struct fill *f, struct ckf_error *err)
{
	int ret = gpud_source_contents(f->dir_fd, &f->src, err);

	if (!ret && f->src.img)
		f->kept = gpud_kept_get(f->c->g->kept, f->src.img);
	return ret;
}

/* What can be said before anything is made. */
static int look(struct fill *f, struct ckf_error *err)
{
	int ret;

	ret = gpud_pool(f->c->g, &f->pool, err);
	if (!ret)
		ret = gpud_map_new(f->pool, f->dumps, f->src.nr, &f->map, err);
	if (!ret)
		ret = for_each(f, f->map.nr, check_room, err);
	return ret ? ret : accept_job(f, err);
}

/* In a thread of its own, which those that it starts take after. */
static int fill_all(struct fill *f, struct ckf_error *err)
{
	int ret;

	(void)setpriority(PRIO_PROCESS, (id_t)gettid(), GPUD_FILL_NICE);
	ret = for_each(f, f->src.nr, fill_part, err);
	/* What they import is filled with the memory of others. */
	for (unsigned int i = 0; i < f->src.nr && !ret; i++) {
		if (has_imports(f->dumps[i]))
			ret = say_ready(f, i, err);
	}
	return ret;
}

static int make_and_fill(struct fill *f, struct aside *contents, struct ckf_error *err)
{
	struct aside filling = { .f = f, .work = fill_all };
	int ret, end;

	ret = open_sinks(f, err);
	if (!ret)
		ret = make_all(f, err);
	if (!ret)
		ret = aside_join(contents, err);
	if (ret)
		return ret;
	aside_start(&filling);
	ret = hand_over_all(f, err);
	end = aside_join(&filling, err);
	return end ? end : ret;
}

static int run(struct fill *f, struct ckf_error *err)
{
	struct aside contents = { .f = f, .work = open_contents };
	uint64_t bytes;
	int ret;

	ret = gpud_source_tables(f->dir_fd, &f->src, err);
	if (!ret)
		ret = look_at_tables(f, err);
	if (ret)
		return ret;
	bytes = total_bytes(&f->src);
	ret = gpud_client_hold(f->c, bytes, err);
	if (ret)
		return ret;
	atomic_store(&f->c->total_bytes, bytes);
	/* Also while the driver is still being opened. */
	aside_start(&contents);
	ret = look(f, err);
	if (!ret)
		ret = make_and_fill(f, &contents, err);
	aside_join(&contents, NULL);
	return ret;
}

int gpud_fill(struct gpud_conn *c, int fd, struct ckf_error *err)
{
	struct fill f = { .c = c, .dir_fd = fd, .start_ns = ckf_now_ns() };
	struct ckf_gpud_msg done = { .op = CKF_GPUD_DONE };
	bool missed;
	int ret;

	pthread_mutex_init(&f.lock, NULL);
	ret = gpud_job_start(c, GPUD_FILLING, fd, err);
	if (!ret)
		ret = run(&f, err);
	missed = f.src.img && !f.kept;
	fill_fini(&f);
	if (missed)
		gpud_kept_missed(c->g->kept);
	done.arg = atomic_load(&f.bytes);
	done.arg2 = ckf_now_ns() - f.start_ns;
	gpud_job_end(c, ret, done.arg, err);
	return ret ? ret : gpud_send(c, &done, -1, err);
}
