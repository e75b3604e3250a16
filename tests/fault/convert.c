/* SPDX-License-Identifier: MIT */
/* Reading a dump, and converting it there and back. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ckfast_needs.h"
#include "convert/ckf_model.h"
#include "convert/vma.h"
#include "tests/unit/dump_maker.h"
#include "tests/unit/needs_maker.h"
#include "world.h"

#define ADDR 0x7f0000000000ull
#define THREADS 2
#define HUGETLB_PAGE 24 /* pages 24 to 31 are read by CRIU's restorer */

static uint64_t addr_of(uint32_t page)
{
	return ADDR + ckf_pages_to_bytes(page);
}

static void put_pages(int dir, uint32_t id, uint32_t first, uint32_t nr)
{
	uint32_t values[64];

	for (uint32_t i = 0; i < nr; i++)
		values[i] = i % 9 == 4 ? 0 : first + i;
	dm_pages(dir, id, values, nr);
}

/* Pages that CRIU has compressed, one by one or several at once. */
static void put_packed(int dir, uint32_t pid, uint32_t id, uint32_t first, uint32_t nr,
		       uint64_t vaddr, uint32_t block_pages)
{
	uint32_t values[64];

	for (uint32_t i = 0; i < nr; i++)
		values[i] = i % 9 == 4 ? 0 : first + i;
	dm_packed(dir, pid, id, vaddr, values, nr, block_pages);
}

/* Device memory of the task: a little data, the rest a hole. */
static void put_device(int dir)
{
	struct ckf_gpu_device device = { .name = "GPU" };
	struct ckf_gpu_alloc alloc = { .addr = ADDR, .bytes = CKF_HUGE_BYTES };
	struct ckf_gpu_dump d = {
		.pid = 100, .devices = &device, .nr_devices = 1, .allocs = &alloc, .nr_allocs = 1
	};
	uint8_t page[CKF_PAGE_BYTES];
	size_t bytes;
	void *buf;
	int fd;

	need(!ckf_gpu_dump_encode(&d, &buf, &bytes, NULL), "no memory");
	dm_write(dir, "ckfast-gpu-100.img", buf, bytes);
	free(buf);
	dm_page(12, page);
	dm_write(dir, "ckfast-gpu-pages-100.img", page, sizeof(page));
	fd = openat(dir, "ckfast-gpu-pages-100.img", O_WRONLY);
	need(fd >= 0 && !ftruncate(fd, CKF_HUGE_BYTES), "cannot write the pages");
	close(fd);
}

/* Memory of two AMD GPUs, of which one has nothing to take. */
static void put_amd(int dir)
{
	static const struct dm_amd_object objects[] = { { 0x1a, 1, 3 * CKF_PAGE_BYTES },
							{ 0xbeef, 4, 5 },
							{ 0x1a, 2, 2 * CKF_PAGE_BYTES } };
	static const uint32_t gpus[] = { 0x1a, 0xbeef }, values[] = { 12, 0, 0, 70, 71 };

	dm_amd_table(dir, 7, 100, gpus, 2, objects, 3);
	dm_amd_pages(dir, 7, 0x1a, values, 5);
	dm_amd_pages(dir, 7, 0xbeef, values, 0);
}

/* Buffer objects of a render node, of which the last has a file that is too short. */
static void put_render(int dir)
{
	static const uint64_t bytes[] = { 3 * CKF_PAGE_BYTES, CKF_PAGE_BYTES, CKF_PAGE_BYTES };
	static const uint32_t values[] = { 12, 0, 81 };

	dm_render_table(dir, 9, 128, bytes, 3);
	dm_render_pages(dir, "amdgpu-drm-pages-9-128-0000.img", 5, values, 3);
	dm_render_pages(dir, "amdgpu-drm-pages-9-128-0001.img", 0, values + 2, 1);
	dm_render_pages(dir, "amdgpu-drm-pages-9-128-0002.img", 0, values, 0);
}

/*
 * A task, a child with the same pages but for some at the end, a shared object, device memory; the
 * first pages of the task, compressed, and those of the object are in the parent dump.
 */
