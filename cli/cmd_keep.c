/* SPDX-License-Identifier: MIT */
/* ckfast keep and drop: which fast images a running gpud keeps in memory. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "gpud.h"

struct keep {
	const struct cli_verb *verb;
	const char *socket;
	char **dirs;
	int nr;
	bool all;
	bool json;
	bool help;
	int gpud;
};

static int parse_args(struct keep *k, int argc, char **argv, bool drop)
{
	const struct cli_opt opts[] = {
		{ "socket", .string = &k->socket },
		{ "json", .flag = &k->json },
		{ drop ? "all" : NULL, .flag = &k->all },
		{ 0 },
	};
	int rc = cli_take_options(k->verb, argc, argv, opts, &k->help);

	if (rc || k->help)
		return rc;
	k->dirs = argv + optind;
	k->nr = argc - optind;
	if (k->all ? k->nr != 0 : k->nr == 0)
		return cli_usage(k->verb, "want %s", k->verb->args);
	return CKF_EXIT_OK;
}

/* sum: of what gpud answers. dir: NULL: all. */
static int ask(const struct keep *k, const char *dir, bool drop, uint64_t *sum)
{
	struct ckf_error err = { 0 };
	uint64_t got = 0;
	int fd = -1, ret;

	if (dir)
		fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir && fd < 0)
		ret = ckf_error_set(&err, -errno, "cannot open the directory: %s", strerror(errno));
	else if (drop)
		ret = ckf_gpud_drop(k->gpud, fd, &got, &err);
	else
		ret = ckf_gpud_keep(k->gpud, fd, &got, &err);
	if (fd >= 0)
		close(fd);
	*sum += got;
	return ret ? cli_fail(k->verb, dir ? dir : "all", ret, &err) : CKF_EXIT_OK;
}

static int report(const struct keep *k, bool drop, uint64_t sum)
{
	char buf[CLI_BYTES_LEN];

	if (k->json)
		return cli_json_print(k->verb,
				      json_pack("{s:i, s:I}", "version", CLI_JSON_VERSION,
						drop ? "dropped" : "bytes", (json_int_t)sum));
	if (drop)
		printf("%llu dropped\n", (unsigned long long)sum);
	else
		printf("kept in %s of memory\n", cli_bytes(sum, buf));
	return CKF_EXIT_OK;
}

/* All of them are tried; the exit code is that of the first that failed. */
static int run(const struct cli_verb *verb, int argc, char **argv, bool drop)
{
	struct keep k = { .verb = verb };
	struct ckf_error err = { 0 };
	uint64_t sum = 0;
	int rc, one;

	rc = parse_args(&k, argc, argv, drop);
	if (rc || k.help)
		return rc ? rc : cli_help(verb);
	k.gpud = ckf_gpud_connect(k.socket, NULL, &err);
	if (k.gpud < 0)
		return cli_fail(verb, "gpud", k.gpud, &err);
	if (k.all)
		rc = ask(&k, NULL, drop, &sum);
	for (int i = 0; i < k.nr; i++) {
		one = ask(&k, k.dirs[i], drop, &sum);
		rc = rc ? rc : one;
	}
	close(k.gpud);
	return rc ? rc : report(&k, drop, sum);
}

static int run_keep(const struct cli_verb *verb, int argc, char **argv)
{
	return run(verb, argc, argv, false);
}

static int run_drop(const struct cli_verb *verb, int argc, char **argv)
{
	return run(verb, argc, argv, true);
}

#define KEEP_HELP                                                                                \
	"  --socket PATH        of gpud; default: $CKFAST_GPUD_SOCKET, or " CKF_GPUD_SOCKET "\n" \
	"  --json               print what was done as JSON\n"

const struct cli_verb cli_verb_keep = {
	.name = "keep",
	.args = "DIR…",
	.summary = "Has gpud keep the GPU memory of fast images in memory, for quick restores.",
	.help = KEEP_HELP,
	.run = run_keep,
};

const struct cli_verb cli_verb_drop = {
	.name = "drop",
	.args = "DIR…|--all",
	.summary = "Has gpud no longer keep images in memory.",
	.help = "  --all                all images\n" KEEP_HELP,
	.run = run_drop,
};
