/* SPDX-License-Identifier: MIT */
/* Copies to pages that are not there yet, many in one system call. Private to the loader. */
#ifndef CKF_COPY_H
#define CKF_COPY_H

#include "fill.h"

/* One per thread. Sources must stay as they are until the flush. */
struct fill_copy {
	unsigned int nr_src;
	unsigned int nr_dst;
	uint64_t bytes;
	int file; /* above 0: what a dst is a shared mapping of, file_at being its first byte */
	char *file_at;
	struct iovec src[FILL_COPY_IOVS];
	struct iovec dst[FILL_COPY_IOVS];
};

static inline void fill_copy_init(struct fill_copy *c)
{
	c->nr_src = 0;
	c->nr_dst = 0;
	c->bytes = 0;
	c->file = 0;
}

/* 0 or -errno. */
int fill_copy_add(struct fill_copy *c, char *dst, const char *src, uint64_t bytes);
int fill_copy_flush(struct fill_copy *c);

#endif
