/* SPDX-License-Identifier: MIT */
/*
 * Gives the metrics to Prometheus: a file that node_exporter's textfile collector reads, or a
 * minimal HTTP server. Both are one thread, so that nothing that goes wrong here, and no client of
 * the server, keeps a job waiting.
 *
 * The server answers one client after the other. Each has a deadline and a limit of bytes, and the
 * metrics are made once a second at most, however many ask.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckf_io_util.h"
#include "base/ckf_threads.h"
#include "gpud.h"

#define FILE_PERIOD_MS 5000
#define REQUEST_BYTES 4096
#define REQUEST_NS (2 * GPUD_NS_PER_S)
#define FRESH_NS GPUD_NS_PER_S
#define BACKLOG 16
#define ACCEPT_PAUSE_MS 10
#define NS_PER_MS 1000000u

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

struct ckf_gpud_exporter {
	struct ckf_gpud *g;
	pthread_t thread;
	int stop_fd;
	const char *where; /* the caller's */
	int listen_fd;	   /* -1: where is the path of a file */
	bool failed;	   /* the last time; that was logged */
	char *text;
	size_t len;
	uint64_t made_ns;
};

/* [ADDR:]PORT, ADDR as 127.0.0.1 or [::1]. */
static bool parse_address(const char *where, union address *a, socklen_t *len)
{
	const char *colon = strrchr(where, ':'), *port = colon ? colon + 1 : where;
	size_t host_len = colon ? (size_t)(colon - where) : 0;
	char host[INET6_ADDRSTRLEN + 2] = "127.0.0.1", *end;
	unsigned long nr;

	nr = strtoul(port, &end, 10);
	if (!isdigit((unsigned char)*port) || *end || !nr || nr > UINT16_MAX ||
	    host_len >= sizeof(host))
		return false;
	if (colon) {
		memcpy(host, where, host_len);
		host[host_len] = '\0';
	}
	memset(a, 0, sizeof(*a));
	if (host[0] == '[' && host[strlen(host) - 1] == ']') {
		host[strlen(host) - 1] = '\0';
		a->v6.sin6_family = AF_INET6;
		a->v6.sin6_port = htons((uint16_t)nr);
		*len = sizeof(a->v6);
		return inet_pton(AF_INET6, host + 1, &a->v6.sin6_addr) == 1;
	}
	a->v4.sin_family = AF_INET;
	a->v4.sin_port = htons((uint16_t)nr);
	*len = sizeof(a->v4);
	return inet_pton(AF_INET, host, &a->v4.sin_addr) == 1;
}

bool ckf_gpud_export_valid(const char *where)
{
	union address a;
	socklen_t len;

	return strchr(where, '/') || parse_address(where, &a, &len);
}

/* Fresh metrics in e->text. */
static int refresh(struct ckf_gpud_exporter *e, struct ckf_error *err)
{
	const uint64_t now = ckf_now_ns();
	size_t len;
	char *text;
	int ret;

	if (e->text && now - e->made_ns < FRESH_NS)
		return 0;
	ret = gpud_metrics(e->g, &text, &len, err);
	if (ret)
		return ret;
	free(e->text);
	e->text = text;
	e->len = len;
	e->made_ns = now;
	return 0;
}

/* Of errors in a row the first is logged. */
static void report(struct ckf_gpud_exporter *e, int ret, const struct ckf_error *err)
{
	char text[CKF_ERROR_MSG_BYTES + 32];
	const struct ckf_gpud_event event = { .failed = true, .text = text };

	if (ret && !e->failed && e->g->opts.log) {
		snprintf(text, sizeof(text), "metrics: %s", err->code ? err->msg : strerror(-ret));
		e->g->opts.log(e->g->opts.arg, &event);
	}
	e->failed = ret != 0;
}

/* By rename, so that a reader gets all of it. */
static int write_file(struct ckf_gpud_exporter *e, struct ckf_error *err)
{
	char tmp[PATH_MAX];
	int fd, ret;

	if (snprintf(tmp, sizeof(tmp), "%s.tmp", e->where) >= (int)sizeof(tmp))
		return ckf_error_set(err, -ENAMETOOLONG, "the path is too long");
	unlink(tmp);
	fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	ret = fd < 0 ? -errno : ckf_pwrite_all(fd, e->text, e->len, 0);
	/* The collector is another user, whatever the umask is. */
	if (!ret && fchmod(fd, 0644))
		ret = -errno;
	if (fd >= 0 && close(fd) && !ret)
		ret = -errno;
	if (!ret && rename(tmp, e->where))
		ret = -errno;
	if (ret && fd >= 0)
		unlink(tmp);
	return ret ? ckf_error_set(err, ret, "cannot write %s: %s", e->where, strerror(-ret)) : 0;
}

/* Waits for the socket, unless it is -1: true when it is ready, not at the deadline nor the end. */
static bool wait_until(const struct ckf_gpud_exporter *e, int sock, short events, uint64_t end_ns)
{
	struct pollfd p[] = { { .fd = e->stop_fd, .events = POLLIN },
			      { .fd = sock, .events = events } };
	const uint64_t now = ckf_now_ns();

	return now < end_ns && poll(p, 2, (int)((end_ns - now) / NS_PER_MS) + 1) > 0 &&
	       !p[0].revents;
}

static bool stopped(const struct ckf_gpud_exporter *e)
{
	struct pollfd p = { .fd = e->stop_fd, .events = POLLIN };

	return poll(&p, 1, 0) > 0;
}

