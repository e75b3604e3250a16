/* SPDX-License-Identifier: MIT */
/* What a fill leaves behind, and what it may find: for tests of the loader. */
#ifndef CKF_TEST_AROUND_H
#define CKF_TEST_AROUND_H

#include <stdbool.h>

/* The entries of a directory, with "." and "..". */
unsigned int count_entries(const char *path);

/* Puts the pack of an image out of the page cache. Does nothing when there is none. */
void drop_cache(int dir_fd);

/* True when this kernel lets us use io_uring. */
bool have_uring(void);

#endif
