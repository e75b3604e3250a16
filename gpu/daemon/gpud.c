/* SPDX-License-Identifier: MIT */
/*
 * gpud: its life, its connections, and which function answers which request.
 *
 * One thread opens the driver; each connection has a thread, which does its jobs one after the
 * other.
 */
#include "gpud.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/ckf_opts.h"
#include "base/ckf_threads.h"

#define SLOTS_PER_CPU 2
#define MIN_SLOTS 8
#define MAX_SLOTS 64
#define MAX_CONNECTIONS 256    /* each has a thread, and a queue of messages in the kernel */
#define TRUSTED_CONNECTIONS 64 /* of them: kept from the members of a group */
#define ACCEPT_PAUSE_MS 10
#define STOP_NS 5000000000ull
#define SEND_BUFFER_BYTES (64 << 20) /* a client may read late: all MEMORY messages fit in */

static void *open_pool(void *arg)
{
	struct ckf_gpud *g = arg;
	struct ckf_cuda_pool_opts po = { .size = sizeof(po),
					 .nr_slots = g->opts.nr_slots,
					 .slot_bytes = CKF_GPUD_SLOT_BYTES };
	struct ckf_cuda_pool *pool;
	struct ckf_error err = { 0 };
	int ret;

	ret = ckf_cuda_pool_open(&po, &pool, &err);
	pthread_mutex_lock(&g->lock);
	g->pool = pool;
	g->open_ret = ret;
	g->open_err = err;
	g->opened = true;
	pthread_cond_broadcast(&g->cond);
	pthread_mutex_unlock(&g->lock);
	return NULL;
}

int ckf_gpud_new(const struct ckf_gpud_opts *opts, struct ckf_gpud **out, struct ckf_error *err)
{
	struct ckf_gpud_opts o;
	struct ckf_gpud *g;
	unsigned int slots;
	int ret;

	*out = NULL;
	ret = CKF_OPTS_TAKE(ckf_gpud_opts, &o, opts, size, err);
	if (ret)
		return ret;
	if (o.nr_slots > CKF_GPUD_MAX_SLOTS)
		return ckf_error_set(err, -EINVAL, "wrong options of gpud");
	g = calloc(1, sizeof(*g));
	if (!g)
		return ckf_error_set(err, -ENOMEM, "no memory");
	g->opts = o;
	g->start_ns = ckf_now_ns();
	if (!g->opts.threads)
		g->opts.threads = ckf_cpus();
	if (!g->opts.nr_slots) {
		slots = ckf_cpus() * SLOTS_PER_CPU;
		slots = slots < MIN_SLOTS ? MIN_SLOTS : slots;
		g->opts.nr_slots = slots > MAX_SLOTS ? MAX_SLOTS : slots;
	}
	pthread_mutex_init(&g->lock, NULL);
	ckf_cond_init(&g->cond);
	ret = gpud_kept_new(g, err);
	if (!ret)
		ret = ckf_thread_start(&g->opener, NULL, open_pool, g);
	if (ret) {
		gpud_kept_free(g->kept);
		pthread_cond_destroy(&g->cond);
		pthread_mutex_destroy(&g->lock);
		free(g);
		return ckf_error_set(err, ret, "cannot start a thread: %s", strerror(-ret));
	}
	*out = g;
	return 0;
}

void ckf_gpud_free(struct ckf_gpud *g)
{
	if (!g)
		return;
	pthread_join(g->opener, NULL);
	gpud_kept_free(g->kept);
	gpud_amd_free(g->amd);
	ckf_cuda_pool_close(g->pool);
	pthread_cond_destroy(&g->cond);
	pthread_mutex_destroy(&g->lock);
	free(g);
}

int ckf_gpud_warm(struct ckf_gpud *g, const unsigned int *devices, unsigned int nr,
		  struct ckf_error *err)
{
	struct ckf_error cuda_err = { 0 }, amd_err = { 0 };
	struct ckf_cuda_pool *pool;
	unsigned int n;
	int ret, amd_ret;

