/* SPDX-License-Identifier: MIT */
/* Directories that are not what a dump directory should be: conversions of what CRIU itself takes.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "ckfast.h"
#include "convert/ckf_dump.h"
#include "loader/ckf_image.h"
#include "dump_maker.h"

#define BASE 0x7f0000000000ull
#define ALIVE 1 /* CRIU's TASK_ values */
#define DEAD 2

struct env {
	char base[64];
	char dump[128];
	char fast[128];
	char back[128];
	int dir;
	char told[2048]; /* all warnings */
};

static int setup(void **state)
{
	const struct dm_entry one = { BASE, 3, DM_PRESENT };
	const uint32_t values[3] = { 10, 11, 12 };
	const struct ckf_task tasks[] = { { .pid = 1, .comm = "one", .state = ALIVE },
					  { .pid = 2, .ppid = 1, .comm = "two", .state = DEAD } };
	struct env *e = calloc(1, sizeof(*e));
	char path[256];

	assert_non_null(e);
	dm_tempdir(e->base);
	e->dir = dm_mkdir(e->base, "dump", path, sizeof(path));
	snprintf(e->dump, sizeof(e->dump), "%s/dump", e->base);
	snprintf(e->fast, sizeof(e->fast), "%s/fast", e->base);
	snprintf(e->back, sizeof(e->back), "%s/back", e->base);
	dm_inventory(e->dir);
	dm_tasks(e->dir, tasks, 2);
	dm_pagemap(e->dir, "pagemap-1.img", 1, DM_42, &one, 1);
	dm_pages(e->dir, 1, values, 3);
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	close(e->dir);
	dm_remove(e->base);
	free(e);
	return 0;
}

static void note(void *arg, const char *msg)
{
	struct env *e = arg;
	size_t n = strlen(e->told);

	snprintf(e->told + n, sizeof(e->told) - n, "%s\n", msg);
}

static int convert(struct env *e, struct ckf_convert_stats *stats, struct ckf_error *err)
{
	struct ckf_convert_opts opts = {
		.size = sizeof(opts),
		.codec = CKF_CODEC_AUTO,
		.threads = 1,
		.warn = note,
		.arg = e,
	};

	*e->told = '\0';
	return ckf_convert(e->dump, e->fast, &opts, stats, err);
}

/* Converts, verifies and extracts: e->back has the dump as it went into the image. */
static void roundtrip(struct env *e, struct ckf_convert_stats *stats)
{
	struct ckf_error err = { 0 };
	struct ckf_image *img;
	int dir;

	if (convert(e, stats, &err))
		fail_msg("%s", err.msg);
	dir = open(e->fast, O_RDONLY | O_DIRECTORY);
	assert_int_equal(ckf_image_open(dir, &img, &err), 0);
	close(dir);
	if (ckf_verify(img, CKF_OPTS(ckf_verify_opts, .threads = 1), NULL, &err))
		fail_msg("%s", err.msg);
	ckf_image_close(img);
	if (ckf_extract(e->fast, e->back, NULL, &err))
		fail_msg("%s", err.msg);
}

static void told(const struct env *e, const char *words)
{
	if (!strstr(e->told, words))
		fail_msg("no \"%s\" in \"%s\"", words, e->told);
}

static mode_t type_of(const char *dir, const char *name)
{
	char path[512];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return lstat(path, &st) ? 0 : st.st_mode & S_IFMT;
}

static off_t size_of(const char *dir, const char *name)
{
	char path[512];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return stat(path, &st) ? -1 : st.st_size;
}

static void bind_socket(const struct env *e, const char *name)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%.60s/%.40s", e->dump, name);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	close(fd);
}

