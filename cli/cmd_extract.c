/* SPDX-License-Identifier: MIT */
/* ckfast extract: a fast image becomes the dump that it was made of. */
#include <getopt.h>
#include <stdio.h>

#include "ckf_cli.h"

struct extract_args {
	struct ckf_convert_opts opts;
	bool quiet;
	bool help;
};

struct extract_ui {
	const struct cli_verb *verb;
	const char *fast;
	bool quiet;
	struct cli_progress progress;
};

enum {
	OPT_THREADS = 1,
	OPT_FORCE,
};

static const struct option long_opts[] = {
	{ "threads", required_argument, NULL, OPT_THREADS },
	{ "force", no_argument, NULL, OPT_FORCE },
	{ "quiet", no_argument, NULL, 'q' },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static int parse_args(const struct cli_verb *verb, int argc, char **argv, struct extract_args *args)
{
	int opt, threads;

	while ((opt = getopt_long(argc, argv, "qh", long_opts, NULL)) != -1) {
		switch (opt) {
		case OPT_THREADS:
			if (cli_parse_int(optarg, 1, CLI_MAX_THREADS, &threads))
				return cli_usage(verb, "--threads %s: want 1 to %d", optarg,
						 CLI_MAX_THREADS);
			args->opts.threads = (unsigned int)threads;
			break;
		case OPT_FORCE:
			args->opts.force = true;
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
	if (!args->help && argc - optind != 2)
		return cli_usage(verb, "want two directories: %s", verb->args);
	return CKF_EXIT_OK;
}

static void on_progress(void *arg, const struct ckf_progress *p)
{
	struct extract_ui *ui = arg;

	cli_progress_draw(&ui->progress, p->done_bytes, p->total_bytes, 0);
}

static void on_warning(void *arg, const char *msg)
{
	struct extract_ui *ui = arg;

	if (ui->quiet)
		return;
	cli_progress_clear(&ui->progress);
	cli_message(ui->verb, ui->fast, msg);
}

static int run_extract(const struct cli_verb *verb, int argc, char **argv)
{
	struct extract_args args = { .opts = { .size = sizeof(args.opts) } };
	struct extract_ui ui = { .verb = verb };
	struct ckf_error err = { 0 };
	const char *dump;
	uint64_t start_ns = cli_now_ns();
	int rc;

	rc = parse_args(verb, argc, argv, &args);
	if (rc)
		return rc;
	if (args.help)
		return cli_help(verb);
	ui.fast = argv[optind];
	ui.quiet = args.quiet;
	dump = argv[optind + 1];
	args.opts.progress = on_progress;
	args.opts.warn = on_warning;
	args.opts.stop = cli_stop_asked;
	args.opts.arg = &ui;
	cli_stop_catch();
	cli_progress_start(&ui.progress, args.quiet);
	rc = ckf_extract(ui.fast, dump, &args.opts, &err);
	cli_progress_clear(&ui.progress);
	if (rc)
		return cli_fail(verb, ui.fast, rc, &err);
	if (!args.quiet)
		printf("%s: the dump is back, all checksums right, in %.1f s\n", dump,
		       (double)(cli_now_ns() - start_ns) / 1e9);
	return CKF_EXIT_OK;
}

const struct cli_verb cli_verb_extract = {
	.name = "extract",
	.args = "FAST DUMP",
	.summary = "Writes the dump that FAST was made of to DUMP, every file byte for byte.",
	.help = "  --threads N          default: the CPUs\n"
		"  --force              replace DUMP if it is there\n"
		"  -q, --quiet          errors only\n",
	.run = run_extract,
};
