/* SPDX-License-Identifier: MIT */
/* What a fill leaves behind, and what it may find: for tests of what reads and writes. */
#ifndef CKF_TEST_AROUND_H
#define CKF_TEST_AROUND_H

#include <stdbool.h>

/* The entries of a directory, with "." and "..". */
unsigned int count_entries(const char *path);

/* True when /proc/self/task has so many entries or fewer, at once or in a few seconds: a thread
 * that was joined is still listed for a moment. */
bool few_threads(unsigned int most);

/* Puts a file, or the pack of an image, out of the page cache. Does nothing when there is none. */
void drop_file(int dir_fd, const char *name);
void drop_cache(int dir_fd);

/* A file with that text, and a directory, below top: for directories that stand for /proc and the
 * like. */
void put_file(const char *top, const char *name, const char *text);
void make_dir(const char *top, const char *name);

/* True when this kernel lets us use io_uring. */
bool have_uring(void);

#endif
