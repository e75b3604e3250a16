/* SPDX-License-Identifier: MIT */
/*
 * The backend for AMD GPUs without a GPU: objects that the CPU maps, and queues whose
 * engine this test plays. tests/e2e/264-amd-engines.sh has libhsakmt itself.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "ckfast.h"
#include "ckfast_sink.h"
#ifdef HAVE_HSAKMT
#include "gpu/amd/amd.h"
#include "gpu/amd/queue.h"
#endif

/* The end of an object is within the offsets that a file may have, also where its start is not. */
static void test_object_range(void **state)
{
	const struct ckf_amd_opts opts = { .size = sizeof(opts), .flags = CKF_AMD_STORES };
	const uint64_t page = CKF_PAGE_BYTES;
	const struct {
		uint64_t start;
		uint64_t bytes;
		int ret;
	} cases[] = {
		{ INT64_MAX - 2 * page + 1, page, 0 },
		{ INT64_MAX - page + 1, page, -EINVAL },
		{ INT64_MAX - page + 1, 2 * page, -EINVAL },
		{ (uint64_t)INT64_MAX + 1, page, -EINVAL },
		{ UINT64_MAX - page + 1, 2 * page, -EINVAL },
	};
	int fd = memfd_create("object", MFD_CLOEXEC);
	struct ckf_amd_objects *set;
	struct ckf_amd *amd;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)(2 * page)), 0);
	assert_int_equal(ckf_amd_open(&opts, &amd, NULL), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct ckf_amd_object o = { cases[i].start, cases[i].bytes, fd };
		int ret = ckf_amd_import(amd, &o, 1, &set, NULL);

		if (ret != cases[i].ret)
			fail_msg("case %zu: %d, want %d", i, ret, cases[i].ret);
		ckf_amd_release(set);
	}
	ckf_amd_close(amd);
	close(fd);
}

#ifdef HAVE_HSAKMT
#define RING_BYTES (64u << 10)
#define COPY_BYTES (7 * 4u) /* of packets */
#define CLEAR_BYTES (5 * 4u)
#define FENCE_BYTES (4 * 4u)

/* One queue of an engine that runs nothing by itself. */
static struct {
	struct engine_queue q;
	HSAuint64 read_pos;
	HSAuint64 write_pos;
	HSAuint64 doorbell;
} fake;

static HSAKMT_STATUS fake_alloc(HSAuint32 node, HSAuint64 bytes, HsaMemFlags flags, void **out)
{
	(void)node;
	(void)flags;
	*out = aligned_alloc(CKF_PAGE_BYTES, bytes);
	return *out ? HSAKMT_STATUS_SUCCESS : HSAKMT_STATUS_NO_MEMORY;
}

static HSAKMT_STATUS fake_free(void *addr, HSAuint64 bytes)
{
	(void)bytes;
	free(addr);
	return HSAKMT_STATUS_SUCCESS;
}

static HSAKMT_STATUS fake_map(void *addr, HSAuint64 bytes, HSAuint64 *at, HsaMemMapFlags flags,
			      HSAuint64 nr_nodes, HSAuint32 *nodes)
{
	(void)bytes;
	(void)flags;
	(void)nr_nodes;
	(void)nodes;
	*at = (uintptr_t)addr;
	return HSAKMT_STATUS_SUCCESS;
}

static HSAKMT_STATUS fake_unmap(void *addr)
{
	(void)addr;
	return HSAKMT_STATUS_SUCCESS;
}

static HSAKMT_STATUS fake_queue_create(HSAuint32 node, HSA_QUEUE_TYPE type, HSAuint32 percent,
				       HSA_QUEUE_PRIORITY priority, void *ring, HSAuint64 bytes,
				       HsaEvent *event, HsaQueueResource *out)
{
	(void)node;
	(void)type;
	(void)percent;
	(void)priority;
	(void)ring;
	(void)event;
	assert_int_equal(bytes, RING_BYTES);
	out->Queue_read_ptr_aql = &fake.read_pos;
	out->Queue_write_ptr_aql = &fake.write_pos;
	out->Queue_DoorBell_aql = &fake.doorbell;
	return HSAKMT_STATUS_SUCCESS;
}

static HSAKMT_STATUS fake_queue_destroy(HSA_QUEUEID id)
{
	(void)id;
	return HSAKMT_STATUS_SUCCESS;
}

static const struct hsakmt fake_hsakmt = {
	.alloc = fake_alloc,
	.free = fake_free,
	.map = fake_map,
	.unmap = fake_unmap,
	.queue_create = fake_queue_create,
	.queue_destroy = fake_queue_destroy,
};

/* The queue that amd_sink.c gets. */
struct engine_queue *__wrap_engines_queue(struct engines *e, unsigned int gpu, unsigned int nr);
struct engine_queue *__wrap_engines_queue(struct engines *e, unsigned int gpu, unsigned int nr)
{
	(void)e;
	(void)gpu;
	(void)nr;
	return &fake.q;
}

