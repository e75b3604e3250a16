/* SPDX-License-Identifier: MIT */
/* Messages, sizes, and strings of unknown origin. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "ckf_cli.h"

const char *cli_bytes(uint64_t bytes, char buf[CLI_BYTES_LEN])
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double v = (double)bytes;
	size_t unit = 0;

	while (v >= 1023.95 && unit + 1 < sizeof(units) / sizeof(*units)) {
		v /= 1024;
		unit++;
	}
	if (!unit)
		snprintf(buf, CLI_BYTES_LEN, "%" PRIu64 " B", bytes);
	else
		snprintf(buf, CLI_BYTES_LEN, "%.1f %s", v, units[unit]);
	return buf;
}

static bool is_plain_ascii(unsigned char c)
{
	return c >= 0x20 && c < 0x7f && c != '\\';
}

static bool is_no_control(unsigned char c)
{
	return c >= 0x20 && c != 0x7f;
}

static const char *escape(const char *s, bool (*is_plain)(unsigned char c), char *buf,
			  size_t buf_bytes)
{
	size_t n = 0;

	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;
		bool plain = is_plain(c);

		if (n + (plain ? 1 : 4) >= buf_bytes)
			break;
		if (plain)
			buf[n++] = (char)c;
		else
			n += (size_t)sprintf(buf + n, "\\x%02x", c);
	}
	buf[n] = 0;
	return buf;
}

const char *cli_escape(const char *s, char *buf, size_t buf_bytes)
{
	return escape(s, is_plain_ascii, buf, buf_bytes);
}

const char *cli_path(const char *s, char buf[CLI_PATH_LEN])
{
	return escape(s, is_no_control, buf, CLI_PATH_LEN);
}

json_t *cli_json_string(const char *s)
{
	char buf[4 * PATH_MAX + 1];
	json_t *json = json_string(s);

	return json ? json : json_string(cli_escape(s, buf, sizeof(buf)));
}

json_t *cli_json_u64(uint64_t v)
{
	return json_integer(v > INT64_MAX ? INT64_MAX : (json_int_t)v);
}

int cli_json_print(const struct cli_verb *verb, json_t *obj)
{
	int rc = CKF_EXIT_OK;

	if (!obj || json_dumpf(obj, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII)) {
		fprintf(stderr, "ckfast %s: cannot write the JSON\n", verb->name);
		rc = CKF_EXIT_FAILED;
	}
	putchar('\n');
	json_decref(obj);
	return rc;
}

const char *cli_profile(const struct ckf_storage *storage, char buf[CLI_PROFILE_LEN])
{
	double gb = (double)storage->bytes_per_s / 1e9;

	if (storage->profile == CKF_PROFILE_NUMBER || storage->profile >= CKF_PROFILE_END)
		snprintf(buf, CLI_PROFILE_LEN, "%.3f GB/s%s", gb,
			 storage->measured ? ", measured" : "");
	else
		snprintf(buf, CLI_PROFILE_LEN, "%s (%.3f GB/s)%s",
			 ckf_profile_name(storage->profile), gb,
			 storage->measured ? ", measured" : "");
	return buf;
}

json_t *cli_profile_json(const struct ckf_storage *storage)
{
	return json_pack("{ss so si sb}", "name", ckf_profile_name(storage->profile), "bytes_per_s",
			 cli_json_u64(storage->bytes_per_s), "cores", (int)storage->nr_cores,
			 "measured", (int)storage->measured);
}

uint64_t cli_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void cli_message(const struct cli_verb *verb, const char *path, const char *msg)
{
	char buf[4 * CKF_ERROR_MSG_BYTES], name[CLI_PATH_LEN];

	/* Messages quote names of files. */
	fprintf(stderr, "ckfast %s: %s: %s\n", verb->name, cli_path(path, name),
		cli_escape(msg, buf, sizeof(buf)));
}

int cli_fail(const struct cli_verb *verb, const char *path, int rc, const struct ckf_error *err)
{
	cli_message(verb, path, err->code && *err->msg ? err->msg : strerror(-rc));
	return ckf_error_exit_code(rc);
}

/* True for a message that says something of path, which is cut off then. A file may have the name
 * of a word that other messages begin with. */
static bool is_about(struct ckf_error *err, const char *path)
{
	static const char *const verbs[] = { " exists ", " is ", " names ", " has ", " holds " };
	const size_t len = path ? strlen(path) : 0;

	if (!len || strncmp(err->msg, path, len) != 0)
		return false;
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (strncmp(err->msg + len, verbs[i], strlen(verbs[i])) != 0)
			continue;
		memmove(err->msg, err->msg + len + 1, strlen(err->msg + len + 1) + 1);
		return true;
	}
	return false;
}

int cli_fail_making(const struct cli_verb *verb, const char *from, const char *to, int rc,
		    const struct ckf_error *err)
{
	struct ckf_error rest = *err;

	/* What a message is about is named once. */
	if (is_about(&rest, to))
		return cli_fail(verb, to, rc, &rest);
	is_about(&rest, from);
	return cli_fail(verb, from, rc, &rest);
}

int cli_fail_image(const struct cli_verb *verb, const char *path, const char *to, int rc,
		   const struct ckf_error *err)
{
	static const char advice[] = "; convert the dump again";
	struct ckf_error full = *err;
	const size_t len = strlen(full.msg);

	/* A message that goes on behind a semicolon has advice already. A damaged base does not
	 * become whole by that. */
	if (rc == -EBADMSG && strstr(full.msg, "corrupt ") && !strstr(full.msg, "; ") &&
	    !strstr(full.msg, " of base ") && len + sizeof(advice) <= sizeof(full.msg))
		memcpy(full.msg + len, advice, sizeof(advice));
	return cli_fail_making(verb, path, to, rc, &full);
}

int cli_usage(const struct cli_verb *verb, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "ckfast %s: ", verb->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nTry: ckfast %s --help\n", verb->name);
	return CKF_EXIT_USAGE;
}

int cli_help(const struct cli_verb *verb)
{
	printf("Usage: ckfast %s [options] %s\n\n%s\n\n%s", verb->name, verb->args, verb->summary,
	       verb->help);
	printf("  -h, --help           this text\n\n"
	       "Exit status: 0 ok, 1 failed, 2 usage, 3 corrupt, 4 unsupported.\n");
	return CKF_EXIT_OK;
}
