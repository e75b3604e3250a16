/* SPDX-License-Identifier: MIT */
/* ckfast gpud --status: what the running one has and does. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "gpud.h"

static int receive_status(int sock, json_t **out, struct ckf_error *err)
{
	char *text;
	int rc = ckf_gpud_status(sock, &text, err);

	if (rc)
		return rc;
	*out = json_loads(text, 0, NULL);
	free(text);
	return *out ? 0 : ckf_error_set(err, -EBADMSG, "gpud answered with something else");
}

static uint64_t number(json_t *obj, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(obj, key));
}

static const char *string(json_t *obj, const char *key, char *buf, size_t bytes)
{
	const char *s = json_string_value(json_object_get(obj, key));

	return cli_escape(s ? s : "?", buf, bytes);
}

static void print_jobs(json_t *jobs, const char *kind, const char *name)
{
	json_t *j = json_object_get(jobs, kind);
	char a[CLI_BYTES_LEN], b[CLI_BYTES_LEN];

	printf("%-9s %" PRIu64 ", %" PRIu64 " failed, %s", name, number(j, "count"),
	       number(j, "failed"), cli_bytes(number(j, "bytes"), a));
	if (number(j, "last_ns"))
		printf("; the last one %s in %.3f s, %.1f GB/s",
		       cli_bytes(number(j, "last_bytes"), b), (double)number(j, "last_ns") / 1e9,
		       json_number_value(json_object_get(j, "last_gb_s")));
	printf("\n");
}

static void print_kept(json_t *kept)
{
	char a[CLI_BYTES_LEN], b[CLI_BYTES_LEN], image[PATH_MAX];
	size_t i;
	json_t *d;

	printf("kept      %" PRIu64 ", %s", number(kept, "count"),
	       cli_bytes(number(kept, "bytes"), a));
	if (number(kept, "limit_bytes"))
		printf(" of %s", cli_bytes(number(kept, "limit_bytes"), b));
	printf("; %" PRIu64 " restores from them, %" PRIu64 " of others\n", number(kept, "hits"),
	       number(kept, "misses"));
	json_array_foreach(json_object_get(kept, "images"), i, d)
		printf("          %s: %s, %" PRIu64 " restores, for %.0f s\n",
		       string(d, "image", image, sizeof(image)), cli_bytes(number(d, "bytes"), a),
		       number(d, "hits"), (double)number(d, "age_ns") / 1e9);
}

static void print_slots(json_t *slots)
{
	char a[CLI_BYTES_LEN];

	printf("slots     %" PRIu64 " of %s, %" PRIu64 " in use\n", number(slots, "total"),
	       cli_bytes(number(slots, "slot_bytes"), a), number(slots, "in_use"));
}

static void print_status(json_t *obj)
{
	json_t *slots = json_object_get(obj, "slots"), *amd = json_object_get(obj, "amd"), *d;
	char a[CLI_BYTES_LEN], b[CLI_BYTES_LEN], name[64], uuid[40];
	size_t i;

	json_array_foreach(json_object_get(obj, "devices"), i, d)
	{
		printf("GPU %-5" PRIu64 " %s, %s, %s", number(d, "ordinal"),
		       string(d, "name", name, sizeof(name)), string(d, "uuid", uuid, sizeof(uuid)),
		       cli_bytes(number(d, "total_bytes"), a));
		if (json_is_true(json_object_get(d, "warm")))
			printf(", %s free\n", cli_bytes(number(d, "free_bytes"), b));
		else
			printf(", no context\n");
	}
	if (slots)
		print_slots(slots);
	json_array_foreach(json_object_get(amd, "devices"), i, d)
		printf("AMD %-5" PRIu64 " %" PRIu64 " queues\n", number(d, "ordinal"),
		       number(d, "queues"));
	if (amd)
		print_slots(json_object_get(amd, "slots"));
	print_jobs(json_object_get(obj, "jobs"), "fill", "fills");
	if (amd)
		print_jobs(json_object_get(obj, "jobs"), "fill-amd", "AMD fills");
	print_jobs(json_object_get(obj, "jobs"), "save", "saves");
	if (number(json_object_get(obj, "kept"), "count"))
		print_kept(json_object_get(obj, "kept"));
	json_array_foreach(json_object_get(obj, "transfers"), i, d) printf(
		"now       %s for process %" PRIu64 ": %s of %s, %.1f GB/s\n",
		string(d, "kind", name, sizeof(name)), number(d, "peer"),
		cli_bytes(number(d, "done_bytes"), a), cli_bytes(number(d, "total_bytes"), b),
		json_number_value(json_object_get(d, "gb_s")));
}

int gpud_status_show(const struct cli_verb *verb, const char *path, bool json)
{
	struct ckf_error err = { 0 };
	json_t *obj = NULL;
	int sock, rc;

	sock = ckf_gpud_connect(path, NULL, &err);
	if (sock < 0)
		return cli_fail(verb, path, sock, &err);
	rc = receive_status(sock, &obj, &err);
	close(sock);
	if (rc)
		return cli_fail(verb, path, rc, &err);
	if (json)
		return cli_json_print(verb, obj);
	print_status(obj);
	json_decref(obj);
	return CKF_EXIT_OK;
}