static int open_queue(void **state)
{
	(void)state;
	memset(&fake, 0, sizeof(fake));
	return queue_open(&fake_hsakmt, 1, 9, 1, &fake.q, NULL);
}

static int close_queue(void **state)
{
	(void)state;
	queue_close(&fake.q);
	return 0;
}

/* All that was started is done. */
static void play_engine(void)
{
	fake.read_pos = fake.doorbell;
	atomic_store(fake.q.fence, fake.q.seq);
}

static const struct engine_copy copy = { 0x2000, 0x1000, CKF_PAGE_BYTES };

/* Packets to the last byte of the ring: its pointers would be those of an empty one. */
static void test_full_ring(void **state)
{
	const uint64_t copies = 2, each = COPY_BYTES + FENCE_BYTES;
	const uint64_t clears = (RING_BYTES - copies * each) / (CLEAR_BYTES + FENCE_BYTES);
	uint32_t seq;

	(void)state;
	assert_int_equal(copies * each + clears * (CLEAR_BYTES + FENCE_BYTES), RING_BYTES);
	for (uint64_t i = 0; i < copies; i++)
		assert_int_equal(engine_copy(&fake.q, &copy, 1, &seq, NULL), 0);
	for (uint64_t i = 0; i < clears - 1; i++)
		assert_int_equal(engine_clear(&fake.q, 0x1000, CKF_PAGE_BYTES, &seq, NULL), 0);
	assert_int_equal(engine_clear(&fake.q, 0x1000, CKF_PAGE_BYTES, &seq, NULL), -EIO);
	assert_int_equal(fake.doorbell, RING_BYTES - FENCE_BYTES);
}

/* A queue that has failed stays so, whatever its engine does afterwards. */
static void test_failed_queue(void **state)
{
	uint32_t first, seq = 0, cleared = 0;
	uint64_t doorbell;

	(void)state;
	assert_int_equal(engine_copy(&fake.q, &copy, 1, &first, NULL), 0);
	assert_int_equal(engine_wait(&fake.q, first, NULL), -EIO);
	doorbell = fake.doorbell;
	play_engine();
	assert_int_equal(engine_copy(&fake.q, &copy, 1, &seq, NULL), -EIO);
	assert_int_equal(engine_clear(&fake.q, 0x1000, CKF_PAGE_BYTES, &cleared, NULL), -EIO);
	assert_int_equal(fake.doorbell, doorbell);
	assert_int_equal(fake.q.write_pos, doorbell);
	play_engine();
	assert_true(engine_done(&fake.q, first));
	assert_false(engine_done(&fake.q, seq));
	assert_false(engine_done(&fake.q, cleared));
}

/* Nobody gets a slot that a failed fetch may still write to. */
static void test_failed_fetch(void **state)
{
	struct ckf_sink_mem mem = { .mem = { .addr = 0x10000, .bytes = CKF_PAGE_BYTES } };
	const struct ckf_sink_copy c = { .mem = &mem, .bytes = CKF_PAGE_BYTES };
	char memory[2 * CKF_PAGE_BYTES];
	struct amd_pending pending[2] = { { NULL, 0 }, { NULL, 0 } };
	uint32_t free_slots[] = { 0, 1 };
	struct ckf_amd amd = {
		.engines = (struct engines *)&fake,
		.nr_slots = 2,
		.slot_bytes = CKF_PAGE_BYTES,
		.slots = memory,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.cond = PTHREAD_COND_INITIALIZER,
		.pending = pending,
		.free = free_slots,
		.nr_free = 2,
	};
	struct ckf_sink sink = { .amd = &amd, .nr_streams = 1 };
	struct ckf_sink_slot slot, other;

	(void)state;
	mem.sink = &sink;
	assert_int_equal(ckf_amd_sink_ops.slot_take(&sink, &slot, NULL), 0);
	assert_int_equal(ckf_amd_sink_ops.fetch(&sink, 0, &slot, &c, NULL), -EIO);
	ckf_amd_sink_ops.slot_put(&sink, &slot);
	assert_int_equal(ckf_amd_sink_ops.slot_take(&sink, &other, NULL), 0);
	assert_int_not_equal(other.nr, slot.nr);
	assert_int_equal(ckf_amd_sink_ops.slot_take(&sink, &slot, NULL), -EIO);
	play_engine();
	assert_int_equal(ckf_amd_sink_ops.slot_take(&sink, &slot, NULL), 0);
	ckf_amd_sink_ops.slot_put(&sink, &slot);
	assert_int_equal(ckf_amd_sink_ops.slot_take(&sink, &slot, NULL), 0);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_object_range),
#ifdef HAVE_HSAKMT
		cmocka_unit_test_setup_teardown(test_full_ring, open_queue, close_queue),
		cmocka_unit_test_setup_teardown(test_failed_queue, open_queue, close_queue),
		cmocka_unit_test_setup_teardown(test_failed_fetch, open_queue, close_queue),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
