/* SPDX-License-Identifier: MIT */
/* ckfast verify: checks every byte of a fast image and every rule of SPEC.md. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "ckf_cli.h"

struct verify_args {
	const char *fast;
	struct cli_bases bases;
	unsigned int threads;
	bool json;
	bool quiet;
	bool help;
};

struct verify_run {
	const struct cli_verb *verb;
	struct verify_args args;
	struct cli_progress progress;
	struct ckf_image *img;
	struct ckf_image_info info;
	struct ckf_verify_stats stats;
	struct ckf_plan_stats plan;
	uint64_t changed_files; /* that CRIU does not read */
	bool lines;		/* a result line per section goes to stdout */
};

static int parse_args(const struct cli_verb *verb, int argc, char **argv, struct verify_args *args)
{
	const struct cli_opt opts[] = {
		{ "base", .take = cli_take_bases, .arg = &args->bases },
		{ "threads", .take = cli_take_threads, .arg = &args->threads },
		{ "json", .flag = &args->json },
		{ "quiet", 'q', .flag = &args->quiet },
		{ 0 },
	};
	int rc = cli_take_options(verb, argc, argv, opts, &args->help);

	if (rc || args->help)
		return rc;
	if (argc - optind != 1)
		return cli_usage(verb, "want one directory or archive: %s", verb->args);
	args->fast = argv[optind];
	return CKF_EXIT_OK;
}

static int check_index(struct verify_run *run, struct ckf_error *err)
{
	const struct ckf_image_opts opts = {
		.size = sizeof(opts),
		.base_dirs = run->args.bases.dirs,
		.nr_base_dirs = run->args.bases.nr,
	};
	struct ckf_image_info *i = &run->info;
	int rc = ckf_image_open_path(run->args.fast, &opts, &run->img, err);

	if (rc)
		return rc;
	ckf_image_get_info(run->img, i);
	if (!run->lines)
		return 0;
	printf("index     ok  %" PRIu64 " chunks, %" PRIu64 " files, %" PRIu64 " targets, %" PRIu64
	       " ops, %" PRIu64 " lanes, %" PRIu64 " huge ranges\n",
	       i->nr_chunks, i->nr_files, i->nr_targets, i->nr_ops, i->nr_lanes, i->nr_huge);
	return 0;
}

static void on_changed(void *arg, const char *name)
{
	struct verify_run *run = arg;
	char msg[CKF_ERROR_MSG_BYTES];

	run->changed_files++;
	if (run->args.quiet)
		return;
	snprintf(msg, sizeof(msg), "%s is not as the dump had it; CRIU does not read it", name);
	cli_message(run->verb, run->args.fast, msg);
}

static int check_bytes(struct verify_run *run, struct ckf_error *err)
{
	char a[CLI_BYTES_LEN], b[CLI_BYTES_LEN];
	const struct ckf_verify_opts opts = {
		.size = sizeof(opts),
		.threads = run->args.threads,
		.progress = cli_progress_show,
		.arg = &run->progress,
	};
	const struct ckf_verify_stats *s = &run->stats;
	int rc;

	cli_progress_start(&run->progress, run->args.quiet);
	rc = ckf_verify(run->img, &opts, &run->stats, err);
	cli_progress_clear(&run->progress);
	if (!rc)
		rc = ckf_image_check_unread(run->img, on_changed, run, err);
	if (rc || !run->lines)
		return rc;
	printf("pack      ok  %s stored, %s decoded, %" PRIu64 " bytes of padding\n",
	       cli_bytes(s->stored_bytes, a), cli_bytes(s->decoded_bytes, b), s->padding_bytes);
	if (run->info.nr_bases)
		printf("bases     ok  %u, each the one meant, %s stored in them\n",
		       run->info.nr_bases, cli_bytes(s->base_bytes, a));
	printf("files     ok  %s in files as they were, pages files by their chunks\n",
	       cli_bytes(s->file_bytes, a));
	return 0;
}

