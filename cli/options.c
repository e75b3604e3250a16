/* SPDX-License-Identifier: MIT */
/* Values of command line options. */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "ckf_cli.h"

int cli_parse_bytes(const char *s, uint64_t *bytes)
{
	static const char suffixes[] = "KMG";
	uint64_t unit = 1;
	char *end;

	/* strtoull() takes signs and spaces. */
	if (!isdigit((unsigned char)*s))
		return -EINVAL;
	errno = 0;
	*bytes = strtoull(s, &end, 10);
	if (errno)
		return -EINVAL;
	if (*end) {
		const char *suffix = strchr(suffixes, toupper((unsigned char)*end));

		if (!suffix || end[1])
			return -EINVAL;
		unit <<= 10 * (suffix - suffixes + 1);
	}
	return __builtin_mul_overflow(*bytes, unit, bytes) ? -EINVAL : 0;
}

int cli_parse_int(const char *s, int min, int max, int *value)
{
	char *end;
	long v;

	if (!isdigit((unsigned char)*s) && *s != '-')
		return -EINVAL;
	errno = 0;
	v = strtol(s, &end, 10);
	if (errno || *end || end == s || v < min || v > max)
		return -EINVAL;
	*value = (int)v;
	return 0;
}

int cli_parse_codec(const char *s, int *codec)
{
	if (!strcmp(s, "auto")) {
		*codec = CKF_CODEC_AUTO;
		return 0;
	}
	/* Zero is what a chunk is, not what one may ask for. */
	for (int i = CKF_CODEC_ZERO + 1; i < CKF_CODEC_END; i++) {
		if (!strcmp(s, ckf_codec_name((uint32_t)i))) {
			*codec = i;
			return 0;
		}
	}
	return -EINVAL;
}

int cli_parse_profile(const char *s, struct ckf_storage *storage)
{
	for (uint32_t p = CKF_PROFILE_RAM; p < CKF_PROFILE_END; p++) {
		if (!strcmp(s, ckf_profile_name(p))) {
			ckf_profile_get(p, storage);
			return 0;
		}
	}
	ckf_profile_get(CKF_PROFILE_NUMBER, storage);
	if (cli_parse_bytes(s, &storage->bytes_per_s) || !storage->bytes_per_s)
		return -EINVAL;
	return 0;
}

int cli_check_level(int codec, int level, int *min, int *max)
{
	*min = 0;
	*max = 0;
	if (codec != CKF_CODEC_AUTO)
		ckf_codec_levels((uint32_t)codec, min, max);
	if (*min == *max)
		return -EINVAL;
	return level < *min || level > *max ? -EINVAL : 0;
}

int cli_add_bases(const char *s, struct cli_bases *b)
{
	size_t nr = 1;
	char *copy, *name;
	void *p;

	for (const char *c = s; *c; c++)
		nr += *c == ',';
	p = realloc(b->dirs, (b->nr + nr) * sizeof(*b->dirs));
	if (!p)
		return -ENOMEM;
	b->dirs = p;
	p = realloc(b->copies, (b->nr_copies + 1) * sizeof(*b->copies));
	if (!p)
		return -ENOMEM;
	b->copies = p;
	copy = strdup(s);
	if (!copy)
		return -ENOMEM;
	b->copies[b->nr_copies++] = copy;
	while ((name = strsep(&copy, ","))) {
		if (!*name)
			return -EINVAL;
		b->dirs[b->nr++] = name;
	}
	return 0;
}

void cli_free_bases(struct cli_bases *b)
{
	for (size_t i = 0; i < b->nr_copies; i++)
		free(b->copies[i]);
	free(b->copies);
	free(b->dirs);
}

int cli_take_threads(const struct cli_verb *verb, const struct cli_opt *o)
{
	unsigned int *threads = o->arg;
	int n;

	if (cli_parse_int(optarg, 1, CLI_MAX_THREADS, &n))
		return cli_usage(verb, "--%s %s: want 1 to %d", o->name, optarg, CLI_MAX_THREADS);
	*threads = (unsigned int)n;
	return CKF_EXIT_OK;
}

int cli_take_bases(const struct cli_verb *verb, const struct cli_opt *o)
{
	if (cli_add_bases(optarg, o->arg))
		return cli_usage(verb, "--base %s: want directories", optarg);
	return CKF_EXIT_OK;
}

int cli_take_profile(const struct cli_verb *verb, const struct cli_opt *o)
{
	if (cli_parse_profile(optarg, o->arg))
		return cli_usage(verb, "--profile %s: want ram, nvme, ssd, network or bytes/s",
				 optarg);
	return CKF_EXIT_OK;
}

int cli_take_operands(const struct cli_verb *verb, int argc, char **argv, bool in_place,
		      const char **from, const char **to)
{
	const int nr = argc - optind;

	if (in_place && nr != 1)
		return cli_usage(verb, "--in-place wants one directory or archive");
	if (!in_place && nr != 2)
		return cli_usage(verb, "want two directories%s: %s",
				 verb->has_archives ? ", or two archives" : "", verb->args);
	*from = argv[optind];
	*to = in_place ? NULL : argv[optind + 1];
	return CKF_EXIT_OK;
}

static int take(const struct cli_verb *verb, const struct cli_opt *o)
{
	if (o->take)
		return o->take(verb, o);
	if (o->flag)
		*o->flag = true;
	else if (o->string)
		*o->string = optarg;
	else if (cli_parse_int(optarg, o->min, o->max, o->number))
		return cli_usage(verb, "--%s %s: want %d to %d", o->name, optarg, o->min, o->max);
	return CKF_EXIT_OK;
}

int cli_take_options(const struct cli_verb *verb, int argc, char **argv, const struct cli_opt *opts,
		     bool *help)
{
	/* Values of long options lie above those of letters, in the order of the table. */
	enum {
		FIRST = UCHAR_MAX + 1
	};
	struct option longs[CLI_MAX_OPTS + 2] = { { "help", no_argument, NULL, 'h' } };
	char letters[CLI_MAX_OPTS + 3];
	const struct cli_opt *o;
	size_t n = 0;
	int opt, rc = CKF_EXIT_OK;

	if (verb->has_program)
		letters[n++] = '+';
	letters[n++] = 'h';
	for (int i = 0; opts[i].name; i++) {
		o = &opts[i];
		longs[i + 1] = (struct option){ .name = o->name,
						.has_arg = o->flag ? no_argument
								   : required_argument,
						.val = FIRST + i };
		if (o->letter)
			letters[n++] = o->letter;
	}
	letters[n] = 0;
	while (!rc && (opt = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
		if (opt == 'h') {
			*help = true;
			continue;
		}
		for (o = opts; o->name; o++)
			if (opt == FIRST + (o - opts) || (o->letter && opt == o->letter))
				break;
		rc = o->name ? take(verb, o) : cli_usage(verb, "wrong options");
	}
	return rc;
}
