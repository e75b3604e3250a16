/* SPDX-License-Identifier: MIT */
/*
 * The values of command line options, and strings that a hostile image wants to see printed. The
 * command is no library: its files are compiled in here.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/options.c"
#include "convert/plan_check.h"
#include "cli/print.c"

#define LEN(a) (sizeof(a) / sizeof(*(a)))

static void test_bytes(void **state)
{
	static const struct {
		const char *s;
		uint64_t bytes;
	} good[] = {
		{ "0", 0 },
		{ "4096", 4096 },
		{ "4K", 4096 },
		{ "4k", 4096 },
		{ "8M", 8 << 20 },
		{ "3G", 3ull << 30 },
		{ "17179869183G", 17179869183ull << 30 },
	};
	static const char *const bad[] = { "",	 "M",	"-1",		"+1",
					   " 1", "1 ",	"4MB",		"4.5M",
					   "4T", "0x4", "17179869184G", "99999999999999999999" };
	uint64_t bytes;

	(void)state;
	for (size_t i = 0; i < LEN(good); i++) {
		assert_int_equal(cli_parse_bytes(good[i].s, &bytes), 0);
		assert_int_equal(bytes, good[i].bytes);
	}
	for (size_t i = 0; i < LEN(bad); i++)
		if (cli_parse_bytes(bad[i], &bytes) != -EINVAL)
			fail_msg("\"%s\" is taken", bad[i]);
}

static void test_int(void **state)
{
	static const char *const bad[] = { "",
					   "-",
					   "x",
					   "1x",
					   " 1",
					   "+1",
					   "0",
					   "-3",
					   "257",
					   "4294967297",
					   "99999999999999999999" };
	int v;

	(void)state;
	assert_int_equal(cli_parse_int("1", 1, 256, &v), 0);
	assert_int_equal(v, 1);
	assert_int_equal(cli_parse_int("256", 1, 256, &v), 0);
	assert_int_equal(v, 256);
	assert_int_equal(cli_parse_int("-5", -7, 256, &v), 0);
	assert_int_equal(v, -5);
	for (size_t i = 0; i < LEN(bad); i++)
		if (cli_parse_int(bad[i], 1, 256, &v) != -EINVAL)
			fail_msg("\"%s\" is taken", bad[i]);
}

static void test_codec(void **state)
{
	int codec, min, max;

	(void)state;
	assert_int_equal(cli_parse_codec("auto", &codec), 0);
	assert_int_equal(codec, CKF_CODEC_AUTO);
	assert_int_equal(cli_check_level(codec, 1, &min, &max), -EINVAL);
	assert_int_equal(cli_parse_codec("raw", &codec), 0);
	assert_int_equal(codec, CKF_CODEC_RAW);
	assert_int_equal(cli_check_level(codec, 1, &min, &max), -EINVAL);
	assert_int_equal(min, max);
	assert_int_equal(cli_parse_codec("zstd", &codec), 0);
	assert_int_equal(codec, CKF_CODEC_ZSTD);
	assert_int_equal(cli_check_level(codec, 3, &min, &max), 0);
	assert_int_equal(cli_check_level(codec, max, &min, &max), 0);
	assert_int_equal(cli_check_level(codec, max + 1, &min, &max), -EINVAL);
	assert_int_equal(cli_check_level(codec, min - 1, &min, &max), -EINVAL);
	assert_int_equal(cli_parse_codec("zero", &codec), -EINVAL);
	assert_int_equal(cli_parse_codec("LZ4", &codec), -EINVAL);
	assert_int_equal(cli_parse_codec("", &codec), -EINVAL);
}

static void test_profile(void **state)
{
	static const char *const bad[] = { "", "RAM", "number", "0", "-1", "disk", "1T", "nvme " };
	char buf[CLI_PROFILE_LEN];
	struct ckf_storage s;

	(void)state;
	assert_int_equal(cli_parse_profile("nvme", &s), 0);
	assert_int_equal(s.profile, CKF_PROFILE_NVME);
	assert_true(s.bytes_per_s == 2000000000 && s.nr_cores && !s.measured);
	assert_string_equal(cli_profile(&s, buf), "nvme (2.000 GB/s)");
	s.measured = true;
	assert_string_equal(cli_profile(&s, buf), "nvme (2.000 GB/s), measured");
	assert_int_equal(cli_parse_profile("1500K", &s), 0);
	assert_int_equal(s.profile, CKF_PROFILE_NUMBER);
	assert_true(s.bytes_per_s == 1536000 && s.nr_cores);
	assert_string_equal(cli_profile(&s, buf), "0.002 GB/s");
	s.profile = CKF_PROFILE_END;
	s.bytes_per_s = UINT64_MAX;
	assert_string_equal(cli_profile(&s, buf), "18446744073.710 GB/s");
	for (size_t i = 0; i < LEN(bad); i++)
		if (cli_parse_profile(bad[i], &s) != -EINVAL)
			fail_msg("\"%s\" is taken", bad[i]);
}

/* Options, and what the arguments are afterwards. */
static void test_options(void **state)
{
	const struct cli_verb verb = { .name = "test" };
	const struct cli_verb program = { .name = "test", .has_program = true };
	bool quiet = false, json = false, help = false;
	const char *dir = NULL;
	unsigned int threads = 0;
	int nr = 0;
	const struct cli_opt opts[] = {
		{ "quiet", 'q', .flag = &quiet },
		{ "json", .flag = &json },
		{ "dir", .string = &dir },
		{ "number", .number = &nr, .min = 1, .max = 9 },
		{ "threads", .take = cli_take_threads, .arg = &threads },
		{ 0 },
	};
	char *good[] = {
		"test", "-q", "a", "--dir", "d", "--number=9", "--threads", "2", "b", NULL
	};
	char *bad[][4] = {
		{ "test", "--number", "10" },
		{ "test", "--threads", "0" },
		{ "test", "--nothing" },
		{ "test", "--number" },
		{ "test", "-j" },
		{ "test", "--quiet=1" },
	};

	(void)state;
	optind = 0;
	assert_int_equal(cli_take_options(&verb, 9, good, opts, &help), CKF_EXIT_OK);
	assert_int_equal(optind, 7);
	assert_string_equal(good[7], "a");
	assert_true(quiet && !json && !help);
	assert_string_equal(dir, "d");
	assert_int_equal(nr, 9);
	assert_int_equal(threads, 2);
	for (size_t i = 0; i < LEN(bad); i++) {
		optind = 0;
		assert_int_equal(cli_take_options(&verb, bad[i][2] ? 3 : 2, bad[i], opts, &help),
				 CKF_EXIT_USAGE);
	}
	optind = 0;
	assert_int_equal(cli_take_options(&program, 4,
					  (char *[]){ "test", "--json", "sh", "--help", NULL },
					  opts, &help),
			 CKF_EXIT_OK);
	assert_int_equal(optind, 2);
	assert_true(json && !help);
	optind = 0;
	assert_int_equal(
		cli_take_options(&verb, 3, (char *[]){ "test", "sh", "--help", NULL }, opts, &help),
		CKF_EXIT_OK);
	assert_true(help);
}

