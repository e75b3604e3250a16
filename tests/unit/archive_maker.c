/* SPDX-License-Identifier: MIT */
/* A generator of checkpoint archives. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#include "convert/ckf_archive.h"
#include "archive_maker.h"
#include "dump_maker.h"

void *am_extend(struct am_tar *t, size_t bytes)
{
	t->p = realloc(t->p, t->bytes + bytes);
	assert_non_null(t->p);
	memset(t->p + t->bytes, 0, bytes);
	t->bytes += bytes;
	return t->p + t->bytes - bytes;
}

void am_fix_sum(void *block)
{
	struct ckf_tar_header *h = block;
	const uint8_t *p = block;
	unsigned int sum = 0;

	memset(h->checksum, ' ', sizeof(h->checksum));
	for (size_t i = 0; i < AM_BLOCK; i++)
		sum += p[i];
	snprintf(h->checksum, sizeof(h->checksum), "%06o", sum);
}

/* A header that says that so many bytes follow. */
struct ckf_tar_header *am_add_header(struct am_tar *t, const char *name, char type, uint64_t bytes)
{
	struct ckf_tar_header *h = am_extend(t, AM_BLOCK);

	memcpy(h->name, name, strnlen(name, sizeof(h->name)));
	memcpy(h->mode, "0000640", 8);
	memcpy(h->uid, "0000017", 8);
	memcpy(h->gid, "0000021", 8);
	snprintf(h->bytes, sizeof(h->bytes), "%011llo", (unsigned long long)bytes);
	memcpy(h->mtime, "14000000000", 12);
	h->type = type;
	memcpy(h->magic, "ustar", 6);
	memcpy(h->version, "00", 2);
	am_fix_sum(h);
	return h;
}

void am_add_data(struct am_tar *t, const void *p, size_t bytes)
{
	memcpy(am_extend(t, (bytes + AM_BLOCK - 1) / AM_BLOCK * AM_BLOCK), p, bytes);
}

void am_add(struct am_tar *t, const char *name, char type, const void *p, size_t bytes)
{
	am_add_header(t, name, type, bytes);
	am_add_data(t, p, bytes);
}

void am_add_text(struct am_tar *t, const char *name, char type, const char *s)
{
	am_add(t, name, type, s, strlen(s));
}

void am_add_link(struct am_tar *t, const char *name, char type, const char *target)
{
	struct ckf_tar_header *h = am_add_header(t, name, type, 0);

	memcpy(h->link, target, strlen(target));
	am_fix_sum(h);
}

/* A pax header for the next member: one record. */
void am_add_pax(struct am_tar *t, char type, const char *key, const char *value)
{
	char record[512];
	int n = snprintf(NULL, 0, " %s=%s\n", key, value);

	n += n + 2 > 99 ? 3 : n + 1 > 9 ? 2 : 1;
	snprintf(record, sizeof(record), "%d %s=%s\n", n, key, value);
	assert_int_equal(strlen(record), n);
	am_add_text(t, "PaxHeaders/x", type, record);
}

/* A file of the dump, in checkpoint/ as prefix spells it. */
void am_add_file(const struct am_env *e, struct am_tar *t, const char *prefix, const char *name)
{
	char path[300];
	struct stat st;
	void *p;
	int fd = openat(e->dir, name, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	p = malloc((size_t)st.st_size + 1);
	assert_non_null(p);
	assert_int_equal(read(fd, p, (size_t)st.st_size), st.st_size);
	close(fd);
	snprintf(path, sizeof(path), "%s%s", prefix, name);
	am_add(t, path, '0', p, (size_t)st.st_size);
	free(p);
}

const char *const am_names[] = { "inventory.img", "pagemap-1.img", "pages-1.img", "pstree.img",
				 "core-1.img",	  "core-2.img",	   "mm-1.img",	  "mm-2.img",
				 "pagemap-2.img", "pages-2.img" };

void am_add_dump(const struct am_env *e, struct am_tar *t, const char *prefix)
{
	for (size_t i = 0; i < AM_NR_NAMES; i++)
		am_add_file(e, t, prefix, am_names[i]);
}

void am_add_end(struct am_tar *t)
{
	am_extend(t, 2 * AM_BLOCK);
}

void am_write_file(const char *path, const void *p, size_t bytes)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0640);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, bytes), bytes);
	close(fd);
}

