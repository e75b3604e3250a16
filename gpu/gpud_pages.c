/* SPDX-License-Identifier: MIT */
/* The pages file of a dump, written by many threads at once. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpud_pages.h"

struct gpud_pages {
	int fd;
	char name[64];
};

int ckf_pwrite_all(int fd, const void *buf, size_t bytes, uint64_t off)
{
	const char *p = buf;
	ssize_t n;

	while (bytes) {
		n = pwrite(fd, p, bytes, (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		p += n;
		off += (uint64_t)n;
		bytes -= (size_t)n;
	}
	return 0;
}

static int fail(const char *name, int ret, struct ckf_error *err)
{
	return ckf_error_set(err, ret, "cannot write %s: %s", name, strerror(-ret));
}

int gpud_pages_create(int dir_fd, const char *name, uint64_t bytes, struct gpud_pages **out,
		      struct ckf_error *err)
{
	struct gpud_pages *p;
	int ret;

	p = calloc(1, sizeof(*p));
	if (!p)
		return ckf_error_set(err, -ENOMEM, "no memory");
	strncpy(p->name, name, sizeof(p->name) - 1);
	p->fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (p->fd < 0) {
		ret = fail(name, -errno, err);
		free(p);
		return ret;
	}
	if (ftruncate(p->fd, (off_t)bytes)) {
		ret = fail(name, -errno, err);
		unlinkat(dir_fd, name, 0);
		gpud_pages_close(p, NULL);
		return ret;
	}
	*out = p;
	return 0;
}

int gpud_pages_write(struct gpud_pages *p, const void *buf, size_t bytes, uint64_t off,
		     struct ckf_error *err)
{
	int ret = ckf_pwrite_all(p->fd, buf, bytes, off);

	return ret ? fail(p->name, ret, err) : 0;
}

int gpud_pages_close(struct gpud_pages *p, struct ckf_error *err)
{
	int ret = close(p->fd) ? fail(p->name, -errno, err) : 0;

	free(p);
	return ret;
}
