/* SPDX-License-Identifier: MIT */
/*
 * Conversions of generated dumps, checked in three ways: the image verifies, every page that a
 * pagemap names is put to its place with the right contents, and extract gives the dump back.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "ckfast.h"
#include "convert/ckf_model.h"
#include "convert/vma.h"
#include "format/ckf_codec.h"
#include "loader/ckf_image.h"
#include "dump_maker.h"

#define MAX_LEVELS 3
#define MAX_PAGES 6000 /* of one target */
#define MAX_TARGETS 4
#define BASE 0x7f0000000000ull
#define HUGETLB_PAGE 2000u /* pages from here on are in a hugetlb VMA, in tasks */
#define HUGETLB_END 2600u

/* What a target has at BASE + i pages. */
struct model {
	bool here[MAX_PAGES];
	uint32_t value[MAX_PAGES];
};

struct env {
	char base[64];
	char dump[128];
	char fast[128];
	char back[128];
	struct model models[MAX_TARGETS];
	char names[MAX_TARGETS][32];
	uint64_t rand;
};

static int setup(void **state)
{
	struct env *e = calloc(1, sizeof(*e));

	assert_non_null(e);
	dm_tempdir(e->base);
	snprintf(e->dump, sizeof(e->dump), "%s/dump", e->base);
	snprintf(e->fast, sizeof(e->fast), "%s/fast", e->base);
	snprintf(e->back, sizeof(e->back), "%s/back", e->base);
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	dm_remove(e->base);
	free(e);
	return 0;
}

static int count_entries(const char *path)
{
	DIR *dir = opendir(path);
	int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 2;
}

static void read_all(const char *dir, const char *name, uint8_t **buf, size_t *bytes)
{
	char path[512];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	*bytes = (size_t)st.st_size;
	*buf = malloc(*bytes + 1);
	assert_non_null(*buf);
	assert_int_equal(read(fd, *buf, *bytes), *bytes);
	close(fd);
}

static void same_entry(const char *a, const char *b, const char *name)
{
	char pa[512], pb[512], la[512], lb[512];
	struct stat sa, sb;
	uint8_t *ba, *bb;
	size_t na, nb;

	snprintf(pa, sizeof(pa), "%s/%s", a, name);
	snprintf(pb, sizeof(pb), "%s/%s", b, name);
	assert_int_equal(lstat(pa, &sa), 0);
	assert_int_equal(lstat(pb, &sb), 0);
	assert_int_equal(sa.st_mode, sb.st_mode);
	assert_int_equal(sa.st_uid, sb.st_uid);
	assert_int_equal(sa.st_gid, sb.st_gid);
	assert_int_equal(sa.st_size, sb.st_size);
	assert_int_equal(sa.st_mtim.tv_sec, sb.st_mtim.tv_sec);
	assert_int_equal(sa.st_mtim.tv_nsec, sb.st_mtim.tv_nsec);
	if (S_ISLNK(sa.st_mode)) {
		na = (size_t)readlink(pa, la, sizeof(la));
		nb = (size_t)readlink(pb, lb, sizeof(lb));
		assert_int_equal(na, nb);
		assert_memory_equal(la, lb, na);
		return;
	}
	read_all(a, name, &ba, &na);
	read_all(b, name, &bb, &nb);
	assert_memory_equal(ba, bb, na);
	free(ba);
	free(bb);
}

static void same_dirs(const char *a, const char *b)
{
	DIR *dir = opendir(a);
	struct dirent *de;

	assert_non_null(dir);
	while ((de = readdir(dir))) {
		if (strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0)
			same_entry(a, b, de->d_name);
	}
	closedir(dir);
	assert_int_equal(count_entries(a), count_entries(b));
}

static void expect_ok(int ret, const struct ckf_error *err)
{
	if (ret)
		fail_msg("%d: %s", ret, err->msg);
}

