/* SPDX-License-Identifier: MIT */
/* STATUS: what a gpud has and does, as JSON, in as many messages as it takes. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ckf_threads.h"
#include "gpud.h"

#define JSON_VERSION 1

struct text {
	char *s; /* zero-terminated, or NULL */
	size_t len;
	size_t room;
	bool failed; /* no memory: s is not whole */
};

static void add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(struct text *t, const char *fmt, ...)
{
	size_t room;
	va_list ap;
	char *s;
	int n;

	for (;;) {
		va_start(ap, fmt);
		n = vsnprintf(t->s ? t->s + t->len : NULL, t->room - t->len, fmt, ap);
		va_end(ap);
		if (n < 0 || t->failed)
			break;
		if ((size_t)n < t->room - t->len) {
			t->len += (size_t)n;
			return;
		}
		room = (t->room + (size_t)n + 1) * 2;
		s = realloc(t->s, room);
		if (!s)
			break;
		t->s = s;
		t->room = room;
	}
	t->failed = true;
}

const char *gpud_plain(const char *s, char *buf, size_t bytes)
{
	size_t i;

	for (i = 0; s[i] && i < bytes - 1; i++)
		buf[i] = s[i] < ' ' || s[i] > '~' || s[i] == '"' || s[i] == '\\' ? '?' : s[i];
	buf[i] = '\0';
	return buf;
}

static int add_device(struct text *t, struct ckf_cuda_pool *pool, unsigned int i,
		      struct ckf_error *err)
{
	const struct ckf_cuda_dev *d = &pool->devs[i];
	char name[CKF_CUDA_NAME_BYTES];
	uint64_t free_bytes;
	int ret;

	add(t, "%s{\"ordinal\":%u,\"name\":\"%s\",\"uuid\":\"", i ? "," : "", i,
	    gpud_plain(d->name, name, sizeof(name)));
	for (unsigned int k = 0; k < sizeof(d->uuid); k++)
		add(t, "%02x", d->uuid[k]);
	add(t, "\",\"total_bytes\":%" PRIu64, d->total_bytes);
	/* Only a context can tell, and asking must not make one. */
	if (!ckf_cuda_pool_is_warm(pool, i)) {
		add(t, ",\"warm\":false}");
		return 0;
	}
	ret = ckf_cuda_pool_free_bytes(pool, i, &free_bytes, err);
	add(t, ",\"warm\":true,\"free_bytes\":%" PRIu64 "}", free_bytes);
	return ret;
}

static void add_cuda_slots(struct text *t, struct ckf_cuda_pool *pool)
{
	add(t, "\"slots\":{\"total\":%u,\"in_use\":%u,\"slot_bytes\":%u},", pool->nr_slots,
	    ckf_cuda_slots_in_use(pool), pool->slot_bytes);
}

static void add_amd(struct text *t, struct ckf_gpud *g)
{
	struct ckf_amd_slots slots;
	struct ckf_amd *amd;

	if (gpud_amd_get(g->amd, &amd, NULL))
		return;
	add(t, "\"amd\":{\"devices\":[");
	for (unsigned int i = 0; i < ckf_amd_nr_gpus(amd); i++)
		add(t, "%s{\"ordinal\":%u,\"queues\":%u}", i ? "," : "", i,
		    ckf_amd_nr_queues(amd, i));
	slots = ckf_amd_slots(amd);
	add(t, "],\"slots\":{\"total\":%u,\"in_use\":%u,\"slot_bytes\":%u}},", slots.total,
	    slots.in_use, slots.slot_bytes);
	gpud_amd_put(g->amd);
}

static double rate(uint64_t bytes, uint64_t ns)
{
	return ns ? (double)bytes / (double)ns : 0;
}