/* What is no file is left out and named; what leads nowhere is a link as ever. */
static void test_left_out(void **state)
{
	struct ckf_convert_stats stats = { .size = sizeof(stats) };
	struct env *e = *state;

	assert_int_equal(mkdirat(e->dir, "criu.work", 0755), 0);
	assert_int_equal(mkfifoat(e->dir, "fifo", 0644), 0);
	assert_int_equal(mkdirat(e->dir, "pages-7.img", 0755), 0);
	assert_int_equal(mkdirat(e->dir, "pagemap-7.img", 0755), 0);
	bind_socket(e, "lazy-pages.socket");
	assert_int_equal(symlinkat("/nowhere", e->dir, "dangling.img"), 0);
	assert_int_equal(symlinkat("/dev/zero", e->dir, "zero.img"), 0);
	dm_write(e->dir, "ckfast.pack", "old", 3);
	dm_write(e->dir, "ckfast.idx.partial", "old", 3);
	dm_write(e->dir, "new\nline", "", 0);
	dm_write(e->dir, "\xff\xfe", "", 0);
	roundtrip(e, &stats);
	told(e, "criu.work is a directory: left out");
	told(e, "fifo is a FIFO: left out");
	told(e, "pages-7.img is a directory: left out");
	told(e, "pagemap-7.img is a directory: left out");
	told(e, "lazy-pages.socket is a socket: left out");
	told(e, "what is left of that");
	assert_int_equal(stats.nr_left_out, 6);
	assert_int_equal(type_of(e->back, "criu.work"), 0);
	assert_int_equal(type_of(e->back, "fifo"), 0);
	assert_int_equal(type_of(e->back, "ckfast.pack"), 0);
	assert_int_equal(type_of(e->back, "dangling.img"), S_IFLNK);
	assert_int_equal(type_of(e->back, "zero.img"), S_IFLNK);
	assert_int_equal(type_of(e->back, "new\nline"), S_IFREG);
	assert_int_equal(type_of(e->back, "\xff\xfe"), S_IFREG);
}

/* CRIU opens images through symbolic links. */
static void test_links(void **state)
{
	struct env *e = *state;

	assert_int_equal(renameat(e->dir, "pages-1.img", e->dir, "../elsewhere"), 0);
	assert_int_equal(symlinkat("../elsewhere", e->dir, "pages-1.img"), 0);
	assert_int_equal(renameat(e->dir, "mm-1.img", e->dir, "real"), 0);
	assert_int_equal(symlinkat("real", e->dir, "mm-1.img"), 0);
	assert_int_equal(symlinkat("real", e->dir, "link.log"), 0);
	roundtrip(e, NULL);
	told(e, "pages-1.img is a symbolic link");
	told(e, "mm-1.img is a symbolic link");
	assert_int_equal(type_of(e->fast, "mm-1.img"), S_IFREG);
	assert_int_equal(type_of(e->back, "pages-1.img"), S_IFREG);
	assert_int_equal(size_of(e->back, "pages-1.img"), 3 * CKF_PAGE_BYTES);
	assert_int_equal(type_of(e->back, "link.log"), S_IFLNK);
}

/* Image files of more than is read at once, as ghost files are: the last bytes count. */
static void test_large_file(void **state)
{
	static char data[(1u << 20) + 5];
	struct ckf_error err = { 0 };
	struct ckf_image *img;
	struct env *e = *state;
	int fast;

	dm_write(e->dir, "ghost-file-1.img", data, sizeof(data));
	roundtrip(e, NULL);
	assert_int_equal(size_of(e->back, "ghost-file-1.img"), sizeof(data));
	data[sizeof(data) - 1] ^= 1;
	fast = open(e->fast, O_RDONLY | O_DIRECTORY);
	dm_write(fast, "ghost-file-1.img", data, sizeof(data));
	assert_int_equal(ckf_image_open(fast, &img, &err), 0);
	assert_int_equal(ckf_verify(img, CKF_OPTS(ckf_verify_opts, .threads = 1), NULL, &err),
			 -EBADMSG);
	assert_non_null(strstr(err.msg, "wrong checksum of ghost-file-1.img"));
	ckf_image_close(img);
	close(fast);
}

