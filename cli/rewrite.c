/* SPDX-License-Identifier: MIT */
/* What ckfast extract and ckfast flatten have in common: options, progress, and the result. */
#include <getopt.h>
#include <stdio.h>

#include "ckf_cli.h"

struct rewrite_args {
	struct ckf_convert_opts opts;
	struct cli_bases bases;
	const char *fast;
	const char *out;
	bool in_place;
	bool quiet;
	bool help;
};

static int parse_args(const struct cli_verb *verb, int argc, char **argv,
		      const struct cli_rewrite *rw, struct rewrite_args *args)
{
	const struct cli_opt opts[] = {
		{ "base", .take = cli_take_bases, .arg = &args->bases },
		{ "threads", .take = cli_take_threads, .arg = &args->opts.threads },
		{ "force", .flag = &args->opts.force },
		{ "quiet", 'q', .flag = &args->quiet },
		{ rw->in_place ? "in-place" : NULL, .flag = &args->in_place },
		{ 0 },
	};
	int rc = cli_take_options(verb, argc, argv, opts, &args->help);

	if (rc || args->help)
		return rc;
	if (args->in_place && args->opts.force)
		return cli_usage(verb, "--in-place does not go with --force");
	return cli_take_operands(verb, argc, argv, args->in_place, &args->fast, &args->out);
}

static int run(const struct cli_verb *verb, struct rewrite_args *args, const struct cli_rewrite *rw)
{
	struct cli_ui ui = { .verb = verb, .path = args->fast, .quiet = args->quiet };
	struct ckf_error err = { 0 };
	uint64_t start_ns = cli_now_ns();
	char path[CLI_PATH_LEN];
	int rc;

	args->opts.bases = args->bases.dirs;
	args->opts.nr_bases = args->bases.nr;
	cli_ui_start(&ui, &args->opts);
	rc = rw->run(args->fast, args->out, &args->opts, &err);
	cli_progress_clear(&ui.progress);
	if (rc)
		return cli_fail_image(verb, args->fast, args->out, rc, &err);
	if (!args->quiet)
		printf("%s: %s, in %.1f s\n", cli_path(args->out ? args->out : args->fast, path),
		       rw->done, (double)(cli_now_ns() - start_ns) / 1e9);
	return CKF_EXIT_OK;
}

int cli_rewrite(const struct cli_verb *verb, int argc, char **argv, const struct cli_rewrite *rw)
{
	struct rewrite_args args = { .opts = { .size = sizeof(args.opts) } };
	int rc;

	rc = parse_args(verb, argc, argv, rw, &args);
	if (!rc)
		rc = args.help ? cli_help(verb) : run(verb, &args, rw);
	cli_free_bases(&args.bases);
	return rc;
}
