/* SPDX-License-Identifier: MIT */
/* ckfast convert: a dump becomes a fast image. */
#include <getopt.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ckf_cli.h"

struct convert_args {
	struct ckf_convert_opts opts;
	struct cli_bases bases;
	const char *dump;
	const char *fast; /* NULL: in place */
	int nice;
	int after; /* the process to wait for; 0: none */
	bool level_set;
	bool in_place;
	bool json;
	bool quiet;
	bool help;
};

static int take_codec(const struct cli_verb *verb, const struct cli_opt *o)
{
	if (cli_parse_codec(optarg, o->arg))
		return cli_usage(verb, "--codec %s: want auto, raw, lz4, zstd or bf16", optarg);
	return CKF_EXIT_OK;
}

static int take_level(const struct cli_verb *verb, const struct cli_opt *o)
{
	struct convert_args *args = o->arg;

	if (cli_parse_int(optarg, INT32_MIN, INT32_MAX, &args->opts.level))
		return cli_usage(verb, "--level %s: want a number", optarg);
	args->level_set = true;
	return CKF_EXIT_OK;
}

static int take_extent_bytes(const struct cli_verb *verb, const struct cli_opt *o)
{
	uint32_t *extent_bytes = o->arg;
	uint64_t bytes;

	if (cli_parse_bytes(optarg, &bytes) || bytes < CKF_MIN_EXTENT_BYTES ||
	    bytes > CKF_MAX_EXTENT_BYTES || (bytes & (bytes - 1)))
		return cli_usage(verb, "--extent-size %s: want 4M, 8M or 16M", optarg);
	*extent_bytes = (uint32_t)bytes;
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
	struct ckf_convert_opts *co = &args->opts;
	const struct cli_opt opts[] = {
		{ "base", .take = cli_take_bases, .arg = &args->bases },
		{ "codec", .take = take_codec, .arg = &co->codec },
		{ "level", .take = take_level, .arg = args },
		{ "extent-size", .take = take_extent_bytes, .arg = &co->extent_bytes },
		{ "threads", .take = cli_take_threads, .arg = &co->threads },
		{ "jobs", .take = cli_take_threads, .arg = &co->threads },
		{ "nice", .number = &args->nice, .max = CLI_MAX_NICE },
		{ "after", .number = &args->after, .min = 1, .max = INT32_MAX },
		{ "profile", .take = cli_take_profile, .arg = &co->storage },
		{ "smallest", .flag = &co->smallest },
		{ "no-cache", .flag = &co->no_cache },
		{ "amd", .flag = &co->amd },
		{ "force", .flag = &co->force },
		{ "in-place", .flag = &args->in_place },
		{ "json", .flag = &args->json },
		{ "quiet", 'q', .flag = &args->quiet },
		{ 0 },
	};
	int rc = cli_take_options(verb, argc, argv, opts, &args->help);

	if (rc || args->help)
		return rc;
	if (args->in_place && co->force)
		return cli_usage(verb, "--in-place does not go with --force");
	if (args->after && !args->in_place)
		return cli_usage(verb, "--after goes only with --in-place");
	if (co->smallest && (co->codec != CKF_CODEC_AUTO || co->storage.bytes_per_s))
		return cli_usage(verb, "--smallest goes with neither --codec nor --profile");
	rc = cli_take_operands(verb, argc, argv, args->in_place, &args->dump, &args->fast);
	return rc ? rc : check_level(verb, args);
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
	if (s->nr_compressed)
		printf("%" PRIu64 " pages file%s compressed by CRIU, %s: in the pack as %s, too\n",
		       s->nr_compressed, s->nr_compressed == 1 ? "" : "s",
		       cli_bytes(s->compressed_bytes, a),
		       s->nr_compressed == 1 ? "it is" : "they are");
	if (s->storage.bytes_per_s)
		printf("codecs chosen for %s\n", cli_profile(&s->storage, profile));
}

static int print_json(const struct cli_verb *verb, const struct ckf_convert_stats *s)
{
	json_t *obj = json_pack(
		"{si ss sI sI sI sI sI sI sI sI sI sI sI sI sI sI sI}", "version", CLI_JSON_VERSION,
		"verb", verb->name, "page_bytes", (json_int_t)s->page_bytes, "zero_bytes",
		(json_int_t)s->zero_bytes, "dup_bytes", (json_int_t)s->dup_bytes, "stored_bytes",
		(json_int_t)s->stored_bytes, "pack_bytes", (json_int_t)s->pack_bytes, "idx_bytes",
		(json_int_t)s->idx_bytes, "other_bytes", (json_int_t)s->other_bytes, "chunks",
		(json_int_t)s->nr_chunks, "tasks", (json_int_t)s->nr_tasks, "ns", (json_int_t)s->ns,
		"base_bytes", (json_int_t)s->base_bytes, "bases", (json_int_t)s->nr_bases,
		"left_out", (json_int_t)s->nr_left_out, "compressed_files",
		(json_int_t)s->nr_compressed, "compressed_bytes", (json_int_t)s->compressed_bytes);

	if (obj && s->storage.bytes_per_s)
		json_object_set_new(obj, "profile", cli_profile_json(&s->storage));
	return cli_json_print(verb, obj);
}

