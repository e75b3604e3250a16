/* SPDX-License-Identifier: MIT */
/* How much memory there is, for the page cache or to be pinned. */
#ifndef CKF_MEMORY_H
#define CKF_MEMORY_H

#include <stdint.h>

/*
 * What may still be allocated without swapping: by the machine's own account, and by the limits of
 * the memory cgroup of this process. proc_fd is the directory /proc. 0 where it cannot be read.
 */
uint64_t ckf_memory_available(int proc_fd);

#endif
