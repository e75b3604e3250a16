/* SPDX-License-Identifier: MIT */
/*
 * The log of gpud on stderr: lines of text, or one JSON object a line. Events come from any thread,
 * so each line is one write.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gpud.h"

#define TIME_BYTES 32

/* As RFC 3339 has it, in UTC. */
static json_t *time_json(void)
{
	char day[TIME_BYTES], text[TIME_BYTES + 8];
	struct timespec now;
	struct tm tm;

	timespec_get(&now, TIME_UTC);
	gmtime_r(&now.tv_sec, &tm);
	strftime(day, sizeof(day), "%FT%T", &tm);
	snprintf(text, sizeof(text), "%s.%03dZ", day, (int)(now.tv_nsec / 1000000));
	return json_string(text);
}

static json_t *gpus_json(const struct ckf_gpud_event *e)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < e->nr_gpus; i++)
		json_array_append_new(list, json_integer(e->gpus[i]));
	return list;
}

static json_t *event_json(const char *level, const struct ckf_gpud_event *e)
{
	json_t *obj = json_object();

	json_object_set_new(obj, "time", time_json());
	json_object_set_new(obj, "level", json_string(level));
	json_object_set_new(obj, "message", cli_json_string(e->text));
	if (e->pid)
		json_object_set_new(obj, "pid", json_integer(e->pid));
	if (e->image)
		json_object_set_new(obj, "image", cli_json_string(e->image));
	if (e->nr_gpus)
		json_object_set_new(obj, "devices", gpus_json(e));
	if (e->bytes)
		json_object_set_new(obj, "bytes", cli_json_u64(e->bytes));
	if (e->ns)
		json_object_set_new(obj, "seconds", json_real((double)e->ns / 1e9));
	return obj;
}

/* Without memory there is no line. */
static void write_json(const char *level, const struct ckf_gpud_event *e)
{
	json_t *obj = event_json(level, e);
	char *line = json_dumps(obj, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(9));

	if (line)
		fprintf(stderr, "%s\n", line);
	free(line);
	json_decref(obj);
}

void gpud_log_event(void *arg, const struct ckf_gpud_event *e)
{
	const struct gpud_log *log = arg;

	if (log->json)
		write_json(e->failed ? "error" : "info", e);
	else
		fprintf(stderr, "ckfast %s: %s\n", log->verb->name, e->text);
}

static void say(const struct gpud_log *log, const char *level, const char *text)
{
	const struct ckf_gpud_event e = { .text = text };

	if (log->json)
		write_json(level, &e);
	else
		cli_message(log->verb, log->name, text);
}

void gpud_log_info(const struct gpud_log *log, const char *text)
{
	say(log, "info", text);
}

void gpud_log_warning(const struct gpud_log *log, const char *text)
{
	say(log, "warning", text);
}

int gpud_log_fail(const struct gpud_log *log, int rc, const struct ckf_error *err)
{
	say(log, "error", err->code && *err->msg ? err->msg : strerror(-rc));
	return ckf_error_exit_code(rc);
}
