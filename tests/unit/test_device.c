/* SPDX-License-Identifier: MIT */
/*
 * Dumps with device memory: converted, verified, extracted byte for byte with its holes, and what
 * is wrong with one is told before anything is written.
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
#include "loader/ckf_gpu_read.h"
#include "loader/ckf_image.h"
#include "base/ckf_io_util.h"
#include "dump_maker.h"

#define PID 5
#define MIB (1ull << 20)
#define ADDR 0x7f0000000000ull
#define DATA_PAGES 300	/* of the first allocation; the task has the same */
#define LATER (9 * MIB) /* in the pages file: one page of data */
#define OWN_PAGES 100	/* that only the device has, twice */
#define OWN_1 (6 * MIB)
#define OWN_2 (11 * MIB)
#define GPU_BYTES (14 * MIB)

static struct ckf_gpu_device device = { .total_bytes = 80ull << 30, .name = "GPU" };

/* The first two touch, the third does not. */
static struct ckf_gpu_alloc allocs[] = {
	{ .addr = ADDR, .bytes = 4 * MIB },
	{ .addr = ADDR + 4 * MIB, .bytes = 2 * MIB },
	{ .addr = ADDR + 32 * MIB, .bytes = 8 * MIB },
};

struct world {
	char base[64];
	char dump[128];
	char fast[128];
	char back[128];
	int dir; /* of dump */
	uint8_t *data;
};

static void write_table(struct world *w, const char *name)
{
	struct ckf_gpu_dump d = {
		.pid = PID, .devices = &device, .nr_devices = 1, .allocs = allocs, .nr_allocs = 3
	};
	size_t bytes;
	void *buf;

	assert_int_equal(ckf_gpu_dump_encode(&d, &buf, &bytes, NULL), 0);
	assert_int_equal(d.bytes, GPU_BYTES);
	dm_write(w->dir, name, buf, bytes);
	free(buf);
}

static void write_own(int fd, uint64_t off)
{
	uint8_t page[CKF_PAGE_BYTES];

	for (uint32_t i = 0; i < OWN_PAGES; i++, off += sizeof(page)) {
		dm_page(3000 + 3 * i, page);
		assert_int_equal(pwrite(fd, page, sizeof(page), (off_t)off), sizeof(page));
	}
}

static void write_pages(struct world *w, const char *name)
{
	int fd = openat(w->dir, name, O_RDWR | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, GPU_BYTES), 0);
	assert_int_equal(pwrite(fd, w->data, DATA_PAGES * CKF_PAGE_BYTES, 0),
			 DATA_PAGES * CKF_PAGE_BYTES);
	assert_int_equal(pwrite(fd, w->data, CKF_PAGE_BYTES, LATER), CKF_PAGE_BYTES);
	write_own(fd, OWN_1);
	write_own(fd, OWN_2);
	close(fd);
}

static void world_init(struct world *w)
{
	struct ckf_vma vma = { .start = 0x10000,
			       .end = 0x10000 + DATA_PAGES * CKF_PAGE_BYTES,
			       .prot = 3,
			       .flags = 0x22,
			       .status = 0x201 };
	struct ckf_task task = { .pid = PID, .comm = "gpu", .vmas = &vma, .nr_vmas = 1 };
	struct dm_entry entry = { 0x10000, DATA_PAGES, DM_PRESENT };

	memset(w, 0, sizeof(*w));
	dm_tempdir(w->base);
	w->dir = dm_mkdir(w->base, "dump", w->dump, sizeof(w->dump));
	snprintf(w->fast, sizeof(w->fast), "%s/fast", w->base);
	snprintf(w->back, sizeof(w->back), "%s/back", w->base);
	w->data = malloc(DATA_PAGES * CKF_PAGE_BYTES);
	assert_non_null(w->data);
	for (uint32_t i = 0; i < DATA_PAGES; i++)
		dm_page(i + 1, w->data + i * CKF_PAGE_BYTES);
	dm_inventory(w->dir);
	dm_tasks(w->dir, &task, 1);
	dm_pagemap(w->dir, "pagemap-5.img", 1, DM_42, &entry, 1);
	dm_write(w->dir, "pages-1.img", w->data, DATA_PAGES * CKF_PAGE_BYTES);
	write_table(w, "ckfast-gpu-5.img");
	write_pages(w, "ckfast-gpu-pages-5.img");
}

static void world_fini(struct world *w)
{
	free(w->data);
	close(w->dir);
	dm_remove(w->base);
}

static void assert_same_file(struct world *w, const char *name)
{
	char cmd[512];

	snprintf(cmd, sizeof(cmd), "cmp %s/%s %s/%s", w->dump, name, w->back, name);
	assert_int_equal(system(cmd), 0);
}

