/* SPDX-License-Identifier: MIT */
/* Memory for tables that may be large, and their order. */
#ifndef CKF_TABLE_H
#define CKF_TABLE_H

#include <stddef.h>

/*
 * As malloc(), and for free(). 2 MiB and more lie in huge pages where the kernel gives them: the
 * index of an image of 16 GiB takes 20 MiB, and most of the time to read it would go into page
 * faults. A process that is forked has less to copy, too.
 */
void *ckf_table_alloc(size_t bytes);

/*
 * Memory that fork() does not copy: not even its page tables, which the children make where they
 * look. bytes: not 0. NULL without memory; ckf_table_free_shared() takes it.
 */
void *ckf_table_alloc_shared(size_t bytes);
void ckf_table_free_shared(void *p, size_t bytes);

/* Of uint32_t, for qsort(). */
int ckf_compare_u32(const void *a, const void *b);

#endif
