/* SPDX-License-Identifier: MIT */
/* What is around a fill. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#include <cmocka.h>
#include <liburing.h>

#include "../../format/ckf_disk.h"
#include "around.h"

unsigned int count_entries(const char *path)
{
	DIR *d = opendir(path);
	unsigned int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

void drop_file(int dir_fd, const char *name)
{
	int fd = openat(dir_fd, name, O_RDONLY);

	if (fd < 0)
		return;
	fdatasync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
}

void drop_cache(int dir_fd)
{
	drop_file(dir_fd, CKF_PACK_NAME);
}

bool have_uring(void)
{
	struct io_uring ring;

	if (io_uring_queue_init(1, &ring, 0))
		return false;
	io_uring_queue_exit(&ring);
	return true;
}
