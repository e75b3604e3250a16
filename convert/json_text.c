/* SPDX-License-Identifier: MIT */
/* Finds values in the text of a JSON document, and replaces them. */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "img.h"
#include "json_text.h"

struct ckf_json_edit {
	struct ckf_json_span at;
	char *with;
};

void ckf_json_text_fini(struct ckf_json_text *t)
{
	for (uint64_t i = 0; i < t->nr_edits; i++)
		free(t->edits[i].with);
	free(t->edits);
	t->edits = NULL;
	t->nr_edits = 0;
}

static bool is_one_of(char c, const char *set)
{
	return c && strchr(set, c);
}

static size_t skip_space(const struct ckf_json_text *t, size_t at)
{
	while (at < t->bytes && is_one_of(t->p[at], " \t\r\n"))
		at++;
	return at;
}

/* at: of the first quote. */
static size_t skip_string(const struct ckf_json_text *t, size_t at)
{
	for (at++; at < t->bytes && t->p[at] != '"'; at++)
		at += t->p[at] == '\\';
	return at < t->bytes ? at + 1 : t->bytes;
}

/* Values in values are counted, not entered: no depth takes more stack. */
static size_t skip_value(const struct ckf_json_text *t, size_t at)
{
	uint64_t depth = 0;

	if (at < t->bytes && !is_one_of(t->p[at], "\"[{")) {
		while (at < t->bytes && !is_one_of(t->p[at], " \t\r\n,]}"))
			at++;
		return at;
	}
	do {
		if (at >= t->bytes)
			return t->bytes;
		if (t->p[at] == '"') {
			at = skip_string(t, at);
			continue;
		}
		depth += is_one_of(t->p[at], "[{");
		depth -= is_one_of(t->p[at], "]}");
		at++;
	} while (depth);
	return at;
}

struct ckf_json_span ckf_json_root(const struct ckf_json_text *t)
{
	size_t start = skip_space(t, 0);

	return (struct ckf_json_span){ start, skip_value(t, start) };
}

static bool begins_with(const struct ckf_json_text *t, struct ckf_json_span value, char c)
{
	return value.start < value.end && t->p[value.start] == c;
}

/* From behind one value to the next one, or to the end of the container. */
static size_t skip_comma(const struct ckf_json_text *t, size_t at)
{
	at = skip_space(t, at);
	return at < t->bytes && t->p[at] == ',' ? skip_space(t, at + 1) : at;
}

int ckf_json_member(const struct ckf_json_text *t, struct ckf_json_span object, const char *key,
		    struct ckf_json_span *out)
{
	const size_t len = strlen(key);
	size_t at, quote;
	bool found;

	if (!begins_with(t, object, '{'))
		return -ENOENT;
	at = skip_space(t, object.start + 1);
	while (at < object.end && t->p[at] == '"') {
		quote = at;
		at = skip_string(t, at);
		found = at - quote == len + 2 && !memcmp(t->p + quote + 1, key, len);
		at = skip_space(t, at); /* to the colon */
		out->start = skip_space(t, at + 1);
		out->end = at = skip_value(t, out->start);
		if (found)
			return 0;
		at = skip_comma(t, at);
	}
	return -ENOENT;
}

int ckf_json_next(const struct ckf_json_text *t, struct ckf_json_span array,
		  struct ckf_json_span *v)
{
	size_t at;

	if (!begins_with(t, array, '['))
		return -ENOENT;
	at = v->end ? skip_comma(t, v->end) : skip_space(t, array.start + 1);
	if (at >= array.end || t->p[at] == ']')
		return -ENOENT;
	*v = (struct ckf_json_span){ at, skip_value(t, at) };
	return 0;
}

int ckf_json_change(struct ckf_json_text *t, struct ckf_json_span value, const char *with)
{
	struct ckf_json_edit *e;

	if (ckf_array_grow(&t->edits, t->nr_edits, &t->cap_edits, sizeof(*t->edits)))
		return -ENOMEM;
	e = &t->edits[t->nr_edits];
	*e = (struct ckf_json_edit){ .at = value, .with = strdup(with) };
	if (!e->with)
		return -ENOMEM;
	t->nr_edits++;
	return 0;
}

static int compare_edit(const void *a, const void *b)
{
	const struct ckf_json_edit *x = a, *y = b;

	return x->at.start < y->at.start ? -1 : x->at.start > y->at.start;
}

char *ckf_json_changed(struct ckf_json_text *t, size_t *bytes)
{
	size_t room = t->bytes + 1, from = 0, n;
	char *text, *to;

	for (uint64_t i = 0; i < t->nr_edits; i++)
		room += strlen(t->edits[i].with);
	text = to = malloc(room);
	if (!text)
		return NULL;
	if (t->nr_edits)
		qsort(t->edits, (size_t)t->nr_edits, sizeof(*t->edits), compare_edit);
	for (uint64_t i = 0; i < t->nr_edits; i++) {
		const struct ckf_json_edit *e = &t->edits[i];

		n = e->at.start - from;
		memcpy(to, t->p + from, n);
		to += n;
		n = strlen(e->with);
		memcpy(to, e->with, n);
		to += n;
		from = e->at.end;
	}
	memcpy(to, t->p + from, t->bytes - from);
	to += t->bytes - from;
	*to = '\0';
	*bytes = (size_t)(to - text);
	return text;
}
