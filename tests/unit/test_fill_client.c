/* SPDX-License-Identifier: MIT */
/* What a client makes of a gpud that fills device memory, in order, wrongly, or not at all. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "format/ckf_gpu_dump.h"
#include "gpu/suspend/ckf_agent_call.h"
#include "gpu/suspend/ckf_process.h"
#include "gpud_ends.h"

/* A fill whose answers come from e, which may have said the first of them. */
static int start(struct ends *e, struct ckf_gpu_fill **f)
{
	struct ends *first;
	int ret;

	assert_int_equal(ends_set_up((void **)&first), 0);
	ends_answer(first, CKF_GPUD_DONE, 0, "", e->client);
	ret = ckf_gpu_fill_start(first->client, 0, f, &e->err);
	assert_int_equal(ends_heard(first).op, CKF_GPUD_JOIN);
	assert_int_equal(ends_heard(e).op, CKF_GPUD_FILL);
	ends_tear_down((void **)&first);
	return ret;
}

/* This process, as one whose device memory is given back. */
static struct ckf_gpu_process *open_process(void)
{
	struct ckf_gpu_process *p = NULL;
	struct ends *e;

	assert_int_equal(ends_set_up((void **)&e), 0);
	ends_answer(e, CKF_GPUD_DONE, ckf_inner_id(getpid(), getpid()), "", -1);
	assert_int_equal(ckf_gpu_process_open(getpid(), e->client, &p, &e->err), 0);
	ends_tear_down((void **)&e);
	return p;
}

static void say_memory(struct ends *e, uint32_t pid, uint64_t addr, uint32_t flags, uint8_t id)
{
	struct ckf_gpud_msg m = {
		.op = CKF_GPUD_MEMORY,
		.pid = pid,
		.addr = addr,
		.bytes = 4096,
		.flags = flags,
		.uuid2 = { id },
	};

	ends_say(e, &m, e->gpud);
}

static void say_ready(struct ends *e, uint32_t pid, uint64_t bytes)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_READY, .pid = pid, .arg = bytes, .arg2 = 5 };

	ends_say(e, &m, -1);
}

static int wait_for(struct ends *e, struct ckf_gpu_fill *f, uint32_t pid,
		    struct ckf_gpu_fill_stats *stats)
{
	return ckf_gpu_fill_wait(f, pid, stats, &e->err);
}

static void test_order(void **state)
{
	struct ckf_gpu_fill_stats stats = { .size = sizeof(stats) };
	const unsigned int nr_fds = ends_count_fds();
	struct ends *e = *state;
	struct ckf_gpu_process *p = open_process();
	struct ckf_gpu_memory *mem;
	struct ckf_gpu_fill *f;
	size_t nr;

	assert_int_equal(start(e, &f), 0);
	ends_answer(e, CKF_GPUD_PAIR, 0, "", -1);
	ends_answer(e, CKF_GPUD_ACCEPTED, 0, "", -1);
	assert_int_equal(ckf_gpu_fill_accepted(f, p, &e->err), 0);
	for (uint64_t i = 0; i < 65; i++)
		say_memory(e, 7, i << 21, 0, 0);
	say_memory(e, 8, 1, 0, 0);
	/* Before or after MADE. */
	say_ready(e, 8, 100);
	ends_answer(e, CKF_GPUD_MADE, 0, "", -1);
	assert_int_equal(ckf_gpu_fill_memory(f, 7, p, &e->err), 0);
	mem = ckf_gpu_process_memory(p, &nr);
	assert_int_equal(nr, 65);
	assert_int_equal(mem[64].addr, 64ull << 21);
	assert_int_equal(ckf_gpu_process_bytes(p), 65 * 4096);
	/* Not a second time: it is the process's now. */
	assert_int_equal(ckf_gpu_fill_memory(f, 7, p, &e->err), 0);
	ckf_gpu_process_memory(p, &nr);
	assert_int_equal(nr, 65);
	assert_int_equal(wait_for(e, f, 8, &stats), 0);
	assert_int_equal(stats.bytes, 100);
	assert_int_equal(stats.ns, 5);
	say_ready(e, 7, 1);
	assert_int_equal(wait_for(e, f, 7, NULL), 0);
	/* One that has none is ready with all. */
	ends_answer(e, CKF_GPUD_DONE, 0, "", -1);
	assert_int_equal(wait_for(e, f, 9, &stats), 0);
	ckf_gpu_fill_close(f);
	ckf_gpu_process_close(p);
	assert_int_equal(ends_count_fds(), nr_fds);
}

