/* SPDX-License-Identifier: MIT */
/* Finds dumps and archives below the watched directories, and tells when they are complete. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "watch.h"

#define NS_PER_S 1000000000ul
#define MAX_DEPTH 8
#define MAX_ENTRIES 65536
/* Between two scans: at least while something changes, at most while nothing does. The longer one
 * is for file systems that send no events. */
#define MIN_GAP_NS (NS_PER_S / 5)
#define MAX_GAP_NS (60 * NS_PER_S)

#define EVENTS (IN_CLOSE_WRITE | IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ONLYDIR)

static int compare_paths(const void *a, const void *b)
{
	return strcmp(((const struct watch_entry *)a)->path, ((const struct watch_entry *)b)->path);
}

static void free_entry(struct watch_entry *e)
{
	if (e)
		free(e->path);
	free(e);
}

/* The entry of a name below root; a new one with a mark of 0. NULL: too many, or no memory. */
static struct watch_entry *get_entry(struct watch *w, const char *root, const char *name)
{
	struct watch_entry *e = calloc(1, sizeof(*e)), **in_tree;

	if (!e || asprintf(&e->path, "%s/%s", root, name) < 0) {
		free(e);
		return NULL;
	}
	e->root = root;
	e->name = e->path + strlen(root) + 1;
	e->stderr_fd = -1;
	in_tree = tfind(e, &w->by_path, compare_paths);
	if (in_tree || w->nr_entries == MAX_ENTRIES) {
		free_entry(e);
		return in_tree ? *in_tree : NULL;
	}
	if (w->nr_entries == w->max_entries) {
		size_t max = w->max_entries ? 2 * w->max_entries : 64;
		void *p = realloc(w->entries, max * sizeof(*w->entries));

		if (!p)
			goto no_memory;
		w->entries = p;
		w->max_entries = max;
	}
	if (!tsearch(e, &w->by_path, compare_paths))
		goto no_memory;
	w->entries[w->nr_entries++] = e;
	return e;
no_memory:
	free_entry(e);
	return NULL;
}

/* Something is there: an entry is made, or made anew where it has changed. */
static void update(struct watch *w, const char *root, const char *name, const struct watch_look *l)
{
	struct watch_entry *e = get_entry(w, root, name);
	bool changed;

	if (!e) {
		if (!w->told_limit)
			cli_message(w->verb, root, "too many entries: some are left out");
		w->told_limit = true;
		return;
	}
	e->seen = true;
	if (e->state == WATCH_RUNNING || e->mark == l->mark)
		return;
	changed = e->mark && e->state == WATCH_DONE;
	e->is_dir = S_ISDIR(l->st.st_mode);
	e->is_fast = false;
	e->dev = l->st.st_dev;
	e->ino = l->st.st_ino;
	e->parent_dev = l->parent_dev;
	e->parent_ino = l->parent_ino;
	e->bytes = l->bytes;
	e->since_ns = cli_now_ns();
	if (!S_ISREG(l->st.st_mode) && !e->is_dir) {
		e->state = WATCH_DONE;
		watch_ignored(w, e, S_ISLNK(l->st.st_mode) ? "a symbolic link" : "not a file");
	} else if (watch_is_known(w, l->mark)) {
		e->state = WATCH_DONE;
	} else {
		if (!e->mark || changed)
			watch_found(w, e);
		e->state = WATCH_SETTLING;
	}
	e->mark = l->mark;
}

static bool is_archive_name(const char *name)
{
	static const char *const ends[] = { ".tar", ".tar.gz", ".tar.zst" };
	size_t len = strlen(name), n;

	for (size_t i = 0; i < sizeof(ends) / sizeof(*ends); i++) {
		n = strlen(ends[i]);
		if (len > n && !strcmp(name + len - n, ends[i]))
			return true;
	}
	return false;
}

struct place {
	struct watch *w;
	const char *root;
	const char *name; /* of the directory, below root; "" for root itself */
	int depth;
};

static void scan_dir(const struct place *p);

/* A dump is an entry; a pre-dump and a fast image are none. */
static void scan_subdir(const struct place *p)
{
	struct watch_look l;

	if (watch_look_at(p->root, p->name, &l))
		return;
	if (l.has_inventory && l.has_tree && (!l.has_index || l.has_pages))
		update(p->w, p->root, p->name, &l);
	scan_dir(p);
}

