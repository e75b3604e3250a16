/* SPDX-License-Identifier: MIT */
/*
 * What ckfast watch tells: a line for each event, on stdout; counters for Prometheus; and the file
 * that tells the next daemon what not to try again. Names are of others: nothing of them is printed
 * as it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "watch.h"

#define MAX_KNOWN 65536

/* Text that is written to a file at once: its readers see the old one or the new one. */
static int write_file(const char *path, void (*print)(const struct watch *w, FILE *f),
		      const struct watch *w)
{
	char *temp = NULL;
	int fd, ret = 0;
	FILE *f;

	if (asprintf(&temp, "%s.tmp", path) < 0)
		return -ENOMEM;
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
	f = fd < 0 ? NULL : fdopen(fd, "w");
	if (f) {
		print(w, f);
		ret = ferror(f) ? -EIO : 0;
		if (fclose(f) && !ret)
			ret = -errno;
	} else {
		ret = -errno;
		if (fd >= 0)
			close(fd);
	}
	if (!ret && rename(temp, path))
		ret = -errno;
	if (ret && fd >= 0)
		unlink(temp);
	free(temp);
	return ret;
}

static void write_or_tell(struct watch *w, const char *path,
			  void (*print)(const struct watch *w, FILE *f))
{
	int ret = path ? write_file(path, print, w) : 0;

	if (ret && !w->told_files)
		cli_message(w->verb, path, strerror(-ret));
	w->told_files |= ret != 0;
}

static void print_metric(FILE *f, const char *name, const char *type, const char *help,
			 double value)
{
	fprintf(f, "# HELP ckfast_watch_%s %s\n# TYPE ckfast_watch_%s %s\nckfast_watch_%s %.17g\n",
		name, help, name, type, name, value);
}

static void print_metrics(const struct watch *w, FILE *f)
{
	const struct watch_counts *c = &w->counts;
	size_t queued = 0;

	for (size_t i = 0; i < w->nr_entries; i++)
		queued += w->entries[i]->state == WATCH_QUEUED;
	print_metric(f, "converted_total", "counter", "Dumps and archives that were converted.",
		     (double)c->converted);
	print_metric(f, "failed_total", "counter", "Conversions that failed.", (double)c->failed);
	print_metric(f, "ignored_total", "counter", "What was left alone.", (double)c->ignored);
	print_metric(f, "in_bytes_total", "counter", "Bytes of what was converted, before.",
		     (double)c->bytes_in);
	print_metric(f, "out_bytes_total", "counter", "Bytes of what was converted, after.",
		     (double)c->bytes_out);
	print_metric(f, "convert_seconds_total", "counter", "Time of successful conversions.",
		     (double)c->ns / 1e9);
	print_metric(f, "queue_length", "gauge", "Complete, and waiting for a converter.",
		     (double)queued);
	print_metric(f, "running", "gauge", "Converters that run.", w->running);
	print_metric(f, "last_success_timestamp_seconds", "gauge",
		     "When a conversion last succeeded; 0: never.", (double)c->last_success_s);
}

void watch_write_metrics(struct watch *w)
{
	write_or_tell(w, w->metrics, print_metrics);
}

static uint64_t seconds_since_1970(void)
{
	time_t t;

	time(&t);
	return (uint64_t)t;
}

/* Prints an event, and takes more: its own members, or NULL. text: how people are told. */
static void tell(struct watch *w, const struct watch_entry *e, const char *event, const char *text,
		 json_t *more)
{
	char path[CLI_PATH_LEN], escaped[CLI_PATH_LEN];
	json_t *obj;

	if (w->json) {
		obj = json_pack("{si ss so so}", "version", CLI_JSON_VERSION, "event", event,
				"path", cli_json_string(e->path), "time",
				cli_json_u64(seconds_since_1970()));
		if (obj && more)
			json_object_update(obj, more);
		if (obj && !json_dumpf(obj, stdout, JSON_ENSURE_ASCII))
			putchar('\n');
		json_decref(obj);
	} else {
		printf("%s: %s\n", cli_escape(e->path, path, sizeof(path)),
		       cli_escape(text, escaped, sizeof(escaped)));
	}
	json_decref(more);
	fflush(stdout);
	watch_write_metrics(w);
}

