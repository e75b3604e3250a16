/* SPDX-License-Identifier: MIT */
/*
 * Which criu a container runtime finds, and which others there are. Each is asked for its version,
 * but only if nobody can have put it there who may not become this user anyway.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "doctor.h"

#define VERSION_MS 5000
#define MAX_CRIU 8

enum kind {
	OURS,
	STOCK,
	UNTRUSTED, /* was not run */
	FAILING,   /* did not tell its version */
};

struct criu {
	char path[DOCTOR_PATH_BYTES]; /* below the root */
	dev_t dev;
	ino_t ino;
	enum kind kind;
	char version[64]; /* of CRIU */
	char ckfast[32];
	char format[16]; /* of images */
};

/* Of a sticky directory, such as /tmp, nobody can replace entries of others. */
static bool is_safe(const char *path)
{
	struct stat st;

	return !stat(path, &st) && (!st.st_uid || st.st_uid == geteuid()) &&
	       (!(st.st_mode & (S_IWGRP | S_IWOTH)) ||
		(S_ISDIR(st.st_mode) && st.st_mode & S_ISVTX));
}

/* A path without links, and all directories above it, up to the root. */
static bool is_safe_up(const struct doctor *d, const char *path)
{
	char up[PATH_MAX];
	char *slash;

	snprintf(up, sizeof(up), "%s", path);
	for (bool safe = is_safe(up); safe; safe = is_safe(*up ? up : "/")) {
		slash = strrchr(up, '/');
		/* A link may lead out of the root of a test: then it ends at the machine's. */
		if (!slash || !strcmp(up, d->root))
			return true;
		*slash = 0;
	}
	return false;
}

/* "Version: 4.2.1", or of ours "Version: 4.2.1 +ckfast 0.2.0, fast image 1.4". */
static void parse_version(struct criu *c, const char *text)
{
	char line[256];
	int got;

	c->kind = FAILING;
	if (!doctor_field(text, "Version:", line, sizeof(line)))
		return;
	got = sscanf(line, "%63s +ckfast %31[^,], fast image %15s", c->version, c->ckfast,
		     c->format);
	if (got >= 1)
		c->kind = got == 3 ? OURS : STOCK;
}

static void ask_version(struct doctor *d, struct criu *c)
{
	char full[DOCTOR_PATH_BYTES], real[PATH_MAX];
	char *const argv[] = { real, "--version", NULL };
	struct doctor_output out;

	c->kind = UNTRUSTED;
	/* What is run is what was looked at, even if a link leads elsewhere by then. */
	if (!doctor_path(d, full, c->path) || !realpath(full, real) || !is_safe_up(d, real))
		return;
	d->run(argv, VERSION_MS, &out);
	c->kind = FAILING;
	if (out.end == DOCTOR_EXITED && !out.status)
		parse_version(c, out.text);
}

/* Adds the criu of a directory, unless it is there under another name. */
static void find_in(struct doctor *d, const char *dir, struct criu *list, size_t *nr)
{
	char full[DOCTOR_PATH_BYTES];
	struct criu *c = &list[*nr];
	struct stat st;

	/* Of a relative directory it is not known what it is relative to. */
	if (*nr == MAX_CRIU || *dir != '/' ||
	    (size_t)snprintf(c->path, sizeof(c->path), "%s/criu", dir) >= sizeof(c->path) ||
	    !doctor_path(d, full, c->path) || stat(full, &st) || !S_ISREG(st.st_mode) ||
	    access(full, X_OK))
		return;
	for (size_t i = 0; i < *nr; i++)
		if (list[i].dev == st.st_dev && list[i].ino == st.st_ino)
			return;
	c->dev = st.st_dev;
	c->ino = st.st_ino;
	(*nr)++;
	ask_version(d, c);
}

/* In the order in which they are found. Runtimes often have no PATH of a shell, so two are added.
 */