/* Bytes behind the last page, as a dump to a device that rounds up may have. */
static void test_tail(void **state)
{
	struct env *e = *state;
	char path[256];

	snprintf(path, sizeof(path), "%s/pages-1.img", e->dump);
	assert_int_equal(truncate(path, 4 * CKF_PAGE_BYTES + 5), 0);
	roundtrip(e, NULL);
	told(e, "pages-1.img ends in 5 bytes that are no page: left out");
	assert_int_equal(size_of(e->back, "pages-1.img"), 4 * CKF_PAGE_BYTES);
}

/* What an older dump has left in the directory, and pstree.img does not name. */
static void test_strays(void **state)
{
	const struct dm_entry four = { BASE, 4, DM_PRESENT }, one = { BASE, 1, DM_PRESENT };
	const uint32_t value = 30;
	struct ckf_convert_stats stats = { .size = sizeof(stats) };
	struct env *e = *state;

	dm_pagemap(e->dir, "pagemap-7.img", 1, DM_42, &one, 1);
	dm_pagemap(e->dir, "pagemap-8.img", 8, DM_42, &one, 1);
	dm_pagemap(e->dir, "pagemap-9.img", 9, DM_42, &four, 1);
	dm_pages(e->dir, 9, &value, 1);
	dm_pagemap(e->dir, "pagemap-10.img", 10, DM_42, &one, 1);
	dm_pages(e->dir, 10, &value, 1);
	dm_write(e->dir, "pagemap-11.img", "none", 4);
	roundtrip(e, &stats);
	assert_int_equal(stats.nr_left_out, 4);
	told(e, "pagemap-7.img is left of an older dump");
	told(e, "pagemap-11.img is left of an older dump");
	told(e, "pagemap-8.img is left of an older dump");
	told(e, "pagemap-9.img is left of an older dump");
	assert_null(strstr(e->told, "pagemap-10.img"));
	assert_int_equal(type_of(e->back, "pagemap-7.img"), 0);
	assert_int_equal(type_of(e->back, "pages-9.img"), S_IFREG);
	assert_int_equal(type_of(e->back, "pagemap-10.img"), S_IFREG);
}

#define ANON_SHARED (1u << 8) /* CRIU's VMA_ bit */
#define FILE_SHARED (1u << 7)

/* The tasks of setup(), of which the first has shared memory 5, and file 21 mapped. */
static void add_shared(struct env *e)
{
	struct ckf_vma vmas[] = {
		{ .start = BASE, .end = BASE + 4096, .shmid = 5, .status = ANON_SHARED },
		{ .start = BASE + 4096, .end = BASE + 8192, .shmid = 21, .status = FILE_SHARED },
	};
	struct ckf_task tasks[] = {
		{ .pid = 1, .comm = "one", .state = ALIVE, .vmas = vmas, .nr_vmas = 2 },
		{ .pid = 2, .ppid = 1, .comm = "two", .state = DEAD },
	};

	dm_tasks(e->dir, tasks, 2);
	dm_ids(e->dir, 1, 3);
	dm_memfd(e->dir, 6);
	dm_segment(e->dir, 3, 7, true);
	dm_segment(e->dir, 4, 22, true);
}

/* A pagemap of shared memory of one page; pages are in pages-PAGES_ID.img. */
static void add_shmem(struct env *e, const char *name, uint32_t pages_id, bool has_pages)
{
	const struct dm_entry one = { 0, 1, DM_PRESENT };
	const uint32_t value = 40;

	dm_pagemap(e->dir, name, pages_id, DM_42, &one, 1);
	if (has_pages)
		dm_pages(e->dir, pages_id, &value, 1);
}

/*
 * Shared memory that no task, memfd or segment of the dump names: with pages of another pagemap,
 * without pages, with pages of its own, with pages in a parent, and unreadable.
 */
