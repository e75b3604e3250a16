/* SPDX-License-Identifier: MIT */
/* Arrays that grow. */
#ifndef CKF_ARRAY_H
#define CKF_ARRAY_H

#include <stddef.h>
#include <stdint.h>

/*
 * Makes room for one more entry of entry_bytes in *array, which has nr entries and room for *cap.
 * Growth is geometric. 0 or -ENOMEM, with *array as it was.
 */
int ckf_array_grow(void *array, uint64_t nr, uint64_t *cap, size_t entry_bytes);

#endif