/* Every op of a target has the pages of the model, and there are no others. */
static void check_target(const struct ckf_image *img, const struct ckf_target *t, const int *packs,
			 const struct model *m)
{
	static uint8_t chunk[CKF_MAX_CHUNK_PAGES * CKF_PAGE_BYTES];
	static uint8_t stored[CKF_MAX_CHUNK_PAGES * CKF_PAGE_BYTES];
	uint8_t want[CKF_PAGE_BYTES];
	struct ckf_codec_ctx *ctx;
	uint64_t pages = 0, expected = 0;

	assert_int_equal(ckf_codec_ctx_new(&ctx), 0);
	for (uint64_t i = t->first_op; i < t->first_op + t->nr_ops; i++) {
		const struct ckf_op *op = &img->idx->ops[i];

		assert_int_equal(ckf_image_read_chunk(img, packs[img->idx->chunks[op->chunk].base],
						      op->chunk, ctx, stored, chunk, NULL),
				 0);
		assert_false((ckf_op_flags(op) & CKF_OP_DIRECT) &&
			     img->idx->chunks[op->chunk].base);
		for (uint32_t k = 0; k < op->nr_pages; k++) {
			uint64_t page = (ckf_op_addr(op) - BASE) / CKF_PAGE_BYTES + k;

			assert_true(page < MAX_PAGES && m->here[page]);
			dm_page(m->value[page], want);
			assert_memory_equal(want, chunk + (op->first_page + k) * CKF_PAGE_BYTES,
					    CKF_PAGE_BYTES);
			assert_int_equal(!!(ckf_op_flags(op) & CKF_OP_DIRECT),
					 t->kind == CKF_TARGET_TASK && page >= HUGETLB_PAGE &&
						 page < HUGETLB_END);
			/* CRIU's restorer decodes nothing, and knows of no zeros. */
			assert_true(!(ckf_op_flags(op) & CKF_OP_DIRECT) ||
				    img->idx->chunks[op->chunk].codec == CKF_CODEC_RAW);
			pages++;
		}
	}
	for (size_t i = 0; i < MAX_PAGES; i++)
		expected += m->here[i];
	assert_int_equal(pages, expected);
	ckf_codec_ctx_free(ctx);
}

static void check_image(const struct env *e, uint64_t nr_targets)
{
	struct ckf_error err = { 0 };
	struct ckf_image *img = NULL;
	int dir = open(e->fast, O_RDONLY | O_DIRECTORY), *packs;

	assert_true(dir >= 0);
	expect_ok(ckf_image_open(dir, &img, &err), &err);
	expect_ok(ckf_verify(img, CKF_OPTS(ckf_verify_opts, .threads = 2), NULL, &err), &err);
	expect_ok(ckf_image_open_packs(img, dir, &packs, &err), &err);
	assert_int_equal(img->idx->nr_targets, nr_targets);
	for (uint64_t i = 0; i < nr_targets; i++) {
		const struct ckf_target *t = &img->idx->targets[i];
		uint64_t k = 0;

		while (strcmp(img->idx->files[t->file].name, e->names[k]) != 0)
			assert_true(++k < nr_targets);
		check_target(img, t, packs, &e->models[k]);
	}
	ckf_image_close_packs(img, packs);
	close(dir);
	ckf_image_close(img);
}

static void roundtrip(struct env *e, const struct ckf_convert_opts *opts, uint64_t nr_targets)
{
	struct ckf_convert_stats stats = { .size = sizeof(stats) };
	struct ckf_error err = { 0 };

	expect_ok(ckf_convert(e->dump, e->fast, opts, &stats, &err), &err);
	assert_true(stats.zero_bytes + stats.dup_bytes <= stats.page_bytes);
	check_image(e, nr_targets);
	expect_ok(ckf_extract(e->fast, e->back, opts, &err), &err);
	same_dirs(e->dump, e->back);
}

/*
 * The same dump again, with the image that is there as its base: nothing but direct pages is stored
 * anew. Then once more on top of both, and flat.
 */