static int check_plan(struct verify_run *run, struct ckf_error *err)
{
	int rc = ckf_verify_plan(run->img, &run->plan, err);

	if (run->plan.pagemaps && run->lines)
		printf("pagemaps  ok  the ops of each target are the pages of its pagemap\n");
	if (rc)
		return rc;
	if (run->plan.unknown_tasks && !run->args.quiet)
		fprintf(stderr,
			"ckfast verify: %s: the places of %" PRIu64
			" target(s) are not checked: no such task in pstree.img\n",
			run->args.fast, run->plan.unknown_tasks);
	if (run->lines)
		printf("places    ok  every op of a task lies in its mappings\n");
	return 0;
}

static int print_json(const struct verify_run *run, int rc, const struct ckf_error *err)
{
	const struct ckf_verify_stats *s = &run->stats;
	json_t *obj =
		json_pack("{si ss sb sI sI sI sI sI sI sI sI}", "version", CLI_JSON_VERSION, "verb",
			  run->verb->name, "ok", !rc, "stored_bytes", (json_int_t)s->stored_bytes,
			  "decoded_bytes", (json_int_t)s->decoded_bytes, "padding_bytes",
			  (json_int_t)s->padding_bytes, "file_bytes", (json_int_t)s->file_bytes,
			  "unchecked_tasks", (json_int_t)run->plan.unknown_tasks, "ns",
			  (json_int_t)s->ns, "base_bytes", (json_int_t)s->base_bytes,
			  "changed_files", (json_int_t)run->changed_files);

	if (rc && obj) {
		json_object_set_new(obj, "exit", json_integer(ckf_error_exit_code(rc)));
		json_object_set_new(obj, "offset", json_integer((json_int_t)err->off));
		json_object_set_new(obj, "error", cli_json_string(err->msg));
	}
	return cli_json_print(run->verb, obj);
}

static void print_rate(const struct ckf_verify_stats *s)
{
	uint64_t bytes = s->stored_bytes + s->base_bytes + s->padding_bytes + s->file_bytes;

	printf("all ok, in %.1f s (%.2f GB/s)\n", (double)s->ns / 1e9,
	       s->ns ? (double)bytes / (double)s->ns : 0.0);
}

static int verify(struct verify_run *run)
{
	struct ckf_error err = { 0 };
	int rc, json_rc = CKF_EXIT_OK;

	run->lines = !run->args.json && !run->args.quiet;
	rc = check_index(run, &err);
	if (!rc)
		rc = check_bytes(run, &err);
	if (!rc)
		rc = check_plan(run, &err);
	if (run->args.json)
		json_rc = print_json(run, rc, &err);
	if (!rc && run->lines)
		print_rate(&run->stats);
	/* What is already known comes before the message, also where both go to one place. */
	fflush(stdout);
	ckf_image_close(run->img);
	return rc ? cli_fail_image(run->verb, run->args.fast, NULL, rc, &err) : json_rc;
}

static int run_verify(const struct cli_verb *verb, int argc, char **argv)
{
	struct verify_run run = { .verb = verb,
				  .info.size = sizeof(run.info),
				  .stats.size = sizeof(run.stats),
				  .plan.size = sizeof(run.plan) };
	int rc;

	rc = parse_args(verb, argc, argv, &run.args);
	if (!rc)
		rc = run.args.help ? cli_help(verb) : verify(&run);
	cli_free_bases(&run.args.bases);
	return rc;
}

const struct cli_verb cli_verb_verify = {
	.name = "verify",
	.args = "FAST",
	.summary = "Checks every byte of the fast image FAST and every rule of its plan.",
	.help = "  --base DIR[,DIR...]  where bases of FAST are now\n"
		"  --threads N          default: the CPUs\n"
		"  --json               the result as JSON\n"
		"  -q, --quiet          errors only\n",
	.run = run_verify,
};