	amd_ret = gpud_amd_new(g, &amd_err);
	ret = gpud_pool(g, &pool, &cuda_err);
	if (ret == -ENODEV && !amd_ret && !nr)
		return 0;
	if (ret)
		return ckf_error_set(err, ret, amd_ret ? "%s; no AMD GPUs: %s" : "%s", cuda_err.msg,
				     amd_err.msg);
	n = nr ? nr : pool->nr_devs;
	for (unsigned int i = 0; i < n && !ret; i++)
		ret = ckf_cuda_pool_warm(pool, nr ? devices[i] : i, err);
	return ret ? ret : ckf_cuda_pool_wait(pool, err);
}

static int hello(struct gpud_conn *c, const struct ckf_gpud_msg *m, struct ckf_error *err)
{
	struct ckf_gpud_msg answer = { .op = CKF_GPUD_DONE, .arg = CKF_GPUD_VERSION };

	if (m->arg != CKF_GPUD_VERSION)
		return ckf_error_set(err, -EOPNOTSUPP,
				     "gpud speaks version %d, the client version %llu: "
				     "both have to come from one version of ckfast",
				     CKF_GPUD_VERSION, (unsigned long long)m->arg);
	c->greeted = true;
	return gpud_send(c, &answer, -1, err);
}

/* Clients before version 3 said no HELLO. */
static int not_greeted(struct gpud_conn *c, struct ckf_error *err)
{
	c->bad = true;
	return ckf_error_set(err, -EOPNOTSUPP,
			     "gpud speaks version %d, the client has not said HELLO and may be of "
			     "an older version: both have to come from one version of ckfast",
			     CKF_GPUD_VERSION);
}

/* Into the list, if there is room. */
static bool conn_add(struct ckf_gpud *g, struct gpud_conn *c)
{
	bool room;

	pthread_mutex_lock(&g->lock);
	room = g->nr_conns <
	       MAX_CONNECTIONS - (gpud_client_trusted(&c->peer) ? 0 : TRUSTED_CONNECTIONS);
	if (room) {
		g->nr_conns++;
		c->next = g->conns;
		g->conns = c;
	}
	pthread_mutex_unlock(&g->lock);
	return room;
}

static int conn_new(struct ckf_gpud *g, int sock, const struct ucred *peer, struct gpud_conn **out,
		    struct ckf_error *err)
{
	struct gpud_conn *c = calloc(1, sizeof(*c));
	int bytes = SEND_BUFFER_BYTES;

	if (!c)
		return ckf_error_set(err, -ENOMEM, "no memory for another connection");
	c->g = g;
	c->sock = sock;
	c->peer = *peer;
	pthread_mutex_init(&c->send_lock, NULL);
	if (setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)))
		(void)setsockopt(sock, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	*out = c;
	if (conn_add(g, c))
		return 0;
	pthread_mutex_destroy(&c->send_lock);
	free(c);
	return ckf_error_set(err, -EBUSY, "gpud has %d connections, and takes no more",
			     MAX_CONNECTIONS);
}

static void conn_free(struct gpud_conn *c, bool keep_sock)
{
	struct ckf_gpud *g = c->g;
	struct gpud_conn **link;

	pthread_mutex_lock(&g->lock);
	for (link = &g->conns; *link != c; link = &(*link)->next)
		;
	*link = c->next;
	g->nr_conns--;
	/* Under the lock: nobody shuts down a descriptor that is another one by then. */
	if (!keep_sock)
		close(c->sock);
	pthread_cond_broadcast(&g->cond);
	pthread_mutex_unlock(&g->lock);
	free(c->pairs.pairs);
	pthread_mutex_destroy(&c->send_lock);
	free(c);
}

static void *conn_main(void *arg);

static void answer_error(struct gpud_conn *c, int ret, const struct ckf_error *err)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_ERROR, .arg = (uint64_t)-ret };
	const char *text = err->code ? err->msg : strerror(-ret);

	if (ret == -ECANCELED)
		text = "gpud was stopped";
	snprintf(m.text, sizeof(m.text), "%.*s", (int)sizeof(m.text) - 1, text);
	/* A peer that is gone needs no answer. */
	gpud_send(c, &m, -1, NULL);
}

