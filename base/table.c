/* SPDX-License-Identifier: MIT */
#include "ckf_table.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "ckf_types.h"

void *ckf_table_alloc(size_t bytes)
{
	void *p;

	if (bytes < CKF_HUGE_BYTES || bytes > SIZE_MAX - CKF_HUGE_BYTES)
		return malloc(bytes);
	bytes = (size_t)ckf_align_up(bytes, CKF_HUGE_BYTES);
	p = aligned_alloc(CKF_HUGE_BYTES, bytes);
	if (p)
		(void)madvise(p, bytes, MADV_HUGEPAGE);
	return p;
}

void *ckf_table_alloc_shared(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

void ckf_table_free_shared(void *p, size_t bytes)
{
	if (p)
		munmap(p, bytes);
}

int ckf_compare_u32(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}