static int scan_name(int dir_fd, const char *name, const struct stat *st, void *arg)
{
	const struct place *p = arg;
	char path[PATH_MAX];
	struct place below = { p->w, p->root, path, p->depth + 1 };
	struct watch_look l;

	(void)dir_fd;
	/* Hidden names are of conversions that are under way. */
	if (*name == '.' || snprintf(path, sizeof(path), "%s%s%s", p->name, *p->name ? "/" : "",
				     name) >= (int)sizeof(path))
		return 0;
	if (S_ISDIR(st->st_mode) && p->depth < (p->w->recursive ? MAX_DEPTH : 1))
		scan_subdir(&below);
	else if (!S_ISDIR(st->st_mode) && is_archive_name(name) && (p->w->recursive || !p->depth) &&
		 !watch_look_at(p->root, path, &l))
		update(p->w, p->root, path, &l);
	return 0;
}

/* Watches a directory, and looks at what is in it. */
static void scan_dir(const struct place *p)
{
	int fd = *p->name ? watch_open(p->root, p->name, WATCH_DIR_FLAGS)
			  : open(p->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char self[32];

	if (fd < 0)
		return;
	/* Once more does no harm. Without a watch, scans find what comes, but later. */
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	inotify_add_watch(p->w->inotify_fd, self, EVENTS);
	if (p->depth < (p->w->recursive ? MAX_DEPTH : 1))
		watch_each(fd, scan_name, (void *)p);
	close(fd);
}

/* Forgets what is gone. */
static void sweep(struct watch *w)
{
	size_t n = 0;

	for (size_t i = 0; i < w->nr_entries; i++) {
		struct watch_entry *e = w->entries[i];

		if (e->seen || e->state == WATCH_RUNNING) {
			w->entries[n++] = e;
			continue;
		}
		tdelete(e, &w->by_path, compare_paths);
		free_entry(e);
	}
	w->nr_entries = n;
}

/* Queues what has been the same for long enough and has no writer. When to look again: 0 for no
 * reason. */
static uint64_t settle(struct watch *w, uint64_t now)
{
	const uint64_t settle_ns = (uint64_t)w->settle_s * NS_PER_S;
	uint64_t next = 0;

	for (size_t i = 0; i < w->nr_entries; i++) {
		struct watch_entry *e = w->entries[i];

		if (e->state != WATCH_SETTLING)
			continue;
		if (now - e->since_ns >= settle_ns) {
			if (!watch_has_writer(e)) {
				e->state = WATCH_QUEUED;
				continue;
			}
			e->since_ns = now;
			if (w->once) {
				e->state = WATCH_DONE;
				watch_ignored(w, e, "it is being written");
				continue;
			}
		}
		if (!next || e->since_ns + settle_ns < next)
			next = e->since_ns + settle_ns;
	}
	return next;
}

void watch_scan(struct watch *w)
{
	uint64_t now, next;

	for (size_t i = 0; i < w->nr_entries; i++)
		w->entries[i]->seen = false;
	for (size_t i = 0; i < w->nr_roots; i++) {
		struct place p = { w, w->roots[i], "", 0 };

		scan_dir(&p);
	}
	sweep(w);
	now = cli_now_ns();
	next = settle(w, now);
	if (!next)
		next = now + MAX_GAP_NS;
	w->last_scan_ns = now;
	w->next_scan_ns = next < now + MIN_GAP_NS ? now + MIN_GAP_NS : next;
}

void watch_take_events(struct watch *w)
{
	char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	bool any = false;

	/* What they say does not matter, nor that some were lost (IN_Q_OVERFLOW): the scan sees. */
	while (read(w->inotify_fd, buf, sizeof(buf)) > 0)
		any = true;
	if (any && w->next_scan_ns > w->last_scan_ns + MIN_GAP_NS)
		w->next_scan_ns = w->last_scan_ns + MIN_GAP_NS;
}

static void free_nothing(void *p)
{
	(void)p;
}

void watch_free(struct watch *w)
{
	tdestroy(w->by_path, free_nothing);
	for (size_t i = 0; i < w->nr_entries; i++)
		free_entry(w->entries[i]);
	free(w->entries);
	free(w->known);
	if (w->inotify_fd >= 0)
		close(w->inotify_fd);
}
