/* SPDX-License-Identifier: MIT */
/* Small files of /proc and /sys, and what stands in them. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "doctor.h"

#define STATUS_BYTES 8192 /* of /proc/self/status; the fields that are read come first */

bool doctor_path(const struct doctor *d, char buf[DOCTOR_PATH_BYTES], const char *path)
{
	return (size_t)snprintf(buf, DOCTOR_PATH_BYTES, "%s%s", d->root, path) < DOCTOR_PATH_BYTES;
}

bool doctor_read(const struct doctor *d, const char *path, char *buf, size_t bytes)
{
	char full[DOCTOR_PATH_BYTES];
	size_t got;
	FILE *f;
	bool ok;

	*buf = 0;
	if (!doctor_path(d, full, path))
		return false;
	f = fopen(full, "re");
	if (!f)
		return false;
	got = fread(buf, 1, bytes - 1, f);
	ok = !ferror(f);
	buf[got] = 0;
	fclose(f);
	return ok;
}

bool doctor_read_u64(const struct doctor *d, const char *path, uint64_t *value)
{
	char text[32];

	if (!doctor_read(d, path, text, sizeof(text)) || !isdigit((unsigned char)*text))
		return false;
	*value = strtoull(text, NULL, 10);
	return true;
}

bool doctor_field(const char *text, const char *key, char *buf, size_t bytes)
{
	const size_t len = strlen(key);

	for (; text; text = strchr(text, '\n')) {
		text += *text == '\n';
		if (strncmp(text, key, len))
			continue;
		text += len;
		text += strspn(text, " \t");
		snprintf(buf, bytes, "%.*s", (int)strcspn(text, "\n"), text);
		return true;
	}
	return false;
}

bool doctor_choice(const char *text, char *buf, size_t bytes)
{
	const char *open = strchr(text, '['), *close = open ? strchr(open, ']') : NULL;

	if (!close)
		return false;
	snprintf(buf, bytes, "%.*s", (int)(close - open - 1), open + 1);
	return true;
}

bool doctor_exists(const struct doctor *d, const char *path)
{
	char full[DOCTOR_PATH_BYTES];

	return doctor_path(d, full, path) && !access(full, F_OK);
}

bool doctor_has_cap(const struct doctor *d, unsigned int cap)
{
	char status[STATUS_BYTES], field[32];

	if (!doctor_read(d, "/proc/self/status", status, sizeof(status)) ||
	    !doctor_field(status, "CapEff:", field, sizeof(field)))
		return false;
	return strtoull(field, NULL, 16) >> cap & 1;
}
