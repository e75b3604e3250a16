/* SPDX-License-Identifier: MIT */
/* Opening files, and reading and writing all of what was asked for. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ckf_io_util.h"

int ckf_open_regular(int dir_fd, const char *name, int flags, uint64_t *size)
{
	struct stat st;
	int fd, ret = 0;

	fd = openat(dir_fd, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC | flags);
	if (fd < 0) /* ENXIO: a socket */
		return errno == ENXIO ? -EOPNOTSUPP : -errno;
	if (fstat(fd, &st))
		ret = -errno;
	else if (!S_ISREG(st.st_mode))
		ret = -EOPNOTSUPP;
	if (ret) {
		close(fd);
		return ret;
	}
	if (size)
		*size = (uint64_t)st.st_size;
	return fd;
}

int ckf_pread_all(int fd, void *buf, size_t bytes, uint64_t off)
{
	char *p = buf;

	while (bytes) {
		ssize_t got = pread(fd, p, bytes, (off_t)off);

		if (got < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (!got)
			return -EBADMSG;
		p += got;
		off += (uint64_t)got;
		bytes -= (size_t)got;
	}
	return 0;
}

int ckf_pwrite_all(int fd, const void *buf, size_t bytes, uint64_t off)
{
	const char *p = buf;

	while (bytes) {
		ssize_t n = pwrite(fd, p, bytes, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) /* 0: some file systems in user space */
			return n ? -errno : -EIO;
		p += n;
		off += (uint64_t)n;
		bytes -= (size_t)n;
	}
	return 0;
}

void ckf_iov_copy(const struct iovec *iov, unsigned int nr, uint64_t skip, void *dst, size_t bytes)
{
	char *to = dst;

	for (unsigned int i = 0; i < nr && bytes; i++) {
		size_t len = iov[i].iov_len, n;

		if (skip >= len) {
			skip -= len;
			continue;
		}
		n = len - (size_t)skip < bytes ? len - (size_t)skip : bytes;
		memcpy(to, (const char *)iov[i].iov_base + skip, n);
		to += n;
		bytes -= n;
		skip = 0;
	}
}

bool ckf_is_hole(int fd, uint64_t off, uint64_t bytes)
{
	struct stat st;
	off_t data;

	if (fstat(fd, &st) || off + bytes > (uint64_t)st.st_size)
		return false;
	data = lseek(fd, (off_t)off, SEEK_DATA);
	/* ENXIO: nothing but a hole up to the end of the file. */
	return data < 0 ? errno == ENXIO : (uint64_t)data >= off + bytes;
}
