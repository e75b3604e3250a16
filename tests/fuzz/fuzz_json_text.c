/* SPDX-License-Identifier: MIT */
/*
 * The places of values in the text of a document that jansson accepts: each value of an object and
 * of an array is found there, and is the one that jansson has. A change of one of them changes that
 * one, and nothing else. The first byte of the input says what the rest is:
 *
 *	0	a document as it is
 *	else	what a document is made of, each byte a choice: random bytes are hardly ever one
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "convert/json_text.h"

#define MAX_DEPTH 12u
#define MAX_TEXT_BYTES 8192u

#define FLAGS (JSON_REJECT_DUPLICATES | JSON_DECODE_ANY)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void must(int ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "%s\n", what);
		abort();
	}
}

/* The value there is what the parser has. */
static void check_same(const struct ckf_json_text *t, struct ckf_json_span at, const json_t *want)
{
	json_t *got;

	must(at.start < at.end && at.end <= t->bytes, "a place outside of the text");
	got = json_loadb(t->p + at.start, at.end - at.start, FLAGS, NULL);
	must(got && json_equal(got, want), "another value");
	json_decref(got);
}

/* Keys with escapes are not found. */
static int is_plain(const char *key)
{
	for (; *key; key++) {
		if (*key < ' ' || *key > '~' || strchr("\"\\", *key))
			return 0;
	}
	return 1;
}

static void check_change(struct ckf_json_text *t, struct ckf_json_span at)
{
	size_t bytes;
	char *text;

	must(!ckf_json_change(t, at, "\"new\""), "no change");
	text = ckf_json_changed(t, &bytes);
	must(text && bytes == t->bytes - (at.end - at.start) + 5, "a change of another length");
	must(!memcmp(text, t->p, at.start) && !memcmp(text + at.start, "\"new\"", 5) &&
		     !memcmp(text + at.start + 5, t->p + at.end, t->bytes - at.end),
	     "a change of something else");
	free(text);
	ckf_json_text_fini(t);
	t->cap_edits = 0;
}

static void check_values(struct ckf_json_text *t, struct ckf_json_span at, json_t *doc)
{
	struct ckf_json_span value = { 0 };
	const char *key;
	json_t *want;
	size_t i;

	json_object_foreach(doc, key, want)
	{
		if (ckf_json_member(t, at, key, &value)) {
			/* Spelled with an escape that is not needed. */
			must(!is_plain(key) || memchr(t->p, '\\', t->bytes), "a key is not found");
			continue;
		}
		check_same(t, value, want);
		check_change(t, value);
		check_values(t, value, want);
	}
	json_array_foreach(doc, i, want)
	{
		must(!ckf_json_next(t, at, &value), "an element is not found");
		check_same(t, value, want);
		check_values(t, value, want);
	}
	if (json_is_array(doc))
		must(ckf_json_next(t, at, &value) != 0, "one too many");
}

struct maker {
	const uint8_t *data;
	size_t bytes; /* that are left */
	char text[MAX_TEXT_BYTES];
	size_t len;
};

static unsigned int choose(struct maker *m, unsigned int below)
{
	if (!m->bytes)
		return 0;
	m->bytes--;
	return *m->data++ % below;
}

static void add(struct maker *m, const char *s)
{
	size_t n = strlen(s);

	if (n <= sizeof(m->text) - m->len) {
		memcpy(m->text + m->len, s, n);
		m->len += n;
	}
}

static void add_space(struct maker *m)
{
	static const char *const spaces[] = { "", "", " ", "\n", "\t\r\n " };

	add(m, spaces[choose(m, 5)]);
}

/* Where it is a key, its number makes it the only one. */
static void add_string(struct maker *m, int number)
{
	static const char *const parts[] = {
		"a", "\\\"", "\\\\", "]", "}", "{", ",", ":", "\\u0061"
	};
	char digits[16];

	snprintf(digits, sizeof(digits), "\"%d", number);
	add(m, digits);
	for (unsigned int n = choose(m, 4); n; n--)
		add(m, parts[choose(m, 9)]);
	add(m, "\"");
}

static void add_value(struct maker *m, unsigned int depth)
{
	static const char *const scalars[] = { "0", "-1.5e3", "true", "null", "\"\"" };
	const unsigned int kind = choose(m, depth < MAX_DEPTH ? 4 : 2);
	const unsigned int nr = kind < 2 ? 0 : choose(m, 5);

	add_space(m);
	if (kind == 0)
		add(m, scalars[choose(m, 5)]);
	else if (kind == 1)
		add_string(m, 0);
	else
		add(m, kind == 2 ? "[" : "{");
	for (unsigned int i = 0; i < nr; i++) {
		add_space(m);
		if (kind == 3) {
			add_string(m, (int)i);
			add_space(m);
			add(m, ":");
		}
		add_value(m, depth + 1);
		add(m, i + 1 < nr ? "," : "");
	}
	add_space(m);
	add(m, kind < 2 ? "" : kind == 2 ? "]" : "}");
	add_space(m);
}

static void check_text(const char *text, size_t bytes)
{
	struct ckf_json_text t = { .p = text, .bytes = bytes };
	json_t *doc = json_loadb(text, bytes, FLAGS, NULL);

	if (doc) {
		check_same(&t, ckf_json_root(&t), doc);
		check_values(&t, ckf_json_root(&t), doc);
	}
	json_decref(doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct maker m;

	if (!bytes)
		return 0;
	if (!*data) {
		check_text((const char *)data + 1, bytes - 1);
		return 0;
	}
	m.data = data + 1;
	m.bytes = bytes - 1;
	m.len = 0;
	add_value(&m, 0);
	check_text(m.text, m.len);
	return 0;
}
