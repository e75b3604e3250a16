/* SPDX-License-Identifier: MIT */
/*
 * AMD GPUs: opened once, with queues on their engines and pinned slots, and used by all jobs.
 *
 * A queue that has failed stays so until all GPUs are closed. A thread does that when the last job
 * has ended, and opens them again; until then new jobs are refused. It is a thread of gpud's own,
 * since that of a connection may have the ids of a user who cannot open the device.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ckf_threads.h"
#include "gpud.h"

#define KFD_NODE "/dev/kfd"

struct gpud_amd {
	struct ckf_gpud *g;
	pthread_t keeper;

	pthread_mutex_t lock; /* for all below */
	pthread_cond_t cond;
	bool stop;
	bool failed;	     /* a queue has; no job may start */
	unsigned int users;  /* jobs that use amd */
	struct ckf_amd *amd; /* NULL: being opened again, or that has failed */
};

/* -EOPNOTSUPP also where only the CPU could copy: a client does that as well by itself. */
static int open_engines(struct ckf_gpud *g, struct ckf_amd **out, struct ckf_error *err)
{
	const struct ckf_amd_opts o = { .size = sizeof(o),
					.nr_slots = g->opts.nr_slots,
					.slot_bytes = CKF_GPUD_SLOT_BYTES };
	struct ckf_error amd_err = { 0 };
	struct ckf_amd *amd;
	int ret;

	*out = NULL;
	if (access(KFD_NODE, F_OK))
		return ckf_error_set(err, -ENODEV, "there is no " KFD_NODE);
	ret = ckf_amd_open(&o, &amd, &amd_err);
	if (!ret && ckf_amd_nr_gpus(amd)) {
		*out = amd;
		return 0;
	}
	ckf_amd_close(amd);
	return ckf_error_set(err, ret ? ret : -EOPNOTSUPP, "%s", amd_err.msg);
}

static void say(struct ckf_gpud *g, const struct ckf_error *why)
{
	char text[CKF_ERROR_MSG_BYTES + 64];
	const struct ckf_gpud_event e = { .failed = true, .text = text };

	snprintf(text, sizeof(text), "AMD GPUs are not served: %s", why->msg);
	if (g->opts.log)
		g->opts.log(g->opts.arg, &e);
}

/* With the lock held, which is given up meanwhile. */
static void open_again(struct gpud_amd *a)
{
	struct ckf_amd *amd = a->amd;
	struct ckf_error err = { 0 };

	a->amd = NULL;
	pthread_mutex_unlock(&a->lock);
	ckf_amd_close(amd);
	if (open_engines(a->g, &amd, &err))
		say(a->g, &err);
	pthread_mutex_lock(&a->lock);
	a->amd = amd;
	a->failed = false;
}

static void *keep(void *arg)
{
	struct gpud_amd *a = arg;

	pthread_mutex_lock(&a->lock);
	while (!a->stop) {
		if (a->failed && !a->users)
			open_again(a);
		else
			pthread_cond_wait(&a->cond, &a->lock);
	}
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

int gpud_amd_new(struct ckf_gpud *g, struct ckf_error *err)
{
	struct ckf_error open_err = { 0 };
	struct gpud_amd *a;
	struct ckf_amd *amd;
	int ret;

	ret = open_engines(g, &amd, &open_err);
	if (ret) {
		if (ret != -ENODEV || !access(KFD_NODE, F_OK))
			say(g, &open_err);
		return ckf_error_set(err, ret, "%s", open_err.msg);
	}
	a = calloc(1, sizeof(*a));
	ret = a ? 0 : -ENOMEM;
	if (a) {
		a->g = g;
		a->amd = amd;
		pthread_mutex_init(&a->lock, NULL);
		ckf_cond_init(&a->cond);
		ret = ckf_thread_start(&a->keeper, NULL, keep, a);
	}
	if (ret) {
		free(a);
		ckf_amd_close(amd);
		return ckf_error_set(err, ret, "cannot start a thread: %s", strerror(-ret));
	}
	g->amd = a;
	return 0;
}

void gpud_amd_free(struct gpud_amd *a)
{
	if (!a)
		return;
	pthread_mutex_lock(&a->lock);
	a->stop = true;
	pthread_cond_broadcast(&a->cond);
	pthread_mutex_unlock(&a->lock);
	pthread_join(a->keeper, NULL);
	ckf_amd_close(a->amd);
	pthread_cond_destroy(&a->cond);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

int gpud_amd_get(struct gpud_amd *a, struct ckf_amd **out, struct ckf_error *err)
{
	int ret = 0;

	if (!a)
		return ckf_error_set(err, -ENODEV, "gpud serves no AMD GPUs");
	pthread_mutex_lock(&a->lock);
	if (a->failed || !a->amd)
		ret = ckf_error_set(err, -ENODEV,
				    "gpud opens the AMD GPUs again, since an engine has failed");
	else
		a->users++;
	*out = a->amd;
	pthread_mutex_unlock(&a->lock);
	return ret;
}

void gpud_amd_put(struct gpud_amd *a)
{
	pthread_mutex_lock(&a->lock);
	a->users--;
	a->failed = a->failed || ckf_amd_failed(a->amd);
	pthread_cond_broadcast(&a->cond);
	pthread_mutex_unlock(&a->lock);
}

int gpud_amd_gpus(struct gpud_conn *c, struct ckf_error *err)
{
	struct ckf_gpud_msg done = { .op = CKF_GPUD_DONE };
	struct ckf_amd *amd;

	if (!gpud_amd_get(c->g->amd, &amd, NULL)) {
		done.arg = ckf_amd_nr_gpus(amd);
		gpud_amd_put(c->g->amd);
	}
	return gpud_send(c, &done, -1, err);
}
