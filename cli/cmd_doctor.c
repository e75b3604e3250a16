/* SPDX-License-Identifier: MIT */
/* ckfast doctor: says why restores on this machine are slow, or fail. */
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>

#include "doctor.h"

struct doctor_args {
	const char *probe;
	const char *image; /* NULL: only the machine */
	struct cli_bases bases;
	int pid; /* 0: none */
	bool json;
	bool strict;
	bool help;
};

static int take_pid(const struct cli_verb *verb, const struct cli_opt *o)
{
	if (cli_parse_int(optarg, 1, INT_MAX, o->arg))
		return cli_usage(verb, "--pid %s: want the id of a process", optarg);
	return CKF_EXIT_OK;
}

static int parse_args(const struct cli_verb *verb, int argc, char **argv, struct doctor_args *args)
{
	const struct cli_opt opts[] = {
		{ "base", .take = cli_take_bases, .arg = &args->bases },
		{ "json", .flag = &args->json },
		{ "strict", .flag = &args->strict },
		{ "pid", .take = take_pid, .arg = &args->pid },
		{ "probe", .string = &args->probe },
		{ 0 },
	};
	int rc = cli_take_options(verb, argc, argv, opts, &args->help);

	if (rc)
		return rc;
	if (!args->help && argc - optind > 1)
		return cli_usage(verb, "want one directory at most: %s", verb->args);
	args->image = argv[optind];
	if (args->bases.nr && !args->image)
		return cli_usage(verb, "--base goes with an image");
	return CKF_EXIT_OK;
}

static int run_checks(const struct cli_verb *verb, const struct doctor_args *args, struct doctor *d)
{
	enum doctor_state worst;
	int rc = CKF_EXIT_OK;

	doctor_add(d, "ckfast", DOCTOR_OK, NULL, "%s, image format %s", ckf_version(),
		   ckf_format_version());
	doctor_check_criu(d);
	doctor_check_rights(d);
	doctor_check_kernel(d);
	doctor_check_limits(d);
	doctor_check_gpu(d);
	if (args->pid)
		doctor_check_pid(d, args->pid);
	if (args->image)
		doctor_check_image(d, args->image, &args->bases);
	worst = doctor_worst(d);
	if (args->json)
		rc = cli_json_print(verb, doctor_json(d, args->image));
	else
		doctor_print(d, args->image);
	if (rc)
		return rc;
	return worst == DOCTOR_BROKEN || (args->strict && worst == DOCTOR_DEGRADED)
		       ? CKF_EXIT_FAILED
		       : CKF_EXIT_OK;
}

static int report(const struct cli_verb *verb, const struct doctor_args *args)
{
	struct doctor *d;
	int rc;

	d = calloc(1, sizeof(*d));
	if (!d) {
		cli_message(verb, "report", "no memory");
		return CKF_EXIT_FAILED;
	}
	d->root = "";
	d->search_path = getenv("PATH");
	d->run = doctor_run;
	d->ask = doctor_ask;
	rc = run_checks(verb, args, d);
	doctor_fini(d);
	free(d);
	return rc;
}

static int run_doctor(const struct cli_verb *verb, int argc, char **argv)
{
	struct doctor_args args = { 0 };
	int rc;

	rc = parse_args(verb, argc, argv, &args);
	if (!rc && args.help)
		rc = cli_help(verb);
	else if (!rc)
		rc = args.probe ? doctor_probe(verb, args.probe) : report(verb, &args);
	cli_free_bases(&args.bases);
	return rc;
}

const struct cli_verb cli_verb_doctor = {
	.name = "doctor",
	.args = "[FAST]",
	.summary = "Says what makes restores on this machine, or of one image, slow, or fail.",
	.help = "  --base DIR[,DIR...]  where bases are now\n"
		"  --pid PID            also what a dump and a restore of this process would do\n"
		"  --strict             exit code 1 also for what is degraded\n"
		"  --json               the report as JSON\n",
	.run = run_doctor,
};