static void make_dumps(struct world *w)
{
	const struct dm_entry pre[] = { { addr_of(0), 12, DM_PRESENT } };
	const struct dm_entry task[] = {
		{ addr_of(0), 10, DM_PARENT },
		{ addr_of(10), 10, DM_PRESENT },
		{ addr_of(HUGETLB_PAGE), 8, DM_PRESENT },
	};
	const struct dm_entry shmem_pre[] = { { 0, 3, DM_PRESENT } };
	const struct dm_entry shmem[] = { { 0, 3, DM_PARENT }, { 0x8000, 5, DM_PRESENT } };
	struct ckf_vma vmas[] = {
		{ .start = addr_of(0),
		  .end = addr_of(HUGETLB_PAGE),
		  .flags = MAP_PRIVATE | MAP_ANONYMOUS,
		  .status = CKF_VMA_AREA_REGULAR | CKF_VMA_ANON_PRIVATE },
		{ .start = addr_of(HUGETLB_PAGE),
		  .end = addr_of(HUGETLB_PAGE + 8),
		  .flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB,
		  .status = CKF_VMA_AREA_REGULAR | CKF_VMA_ANON_PRIVATE },
	};
	const struct ckf_task tasks[] = {
		{ .pid = 100, .vmas = vmas, .nr_vmas = 2, .comm = "parent" },
		{ .pid = 9, .ppid = 100, .vmas = vmas, .nr_vmas = 1, .comm = "child" },
	};
	char path[128];
	int dir = dm_mkdir(w->base, "pre", path, sizeof(path));

	put_packed(dir, 100, 1, 100, (uint32_t)pre[0].nr_pages, pre[0].vaddr, 5);
	dm_pagemap(dir, "pagemap-shmem-5.img", 2, DM_41, shmem_pre, 1);
	put_pages(dir, 2, 50, 3);
	close(dir);
	dir = dm_mkdir(w->base, "dump", w->dump, sizeof(w->dump));
	need(!symlinkat("../pre", dir, "parent"), "cannot make a link");
	dm_inventory(dir);
	dm_tasks(dir, tasks, 2);
	dm_pagemap(dir, "pagemap-100.img", 1, DM_42, task, 3);
	put_pages(dir, 1, 10, 18);
	put_packed(dir, 9, 2, 10, 14, addr_of(10), 1);
	dm_pagemap(dir, "pagemap-shmem-5.img", 3, DM_41, shmem, 2);
	dm_memfd(dir, 5);
	put_pages(dir, 3, 53, 5);
	put_device(dir);
	nm_files(dir);
	nm_fs(dir, 100);
	nm_namespaces(dir, 100, 1, 2);
	nm_machine(dir);
	put_amd(dir);
	put_render(dir);
	dm_write(dir, "other", "of no pagemap", 13);
	need(!fchmodat(dir, "other", 0751, 0), "cannot set a mode");
	close(dir);
}

static int run_dump_open(struct world *w, struct ckf_error *err)
{
	w->read = NULL;
	return ckf_dump_open(w->dump, &w->read, err);
}

/* By fields: nobody sets the bytes between them. */
static bool same_runs(const struct ckf_run *a, const struct ckf_run *b, uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i++)
		if (a[i].vaddr != b[i].vaddr || a[i].nr_pages != b[i].nr_pages ||
		    a[i].in_parent != b[i].in_parent)
			return false;
	return true;
}

static bool same_vmas(const struct ckf_vma *a, const struct ckf_vma *b, uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i++)
		if (a[i].start != b[i].start || a[i].end != b[i].end || a[i].pgoff != b[i].pgoff ||
		    a[i].shmid != b[i].shmid || a[i].prot != b[i].prot ||
		    a[i].flags != b[i].flags || a[i].status != b[i].status ||
		    a[i].madv != b[i].madv)
			return false;
	return true;
}

static bool same_pagemap(const struct ckf_pagemap *a, const struct ckf_pagemap *b)
{
	return a->kind == b->kind && a->id == b->id && !strcmp(a->name, b->name) &&
	       a->pages_id == b->pages_id && a->nr_pages == b->nr_pages &&
	       a->nr_local_pages == b->nr_local_pages && a->nr_runs == b->nr_runs &&
	       same_runs(a->runs, b->runs, a->nr_runs);
}

static bool same_task(const struct ckf_task *a, const struct ckf_task *b)
{
	return a->pid == b->pid && a->ppid == b->ppid && !strcmp(a->comm, b->comm) &&
	       a->nr_vmas == b->nr_vmas && same_vmas(a->vmas, b->vmas, a->nr_vmas);
}

static bool same_table(const struct ckf_amd_table *a, const struct ckf_amd_table *b)
{
	bool same = a->err.code == b->err.code && a->nr_gpus == b->nr_gpus;

	for (uint32_t i = 0; same && i < a->nr_gpus; i++)
		same = a->gpus[i].bytes == b->gpus[i].bytes &&
		       same_runs(a->gpus[i].runs, b->gpus[i].runs, a->gpus[i].nr_objects);
	return same;
}

static bool same_render(const struct ckf_render_table *a, const struct ckf_render_table *b)
{
	return a->err.code == b->err.code && a->nr_objects == b->nr_objects &&
	       a->first == b->first &&
	       !memcmp(a->bytes, b->bytes, a->nr_objects * sizeof(*a->bytes));
}