/* With the lock of g held. */
static void add_jobs(struct text *t, const struct ckf_gpud *g)
{
	uint64_t now = ckf_now_ns();
	bool first = true;

	add(t, "\"jobs\":{");
	for (int k = GPUD_FILLING; k < GPUD_JOB_KINDS; k++) {
		const struct gpud_sum *s = &g->sums[k];

		add(t,
		    "%s\"%s\":{\"count\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"bytes\":%" PRIu64
		    ",\"last_bytes\":%" PRIu64 ",\"last_ns\":%" PRIu64 ",\"last_gb_s\":%.2f}",
		    k == GPUD_FILLING ? "" : ",", gpud_job_names[k], s->nr, s->failed, s->bytes,
		    s->last_bytes, s->last_ns, rate(s->last_bytes, s->last_ns));
	}
	add(t, "},\"transfers\":[");
	for (const struct gpud_conn *c = g->conns; c; c = c->next) {
		int kind = atomic_load(&c->kind);
		uint64_t done = atomic_load(&c->done_bytes);
		uint64_t ns = now - atomic_load(&c->start_ns);

		if (kind == GPUD_IDLE || kind == GPUD_CALLING)
			continue;
		add(t,
		    "%s{\"kind\":\"%s\",\"peer\":%u,\"done_bytes\":%" PRIu64
		    ",\"total_bytes\":%" PRIu64 ",\"ns\":%" PRIu64 ",\"gb_s\":%.2f}",
		    first ? "" : ",", gpud_job_names[kind], (unsigned int)c->peer.pid, done,
		    (uint64_t)atomic_load(&c->total_bytes), ns, rate(done, ns));
		first = false;
	}
	add(t, "]");
}

struct kept_list {
	struct text *t;
	bool first;
};

static void add_kept_image(void *arg, const struct gpud_kept_info *info)
{
	char path[PATH_MAX];
	struct kept_list *l = arg;

	add(l->t,
	    "%s{\"image\":\"%s\",\"bytes\":%" PRIu64 ",\"hits\":%" PRIu64
	    ",\"fills\":%u,\"age_ns\":%" PRIu64 ",\"idle_ns\":%" PRIu64 "}",
	    l->first ? "" : ",", gpud_plain(info->path ? info->path : "", path, sizeof(path)),
	    info->bytes, info->hits, info->fills, info->age_ns, info->idle_ns);
	l->first = false;
}

/* Where images of others lie is nobody else's business. */
static void add_kept(struct text *t, const struct gpud_conn *c)
{
	struct kept_list l = { .t = t, .first = true };
	struct gpud_kept_counts counts;

	gpud_kept_count(c->g->kept, &counts);
	add(t,
	    "\"kept\":{\"limit_bytes\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"hits\":%" PRIu64
	    ",\"misses\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"count\":%u,\"images\":[",
	    c->g->opts.keep_bytes, counts.bytes, counts.hits, counts.misses, counts.failures,
	    counts.images);
	if (gpud_client_trusted(&c->peer))
		gpud_kept_each(c->g->kept, add_kept_image, &l);
	add(t, "]},");
}

static int send_text(struct gpud_conn *c, const struct text *t, struct ckf_error *err)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_TEXT };
	size_t n;
	int ret = 0;

	for (size_t off = 0; off < t->len && !ret; off += n) {
		n = t->len - off;
		if (n > sizeof(m.text) - 1)
			n = sizeof(m.text) - 1;
		memcpy(m.text, t->s + off, n);
		m.text[n] = '\0';
		ret = gpud_send(c, &m, -1, err);
	}
	return ret;
}

int gpud_status(struct gpud_conn *c, struct ckf_error *err)
{
	struct ckf_gpud_msg done = { .op = CKF_GPUD_DONE };
	struct ckf_cuda_pool *pool;
	struct text t = { 0 };
	int ret;

	ret = gpud_pool_or_none(c->g, &pool, err);
	if (ret)
		return ret;
	add(&t, "{\"version\":%d,\"pid\":%d,\"devices\":[", JSON_VERSION, (int)getpid());
	for (unsigned int i = 0; pool && i < pool->nr_devs && !ret; i++)
		ret = add_device(&t, pool, i, err);
	add(&t, "],");
	if (pool)
		add_cuda_slots(&t, pool);
	add_amd(&t, c->g);
	add_kept(&t, c);
	pthread_mutex_lock(&c->g->lock);
	add_jobs(&t, c->g);
	pthread_mutex_unlock(&c->g->lock);
	add(&t, "}");
	if (!ret && t.failed)
		ret = ckf_error_set(err, -ENOMEM, "no memory");
	if (!ret)
		ret = send_text(c, &t, err);
	free(t.s);
	return ret ? ret : gpud_send(c, &done, -1, err);
}