static void test_print_bytes(void **state)
{
	char buf[CLI_BYTES_LEN];

	(void)state;
	assert_string_equal(cli_bytes(0, buf), "0 B");
	assert_string_equal(cli_bytes(1023, buf), "1023 B");
	assert_string_equal(cli_bytes(1024, buf), "1.0 KiB");
	assert_string_equal(cli_bytes((1 << 20) - 1, buf), "1.0 MiB");
	assert_string_equal(cli_bytes(3ull << 29, buf), "1.5 GiB");
	assert_string_equal(cli_bytes(UINT64_MAX, buf), "16.0 EiB");
}

static void test_escape(void **state)
{
	char buf[64], small[8];

	(void)state;
	assert_string_equal(cli_escape("a b~", buf, sizeof(buf)), "a b~");
	assert_string_equal(cli_escape("\x1b[2J\n\\\x7f\xc2\x9b", buf, sizeof(buf)),
			    "\\x1b[2J\\x0a\\x5c\\x7f\\xc2\\x9b");
	assert_string_equal(cli_escape("", buf, sizeof(buf)), "");
	/* Cut off between characters, never inside of one. */
	assert_string_equal(cli_escape("abcdefgh", small, sizeof(small)), "abcdefg");
	assert_string_equal(cli_escape("abcd\nf", small, sizeof(small)), "abcd");
	assert_string_equal(cli_escape("abc\nf", small, sizeof(small)), "abc\\x0a");
}

