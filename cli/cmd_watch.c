/* SPDX-License-Identifier: MIT */
/* ckfast watch: converts the dumps and archives that turn up in directories, each in its place. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "watch.h"

#define MAX_JOBS 64
#define MAX_SETTLE_S 3600
#define NS_PER_MS 1000000u

static int parse_args(const struct cli_verb *verb, int argc, char **argv, struct watch *w,
		      bool *help)
{
	const struct cli_opt opts[] = {
		{ "once", .flag = &w->once },
		{ "recursive", .flag = &w->recursive },
		{ "jobs", .number = &w->jobs, .min = 1, .max = MAX_JOBS },
		{ "threads", .take = cli_take_threads, .arg = &w->threads },
		{ "nice", .number = &w->nice, .max = CLI_MAX_NICE },
		{ "settle", .number = &w->settle_s, .max = MAX_SETTLE_S },
		{ "metrics", .string = &w->metrics },
		{ "state", .string = &w->state },
		{ "json", .flag = &w->json },
		{ 0 },
	};
	int rc = cli_take_options(verb, argc, argv, opts, help);

	if (rc || *help)
		return rc;
	if (optind == argc)
		return cli_usage(verb, "want directories: %s", verb->args);
	w->roots = argv + optind;
	w->nr_roots = (size_t)(argc - optind);
	return CKF_EXIT_OK;
}

/* One that is not there at the start is a mistake; one that goes later may come again. */
static int check_roots(const struct watch *w)
{
	struct ckf_error err;
	int fd;

	for (size_t i = 0; i < w->nr_roots; i++) {
		size_t len = strlen(w->roots[i]);

		while (len > 1 && w->roots[i][len - 1] == '/')
			w->roots[i][--len] = 0;
		err = (struct ckf_error){ 0 };
		fd = cli_open_dir(w->roots[i], &err);
		if (fd < 0)
			return cli_fail(w->verb, w->roots[i], fd, &err);
		close(fd);
		/* Without openat2(), as under some filters, nothing could be found. */
		fd = watch_open(w->roots[i], ".", WATCH_DIR_FLAGS);
		if (fd < 0)
			return cli_fail(w->verb, w->roots[i], fd, &err);
		close(fd);
	}
	return CKF_EXIT_OK;
}

/* A descriptor for the end of converters and of the daemon. */
static int open_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	/* Of a lease that is broken while it is asked for. */
	signal(SIGIO, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* The dump, not converted yet, that has this one as its parent: it has to be converted before. */
static const struct watch_entry *find_child(const struct watch *w, const struct watch_entry *e)
{
	for (size_t i = 0; i < w->nr_entries; i++) {
		const struct watch_entry *c = w->entries[i];

		if (c != e && e->is_dir && c->parent_ino == e->ino && c->parent_dev == e->dev &&
		    !c->is_fast)
			return c;
	}
	return NULL;
}

/* True when one has come to its end at once, which others may have waited for. */
static bool start_some(struct watch *w)
{
	const struct watch_entry *child;
	struct watch_entry *waits = NULL;
	bool settling = false, ended = false;

	for (size_t i = 0; i < w->nr_entries && w->running < w->jobs; i++) {
		struct watch_entry *e = w->entries[i];

		settling |= e->state == WATCH_SETTLING;
		if (e->state != WATCH_QUEUED)
			continue;
		child = find_child(w, e);
		if (!child) {
			watch_start(w, e);
		} else if (child->state == WATCH_DONE) {
			e->state = WATCH_DONE;
			watch_ignored(w, e, "a dump that has it as its parent is not converted");
		} else if (!waits) {
			waits = e;
		}
		ended |= e->state == WATCH_DONE;
	}
	/* Dumps that wait for each other: the converter says what it thinks of that. */
	if (waits && !w->running && !settling && !ended) {
		watch_start(w, waits);
		ended = waits->state == WATCH_DONE;
	}
	return ended;
}

static bool is_idle(const struct watch *w)
{
	for (size_t i = 0; i < w->nr_entries; i++)
		if (w->entries[i]->state != WATCH_DONE)
			return false;
	return true;
}

/* Until the next scan or an event. True when the daemon is to end. */
static bool wait_for_event(struct watch *w, int signal_fd)
{
	struct pollfd p[] = { { .fd = signal_fd, .events = POLLIN },
			      { .fd = w->inotify_fd, .events = POLLIN } };
	uint64_t now = cli_now_ns();
	struct signalfd_siginfo si;
	bool end = false;

	poll(p, 2, w->next_scan_ns > now ? (int)((w->next_scan_ns - now) / NS_PER_MS) + 1 : 0);
	while (read(signal_fd, &si, sizeof(si)) == (ssize_t)sizeof(si))
		end |= si.ssi_signo != SIGCHLD;
	if (!end)
		watch_reap(w);
	watch_take_events(w);
	return end;
}

static int watch(struct watch *w)
{
	int signal_fd = open_signals();

	w->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (signal_fd < 0 || w->inotify_fd < 0) {
		cli_message(w->verb, w->roots[0], strerror(errno));
		return CKF_EXIT_FAILED;
	}
	do {
		if (cli_now_ns() >= w->next_scan_ns)
			watch_scan(w);
		while (start_some(w))
			;
		watch_write_metrics(w);
	} while (!(w->once && is_idle(w)) && !wait_for_event(w, signal_fd));
	watch_stop(w);
	watch_write_metrics(w);
	close(signal_fd);
	return w->once && w->counts.failed ? CKF_EXIT_FAILED : CKF_EXIT_OK;
}

static int run_watch(const struct cli_verb *verb, int argc, char **argv)
{
	struct watch w = {
		.verb = verb, .jobs = 1, .nice = CLI_MAX_NICE, .settle_s = 2, .inotify_fd = -1
	};
	bool help = false;
	int rc = parse_args(verb, argc, argv, &w, &help);

	if (!rc && help)
		return cli_help(verb);
	if (!rc)
		rc = check_roots(&w);
	if (!rc)
		rc = watch_load(&w);
	if (!rc)
		rc = watch(&w);
	watch_free(&w);
	return rc;
}

const struct cli_verb cli_verb_watch = {
	.name = "watch",
	.args = "DIR...",
	.summary = "Converts dumps and archives of checkpoints that turn up in DIR, in place.",
	.help = "  --once               convert what is there, and end\n"
		"  --recursive          look in directories below DIR, too\n"
		"  --jobs N             conversions at a time; default: 1\n"
		"  --threads N          of each conversion\n"
		"  --nice N             priority of the conversions, 0 to 19 (default)\n"
		"  --settle SECONDS     how long nothing may change before; default: 2\n"
		"  --metrics FILE       counters, as text for Prometheus\n"
		"  --state FILE         keeps what is not to be tried again for the next one\n"
		"  --json               a line of JSON for each event\n",
	.run = run_watch,
};