static void test_stray_shmem(void **state)
{
	static const char *const gone[] = { "20", "21", "22", "24", "25" };
	const struct dm_entry in_parent = { 0, 1, DM_PARENT };
	struct ckf_convert_stats stats = { .size = sizeof(stats) };
	struct env *e = *state;

	add_shared(e);
	add_shmem(e, "pagemap-shmem-5.img", 5, true);
	add_shmem(e, "pagemap-shmem-6.img", 6, true);
	add_shmem(e, "pagemap-shmem-7.img", 7, true);
	add_shmem(e, "pagemap-shmem-20.img", 1, false);
	add_shmem(e, "pagemap-shmem-21.img", 5, false);
	add_shmem(e, "pagemap-shmem-22.img", 22, false);
	add_shmem(e, "pagemap-shmem-23.img", 23, true);
	dm_pagemap(e->dir, "pagemap-shmem-24.img", 24, DM_42, &in_parent, 1);
	dm_write(e->dir, "pagemap-shmem-25.img", "none", 4);
	/* The second task has ended: an older dump has its memory. */
	add_shmem(e, "pagemap-2.img", 1, false);
	roundtrip(e, &stats);
	assert_int_equal(stats.nr_left_out, 6);
	for (size_t i = 0; i < sizeof(gone) / sizeof(*gone); i++) {
		char name[64], words[128];

		snprintf(name, sizeof(name), "pagemap-shmem-%s.img", gone[i]);
		snprintf(words, sizeof(words), "%s is left of an older dump", name);
		told(e, words);
		assert_int_equal(type_of(e->back, name), 0);
	}
	told(e, "pagemap-2.img is left of an older dump");
	for (const char *id = "5\0"
			      "6\0"
			      "7\0"
			      "23\0";
	     *id; id += strlen(id) + 1) {
		char name[64];

		snprintf(name, sizeof(name), "pagemap-shmem-%s.img", id);
		assert_int_equal(type_of(e->back, name), S_IFREG);
	}
}

/* Shared memory of the dump itself, or that may be: without its pages, the dump is corrupt. */
static void refuse_shmem(struct env *e, const char *name)
{
	struct ckf_error err = { 0 };

	add_shmem(e, name, 30, false);
	assert_int_equal(convert(e, NULL, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "there is no pages-30.img"));
	assert_int_equal(unlinkat(e->dir, name, 0), 0);
}

static void test_live_shmem(void **state)
{
	struct ckf_error err = { 0 };
	struct env *e = *state;

	add_shared(e);
	refuse_shmem(e, "pagemap-shmem-5.img");
	refuse_shmem(e, "pagemap-shmem-6.img");
	refuse_shmem(e, "pagemap-shmem-7.img");
	/* Segments in the image itself, as older versions of CRIU wrote them. */
	dm_segment(e->dir, 3, 7, false);
	refuse_shmem(e, "pagemap-shmem-20.img");
	dm_segment(e->dir, 3, 7, true);
	dm_write(e->dir, "memfd.img", "none", 4);
	assert_int_equal(convert(e, NULL, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "memfd.img"));
	/* Without the ids of the tasks, any namespace may be theirs. */
	dm_memfd(e->dir, 6);
	assert_int_equal(unlinkat(e->dir, "ids-1.img", 0), 0);
	refuse_shmem(e, "pagemap-shmem-22.img");
}

/* A dump without one of its files does not become an image, and the message names the file. */
static void incomplete(struct env *e, const char *gone, int code, const char *words)
{
	struct ckf_error err = { 0 };

	if (gone)
		assert_int_equal(renameat(e->dir, gone, e->dir, "../aside"), 0);
	assert_int_equal(convert(e, NULL, &err), code);
	if (!strstr(err.msg, words))
		fail_msg("no \"%s\" in \"%s\"", words, err.msg);
	assert_int_equal(type_of(e->fast, "."), 0);
	if (gone)
		assert_int_equal(renameat(e->dir, "../aside", e->dir, gone), 0);
}

