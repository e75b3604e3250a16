/* SPDX-License-Identifier: MIT */
/*
 * Buffer objects of AMD GPUs' render nodes in a dump, and on their way into an image and back.
 * tests/py/ has the hostile tables, and an independent reader.
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
#include "loader/ckf_image.h"
#include "dump_maker.h"

#define PAGES(n) ((uint64_t)(n)*CKF_PAGE_BYTES)
#define FILE_ID 9
#define MINOR 128
#define HEAD 0x7ffd00c0ffeeull /* some number: not a length */

/* Of these, the first and the last have files as long as they are. */
static const uint64_t sizes[] = { PAGES(515), 100, PAGES(2), PAGES(3), PAGES(515) };
#define NR_OBJECTS 5
#define NR_PAGES 515

struct world {
	char base[64];
	char dump[128];
	int dir;
	uint32_t values[NR_PAGES];
};

static int setup(void **state)
{
	static struct world w;
	struct ckf_vma vma = { .start = 0x10000, .end = 0x12000 };
	const struct ckf_task task = { .pid = 5, .comm = "vulkan", .vmas = &vma, .nr_vmas = 1 };
	const struct dm_entry entry = { 0x10000, 2, DM_PRESENT };

	dm_tempdir(w.base);
	w.dir = dm_mkdir(w.base, "dump", w.dump, sizeof(w.dump));
	for (uint32_t i = 0; i < NR_PAGES; i++)
		w.values[i] = i % 5 ? i / 3 : 0;
	dm_inventory(w.dir);
	dm_tasks(w.dir, &task, 1);
	dm_pagemap(w.dir, "pagemap-5.img", 1, DM_42, &entry, 1);
	dm_pages(w.dir, 1, w.values, 2);
	dm_render_table(w.dir, FILE_ID, MINOR, sizes, NR_OBJECTS);
	dm_render_pages(w.dir, "amdgpu-drm-pages-9-128-0000.img", PAGES(515), w.values, 515);
	dm_write(w.dir, "amdgpu-drm-pages-9-128-0001.img", "no pages", 8);
	dm_render_pages(w.dir, "amdgpu-drm-pages-9-128-0002.img", PAGES(2), w.values, 1);
	dm_render_pages(w.dir, "amdgpu-drm-pages-9-128-0004.img", HEAD, w.values, 515);
	dm_write(w.dir, "amdgpu-dmabuf_10.img", "\2\0\0\0\0\0\0\0\x08\3", 10);
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
	static const char *const bad[] = { "amdgpu-renderD-0.img", "amdgpu-renderD-07.img",
					   "amdgpu-renderD-.img", "amdgpu-renderD-2147483648.img",
					   "amdgpu-kfd-7.img" };
	struct ckf_render_table t = { .file_id = 7, .minor = MINOR };
	char name[CKF_RENDER_NAME_BYTES];
	uint32_t id;

	(void)state;
	assert_true(ckf_render_name_parse("amdgpu-renderD-2147483647.img", &id));
	assert_int_equal(id, INT32_MAX);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(ckf_render_name_parse(bad[i], &id));
	assert_string_equal(ckf_render_pages_name(&t, 0x1a, name),
			    "amdgpu-drm-pages-7-128-001a.img");
	t.file_id = t.minor = INT32_MAX;
	assert_string_equal(ckf_render_pages_name(&t, UINT32_MAX, name),
			    "amdgpu-drm-pages-2147483647-2147483647-ffffffff.img");
}

static void test_lengths(void **state)
{
	(void)state;
	assert_false(ckf_render_bytes_ok(0));
	assert_false(ckf_render_bytes_ok(PAGES(1) - 1));
	assert_true(ckf_render_bytes_ok(PAGES(1)));
	assert_true(ckf_render_bytes_ok(1ull << 62));
	assert_false(ckf_render_bytes_ok((1ull << 62) + PAGES(1)));
}

static void test_table(void **state)
{
	static const uint64_t wraps[] = { UINT64_MAX, 1 };
	const struct world *w = *state;
	const struct ckf_dir dir = { .fd = w->dir };
	struct ckf_render_table t;

	assert_int_equal(ckf_render_table_read(&dir, "amdgpu-renderD-9.img", &t, NULL), 0);
	assert_int_equal(t.err.code, 0);
	assert_int_equal(t.gpu_id, 0x1a);
	assert_int_equal(t.minor, MINOR);
	assert_int_equal(t.nr_objects, NR_OBJECTS);
	assert_memory_equal(t.bytes, sizes, sizeof(sizes));
	assert_int_equal(t.all_bytes, PAGES(515 + 2 + 3 + 515) + 100);
	ckf_render_table_fini(&t);

	dm_render_table(w->dir, 11, MINOR, wraps, 2);
	assert_int_equal(ckf_render_table_read(&dir, "amdgpu-renderD-11.img", &t, NULL), 0);
	assert_true(t.all_bytes == UINT64_MAX);
	ckf_render_table_fini(&t);
	unlinkat(w->dir, "amdgpu-renderD-11.img", 0);
}

