/* SPDX-License-Identifier: MIT */
#include "ckf_array.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ckf_types.h"

int ckf_array_grow(void *array, uint64_t nr, uint64_t *cap, size_t entry_bytes)
{
	uint64_t want = *cap + *cap / 2 + 16;
	uint64_t bytes;
	void *p;

	if (nr < *cap)
		return 0;
	if (ckf_mul_overflow(want, entry_bytes, &bytes) || bytes > SIZE_MAX / 2)
		return -ENOMEM;
	memcpy(&p, array, sizeof(p));
	p = realloc(p, (size_t)bytes);
	if (!p)
		return -ENOMEM;
	memcpy(array, &p, sizeof(p));
	*cap = want;
	return 0;
}