static void roundtrip_based(struct env *e, const struct ckf_convert_opts *opts, uint64_t nr_targets)
{
	char first[128], flat[128];
	const char *bases[2] = { first, e->fast };
	struct ckf_convert_opts based = *opts;
	struct ckf_convert_stats stats = { .size = sizeof(stats) };
	struct ckf_error err = { 0 };

	based.bases = bases;
	strcpy(first, e->fast);
	for (based.nr_bases = 1; based.nr_bases <= 2; based.nr_bases++) {
		char last[128];

		strcpy(last, e->fast);
		bases[1] = last;
		snprintf(e->fast, sizeof(e->fast), "%.60s/based%zu", e->base, based.nr_bases);
		expect_ok(ckf_convert(e->dump, e->fast, &based, &stats, &err), &err);
		assert_true(stats.base_bytes + stats.zero_bytes + stats.dup_bytes <=
			    stats.page_bytes);
		check_image(e, nr_targets);
		dm_remove(e->back);
		expect_ok(ckf_extract(e->fast, e->back, opts, &err), &err);
		same_dirs(e->dump, e->back);
	}
	snprintf(flat, sizeof(flat), "%.60s/flat", e->base);
	expect_ok(ckf_flatten(e->fast, flat, opts, &err), &err);
	dm_remove(first);
	strcpy(e->fast, flat);
	check_image(e, nr_targets);
	dm_remove(e->back);
	expect_ok(ckf_extract(e->fast, e->back, opts, &err), &err);
	same_dirs(e->dump, e->back);
}

/* One target in one level of a chain of dumps. */
static void make_pagemap(struct env *e, int dir, const char *name, uint32_t id, struct model *m,
			 bool has_parent)
{
	static struct dm_entry entries[MAX_PAGES];
	static uint32_t values[MAX_PAGES + 64];
	enum dm_style style = (enum dm_style)(dm_rand(&e->rand) % 3);
	uint32_t mean = 1u << dm_rand(&e->rand) % 9, n;
	size_t nr = 0, local = 0;

	for (uint32_t at = 0; at < MAX_PAGES; at += n) {
		uint32_t what = dm_rand(&e->rand) % 8;

		n = 1 + dm_rand(&e->rand) % (2 * mean);
		if (n > MAX_PAGES - at)
			n = MAX_PAGES - at;
		if (what == 0) { /* unmapped */
			memset(m->here + at, 0, n * sizeof(*m->here));
			continue;
		}
		for (uint32_t i = at; i < at + n; i++) {
			struct dm_entry *last = nr ? &entries[nr - 1] : NULL;
			bool parent = has_parent && m->here[i] && what < 4;
			uint32_t flags = parent ? DM_PARENT : DM_PRESENT;
			uint64_t addr = BASE + (uint64_t)i * CKF_PAGE_BYTES;

			if (!parent) {
				m->here[i] = true;
				/* Few values: the same runs of pages come again. */
				m->value[i] = what == 7 ? 0 : 1 + i % 200 + (what == 6 ? i : 0);
				values[local++] = m->value[i];
			}
			if (last && last->flags == flags && i != at &&
			    last->vaddr + last->nr_pages * CKF_PAGE_BYTES == addr)
				last->nr_pages++;
			else
				entries[nr++] = (struct dm_entry){ addr, 1, flags };
		}
	}
	/* Pages that no entry names are kept all the same. */
	for (n = dm_rand(&e->rand) % 2 ? 0 : dm_rand(&e->rand) % 40; n; n--)
		values[local++] = n;
	dm_pagemap(dir, name, id, style, entries, nr);
	dm_pages(dir, id, values, local);
}

