/* SPDX-License-Identifier: MIT */
/* What the fuzz targets of conversations over sockets have in common. */
#ifndef CKF_FUZZ_COMMON_H
#define CKF_FUZZ_COMMON_H

#include <dirent.h>
#include <stdint.h>
#include <unistd.h>

#include "format/ckf_codec.h"

static inline int open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static inline void empty_dir(const char *path)
{
	struct dirent *de;
	DIR *dir = opendir(path);

	while (dir && (de = readdir(dir)))
		unlinkat(dirfd(dir), de->d_name, 0);
	if (dir)
		closedir(dir);
}

static inline uint64_t random_number(unsigned int seed)
{
	return ckf_hash64(&seed, sizeof(seed));
}

#endif
