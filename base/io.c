/* SPDX-License-Identifier: MIT */
/*
 * Requests in flight over io_uring, or over preadv and pwritev where io_uring is not to be had.
 *
 * The ring is small and private to one thread. For a request that would block the kernel makes a
 * thread (iou-wrk), with the next free id and counted as any other. Without threads, such a request
 * is refused instead (RWF_NOWAIT), and done here.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <liburing.h>

#include "ckf_io.h"

/* A punted request occupies one kernel worker; more of them than this only cost memory. */
#define IOWQ_WORKERS 2

struct request {
	bool write;
	int fd;
	const struct iovec *iov;
	unsigned int nr_iov;
	uint64_t off;
	void *tag;
	int res; /* when it is done */
};

struct ckf_io {
	struct io_uring ring;
	enum ckf_io_mode mode; /* CKF_IO_PLAIN also where io_uring is not to be had */
	unsigned int depth;
	unsigned int in_flight;
	struct request *requests; /* [depth] */
	struct request **idle;	  /* those not in flight */
	struct request **done;	  /* CKF_IO_PLAIN: those not fetched yet */
};

static bool is_uring(const struct ckf_io *io)
{
	return io->mode != CKF_IO_PLAIN;
}

/* A filter of system calls may allow to make a ring, and not to use it. */
static int ring_probe(struct io_uring *ring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	int ret;

	if (!sqe)
		return -EBUSY;
	io_uring_prep_nop(sqe);
	do {
		ret = io_uring_submit_and_wait(ring, 1);
	} while (ret == -EINTR || ret == -EAGAIN);
	if (ret < 0)
		return ret;
	ret = io_uring_peek_cqe(ring, &cqe);
	if (!ret)
		io_uring_cqe_seen(ring, cqe);
	return ret;
}

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
	ret = ring_probe(&io->ring);
	if (ret) {
		io_uring_queue_exit(&io->ring);
		return ret;
	}
	/* A bound, not a need: older kernels lack the call. */
	if (io->mode == CKF_IO_URING)
		(void)io_uring_register_iowq_max_workers(&io->ring, workers);
	return 0;
}

int ckf_io_new(unsigned int depth, enum ckf_io_mode mode, struct ckf_io **out)
{
	struct ckf_io *io;

	io = calloc(1, sizeof(*io));
	if (!io)
		return -ENOMEM;
	io->depth = depth;
	io->requests = calloc(depth, sizeof(*io->requests));
	io->idle = calloc(depth, sizeof(*io->idle));
	io->done = calloc(depth, sizeof(*io->done));
	if (!io->requests || !io->idle || !io->done) {
		ckf_io_free(io);
		return -ENOMEM;
	}
	for (unsigned int i = 0; i < depth; i++)
		io->idle[i] = &io->requests[i];
	io->mode = mode;
	if (is_uring(io) && ring_init(io))
		io->mode = CKF_IO_PLAIN;
	*out = io;
	return 0;
}

bool ckf_io_is_uring(const struct ckf_io *io)
{
	return is_uring(io);
}

/* The number of bytes, or -errno. */
static int do_plainly(const struct request *rq)
{
	ssize_t n;

	if (rq->write)
		n = pwritev(rq->fd, rq->iov, (int)rq->nr_iov, (off_t)rq->off);
	else
		n = preadv(rq->fd, rq->iov, (int)rq->nr_iov, (off_t)rq->off);
	return n < 0 ? -errno : (int)n;
}

static int uring_submit(struct ckf_io *io, struct request *rq)
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
	if (io->mode == CKF_IO_URING_NO_THREADS)
		sqe->rw_flags = RWF_NOWAIT;
	io_uring_sqe_set_data(sqe, rq);
	do {
		ret = io_uring_submit(&io->ring);
	} while (ret == -EINTR || ret == -EAGAIN);
	if (ret < 0)
		return ret;
	/* One was queued: with none taken there would be nothing to wait for. */
	return ret == 1 ? 0 : -EIO;
}

static int submit(struct ckf_io *io, const struct request *request)
{
	struct request *rq;
	int ret = 0;

	if (io->in_flight == io->depth)
		return -EBUSY;
	rq = io->idle[io->depth - io->in_flight - 1];
	*rq = *request;
	if (is_uring(io)) {
		ret = uring_submit(io, rq);
	} else {
		rq->res = do_plainly(rq);
		io->done[io->in_flight] = rq;
	}
	if (!ret)
		io->in_flight++;
	return ret;
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

static int uring_wait(struct ckf_io *io, struct request **out)
{
	struct io_uring_cqe *cqe;
	struct request *rq;
	int ret;

	do {
		ret = io_uring_wait_cqe(&io->ring, &cqe);
	} while (ret == -EINTR);
	if (ret)
		return ret;
	rq = io_uring_cqe_get_data(cqe);
	rq->res = cqe->res;
	io_uring_cqe_seen(&io->ring, cqe);
	/* It would have blocked, or the file system never says whether it would. */
	if (io->mode == CKF_IO_URING_NO_THREADS && (rq->res == -EAGAIN || rq->res == -EOPNOTSUPP))
		rq->res = do_plainly(rq);
	*out = rq;
	return 0;
}

int ckf_io_wait(struct ckf_io *io, void **tag, int *res)
{
	struct request *rq;
	int ret;

	if (!io->in_flight)
		return -EINVAL;
	if (is_uring(io)) {
		ret = uring_wait(io, &rq);
		if (ret)
			return ret;
	} else {
		rq = io->done[io->in_flight - 1];
	}
	io->in_flight--;
	io->idle[io->depth - io->in_flight - 1] = rq;
	*tag = rq->tag;
	*res = rq->res;
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
	if (is_uring(io))
		io_uring_queue_exit(&io->ring);
	free(io->requests);
	free(io->idle);
	free(io->done);
	free(io);
}