static bool same_dump(const struct ckf_dump *a, const struct ckf_dump *b)
{
	bool same = a->nr_tasks == b->nr_tasks && a->nr_pagemaps == b->nr_pagemaps &&
		    a->nr_amd == b->nr_amd && a->nr_render == b->nr_render;

	for (uint64_t i = 0; same && i < a->nr_tasks; i++)
		same = same_task(&a->tasks[i], &b->tasks[i]);
	for (uint64_t i = 0; same && i < a->nr_pagemaps; i++)
		same = same_pagemap(&a->pagemaps[i], &b->pagemaps[i]);
	for (uint64_t i = 0; same && i < a->nr_amd; i++)
		same = same_table(&a->amd[i], &b->amd[i]);
	for (uint64_t i = 0; same && i < a->nr_render; i++)
		same = same_render(&a->render[i], &b->render[i]);
	return same;
}

static const char *check_dump_open(struct world *w, int ret, bool may_leave)
{
	const char *bad = NULL;

	(void)may_leave;
	if (ret)
		return w->read ? "a dump in spite of the error" : NULL;
	if (!same_dump(w->read, w->read_ref))
		bad = "another dump";
	ckf_dump_close(w->read);
	return bad;
}

static int run_needs(struct world *w, struct ckf_error *err)
{
	int fd = open(w->dump, O_PATH | O_DIRECTORY | O_CLOEXEC), ret;

	w->needs = NULL;
	if (fd < 0)
		return ckf_error_set(err, -errno, "open");
	ret = ckf_needs_read(fd, &w->needs, err);
	close(fd);
	return ret;
}

static const char *check_needs(struct world *w, int ret, bool may_leave)
{
	struct ckf_needs_info info = { .size = sizeof(info) };
	const char *bad = NULL;

	(void)may_leave;
	if (ret)
		return w->needs ? "needs in spite of the error" : NULL;
	ckf_needs_get_info(w->needs, &info);
	if (memcmp(&info, &w->needs_ref, sizeof(info)) != 0)
		bad = "other needs";
	ckf_needs_free(w->needs);
	return bad;
}

static struct ckf_convert_opts options(unsigned int threads)
{
	struct ckf_convert_opts opts = {
		.size = sizeof(opts),
		.codec = CKF_CODEC_AUTO,
		.threads = threads,
		/* What asks for memory takes failures for none; unit/memory tests that. */
		.no_cache = true,
		.amd = true,
	};

	/* For which codecs are chosen at all. */
	ckf_profile_get(CKF_PROFILE_SSD, &opts.storage);
	return opts;
}

static void result_path(const struct world *w, char path[160])
{
	snprintf(path, 160, "%s/result", w->out);
}

static int convert(struct world *w, unsigned int threads, bool force, struct ckf_error *err)
{
	struct ckf_convert_opts opts = options(threads);
	char path[160];

	opts.force = force;
	result_path(w, path);
	return ckf_convert(w->dump, path, &opts, NULL, err);
}

static int run_convert(struct world *w, struct ckf_error *err)
{
	return convert(w, THREADS, false, err);
}

static int run_extract(struct world *w, struct ckf_error *err)
{
	const struct ckf_convert_opts opts = options(THREADS);
	char path[160];

	result_path(w, path);
	return ckf_extract(w->fast, path, &opts, err);
}

/* The sources are as they were. */
static const char *check_sources(const struct world *w)
{
	if (dir_sum(w->dump, SUM_TIMES) != w->dump_sum)
		return "the dump has changed";
	if (dir_sum(w->fast, 0) != w->fast_sum)
		return "the image has changed";
	return NULL;
}

static void clear_out(const struct world *w)
{
	dm_remove(w->out);
	need(!mkdir(w->out, 0755), "cannot make a directory");
}

/* A result that is whole and alone, or nothing. */
static const char *check_result(struct world *w, int ret, bool may_leave, uint64_t want,
				unsigned int flags)
{
	const char *bad = check_sources(w);
	const long entries = dir_entries(w->out);
	char path[160];

	result_path(w, path);
	if (bad)
		return bad;
	if (!ret && dir_sum(path, flags) != want)
		bad = "the result is not what it should be";
	else if (!may_leave && entries != (ret ? 0 : 1))
		bad = ret ? "something is left of what failed"
			  : "something is left beside the result";
	else if (ret && !access(path, F_OK))
		bad = "a result in spite of the error";
	if (entries)
		clear_out(w);
	return bad;
}

static int run_convert_based(struct world *w, struct ckf_error *err)
{
	struct ckf_convert_opts opts = options(THREADS);
	const char *const bases[] = { w->fast };
	char path[160];

	opts.bases = bases;
	opts.nr_bases = 1;
	result_path(w, path);
	return ckf_convert(w->dump, path, &opts, NULL, err);
}

