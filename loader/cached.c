/* SPDX-License-Identifier: MIT */
/* Whether a file is read from memory or from a disk. */
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <linux/magic.h>

#include "ckf_read.h"

#define CACHED_PERCENT 90 /* in the page cache: then copying beats the disk */
/* Looking at all of a large pack takes as long as reading a tenth of it. */
#define SAMPLES 64
#define SAMPLE_PAGES 64

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

/* True when nearly all of the file is in the page cache, as far as samples of it tell. */
static bool in_page_cache(int fd, uint64_t file_bytes)
{
	uint64_t step = file_bytes / SAMPLES & ~(CKF_PAGE_BYTES - 1ull);
	struct cache_range range = { .len = ckf_pages_to_bytes(SAMPLE_PAGES) };
	uint64_t found = 0, bytes = 0;
	struct cache_stat cs;

	if (step < range.len)
		step = range.len = file_bytes;
	for (; range.off + range.len <= file_bytes; range.off += step) {
		if (syscall(SYS_cachestat, fd, &range, &cs, 0))
			return false;
		found += cs.nr_cache;
		bytes += range.len;
	}
	return ckf_pages_to_bytes(found) >= bytes / 100 * CACHED_PERCENT;
}

bool ckf_range_is_cached(int fd, uint64_t off, uint64_t bytes)
{
	struct cache_range range = { .off = off, .len = bytes };
	struct cache_stat cs;

	return !syscall(SYS_cachestat, fd, &range, &cs, 0) &&
	       ckf_pages_to_bytes(cs.nr_cache) >= bytes;
}

bool ckf_fd_is_cached(int fd, uint64_t bytes)
{
	struct statfs fs;

	return (!fstatfs(fd, &fs) && fs.f_type == TMPFS_MAGIC) || in_page_cache(fd, bytes);
}
