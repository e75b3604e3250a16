/* SPDX-License-Identifier: MIT */
/* How fast the storage of a directory reads. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <linux/magic.h>

#include "base/ckf_io_util.h"
#include "base/ckf_threads.h"
#include "ckf_model.h"

#define PIECE_BYTES ((size_t)8 << 20)
#define NR_PIECES 4
#define MAX_SPEED 1e18

bool ckf_storage_is_ram(int dir_fd)
{
	struct statfs st;

	return !fstatfs(dir_fd, &st) && (st.f_type == TMPFS_MAGIC || st.f_type == RAMFS_MAGIC);
}

/* Bytes that no file system stores as fewer: each piece has other ones. */
static void make_noise(uint64_t *p, uint64_t seed)
{
	uint64_t v = seed * 0x9e3779b97f4a7c15 + 1;

	for (size_t i = 0; i < PIECE_BYTES / sizeof(*p); i++) {
		v ^= v << 13;
		v ^= v >> 7;
		v ^= v << 17;
		p[i] = v;
	}
}

/* An fd of the same file that reads past the page cache. */
static int open_direct(int fd)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
}

/* That of the fastest piece: what else is going on makes others slower. 0: cannot be measured. */
static uint64_t read_speed(int fd, void *buf)
{
	uint64_t best_ns = UINT64_MAX;

	for (uint64_t i = 0; i < NR_PIECES; i++) {
		uint64_t start = ckf_now_ns(), ns;

		if (ckf_pread_all(fd, buf, PIECE_BYTES, i * PIECE_BYTES))
			return 0;
		ns = ckf_now_ns() - start;
		if (ns < best_ns)
			best_ns = ns;
	}
	return PIECE_BYTES * 1000000000ull / (best_ns ? best_ns : 1);
}

uint64_t ckf_storage_round(uint64_t bytes_per_s)
{
	double step = 1;

	/* 2 to the 1/4 is where a step is as far away as the next one. */
	while (step < MAX_SPEED && step * 1.1892 <= (double)bytes_per_s)
		step *= 1.4142135623730951;
	return (uint64_t)step;
}

bool ckf_storage_measure(int dir_fd, struct ckf_storage *out)
{
	void *buf = aligned_alloc(CKF_HUGE_BYTES, PIECE_BYTES);
	int fd = openat(dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), direct = -1;
	uint64_t speed = 0;
	int ret = 0;

	if (fd < 0 || !buf)
		goto out;
	for (uint64_t i = 0; i < NR_PIECES && !ret; i++) {
		make_noise(buf, i + 1);
		ret = ckf_pwrite_all(fd, buf, PIECE_BYTES, i * PIECE_BYTES);
	}
	if (ret || fsync(fd))
		goto out;
	direct = open_direct(fd);
	if (direct >= 0)
		speed = read_speed(direct, buf);
out:
	if (direct >= 0)
		close(direct);
	if (fd >= 0)
		close(fd);
	free(buf);
	ckf_profile_get(CKF_PROFILE_NVME, out);
	if (speed) {
		out->bytes_per_s = ckf_storage_round(speed);
		out->profile = CKF_PROFILE_NUMBER;
		out->measured = true;
	}
	return speed != 0;
}