static void test_json_string(void **state)
{
	json_t *json;

	(void)state;
	json = cli_json_string("h\xc3\xa9");
	assert_string_equal(json_string_value(json), "h\xc3\xa9");
	json_decref(json);
	json = cli_json_string("h\xff");
	assert_string_equal(json_string_value(json), "h\\xff");
	json_decref(json);
}

static void test_task_ranges(void **state)
{
	struct ckf_vma vmas[] = {
		{ .start = 0x5000, .end = 0x6000 },
		{ .start = 0x1000, .end = 0x3000 },
		{ .start = 0x3000, .end = 0x4000 },
		{ .start = 0x2000, .end = 0x3000 },
	};
	struct ckf_task task = { .vmas = vmas, .nr_vmas = LEN(vmas) };
	struct plan_range *ranges;
	uint64_t nr;

	(void)state;
	assert_int_equal(plan_task_ranges(&task, &ranges, &nr), 0);
	assert_int_equal(nr, 2);
	assert_int_equal(ranges[0].start, 0x1000);
	assert_int_equal(ranges[0].end, 0x4000);
	assert_int_equal(ranges[1].start, 0x5000);
	assert_int_equal(ranges[1].end, 0x6000);
	free(ranges);
	task.nr_vmas = 0;
	assert_int_equal(plan_task_ranges(&task, &ranges, &nr), 0);
	assert_int_equal(nr, 0);
	free(ranges);
}

/* Task 5 with ops on pages 1 to 6 and 8, cut otherwise than the runs are. */
struct plan {
	char name[16];
	struct ckf_op ops[3];
	struct ckf_file file;
	struct ckf_target target;
	struct ckf_index idx;
	struct ckf_run runs[3];
	struct ckf_pagemap pagemap;
	struct ckf_vma vmas[2];
	struct ckf_task task;
	struct ckf_dump dump;
};

static int setup_plan(void **state)
{
	struct plan *p = calloc(1, sizeof(*p));

	if (!p)
		return -1;
	strcpy(p->name, "pagemap-5.img");
	p->ops[0] = (struct ckf_op){ .place = 0x1000, .nr_pages = 2 };
	p->ops[1] = (struct ckf_op){ .place = 0x3000 | CKF_OP_DIRECT, .nr_pages = 4 };
	p->ops[2] = (struct ckf_op){ .place = 0x8000, .nr_pages = 1 };
	p->file = (struct ckf_file){ .name = p->name, .kind = CKF_FILE_VERBATIM };
	p->target = (struct ckf_target){ .id = 5, .kind = CKF_TARGET_TASK, .nr_ops = 3 };
	p->idx = (struct ckf_index){ .ops = p->ops,
				     .nr_ops = 3,
				     .files = &p->file,
				     .nr_files = 1,
				     .targets = &p->target,
				     .nr_targets = 1 };
	p->runs[0] = (struct ckf_run){ .vaddr = 0x1000, .nr_pages = 5 };
	p->runs[1] = (struct ckf_run){ .vaddr = 0x6000, .nr_pages = 1, .in_parent = 1 };
	p->runs[2] = (struct ckf_run){ .vaddr = 0x8000, .nr_pages = 1 };
	p->pagemap = (struct ckf_pagemap){
		.kind = CKF_TARGET_TASK, .id = 5, .name = p->name, .runs = p->runs, .nr_runs = 3
	};
	p->vmas[0] = (struct ckf_vma){ .start = 0x8000, .end = 0x9000 };
	p->vmas[1] = (struct ckf_vma){ .start = 0x1000, .end = 0x7000 };
	p->task = (struct ckf_task){ .pid = 5, .vmas = p->vmas, .nr_vmas = 2 };
	p->dump = (struct ckf_dump){
		.tasks = &p->task, .nr_tasks = 1, .pagemaps = &p->pagemap, .nr_pagemaps = 1
	};
	*state = p;
	return 0;
}

