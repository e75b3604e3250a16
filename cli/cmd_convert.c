/* SPDX-License-Identifier: MIT */
/* ckfast convert: a dump becomes a fast image. */
#include <getopt.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "ckf_cli.h"

struct convert_args {
	struct ckf_convert_opts opts;
	struct cli_bases bases;
	const char *dump;
	const char *fast;
	int nice;
	bool level_set;
	bool in_place;
	bool json;
	bool quiet;
	bool help;
};

struct convert_ui {
	const struct cli_verb *verb;
	const struct convert_args *args;
	struct cli_progress progress;
};

enum {
	OPT_CODEC = 1,
	OPT_LEVEL,
	OPT_EXTENT_SIZE,
	OPT_THREADS,
	OPT_PROFILE,
	OPT_NICE,
	OPT_FORCE,
	OPT_JSON,
	OPT_BASE,
	OPT_NO_CACHE,
	OPT_SMALLEST,
	OPT_IN_PLACE,
};

static const struct option long_opts[] = {
	{ "base", required_argument, NULL, OPT_BASE },
	{ "codec", required_argument, NULL, OPT_CODEC },
	{ "level", required_argument, NULL, OPT_LEVEL },
	{ "extent-size", required_argument, NULL, OPT_EXTENT_SIZE },
	{ "threads", required_argument, NULL, OPT_THREADS },
	{ "jobs", required_argument, NULL, OPT_THREADS },
	{ "nice", required_argument, NULL, OPT_NICE },
	{ "profile", required_argument, NULL, OPT_PROFILE },
	{ "smallest", no_argument, NULL, OPT_SMALLEST },
	{ "no-cache", no_argument, NULL, OPT_NO_CACHE },
	{ "force", no_argument, NULL, OPT_FORCE },
	{ "in-place", no_argument, NULL, OPT_IN_PLACE },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "quiet", no_argument, NULL, 'q' },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static int set_extent_bytes(const struct cli_verb *verb, const char *s, uint32_t *extent_bytes)
{
	uint64_t bytes;

	if (cli_parse_bytes(s, &bytes) || bytes < CKF_MIN_EXTENT_BYTES ||
	    bytes > CKF_MAX_EXTENT_BYTES || (bytes & (bytes - 1)))
		return cli_usage(verb, "--extent-size %s: want 4M, 8M or 16M", s);
	*extent_bytes = (uint32_t)bytes;
	return CKF_EXIT_OK;
}

