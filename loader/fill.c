/* SPDX-License-Identifier: MIT */
/*
 * ckf_fill(): sets up a job, runs its workers, and leaves nothing of them behind.
 *
 * The workers are threads of a process that is about to become another one. Each takes a file table
 * of its own before it opens anything, so that no descriptor of the loader shows up in tables that
 * are being restored; and the call returns only when the kernel, too, has forgotten the threads.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "io_util.h"
#include "worker.h"

#define MAX_WORKERS 64
#define STACK_BYTES (256u << 10)
#define GONE_TIMEOUT_MS 10000

unsigned int ckf_fill_default_threads(uint64_t fill_bytes)
{
	uint64_t by_size = fill_bytes / FILL_WORKER_BYTES;
	unsigned int cpus = 1;
	cpu_set_t set;

	if (!sched_getaffinity(0, sizeof(set), &set))
		cpus = (unsigned int)CPU_COUNT(&set);
	if (cpus > MAX_WORKERS)
		cpus = MAX_WORKERS;
	if (by_size < cpus)
		cpus = (unsigned int)by_size;
	return cpus ? cpus : 1;
}

/* True when the calling thread is the only one: unshare(CLONE_THREAD) then is allowed, and does
 * nothing. */
static bool single_threaded(void)
{
	return unshare(CLONE_THREAD) == 0;
}

static int wait_single_threaded(struct ckf_error *err)
{
	struct timespec pause = { .tv_nsec = 200000 };
	uint64_t end = ckf_now_ns() + GONE_TIMEOUT_MS * 1000000ull;

	while (!single_threaded()) {
		if (ckf_now_ns() > end)
			return ckf_error_set(err, -EBUSY, "worker threads did not go away");
		nanosleep(&pause, NULL);
	}
	return 0;
}

static size_t slot_bytes(const struct ckf_image *img, size_t request_bytes)
{
	/* A chunk that is not raw may begin and end within a page. */
	size_t chunk_bytes = ckf_pages_to_bytes(img->idx->max_chunk_pages + 1ull);

	return chunk_bytes > request_bytes ? chunk_bytes : request_bytes;
}

size_t fill_slot_bytes(const struct ckf_image *img)
{
	return slot_bytes(img, FILL_REQUEST_BYTES);
}

static int job_init(struct fill_job *job, const struct ckf_image *img, const struct ckf_dest *dests,
		    size_t nr_dests, struct ckf_error *err)
{
	job->small = ckf_pages_to_bytes(job->target->nr_pages) <= FILL_SMALL_BYTES;
	job->slot_bytes = slot_bytes(img, job->small ? FILL_SMALL_BYTES : FILL_REQUEST_BYTES);
	job->dir_fd = job->opts->dir_fd >= 0 ? job->opts->dir_fd : img->dir_fd;
	for (size_t i = 0; i < nr_dests; i++)
		if (dests[i].start >= dests[i].end || (i && dests[i].start < dests[i - 1].end))
			return ckf_error_set(err, -EINVAL, "dest %zu is out of order", i);
	job->dests = calloc(nr_dests ? nr_dests : 1, sizeof(*job->dests));
	if (!job->dests)
		return ckf_error_set(err, -ENOMEM, "no memory for the plan");
	for (size_t i = 0; i < nr_dests; i++)
		job->dests[i].d = dests[i];
	job->nr_dests = nr_dests;
	if (job->small)
		return 0;
	return ckf_packs_choose(img, job->dir_fd, job->opts->flags, &job->packs_io, err);
}

static void *worker_main(void *arg)
{
	struct fill_job *job = arg;
	const struct ckf_fill_opts *o = job->opts;
	bool ok = true;

	if (o->worker_ok)
		ok = o->worker_ok(o->arg, (int)syscall(SYS_gettid)) == 0;
	/* Without a file table of our own, what we open would be seen by others. */
	if (ok && unshare(CLONE_FILES))
		ok = false;
	pthread_mutex_lock(&job->lock);
	job->starting--;
	if (ok)
		job->active++;
	pthread_cond_broadcast(&job->cond);
	pthread_mutex_unlock(&job->lock);
	if (ok)
		fill_worker_run(job, true);
	pthread_mutex_lock(&job->lock);
	job->running--;
	pthread_cond_broadcast(&job->cond);
	pthread_mutex_unlock(&job->lock);
	return NULL;
}

