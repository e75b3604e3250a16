/* SPDX-License-Identifier: MIT */
/*
 * What the parts of ckfast watch share: a table of the dumps and archives below some directories,
 * which scans keep up to date, and the child processes that convert them.
 *
 * Whoever writes below these directories is not trusted. Names are opened without following links,
 * and below the directory only; a converter that is killed is one failure. Events of inotify say
 * only that it is time for another scan: a lost one costs time and nothing else.
 */
#ifndef CKF_WATCH_H
#define CKF_WATCH_H

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "ckf_cli.h"

enum watch_state {
	WATCH_SETTLING, /* it may still be written */
	WATCH_QUEUED,
	WATCH_RUNNING,
	WATCH_DONE, /* converted, failed or ignored: left alone until it changes */
};

struct watch_entry {
	char *path;	  /* for messages, and the key of the table */
	const char *root; /* the watched directory that it is in */
	const char *name; /* the part of path below root */
	bool is_dir;
	bool is_fast; /* it has been converted */
	dev_t dev;
	ino_t ino;
	dev_t parent_dev; /* of the dump that it leaves pages to; parent_ino 0: none */
	ino_t parent_ino;
	bool seen;     /* by the scan that is under way */
	uint64_t mark; /* changes with the contents: a hash of names, inodes, sizes, times */
	uint64_t bytes;
	uint64_t since_ns; /* no change was seen since */
	enum watch_state state;
	/* While it runs. */
	pid_t pid;
	int stderr_fd;
	char arg[32]; /* what the converter is told to convert, where that is no name */
	uint64_t start_ns;
};

struct watch_counts {
	uint64_t converted;
	uint64_t failed;
	uint64_t ignored;
	uint64_t bytes_in;
	uint64_t bytes_out;
	uint64_t ns;
	uint64_t last_success_s; /* since 1970; 0: never */
};

struct watch {
	const struct cli_verb *verb;
	/* Options. */
	char **roots;
	size_t nr_roots;
	int jobs;
	unsigned int threads; /* 0: as many as the converter takes */
	int nice;
	int settle_s;
	bool once;
	bool recursive;
	bool json;
	const char *metrics; /* NULL: none */
	const char *state;   /* NULL: what is known is forgotten at the end */

	struct watch_entry **entries; /* in the order in which they were found */
	size_t nr_entries;
	size_t max_entries;
	void *by_path;	 /* tsearch() */
	uint64_t *known; /* marks of what is not tried again, of this run and those before */
	size_t nr_known;
	struct watch_counts counts;
	int inotify_fd;
	int running;
	bool told_limit; /* a message was printed, and is not printed again */
	bool told_files;
	uint64_t last_scan_ns;
	uint64_t next_scan_ns;
};

/* watch_files.c */

#define WATCH_DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

/* An fd of a name below root that no link leads to, or -errno. */
int watch_open(const char *root, const char *name, int flags);

typedef int watch_visit_fn(int dir_fd, const char *name, const struct stat *st, void *arg);
/*
 * All names of a directory but "." and "..", until visit returns non-zero. What is gone before it
 * is looked at is left out. What visit has returned, or -errno.
 */
int watch_each(int dir_fd, watch_visit_fn *visit, void *arg);

/* A file, or a directory and the files in it. */
struct watch_look {
	struct stat st;
	uint64_t mark; /* as in struct watch_entry */
	uint64_t bytes;
	dev_t parent_dev; /* as in struct watch_entry */
	ino_t parent_ino;
	bool has_inventory;
	bool has_tree; /* a pre-dump has none, and cannot be restored */
	bool has_index;
	bool has_pages;
};
/* 0, or -errno. */
int watch_look_at(const char *root, const char *name, struct watch_look *l);
/* Somebody has it, or a file in it, open for writing. */
bool watch_has_writer(const struct watch_entry *e);
/* A reason why this entry must not be converted, or NULL. */
const char *watch_refuse(const struct watch_entry *e);
/* After a converter was killed: removes what it has left beside the entry. */
void watch_remove_left(const struct watch_entry *e);

/* watch_scan.c */

/* Looks for what came, changed and went, and queues what is complete. */
void watch_scan(struct watch *w);
/* Reads the events of inotify: the next scan is soon. */
void watch_take_events(struct watch *w);
void watch_free(struct watch *w);

/* watch_job.c */

void watch_start(struct watch *w, struct watch_entry *e);
/* Takes the results of the converters that have ended. */
void watch_reap(struct watch *w);
/* Ends all converters: they clean up, or are killed after a while. */
void watch_stop(struct watch *w);

/* watch_report.c */

void watch_found(struct watch *w, const struct watch_entry *e);
void watch_converting(struct watch *w, const struct watch_entry *e);
void watch_converted(struct watch *w, const struct watch_entry *e, uint64_t bytes_before,
		     uint64_t ns);
void watch_failed(struct watch *w, const struct watch_entry *e, const char *reason);
void watch_ignored(struct watch *w, const struct watch_entry *e, const char *reason);
/* The daemon ends, and not for a fault of the entry. */
void watch_stopped(struct watch *w, const struct watch_entry *e);
/* Reads --state. enum ckf_exit. */
int watch_load(struct watch *w);
/* What looks like this was tried, and is not tried again. */
bool watch_is_known(const struct watch *w, uint64_t mark);
void watch_make_known(struct watch *w, const struct watch_entry *e);
/* Writes --metrics. */
void watch_write_metrics(struct watch *w);

#endif