static void test_refused_at_once(void **state)
{
	struct ends *e = *state;
	struct ckf_gpu_fill *f = NULL;

	ends_answer(e, CKF_GPUD_ERROR, ENOENT, "no device memory", -1);
	ends_expect(e, start(e, &f), -ENOENT, "no device memory");
	ends_answer(e, CKF_GPUD_ERROR, EBUSY, "too many connections", -1);
	ends_expect(e, ckf_gpu_fill_start(e->client, 0, &f, &e->err), -EBUSY, "too many");
	assert_null(f);
}

/* Each call fails with the same error, once that has come. m: NULL: gpud hangs up. */
static void fails(const struct ckf_gpud_msg *m, unsigned int times, int want, const char *message)
{
	const unsigned int nr_fds = ends_count_fds();
	struct ckf_gpu_process *p = open_process();
	const uint32_t pids[] = { 7 };
	struct ckf_gpu_fill *f;
	struct ends *e;

	assert_int_equal(ends_set_up((void **)&e), 0);
	assert_int_equal(start(e, &f), 0);
	while (m && times--)
		ends_say(e, m, -1);
	if (!m)
		ends_hang_up(e);
	ends_expect(e, ckf_gpu_fill_accepted(f, p, &e->err), want, message);
	ends_expect(e, ckf_gpu_fill_memory(f, 7, p, &e->err), want, message);
	ends_expect(e, ckf_gpu_fill_check_shared(f, pids, 1, &e->err), want, message);
	ends_expect(e, wait_for(e, f, 7, NULL), want, message);
	ckf_gpu_fill_close(f);
	ckf_gpu_process_close(p);
	ends_tear_down((void **)&e);
	assert_int_equal(ends_count_fds(), nr_fds);
}

static void test_errors(void **state)
{
	/* Numbers that are none of the kernel's, of which some would become 0 or positive. */
	static const uint64_t odd[] = { 0, 4096, 1ull << 32, UINT64_MAX, 1ull << 31 };
	struct ckf_gpud_msg m = { .op = CKF_GPUD_ERROR, .arg = ENOMEM, .text = "GPU 0 is full" };

	(void)state;
	fails(&m, 1, -ENOMEM, "GPU 0 is full");
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		m.arg = odd[i];
		fails(&m, 1, -EIO, "GPU 0 is full");
	}
	fails(NULL, 0, -ECONNRESET, "closed by the other end");
}

static void test_wrong_answers(void **state)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_TEXT };

	(void)state;
	fails(&m, 1, -EPROTO, "gpud says 19");
	m.op = CKF_GPUD_MEMORY;
	fails(&m, 1, -EPROTO, "gpud says 6");
	m.op = CKF_GPUD_PAIR;
	fails(&m, CKF_GPU_MAX_DEVICES + 1, -EPROTO, "gpud says 8");
}

/* Some of the processes that share memory are not to be restored. */
static void test_shared(void **state)
{
	static const uint32_t both[] = { 8, 7 };
	struct ends *e = *state;
	struct ckf_gpu_fill *f;

	assert_int_equal(start(e, &f), 0);
	say_memory(e, 6, 0, 0, 1);
	say_memory(e, 7, 0, 0, 0);
	say_memory(e, 7, 1, CKF_GPU_ALLOC_SHARED, 1);
	say_memory(e, 8, 2, CKF_GPU_ALLOC_SHARED | CKF_GPU_ALLOC_IMPORT, 1);
	say_memory(e, 9, 3, CKF_GPU_ALLOC_SHARED, 2);
	ends_answer(e, CKF_GPUD_MADE, 0, "", -1);
	assert_int_equal(ckf_gpu_fill_check_shared(f, both, 2, &e->err), 0);
	ends_expect(e, ckf_gpu_fill_check_shared(f, both, 1, &e->err), -EBUSY,
		    "process 8 of the image shares device memory with process 7");
	ends_expect(e, ckf_gpu_fill_check_shared(f, both + 1, 1, &e->err), -EBUSY,
		    "process 7 of the image shares device memory with process 8");
	ckf_gpu_fill_close(f);
}

static void test_probe(void **state)
{
	(void)state;
	assert_false(ckf_gpu_images_probe(-1));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, ends_set_up, ends_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_order),	  TEST(test_refused_at_once), TEST(test_errors),
		TEST(test_wrong_answers), TEST(test_shared),	      TEST(test_probe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
