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

struct rewrite_ui {
	const struct cli_verb *verb;
	const char *fast;
	bool quiet;
	struct cli_progress progress;
};

enum {
	OPT_THREADS = 1,
	OPT_FORCE,
	OPT_BASE,
	OPT_IN_PLACE,
};

static const struct option long_opts[] = {
	{ "threads", required_argument, NULL, OPT_THREADS },
	{ "force", no_argument, NULL, OPT_FORCE },
	{ "in-place", no_argument, NULL, OPT_IN_PLACE },
	{ "base", required_argument, NULL, OPT_BASE },
	{ "quiet", no_argument, NULL, 'q' },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static int parse_args(const struct cli_verb *verb, int argc, char **argv,
		      const struct cli_rewrite *rw, struct rewrite_args *args)
{
	int opt, rc = CKF_EXIT_OK;

	while (!rc && (opt = getopt_long(argc, argv, "qh", long_opts, NULL)) != -1) {
		switch (opt) {
		case OPT_THREADS:
			rc = cli_take_threads(verb, &args->opts.threads);
			break;
		case OPT_FORCE:
			args->opts.force = true;
			break;
		case OPT_IN_PLACE:
			args->in_place = true;
			break;
		case OPT_BASE:
			rc = cli_take_bases(verb, &args->bases);
			break;
		case 'q':
			args->quiet = true;
			break;
		case 'h':
			args->help = true;
			break;
		default:
			return cli_usage(verb, "wrong options");
		}
	}
	if (rc || args->help)
		return rc;
	if (args->in_place && !rw->in_place)
		return cli_usage(verb, "there is no --in-place");
	if (args->in_place && args->opts.force)
		return cli_usage(verb, "--in-place does not go with --force");
	return cli_take_operands(verb, argc, argv, args->in_place, &args->fast, &args->out);
}

static void on_progress(void *arg, const struct ckf_progress *p)
{
	struct rewrite_ui *ui = arg;

	cli_progress_draw(&ui->progress, p->done_bytes, p->total_bytes, 0);
}

static void on_warning(void *arg, const char *msg)
{
	struct rewrite_ui *ui = arg;

	if (ui->quiet)
		return;
	cli_progress_clear(&ui->progress);
	cli_message(ui->verb, ui->fast, msg);
}

static int run(const struct cli_verb *verb, struct rewrite_args *args, const struct cli_rewrite *rw)
{
	struct rewrite_ui ui = { .verb = verb, .fast = args->fast, .quiet = args->quiet };
	struct ckf_error err = { 0 };
	uint64_t start_ns = cli_now_ns();
	char path[CLI_PATH_LEN];
	int rc;

	args->opts.bases = args->bases.dirs;
	args->opts.nr_bases = args->bases.nr;
	args->opts.progress = on_progress;
	args->opts.warn = on_warning;
	args->opts.stop = cli_stop_asked;
	args->opts.arg = &ui;
	cli_stop_catch();
	cli_progress_start(&ui.progress, args->quiet);
	rc = rw->run(args->fast, args->out, &args->opts, &err);
	cli_progress_clear(&ui.progress);
	if (rc)
		return cli_fail(verb, args->fast, rc, &err);
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
