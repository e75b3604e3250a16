/* SPDX-License-Identifier: MIT */
/*
 * The layout of what ckfast.h, ckfast_needs.h and ckfast_sink.h show, as programs of libckfast.so.0
 * were built with it. A struct with a size grows behind the bytes that are named here. All others
 * stay.
 */
#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "ckfast_needs.h"
#include "ckfast_sink.h"

#define SAME(type, bytes, last, off)                                     \
	static_assert(sizeof(struct type) == (bytes), "size of " #type); \
	static_assert(offsetof(struct type, last) == (off), #type "." #last)
#define GROWS(type, bytes, last, off)                                    \
	static_assert(sizeof(struct type) >= (bytes), "size of " #type); \
	static_assert(offsetof(struct type, size) == 0, #type ".size");  \
	static_assert(offsetof(struct type, last) == (off), #type "." #last)

SAME(ckf_error, 528, msg, 16);
SAME(ckf_storage, 16, measured, 14);
SAME(ckf_op_info, 32, reserved, 28);
SAME(ckf_ops, 496, ops, 48);
SAME(ckf_dest, 32, prot, 28);
SAME(ckf_sink_dest, 32, mem, 24);
SAME(ckf_progress, 24, stored_bytes, 16);
SAME(ckf_sink_slot, 16, nr, 12);
SAME(ckf_sink_copy, 24, bytes, 20);
SAME(ckf_sink_ops, 104, nr_streams, 96);
SAME(ckf_amd_object, 24, dmabuf, 16);

GROWS(ckf_image_opts, 32, no_bases, 24);
GROWS(ckf_image_info, 128, storage, 112);
GROWS(ckf_chunk_info, 40, base, 36);
GROWS(ckf_file_info, 72, kind, 64);
GROWS(ckf_base_info, 40, path, 32);
GROWS(ckf_lane_info, 40, fill_bytes, 32);
GROWS(ckf_huge_info, 32, bytes, 24);
GROWS(ckf_target_info, 64, parent, 60);
GROWS(ckf_fill_opts, 64, arg, 56);
GROWS(ckf_fill_stats, 72, direct, 69);
GROWS(ckf_budget_opts, 32, cpus, 28);
GROWS(ckf_budget, 32, frugal, 28);
GROWS(ckf_memcg_limits, 64, swap_headroom_bytes, 56);
GROWS(ckf_verify_opts, 32, arg, 24);
GROWS(ckf_verify_stats, 56, ns, 48);
GROWS(ckf_plan_stats, 24, unknown_tasks, 16);
GROWS(ckf_needs_info, 96, outer_session, 92);
GROWS(ckf_path_info, 40, external, 36);
GROWS(ckf_device_need, 56, uuid, 36);
GROWS(ckf_cpu_need, 160, name, 152);
GROWS(ckf_convert_opts, 104, no_cache, 97);
GROWS(ckf_convert_stats, 128, storage, 112);
GROWS(ckf_gpu_fill_stats, 24, ns, 16);
GROWS(ckf_sink_opts, 32, nr_streams, 24);
GROWS(ckf_amd_opts, 32, timeout_ms, 24);

/* Values that are compiled into programs. */
static void test_values(void **state)
{
	(void)state;
	assert_int_equal(CKF_DEST_FRESH | CKF_DEST_SHARED | CKF_DEST_SKIP | CKF_DEST_CHECK |
				 CKF_DEST_HUGE,
			 31);
	assert_int_equal(CKF_DEST_HUGE, 16);
	assert_int_equal(CKF_FILL_FRUGAL, 16);
	assert_int_equal(CKF_OP_DIRECT, 2);
	assert_int_equal(CKF_CODEC_AUTO, -1);
	assert_int_equal(CKF_TARGET_DEVICE, 3);
	assert_int_equal(CKF_FILE_SYMLINK, 3);
	assert_int_equal(CKF_EXIT_UNSUPPORTED, 4);
	assert_int_equal(CKF_OPS_AHEAD, 14);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
