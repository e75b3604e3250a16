/* SPDX-License-Identifier: MIT */
/* Whether a file is read from memory or from a disk. */
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <linux/magic.h>

#include "io_util.h"

#define CACHED_PERCENT 90 /* in the page cache: then copying beats the disk */

#ifndef SYS_cachestat
#define SYS_cachestat 451 /* Linux 6.5, the same on all architectures */
#endif

struct cache_range {
	uint64_t off;
	uint64_t len;
};

struct cache_stat {
	uint64_t nr_cache;
	uint64_t nr_dirty;
	uint64_t nr_writeback;
	uint64_t nr_evicted;
	uint64_t nr_recently_evicted;
};

bool ckf_fd_is_cached(int fd, uint64_t bytes)
{
	struct cache_range range = { 0, 0 };
	struct cache_stat cs;
	struct statfs fs;

	return (!fstatfs(fd, &fs) && fs.f_type == TMPFS_MAGIC) ||
	       (!syscall(SYS_cachestat, fd, &range, &cs, 0) &&
		ckf_pages_to_bytes(cs.nr_cache) >= bytes / 100 * CACHED_PERCENT);
}
