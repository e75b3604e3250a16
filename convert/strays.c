/* SPDX-License-Identifier: MIT */
/* An earlier dump in the directory leaves pagemaps whose pages files the newer one replaces. */
#include <string.h>

#include "stream.h"
#include "strays.h"

/* True for a pagemap of a task that this dump does not have: CRIU never opens it. */
static bool is_stray(const struct ckf_dump *d, const struct ckf_pagemap *pm)
{
	return pm->kind == CKF_TARGET_TASK && d->nr_tasks && !ckf_dump_find_task(d, pm->id);
}

/* True when a pagemap cannot have its pages file: it is too short, or that of another pagemap. */
static bool lacks_pages(const struct ckf_dump *d, const struct ckf_file_list *l, uint64_t i)
{
	const struct ckf_pagemap *pm = &d->pagemaps[i];
	const struct ckf_origin origin = ckf_origin_of(pm);
	char name[CKF_ORIGIN_NAME_BYTES];
	int64_t at = ckf_file_list_find(l, ckf_origin_name(d->amd, &origin, name));

	if (at < 0)
		return pm->nr_local_pages;
	for (uint64_t k = 0; k < d->nr_pagemaps; k++) {
		const struct ckf_pagemap *other = &d->pagemaps[k];

		if (k != i && !other->unreadable && other->kind != CKF_TARGET_DEVICE &&
		    other->pages_id == pm->pages_id)
			return true;
	}
	return l->files[at].size_bytes / CKF_PAGE_BYTES < pm->nr_local_pages;
}

void ckf_drop_strays(struct ckf_dump *d, struct ckf_file_list *l,
		     const struct ckf_convert_opts *opts)
{
	for (uint64_t i = d->nr_pagemaps; i-- > 0;) {
		struct ckf_pagemap *pm = &d->pagemaps[i];

		if (!pm->unreadable && (!is_stray(d, pm) || !lacks_pages(d, l, i)))
			continue;
		ckf_warn(opts,
			 "%s is left of an older dump: no task of pstree.img has it; left out",
			 pm->name);
		ckf_file_list_remove(l, pm->name);
		ckf_pagemap_fini(pm);
		d->nr_pagemaps--;
		memmove(pm, pm + 1, (size_t)(d->nr_pagemaps - i) * sizeof(*pm));
	}
}
