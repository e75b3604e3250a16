/* SPDX-License-Identifier: MIT */
/* Directories, and questions to a dump that more than one verb asks. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "ckf_cli.h"

int cli_open_dir(const char *path, struct ckf_error *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd >= 0 ? fd : ckf_error_set(err, -errno, "cannot open: %s", strerror(errno));
}

const struct ckf_pagemap *cli_find_pagemap(const struct ckf_dump *dump, uint32_t kind, uint64_t id)
{
	uint64_t lo = 0;
	uint64_t hi = dump->nr_pagemaps;

	while (lo < hi) {
		uint64_t mid = lo + (hi - lo) / 2;
		const struct ckf_pagemap *pm = &dump->pagemaps[mid];

		if (pm->kind == kind && pm->id == id)
			return pm;
		if (pm->kind < kind || (pm->kind == kind && pm->id < id))
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

static int range_cmp(const void *a, const void *b)
{
	const struct cli_range *x = a;
	const struct cli_range *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

int cli_task_ranges(const struct ckf_task *task, struct cli_range **ranges, uint64_t *nr)
{
	struct cli_range *r = calloc(task->nr_vmas ? task->nr_vmas : 1, sizeof(*r));
	uint64_t n = 0;

	if (!r)
		return -ENOMEM;
	for (uint64_t i = 0; i < task->nr_vmas; i++)
		r[i] = (struct cli_range){ task->vmas[i].start, task->vmas[i].end };
	qsort(r, task->nr_vmas, sizeof(*r), range_cmp);
	for (uint64_t i = 0; i < task->nr_vmas; i++) {
		if (n && r[i].start <= r[n - 1].end) {
			if (r[i].end > r[n - 1].end)
				r[n - 1].end = r[i].end;
		} else {
			r[n++] = r[i];
		}
	}
	*ranges = r;
	*nr = n;
	return 0;
}
