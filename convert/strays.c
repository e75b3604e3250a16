/* SPDX-License-Identifier: MIT */
/* An earlier dump in the directory leaves pagemaps whose pages files the newer one replaces. */
#include <errno.h>
#include <stdlib.h>

#include "base/ckf_table.h"
#include "img.h"
#include "stream.h"
#include "strays.h"

/* The N of pages-N.img that pagemaps name, ascending; an N is there once for each pagemap. */
struct page_ids {
	uint32_t *v;
	uint64_t nr;
};

static int read_ids(const struct ckf_dump *d, struct page_ids *ids)
{
	ids->v = calloc((size_t)d->nr_pagemaps + 1, sizeof(*ids->v));
	if (!ids->v)
		return -ENOMEM;
	for (uint64_t i = 0; i < d->nr_pagemaps; i++) {
		const struct ckf_pagemap *pm = &d->pagemaps[i];

		if (!pm->unreadable && pm->kind != CKF_TARGET_DEVICE)
			ids->v[ids->nr++] = pm->pages_id;
	}
	qsort(ids->v, (size_t)ids->nr, sizeof(*ids->v), ckf_compare_u32);
	return 0;
}

static bool is_shared(const struct page_ids *ids, uint32_t id)
{
	const uint32_t *at = bsearch(&id, ids->v, (size_t)ids->nr, sizeof(id), ckf_compare_u32);

	return at && ((at > ids->v && at[-1] == id) || (at + 1 < ids->v + ids->nr && at[1] == id));
}

/*
 * True when a pagemap cannot have its pages: the file is too short, or that of another pagemap, or
 * there is no parent dump for them to be in.
 */
static bool lacks_pages(const struct ckf_dump *d, const struct ckf_file_list *l,
			const struct page_ids *ids, const struct ckf_pagemap *pm)
{
	const struct ckf_origin origin = ckf_origin_of(pm);
	char name[CKF_ORIGIN_NAME_BYTES];
	int64_t at = ckf_file_list_find(l, ckf_origin_name(d, &origin, name));

	if (pm->nr_pages > pm->nr_local_pages && !d->has_parent)
		return true;
	if (at < 0)
		return pm->nr_local_pages;
	return is_shared(ids, pm->pages_id) || !ckf_pagemap_fits(pm, l->files[at].size_bytes);
}

static bool is_dropped(const void *arg, const char *name)
{
	const struct ckf_dump *d = arg;
	const struct ckf_pagemap *pm;
	uint32_t kind;
	uint64_t id;

	if (!ckf_pagemap_name_parse(name, &kind, &id))
		return false;
	pm = ckf_dump_find_pagemap(d, kind, id);
	return pm && pm->stray;
}

static void drop_pagemaps(struct ckf_dump *d)
{
	uint64_t nr = 0;

	for (uint64_t i = 0; i < d->nr_pagemaps; i++) {
		if (d->pagemaps[i].stray)
			ckf_pagemap_fini(&d->pagemaps[i]);
		else
			d->pagemaps[nr++] = d->pagemaps[i];
	}
	d->nr_pagemaps = nr;
}

int ckf_drop_strays(struct ckf_dump *d, struct ckf_file_list *l,
		    const struct ckf_convert_opts *opts, struct ckf_error *err)
{
	struct page_ids ids = { 0 };

	if (read_ids(d, &ids))
		return ckf_error_set(err, -ENOMEM, "no memory for the pagemaps");
	for (uint64_t i = 0; i < d->nr_pagemaps; i++) {
		struct ckf_pagemap *pm = &d->pagemaps[i];

		pm->stray = pm->unreadable || (!ckf_dump_has_target(d, pm->kind, pm->id) &&
					       lacks_pages(d, l, &ids, pm));
		if (pm->stray)
			ckf_warn(opts, "%s is left of an older dump: no %s; left out", pm->name,
				 pm->kind == CKF_TARGET_SHMEM
					 ? "task, memfd or IPC namespace has that memory"
					 : "task of pstree.img has it");
	}
	ckf_file_list_drop_stale(l, is_dropped, d);
	drop_pagemaps(d);
	free(ids.v);
	return 0;
}
