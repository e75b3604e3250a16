/* SPDX-License-Identifier: MIT */
/* base/ckf_out_file.h: many threads write one file, in memory and on the disk. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/ckf_io_util.h"
#include "base/ckf_madvise.h"
#include "base/ckf_out_file.h"
#include "dump_maker.h"

#define MIB ((size_t)1 << 20)
#define FILE_BYTES (9 * MIB + 12345)
#define NR_THREADS 4
#define NR_PIECES 40

struct work {
	struct ckf_out_file *f;
	const uint8_t *data;
	const size_t *borders; /* NR_PIECES + 1 */
	_Atomic unsigned int *next;
	int ret;
};

static uint8_t *noise(size_t bytes)
{
	uint8_t *p = malloc(bytes);
	uint64_t seed = 7;

	assert_non_null(p);
	for (size_t i = 0; i < bytes; i++)
		p[i] = (uint8_t)dm_rand(&seed);
	return p;
}

static int memory_file(void)
{
	int fd = memfd_create("out_file", MFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* Some pieces in two parts, as chunks lie in the buffer of a block. */
static void *write_pieces(void *arg)
{
	struct work *w = arg;
	unsigned int i;

	while ((i = (*w->next)++) < NR_PIECES && !w->ret) {
		size_t off = w->borders[i], bytes = w->borders[i + 1] - off, half = bytes / 3;
		struct iovec iov[2] = {
			{ (void *)(uintptr_t)(w->data + off), half },
			{ (void *)(uintptr_t)(w->data + off + half), bytes - half },
		};

		if (bytes)
			w->ret = ckf_out_file_writev(w->f, iov, 2, off);
	}
	return NULL;
}

static void write_by_threads(struct ckf_out_file *f, const uint8_t *data)
{
	struct work works[NR_THREADS];
	pthread_t threads[NR_THREADS];
	size_t borders[NR_PIECES + 1];
	_Atomic unsigned int next = 0;
	uint64_t seed = 3;

	/* Of all lengths, from few bytes to more than a window. */
	borders[0] = 0;
	for (unsigned int i = 1; i < NR_PIECES; i++) {
		size_t bytes = dm_rand(&seed) % (i % 8 ? 200000 : 3 * MIB);

		borders[i] = borders[i - 1] + bytes < FILE_BYTES ? borders[i - 1] + bytes
								 : FILE_BYTES;
	}
	borders[NR_PIECES] = FILE_BYTES;
	for (unsigned int i = 0; i < NR_THREADS; i++) {
		works[i] = (struct work){ f, data, borders, &next, 0 };
		assert_int_equal(pthread_create(&threads[i], NULL, write_pieces, &works[i]), 0);
	}
	for (unsigned int i = 0; i < NR_THREADS; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(works[i].ret, 0);
	}
}

static void check_file(int fd, const uint8_t *data)
{
	uint8_t *got = malloc(FILE_BYTES);
	struct stat st;

	assert_non_null(got);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, FILE_BYTES);
	assert_int_equal(ckf_pread_all(fd, got, FILE_BYTES, 0), 0);
	assert_memory_equal(got, data, FILE_BYTES);
	free(got);
}

static void fill(int fd, bool dense, bool map)
{
	uint8_t *data = noise(FILE_BYTES);
	struct ckf_out_file f;

	assert_int_equal(ftruncate(fd, dense ? 0 : FILE_BYTES), 0);
	ckf_out_file_init(&f, fd, dense, FILE_BYTES);
	if (!map)
		atomic_store(&f.map, false);
	write_by_threads(&f, data);
	ckf_out_file_fini(&f);
	assert_int_equal(ftruncate(fd, FILE_BYTES), 0);
	check_file(fd, data);
	free(data);
}

static void test_memory(void **state)
{
	int fd = memory_file();

	(void)state;
	for (int i = 0; i < 20; i++) {
		fill(fd, true, true);
		fill(fd, false, true);
		fill(fd, true, false);
	}
	close(fd);
}

static void test_disk(void **state)
{
	int fd = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	(void)state;
	if (fd < 0)
		skip();
	fill(fd, true, true);
	fill(fd, false, true);
	close(fd);
}

static void test_holes_stay(void **state)
{
	uint8_t *data = noise(MIB);
	struct ckf_out_file f;
	struct stat st;
	int fd = memory_file();

	(void)state;
	assert_int_equal(ftruncate(fd, 8 * MIB), 0);
	ckf_out_file_init(&f, fd, false, 8 * MIB);
	assert_int_equal(ckf_out_file_write(&f, data, MIB, 4 * MIB + CKF_PAGE_BYTES), 0);
	ckf_out_file_fini(&f);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 8 * MIB);
	assert_int_equal(st.st_blocks * 512, MIB);
	close(fd);
	free(data);
}

