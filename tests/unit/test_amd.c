/* SPDX-License-Identifier: MIT */
/*
 * The memory of AMD GPUs in a dump, and on its way into an image and back. tests/py/ has the
 * hostile tables, and an independent reader.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "ckfast.h"
#include "format/ckf_codec.h"
#include "loader/ckf_image.h"
#include "dump_maker.h"

#define PAGES(n) ((uint64_t)(n)*CKF_PAGE_BYTES)
#define VRAM 1u
#define GTT 2u
#define USERPTR 4u
#define DOORBELL 8u
#define GPU 0x1au
#define OTHER 0x12345u

static const uint32_t gpus[] = { OTHER, GPU };
/* The last ones end where a huge page does, and a page after that. */
static const struct dm_amd_object objects[] = {
	{ GPU, VRAM, PAGES(3) },     { OTHER, GTT, PAGES(1) }, { GPU, USERPTR, 7 },
	{ GPU, GTT, PAGES(512) },    { GPU, DOORBELL, 8192 },  { GPU, VRAM | GTT, PAGES(513) },
	{ GPU, 1u << 31, PAGES(2) }, { GPU, VRAM, PAGES(2) },
};
#define NR_PAGES (3 + 512 + 513 + 2)

struct world {
	char base[64];
	char dump[128];
	int dir;
};

static int setup(void **state)
{
	static struct world w;
	struct ckf_vma vma = { .start = 0x10000, .end = 0x12000 };
	const struct ckf_task task = { .pid = 5, .comm = "rocm", .vmas = &vma, .nr_vmas = 1 };
	const struct dm_entry entry = { 0x10000, 2, DM_PRESENT };
	uint32_t values[NR_PAGES];

	dm_tempdir(w.base);
	w.dir = dm_mkdir(w.base, "dump", w.dump, sizeof(w.dump));
	for (uint32_t i = 0; i < NR_PAGES; i++)
		values[i] = i % 5 ? i / 3 : 0;
	dm_inventory(w.dir);
	dm_tasks(w.dir, &task, 1);
	dm_pagemap(w.dir, "pagemap-5.img", 1, DM_42, &entry, 1);
	dm_pages(w.dir, 1, values, 2);
	dm_amd_table(w.dir, 7, 5, gpus, 2, objects, 8);
	dm_amd_pages(w.dir, 7, GPU, values, NR_PAGES);
	dm_amd_pages(w.dir, 7, OTHER, values + 1, 1);
	*state = &w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	close(w->dir);
	dm_remove(w->base);
	return 0;
}

static void test_names(void **state)
{
	static const char *const bad[] = { "amdgpu-kfd-0.img",	  "amdgpu-kfd-07.img",
					   "amdgpu-kfd-.img",	  "amdgpu-kfd-2147483648.img",
					   "amdgpu-kfd--1.img",	  "amdgpu-kfd-7.img.bak",
					   "amdgpu-renderD-7.img" };
	char name[CKF_AMD_NAME_BYTES];
	uint32_t id;

	(void)state;
	assert_true(ckf_amd_name_parse("amdgpu-kfd-2147483647.img", &id));
	assert_int_equal(id, INT32_MAX);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(ckf_amd_name_parse(bad[i], &id));
	assert_string_equal(ckf_amd_pages_name(7, GPU, name), "amdgpu-pages-7-001a.img");
	assert_string_equal(ckf_amd_pages_name(INT32_MAX, UINT32_MAX, name),
			    "amdgpu-pages-2147483647-ffffffff.img");
	assert_false(ckf_amd_is_target_id(UINT32_MAX));
	assert_true(ckf_amd_is_target_id(ckf_amd_target_id(1, 0)));
}

/* Each object begins above the end of the one before, at 2 MiB. */
static void test_places(void **state)
{
	static const struct ckf_run want[] = {
		{ 0, 3, 0 }, { 0x200000, 512, 0 }, { 0x600000, 513, 0 }, { 0xa00000, 2, 0 }
	};
	const struct world *w = *state;
	const struct ckf_amd_table *found = NULL;
	const struct ckf_amd_gpu *gpu;
	const struct ckf_dir dir = { .fd = w->dir };
	struct ckf_amd_table t;

	assert_int_equal(ckf_amd_table_read(&dir, "amdgpu-kfd-7.img", &t, NULL), 0);
	assert_int_equal(t.err.code, 0);
	assert_int_equal(t.pid, 5);
	assert_int_equal(t.nr_objects, 8);
	assert_int_equal(t.nr_gpus, 2);
	gpu = ckf_amd_find(&t, 1, ckf_amd_target_id(7, GPU), &found);
	assert_ptr_equal(gpu, &t.gpus[0]);
	assert_ptr_equal(found, &t);
	assert_int_equal(gpu->vram_bytes, 1u << 30);
	assert_int_equal(gpu->bytes, PAGES(NR_PAGES));
	assert_int_equal(gpu->nr_objects, 4);
	assert_memory_equal(gpu->runs, want, sizeof(want));
	assert_null(ckf_amd_find(&t, 1, ckf_amd_target_id(7, 3), &found));
	assert_null(ckf_amd_find(&t, 1, ckf_amd_target_id(8, GPU), &found));
	ckf_amd_table_fini(&t);
}

