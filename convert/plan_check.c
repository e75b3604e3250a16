/* SPDX-License-Identifier: MIT */
/*
 * Holds the plan against the .img files. Both sides are lists of ranges in ascending order; they
 * are compared as their unions, since the cuts between ops are not those between runs.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckf_opts.h"
#include "loader/ckf_gpu_read.h"
#include "loader/ckf_image.h"
#include "plan_check.h"

/* Walks over ranges, joining those that touch. */
struct range_iter {
	const struct ckf_op *ops; /* one of the two */
	const struct ckf_run *runs;
	uint64_t pos;
	uint64_t nr;
};

static struct plan_range iter_peek(const struct range_iter *it)
{
	const struct ckf_run *run;

	if (it->ops)
		return (struct plan_range){ ckf_op_addr(&it->ops[it->pos]),
					    ckf_op_end(&it->ops[it->pos]) };
	run = &it->runs[it->pos];
	return (struct plan_range){ run->vaddr, run->vaddr + ckf_pages_to_bytes(run->nr_pages) };
}

static bool iter_next(struct range_iter *it, struct plan_range *range)
{
	struct plan_range next;

	if (it->pos == it->nr)
		return false;
	*range = iter_peek(it);
	while (++it->pos < it->nr) {
		next = iter_peek(it);
		if (next.start != range->end)
			break;
		range->end = next.end;
	}
	return true;
}

static struct range_iter iter_ops(const struct ckf_index *idx, const struct ckf_target *t)
{
	return (struct range_iter){ .ops = idx->ops + t->first_op, .nr = t->nr_ops };
}

static int check_pagemap(const struct ckf_index *idx, uint64_t target, const struct ckf_pagemap *pm,
			 struct ckf_error *err)
{
	const struct ckf_target *t = &idx->targets[target];
	struct range_iter ops = iter_ops(idx, t);
	struct range_iter runs = { .runs = pm->runs, .nr = pm->nr_runs };
	bool more_ops, more_runs;

	do {
		struct plan_range op = { 0 };
		struct plan_range run = { 0 };

		more_ops = iter_next(&ops, &op);
		more_runs = iter_next(&runs, &run);
		if (more_ops != more_runs || op.start != run.start || op.end != run.end)
			return ckf_error_rule(
				err, -EBADMSG, "targets", (int64_t)target, 0,
				"R-pagemap: ops are not the pages of %s: ops at 0x%" PRIx64
				"-0x%" PRIx64 ", pages at 0x%" PRIx64 "-0x%" PRIx64,
				pm->name, op.start, op.end, run.start, run.end);
	} while (more_ops);
	return 0;
}

static int compare_name(const void *name, const void *file)
{
	return strcmp(name, ((const struct ckf_file *)file)->name);
}

/* The contents of device memory are there, and are as long as the table says. */
static int check_contents(const struct ckf_index *idx, uint64_t target, const char *name,
			  uint8_t kind, uint64_t bytes, struct ckf_error *err)
{
	const struct ckf_file *f = bsearch(name, idx->files, idx->nr_files, sizeof(*f),
					   compare_name);

	if (!f || f->kind != kind)
		return ckf_error_rule(err, -EBADMSG, "targets", (int64_t)target, 0,
				      "R-gpu: there is no %s of kind %u", name, kind);
	if (ckf_file_page_bytes(f) != bytes)
		return ckf_error_rule(err, -EBADMSG, "targets", (int64_t)target, 0,
				      "R-gpu: length of %s, got %" PRIu64 ", want %" PRIu64, name,
				      ckf_file_page_bytes(f), bytes);
	return 0;
}

static int check_device(const struct ckf_index *idx, uint64_t target, const struct ckf_pagemap *pm,
			struct ckf_error *err)
{
	char name[CKF_GPU_NAME_BYTES];

	if (!pm->gpu || !pm->gpu->bytes)
		return 0;
	return check_contents(idx, target, ckf_gpu_pages_name(pm->pages_id, name), CKF_FILE_PAGES,
			      pm->gpu->bytes, err);
}

/* The memory of an AMD GPU: an image need not have it, so the target says which table to read. */
static int check_amd(const struct ckf_index *idx, uint64_t target, const struct ckf_dump *dump,
		     struct ckf_error *err)
{
	const struct ckf_target *t = &idx->targets[target];
	char name[CKF_AMD_NAME_BYTES];
	const struct ckf_amd_table *table = NULL;
	const struct ckf_amd_gpu *gpu = ckf_amd_find(dump->amd, dump->nr_amd, t->id, &table);
	struct ckf_pagemap pm;
	int ret;