static int convert(const struct cli_verb *verb, struct convert_args *args)
{
	struct cli_ui ui = { .verb = verb, .path = args->dump, .quiet = args->quiet };
	struct ckf_convert_stats stats = { .size = sizeof(stats) };
	struct ckf_error err = { 0 };
	int rc;

	if (args->nice && setpriority(PRIO_PROCESS, 0, args->nice))
		cli_message(verb, args->dump, strerror(errno));
	args->opts.bases = args->bases.dirs;
	args->opts.nr_bases = args->bases.nr;
	/* For tests, as with criu restore. */
	args->opts.no_uring = getenv("CKF_NO_URING") != NULL;
	args->opts.no_direct = getenv("CKF_NO_DIRECT") != NULL;
	cli_ui_start(&ui, &args->opts);
	rc = ckf_convert(args->dump, args->fast, &args->opts, &stats, &err);
	cli_progress_clear(&ui.progress);
	if (rc)
		return cli_fail_making(verb, args->dump, args->fast, rc, &err);
	if (args->json)
		return print_json(verb, &stats);
	if (!args->quiet)
		print_summary(args->in_place ? args->dump : args->fast, &stats);
	return CKF_EXIT_OK;
}

static void wait_for_end(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	while (poll(&p, 1, -1) < 0 && errno == EINTR)
		;
}

/*
 * Goes on in the background when the process has ended. It is known by a descriptor before the
 * first process of ours ends, so that an id that is used again does no harm. The path is made one
 * that outlives the process: it may lead through its descriptors.
 */
static int convert_after(const struct cli_verb *verb, struct convert_args *args)
{
	int pidfd = (int)syscall(SYS_pidfd_open, args->after, 0);
	char *real = realpath(args->dump, NULL);
	int rc = CKF_EXIT_FAILED;
	pid_t pid = -1;

	if (!real || (pidfd < 0 && errno != ESRCH)) {
		cli_message(verb, args->dump, strerror(errno));
		goto out;
	}
	pid = fork();
	if (pid < 0)
		cli_message(verb, args->dump, strerror(errno));
	if (pid)
		goto out;
	args->dump = real;
	setsid();
	/* No file system is kept busy while it waits. */
	if (chdir("/"))
		cli_message(verb, args->dump, "cannot change to /");
	if (pidfd >= 0)
		wait_for_end(pidfd);
	rc = convert(verb, args);
out:
	free(real);
	if (pidfd >= 0)
		close(pidfd);
	return pid > 0 ? CKF_EXIT_OK : rc;
}

static int run_convert(const struct cli_verb *verb, int argc, char **argv)
{
	struct convert_args args = { .opts = { .size = sizeof(args.opts),
					       .codec = CKF_CODEC_AUTO } };
	int rc;

	rc = parse_args(verb, argc, argv, &args);
	if (!rc && args.help)
		rc = cli_help(verb);
	else if (!rc)
		rc = args.after ? convert_after(verb, &args) : convert(verb, &args);
	cli_free_bases(&args.bases);
	return rc;
}

const struct cli_verb cli_verb_convert = {
	.name = "convert",
	.args = "DUMP FAST",
	.summary = "Makes the fast image FAST of the CRIU dump DUMP, which stays as it is.",
	.help = "  DUMP may be a checkpoint archive, plain or of gzip or zstd, or an OCI image\n"
		"  layout with checkpoints: FAST is one, then.\n"
		"\n"
		"  --base DIR[,DIR...]  fast images: what they hold is not stored again\n"
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
		"  --amd                memory of AMD GPUs, too: for the patched plugin\n"
		"  --force              replace FAST if it is there\n"
		"  --in-place           replace DUMP itself; no FAST is named\n"
		"  --after PID          with --in-place: in the background, when the process PID\n"
		"                       has ended\n"
		"  --json               the summary as JSON\n"
		"  -q, --quiet          errors only\n",
	.has_archives = true,
	.run = run_convert,
};