void am_read_file(const char *path, struct am_tar *t)
{
	struct stat st;
	int fd = open(path, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	*t = (struct am_tar){ 0 };
	am_extend(t, (size_t)st.st_size);
	assert_int_equal(read(fd, t->p, t->bytes), t->bytes);
	close(fd);
}

void am_save(const struct am_env *e)
{
	am_write_file(e->in, e->tar.p, e->tar.bytes);
}

int am_setup(void **state)
{
	const struct dm_entry one = { AM_BASE, AM_PAGES, DM_PRESENT };
	const struct ckf_vma vma = {
		.start = AM_BASE,
		.end = AM_BASE + AM_PAGES * CKF_PAGE_BYTES,
		.prot = 3,
		.flags = 0x22,
		.status = 1 | 1 << 9,
	};
	struct ckf_vma vmas[2] = { vma, vma };
	const struct ckf_task tasks[] = {
		{ .pid = 1, .comm = "one", .vmas = &vmas[0], .nr_vmas = 1 },
		{ .pid = 2, .ppid = 1, .comm = "two", .vmas = &vmas[1], .nr_vmas = 1 }
	};
	struct am_env *e = calloc(1, sizeof(*e));
	char path[256];

	assert_non_null(e);
	dm_tempdir(e->base);
	e->dir = dm_mkdir(e->base, "dump", path, sizeof(path));
	snprintf(e->dump, sizeof(e->dump), "%s/dump", e->base);
	snprintf(e->in, sizeof(e->in), "%s/in.tar", e->base);
	snprintf(e->fast, sizeof(e->fast), "%s/fast.tar", e->base);
	snprintf(e->back, sizeof(e->back), "%s/back.tar", e->base);
	dm_inventory(e->dir);
	dm_tasks(e->dir, tasks, 2);
	for (uint32_t id = 1; id <= 2; id++) {
		const uint32_t values[AM_PAGES] = { 10 * id, 0, 7 };
		char name[32];

		snprintf(name, sizeof(name), "pagemap-%u.img", id);
		dm_pagemap(e->dir, name, id, DM_42, &one, 1);
		dm_pages(e->dir, id, values, AM_PAGES);
	}
	*state = e;
	return 0;
}

int am_teardown(void **state)
{
	struct am_env *e = *state;

	close(e->dir);
	dm_remove(e->base);
	free(e->tar.p);
	free(e);
	return 0;
}

const struct ckf_convert_opts am_one_thread = {
	.size = sizeof(am_one_thread),
	.codec = CKF_CODEC_AUTO,
	.threads = 1,
};

int am_convert(const struct am_env *e, struct ckf_error *err)
{
	return ckf_convert(e->in, e->fast, &am_one_thread, NULL, err);
}

int am_extract(const struct am_env *e, struct ckf_error *err)
{
	return ckf_extract(e->fast, e->back, &am_one_thread, err);
}

/* The directory that all is in has these many entries, hidden ones too. */
void am_has_entries(const struct am_env *e, unsigned int want)
{
	DIR *dir = opendir(e->base);
	struct dirent *de;
	unsigned int nr = 0;

	assert_non_null(dir);
	while ((de = readdir(dir)))
		nr += strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0;
	closedir(dir);
	assert_int_equal(nr, want);
}

void am_same_back(const struct am_env *e)
{
	struct am_tar back;

	am_read_file(e->back, &back);
	assert_int_equal(back.bytes, e->tar.bytes);
	assert_memory_equal(back.p, e->tar.p, back.bytes);
	free(back.p);
}

/* Where the bytes of a file of checkpoint/ are. */
uint8_t *am_find(const struct am_env *e, struct am_tar *t, const char *name, uint64_t *bytes)
{
	struct ckf_archive *a;
	const struct ckf_member *m;
	uint8_t *p;

	assert_int_equal(ckf_archive_open(e->fast, NULL, &a, NULL), 0);
	m = ckf_members_find(ckf_archive_dir(a)->members, name);
	assert_non_null(m);
	p = t->p + m->off;
	*bytes = m->bytes;
	ckf_archive_close(a);
	return p;
}

void am_make_fast(struct am_env *e, struct am_tar *fast)
{
	am_add_text(&e->tar, "config.dump", '0', "{}");
	am_add_dump(e, &e->tar, "checkpoint/");
	am_add_end(&e->tar);
	am_save(e);
	assert_int_equal(am_convert(e, NULL), 0);
	am_read_file(e->fast, fast);
}

size_t am_gzip(const struct am_tar *t, uint8_t *to, size_t room)
{
	z_stream z = { .next_in = t->p, .avail_in = (uInt)t->bytes, .next_out = to };

	z.avail_out = (uInt)room;
	assert_int_equal(deflateInit2(&z, 1, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY),
			 Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return room - z.avail_out;
}