static void refuse(int sock, int code, const char *text)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_ERROR, .arg = (uint64_t)code };

	snprintf(m.text, sizeof(m.text), "%.*s", (int)sizeof(m.text) - 1, text);
	ckf_gpud_send(sock, &m, -1, NULL);
	close(sock);
}

/* Serves it in a thread. Where that is not possible sock stays the caller's. */
static int conn_start(struct ckf_gpud *g, int sock, const struct ucred *peer, bool greeted,
		      struct ckf_error *err)
{
	struct gpud_conn *c;
	int ret;

	ret = conn_new(g, sock, peer, &c, err);
	if (ret == -EBUSY)
		gpud_refused(g, GPUD_REFUSED_CONNECTIONS);
	if (ret)
		return ret;
	c->greeted = greeted;
	ret = ckf_thread_start(&c->thread, NULL, conn_main, c);
	if (!ret)
		return 0;
	conn_free(c, true);
	return ckf_error_set(err, ret, "cannot start a thread for another connection: %s",
			     strerror(-ret));
}

/*
 * The socketpair is made here, and its client never has both ends: one with both could leave a
 * connection behind that only gpud itself keeps open.
 */
static int join_conn(struct gpud_conn *c, struct ckf_error *err)
{
	struct ckf_gpud_msg done = { .op = CKF_GPUD_DONE };
	int sv[2], ret;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv))
		return ckf_error_set(err, -errno, "cannot make another connection: %s",
				     strerror(errno));
	ret = conn_start(c->g, sv[0], &c->peer, true, err);
	if (ret)
		close(sv[0]);
	else
		ret = gpud_send(c, &done, sv[1], err);
	close(sv[1]);
	return ret;
}

static int request(struct gpud_conn *c, const struct ckf_gpud_msg *m, int fd, struct ckf_error *err)
{
	bool wants_fd = m->op == CKF_GPUD_FILL || m->op == CKF_GPUD_SAVE ||
			m->op == CKF_GPUD_CHECKPOINT || m->op == CKF_GPUD_KEEP ||
			m->op == CKF_GPUD_FILL_AMD;

	if (!c->greeted && m->op != CKF_GPUD_HELLO)
		return not_greeted(c, err);
	if (m->op != CKF_GPUD_DROP && wants_fd != (fd >= 0))
		return gpud_bad(c, fd >= 0 ? "an fd came along" : "no fd came along", err);
	switch (m->op) {
	case CKF_GPUD_HELLO:
		return hello(c, m, err);
	case CKF_GPUD_STATUS:
		return gpud_status(c, err);
	case CKF_GPUD_CHECKPOINT:
		return gpud_checkpoint(c, m, fd, err);
	case CKF_GPUD_PAIR:
		return gpud_pair(c, m, err);
	case CKF_GPUD_FILL:
		return gpud_fill(c, fd, err);
	case CKF_GPUD_SAVE:
		return gpud_save(c, m, fd, err);
	case CKF_GPUD_KEEP:
		return gpud_keep(c, fd, err);
	case CKF_GPUD_DROP:
		return gpud_drop(c, fd, err);
	case CKF_GPUD_AMD_GPUS:
		return gpud_amd_gpus(c, err);
	case CKF_GPUD_FILL_AMD:
		return gpud_fill_amd(c, m, fd, err);
	case CKF_GPUD_JOIN:
		return join_conn(c, err);
	default:
		return gpud_bad(c, "there is no such request", err);
	}
}

/* Until the peer closes its end. */
static int converse(struct gpud_conn *c, struct ckf_error *err)
{
	struct ckf_gpud_msg m;
	int fd, ret;

	while (!c->bad && !atomic_load(&c->g->stopping)) {
		struct ckf_error job_err = { 0 };

		/* A client has nothing to say for as long as a dump or a restore takes. */
		ret = gpud_recv_until(c->sock, &m, &fd, 0, &job_err);
		if (ret == -ECONNRESET)
			return 0;
		if (ret == -EBADMSG || ret == -EMFILE)
			c->bad = true;
		else if (ret)
			return ckf_error_set(err, ret, "%s", job_err.msg);
		if (!ret)
			ret = request(c, &m, fd, &job_err);
		if (fd >= 0)
			close(fd);
		if (ret)
			answer_error(c, ret, &job_err);
	}
	return 0;
}

