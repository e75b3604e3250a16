/* SPDX-License-Identifier: MIT */
/* ckfast extract: a fast image becomes the dump that it was made of. */
#include "ckf_cli.h"

static int run_extract(const struct cli_verb *verb, int argc, char **argv)
{
	static const struct cli_rewrite rw = {
		.run = ckf_extract,
		.done = "the dump is back, all checksums right",
		.in_place = true,
	};

	return cli_rewrite(verb, argc, argv, &rw);
}

const struct cli_verb cli_verb_extract = {
	.name = "extract",
	.args = "FAST DUMP",
	.summary = "Writes the dump that FAST was made of to DUMP, every file byte for byte.",
	.help = "  FAST may be an archive or a layout that convert has made: DUMP is one, then.\n"
		"\n"
		"  --base DIR[,DIR...]  where bases of FAST are now\n"
		"  --threads N          default: the CPUs\n"
		"  --force              replace DUMP if it is there\n"
		"  --in-place           replace FAST itself; no DUMP is named\n"
		"  -q, --quiet          errors only\n",
	.has_archives = true,
	.run = run_extract,
};
