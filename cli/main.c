/* SPDX-License-Identifier: MIT */
/* The ckfast command: finds the verb and runs it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ckf_cli.h"

#define TITLE_BYTES 32

static const struct cli_verb *const verbs[] = {
	&cli_verb_convert, &cli_verb_inspect,	&cli_verb_verify, &cli_verb_extract,
	&cli_verb_flatten, &cli_verb_calibrate, &cli_verb_run,	  &cli_verb_gpud,
	&cli_verb_keep,	   &cli_verb_drop,	&cli_verb_park,	  &cli_verb_unpark,
	&cli_verb_doctor,  &cli_verb_watch,
};

#define NR_VERBS (sizeof(verbs) / sizeof(*verbs))

static void print_usage(FILE *f)
{
	fprintf(f, "Usage: ckfast VERB [options] ARGS\n"
		   "\n"
		   "Makes fast images of CRIU dumps, which a patched CRIU restores from.\n"
		   "\n");
	for (size_t i = 0; i < NR_VERBS; i++)
		fprintf(f, "  %-9s %-11s %s\n", verbs[i]->name, verbs[i]->args, verbs[i]->summary);
	fprintf(f, "\n"
		   "  ckfast VERB --help tells the options of a verb\n"
		   "  ckfast --version   prints the version\n");
}

static int run_verb(const struct cli_verb *verb, int argc, char **argv)
{
	char title[TITLE_BYTES];

	snprintf(title, sizeof(title), "ckfast %s", verb->name);
	argv[0] = title;
	return verb->run(verb, argc, argv);
}

static int run(int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : NULL;

	if (!word) {
		print_usage(stderr);
		return CKF_EXIT_USAGE;
	}
	if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
		print_usage(stdout);
		return CKF_EXIT_OK;
	}
	if (!strcmp(word, "--version") || !strcmp(word, "-V")) {
		printf("ckfast %s, image format %s\n", ckf_version(), ckf_format_version());
		return CKF_EXIT_OK;
	}
	for (size_t i = 0; i < NR_VERBS; i++)
		if (!strcmp(word, verbs[i]->name))
			return run_verb(verbs[i], argc - 1, argv + 1);
	fprintf(stderr, "ckfast: no such verb: %s\nTry: ckfast --help\n", word);
	return CKF_EXIT_USAGE;
}

int main(int argc, char **argv)
{
	int rc = run(argc, argv);

	/* A result that did not arrive is not a success. */
	if ((fflush(stdout) || ferror(stdout)) && rc == CKF_EXIT_OK) {
		fprintf(stderr, "ckfast: cannot write to stdout: %s\n", strerror(errno));
		rc = CKF_EXIT_FAILED;
	}
	return rc;
}