/* One line says so, with no word of what would have been left out of an image. */
static void no_file(struct env *e, const char *name)
{
	char words[64];

	snprintf(words, sizeof(words), "%s is not a regular file", name);
	assert_int_equal(mkdirat(e->dir, name, 0755), 0);
	incomplete(e, NULL, -EOPNOTSUPP, words);
	assert_string_equal(e->told, "");
	assert_int_equal(unlinkat(e->dir, name, AT_REMOVEDIR), 0);
	assert_int_equal(mkfifoat(e->dir, name, 0644), 0);
	incomplete(e, NULL, -EOPNOTSUPP, words);
	assert_string_equal(e->told, "");
	assert_int_equal(unlinkat(e->dir, name, 0), 0);
	bind_socket(e, name);
	incomplete(e, NULL, -EOPNOTSUPP, words);
	assert_string_equal(e->told, "");
	assert_int_equal(unlinkat(e->dir, name, 0), 0);
}

/* What CRIU will open has to be a file. */
static void test_no_files(void **state)
{
	static const char *const wanted[] = { "inventory.img", "core-1.img",  "mm-1.img",
					      "pagemap-1.img", "pages-1.img", "pstree.img" };
	const struct ckf_task threads = {
		.pid = 1, .comm = "one", .state = ALIVE, .nr_threads = 2
	};
	struct env *e = *state;

	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
		assert_int_equal(renameat(e->dir, wanted[i], e->dir, "../aside"), 0);
		no_file(e, wanted[i]);
		assert_int_equal(renameat(e->dir, "../aside", e->dir, wanted[i]), 0);
	}
	no_file(e, "ckfast-gpu-1.img");
	/* And what only CRIU reads. */
	no_file(e, "files.img");
	no_file(e, "fs-1.img");
	no_file(e, "fifo.img");
	dm_tasks(e->dir, &threads, 1);
	no_file(e, "core-1001.img");
	incomplete(e, NULL, -EBADMSG, "there is no core-1001.img");
}

static void test_incomplete(void **state)
{
	static const char *const wanted[] = { "inventory.img", "core-1.img",	"core-2.img",
					      "mm-1.img",      "pagemap-1.img", "pstree.img" };
	struct ckf_error err = { 0 };
	struct env *e = *state;
	char words[64];

	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
		snprintf(words, sizeof(words), "incomplete dump: there is no %s", wanted[i]);
		incomplete(e, wanted[i], -EBADMSG, words);
	}
	/* One that has ended has no memory. */
	assert_int_equal(unlinkat(e->dir, "mm-2.img", 0), 0);
	if (convert(e, NULL, &err))
		fail_msg("%s", err.msg);
	dm_remove(e->fast);

	/* Nothing, and nothing but a log. */
	dm_remove(e->dump);
	close(e->dir);
	e->dir = dm_mkdir(e->base, "dump", words, sizeof(words));
	incomplete(e, NULL, -ENOENT, "not a CRIU dump");
	dm_write(e->dir, "dump.log", "Error", 5);
	incomplete(e, NULL, -EBADMSG, "incomplete dump: there is no inventory.img");
	/* Written at the end of each dump, so that it is there, but no process is. */
	dm_inventory(e->dir);
	incomplete(e, NULL, -EBADMSG, "there is no pagemap-*.img");
}

/* A dump into the directory of a fast image is a dump; and who takes it for the image is told. */
static void test_stale(void **state)
{
	const uint32_t values[3] = { 20, 21, 22 };
	struct ckf_error err = { 0 };
	struct ckf_image *img;
	struct env *e = *state;
	char old[128];

	assert_int_equal(convert(e, NULL, &err), 0);
	strcpy(old, e->dump);
	strcpy(e->dump, e->fast);
	strcpy(e->fast, old);
	assert_int_equal(convert(e, NULL, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "is a fast image already"));

	snprintf(e->fast, sizeof(e->fast), "%s/again", e->base);
	close(e->dir);
	e->dir = open(e->dump, O_RDONLY | O_DIRECTORY);
	dm_pages(e->dir, 1, values, 3);
	assert_int_equal(ckf_image_open(e->dir, &img, NULL), 0);
	assert_true(ckf_image_is_stale(img));
	dm_write(e->dir, "inventory.img", "newer", 5);
	err.code = 0;
	assert_int_equal(ckf_image_check_files(img, CKF_FILES_ALL, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "a newer dump was written into this directory"));
	ckf_image_close(img);

	dm_inventory(e->dir);
	roundtrip(e, NULL);
	told(e, "a dump was written over an older fast image");
	assert_int_equal(size_of(e->back, "pages-1.img"), 3 * CKF_PAGE_BYTES);
	assert_int_equal(type_of(e->back, "ckfast.idx"), 0);
}