	if (table && table->err.code)
		return ckf_error_rule(err, -EBADMSG, "targets", (int64_t)target, 0, "R-gpu: %s",
				      table->err.msg);
	if (!gpu || !gpu->nr_objects || strcmp(table->name, idx->files[t->file].name) != 0)
		return ckf_error_rule(err, -EBADMSG, "targets", (int64_t)target, 0,
				      "R-pagemap: %s is not the table of %s %" PRIu64,
				      idx->files[t->file].name, ckf_target_kind_name(t->kind),
				      t->id);
	pm = (struct ckf_pagemap){ .name = table->name,
				   .runs = gpu->runs,
				   .nr_runs = gpu->nr_objects };
	ret = check_pagemap(idx, target, &pm, err);
	if (ret)
		return ret;
	ckf_amd_pages_name(table->file_id, gpu->gpu_id, name);
	return check_contents(idx, target, name, CKF_FILE_SIZED_PAGES, gpu->bytes, err);
}

/* A buffer object of a render node. */
static int check_render(const struct ckf_index *idx, uint64_t target, const struct ckf_dump *dump,
			struct ckf_error *err)
{
	const struct ckf_target *t = &idx->targets[target];
	const struct ckf_render_table *table = ckf_render_find(dump->render, dump->nr_render,
							       t->id);
	const uint32_t object = (uint32_t)t->id;
	char name[CKF_RENDER_NAME_BYTES];
	struct ckf_run run = { 0 };
	struct ckf_pagemap pm;
	int ret;

	if (!table || strcmp(table->name, idx->files[t->file].name) != 0)
		return ckf_error_rule(err, -EBADMSG, "targets", (int64_t)target, 0,
				      "R-pagemap: %s is not the table of %s %" PRIu64,
				      idx->files[t->file].name, ckf_target_kind_name(t->kind),
				      t->id);
	if (table->err.code)
		return ckf_error_rule(err, -EBADMSG, "targets", (int64_t)target, 0, "R-gpu: %s",
				      table->err.msg);
	if (object >= table->nr_objects)
		return ckf_error_rule(err, -EBADMSG, "targets", (int64_t)target, 0,
				      "R-gpu: object, got %u, want below %u", object,
				      table->nr_objects);
	if (!ckf_render_bytes_ok(table->bytes[object]))
		return ckf_error_rule(err, -EBADMSG, "targets", (int64_t)target, 0,
				      "R-gpu: object, got %" PRIu64 " bytes, want whole pages",
				      table->bytes[object]);
	run.nr_pages = table->bytes[object] >> CKF_PAGE_SHIFT;
	pm = (struct ckf_pagemap){ .name = table->name, .runs = &run, .nr_runs = 1 };
	ret = check_pagemap(idx, target, &pm, err);
	if (ret)
		return ret;
	return check_contents(idx, target, ckf_render_pages_name(table, object, name),
			      CKF_FILE_HEADED_PAGES, table->bytes[object], err);
}

/* What the table of an AMD target says: whether it is that of a render node. */
static bool is_render(const struct ckf_index *idx, const struct ckf_target *t)
{
	uint32_t file_id;

	return ckf_render_name_parse(idx->files[t->file].name, &file_id);
}

static bool is_amd(const struct ckf_target *t)
{
	return t->kind == CKF_TARGET_DEVICE && ckf_amd_is_target_id(t->id);
}

/* Each file of these kinds is that of a target: as many, since two targets have two names. */
static int check_files_with_heads(const struct ckf_index *idx, uint8_t kind, struct ckf_error *err)
{
	uint64_t files = 0, targets = 0;

	for (uint64_t i = 0; i < idx->nr_files; i++)
		files += idx->files[i].kind == kind;
	for (uint64_t i = 0; i < idx->nr_targets; i++)
		targets += is_amd(&idx->targets[i]) &&
			   is_render(idx, &idx->targets[i]) == (kind == CKF_FILE_HEADED_PAGES);
	if (files == targets)
		return 0;
	return ckf_error_rule(err, -EBADMSG, "targets", -1, 0,
			      "R-gpu: of AMD GPUs, got %" PRIu64 ", want one for each of %" PRIu64
			      " files of kind %u",
			      targets, files, kind);
}

int plan_check_pagemaps(const struct ckf_index *idx, const struct ckf_dump *dump,
			struct ckf_error *err)
{
	int ret;

