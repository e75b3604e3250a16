/* SPDX-License-Identifier: MIT */
/* What kind of memory a VMA of a dump is: the bits of CRIU's mm images, and what follows. */
#ifndef CKF_CONVERT_VMA_H
#define CKF_CONVERT_VMA_H

#include <sys/mman.h>

#include "ckf_dump.h"

#define CKF_VMA_AREA_REGULAR (1u << 0) /* criu/include/image.h */
#define CKF_VMA_ANON_SHARED (1u << 8)
#define CKF_VMA_ANON_PRIVATE (1u << 9)
#define CKF_VMA_EXT_PLUGIN (1u << 27)

/* True when CRIU's restorer maps the VMA and reads its pages itself, from the pages file. */
static inline bool ckf_vma_is_verbatim(const struct ckf_vma *v)
{
	return (v->flags & MAP_HUGETLB) || (v->status & CKF_VMA_EXT_PLUGIN);
}

/* True when its memory may come in huge pages without a change that the task could see. */
static inline bool ckf_vma_may_be_huge(const struct ckf_vma *v)
{
	return (v->status & CKF_VMA_AREA_REGULAR) && (v->status & CKF_VMA_ANON_PRIVATE) &&
	       !(v->flags & MAP_GROWSDOWN) && !(v->madv & (1ull << MADV_NOHUGEPAGE)) &&
	       !ckf_vma_is_verbatim(v);
}

#endif