static void *file_main(void *arg)
{
	struct ckf_gpud_exporter *e = arg;

	while (!stopped(e)) {
		struct ckf_error err = { 0 };
		int ret = refresh(e, &err);

		if (!ret)
			ret = write_file(e, &err);
		report(e, ret, &err);
		wait_until(e, -1, 0, ckf_now_ns() + FILE_PERIOD_MS * (uint64_t)NS_PER_MS);
	}
	/* What it says is true no longer. */
	unlink(e->where);
	return NULL;
}

/* The head of a request: false where none has come. Too long a one fills buf. */
static bool read_head(const struct ckf_gpud_exporter *e, int sock, char buf[REQUEST_BYTES],
		      uint64_t end_ns)
{
	size_t len = 0;
	ssize_t n;

	while (len < REQUEST_BYTES - 1) {
		if (!wait_until(e, sock, POLLIN, end_ns))
			return false;
		n = recv(sock, buf + len, REQUEST_BYTES - 1 - len, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0)
			return false;
		len += (size_t)n;
		buf[len] = '\0';
		if (strstr(buf, "\r\n\r\n") || strstr(buf, "\n\n"))
			break;
	}
	return true;
}

static void send_all(const struct ckf_gpud_exporter *e, int sock, const char *buf, size_t len,
		     uint64_t end_ns)
{
	ssize_t n;

	while (len && wait_until(e, sock, POLLOUT, end_ns)) {
		n = send(sock, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return;
		if (n > 0) {
			buf += n;
			len -= (size_t)n;
		}
	}
}

/* The status line for a request, without "HTTP/1.1 ". */
static const char *judge(const char *head)
{
	const char *path = strchr(head, ' ');
	size_t len;

	if (strlen(head) == REQUEST_BYTES - 1)
		return "431 Request Header Fields Too Large";
	if (!path)
		return "400 Bad Request";
	len = strcspn(++path, " \r\n");
	if (strncmp(path + len, " HTTP/1.", 8))
		return "400 Bad Request";
	if (strncmp(head, "GET ", 4))
		return "405 Method Not Allowed";
	return len == 8 && !strncmp(path, "/metrics", 8) ? "200 OK" : "404 Not Found";
}

static void answer(struct ckf_gpud_exporter *e, int sock)
{
	const uint64_t end_ns = ckf_now_ns() + REQUEST_NS;
	char head[REQUEST_BYTES], reply[256];
	struct ckf_error err = { 0 };
	const char *status;
	bool ok;
	int ret;

	if (!read_head(e, sock, head, end_ns))
		return;
	status = judge(head);
	ok = *status == '2';
	if (ok) {
		ret = refresh(e, &err);
		report(e, ret, &err);
		ok = !ret;
		if (ret)
			status = "503 Service Unavailable";
	}
	snprintf(reply, sizeof(reply),
		 "HTTP/1.1 %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
		 "Content-Length: %zu\r\nConnection: close\r\n\r\n",
		 status, ok ? e->len : 0);
	send_all(e, sock, reply, strlen(reply), end_ns);
	if (ok)
		send_all(e, sock, e->text, e->len, end_ns);
}

static void *http_main(void *arg)
{
	struct ckf_gpud_exporter *e = arg;
	struct pollfd p[] = { { .fd = e->stop_fd, .events = POLLIN },
			      { .fd = e->listen_fd, .events = POLLIN } };
	int sock;

	for (;;) {
		if (poll(p, 2, -1) < 0)
			continue;
		if (p[0].revents)
			return NULL;
		sock = accept4(e->listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (sock < 0) {
			/* No descriptor or memory left: until there is, the client waits. */
			poll(p, 1, ACCEPT_PAUSE_MS);
			continue;
		}
		answer(e, sock);
		close(sock);
	}
}

static int listen_at(const char *where, int *out, struct ckf_error *err)
{
	union address a;
	socklen_t len;
	int on = 1, ret, fd;

	*out = -1;
	if (!parse_address(where, &a, &len))
		return ckf_error_set(err, -EINVAL, "%s is no port and no address", where);
	fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return ckf_error_set(err, -errno, "cannot make a socket: %s", strerror(errno));
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) || bind(fd, &a.any, len) ||
	    listen(fd, BACKLOG)) {
		ret = ckf_error_set(err, -errno, "cannot listen at %s: %s", where, strerror(errno));
		close(fd);
		return ret;
	}
	*out = fd;
	return 0;
}

int ckf_gpud_export(struct ckf_gpud *g, const char *where, struct ckf_gpud_exporter **out,
		    struct ckf_error *err)
{
	struct ckf_gpud_exporter *e;
	int ret = 0;

	*out = NULL;
	e = calloc(1, sizeof(*e));
	if (!e)
		return ckf_error_set(err, -ENOMEM, "no memory");
	e->g = g;
	e->where = where;
	e->listen_fd = -1;
	e->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (e->stop_fd < 0)
		ret = ckf_error_set(err, -errno, "cannot make an eventfd: %s", strerror(errno));
	if (!ret && !strchr(where, '/'))
		ret = listen_at(where, &e->listen_fd, err);
	if (!ret) {
		ret = ckf_thread_start(&e->thread, NULL, e->listen_fd < 0 ? file_main : http_main,
				       e);
		if (ret)
			ckf_error_set(err, ret, "cannot start a thread: %s", strerror(-ret));
	}
	if (!ret) {
		*out = e;
		return 0;
	}
	if (e->listen_fd >= 0)
		close(e->listen_fd);
	if (e->stop_fd >= 0)
		close(e->stop_fd);
	free(e);
	return ret;
}

void ckf_gpud_export_end(struct ckf_gpud_exporter *e)
{
	if (!e)
		return;
	eventfd_write(e->stop_fd, 1);
	pthread_join(e->thread, NULL);
	if (e->listen_fd >= 0)
		close(e->listen_fd);
	close(e->stop_fd);
	free(e->text);
	free(e);
}
