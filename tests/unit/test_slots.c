/* SPDX-License-Identifier: MIT */
/*
 * The slots of gpu/cuda, without a driver: how devices share them, and that each copy is waited for
 * before its slot is used again.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/ckf_threads.h"
#include "gpu/cuda/ckf_cuda_pool.h"

#define DEVS 2
#define SLOTS 4

static char memory[SLOTS * 4096];
static CUevent waited[16];
static unsigned int nr_waited;

static CUresult wait_for_event(CUevent event)
{
	waited[nr_waited++] = event;
	return CUDA_SUCCESS;
}

static const struct ckf_cuda driver = { .event_synchronize = wait_for_event };

struct world {
	struct ckf_cuda_pool pool;
	struct ckf_cuda_dev devs[DEVS];
	struct ckf_cuda_slot slot[SLOTS];
};

/* All slots are free, and both devices have users. */
static void world_init(struct world *w)
{
	memset(w, 0, sizeof(*w));
	w->pool = (struct ckf_cuda_pool){
		.cu = &driver,
		.devs = w->devs,
		.nr_devs = DEVS,
		.nr_slots = SLOTS,
		.slot_bytes = 4096,
		.pinned = true,
		.slots = memory,
		.slot = w->slot,
		.free = { 0, SLOTS - 1 },
	};
	pthread_mutex_init(&w->pool.lock, NULL);
	ckf_cond_init(&w->pool.cond);
	for (uint32_t i = 0; i < SLOTS; i++)
		w->slot[i].next = i + 1 < SLOTS ? i + 1 : CKF_CUDA_NO_SLOT;
	for (int i = 0; i < DEVS; i++) {
		w->devs[i].used.first = CKF_CUDA_NO_SLOT;
		ckf_cuda_pool_add_user(&w->pool, &w->devs[i]);
	}
	nr_waited = 0;
}

/* Asked before it would wait for the second time: ends a wait that has no end. */
static int second_time(void *arg)
{
	int *asked = arg;

	return (*asked)++ > 0;
}

/* The number of a slot that can be had, or -1. */
static int take(struct world *w, int dev)
{
	struct ckf_sink_slot slot;
	int asked = 0, ret;

	ret = ckf_cuda_slot_take(&w->pool, &w->devs[dev], second_time, &asked, &slot, NULL);
	if (ret) {
		assert_int_equal(ret, -ECANCELED);
		return -1;
	}
	return (int)slot.nr;
}

static CUevent event(int nr)
{
	return (CUevent)(uintptr_t)(100 + nr);
}

/* A copy from the slot begins. */
static void copy(struct world *w, int nr)
{
	assert_true(nr >= 0);
	ckf_cuda_slot_put(&w->pool, (uint32_t)nr, event(nr));
}

/* One that is never behind cannot have the part of the other; it waits for its own copies. */
static void test_parts(void **state)
{
	struct world w;
	int nr;

	(void)state;
	world_init(&w);
	copy(&w, take(&w, 0));
	copy(&w, take(&w, 0));
	assert_int_equal(nr_waited, 0);
	nr = take(&w, 0);
	assert_int_equal(nr_waited, 1);
	assert_ptr_equal(waited[0], event(nr));
	copy(&w, nr);
	copy(&w, take(&w, 1));
	copy(&w, take(&w, 1));
	assert_int_equal(nr_waited, 1);
	assert_int_equal(ckf_cuda_slots_in_use(&w.pool), 0);
}

/* Slots that are being filled are not taken away; what others may have is not waited for. */
static void test_filling(void **state)
{
	struct world w;
	int a, b;

	(void)state;
	world_init(&w);
	a = take(&w, 0);
	b = take(&w, 0);
	assert_true(a >= 0 && b >= 0);
	assert_int_equal(take(&w, 0), -1);
	assert_int_equal(ckf_cuda_slots_in_use(&w.pool), 2);
	assert_true(take(&w, 1) >= 0);
	/* Given back without a copy, it is anybody's. */
	ckf_cuda_slot_put(&w.pool, (uint32_t)a, NULL);
	assert_true(take(&w, 0) >= 0);
	assert_int_equal(nr_waited, 0);
}

/* One that is alone has all; what it has too much goes to the next one, when its copies ended. */
static void test_alone(void **state)
{
	struct world w;
	int nr[SLOTS];

	(void)state;
	world_init(&w);
	ckf_cuda_pool_drop_user(&w.pool, &w.devs[1]);
	for (int i = 0; i < SLOTS; i++)
		nr[i] = take(&w, 0);
	for (int i = 0; i < SLOTS; i++)
		copy(&w, nr[i]);
	assert_int_equal(nr_waited, 0);
	ckf_cuda_pool_add_user(&w.pool, &w.devs[1]);
	assert_int_equal(take(&w, 1), nr[0]);
	assert_int_equal(take(&w, 1), nr[1]);
	assert_int_equal(take(&w, 1), -1);
	assert_int_equal(nr_waited, 2);
	assert_ptr_equal(waited[0], event(nr[0]));
	/* A device without users has none. */
	ckf_cuda_pool_drop_user(&w.pool, &w.devs[0]);
	assert_int_equal(take(&w, 1), nr[2]);
	assert_int_equal(take(&w, 1), nr[3]);
	assert_int_equal(nr_waited, 4);
}

/* With less slots than devices, nobody goes without for ever. */
static void test_short(void **state)
{
	struct world w;
	int nr;

	(void)state;
	world_init(&w);
	w.pool.nr_slots = 1;
	w.pool.free = (struct ckf_cuda_slots){ 0, 0 };
	w.slot[0].next = CKF_CUDA_NO_SLOT;
	nr = take(&w, 0);
	assert_int_equal(nr, 0);
	assert_int_equal(take(&w, 1), -1);
	copy(&w, nr);
	assert_int_equal(take(&w, 1), 0);
	assert_int_equal(nr_waited, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_filling),
		cmocka_unit_test(test_alone),
		cmocka_unit_test(test_short),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
