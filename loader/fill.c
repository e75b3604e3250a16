/* SPDX-License-Identifier: MIT */
/*
 * ckf_fill(): sets up a job, runs its workers, and leaves nothing of them behind.
 *
 * The workers are threads of a process that is about to become another one. Each takes a file table
 * of its own before it opens anything, so that no descriptor of the loader shows up in tables that
 * are being restored; and the call returns only when the kernel, too, has forgotten the threads.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <linux/close_range.h>

#include "base/ckf_threads.h"
#include "worker.h"

#define STACK_BYTES (256u << 10)
#define GONE_TIMEOUT_MS 10000
#define GROW_MS 10 /* a worker that others had no use for any more is soon put to work */

unsigned int ckf_fill_default_threads(uint64_t fill_bytes)
{
	uint64_t by_size = fill_bytes / FILL_WORKER_BYTES;
	unsigned int cpus = ckf_cpus();

	if (cpus > FILL_MAX_WORKERS)
		cpus = FILL_MAX_WORKERS;
	if (by_size < cpus)
		cpus = (unsigned int)by_size;
	return cpus ? cpus : 1;
}

/*
 * A joined thread is there a moment longer, and so are its id and its place among those that a
 * cgroup may have.
 */
static int wait_gone(const struct fill_job *job, struct ckf_error *err)
{
	struct timespec pause = { .tv_nsec = 200000 };
	uint64_t end = ckf_now_ns() + GONE_TIMEOUT_MS * 1000000ull;

	for (unsigned int i = 0; i < job->nr_tids; i++)
		while (!tgkill(getpid(), job->tids[i], 0)) {
			if (ckf_now_ns() > end)
				return ckf_error_set(err, -EBUSY, "thread %d does not go away",
						     job->tids[i]);
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

static int job_init(struct fill_job *job, struct ckf_error *err)
{
	const struct ckf_dest *d = job->given;

	job->small = ckf_pages_to_bytes(job->target->nr_pages) <= FILL_SMALL_BYTES;
	job->slot_bytes = slot_bytes(job->img, fill_request_bytes(job));
	job->dir_fd = job->opts->dir_fd >= 0 ? job->opts->dir_fd : job->img->dir_fd;
	if (job->opts->file > 0 && job->nr_given != 1)
		return ckf_error_set(err, -EINVAL, "a file has one dest, not %zu", job->nr_given);
	for (size_t i = 0; i < job->nr_given; i++)
		if (d[i].start >= d[i].end || (i && d[i].start < d[i - 1].end))
			return ckf_error_set(err, -EINVAL, "dest %zu is out of order", i);
	fill_planner_init(job);
	if (job->small)
		return 0;
	return ckf_packs_choose(job->img, job->dir_fd, job->opts->flags, &job->packs_io, err);
}

/* Without a file table of our own, what we open would be seen by others. The second call is for
 * where a filter of system calls forbids the first. */
static bool own_files(void)
{
	return !unshare(CLONE_FILES) || !syscall(SYS_close_range, ~0u, ~0u, CLOSE_RANGE_UNSHARE);
}

static void *worker_main(void *arg)
{
	struct fill_job *job = arg;
	const struct ckf_fill_opts *o = job->opts;
	const int tid = gettid();
	bool ok;

	ok = (!o->worker_ok || !o->worker_ok(o->arg, tid)) && own_files();
	pthread_mutex_lock(&job->lock);
	job->tids[job->nr_tids++] = tid;
	job->starting--;
	if (ok)
		job->active++;
	pthread_cond_broadcast(&job->cond);
	/* The caller is waiting with a lock, and a fill that has begun delays the next thread. */
	while (job->starting)
		pthread_cond_wait(&job->cond, &job->lock);
	pthread_mutex_unlock(&job->lock);
	if (ok)
		fill_worker_run(job, true);
	pthread_mutex_lock(&job->lock);
	job->running--;
	pthread_cond_broadcast(&job->cond);
	pthread_mutex_unlock(&job->lock);
	return NULL;
}

/* Creates up to n workers, fewer where the caller allows fewer. Returns how many it created. */
static unsigned int create_workers(struct fill_job *job, unsigned int n)
{
	const struct ckf_fill_opts *o = job->opts;
	pthread_attr_t attr;
	unsigned int i;

	if (pthread_attr_init(&attr))
		return 0;
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	if (o->before_workers)
		n = o->before_workers(o->arg, n);
	pthread_mutex_lock(&job->lock);
	for (i = 0; i < n; i++) {
		if (ckf_thread_start(&job->threads[job->nr_threads], &attr, worker_main, job)) {
			job->missing = 0; /* a limit: there is no use in asking again */
			break;
		}
		job->nr_threads++;
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
	pthread_attr_destroy(&attr);
	return i;
}

static void start_workers(struct fill_job *job, unsigned int n)
{
	unsigned int started;

	job->missing = n;
	started = create_workers(job, n);
	if (job->missing)
		job->missing -= started;
	job->grow_ns = ckf_now_ns() + GROW_MS * 1000000ull;
}

static unsigned int lanes_left(const struct fill_job *job)
{
	const unsigned int next = atomic_load(&job->next_lane);

	return next < job->target->nr_lanes ? job->target->nr_lanes - next : 0;
}

static void grow(struct fill_job *job)
{
	unsigned int n = lanes_left(job);

	if (n > job->missing)
		n = job->missing;
	if (n && !atomic_load(&job->failed) && ckf_now_ns() >= job->grow_ns)
		start_workers(job, n);
}

/* Until the workers have ended: sees to it that there are enough, and that reads go on completing.
 */
static void watch_workers(struct fill_job *job)
{
	const uint64_t timeout_ns = job->opts->timeout_ms * 1000000ull;
	unsigned int seen = atomic_load(&job->progress), now;
	uint64_t since_ns = ckf_now_ns();

	pthread_mutex_lock(&job->lock);
	while (job->running) {
		(void)ckf_cond_wait_ms(&job->cond, &job->lock,
				       job->missing ? GROW_MS : job->opts->timeout_ms);
		now = atomic_load(&job->progress);
		if (now != seen) {
			seen = now;
			since_ns = ckf_now_ns();
		} else if (job->running && ckf_now_ns() - since_ns >= timeout_ns) {
			job->opts->stalled(job->opts->arg);
			since_ns = ckf_now_ns();
		}
		pthread_mutex_unlock(&job->lock);
		grow(job);
		pthread_mutex_lock(&job->lock);
	}
	pthread_mutex_unlock(&job->lock);
}

/* With threads where they can be had, and always with what is left to do in the calling thread. */
static int run_workers(struct fill_job *job, unsigned int n, struct ckf_error *err)
{
	const bool watch = job->opts->timeout_ms && job->opts->stalled;

	if (n > FILL_MAX_WORKERS)
		n = FILL_MAX_WORKERS;
	/* A read that may hang must not be in the thread that watches. */
	if (n > 1 || (watch && job->packs_io.uring))
		start_workers(job, n);
	/* The calling thread is the one worker. A second would write to job->file as well. */
	if (n == 1 && !job->nr_threads)
		job->missing = 0;
	if (watch && job->nr_threads)
		watch_workers(job);
	else if (!job->nr_threads)
		fill_worker_run(job, false);
	for (unsigned int i = 0; i < job->nr_threads; i++)
		pthread_join(job->threads[i], NULL);
	/* All of them may have been sent away. */
	if (job->nr_threads && !job->active)
		fill_worker_run(job, false);
	return wait_gone(job, err);
}

/* A file that ends within its last page is not to become longer. */
static bool covers_dest(const struct fill_job *job, int file)
{
	struct stat st;

	return file > 0 && !fstat(file, &st) && (uint64_t)st.st_size >= job->given->end;
}

int ckf_fill(const struct ckf_image *img, const struct ckf_target *t, const struct ckf_dest *dests,
	     size_t nr_dests, const struct ckf_fill_opts *opts, struct ckf_fill_stats *stats,
	     struct ckf_error *err)
{
	struct ckf_fill_opts o;
	struct fill_job job = {
		.img = img,
		.target = t,
		.opts = &o,
		.grow = grow,
		.given = dests,
		.nr_given = nr_dests,
	};
	uint64_t start_ns = ckf_now_ns();
	unsigned int n;
	int ret;

	ret = fill_take_opts(&o, opts, stats, err);
	if (ret)
		return ret;
	if (!t->nr_ops)
		return 0;
	job.huge.uffd = -1;
	pthread_mutex_init(&job.lock, NULL);
	ckf_cond_init(&job.cond);
	ret = job_init(&job, err);
	if (ret)
		goto out;
	n = o.threads ? o.threads : ckf_fill_default_threads(ckf_pages_to_bytes(t->nr_pages));
	if (n > t->nr_lanes)
		n = t->nr_lanes;
	if (o.flags & CKF_FILL_FRUGAL || job.small)
		n = 1;
	if (fill_huge_init(&job, n)) {
		ret = ckf_error_set(err, -ENOMEM, "no memory for the plan");
		goto out;
	}
	if (n == 1 && !job.huge.nr_segs && covers_dest(&job, o.file))
		job.file = o.file;
	ret = run_workers(&job, n, err);
	if (job.ret)
		ret = ckf_error_set(err, job.ret, "%s", job.err.msg);
out:
	fill_huge_fini(&job.huge);
	free(job.planner.dests);
	free(job.dests);
	pthread_cond_destroy(&job.cond);
	pthread_mutex_destroy(&job.lock);
	job.stats.ns = ckf_now_ns() - start_ns;
	fill_stats_give(stats, &job.stats);
	return ret;
}
