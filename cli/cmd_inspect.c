/* SPDX-License-Identifier: MIT */
/* ckfast inspect: what is in a fast image, or in a dump. */
#include <getopt.h>
#include <stdio.h>

#include "ckf_inspect.h"

struct inspect_args {
	struct cli_bases bases;
	bool json;
	bool plan;
	bool chunks;
	bool help;
	struct ckf_storage storage; /* to estimate for; bytes_per_s 0: the recorded one */
};

static int parse_args(const struct cli_verb *verb, int argc, char **argv, struct inspect_args *args)
{
	const struct cli_opt opts[] = {
		{ "base", .take = cli_take_bases, .arg = &args->bases },
		{ "json", .flag = &args->json },
		{ "plan", .flag = &args->plan },
		{ "chunks", .flag = &args->chunks },
		{ "profile", .take = cli_take_profile, .arg = &args->storage },
		{ 0 },
	};
	int rc = cli_take_options(verb, argc, argv, opts, &args->help);

	if (!rc && !args->help && argc - optind != 1)
		return cli_usage(verb, "want one directory or archive: %s", verb->args);
	return rc;
}

static int print(const struct cli_verb *verb, const struct inspect_args *args,
		 const struct insp *insp)
{
	if (!insp->img && (args->plan || args->chunks))
		return cli_usage(verb, "%s is a plain dump: it has no plan and no chunks",
				 insp->path);
	if (args->json)
		return cli_json_print(verb, insp_json(insp, args->plan, args->chunks));
	if (args->plan)
		insp_print_plan(insp);
	if (args->chunks)
		insp_print_chunks(insp);
	if (!args->plan && !args->chunks)
		insp_print_text(insp);
	return CKF_EXIT_OK;
}

static int inspect(const struct cli_verb *verb, const char *path, const struct inspect_args *args)
{
	struct ckf_error err = { 0 };
	struct insp insp;
	int rc;

	rc = insp_open(path, &args->bases, &insp, &err);
	insp.asked = args->storage;
	/* Lists of lanes and chunks have no estimate. */
	if (!rc && insp.img && (args->json || (!args->plan && !args->chunks)))
		insp_measure(&insp);
	rc = rc ? cli_fail(verb, path, rc, &err) : print(verb, args, &insp);
	insp_close(&insp);
	return rc;
}

static int run_inspect(const struct cli_verb *verb, int argc, char **argv)
{
	struct inspect_args args = { 0 };
	int rc;

	rc = parse_args(verb, argc, argv, &args);
	if (!rc)
		rc = args.help ? cli_help(verb) : inspect(verb, argv[optind], &args);
	cli_free_bases(&args.bases);
	return rc;
}

const struct cli_verb cli_verb_inspect = {
	.name = "inspect",
	.args = "FAST|DUMP",
	.summary = "Shows what is in a fast image or in a dump.",
	.help = "  --base DIR[,DIR...]  where bases are now\n"
		"  --plan               the targets with their lanes and huge ranges\n"
		"  --chunks             the chunks\n"
		"  --profile NAME       estimates a restore from ram, nvme, ssd, network, or "
		"bytes/s\n"
		"  --json               all as JSON; with --plan and --chunks these too\n",
	.run = run_inspect,
};