static void make_dump(struct env *e, unsigned int levels)
{
	struct ckf_vma vma = {
		.start = BASE + (uint64_t)HUGETLB_PAGE * CKF_PAGE_BYTES,
		.end = BASE + (uint64_t)HUGETLB_END * CKF_PAGE_BYTES,
		.flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB,
		.status = CKF_VMA_AREA_REGULAR | CKF_VMA_ANON_PRIVATE,
	};
	struct ckf_task tasks[] = {
		{ .pid = 100, .vmas = &vma, .nr_vmas = 1, .comm = "parent" },
		{ .pid = 9, .ppid = 100, .vmas = &vma, .nr_vmas = 1, .comm = "child" },
	};
	char path[256];

	strcpy(e->names[0], "pagemap-100.img");
	strcpy(e->names[1], "pagemap-9.img");
	strcpy(e->names[2], "pagemap-shmem-5.img");
	for (unsigned int level = levels; level-- > 0;) {
		char name[32] = "dump", parent[32];
		int dir;

		if (level)
			snprintf(name, sizeof(name), "pre%u", level);
		dir = dm_mkdir(e->base, name, path, sizeof(path));
		snprintf(parent, sizeof(parent), "../pre%u", level + 1);
		if (level + 1 < levels)
			assert_int_equal(symlinkat(parent, dir, "parent"), 0);
		for (uint32_t i = 0; i < 3; i++)
			make_pagemap(e, dir, e->names[i], 10 - i, &e->models[i],
				     level + 1 < levels);
		dm_inventory(dir);
		if (!level)
			dm_tasks(dir, tasks, 2);
		dm_write(dir, "pages-77.img", "of no pagemap", 13);
		dm_write(dir, "unknown", "", 0);
		assert_int_equal(fchmodat(dir, "unknown", 04751, 0), 0);
		close(dir);
	}
}

static void test_random(void **state)
{
	struct env *e = *state;
	uint64_t seed = dm_seed();

	for (int round = 0; round < 6; round++) {
		struct ckf_convert_opts opts = { .size = sizeof(opts) };

		teardown(state);
		setup(state);
		e = *state;
		e->rand = seed + (uint64_t)round;
		opts.codec = (int)(dm_rand(&e->rand) % CKF_CODEC_END);
		if (opts.codec == CKF_CODEC_ZERO) {
			opts.codec = CKF_CODEC_AUTO;
			ckf_profile_get(CKF_PROFILE_SSD, &opts.storage);
		}
		opts.threads = 1 + dm_rand(&e->rand) % 4;
		opts.extent_bytes = 4u << 20 << dm_rand(&e->rand) % 3;
		make_dump(e, 1 + (unsigned int)round % MAX_LEVELS);
		roundtrip(e, &opts, 3);
		roundtrip_based(e, &opts, 3);
	}
}

static void test_deterministic(void **state)
{
	struct ckf_convert_opts opts = { .size = sizeof(opts), .codec = CKF_CODEC_AUTO };
	struct env *e = *state;
	char one[256], many[256];

	e->rand = dm_seed();
	make_dump(e, 2);
	snprintf(one, sizeof(one), "%s/one", e->base);
	snprintf(many, sizeof(many), "%s/many", e->base);
	opts.threads = 1;
	assert_int_equal(ckf_convert(e->dump, one, &opts, NULL, NULL), 0);
	opts.threads = 7;
	assert_int_equal(ckf_convert(e->dump, many, &opts, NULL, NULL), 0);
	for (int i = 0; i < 2; i++) {
		const char *name = i ? CKF_PACK_NAME : CKF_IDX_NAME;
		uint8_t *a, *b;
		size_t na, nb;

		read_all(one, name, &a, &na);
		read_all(many, name, &b, &nb);
		assert_int_equal(na, nb);
		assert_memory_equal(a, b, na);
		free(a);
		free(b);
	}
}