void watch_found(struct watch *w, const struct watch_entry *e)
{
	tell(w, e, "found", "found", NULL);
}

void watch_converting(struct watch *w, const struct watch_entry *e)
{
	tell(w, e, "converting", "converting", json_pack("{so}", "bytes", cli_json_u64(e->bytes)));
}

void watch_converted(struct watch *w, const struct watch_entry *e, uint64_t bytes_before,
		     uint64_t ns)
{
	char text[128], before[CLI_BYTES_LEN], after[CLI_BYTES_LEN];

	w->counts.converted++;
	w->counts.bytes_in += bytes_before;
	w->counts.bytes_out += e->bytes;
	w->counts.ns += ns;
	w->counts.last_success_s = seconds_since_1970();
	snprintf(text, sizeof(text), "converted, %s to %s in %.1f s",
		 cli_bytes(bytes_before, before), cli_bytes(e->bytes, after), (double)ns / 1e9);
	tell(w, e, "converted", text,
	     json_pack("{so so sf}", "bytes_before", cli_json_u64(bytes_before), "bytes_after",
		       cli_json_u64(e->bytes), "seconds", (double)ns / 1e9));
}

static void tell_reason(struct watch *w, const struct watch_entry *e, const char *event,
			const char *reason)
{
	char text[8192];

	snprintf(text, sizeof(text), "%s: %s", event, reason);
	tell(w, e, event, text, json_pack("{so}", "reason", cli_json_string(reason)));
}

static int compare_marks(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

bool watch_is_known(const struct watch *w, uint64_t mark)
{
	return w->nr_known && bsearch(&mark, w->known, w->nr_known, sizeof(mark), compare_marks);
}

/* A line for each mark. */
static void print_known(const struct watch *w, FILE *f)
{
	for (size_t i = 0; i < w->nr_known; i++)
		fprintf(f, "%016" PRIx64 "\n", w->known[i]);
}

static int add_known(struct watch *w, uint64_t mark)
{
	void *p;

	if (watch_is_known(w, mark))
		return 0;
	/* The table is never full of what is still there: entries have the same limit. */
	if (w->nr_known == MAX_KNOWN)
		w->nr_known = 0;
	p = realloc(w->known, (w->nr_known + 1) * sizeof(*w->known));
	if (!p)
		return -ENOMEM;
	w->known = p;
	w->known[w->nr_known++] = mark;
	qsort(w->known, w->nr_known, sizeof(mark), compare_marks);
	return 0;
}

int watch_load(struct watch *w)
{
	FILE *f = w->state ? fopen(w->state, "re") : NULL;
	uint64_t mark;
	int ret = 0;

	if (!f && w->state && errno != ENOENT) {
		cli_message(w->verb, w->state, strerror(errno));
		return CKF_EXIT_FAILED;
	}
	while (f && !ret && fscanf(f, "%16" SCNx64, &mark) == 1)
		ret = add_known(w, mark);
	if (f)
		fclose(f);
	return ret ? CKF_EXIT_FAILED : CKF_EXIT_OK;
}

void watch_make_known(struct watch *w, const struct watch_entry *e)
{
	add_known(w, e->mark);
	write_or_tell(w, w->state, print_known);
}

void watch_failed(struct watch *w, const struct watch_entry *e, const char *reason)
{
	w->counts.failed++;
	watch_make_known(w, e);
	tell_reason(w, e, "failed", reason);
}

void watch_ignored(struct watch *w, const struct watch_entry *e, const char *reason)
{
	w->counts.ignored++;
	tell_reason(w, e, "ignored", reason);
}

void watch_stopped(struct watch *w, const struct watch_entry *e)
{
	tell(w, e, "stopped", "stopped, and not converted", NULL);
}