/* Tables of CRIU 4.2.1 say nothing of objects; wrong ones are no error until somebody wants them.
 */
static void test_other_tables(void **state)
{
	const struct world *w = *state;
	const struct ckf_dir dir = { .fd = w->dir };
	struct ckf_error err = { 0 };
	struct ckf_render_table t;

	dm_render_table(w->dir, 12, 0, NULL, 0);
	assert_int_equal(ckf_render_table_read(&dir, "amdgpu-renderD-12.img", &t, &err), 0);
	assert_int_equal(t.err.code, 0);
	assert_int_equal(t.gpu_id, 0x1a);
	assert_int_equal(t.nr_objects, 0);
	ckf_render_table_fini(&t);
	dm_render_table(w->dir, 12, 0, sizes, 1);
	assert_int_equal(ckf_render_table_read(&dir, "amdgpu-renderD-12.img", &t, &err), 0);
	assert_int_equal(t.err.code, -EOPNOTSUPP);
	ckf_render_table_fini(&t);
	dm_write(w->dir, "amdgpu-renderD-12.img", "short", 5);
	assert_int_equal(ckf_render_table_read(&dir, "amdgpu-renderD-12.img", &t, &err), 0);
	assert_int_equal(t.err.code, -EBADMSG);
	ckf_render_table_fini(&t);
	assert_int_equal(err.code, 0);
	/* As a link that leads nowhere. */
	assert_int_equal(ckf_render_table_read(&dir, "amdgpu-renderD-13.img", &t, &err), 0);
	assert_int_equal(t.err.code, -EOPNOTSUPP);
	ckf_render_table_fini(&t);
	unlinkat(w->dir, "amdgpu-renderD-12.img", 0);
}

/* Objects of all tables have positions, one after the other. */
static void test_positions(void **state)
{
	const struct world *w = *state;
	struct ckf_render_table *render;
	struct ckf_dump *d;

	dm_render_table(w->dir, 3, MINOR, sizes, 2);
	dm_render_table(w->dir, 5, 0, NULL, 0);
	dm_render_table(w->dir, 100, MINOR, sizes, 1);
	assert_int_equal(ckf_dump_openat(w->dir, ".", &d, NULL), 0);
	render = d->render;
	assert_int_equal(d->nr_render, 4);
	assert_int_equal(render[2].file_id, FILE_ID);
	assert_int_equal(render[2].first, 2);
	assert_ptr_equal(ckf_render_find_object(render, 4, 0), &render[0]);
	assert_ptr_equal(ckf_render_find_object(render, 4, 1), &render[0]);
	assert_ptr_equal(ckf_render_find_object(render, 4, 2), &render[2]);
	assert_ptr_equal(ckf_render_find_object(render, 4, 7), &render[3]);
	assert_null(ckf_render_find_object(render, 4, 8));
	assert_ptr_equal(ckf_render_find(render, 4, ckf_render_target_id(FILE_ID, 3)), &render[2]);
	assert_null(ckf_render_find(render, 4, ckf_render_target_id(4, 0)));
	ckf_dump_close(d);
	unlinkat(w->dir, "amdgpu-renderD-3.img", 0);
	unlinkat(w->dir, "amdgpu-renderD-5.img", 0);
	unlinkat(w->dir, "amdgpu-renderD-100.img", 0);
}

static bool same_file(int a, int b, const char *name)
{
	const int dirs[2] = { a, b };
	uint8_t *data[2];
	struct stat st[2];
	bool same;

	for (int i = 0; i < 2; i++) {
		int fd = openat(dirs[i], name, O_RDONLY | O_CLOEXEC);

		assert_true(fd >= 0);
		assert_int_equal(fstat(fd, &st[i]), 0);
		data[i] = malloc((size_t)st[i].st_size + 1);
		assert_non_null(data[i]);
		assert_int_equal(read(fd, data[i], (size_t)st[i].st_size), st[i].st_size);
		close(fd);
	}
	same = st[0].st_size == st[1].st_size && !memcmp(data[0], data[1], (size_t)st[0].st_size);
	free(data[0]);
	free(data[1]);
	return same;
}