	for (uint64_t i = 0; i < idx->nr_targets; i++) {
		const struct ckf_target *t = &idx->targets[i];
		const struct ckf_pagemap *pm = ckf_dump_find_pagemap(dump, t->kind, t->id);
		int rc;

		if (is_amd(t)) {
			rc = is_render(idx, t) ? check_render(idx, i, dump, err)
					       : check_amd(idx, i, dump, err);
			if (rc)
				return rc;
			continue;
		}
		if (!pm || strcmp(pm->name, idx->files[t->file].name))
			return ckf_error_rule(err, -EBADMSG, "targets", (int64_t)i, 0,
					      "R-pagemap: %s is not the pagemap of %s %" PRIu64,
					      idx->files[t->file].name,
					      ckf_target_kind_name(t->kind), t->id);
		rc = check_pagemap(idx, i, pm, err);
		if (!rc)
			rc = check_device(idx, i, pm, err);
		if (rc)
			return rc;
	}
	for (uint64_t i = 0; i < dump->nr_pagemaps; i++) {
		const struct ckf_pagemap *pm = &dump->pagemaps[i];

		if (ckf_index_find_target(idx, pm->kind, pm->id) < 0)
			return ckf_error_rule(err, -EBADMSG, "targets", -1, 0,
					      "R-pagemap: none for the pages of %s", pm->name);
	}
	ret = check_files_with_heads(idx, CKF_FILE_SIZED_PAGES, err);
	return ret ? ret : check_files_with_heads(idx, CKF_FILE_HEADED_PAGES, err);
}

static int range_cmp(const void *a, const void *b)
{
	const struct plan_range *x = a;
	const struct plan_range *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

int plan_task_ranges(const struct ckf_task *task, struct plan_range **ranges, uint64_t *nr)
{
	struct plan_range *r = calloc(task->nr_vmas ? task->nr_vmas : 1, sizeof(*r));
	uint64_t n = 0;

	if (!r)
		return -ENOMEM;
	for (uint64_t i = 0; i < task->nr_vmas; i++)
		r[i] = (struct plan_range){ task->vmas[i].start, task->vmas[i].end };
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

static int check_places(const struct ckf_index *idx, uint64_t target, const struct ckf_task *task,
			struct ckf_error *err)
{
	struct range_iter ops = iter_ops(idx, &idx->targets[target]);
	struct plan_range *ranges;
	struct plan_range op;
	uint64_t nr, i = 0;
	int rc;

	rc = plan_task_ranges(task, &ranges, &nr);
	if (rc)
		return ckf_error_set(err, rc, "no memory for the mappings of task %u", task->pid);
	while (!rc && iter_next(&ops, &op)) {
		while (i < nr && ranges[i].end <= op.start)
			i++;
		if (i == nr || op.start < ranges[i].start || op.end > ranges[i].end)
			rc = ckf_error_rule(err, -EBADMSG, "targets", (int64_t)target, 0,
					    "ops at 0x%" PRIx64 "-0x%" PRIx64
					    " are outside of the mappings of task %u",
					    op.start, op.end, task->pid);
	}
	free(ranges);
	return rc;
}

/* Tasks by pid, to be searched. */
static int task_cmp(const void *a, const void *b)
{
	const struct ckf_task *const *x = a;
	const struct ckf_task *const *y = b;

	return ((*x)->pid > (*y)->pid) - ((*x)->pid < (*y)->pid);
}

int plan_check_places(const struct ckf_index *idx, const struct ckf_dump *dump, uint64_t *unknown,
		      struct ckf_error *err)
{
	const struct ckf_task **tasks = calloc(dump->nr_tasks + 1, sizeof(struct ckf_task *));
	int rc = 0;

	*unknown = 0;
	if (!tasks)
		return ckf_error_set(err, -ENOMEM, "no memory for a list of tasks");
	for (uint64_t i = 0; i < dump->nr_tasks; i++)
		tasks[i] = &dump->tasks[i];
	qsort(tasks, dump->nr_tasks, sizeof(*tasks), task_cmp);
	for (uint64_t i = 0; !rc && i < idx->nr_targets; i++) {
		const struct ckf_target *t = &idx->targets[i];
		struct ckf_task key = { .pid = (uint32_t)t->id };
		const struct ckf_task *key_ptr = &key;
		const struct ckf_task **task = NULL;

		if (t->kind != CKF_TARGET_TASK)
			continue;
		if (t->id <= UINT32_MAX)
			task = bsearch(&key_ptr, tasks, dump->nr_tasks, sizeof(*tasks), task_cmp);
		if (task)
			rc = check_places(idx, i, *task, err);
		else
			++*unknown;
	}
	free(tasks);
	return rc;
}

int ckf_verify_plan(const struct ckf_image *img, struct ckf_plan_stats *stats,
		    struct ckf_error *err)
{
	struct ckf_plan_stats own = { .size = sizeof(own) };
	const struct ckf_dir dir = { .fd = img->dir_fd, .members = img->members };
	struct ckf_dump *dump = NULL;
	int ret = stats ? CKF_OPTS_CHECK(ckf_plan_stats, stats, err) : 0;

	if (ret)
		return ret;
	ret = ckf_dump_open_dir(&dir, true, &dump, err);
	if (!ret)
		ret = plan_check_pagemaps(img->idx, dump, err);
	if (!ret) {
		own.pagemaps = true;
		ret = plan_check_places(img->idx, dump, &own.unknown_tasks, err);
	}
	ckf_dump_close(dump);
	if (stats)
		ckf_opts_give(stats, &own, sizeof(own));
	return ret;
}
