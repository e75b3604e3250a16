/* SPDX-License-Identifier: MIT */
/* convert/pack_writer.h: many threads put pieces of a pack, which goes to the disk in windows. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <cmocka.h>
#include <linux/magic.h>

#include "convert/pack_writer.h"
#include "base/ckf_io_thread.h"
#include "base/ckf_io_util.h"
#include "dump_maker.h"

#define MIB ((size_t)1 << 20)
#define PACK_BYTES (75 * MIB) /* the ring of buffers goes round several times */
#define NR_THREADS 4
#define MAX_PIECES 2000

/* Zeros from from to off, data up to end. */
struct piece {
	size_t from;
	size_t off;
	size_t end;
};

struct work {
	struct ckf_pack_writer *w;
	uint8_t *data;
	struct piece pieces[MAX_PIECES];
	unsigned int nr;
	size_t end;
	atomic_uint next;
	atomic_int ret; /* of the last one that failed */
};

static int new_file(void)
{
	int fd = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0)
		skip();
	return fd;
}

/* Of all lengths, from few bytes to more than a window, with a gap here and there. */
static struct work *new_work(void)
{
	struct work *k = calloc(1, sizeof(*k));
	uint64_t seed = 5;

	assert_non_null(k);
	k->data = malloc(PACK_BYTES + CKF_PAGE_BYTES);
	assert_non_null(k->data);
	for (size_t i = 0; i < PACK_BYTES; i++)
		k->data[i] = (uint8_t)dm_rand(&seed);
	while (k->nr < MAX_PIECES) {
		struct piece *p = &k->pieces[k->nr];
		size_t gap = k->nr % 5 ? 0 : dm_rand(&seed) % (k->nr % 50 ? 9000 : 3 * MIB);
		size_t bytes = 1 + dm_rand(&seed) % (k->nr % 30 ? 90000 : 2 * MIB);

		*p = (struct piece){ k->end, k->end + gap, k->end + gap + bytes };
		if (p->end > PACK_BYTES)
			break;
		memset(k->data + p->from, 0, gap);
		k->end = p->end;
		k->nr++;
	}
	memset(k->data + k->end, 0, CKF_PAGE_BYTES);
	return k;
}

static void free_work(struct work *k)
{
	free(k->data);
	free(k);
}

static void *put_pieces(void *arg)
{
	struct work *k = arg;
	unsigned int i;

	while ((i = atomic_fetch_add(&k->next, 1)) < k->nr) {
		const struct piece *p = &k->pieces[i];
		size_t bytes = p->end - p->off, half = bytes / 3;
		struct iovec iov[2] = {
			{ k->data + p->off, half },
			{ k->data + p->off + half, bytes - half },
		};
		int ret = ckf_pack_writer_put(k->w, p->from, iov, 2, p->off);

		if (ret)
			atomic_store(&k->ret, ret);
	}
	return NULL;
}

static int write_pack(struct work *k, int fd, bool direct, struct ckf_error *err)
{
	pthread_t threads[NR_THREADS];
	int ret;

	atomic_store(&k->next, 0);
	assert_int_equal(ckf_pack_writer_open(&k->w, fd, 0, PACK_BYTES, direct, NULL), 0);
	for (unsigned int i = 0; i < NR_THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, put_pieces, k), 0);
	for (unsigned int i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	ret = ckf_pack_writer_finish(k->w, err);
	ckf_pack_writer_free(k->w);
	return ret;
}

/* Up to the end of the last page, as an index says how long a pack is. */
static void check_file(const struct work *k, int fd)
{
	size_t bytes = (size_t)ckf_align_up(k->end, CKF_PAGE_BYTES);
	uint8_t *got = malloc(bytes);

	assert_non_null(got);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	assert_int_equal(ckf_pread_all(fd, got, bytes, 0), 0);
	assert_memory_equal(got, k->data, bytes);
	free(got);
}

static bool on_tmpfs(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) || fs.f_type == TMPFS_MAGIC;
}

/* True where the file is one to write directly, by io_uring. */
static bool can_go_direct(int fd)
{
	struct ckf_io_thread *io_thread;

	if (on_tmpfs(fd) || fcntl(fd, F_SETFL, O_DIRECT))
		return false;
	assert_int_equal(fcntl(fd, F_SETFL, 0), 0);
	if (ckf_io_thread_start(&io_thread))
		return false;
	ckf_io_thread_stop(io_thread);
	return true;
}