static void check_image(struct world *w)
{
	const struct ckf_target *t;
	struct ckf_error err = { 0 };
	struct ckf_gpu_dump *d;
	struct ckf_image *img;
	uint64_t zero = 0;
	int fd = open(w->fast, O_RDONLY | O_DIRECTORY);

	assert_int_equal(ckf_image_open(fd, &img, &err), 0);
	if (ckf_verify(img, CKF_OPTS(ckf_verify_opts, .threads = 2), NULL, &err))
		fail_msg("%s", err.msg);
	assert_true(img->idx->incompat & CKF_INCOMPAT_DEVICES);
	assert_int_equal(img->idx->nr_targets, 2);
	t = &img->idx->targets[1];
	assert_int_equal(t->kind, CKF_TARGET_DEVICE);
	assert_int_equal(t->id, PID);
	assert_int_equal(t->nr_pages * CKF_PAGE_BYTES, GPU_BYTES);
	assert_int_equal(t->parent, 0);
	assert_string_equal(img->idx->files[t->file].name, "ckfast-gpu-5.img");
	for (uint64_t i = t->first_op; i < t->first_op + t->nr_ops; i++)
		if (img->idx->chunks[img->idx->ops[i].chunk].codec == CKF_CODEC_ZERO)
			zero += ckf_pages_to_bytes(img->idx->ops[i].nr_pages);
	assert_true(zero >= GPU_BYTES - (DATA_PAGES + 2 * OWN_PAGES + 16) * CKF_PAGE_BYTES);
	/* All other data but the one page was in the task's memory before, or in the device's. */
	assert_true(img->idx->pack_bytes <= (DATA_PAGES + OWN_PAGES + 40) * CKF_PAGE_BYTES);
	assert_int_equal(ckf_gpu_dump_read(fd, PID, &d, &err), 0);
	assert_int_equal(d->bytes, GPU_BYTES);
	ckf_gpu_dump_free(d);
	assert_int_equal(faccessat(fd, "ckfast-gpu-pages-5.img", F_OK, 0), -1);
	ckf_image_close(img);
	close(fd);
}

static void test_there_and_back(void **state)
{
	struct ckf_error err = { 0 };
	struct world w;
	struct stat st;
	char path[256];

	(void)state;
	world_init(&w);
	if (ckf_convert(w.dump, w.fast, NULL, NULL, &err))
		fail_msg("%s", err.msg);
	check_image(&w);
	if (ckf_extract(w.fast, w.back, NULL, &err))
		fail_msg("%s", err.msg);
	assert_same_file(&w, "ckfast-gpu-5.img");
	assert_same_file(&w, "ckfast-gpu-pages-5.img");
	assert_same_file(&w, "pages-1.img");
	snprintf(path, sizeof(path), "%s/ckfast-gpu-pages-5.img", w.back);
	assert_int_equal(stat(path, &st), 0);
	assert_true((uint64_t)st.st_blocks * 512 < 4 * MIB);
	world_fini(&w);
}

/* Nothing but device memory, without allocations. */
static void test_empty(void **state)
{
	struct ckf_gpu_dump d = { .pid = 9 };
	struct ckf_error err = { 0 };
	struct world w;
	size_t bytes;
	void *buf;

	(void)state;
	world_init(&w);
	assert_int_equal(ckf_gpu_dump_encode(&d, &buf, &bytes, NULL), 0);
	dm_write(w.dir, "ckfast-gpu-9.img", buf, bytes);
	free(buf);
	if (ckf_convert(w.dump, w.fast, NULL, NULL, &err))
		fail_msg("%s", err.msg);
	if (ckf_extract(w.fast, w.back, NULL, &err))
		fail_msg("%s", err.msg);
	assert_same_file(&w, "ckfast-gpu-9.img");
	world_fini(&w);
}

/* The first of the pages that only the device has become bf16 numbers of one exponent. */
static void write_weights(struct world *w)
{
	int fd = openat(w->dir, "ckfast-gpu-pages-5.img", O_RDWR);
	uint16_t page[CKF_PAGE_BYTES / sizeof(uint16_t)];
	uint64_t seed = 1;

	assert_true(fd >= 0);
	for (uint64_t i = 0; i < OWN_PAGES; i++) {
		for (size_t k = 0; k < CKF_PAGE_BYTES / sizeof(uint16_t); k++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			page[k] = (uint16_t)(0x3c00 | (seed >> 40 & 0x807f));
		}
		assert_int_equal(
			pwrite(fd, page, sizeof(page), (off_t)(OWN_1 + i * CKF_PAGE_BYTES)),
			sizeof(page));
	}
	close(fd);
}

/* How many pages of device memory in the image have this codec and lie in this base. */
static uint64_t device_pages(const char *fast, uint8_t codec, uint8_t base)
{
	int fd = open(fast, O_RDONLY | O_DIRECTORY);
	struct ckf_error err = { 0 };
	const struct ckf_target *t;
	struct ckf_image *img;
	uint64_t pages = 0;

	assert_true(fd >= 0);
	if (ckf_image_open(fd, &img, &err) ||
	    ckf_verify(img, CKF_OPTS(ckf_verify_opts, .threads = 2), NULL, &err))
		fail_msg("%s", err.msg);
	t = &img->idx->targets[img->idx->nr_targets - 1];
	assert_int_equal(t->kind, CKF_TARGET_DEVICE);
	for (uint64_t i = t->first_op; i < t->first_op + t->nr_ops; i++) {
		const struct ckf_chunk *c = &img->idx->chunks[img->idx->ops[i].chunk];

		if (c->codec == codec && c->base == base)
			pages += img->idx->ops[i].nr_pages;
	}
	ckf_image_close(img);
	close(fd);
	return pages;
}