static int run_flatten(struct world *w, struct ckf_error *err)
{
	const struct ckf_convert_opts opts = options(THREADS);
	char path[160];

	result_path(w, path);
	return ckf_flatten(w->based, path, &opts, err);
}

static const char *check_convert_based(struct world *w, int ret, bool may_leave)
{
	return check_result(w, ret, may_leave, w->based_sum, 0);
}

static const char *check_flatten(struct world *w, int ret, bool may_leave)
{
	return check_result(w, ret, may_leave, w->flat_sum, 0);
}

static const char *check_convert(struct world *w, int ret, bool may_leave)
{
	return check_result(w, ret, may_leave, w->fast_sum, 0);
}

static const char *check_extract(struct world *w, int ret, bool may_leave)
{
	return check_result(w, ret, may_leave, w->dump_sum, SUM_TIMES);
}

/* For replace, the result of an earlier run. */
static void prepare_replace(struct world *w)
{
	if (!dir_entries(w->out))
		need(!convert(w, THREADS, false, NULL), "cannot convert");
}

static int run_replace(struct world *w, struct ckf_error *err)
{
	return convert(w, THREADS, true, err);
}

/*
 * Whatever went wrong, there is one image, the old one or the new one, and it is whole. Beside a
 * new one, what could not be removed of the old one may stay under its temporary name.
 */
static const char *check_replace(struct world *w, int ret, bool may_leave)
{
	const char *bad = check_sources(w);
	char path[160];

	result_path(w, path);
	if (!bad && dir_sum(path, 0) != w->fast_sum)
		bad = "neither the old nor the new image is there";
	if (!bad && ret && !may_leave && dir_entries(w->out) != 1)
		bad = "something is left beside the image";
	if (bad || dir_entries(w->out) != 1)
		clear_out(w);
	return bad;
}

/* Removing what was there before; when the new image is in its place, all is well without. */
#define REMOVE_POINTS (1ull << FAULT_OPEN | 1ull << FAULT_OPENDIR | 1ull << FAULT_READDIR)
/* Where replacing differs from making something new. */
#define REPLACE_POINTS                                                                    \
	(REMOVE_POINTS | 1ull << FAULT_STAT | 1ull << FAULT_SYNC | 1ull << FAULT_RENAME | \
	 1ull << FAULT_RENAME_FLAGS | 1ull << FAULT_UNLINK)

const struct op convert_ops[] = {
	{ "dump", 0, 0, NULL, run_dump_open, check_dump_open },
	{ "needs", 0, 0, NULL, run_needs, check_needs },
	{ "convert", 0, 0, NULL, run_convert, check_convert },
	{ "convert-base", 0, 0, NULL, run_convert_based, check_convert_based },
	{ "flatten", 0, 0, NULL, run_flatten, check_flatten },
	{ "extract", 0, 0, NULL, run_extract, check_extract },
	{ "replace", REPLACE_POINTS, REMOVE_POINTS, prepare_replace, run_replace, check_replace },
	{ 0 },
};

/* What the two results have to be, from a run in which nothing fails. */
static void make_based(struct world *w)
{
	const char *const bases[] = { w->fast };
	struct ckf_convert_opts opts = options(THREADS);
	struct ckf_error err = { 0 };
	char path[160];

	opts.bases = bases;
	opts.nr_bases = 1;
	snprintf(w->based, sizeof(w->based), "%.100s/based", w->base);
	need(!ckf_convert(w->dump, w->based, &opts, NULL, &err), err.msg);
	result_path(w, path);
	need(!run_convert_based(w, &err), err.msg);
	w->based_sum = dir_sum(path, 0);
	clear_out(w);
	need(!run_flatten(w, &err), err.msg);
	w->flat_sum = dir_sum(path, 0);
	clear_out(w);
	need(w->based_sum && w->flat_sum, "cannot read the images");
}

void convert_init(struct world *w)
{
	const struct ckf_convert_opts opts = options(THREADS);
	struct ckf_error err = { 0 };

	make_dumps(w);
	snprintf(w->fast, sizeof(w->fast), "%s/fast", w->base);
	need(!ckf_convert(w->dump, w->fast, &opts, NULL, &err), err.msg);
	need(!ckf_dump_open(w->dump, &w->read_ref, &err), err.msg);
	need(!run_needs(w, &err), err.msg);
	w->needs_ref.size = sizeof(w->needs_ref);
	ckf_needs_get_info(w->needs, &w->needs_ref);
	ckf_needs_free(w->needs);
	w->dump_sum = dir_sum(w->dump, SUM_TIMES);
	w->fast_sum = dir_sum(w->fast, 0);
	need(w->dump_sum && w->fast_sum, "cannot read dump and image");
	close(dm_mkdir(w->base, "out", w->out, sizeof(w->out)));
	make_based(w);
}

void convert_fini(struct world *w)
{
	ckf_dump_close(w->read_ref);
}