/* A table that is wrong is no error until somebody wants it. */
static void test_wrong_table(void **state)
{
	const struct world *w = *state;
	const struct ckf_dir dir = { .fd = w->dir };
	struct ckf_amd_table t;
	struct ckf_error err = { 0 };
	struct ckf_dump *d;

	dm_write(w->dir, "amdgpu-kfd-8.img", "short", 5);
	assert_int_equal(ckf_amd_table_read(&dir, "amdgpu-kfd-8.img", &t, &err), 0);
	assert_int_equal(t.err.code, -EBADMSG);
	assert_int_equal(err.code, 0);
	ckf_amd_table_fini(&t);
	/* As a link that leads nowhere. */
	assert_int_equal(ckf_amd_table_read(&dir, "amdgpu-kfd-9.img", &t, &err), 0);
	assert_int_equal(t.err.code, -EOPNOTSUPP);
	ckf_amd_table_fini(&t);
	assert_int_equal(ckf_dump_openat(w->dir, ".", &d, NULL), 0);
	assert_int_equal(d->nr_amd, 2);
	assert_int_equal(d->amd[0].file_id, 7);
	assert_int_equal(d->amd[1].err.code, -EBADMSG);
	ckf_dump_close(d);
	unlinkat(w->dir, "amdgpu-kfd-8.img", 0);
}

static uint64_t file_sum(const char *dir, const char *name)
{
	char path[256];
	struct stat st;
	uint64_t sum;
	uint8_t *p;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	p = malloc((size_t)st.st_size + 1);
	assert_non_null(p);
	assert_int_equal(read(fd, p, (size_t)st.st_size), st.st_size);
	sum = ckf_hash64(p, (size_t)st.st_size);
	free(p);
	close(fd);
	return sum;
}

static void roundtrip(const struct world *w, int codec, bool amd)
{
	static const char *const names[] = { "amdgpu-kfd-7.img", "amdgpu-pages-7-001a.img",
					     "amdgpu-pages-7-12345.img", "pages-1.img" };
	const struct ckf_convert_opts opts = {
		.size = sizeof(opts), .codec = codec, .force = true, .amd = amd
	};
	struct ckf_error err = { 0 };
	struct ckf_image *img;
	char fast[128], back[128];
	int dir;

	snprintf(fast, sizeof(fast), "%.60s/fast", w->base);
	snprintf(back, sizeof(back), "%.60s/back", w->base);
	if (ckf_convert(w->dump, fast, &opts, NULL, &err))
		fail_msg("%s", err.msg);
	dir = open(fast, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(dir >= 0);
	assert_int_equal(ckf_image_open(dir, &img, &err), 0);
	close(dir);
	assert_int_equal(img->idx->nr_targets, amd ? 3 : 1);
	assert_int_equal(!!(img->idx->incompat & CKF_INCOMPAT_SIZED_PAGES), amd);
	if (amd)
		assert_int_equal(img->idx->targets[1].id, ckf_amd_target_id(7, GPU));
	assert_int_equal(ckf_verify(img, NULL, NULL, &err), 0);
	assert_int_equal(ckf_verify_plan(img, NULL, &err), 0);
	ckf_image_close(img);
	if (ckf_extract(fast, back, &opts, &err))
		fail_msg("%s", err.msg);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_int_equal(file_sum(back, names[i]), file_sum(w->dump, names[i]));
}

static void test_roundtrip(void **state)
{
	const struct world *w = *state;

	roundtrip(w, CKF_CODEC_AUTO, true);
	roundtrip(w, CKF_CODEC_RAW, true);
	roundtrip(w, CKF_CODEC_ZSTD, true);
	roundtrip(w, CKF_CODEC_AUTO, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test_setup_teardown(test_places, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrong_table, setup, teardown),
		cmocka_unit_test_setup_teardown(test_roundtrip, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