static size_t find_all(struct doctor *d, struct criu *list)
{
	char *path = strdup(d->search_path ? d->search_path : ""), *next = path, *dir;
	size_t nr = 0;

	while (next && (dir = strsep(&next, ":")))
		find_in(d, dir, list, &nr);
	free(path);
	find_in(d, "/usr/local/sbin", list, &nr);
	find_in(d, "/usr/sbin", list, &nr);
	return nr;
}

/* True when a criu that reads images of that version reads ours. */
static bool reads_ours(const char *format)
{
	int major, minor, our_major, our_minor;

	return sscanf(format, "%d.%d", &major, &minor) == 2 &&
	       sscanf(ckf_format_version(), "%d.%d", &our_major, &our_minor) == 2 &&
	       major == our_major && minor >= our_minor;
}

static json_t *add_first(struct doctor *d, const struct criu *c, bool ours_later)
{
	switch (c->kind) {
	case OURS:
		if (!reads_ours(c->format))
			return doctor_add(d, "criu", DOCTOR_DEGRADED,
					  "it refuses images of this ckfast: install both anew",
					  "%s: %s with ckfast %s, image format %s", c->path,
					  c->version, c->ckfast, c->format);
		return doctor_add(d, "criu", DOCTOR_OK, NULL,
				  "%s: %s with ckfast %s, image format %s", c->path, c->version,
				  c->ckfast, c->format);
	case STOCK:
		if (ours_later)
			return doctor_add(d, "criu", DOCTOR_DEGRADED,
					  "put the one with ckfast in front, or name it to the "
					  "runtime",
					  "%s is found first: %s without ckfast", c->path,
					  c->version);
		return doctor_add(d, "criu", DOCTOR_BROKEN,
				  "restores plain dumps only: make install-criu installs one that "
				  "restores fast images",
				  "%s: %s without ckfast", c->path, c->version);
	case UNTRUSTED:
		return doctor_add(d, "criu", DOCTOR_DEGRADED,
				  "make the file and its directory root's, and writable for root "
				  "alone",
				  "%s was not asked for its version: others may write to it",
				  c->path);
	case FAILING:
		break;
	}
	return doctor_add(d, "criu", DOCTOR_BROKEN, "try it by hand: criu --version",
			  "%s does not tell its version", c->path);
}

static json_t *add_other(struct doctor *d, const struct criu *c)
{
	static const char *const kinds[] = {
		[UNTRUSTED] = "was not asked for its version: others may write to it",
		[FAILING] = "does not tell its version",
	};

	if (c->kind == OURS)
		return doctor_add(d, "criu", DOCTOR_OK, NULL, "also %s: %s with ckfast %s", c->path,
				  c->version, c->ckfast);
	if (c->kind == STOCK)
		return doctor_add(d, "criu", DOCTOR_OK, NULL, "also %s: %s without ckfast", c->path,
				  c->version);
	return doctor_add(d, "criu", DOCTOR_OK, NULL, "also %s, which %s", c->path, kinds[c->kind]);
}

void doctor_check_criu(struct doctor *d)
{
	struct criu *list = calloc(MAX_CRIU + 1, sizeof(*list));
	size_t nr = list ? find_all(d, list) : 0;
	bool ours_later = false;
	json_t *facts;

	if (!nr)
		doctor_add(d, "criu", DOCTOR_BROKEN,
			   "make install-criu, or name its directory in PATH",
			   "there is none in PATH, /usr/local/sbin and /usr/sbin");
	if (nr)
		snprintf(d->criu, sizeof(d->criu), "%s", list[0].version);
	for (size_t i = 1; i < nr; i++)
		ours_later |= list[i].kind == OURS;
	for (size_t i = 0; i < nr; i++) {
		facts = i ? add_other(d, &list[i]) : add_first(d, &list[i], ours_later);
		json_object_set_new(facts, "path", cli_json_string(list[i].path));
		json_object_set_new(facts, "version", cli_json_string(list[i].version));
		json_object_set_new(facts, "patched", json_boolean(list[i].kind == OURS));
	}
	free(list);
}
