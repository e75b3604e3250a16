/* SPDX-License-Identifier: MIT */
/* Small helpers that the files of loader/ share. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "io_util.h"

#define PACK_NAME_BYTES 256 /* longer paths are cut off */

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

/* How messages call the pack that a chunk lies in. */
static const char *pack_name(const struct ckf_index *idx, const struct ckf_chunk *c, char *buf,
			     size_t buf_bytes)
{
	if (!c->base)
		return CKF_PACK_NAME;
	snprintf(buf, buf_bytes, CKF_PACK_NAME " of base %u (%s)", c->base,
		 idx->bases[c->base - 1].path);
	return buf;
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

int ckf_chunk_error(const struct ckf_index *idx, uint64_t chunk, int ret, uint64_t got,
		    struct ckf_error *err)
{
	const struct ckf_chunk *c = &idx->chunks[chunk];
	char name[PACK_NAME_BYTES];

	if (ret != -EBADMSG && ret != -EOPNOTSUPP)
		return ckf_error_set(err, ret, "cannot decode chunk %llu: %s",
				     (unsigned long long)chunk, strerror(-ret));
	if (got)
		return ckf_error_rule(err, ret, "chunks", (int64_t)chunk, c->pack_off,
				      "wrong checksum of the %s data in %s"
				      ", got %016llx, want %016llx",
				      ckf_codec_name(c->codec),
				      pack_name(idx, c, name, sizeof(name)),
				      (unsigned long long)got, (unsigned long long)c->checksum);
	return ckf_error_rule(err, ret, "chunks", (int64_t)chunk, c->pack_off,
			      "%s data in %s does not decode to %u pages", ckf_codec_name(c->codec),
			      pack_name(idx, c, name, sizeof(name)), c->nr_pages);
}

int ckf_thread_start(pthread_t *thread, void *(*run)(void *), void *arg)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = -pthread_create(thread, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ret;
}

uint64_t ckf_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void ckf_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

bool ckf_cond_wait_ms(pthread_cond_t *cond, pthread_mutex_t *lock, unsigned int timeout_ms)
{
	const uint64_t end_ns = ckf_now_ns() + timeout_ms * 1000000ull;
	const struct timespec end = { .tv_sec = (time_t)(end_ns / 1000000000u),
				      .tv_nsec = (long)(end_ns % 1000000000u) };

	return pthread_cond_timedwait(cond, lock, &end) != ETIMEDOUT;
}
