/* SPDX-License-Identifier: MIT */
/* How much memory there is, for the page cache or to be pinned. */
#ifndef CKF_MEMORY_H
#define CKF_MEMORY_H

#include <stdint.h>

/*
 * What may still be allocated without swapping: by the machine's own account, and by the limits of
 * the memory cgroup of this process. proc_fd is the directory /proc. 0, or -errno where it cannot
 * be told, as for lack of descriptors.
 */
int ckf_memory_available(int proc_fd, uint64_t *bytes);

#endif
