/* SPDX-License-Identifier: MIT */
/* ckfast run: starts a program with the agent in front of the CUDA driver. */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ckf_cli.h"

/*
 * What keeps a program from making what CRIU cannot dump, and changes nothing else that it does.
 * Each has a line in docs/GPU.md and in the man page.
 */
static const struct setting {
	const char *name;
	const char *value;
} settings[] = {
	{ "USE_LIBUV", "0" }, /* PyTorch's TCPStore does without libuv, which has an io_uring */
	{ "UV_USE_IO_URING", "0" }, /* libuv in other places reads files by its threads instead */
};

static int set_environment(struct ckf_error *err)
{
	for (size_t i = 0; i < sizeof(settings) / sizeof(*settings); i++) {
		if (setenv(settings[i].name, settings[i].value, 0))
			return ckf_error_set(err, -ENOMEM, "no memory for the environment");
	}
	return 0;
}

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

/* For programs that something else starts: what run would set, in the form that env(1) takes. */
static int print_environment(const struct cli_verb *verb, const char *agent)
{
	struct ckf_error err = { 0 };
	int ret = preload(agent, &err);

	if (ret)
		return cli_fail(verb, agent, ret, &err);
	printf("LD_PRELOAD=%s\n", getenv("LD_PRELOAD"));
	for (size_t i = 0; i < sizeof(settings) / sizeof(*settings); i++) {
		const char *own = getenv(settings[i].name);

		printf("%s=%s\n", settings[i].name, own ? own : settings[i].value);
	}
	return CKF_EXIT_OK;
}

static int run_run(const struct cli_verb *verb, int argc, char **argv)
{
	bool env = false, help = false;
	const struct cli_opt opts[] = { { "env", .flag = &env }, { 0 } };
	struct ckf_error err = { 0 };
	char agent[CLI_OWN_BYTES];
	int ret;

	ret = cli_take_options(verb, argc, argv, opts, &help);
	if (ret)
		return ret;
	if (help)
		return cli_help(verb);
	if (env != (optind == argc))
		return cli_usage(verb, "want a program, or --env: %s", verb->args);
	ret = cli_find_agent(agent, &err);
	if (ret)
		return cli_fail(verb, env ? "--env" : argv[optind], ret, &err);
	if (env)
		return print_environment(verb, agent);
	ret = preload(agent, &err);
	if (!ret)
		ret = set_environment(&err);
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
	.help = "  --env                print the environment that it would set, and start "
		"nothing\n",
	.has_program = true,
	.run = run_run,
};
