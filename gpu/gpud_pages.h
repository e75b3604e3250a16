/* SPDX-License-Identifier: MIT */
/* Private to gpud: the pages file of a dump, written by many threads at once. */
#ifndef CKF_GPUD_PAGES_H
#define CKF_GPUD_PAGES_H

#include "../format/ckf_error.h"
#include "../format/ckf_types.h"

struct gpud_pages;

/* A new file of that length, all of it a hole. There must be none of that name. */
int gpud_pages_create(int dir_fd, const char *name, uint64_t bytes, struct gpud_pages **out,
		      struct ckf_error *err);
/* Whole pages, at an offset that is a multiple of the page size. */
int gpud_pages_write(struct gpud_pages *p, const void *buf, size_t bytes, uint64_t off,
		     struct ckf_error *err);
int gpud_pages_close(struct gpud_pages *p, struct ckf_error *err);

#endif
