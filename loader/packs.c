/* SPDX-License-Identifier: MIT */
/* The packs that a fill reads, opened as they are needed. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ckf_io_util.h"
#include "ckf_read.h"
#include "packs.h"

int ckf_packs_choose(const struct ckf_image *img, int dir_fd, uint32_t fill_flags,
		     struct ckf_packs_io *io, struct ckf_error *err)
{
	const bool frugal = fill_flags & CKF_FILL_FRUGAL;
	const bool may_direct = !(fill_flags & CKF_FILL_NO_DIRECT) &&
				(!frugal || img->many_readers);

	*io = (struct ckf_packs_io){ .no_ahead = frugal };
	for (unsigned int base = 0; base <= img->idx->nr_bases; base++) {
		int cached = ckf_image_pack_is_cached(img, dir_fd, base, err);

		if (cached < 0)
			return cached;
		/*
		 * Where memory is short, a worker has one read at a time. A few workers read as the
		 * stock CRIU does: the kernel reads ahead, while direct reads would each wait for
		 * the disk. With many, the memcg would drop what is read ahead for each of them
		 * before it is used.
		 */
		io->direct[base] = !cached && may_direct;
		io->any_direct |= io->direct[base];
		io->uring |= !cached && !(fill_flags & CKF_FILL_NO_URING);
	}
	return 0;
}

int ckf_packs_init(struct ckf_packs *p, const struct ckf_image *img, int dir_fd,
		   const struct ckf_packs_io *io)
{
	const unsigned int nr = img->idx->nr_bases + 1;

	*p = (struct ckf_packs){ .img = img, .dir_fd = dir_fd, .io = io };
	p->fds = malloc(nr * sizeof(*p->fds));
	for (unsigned int i = 0; p->fds && i < nr; i++)
		p->fds[i] = (struct ckf_packs_fds){ -1, -1 };
	return p->fds ? 0 : -ENOMEM;
}

void ckf_packs_fini(struct ckf_packs *p)
{
	for (unsigned int i = 0; p->fds && i <= p->img->idx->nr_bases; i++) {
		if (p->fds[i].fd >= 0)
			close(p->fds[i].fd);
		if (p->fds[i].buffered >= 0)
			close(p->fds[i].buffered);
	}
	free(p->fds);
}

/* In an archive, the pack begins at no place that a plan knows. */
static int open_pack(const struct ckf_packs *p, unsigned int base, int flags, struct ckf_error *err)
{
	if (p->img->members)
		return ckf_error_set(err, -EOPNOTSUPP,
				     "the image lies in an archive: it has to be unpacked first");
	return ckf_image_open_pack_of(p->img, p->dir_fd, base, flags, err);
}

int ckf_packs_fd(struct ckf_packs *p, unsigned int base, struct ckf_error *err)
{
	int *fd = &p->fds[base].fd;
	int got = -EINVAL;

	if (*fd >= 0)
		return *fd;
	if (p->io->direct[base])
		got = open_pack(p, base, O_DIRECT, err);
	if (got >= 0)
		p->direct = true;
	else if (got == -EINVAL)
		got = open_pack(p, base, 0, err);
	if (got >= 0)
		*fd = got;
	if (got >= 0 && !p->io->direct[base] && !p->io->no_ahead)
		(void)posix_fadvise(got, 0, 0, POSIX_FADV_SEQUENTIAL);
	return got;
}

int ckf_packs_buffered_fd(struct ckf_packs *p, unsigned int base, struct ckf_error *err)
{
	int *fd = &p->fds[base].buffered;

	if (*fd >= 0)
		return *fd;
	*fd = open_pack(p, base, 0, err);
	/* Nothing ahead of what is asked for: the rest is read directly. */
	if (*fd >= 0)
		(void)posix_fadvise(*fd, 0, 0, POSIX_FADV_RANDOM);
	return *fd;
}

int ckf_packs_error(const struct ckf_packs *p, const struct ckf_packs_read *rd, int ret,
		    struct ckf_error *err)
{
	char name[CKF_PACK_NAME_BYTES];

	return ckf_error_set(err, ret, "cannot read %zu bytes of %s at %llu: %s", rd->bytes,
			     ckf_pack_name(p->img->idx, rd->base, name),
			     (unsigned long long)rd->off,
			     ret == -EBADMSG ? "the file got shorter" : strerror(-ret));
}

int ckf_packs_finish(struct ckf_packs *p, const struct ckf_packs_read *rd, int res,
		     struct ckf_error *err)
{
	size_t got = res > 0 ? (size_t)res : 0;
	uint64_t off = rd->off;
	int fd, ret = 0;

	if (res < 0 && res != -EINVAL && res != -EAGAIN && res != -EINTR)
		return ckf_packs_error(p, rd, res, err);
	if (got >= rd->bytes)
		return 0;
	fd = ckf_packs_buffered_fd(p, rd->base, err);
	if (fd < 0)
		return fd;
	for (unsigned int i = 0; i < rd->nr_iovs && !ret; i++) {
		char *to = rd->iovs[i].iov_base;
		size_t len = rd->iovs[i].iov_len, skip = got < len ? got : len;

		got -= skip;
		ret = ckf_pread_all(fd, to + skip, len - skip, off + skip);
		off += len;
	}
	return ret ? ckf_packs_error(p, rd, ret, err) : 0;
}
