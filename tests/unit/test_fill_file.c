/* SPDX-License-Identifier: MIT */
/* Memory that is a shared mapping of a file, and filled by writing the file. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "format/ckf_codec.h"
#include "fill_world.h"

/* A file of the size that the target has, mapped from the target's start. */
static int world_file(char **area)
{
	int fd = memfd_create("world", 0);

	*area = world_map_area();
	assert_true(fd > 0);
	assert_int_equal(ftruncate(fd, (off_t)(WORLD_BASE + WORLD_BYTES)), 0);
	assert_ptr_equal(mmap(*area, WORLD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			      fd, (off_t)WORLD_BASE),
			 *area);
	return fd;
}

/* One worker writes to the file; here to another one than is mapped, which tells the ways apart.
 * More workers, or one that may not write, fill the mapping. */
static void test_file(void **state)
{
	struct ckf_dest d = { .start = WORLD_BASE,
			      .end = WORLD_BASE + WORLD_BYTES,
			      .flags = CKF_DEST_FRESH };
	const struct ckf_dest two[2] = { d, d };
	struct ckf_fill_opts o = { .size = sizeof(o), .dir_fd = -1, .threads = 1 };
	char *other, path[64];
	struct world w;
	int fd;

	(void)state;
	world_init(&w, 22, false);
	o.file = world_file(&other);
	fd = world_file(&d.addr);
	assert_int_equal(ckf_fill(w.img, &w.img->idx->targets[0], &d, 1, &o, NULL, NULL), 0);
	world_assert_area(&w, other, 0);
	assert_true(ckf_is_zero(d.addr, WORLD_BYTES));

	o.threads = 2;
	assert_int_equal(ckf_fill(w.img, &w.img->idx->targets[0], &d, 1, &o, NULL, NULL), 0);
	world_assert_area(&w, d.addr, 0);
	munmap(d.addr, WORLD_BYTES);
	close(fd);

	/* A file that ends within a page stays so: the mapping has the rest of the page. */
	fd = world_file(&d.addr);
	assert_int_equal(ftruncate(o.file, (off_t)(WORLD_BASE + WORLD_BYTES - 1)), 0);
	o.threads = 1;
	assert_int_equal(ckf_fill(w.img, &w.img->idx->targets[0], &d, 1, &o, NULL, NULL), 0);
	world_assert_area(&w, d.addr, 0);
	assert_int_equal(lseek(o.file, 0, SEEK_END), WORLD_BASE + WORLD_BYTES - 1);
	close(o.file);
	munmap(d.addr, WORLD_BYTES);
	close(fd);

	fd = world_file(&d.addr);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	o.threads = 1;
	o.file = open(path, O_RDONLY);
	assert_int_equal(ckf_fill(w.img, &w.img->idx->targets[0], &d, 1, &o, NULL, NULL), 0);
	world_assert_area(&w, d.addr, 0);
	assert_int_equal(ckf_fill(w.img, &w.img->idx->targets[0], two, 2, &o, NULL, NULL), -EINVAL);
	close(o.file);
	close(fd);
	munmap(d.addr, WORLD_BYTES);
	munmap(other, WORLD_BYTES);
	world_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_file) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