static void count(void *arg, const char *name)
{
	note(arg, name);
}

/* The contents of a short file, or "" if it is not there. */
static const char *contents(const char *dir, const char *name)
{
	static char buf[64];
	char path[512];
	ssize_t n = 0;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY);
	if (fd >= 0) {
		n = read(fd, buf, sizeof(buf) - 1);
		close(fd);
	}
	assert_true(n >= 0);
	buf[n] = '\0';
	return buf;
}

/* A restore from the image writes over what an earlier one from the dump left: no image is bad for
 * it. */
static void test_unread(void **state)
{
	struct ckf_error err = { 0 };
	struct ckf_image *img;
	struct env *e = *state;
	struct ckf_convert_opts opts = { .size = sizeof(opts), .warn = note, .arg = e };
	char flat[128];
	int fast;

	dm_write(e->dir, "stats-restore", "first", 5);
	dm_write(e->dir, "restore.log", "first", 5);
	dm_write(e->dir, "gone.log", "first", 5);
	dm_write(e->dir, "same.log", "first", 5);
	assert_int_equal(convert(e, NULL, &err), 0);
	fast = open(e->fast, O_RDONLY | O_DIRECTORY);
	dm_write(fast, "stats-restore", "other", 5);
	dm_write(fast, "restore.log", "longer than it was", 18);
	assert_int_equal(unlinkat(fast, "gone.log", 0), 0);
	assert_int_equal(mkfifoat(fast, "gone.log", 0644), 0);
	assert_int_equal(ckf_image_open(fast, &img, &err), 0);
	if (ckf_verify(img, CKF_OPTS(ckf_verify_opts, .threads = 1), NULL, &err))
		fail_msg("%s", err.msg);
	*e->told = '\0';
	assert_int_equal(ckf_image_check_unread(img, count, e, &err), 0);
	assert_string_equal(e->told, "gone.log\nrestore.log\nstats-restore\n");
	ckf_image_close(img);

	snprintf(flat, sizeof(flat), "%s/flat", e->base);
	*e->told = '\0';
	if (ckf_flatten(e->fast, flat, &opts, &err) || ckf_extract(flat, e->back, &opts, &err))
		fail_msg("%s", err.msg);
	told(e, "stats-restore, which CRIU does not read, has changed since: copied as it is");
	told(e, "restore.log, which CRIU does not read, has changed since: copied as it is");
	told(e, "gone.log is gone, which CRIU does not read: left out");
	assert_null(strstr(e->told, "same.log"));
	assert_string_equal(contents(e->back, "stats-restore"), "other");
	assert_string_equal(contents(e->back, "restore.log"), "longer than it was");
	assert_string_equal(contents(e->back, "same.log"), "first");
	assert_int_equal(type_of(e->back, "gone.log"), 0);

	/* But images are what the dump had. */
	dm_write(fast, "core-2.img", "other", 5);
	close(fast);
	dm_remove(e->back);
	assert_int_equal(ckf_extract(e->fast, e->back, &opts, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "core-2.img"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_left_out, setup, teardown),
		cmocka_unit_test_setup_teardown(test_links, setup, teardown),
		cmocka_unit_test_setup_teardown(test_large_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tail, setup, teardown),
		cmocka_unit_test_setup_teardown(test_strays, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stray_shmem, setup, teardown),
		cmocka_unit_test_setup_teardown(test_live_shmem, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_files, setup, teardown),
		cmocka_unit_test_setup_teardown(test_incomplete, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stale, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unread, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