/* Codecs are chosen for device memory, too, and a base may hold it. */
static void test_weights(void **state)
{
	const char *bases[1];
	struct ckf_convert_opts opts = { .size = sizeof(opts),
					 .codec = CKF_CODEC_AUTO,
					 .storage = { .bytes_per_s = 100 * MIB, .nr_cores = 2 } };
	struct ckf_error err = { 0 };
	struct world w;
	char top[128];

	(void)state;
	world_init(&w);
	write_weights(&w);
	snprintf(top, sizeof(top), "%s/top", w.base);
	if (ckf_convert(w.dump, w.fast, &opts, NULL, &err))
		fail_msg("%s", err.msg);
	assert_true(device_pages(w.fast, CKF_CODEC_BF16, 0) > OWN_PAGES / 2);
	bases[0] = w.fast;
	opts.bases = bases;
	opts.nr_bases = 1;
	if (ckf_convert(w.dump, top, &opts, NULL, &err))
		fail_msg("%s", err.msg);
	assert_int_equal(device_pages(top, CKF_CODEC_BF16, 0), 0);
	assert_int_equal(device_pages(top, CKF_CODEC_BF16, 1),
			 device_pages(w.fast, CKF_CODEC_BF16, 0));
	if (ckf_extract(top, w.back, NULL, &err))
		fail_msg("%s", err.msg);
	assert_same_file(&w, "ckfast-gpu-pages-5.img");
	world_fini(&w);
}

static void expect(struct world *w, int want, const char *words)
{
	struct ckf_error err = { 0 };
	int ret = ckf_convert(w->dump, w->fast, NULL, NULL, &err);

	if (ret != want || !strstr(err.msg, words))
		fail_msg("want %d '%s', got %d '%s'", want, words, ret, err.msg);
	assert_int_equal(access(w->fast, F_OK), -1);
}

static void test_errors(void **state)
{
	struct world w;
	int fd;

	(void)state;
	world_init(&w);
	fd = openat(w.dir, "ckfast-gpu-pages-5.img", O_RDWR);
	assert_int_equal(ftruncate(fd, GPU_BYTES - CKF_PAGE_BYTES), 0);
	expect(&w, -EBADMSG, "shorter than ckfast-gpu-5.img says, got 3583 pages, want 3584");
	assert_int_equal(ftruncate(fd, GPU_BYTES + CKF_PAGE_BYTES), 0);
	expect(&w, -EBADMSG, "longer than ckfast-gpu-5.img says, got 3585 pages, want 3584");
	assert_int_equal(ftruncate(fd, GPU_BYTES + 1), 0);
	expect(&w, -EBADMSG, "the length is not one of pages");
	close(fd);
	assert_int_equal(unlinkat(w.dir, "ckfast-gpu-pages-5.img", 0), 0);
	expect(&w, -EBADMSG, "there is no ckfast-gpu-pages-5.img, which ckfast-gpu-5.img names");
	write_pages(&w, "ckfast-gpu-pages-5.img");
	write_pages(&w, "ckfast-gpu-pages-6.img");
	expect(&w, -EBADMSG, "there is no ckfast-gpu-6.img for ckfast-gpu-pages-6.img");
	write_table(&w, "ckfast-gpu-6.img");
	expect(&w, -EBADMSG, "R-gpu: pid, got 5, want that of the name");
	dm_write(w.dir, "ckfast-gpu-6.img", "CKFASTGD", 8);
	expect(&w, -EBADMSG, "ckfast-gpu-6.img: corrupt gpu-header at 0: R-gpu: length");
	world_fini(&w);
}

/* What lies behind the end of a file is no hole: it is a file that was cut, and no zeros. */
static void test_hole(void **state)
{
	char base[64];
	int dir, fd;

	(void)state;
	dm_tempdir(base);
	dir = open(base, O_RDONLY | O_DIRECTORY);
	fd = openat(dir, "pages", O_RDWR | O_CREAT, 0600);
	assert_int_equal(pwrite(fd, "data", 4, 0), 4);
	assert_int_equal(ftruncate(fd, 3 * MIB), 0);
	assert_false(ckf_is_hole(fd, 0, CKF_PAGE_BYTES));
	if (!ckf_is_hole(fd, MIB, MIB)) {
		print_message("no holes in this file system\n");
	} else {
		assert_true(ckf_is_hole(fd, MIB, 2 * MIB));
		assert_false(ckf_is_hole(fd, 0, 3 * MIB));
	}
	assert_false(ckf_is_hole(fd, MIB, 2 * MIB + 1));
	assert_false(ckf_is_hole(fd, 3 * MIB, CKF_PAGE_BYTES));
	assert_false(ckf_is_hole(fd, 4 * MIB, CKF_PAGE_BYTES));
	close(fd);
	close(dir);
	dm_remove(base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_empty),
		cmocka_unit_test(test_weights),	       cmocka_unit_test(test_errors),
		cmocka_unit_test(test_hole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
