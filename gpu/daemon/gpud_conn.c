/* SPDX-License-Identifier: MIT */
/*
 * What the answers to requests need of their connection and of the driver.
 *
 * A job asks between slots whether its peer is still there (gpud_cancelled()), so nothing has to
 * watch over it. The peer hears now and then that the job gets on, and waits for no job that stands
 * still.
 */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/ckf_threads.h"
#include "gpud.h"

int gpud_pool(struct ckf_gpud *g, struct ckf_cuda_pool **pool, struct ckf_error *err)
{
	int ret;

	pthread_mutex_lock(&g->lock);
	while (!g->opened)
		pthread_cond_wait(&g->cond, &g->lock);
	*pool = g->pool;
	ret = g->open_ret;
	if (ret)
		ckf_error_set(err, ret, "%s", g->open_err.msg);
	pthread_mutex_unlock(&g->lock);
	return ret;
}

int gpud_pool_or_none(struct ckf_gpud *g, struct ckf_cuda_pool **pool, struct ckf_error *err)
{
	struct ckf_error pool_err = { 0 };
	int ret = gpud_pool(g, pool, &pool_err);

	if (!ret || (ret == -ENODEV && g->amd))
		return 0;
	return ckf_error_set(err, ret, "%s", pool_err.msg);
}

int gpud_send(struct gpud_conn *c, const struct ckf_gpud_msg *m, int fd, struct ckf_error *err)
{
	int ret;

	pthread_mutex_lock(&c->send_lock);
	ret = gpud_send_until(c->sock, m, fd, ckf_now_ns() + GPUD_SEND_S * GPUD_NS_PER_S, err);
	pthread_mutex_unlock(&c->send_lock);
	/* What is lost cannot be told from what was never sent. */
	if (ret == -ETIMEDOUT)
		shutdown(c->sock, SHUT_RDWR);
	return ret;
}

void gpud_moves(struct gpud_conn *c)
{
	const struct ckf_gpud_msg m = { .op = CKF_GPUD_MOVES };
	const uint64_t now_ns = ckf_now_ns();
	uint64_t said_ns = atomic_load(&c->said_ns);

	if (now_ns < said_ns + CKF_GPUD_MOVES_S * GPUD_NS_PER_S ||
	    !atomic_compare_exchange_strong(&c->said_ns, &said_ns, now_ns))
		return;
	atomic_store(&c->said_bytes, atomic_load(&c->done_bytes));
	gpud_send(c, &m, -1, NULL);
}

int gpud_cancelled(void *arg)
{
	struct gpud_conn *c = arg;
	struct pollfd p = { .fd = c->sock, .events = POLLRDHUP };

	/* Asked by those that wait, too: for as long as nothing is done, nothing is said. */
	if (atomic_load(&c->done_bytes) != atomic_load(&c->said_bytes))
		gpud_moves(c);

	if (atomic_load(&c->g->stopping))
		return 1;
	return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

int gpud_bad(struct gpud_conn *c, const char *what, struct ckf_error *err)
{
	c->bad = true;
	return ckf_error_set(err, -EPROTO, "bad request: %s", what);
}
