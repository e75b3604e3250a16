/* SPDX-License-Identifier: MIT */
/* The report of ckfast doctor: its lines, as text and as JSON. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "doctor.h"

static const char *const states[] = {
	[DOCTOR_OK] = "ok",
	[DOCTOR_DEGRADED] = "degraded",
	[DOCTOR_BROKEN] = "broken",
};

json_t *doctor_add(struct doctor *d, const char *name, enum doctor_state state, const char *hint,
		   const char *fmt, ...)
{
	struct doctor_line *line;
	va_list ap;

	if (d->nr_lines == DOCTOR_MAX_LINES) {
		d->nr_dropped++;
		return NULL;
	}
	line = &d->lines[d->nr_lines++];
	*line = (struct doctor_line){ .name = name, .state = state, .image = d->image };
	line->hint = hint;
	va_start(ap, fmt);
	vsnprintf(line->text, sizeof(line->text), fmt, ap);
	va_end(ap);
	line->facts = json_object();
	return line->facts;
}

void doctor_fini(struct doctor *d)
{
	for (size_t i = 0; i < d->nr_lines; i++)
		json_decref(d->lines[i].facts);
	d->nr_lines = 0;
}

enum doctor_state doctor_worst(const struct doctor *d)
{
	enum doctor_state worst = DOCTOR_OK;

	for (size_t i = 0; i < d->nr_lines; i++)
		if (d->lines[i].state > worst)
			worst = d->lines[i].state;
	return worst;
}

void doctor_print(const struct doctor *d, bool has_image)
{
	char text[4 * DOCTOR_TEXT_BYTES];
	size_t nr_fine = 0;

	for (size_t i = 0; i < d->nr_lines; i++) {
		const struct doctor_line *line = &d->lines[i];

		if (has_image && !line->image && line->state == DOCTOR_OK) {
			nr_fine++;
			continue;
		}
		printf("%-12s %-9s %s\n", line->name, states[line->state],
		       cli_escape(line->text, text, sizeof(text)));
		if (line->hint)
			printf("%-22s %s\n", "", line->hint);
	}
	if (d->nr_dropped)
		printf("%zu more lines are left out\n", d->nr_dropped);
	if (nr_fine)
		printf("%-12s %-9s %zu checks of this machine: ckfast doctor shows them\n",
		       "machine", states[DOCTOR_OK], nr_fine);
}

json_t *doctor_json(const struct doctor *d, const char *path)
{
	json_t *list = json_array(), *obj;

	for (size_t i = 0; i < d->nr_lines; i++) {
		const struct doctor_line *line = &d->lines[i];

		obj = json_pack("{ss ss ss so* ss* sO*}", "about",
				line->image ? "image" : "machine", "name", line->name, "state",
				states[line->state], "text", cli_json_string(line->text), "hint",
				line->hint, "facts", line->facts);
		if (json_array_append_new(list, obj)) {
			json_decref(list);
			return NULL;
		}
	}
	obj = json_pack("{si ss so so*}", "version", CLI_JSON_VERSION, "state",
			states[doctor_worst(d)], "checks", list, "image",
			path ? cli_json_string(path) : NULL);
	if (obj && d->nr_dropped)
		json_object_set_new(obj, "left_out", cli_json_u64(d->nr_dropped));
	return obj;
}
