/* SPDX-License-Identifier: MIT */
/*
 * The backend for CUDA, on the fake driver: what goes to a GPU comes back; and each call of the
 * driver that this takes fails once, which has to be told, and must leave no device memory behind.
 */
#include <errno.h>
#include <fcntl.h>

#include "base/ckf_error.h"
#include "gpu/cuda/ckf_cuda_pool.h"
#include "gpu/cuda/ckf_cuda_sink.h"
#include "stub_child.h"

#define SLOT_BYTES (64u << 10)
#define MEM_BYTES (2 * MIB)
#define GPUS "3"
#define GPU_1 "GPU-636b6661-7374-2073-7475-622047505501" /* "ckfast stub GPU" and its number */
#define MAX_N 40

static const struct ckf_sink_ops *const ops = &ckf_cuda_sink_ops;
static char fail_path[64], hit_path[64];

static int open_sink(const char *device, struct ckf_sink **out, struct ckf_error *err)
{
	const struct ckf_sink_opts o = {
		.size = sizeof(o),
		.device = device,
		.slot_bytes = SLOT_BYTES,
		.nr_slots = 2,
		.nr_streams = 2,
	};

	return ops->open(&o, out, err);
}

/* A slot's bytes to the memory and, behind zeros, back again. */
static int copy_there_and_back(struct ckf_sink *sink, struct ckf_sink_mem *mem,
			       struct ckf_error *err)
{
	const struct ckf_sink_copy copy = { mem, SLOT_BYTES, 0, SLOT_BYTES };
	const struct ckf_sink_copy both = { mem, 0, 0, SLOT_BYTES };
	struct ckf_sink_slot slot;
	int ret = ops->slot_take(sink, &slot, err);

	if (ret)
		return ret;
	memset(slot.addr, 0xa5, SLOT_BYTES);
	ret = ops->submit(sink, 0, &slot, &copy, 1, err);
	if (!ret)
		ret = ops->clear(sink, 1, mem, 0, SLOT_BYTES, err);
	if (!ret)
		ret = ops->drain(sink, err);
	for (unsigned int i = 0; i < 2 && !ret; i++) {
		ret = ops->slot_take(sink, &slot, err);
		if (ret)
			break;
		ret = ops->fetch(sink, i, &slot, i ? &copy : &both, err);
		for (size_t k = 0; k < SLOT_BYTES && !ret; k++)
			assert_int_equal(((uint8_t *)slot.addr)[k], i ? 0xa5 : 0);
		ops->slot_put(sink, &slot);
	}
	return ret;
}

/* All that a restore and a save do with a GPU. */
static int use_gpu(struct ckf_error *err)
{
	struct ckf_sink_mem *mem = NULL, *same = NULL;
	struct ckf_sink *sink;
	int fd = -1, ret;

	ret = open_sink("1", &sink, err);
	if (ret) {
		assert_null(sink);
		return ret;
	}
	ret = ops->alloc(sink, MEM_BYTES, &mem, err);
	if (!ret)
		ret = copy_there_and_back(sink, mem, err);
	if (!ret) {
		fd = ops->share(mem, err);
		ret = fd < 0 ? fd : 0;
	}
	if (!ret)
		ret = ckf_cuda_sink_import(sink, fd, MEM_BYTES, &same, err);
	if (!ret)
		ret = copy_there_and_back(sink, same, err);
	if (fd >= 0)
		close(fd);
	/* Not with copies under way. What is not freed goes with the sink. */
	if (!ret)
		ops->free(same);
	ops->close(sink);
	return ret;
}

static uint64_t free_bytes(void)
{
	const struct ckf_cuda_pool_opts o = { .size = sizeof(o),
					      .nr_slots = 1,
					      .slot_bytes = SLOT_BYTES };
	struct ckf_cuda_pool *pool;
	uint64_t bytes = 0;

	assert_int_equal(ckf_cuda_pool_open(&o, &pool, NULL), 0);
	assert_int_equal(ckf_cuda_pool_warm(pool, 1, NULL), 0);
	assert_int_equal(ckf_cuda_pool_free_bytes(pool, 1, &bytes, NULL), 0);
	ckf_cuda_pool_close(pool);
	return bytes;
}

static void test_devices(void **state)
{
	static const char *const good[] = { NULL, "0", "2", GPU_1,
					    "636b66617374207374756220475055"
					    "02" };
	static const char *const bad[] = {
		"3", "-1", "1x", "", "GPU-", GPU_1 "0", "GPU-636b6661-7374-2073-7475-622047505509"
	};
	struct ckf_error err;
	struct ckf_sink *sink;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		assert_int_equal(open_sink(good[i], &sink, NULL), 0);
		assert_int_equal(ops->nr_streams(sink), 2);
		ops->close(sink);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		err = (struct ckf_error){ 0 };
		assert_int_equal(open_sink(bad[i], &sink, &err), -ENODEV);
		assert_non_null(strstr(err.msg, "there is no GPU"));
	}
}