/* A huge page would fill the hole. */
static void test_hole_in_dense(void **state)
{
	const off_t hole = 3 * MIB + CKF_PAGE_BYTES;
	const size_t before = 3 * MIB + CKF_PAGE_BYTES, after = 3 * MIB - 2 * CKF_PAGE_BYTES;
	uint8_t *data = noise(6 * MIB);
	struct ckf_out_file f;
	int fd = memory_file();

	(void)state;
	ckf_out_file_init(&f, fd, true, 6 * MIB);
	ckf_out_file_hole(&f, (uint64_t)hole, CKF_PAGE_BYTES);
	assert_int_equal(ckf_out_file_write(&f, data, before, 0), 0);
	assert_int_equal(ckf_out_file_write(&f, data, after, before + CKF_PAGE_BYTES), 0);
	ckf_out_file_fini(&f);
	assert_int_equal(lseek(fd, 0, SEEK_HOLE), hole);
	assert_int_equal(lseek(fd, hole, SEEK_DATA), hole + CKF_PAGE_BYTES);
	close(fd);
	free(data);
}

/* The first 2 MiB of the file, mapped where huge pages may be. */
static char *map_window(int fd, char **map)
{
	char *p = mmap(NULL, 4 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	*map = p;
	p = (char *)ckf_align_up((uintptr_t)p, CKF_HUGE_BYTES);
	assert_true(mmap(p, CKF_HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
			 0) != MAP_FAILED);
	return p;
}

/* KiB of the mapping at p that are mapped by huge pages. */
static unsigned long pmd_mapped_kib(const char *p)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long start, end, kib = 0, found = 0;
	char line[512];

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			found = start == (uintptr_t)p;
		else if (found && sscanf(line, "ShmemPmdMapped: %lu kB", &kib) == 1)
			break;
	}
	fclose(f);
	return kib;
}

static bool can_collapse(void)
{
	int fd = memory_file();
	char *map, *p;
	bool can;

	assert_int_equal(ftruncate(fd, CKF_HUGE_BYTES), 0);
	p = map_window(fd, &map);
	*p = 1;
	can = !madvise(p, CKF_HUGE_BYTES, MADV_COLLAPSE);
	munmap(map, 4 * MIB);
	close(fd);
	return can;
}

/* Two writes make one window: the first one sees to it that it is a huge page. */
static void test_huge(void **state)
{
	uint8_t *data = noise(MIB);
	struct ckf_out_file f;
	int fd = memory_file();
	char *map, *p;

	(void)state;
	if (!can_collapse())
		skip();
	ckf_out_file_init(&f, fd, true, 2 * MIB);
	assert_int_equal(ckf_out_file_write(&f, data, MIB, 0), 0);
	assert_int_equal(ckf_out_file_write(&f, data, MIB, MIB), 0);
	ckf_out_file_fini(&f);
	p = map_window(fd, &map);
	assert_memory_equal(p, data, MIB);
	assert_memory_equal(p + MIB, data, MIB);
	assert_int_equal(pmd_mapped_kib(p), CKF_HUGE_BYTES >> 10);
	munmap(map, 4 * MIB);
	close(fd);
	free(data);
}

/* A file system that is full is an error, not the end of the process. */
static void test_no_room(void **state)
{
	char dir[] = "/tmp/ckf-out-XXXXXX", path[64];
	uint8_t *data = noise(6 * MIB);
	struct ckf_out_file f;
	int fd, ret;

	(void)state;
	assert_non_null(mkdtemp(dir));
	if (mount("none", dir, "tmpfs", 0, "size=5m")) {
		rmdir(dir);
		free(data);
		skip();
	}
	snprintf(path, sizeof(path), "%s/f", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	ckf_out_file_init(&f, fd, true, 6 * MIB);
	ret = ckf_out_file_write(&f, data, 6 * MIB, 0);
	ckf_out_file_fini(&f);
	close(fd);
	umount2(dir, MNT_DETACH);
	rmdir(dir);
	free(data);
	assert_int_equal(ret, -ENOSPC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_memory),	   cmocka_unit_test(test_disk),
		cmocka_unit_test(test_holes_stay), cmocka_unit_test(test_hole_in_dense),
		cmocka_unit_test(test_huge),	   cmocka_unit_test(test_no_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