static void check_files(const struct ckf_index *idx, bool amd)
{
	const uint8_t kind = amd ? CKF_FILE_HEADED_PAGES : CKF_FILE_VERBATIM;

	assert_int_equal(!!(idx->incompat & CKF_INCOMPAT_HEADED_PAGES), amd);
	assert_string_equal(idx->files[0].name, "amdgpu-dmabuf_10.img");
	assert_int_equal(idx->files[0].kind, CKF_FILE_VERBATIM);
	assert_int_equal(idx->files[1].kind, kind);
	assert_int_equal(idx->files[2].kind, CKF_FILE_VERBATIM);
	assert_int_equal(idx->files[3].kind, CKF_FILE_VERBATIM);
	assert_int_equal(idx->files[4].kind, kind);
	assert_true(idx->files[1].head == (amd ? PAGES(515) : 0));
	assert_true(idx->files[4].head == (amd ? HEAD : 0));
	assert_int_equal(idx->nr_targets, amd ? 3 : 1);
	if (!amd)
		return;
	assert_int_equal(idx->targets[1].id, ckf_render_target_id(FILE_ID, 0));
	assert_int_equal(idx->targets[2].id, ckf_render_target_id(FILE_ID, 4));
	assert_int_equal(idx->targets[2].nr_pages, 515);
}

static void count_warning(void *arg, const char *msg)
{
	int *nr = arg;

	assert_non_null(strstr(msg, "amdgpu-renderD-9.img says: 2, kept as they are"));
	++*nr;
}

static void roundtrip(const struct world *w, int codec, bool amd)
{
	static const char *const names[] = {
		"amdgpu-renderD-9.img",
		"amdgpu-dmabuf_10.img",
		"amdgpu-drm-pages-9-128-0000.img",
		"amdgpu-drm-pages-9-128-0001.img",
		"amdgpu-drm-pages-9-128-0002.img",
		"amdgpu-drm-pages-9-128-0004.img",
	};
	int nr_warnings = 0;
	const struct ckf_convert_opts opts = { .size = sizeof(opts),
					       .codec = codec,
					       .force = true,
					       .amd = amd,
					       .warn = count_warning,
					       .arg = &nr_warnings };
	struct ckf_convert_stats stats = { .size = sizeof(stats) };
	struct ckf_error err = { 0 };
	struct ckf_image *img;
	char fast[128], back[128];
	int dir;

	snprintf(fast, sizeof(fast), "%.60s/fast", w->base);
	snprintf(back, sizeof(back), "%.60s/back", w->base);
	if (ckf_convert(w->dump, fast, &opts, &stats, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(nr_warnings, amd);
	if (amd)
		assert_true(stats.dup_bytes >= PAGES(NR_PAGES) - PAGES(NR_PAGES / 5 + 1));
	dir = open(fast, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(dir >= 0);
	assert_int_equal(ckf_image_open(dir, &img, &err), 0);
	close(dir);
	check_files(img->idx, amd);
	assert_int_equal(ckf_verify(img, NULL, NULL, &err), 0);
	assert_int_equal(ckf_verify_plan(img, NULL, &err), 0);
	ckf_image_close(img);
	if (ckf_extract(fast, back, &opts, &err))
		fail_msg("%s", err.msg);
	dir = open(back, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(dir >= 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_true(same_file(dir, w->dir, names[i]));
	close(dir);
}

static void test_roundtrip(void **state)
{
	const struct world *w = *state;

	roundtrip(w, CKF_CODEC_AUTO, true);
	roundtrip(w, CKF_CODEC_RAW, true);
	roundtrip(w, CKF_CODEC_ZSTD, true);
	roundtrip(w, CKF_CODEC_AUTO, false);
}

/* CRIU takes the file for /dev/kfd; whatever belongs to the other table stays as it is. */
static void test_kfd_too(void **state)
{
	static const uint32_t gpu = 0x1a;
	const struct world *w = *state;
	const struct ckf_convert_opts opts = { .size = sizeof(opts),
					       .codec = CKF_CODEC_AUTO,
					       .amd = true };
	struct ckf_error err = { 0 };
	struct ckf_image *img;
	struct ckf_dump *d;
	char fast[128];
	int dir;

	dm_amd_table(w->dir, FILE_ID, 5, &gpu, 1, NULL, 0);
	dm_amd_pages(w->dir, FILE_ID, gpu, NULL, 0);
	assert_int_equal(ckf_dump_openat(w->dir, ".", &d, NULL), 0);
	assert_int_equal(d->render[0].err.code, -EOPNOTSUPP);
	ckf_dump_close(d);
	snprintf(fast, sizeof(fast), "%.60s/fast", w->base);
	if (ckf_convert(w->dump, fast, &opts, NULL, &err))
		fail_msg("%s", err.msg);
	dir = open(fast, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(ckf_image_open(dir, &img, &err), 0);
	close(dir);
	assert_int_equal(img->idx->nr_targets, 1);
	assert_int_equal(ckf_verify_plan(img, NULL, &err), 0);
	ckf_image_close(img);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test_setup_teardown(test_table, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_tables, setup, teardown),
		cmocka_unit_test_setup_teardown(test_positions, setup, teardown),
		cmocka_unit_test_setup_teardown(test_roundtrip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kfd_too, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