/* The profile is written down where codecs were chosen, named or not. */
static void test_storage(void **state)
{
	struct ckf_convert_opts opts = { .size = sizeof(opts), .codec = CKF_CODEC_AUTO };
	struct ckf_convert_stats stats = { .size = sizeof(stats) };
	struct env *e = *state;

	e->rand = dm_seed();
	make_dump(e, 1);
	for (int i = 0; i < 3; i++) {
		struct ckf_image *img;
		int dir;

		if (i == 1)
			opts.storage = (struct ckf_storage){ 12345, CKF_PROFILE_SSD, 3, true };
		if (i == 2) {
			opts.codec = CKF_CODEC_LZ4;
			opts.storage = (struct ckf_storage){ 0 };
		}
		opts.force = true;
		assert_int_equal(ckf_convert(e->dump, e->fast, &opts, &stats, NULL), 0);
		dir = open(e->fast, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_int_equal(ckf_image_open(dir, &img, NULL), 0);
		assert_int_equal(img->idx->storage.profile, stats.storage.profile);
		if (i == 1)
			assert_memory_equal(&stats.storage, &opts.storage, sizeof(opts.storage));
		assert_int_equal(stats.storage.bytes_per_s > 0, i < 2);
		ckf_image_close(img);
		close(dir);
	}
	opts.storage.bytes_per_s = 1;
	assert_int_equal(ckf_convert(e->dump, e->fast, &opts, &stats, NULL), -EINVAL);
}

static void test_no_pages(void **state)
{
	struct ckf_convert_opts opts = { .size = sizeof(opts), .codec = CKF_CODEC_AUTO };
	struct env *e = *state;
	char path[256];
	int dir = dm_mkdir(e->base, "dump", path, sizeof(path));

	/* Pagemaps without entries, and without or with an empty pages file. */
	dm_inventory(dir);
	strcpy(e->names[0], "pagemap-1.img");
	strcpy(e->names[1], "pagemap-2.img");
	dm_pagemap(dir, "pagemap-1.img", 1, DM_42, NULL, 0);
	dm_pagemap(dir, "pagemap-2.img", 2, DM_42, NULL, 0);
	dm_pages(dir, 2, NULL, 0);
	assert_int_equal(symlinkat("/nowhere/at all", dir, "parent"), 0);
	roundtrip(e, &opts, 2);
	close(dir);
}

/* The same pages three times: stored once, and never for pages that only look alike. */
static void test_dedup(void **state)
{
	struct ckf_convert_opts opts = { .size = sizeof(opts), .codec = CKF_CODEC_RAW };
	struct ckf_convert_stats stats = { .size = sizeof(stats) };
	struct env *e = *state;
	char path[256];
	int dir = dm_mkdir(e->base, "dump", path, sizeof(path));
	uint32_t values[600];
	struct dm_entry entry = { BASE, 600, DM_PRESENT };

	dm_inventory(dir);
	for (uint32_t i = 0; i < 600; i++)
		values[i] = 1 + i;
	for (uint32_t i = 1; i <= 3; i++) {
		char name[32];

		snprintf(name, sizeof(name), "pagemap-%u.img", i);
		dm_pagemap(dir, name, i, DM_42, &entry, 1);
		dm_pages(dir, i, values, 600);
	}
	close(dir);
	assert_int_equal(ckf_convert(e->dump, e->fast, &opts, &stats, NULL), 0);
	assert_int_equal(stats.page_bytes, 1800 * CKF_PAGE_BYTES);
	assert_int_equal(stats.dup_bytes, 1200 * CKF_PAGE_BYTES);
	assert_int_equal(stats.stored_bytes, 600 * CKF_PAGE_BYTES);
	assert_int_equal(ckf_extract(e->fast, e->back, &opts, NULL), 0);
	same_dirs(e->dump, e->back);
}

static void refused(const struct env *e, int code, const char *word)
{
	struct ckf_error err = { 0 };
	int entries = count_entries(e->base);

	assert_int_equal(ckf_convert(e->dump, e->fast, NULL, NULL, &err), code);
	if (!strstr(err.msg, word))
		fail_msg("no \"%s\" in \"%s\"", word, err.msg);
	assert_int_equal(count_entries(e->base), entries);
}

static void test_bad_dumps(void **state)
{
	const struct dm_entry one = { BASE, 1, DM_PRESENT }, parent = { BASE, 2, DM_PARENT };
	const uint32_t values[2] = { 1, 2 };
	struct env *e = *state;
	char path[256];
	int dir = dm_mkdir(e->base, "dump", path, sizeof(path));
	int pre = dm_mkdir(e->base, "pre", path, sizeof(path));

	dm_inventory(dir);
	dm_pagemap(dir, "pagemap-1.img", 1, DM_42, &one, 1);
	refused(e, -EBADMSG, "there is no pages-1.img");
	dm_write(dir, "pages-1.img", "x", 1);
	refused(e, -EBADMSG, "corrupt pages-1.img");
	dm_pages(dir, 1, values, 0);
	refused(e, -EBADMSG, "shorter than pagemap-1.img");
	dm_pages(dir, 1, values, 1);
	dm_pagemap(dir, "pagemap-2.img", 1, DM_42, NULL, 0);
	refused(e, -EBADMSG, "another pagemap");
	assert_int_equal(unlinkat(dir, "pagemap-2.img", 0), 0);
	assert_int_equal(unlinkat(dir, "pages-1.img", 0), 0);
	dm_write(dir, CKF_IDX_NAME, "", 0);
	refused(e, -EINVAL, "fast image already");
	assert_int_equal(unlinkat(dir, CKF_IDX_NAME, 0), 0);
	assert_int_equal(symlinkat("/dev/zero", dir, "pages-1.img"), 0);
	refused(e, -EOPNOTSUPP, "not a regular file");
	assert_int_equal(unlinkat(dir, "pages-1.img", 0), 0);

	/* Pages in parents that do not have them. */
	dm_pagemap(dir, "pagemap-1.img", 1, DM_42, &parent, 1);
	refused(e, -EBADMSG, "cannot open parent dump 1");
	assert_int_equal(symlinkat("../pre", dir, "parent"), 0);
	refused(e, -EBADMSG, "no such file");
	dm_pagemap(pre, "pagemap-1.img", 4, DM_42, &one, 1);
	refused(e, -EBADMSG, "missing in the pagemap of parent dump 1");
	dm_pagemap(pre, "pagemap-1.img", 4, DM_42, &(struct dm_entry){ BASE, 2, DM_PRESENT }, 1);
	refused(e, -EBADMSG, "no pages-4.img of parent dump 1");
	dm_pages(pre, 4, values, 1);
	refused(e, -EBADMSG, "corrupt pages-4.img");
	dm_write(pre, CKF_IDX_NAME, "", 0);
	assert_int_equal(unlinkat(pre, "pages-4.img", 0), 0);
	refused(e, -EOPNOTSUPP, "extract it first");
	dm_pagemap(pre, "pagemap-1.img", 4, DM_42, &parent, 1);
	assert_int_equal(symlinkat("../dump", pre, "parent"), 0);
	refused(e, -EBADMSG, "loop");
	close(dir);
	close(pre);
}

static void test_destinations(void **state)
{
	struct ckf_convert_opts opts = { .size = sizeof(opts), .codec = CKF_CODEC_AUTO };
	struct env *e = *state;
	char path[256], inside[512];
	int dir = dm_mkdir(e->base, "dump", path, sizeof(path));

	e->rand = 1;
	dm_inventory(dir);
	dm_pagemap(dir, "pagemap-1.img", 1, DM_42, NULL, 0);
	close(dir);
	snprintf(inside, sizeof(inside), "%s/../dump/fast", e->dump);
	assert_int_equal(ckf_convert(e->dump, inside, &opts, NULL, NULL), -EINVAL);
	assert_int_equal(ckf_convert(e->dump, "/", &opts, NULL, NULL), -EINVAL);
	assert_int_equal(ckf_convert(e->dump, e->dump, &opts, NULL, NULL), -EEXIST);
	assert_int_equal(ckf_convert(e->dump, e->fast, &opts, NULL, NULL), 0);
	assert_int_equal(ckf_convert(e->dump, e->fast, &opts, NULL, NULL), -EEXIST);
	opts.force = true;
	assert_int_equal(ckf_convert(e->dump, e->dump, &opts, NULL, NULL), -EEXIST);
	assert_int_equal(ckf_convert(e->dump, e->fast, &opts, NULL, NULL), 0);
	assert_int_equal(ckf_extract(e->fast, e->fast, &opts, NULL), -EINVAL);
	assert_int_equal(ckf_extract(e->fast, e->base, &opts, NULL), -EEXIST);
	assert_int_equal(ckf_extract(e->fast, e->dump, &opts, NULL), 0);
	assert_int_equal(count_entries(e->dump), 2);
	assert_int_equal(count_entries(e->base), 2);
	/* An empty directory is filled without force, and a file is never replaced. */
	close(dm_mkdir(e->base, "empty", path, sizeof(path)));
	opts.force = false;
	assert_int_equal(ckf_extract(e->fast, path, &opts, NULL), 0);
	assert_int_equal(ckf_extract(e->fast, path, &opts, NULL), -EEXIST);
	opts.force = true;
	assert_int_equal(ckf_extract(e->fast, path, &opts, NULL), 0);
	snprintf(inside, sizeof(inside), "%s/inventory.img", path);
	assert_int_equal(ckf_extract(e->fast, inside, &opts, NULL), -EEXIST);
	assert_int_equal(count_entries(e->base), 3);
}

/* Somebody else is quicker. */
static int put_file(void *arg)
{
	close(openat(*(int *)arg, "precious", O_WRONLY | O_CREAT, 0600));
	return 0;
}

/* A directory that was empty at the beginning is not replaced when it no longer is. */
static void test_filled_meanwhile(void **state)
{
	struct ckf_convert_opts opts = { .size = sizeof(opts), .codec = CKF_CODEC_AUTO };
	struct env *e = *state;
	char path[256];
	int dir;

	e->rand = 5;
	make_dump(e, 1);
	for (int force = 0; force < 2; force++) {
		dir = dm_mkdir(e->base, force ? "other" : "empty", path, sizeof(path));
		opts.force = force;
		opts.stop = put_file;
		opts.arg = &dir;
		assert_int_equal(ckf_convert(e->dump, path, &opts, NULL, NULL), -ENOTEMPTY);
		assert_int_equal(faccessat(dir, "precious", F_OK, 0), 0);
		assert_int_equal(count_entries(path), 1);
		close(dir);
	}
	assert_int_equal(count_entries(e->base), 3);
}

struct spoiler {
	int old_fd; /* what is about to be replaced */
	char told[512];
};

/* A directory in there cannot be removed. */
static int spoil(void *arg)
{
	struct spoiler *s = arg;

	(void)mkdirat(s->old_fd, "late", 0700);
	return 0;
}

static void note(void *arg, const char *msg)
{
	struct spoiler *s = arg;

	snprintf(s->told, sizeof(s->told), "%s", msg);
}

/* What was there before and cannot be removed is named; the new image is in its place. */
static void test_left_behind(void **state)
{
	struct ckf_convert_opts opts = { .size = sizeof(opts), .codec = CKF_CODEC_AUTO };
	struct spoiler s = { .told = "" };
	struct env *e = *state;

	e->rand = 4;
	make_dump(e, 1);
	opts.force = true;
	opts.warn = note;
	opts.arg = &s;
	assert_int_equal(ckf_convert(e->dump, e->fast, &opts, NULL, NULL), 0);
	assert_int_equal(ckf_convert(e->dump, e->fast, &opts, NULL, NULL), 0);
	assert_string_equal(s.told, "");
	s.old_fd = open(e->fast, O_RDONLY | O_DIRECTORY);
	opts.stop = spoil;
	assert_int_equal(ckf_convert(e->dump, e->fast, &opts, NULL, NULL), 0);
	assert_non_null(strstr(s.told, "cannot remove what was there before"));
	assert_int_equal(count_entries(e->base), 3);
	assert_int_equal(unlinkat(s.old_fd, "late", AT_REMOVEDIR), 0);
	close(s.old_fd);
	check_image(e, 3);
}

static int stop_at(void *arg)
{
	int *left = arg;

	return (*left)-- == 0;
}

/* Stopped at any point, nothing is left behind; the first run that ends by itself is the last. */
static void test_stop(void **state)
{
	struct ckf_convert_opts opts = { .size = sizeof(opts), .codec = CKF_CODEC_AUTO };
	struct env *e = *state;
	int ret = -EINTR;

	e->rand = 3;
	make_dump(e, 1);
	opts.stop = stop_at;
	opts.threads = 2;
	for (int n = 0; ret; n = n * 3 / 2 + 1) {
		int left = n;

		opts.arg = &left;
		ret = ckf_convert(e->dump, e->fast, &opts, NULL, NULL);
		assert_true(!ret || ret == -EINTR);
		assert_int_equal(count_entries(e->base), ret ? 1 : 2);
	}
	ret = -EINTR;
	for (int n = 0; ret; n = n * 3 / 2 + 1) {
		int left = n;

		opts.arg = &left;
		ret = ckf_extract(e->fast, e->back, &opts, NULL);
		assert_true(!ret || ret == -EINTR);
		assert_int_equal(count_entries(e->base), ret ? 2 : 3);
	}
	same_dirs(e->dump, e->back);
}

/* Killed at any point: the dump is whole, and what is at the destination is nothing or whole. */
static void test_kill(void **state)
{
	struct env *e = *state;
	unsigned int us = 200;
	int status;

	e->rand = 5;
	make_dump(e, 2);
	do {
		pid_t pid = fork();

		if (!pid)
			_exit(ckf_convert(e->dump, e->fast, NULL, NULL, NULL) ? 1 : 0);
		assert_true(pid > 0);
		usleep(us);
		us = us * 2;
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (!access(e->fast, F_OK)) {
			char idx[256];

			snprintf(idx, sizeof(idx), "%s/%s", e->fast, CKF_IDX_NAME);
			if (!access(idx, F_OK))
				check_image(e, 3);
			dm_remove(e->fast);
		}
	} while (WIFSIGNALED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_damaged(void **state)
{
	struct ckf_convert_opts opts = { .size = sizeof(opts), .codec = CKF_CODEC_AUTO };
	struct ckf_error err = { 0 };
	struct env *e = *state;
	char path[256];
	uint8_t byte;
	int fd;

	e->rand = 7;
	make_dump(e, 1);
	assert_int_equal(ckf_convert(e->dump, e->fast, &opts, NULL, NULL), 0);
	snprintf(path, sizeof(path), "%s/" CKF_PACK_NAME, e->fast);
	fd = open(path, O_RDWR);
	assert_int_equal(pread(fd, &byte, 1, 4096 + 100), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, 4096 + 100), 1);
	assert_int_equal(ckf_extract(e->fast, e->back, &opts, &err), -EBADMSG);
	assert_int_not_equal(access(e->back, F_OK), 0);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, 4096 + 100), 1);
	close(fd);
	snprintf(path, sizeof(path), "%s/pstree.img", e->fast);
	fd = open(path, O_RDWR);
	assert_int_equal(pwrite(fd, "x", 1, 0), 1);
	close(fd);
	assert_int_equal(ckf_extract(e->fast, e->back, &opts, NULL), -EBADMSG);
	assert_int_equal(count_entries(e->base), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_random, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deterministic, setup, teardown),
		cmocka_unit_test_setup_teardown(test_storage, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dedup, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_dumps, setup, teardown),
		cmocka_unit_test_setup_teardown(test_destinations, setup, teardown),
		cmocka_unit_test_setup_teardown(test_filled_meanwhile, setup, teardown),
		cmocka_unit_test_setup_teardown(test_left_behind, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stop, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kill, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
