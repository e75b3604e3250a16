/* SPDX-License-Identifier: MIT */
/* What is around a fill, or what else is under test. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <liburing.h>

#include "format/ckf_disk.h"
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

bool few_threads(unsigned int most)
{
	for (int i = 0; i < 5000 && count_entries("/proc/self/task") > most; i++)
		usleep(1000);
	return count_entries("/proc/self/task") <= most;
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

void put_file(const char *top, const char *name, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", top, name);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

void make_dir(const char *top, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", top, name);
	assert_int_equal(mkdir(path, 0700), 0);
}