static int teardown_plan(void **state)
{
	free(*state);
	return 0;
}

static void expect(int rc, const struct ckf_error *err, const char *want)
{
	assert_int_equal(rc, -EBADMSG);
	if (!strstr(err->msg, want))
		fail_msg("got \"%s\", want \"%s\"", err->msg, want);
}

static void test_pagemaps(void **state)
{
	struct plan *p = *state;
	struct ckf_error err = { 0 };

	assert_int_equal(plan_check_pagemaps(&p->idx, &p->dump, &err), 0);
	p->runs[2].vaddr = 0x9000;
	expect(plan_check_pagemaps(&p->idx, &p->dump, &err), &err, "corrupt targets[0]");
	p->runs[2].vaddr = 0x8000;
	p->pagemap.nr_runs = 2;
	err.code = 0;
	expect(plan_check_pagemaps(&p->idx, &p->dump, &err), &err, "ops at 0x8000-0x9000");
	p->pagemap.nr_runs = 3;
	p->target.nr_ops = 2;
	err.code = 0;
	expect(plan_check_pagemaps(&p->idx, &p->dump, &err), &err, "pages at 0x8000-0x9000");
	p->target.nr_ops = 0;
	p->pagemap.nr_runs = 0;
	assert_int_equal(plan_check_pagemaps(&p->idx, &p->dump, NULL), 0);
}

static void test_pagemap_names(void **state)
{
	struct plan *p = *state;
	struct ckf_error err = { 0 };

	p->file.name = "pagemap-6.img";
	expect(plan_check_pagemaps(&p->idx, &p->dump, &err), &err, "pagemap-6.img is not");
	p->idx.nr_targets = 0;
	err.code = 0;
	expect(plan_check_pagemaps(&p->idx, &p->dump, &err), &err, "none for the pages of");
	p->idx.nr_targets = 1;
	p->dump.nr_pagemaps = 0;
	err.code = 0;
	expect(plan_check_pagemaps(&p->idx, &p->dump, &err), &err, "is not the pagemap of task 5");
}

static void test_places(void **state)
{
	struct plan *p = *state;
	struct ckf_error err = { 0 };
	uint64_t unknown;

	assert_int_equal(plan_check_places(&p->idx, &p->dump, &unknown, &err), 0);
	assert_int_equal(unknown, 0);
	p->vmas[1].end = 0x6000;
	expect(plan_check_places(&p->idx, &p->dump, &unknown, &err), &err,
	       "ops at 0x1000-0x7000 are outside");
	p->vmas[1].end = 0x7000;
	p->task.nr_vmas = 0;
	err.code = 0;
	expect(plan_check_places(&p->idx, &p->dump, &unknown, &err), &err, "outside");
	p->target.id = 5 + (1ull << 32);
	assert_int_equal(plan_check_places(&p->idx, &p->dump, &unknown, &err), 0);
	assert_int_equal(unknown, 1);
}

#define PLAN(name) cmocka_unit_test_setup_teardown(name, setup_plan, teardown_plan)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes),	    cmocka_unit_test(test_int),
		cmocka_unit_test(test_codec),	    cmocka_unit_test(test_profile),
		cmocka_unit_test(test_options),	    cmocka_unit_test(test_print_bytes),
		cmocka_unit_test(test_escape),	    cmocka_unit_test(test_json_string),
		cmocka_unit_test(test_task_ranges), PLAN(test_pagemaps),
		PLAN(test_pagemap_names),	    PLAN(test_places),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
