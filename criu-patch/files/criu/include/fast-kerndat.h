/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What CRIU has found out about the kernel, kept also where its runtime directory is no tmpfs, as in most
 * containers. There CRIU asks the kernel again each time it starts, which takes as long as restoring a small
 * process. A file on a disk outlives the boot that it is true of, so it begins with the id of that boot.
 */
#ifndef __CR_FAST_KERNDAT_H__
#define __CR_FAST_KERNDAT_H__

#include <stdbool.h>
#include <stddef.h>

/* An fd of what was kept, to read it; name is where CRIU keeps it on a tmpfs. -1 with errno: nothing was. */
extern int fast_kerndat_open(const char *name);

/* False: CRIU can keep it, on a tmpfs. True where it cannot, also if it cannot be kept here either. */
extern bool fast_kerndat_save(const char *name, const void *kdat, size_t size);

#endif /* __CR_FAST_KERNDAT_H__ */
