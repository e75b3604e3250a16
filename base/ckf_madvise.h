/* SPDX-License-Identifier: MIT */
/* Advice that is younger than the headers it may be built with. The kernel says whether it knows
 * it. */
#ifndef CKF_MADVISE_H
#define CKF_MADVISE_H

#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

#endif
