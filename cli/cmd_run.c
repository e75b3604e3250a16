/* SPDX-License-Identifier: MIT */
/* ckfast run: starts a program with the agent in front of the CUDA driver. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../gpu/ckf_agent.h"
#include "../gpu/ckf_gpu_fill.h"
#include "ckf_cli.h"

static const struct option long_opts[] = {
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

/* Puts the agent before what is preloaded already. */
static int preload(const char *agent, struct ckf_error *err)
{
	const char *old = getenv("LD_PRELOAD");
	char *list = NULL;
	int ret = 0;

	/* The dynamic loader takes both as the end of a name. */
	if (strpbrk(agent, " :"))
		return ckf_error_set(err, -EINVAL,
				     "the path of the agent must have no space and no colon: %s",
				     agent);
	if (asprintf(&list, "%s%s%s", agent, old && *old ? ":" : "", old ? old : "") < 0)
		return ckf_error_set(err, -ENOMEM, "no memory for the environment");
	if (setenv("LD_PRELOAD", list, 1))
		ret = ckf_error_set(err, -ENOMEM, "no memory for the environment");
	free(list);
	return ret;
}

static int run_run(const struct cli_verb *verb, int argc, char **argv)
{
	struct ckf_error err = { 0 };
	char agent[PATH_MAX];
	int opt, ret;

	/* Options end at the program: what follows is its own. */
	while ((opt = getopt_long(argc, argv, "+h", long_opts, NULL)) != -1) {
		if (opt == 'h')
			return cli_help(verb);
		return cli_usage(verb, "wrong options");
	}
	if (optind == argc)
		return cli_usage(verb, "want a program: %s", verb->args);
	ret = ckf_gpu_find_own("lib/" CKF_AGENT_LIBRARY, agent, sizeof(agent), &err);
	if (!ret)
		ret = preload(agent, &err);
	if (ret)
		return cli_fail(verb, argv[optind], ret, &err);
	execvp(argv[optind], argv + optind);
	ret = ckf_error_set(&err, -errno, "cannot be started: %s", strerror(errno));
	return cli_fail(verb, argv[optind], ret, &err);
}

const struct cli_verb cli_verb_run = {
	.name = "run",
	.args = "PROGRAM…",
	.summary = "Starts a program so that its GPU memory can be parked and restored fast.",
	.help = "",
	.run = run_run,
};