static void test_disk(void **state)
{
	int fd = new_file();
	struct work *k = new_work();

	(void)state;
	for (int direct = 1; direct >= 0; direct--) {
		assert_int_equal(ftruncate(fd, 0), 0);
		assert_int_equal(write_pack(k, fd, direct, NULL), 0);
		assert_int_equal(k->ret, 0);
		/* What comes later is not of whole pages. */
		assert_int_equal(fcntl(fd, F_GETFL) & O_DIRECT, 0);
		check_file(k, fd);
	}
	free_work(k);
	close(fd);
}

static void test_memory(void **state)
{
	int fd = memfd_create("pack", MFD_CLOEXEC);
	struct work *k = new_work();

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write_pack(k, fd, true, NULL), 0);
	assert_int_equal(k->ret, 0);
	check_file(k, fd);
	free_work(k);
	close(fd);
}

/* Nothing but a few bytes: their page is written. */
static void test_few_bytes(void **state)
{
	int fd = new_file();
	char data[] = "few", got[CKF_PAGE_BYTES], want[CKF_PAGE_BYTES] = { 0 };
	struct iovec iov = { data, 3 };
	struct ckf_pack_writer *w;

	(void)state;
	assert_int_equal(ckf_pack_writer_open(&w, fd, 0, PACK_BYTES, true, NULL), 0);
	assert_int_equal(ckf_pack_writer_put(w, 0, &iov, 1, CKF_PAGE_BYTES + 5), 0);
	assert_int_equal(ckf_pack_writer_finish(w, NULL), 0);
	ckf_pack_writer_free(w);
	assert_int_equal(ftruncate(fd, 2 * CKF_PAGE_BYTES), 0);
	assert_int_equal(ckf_pread_all(fd, got, sizeof(got), CKF_PAGE_BYTES), 0);
	memcpy(want + 5, data, 3);
	assert_memory_equal(got, want, sizeof(want));
	close(fd);
}

/* The disk says no to a write that was put long ago: nobody waits for ever, and it is said. */
static void test_write_fails(void **state)
{
	int fd = new_file();
	struct work *k = new_work();
	struct ckf_error err = { 0 };
	struct rlimit old, limit;

	(void)state;
	if (!can_go_direct(fd)) {
		free_work(k);
		close(fd);
		skip();
	}
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	limit = (struct rlimit){ 20 * MIB, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_int_equal(write_pack(k, fd, true, &err), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(k->ret, -EFBIG);
	assert_string_equal(err.msg, "cannot write ckfast.pack: File too large");
	free_work(k);
	close(fd);
}

struct waiter {
	struct ckf_pack_writer *w;
	atomic_bool began;
	int ret;
};

/* More than the buffers hold, behind a piece that nobody puts. */
static void *put_after_gap(void *arg)
{
	struct waiter *a = arg;
	uint8_t *data = calloc(1, PACK_BYTES);
	struct iovec iov = { data, PACK_BYTES };

	atomic_store(&a->began, true);
	a->ret = data ? ckf_pack_writer_put(a->w, CKF_PAGE_BYTES, &iov, 1, CKF_PAGE_BYTES) : 0;
	free(data);
	return NULL;
}

static void test_fail(void **state)
{
	struct waiter a = { 0 };
	pthread_t thread;
	int fd = new_file();

	(void)state;
	if (!can_go_direct(fd)) {
		close(fd);
		skip();
	}
	assert_int_equal(ckf_pack_writer_open(&a.w, fd, 0, PACK_BYTES, true, NULL), 0);
	assert_int_equal(pthread_create(&thread, NULL, put_after_gap, &a), 0);
	while (!atomic_load(&a.began))
		sched_yield();
	ckf_pack_writer_fail(a.w, -EBADMSG);
	pthread_join(thread, NULL);
	ckf_pack_writer_free(a.w);
	assert_int_equal(a.ret, -EBADMSG);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_disk),	  cmocka_unit_test(test_memory),
		cmocka_unit_test(test_few_bytes), cmocka_unit_test(test_write_fails),
		cmocka_unit_test(test_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
