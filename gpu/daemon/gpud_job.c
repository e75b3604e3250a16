/* SPDX-License-Identifier: MIT */
/* What gpud counts and logs of its jobs. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/ckf_threads.h"
#include "gpud.h"

#define FD_LINK_BYTES 32

const char *const gpud_job_names[GPUD_JOB_KINDS] = { "idle", "fill", "save", "keep", "fill-amd" };

int gpud_job_start(struct gpud_conn *c, enum gpud_job_kind kind, int dir_fd, struct ckf_error *err)
{
	c->job = kind;
	c->dir_fd = dir_fd;
	memset(c->gpu_bytes, 0, sizeof(c->gpu_bytes));
	atomic_store(&c->total_bytes, 0);
	atomic_store(&c->done_bytes, 0);
	atomic_store(&c->start_ns, ckf_now_ns());
	atomic_store(&c->said_ns, ckf_now_ns());
	atomic_store(&c->said_bytes, 0);
	return gpud_client_begin(c, kind, err);
}

void gpud_job_add_gpu(struct gpud_conn *c, unsigned int ordinal, uint64_t bytes)
{
	if (ordinal < GPUD_COUNTED_GPUS)
		c->gpu_bytes[ordinal] += bytes;
}

bool gpud_dir_path(int dir_fd, char *path, size_t bytes)
{
	char link[FD_LINK_BYTES];
	ssize_t len;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", dir_fd);
	len = readlink(link, path, bytes - 1);
	if (len <= 0)
		return false;
	path[len] = '\0';
	return true;
}

static void log_job(const struct gpud_conn *c, struct ckf_gpud_event *e)
{
	char text[CKF_ERROR_MSG_BYTES + 64], image[PATH_MAX];
	unsigned int gpus[GPUD_COUNTED_GPUS];

	if (e->failed)
		snprintf(text, sizeof(text), "%s for process %u: %s", gpud_job_names[c->job],
			 (unsigned int)c->peer.pid, e->text);
	else
		snprintf(text, sizeof(text), "%s for process %u: %.1f MB in %.3f s",
			 gpud_job_names[c->job], (unsigned int)c->peer.pid, (double)e->bytes / 1e6,
			 (double)e->ns / 1e9);
	e->text = text;
	e->pid = (uint32_t)c->peer.pid;
	if (gpud_dir_path(c->dir_fd, image, sizeof(image)))
		e->image = image;
	e->gpus = gpus;
	for (unsigned int i = 0; i < GPUD_COUNTED_GPUS; i++)
		if (c->gpu_bytes[i])
			gpus[e->nr_gpus++] = i;
	c->g->opts.log(c->g->opts.arg, e);
}

enum gpud_failure gpud_failure_of(int ret)
{
	switch (ret) {
	case -EBADMSG:
		return GPUD_FAILED_CORRUPT;
	case -EOPNOTSUPP:
		return GPUD_FAILED_UNSUPPORTED;
	case -ENOMEM:
		return GPUD_FAILED_MEMORY;
	case -ENODEV:
		return GPUD_FAILED_NO_DEVICE;
	case -EIO:
		return GPUD_FAILED_DEVICE;
	case -ECANCELED:
		return GPUD_FAILED_CANCELLED;
	case -ENOENT:
		return GPUD_FAILED_NOT_FOUND;
	case -ENOSPC:
		return GPUD_FAILED_NO_SPACE;
	case -EPROTO:
		return GPUD_FAILED_PROTOCOL;
	case -EPERM:
	case -EACCES:
		return GPUD_FAILED_PERMISSION;
	case -EDQUOT:
		return GPUD_FAILED_LIMIT;
	default:
		return GPUD_FAILED_OTHER;
	}
}

/* Without what only a success counts. With the lock held. */
static void count_end(struct gpud_sum *sum, int ret)
{
	sum->nr++;
	if (!ret)
		return;
	sum->failed++;
	sum->failures[gpud_failure_of(ret)]++;
}

int gpud_call_start(struct gpud_conn *c, struct ckf_error *err)
{
	return gpud_client_begin(c, GPUD_CALLING, err);
}

void gpud_call_end(struct gpud_conn *c, int ret)
{
	gpud_client_end(c);
	pthread_mutex_lock(&c->g->lock);
	/* That a process does not use CUDA, or has ended, is an answer. */
	count_end(&c->g->sums[GPUD_CALLING], ret == -ESRCH ? 0 : ret);
	pthread_mutex_unlock(&c->g->lock);
}

void gpud_refused(struct ckf_gpud *g, enum gpud_refusal why)
{
	pthread_mutex_lock(&g->lock);
	g->refused[why]++;
	pthread_mutex_unlock(&g->lock);
}

void gpud_count(struct ckf_gpud *g, struct gpud_sum sums[GPUD_REQUEST_KINDS], struct gpud_counts *n)
{
	memset(n, 0, sizeof(*n));
	pthread_mutex_lock(&g->lock);
	memcpy(sums, g->sums, sizeof(g->sums));
	memcpy(n->refused, g->refused, sizeof(g->refused));
	n->connections = g->nr_conns;
	for (const struct gpud_conn *c = g->conns; c; c = c->next)
		n->in_flight[atomic_load(&c->kind)]++;
	pthread_mutex_unlock(&g->lock);
}

void gpud_job_end(struct gpud_conn *c, int ret, uint64_t bytes, const struct ckf_error *err)
{
	struct gpud_sum *sum = &c->g->sums[c->job];
	struct ckf_gpud_event e = { .failed = ret != 0,
				    .text = err->code ? err->msg : strerror(-ret),
				    .bytes = ret ? 0 : bytes,
				    .ns = ckf_now_ns() - atomic_load(&c->start_ns) };

	gpud_client_end(c);
	pthread_mutex_lock(&c->g->lock);
	count_end(sum, ret);
	if (!ret) {
		sum->bytes += bytes;
		sum->ns += e.ns;
		for (unsigned int i = 0; i < GPUD_COUNTED_GPUS; i++)
			sum->gpu_bytes[i] += c->gpu_bytes[i];
		sum->last_bytes = bytes;
		sum->last_ns = e.ns;
	}
	pthread_mutex_unlock(&c->g->lock);
	if (c->g->opts.log)
		log_job(c, &e);
}