static void test_ranges(void **state)
{
	const struct ckf_sink_opts none = { .size = sizeof(none) };
	const struct ckf_sink_opts streams = {
		.size = sizeof(streams), .slot_bytes = SLOT_BYTES, .nr_slots = 1, .nr_streams = 1000
	};
	struct ckf_sink_mem *mem, *other_mem;
	struct ckf_sink *sink, *other;
	struct ckf_sink_slot slot;

	(void)state;
	assert_int_equal(ops->open(&none, &sink, NULL), -EINVAL);
	assert_int_equal(ops->open(&streams, &sink, NULL), -EINVAL);
	assert_int_equal(open_sink("1", &sink, NULL), 0);
	assert_int_equal(open_sink("1", &other, NULL), 0);
	assert_int_equal(ops->alloc(sink, 0, &mem, NULL), -EINVAL);
	assert_int_equal(ops->alloc(sink, UINT64_MAX, &mem, NULL), -EINVAL);
	assert_int_equal(ops->alloc(sink, UINT64_MAX / 2, &mem, NULL), -ENOMEM);
	assert_int_equal(ckf_cuda_sink_import(sink, -1, MEM_BYTES - 1, &mem, NULL), -EINVAL);
	assert_int_equal(ops->alloc(sink, MEM_BYTES, &mem, NULL), 0);
	assert_int_equal(ops->alloc(other, MEM_BYTES, &other_mem, NULL), 0);
	{
		const struct ckf_sink_copy wrong[] = {
			{ mem, MEM_BYTES - SLOT_BYTES / 2, 0, SLOT_BYTES },
			{ mem, UINT64_MAX, 0, SLOT_BYTES },
			{ mem, 0, SLOT_BYTES / 2, SLOT_BYTES },
			{ mem, 0, 2 * SLOT_BYTES, 4096 },
			{ other_mem, 0, 0, SLOT_BYTES },
		};

		for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
			assert_int_equal(ops->slot_take(sink, &slot, NULL), 0);
			assert_int_equal(ops->fetch(sink, 0, &slot, &wrong[i], NULL), -EINVAL);
			assert_int_equal(ops->submit(sink, 0, &slot, &wrong[i], 1, NULL), -EINVAL);
		}
	}
	assert_int_equal(ops->slot_take(sink, &slot, NULL), 0);
	assert_int_equal(ops->submit(sink, 2, &slot, NULL, 0, NULL), -EINVAL);
	assert_int_equal(ops->clear(sink, 0, mem, 4096, MEM_BYTES, NULL), -EINVAL);
	assert_int_equal(ops->clear(sink, 2, mem, 0, MEM_BYTES, NULL), -EINVAL);
	assert_int_equal(ops->clear(sink, 0, other_mem, 0, MEM_BYTES, NULL), -EINVAL);
	ops->close(other);
	ops->close(sink);
	ops->close(NULL);
}

/* Devices have parts of the slots from when slots are first taken: fills from kept memory take
 * none. */
static void test_users(void **state)
{
	struct ckf_cuda_pool_opts po = { .size = sizeof(po),
					 .nr_slots = 2,
					 .slot_bytes = SLOT_BYTES };
	struct ckf_cuda_sink_opts so = { .size = sizeof(so), .nr_streams = 1 };
	struct ckf_sink_mem *mem = NULL;
	struct ckf_cuda_pool *pool;
	struct ckf_sink_slot slot;
	struct ckf_sink *sink;

	(void)state;
	assert_int_equal(ckf_cuda_pool_open(&po, &pool, NULL), 0);
	assert_int_equal(ckf_cuda_sink_open(pool, &so, &sink, NULL), 0);
	assert_int_equal(ops->alloc(sink, MEM_BYTES, &mem, NULL), 0);
	assert_int_equal(ops->clear(sink, 0, mem, 0, MEM_BYTES, NULL), 0);
	assert_int_equal(pool->nr_users, 0);
	for (unsigned int i = 0; i < 2; i++) {
		assert_int_equal(ops->slot_take(sink, &slot, NULL), 0);
		assert_int_equal(pool->nr_users, 1);
		ops->slot_put(sink, &slot);
	}
	ops->close(sink);
	assert_int_equal(pool->nr_users, 0);
	ckf_cuda_pool_close(pool);
}

static void set_fail(const char *name, int n)
{
	FILE *f = fopen(fail_path, "w");

	assert_non_null(f);
	fprintf(f, "%s:%d\n", name, n);
	assert_int_equal(fclose(f), 0);
	unlink(hit_path);
}

static void test_each_call_fails(void **state)
{
	static const char *const names[] = {
#define NAME(field, name, version, params) name,
		CKF_CUDA_FUNCTIONS(NAME)
#undef NAME
	};
	const uint64_t before = free_bytes();
	unsigned int calls = 0, told = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		for (int n = 1; n < MAX_N; n++) {
			struct ckf_error err = { 0 };
			int ret;

			set_fail(names[i], n);
			ret = use_gpu(&err);
			unlink(fail_path);
			if (ret && !*err.msg)
				fail_msg("%s, call %d: %d without a message", names[i], n, ret);
			if (free_bytes() != before)
				fail_msg("%s, call %d: device memory is left", names[i], n);
			if (access(hit_path, F_OK))
				break;
			calls++;
			told += ret != 0;
		}
	}
	/* Of the others, what gives back device memory is tried again, and the rest is not needed.
	 */
	assert_in_range(calls, 60, 200);
	assert_in_range(told, 40, calls);
	assert_int_equal(use_gpu(NULL), 0);
}

static int setup(void **state)
{
	(void)state;
	snprintf(fail_path, sizeof(fail_path), "/tmp/ckf-cuda-%d.fail", (int)getpid());
	snprintf(hit_path, sizeof(hit_path), "/tmp/ckf-cuda-%d.hit", (int)getpid());
	stub_set_id();
	setenv("CKF_STUB_GPUS", GPUS, 1);
	setenv("CKF_STUB_DELAY_US", "0", 1);
	setenv("CKF_STUB_FAIL_FILE", fail_path, 1);
	setenv("CKF_STUB_HIT", hit_path, 1);
	/* ckf_cuda_load() then finds it by its name. */
	stub_load();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(fail_path);
	unlink(hit_path);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_devices),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_users),
		cmocka_unit_test(test_each_call_fails),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