static void *conn_main(void *arg)
{
	struct gpud_conn *c = arg;
	struct ckf_error err = { 0 };
	int ret;

	pthread_detach(pthread_self());
	ret = gpud_client_become(c, &err);
	if (ret)
		answer_error(c, ret, &err);
	else
		converse(c, NULL);
	conn_free(c, false);
	return NULL;
}

static bool peer_of(int sock, struct ucred *cred)
{
	socklen_t len = sizeof(*cred);

	memset(cred, 0, sizeof(*cred));
	return !getsockopt(sock, SOL_SOCKET, SO_PEERCRED, cred, &len);
}

int ckf_gpud_serve(struct ckf_gpud *g, int sock, struct ckf_error *err)
{
	struct gpud_conn *c;
	struct ucred cred;
	int ret;

	peer_of(sock, &cred);
	ret = conn_new(g, sock, &cred, &c, err);
	if (ret) {
		close(sock);
		return ret;
	}
	ret = converse(c, err);
	conn_free(c, false);
	/* Those that joined. */
	pthread_mutex_lock(&g->lock);
	while (g->conns)
		pthread_cond_wait(&g->cond, &g->lock);
	pthread_mutex_unlock(&g->lock);
	return ret;
}

static void accept_one(struct ckf_gpud *g, int listen_fd)
{
	int sock = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC), ret;
	struct ckf_error err = { 0 };
	struct ucred cred;

	if (sock < 0) {
		/* No descriptor or memory left: until there is, the client waits. */
		poll(NULL, 0, ACCEPT_PAUSE_MS);
		return;
	}
	if (!peer_of(sock, &cred) || !gpud_client_allowed(g, sock, &cred)) {
		gpud_refused(g, GPUD_REFUSED_USER);
		refuse(sock, EPERM,
		       g->opts.group.set ? "gpud serves only members of its group, and root"
					 : "gpud serves only the user that started it, and root");
		return;
	}
	ret = conn_start(g, sock, &cred, false, &err);
	if (ret)
		refuse(sock, -ret, err.msg);
}

static void shutdown_all(struct ckf_gpud *g, int how)
{
	for (struct gpud_conn *c = g->conns; c; c = c->next)
		shutdown(c->sock, how);
}

/* No connection may outlive the run. Jobs get the time to say so to their clients. */
static void stop_all(struct ckf_gpud *g)
{
	const uint64_t end_ns = ckf_now_ns() + STOP_NS;

	atomic_store(&g->stopping, true);
	pthread_mutex_lock(&g->lock);
	shutdown_all(g, SHUT_RD);
	while (g->conns && ckf_cond_wait_until(&g->cond, &g->lock, end_ns))
		;
	/* One that waits for a client to read waits no longer. */
	shutdown_all(g, SHUT_RDWR);
	while (g->conns)
		pthread_cond_wait(&g->cond, &g->lock);
	pthread_mutex_unlock(&g->lock);
}

int ckf_gpud_run(struct ckf_gpud *g, int listen_fd, int stop_fd, struct ckf_error *err)
{
	struct pollfd p[] = { { .fd = listen_fd, .events = POLLIN },
			      { .fd = stop_fd, .events = POLLIN } };
	int ret;

	ret = gpud_kept_start(g->kept, err);
	if (ret)
		return ret;
	ckf_gpud_tell("READY=1\nSTATUS=Serving clients");
	for (;;) {
		if (poll(p, 2, -1) < 0) {
			if (errno == EINTR)
				continue;
			ret = ckf_error_set(err, -errno, "cannot wait for clients: %s",
					    strerror(errno));
			break;
		}
		if (p[1].revents)
			break;
		if (p[0].revents)
			accept_one(g, listen_fd);
	}
	ckf_gpud_tell("STOPPING=1\nSTATUS=Waiting for connections to end");
	stop_all(g);
	return ret;
}
