/* SPDX-License-Identifier: MIT */
/* ckfast flatten: a fast image that has bases becomes one that has none. */
#include "ckf_cli.h"

static int run_flatten(const struct cli_verb *verb, int argc, char **argv)
{
	static const struct cli_rewrite rw = {
		.run = ckf_flatten,
		.done = "whole, all checksums right",
	};

	return cli_rewrite(verb, argc, argv, &rw);
}

const struct cli_verb cli_verb_flatten = {
	.name = "flatten",
	.args = "FAST OUT",
	.summary = "Writes FAST to OUT with all that it has in other images: OUT needs no base.",
	.help = "  --base DIR[,DIR...]  where bases of FAST are now\n"
		"  --threads N          default: the CPUs\n"
		"  --force              replace OUT if it is there\n"
		"  -q, --quiet          errors only\n",
	.run = run_flatten,
};