static int set_option(const struct cli_verb *verb, int opt, struct convert_args *args)
{
	switch (opt) {
	case OPT_CODEC:
		if (cli_parse_codec(optarg, &args->opts.codec))
			return cli_usage(verb, "--codec %s: want auto, raw, lz4, zstd or bf16",
					 optarg);
		break;
	case OPT_LEVEL:
		if (cli_parse_int(optarg, INT32_MIN, INT32_MAX, &args->opts.level))
			return cli_usage(verb, "--level %s: want a number", optarg);
		args->level_set = true;
		break;
	case OPT_EXTENT_SIZE:
		return set_extent_bytes(verb, optarg, &args->opts.extent_bytes);
	case OPT_THREADS:
		return cli_take_threads(verb, &args->opts.threads);
	case OPT_PROFILE:
		return cli_take_profile(verb, &args->opts.storage);
	case OPT_NICE:
		if (cli_parse_int(optarg, 0, CLI_MAX_NICE, &args->nice))
			return cli_usage(verb, "--nice %s: want 0 to %d", optarg, CLI_MAX_NICE);
		break;
	case OPT_BASE:
		return cli_take_bases(verb, &args->bases);
	case OPT_FORCE:
		args->opts.force = true;
		break;
	case OPT_IN_PLACE:
		args->in_place = true;
		break;
	case OPT_SMALLEST:
		args->opts.smallest = true;
		break;
	case OPT_NO_CACHE:
		args->opts.no_cache = true;
		break;
	case OPT_JSON:
		args->json = true;
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
	return CKF_EXIT_OK;
}

static int check_level(const struct cli_verb *verb, const struct convert_args *args)
{
	int min, max;

	if (!args->level_set || !cli_check_level(args->opts.codec, args->opts.level, &min, &max))
		return CKF_EXIT_OK;
	if (min == max)
		return cli_usage(verb, "--level needs --codec lz4 or --codec zstd");
	return cli_usage(verb, "--level %d: %s has %d to %d", args->opts.level,
			 ckf_codec_name((uint32_t)args->opts.codec), min, max);
}

static int parse_args(const struct cli_verb *verb, int argc, char **argv, struct convert_args *args)
{
	int opt, rc;

	while ((opt = getopt_long(argc, argv, "qh", long_opts, NULL)) != -1) {
		rc = set_option(verb, opt, args);
		if (rc)
			return rc;
	}
	if (args->help)
		return CKF_EXIT_OK;
	if (args->in_place && args->opts.force)
		return cli_usage(verb, "--in-place does not go with --force");
	if (args->opts.smallest &&
	    (args->opts.codec != CKF_CODEC_AUTO || args->opts.storage.bytes_per_s))
		return cli_usage(verb, "--smallest goes with neither --codec nor --profile");
	rc = cli_take_operands(verb, argc, argv, args->in_place, &args->dump, &args->fast);
	return rc ? rc : check_level(verb, args);
}

static void on_progress(void *arg, const struct ckf_progress *p)
{
	struct convert_ui *ui = arg;

	cli_progress_draw(&ui->progress, p->done_bytes, p->total_bytes, p->stored_bytes);
}

static void on_warning(void *arg, const char *msg)
{
	struct convert_ui *ui = arg;

	if (ui->args->quiet)
		return;
	cli_progress_clear(&ui->progress);
	cli_message(ui->verb, ui->args->dump, msg);
}

static void print_summary(const char *fast, const struct ckf_convert_stats *s)
{
	char a[CLI_BYTES_LEN], b[CLI_BYTES_LEN], c[CLI_BYTES_LEN], profile[CLI_PROFILE_LEN];
	char path[CLI_PATH_LEN];
	double seconds = (double)s->ns / 1e9;

	printf("%s: %" PRIu64 " task%s, %s of pages in %.1f s (%.2f GB/s)\n", cli_path(fast, path),
	       s->nr_tasks, s->nr_tasks == 1 ? "" : "s", cli_bytes(s->page_bytes, a), seconds,
	       s->ns ? (double)s->page_bytes / (double)s->ns : 0.0);
	printf("zero %s, stored before %s, ", cli_bytes(s->zero_bytes, a),
	       cli_bytes(s->dup_bytes, b));
	if (s->base_bytes)
		printf("in %" PRIu64 " base%s %s, ", s->nr_bases, s->nr_bases == 1 ? "" : "s",
		       cli_bytes(s->base_bytes, a));
	printf("the rest in %s\n", cli_bytes(s->stored_bytes, c));
	printf("pack %s, index %s, other files %s", cli_bytes(s->pack_bytes, a),
	       cli_bytes(s->idx_bytes, b), cli_bytes(s->other_bytes, c));
	if (s->pack_bytes && s->page_bytes)
		printf(", ratio %.2f", (double)s->page_bytes / (double)s->pack_bytes);
	putchar('\n');
	if (s->storage.bytes_per_s)
		printf("codecs chosen for %s\n", cli_profile(&s->storage, profile));
}

static int print_json(const struct cli_verb *verb, const struct ckf_convert_stats *s)
{
	json_t *obj = json_pack(
		"{si ss sI sI sI sI sI sI sI sI sI sI sI sI sI}", "version", CLI_JSON_VERSION,
		"verb", verb->name, "page_bytes", (json_int_t)s->page_bytes, "zero_bytes",
		(json_int_t)s->zero_bytes, "dup_bytes", (json_int_t)s->dup_bytes, "stored_bytes",
		(json_int_t)s->stored_bytes, "pack_bytes", (json_int_t)s->pack_bytes, "idx_bytes",
		(json_int_t)s->idx_bytes, "other_bytes", (json_int_t)s->other_bytes, "chunks",
		(json_int_t)s->nr_chunks, "tasks", (json_int_t)s->nr_tasks, "ns", (json_int_t)s->ns,
		"base_bytes", (json_int_t)s->base_bytes, "bases", (json_int_t)s->nr_bases,
		"left_out", (json_int_t)s->nr_left_out);

	if (obj && s->storage.bytes_per_s)
		json_object_set_new(obj, "profile", cli_profile_json(&s->storage));
	return cli_json_print(verb, obj);
}

static int convert(const struct cli_verb *verb, struct convert_args *args)
{
	struct convert_ui ui = { .verb = verb, .args = args };
	struct ckf_convert_stats stats = { .size = sizeof(stats) };
	struct ckf_error err = { 0 };
	int rc;

	if (args->nice && setpriority(PRIO_PROCESS, 0, args->nice))
		cli_message(verb, args->dump, strerror(errno));
	args->opts.bases = args->bases.dirs;
	args->opts.nr_bases = args->bases.nr;
	args->opts.progress = on_progress;
	args->opts.warn = on_warning;
	args->opts.stop = cli_stop_asked;
	args->opts.arg = &ui;
	/* For tests, as with criu restore. */
	args->opts.no_uring = getenv("CKF_NO_URING") != NULL;
	args->opts.no_direct = getenv("CKF_NO_DIRECT") != NULL;
	cli_stop_catch();
	cli_progress_start(&ui.progress, args->quiet);
	rc = ckf_convert(args->dump, args->fast, &args->opts, &stats, &err);
	cli_progress_clear(&ui.progress);
	if (rc)
		return cli_fail(verb, args->dump, rc, &err);
	if (args->json)
		return print_json(verb, &stats);
	if (!args->quiet)
		print_summary(args->in_place ? args->dump : args->fast, &stats);
	return CKF_EXIT_OK;
}

static int run_convert(const struct cli_verb *verb, int argc, char **argv)
{
	struct convert_args args = { .opts = { .size = sizeof(args.opts),
					       .codec = CKF_CODEC_AUTO } };
	int rc;

	rc = parse_args(verb, argc, argv, &args);
	if (!rc)
		rc = args.help ? cli_help(verb) : convert(verb, &args);
	cli_free_bases(&args.bases);
	return rc;
}

const struct cli_verb cli_verb_convert = {
	.name = "convert",
	.args = "DUMP FAST",
	.summary = "Makes the fast image FAST of the CRIU dump DUMP, which stays as it is.",
	.help = "  --base DIR[,DIR...]  fast images: what they hold is not stored again\n"
		"  --codec NAME         auto (default), raw, lz4, zstd or bf16\n"
		"  --level N            level of lz4 or zstd\n"
		"  --smallest           the fewest bytes, however long it takes\n"
		"  --extent-size SIZE   4M, 8M or 16M (default): the unit of reading\n"
		"  --profile NAME       what auto chooses for: ram, nvme, ssd, network, or\n"
		"                       bytes/s; default: what FAST lies on\n"
		"  --jobs N, --threads N\n"
		"                       default: the CPUs\n"
		"  --nice N             a lower priority, 1 to 19\n"
		"  --no-cache           keep the pack out of the page cache\n"
		"  --force              replace FAST if it is there\n"
		"  --in-place           replace DUMP itself; no FAST is named\n"
		"  --json               the summary as JSON\n"
		"  -q, --quiet          errors only\n",
	.run = run_convert,
};