static unsigned int start_workers(struct fill_job *job, pthread_t *threads, unsigned int n)
{
	const struct ckf_fill_opts *o = job->opts;
	sigset_t all, old;
	pthread_attr_t attr;
	unsigned int i;

	if (pthread_attr_init(&attr))
		return 0;
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	/* Signals are the caller's: none is to be handled in a worker. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (o->before_workers)
		o->before_workers(o->arg);
	pthread_mutex_lock(&job->lock);
	for (i = 0; i < n; i++) {
		if (pthread_create(&threads[i], &attr, worker_main, job))
			break;
		job->starting++;
		job->running++;
	}
	/* The ids of the threads were taken one after the other: the lock is held until all have
	 * theirs. */
	while (job->starting)
		pthread_cond_wait(&job->cond, &job->lock);
	pthread_mutex_unlock(&job->lock);
	if (o->after_workers)
		o->after_workers(o->arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return i;
}

/* Until the workers have ended: sees to it that reads go on completing. */
static void watch_workers(struct fill_job *job)
{
	const unsigned int timeout_ms = job->opts->timeout_ms;
	unsigned int seen = atomic_load(&job->progress), now;
	struct timespec end;
	int ret;

	pthread_mutex_lock(&job->lock);
	while (job->running) {
		clock_gettime(CLOCK_REALTIME, &end);
		end.tv_sec += timeout_ms / 1000;
		end.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
		end.tv_sec += end.tv_nsec / 1000000000;
		end.tv_nsec %= 1000000000;
		ret = pthread_cond_timedwait(&job->cond, &job->lock, &end);
		now = atomic_load(&job->progress);
		if (ret == ETIMEDOUT && now == seen && job->running)
			job->opts->stalled(job->opts->arg);
		seen = now;
	}
	pthread_mutex_unlock(&job->lock);
}

/* With threads where they can be had, and always with what is left to do in the calling thread. */
static int run_workers(struct fill_job *job, unsigned int n, struct ckf_error *err)
{
	const bool watch = job->opts->timeout_ms && job->opts->stalled;
	bool alone = single_threaded();
	pthread_t threads[MAX_WORKERS];
	unsigned int started = 0;

	if (n > MAX_WORKERS)
		n = MAX_WORKERS;
	/* A read that may hang must not be in the thread that watches. */
	if (n > 1 || (watch && job->packs_io.uring))
		started = start_workers(job, threads, n);
	if (watch && started)
		watch_workers(job);
	for (unsigned int i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	if (!job->active)
		fill_worker_run(job, false);
	if (started && alone)
		return wait_single_threaded(err);
	return 0;
}

void fill_stats_add(struct ckf_fill_stats *sum, const struct ckf_fill_stats *s)
{
	sum->read_bytes += s->read_bytes;
	sum->filled_bytes += s->filled_bytes;
	sum->zero_bytes += s->zero_bytes;
	sum->shared_bytes += s->shared_bytes;
	sum->huge_pages += s->huge_pages;
	sum->ns += s->ns;
	sum->workers += s->workers;
	sum->uring |= s->uring;
	sum->direct |= s->direct;
}

int ckf_fill(const struct ckf_image *img, const struct ckf_target *t, const struct ckf_dest *dests,
	     size_t nr_dests, const struct ckf_fill_opts *opts, struct ckf_fill_stats *stats,
	     struct ckf_error *err)
{
	struct fill_job job = { .img = img, .target = t, .opts = opts };
	uint64_t start_ns = ckf_now_ns();
	unsigned int n = opts->threads;
	int ret;

	if (opts->size != sizeof(*opts))
		return ckf_error_set(err, -EINVAL, "struct ckf_fill_opts of another version");
	if (!t->nr_ops)
		return 0;
	job.huge.uffd = -1;
	pthread_mutex_init(&job.lock, NULL);
	pthread_cond_init(&job.cond, NULL);
	ret = job_init(&job, img, dests, nr_dests, err);
	if (ret)
		goto out;
	if (!n)
		n = ckf_fill_default_threads(ckf_pages_to_bytes(t->nr_pages));
	if (n > t->nr_lanes)
		n = t->nr_lanes;
	if (opts->flags & CKF_FILL_FRUGAL || job.small)
		n = 1;
	fill_huge_init(&job, n);
	ret = run_workers(&job, n, err);
	if (job.ret)
		ret = ckf_error_set(err, job.ret, "%s", job.err.msg);
out:
	fill_huge_fini(&job.huge);
	free(job.dests);
	pthread_cond_destroy(&job.cond);
	pthread_mutex_destroy(&job.lock);
	if (stats) {
		job.stats.ns = ckf_now_ns() - start_ns;
		fill_stats_add(stats, &job.stats);
	}
	return ret;
}
