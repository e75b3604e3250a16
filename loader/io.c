/* SPDX-License-Identifier: MIT */
/*
 * Requests in flight over io_uring, or over preadv and pwritev where io_uring is not to be had.
 *
 * The ring is small and private to one thread. Kernel worker threads of a ring (iou-wrk) belong to
 * the thread that submitted and are gone when that thread has exited: whoever must not leave
 * threads behind uses io_uring only in threads that end.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <liburing.h>

#include "io.h"

/* A punted request occupies one kernel worker; more of them than this only cost memory. */
#define IOWQ_WORKERS 2

struct request {
	bool write;
	int fd;
	const struct iovec *iov;
	unsigned int nr_iov;
	uint64_t off;
	void *tag;
};

struct done {
	void *tag;
	int res;
};

struct ckf_io {
	struct io_uring ring;
	bool uring;
	unsigned int depth;
	unsigned int in_flight;
	struct done *done; /* without uring: completions not fetched yet */
	unsigned int nr_done;
};

static int ring_init(struct ckf_io *io)
{
	unsigned int workers[2] = { IOWQ_WORKERS, IOWQ_WORKERS };
	int ret;

	ret = io_uring_queue_init(io->depth, &io->ring,
				  IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN);
	if (ret == -EINVAL)
		ret = io_uring_queue_init(io->depth, &io->ring, 0);
	if (ret)
		return ret;
	/* A bound, not a need: older kernels lack the call. */
	(void)io_uring_register_iowq_max_workers(&io->ring, workers);
	return 0;
}

int ckf_io_new(unsigned int depth, bool want_uring, struct ckf_io **out)
{
	struct ckf_io *io;

	io = calloc(1, sizeof(*io));
	if (!io)
		return -ENOMEM;
	io->depth = depth;
	io->done = calloc(depth, sizeof(*io->done));
	if (!io->done) {
		free(io);
		return -ENOMEM;
	}
	io->uring = want_uring && ring_init(io) == 0;
	*out = io;
	return 0;
}

bool ckf_io_is_uring(const struct ckf_io *io)
{
	return io->uring;
}

static int uring_submit(struct ckf_io *io, const struct request *rq)
{
	struct io_uring_sqe *sqe;
	int ret;

	sqe = io_uring_get_sqe(&io->ring);
	if (!sqe)
		return -EBUSY;
	if (rq->write)
		io_uring_prep_writev(sqe, rq->fd, rq->iov, rq->nr_iov, rq->off);
	else
		io_uring_prep_readv(sqe, rq->fd, rq->iov, rq->nr_iov, rq->off);
	io_uring_sqe_set_data(sqe, rq->tag);
	do {
		ret = io_uring_submit(&io->ring);
	} while (ret == -EINTR || ret == -EAGAIN);
	if (ret < 0)
		return ret;
	/* One was queued: with none taken there would be nothing to wait for. */
	return ret == 1 ? 0 : -EIO;
}

static void submit_plainly(struct ckf_io *io, const struct request *rq)
{
	struct done *done = &io->done[io->nr_done++];
	ssize_t n;

	if (rq->write)
		n = pwritev(rq->fd, rq->iov, (int)rq->nr_iov, (off_t)rq->off);
	else
		n = preadv(rq->fd, rq->iov, (int)rq->nr_iov, (off_t)rq->off);
	*done = (struct done){ .tag = rq->tag, .res = n < 0 ? -errno : (int)n };
}

static int submit(struct ckf_io *io, const struct request *rq)
{
	int ret;

	if (io->in_flight == io->depth)
		return -EBUSY;
	if (io->uring) {
		ret = uring_submit(io, rq);
		if (ret)
			return ret;
	} else {
		submit_plainly(io, rq);
	}
	io->in_flight++;
	return 0;
}

int ckf_io_submit(struct ckf_io *io, int fd, const struct iovec *iov, unsigned int nr_iov,
		  uint64_t off, void *tag)
{
	const struct request rq = {
		.fd = fd, .iov = iov, .nr_iov = nr_iov, .off = off, .tag = tag
	};

	return submit(io, &rq);
}

int ckf_io_submit_write(struct ckf_io *io, int fd, const struct iovec *iov, unsigned int nr_iov,
			uint64_t off, void *tag)
{
	const struct request rq = {
		.write = true, .fd = fd, .iov = iov, .nr_iov = nr_iov, .off = off, .tag = tag
	};

	return submit(io, &rq);
}

static int uring_wait(struct ckf_io *io, void **tag, int *res)
{
	struct io_uring_cqe *cqe;
	int ret;

	do {
		ret = io_uring_wait_cqe(&io->ring, &cqe);
	} while (ret == -EINTR);
	if (ret)
		return ret;
	*tag = io_uring_cqe_get_data(cqe);
	*res = cqe->res;
	io_uring_cqe_seen(&io->ring, cqe);
	return 0;
}

int ckf_io_wait(struct ckf_io *io, void **tag, int *res)
{
	int ret;

	if (!io->in_flight)
		return -EINVAL;
	if (io->uring) {
		ret = uring_wait(io, tag, res);
		if (ret)
			return ret;
	} else {
		io->nr_done--;
		*tag = io->done[io->nr_done].tag;
		*res = io->done[io->nr_done].res;
	}
	io->in_flight--;
	return 0;
}

void ckf_io_free(struct ckf_io *io)
{
	void *tag;
	int res;

	if (!io)
		return;
	while (io->in_flight)
		if (ckf_io_wait(io, &tag, &res))
			break;
	if (io->uring)
		io_uring_queue_exit(&io->ring);
	free(io->done);
	free(io);
}
