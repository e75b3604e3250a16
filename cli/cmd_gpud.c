/* SPDX-License-Identifier: MIT */
/* ckfast gpud: keeps GPUs ready and fills their memory. */
#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "gpud.h"

#define MAX_DEVICES 64
#define MAX_CLIENT_REQUESTS 256
#define MAX_KEPT 64
/* Of a helper: as many as keep the link busy. Each takes 2 ms to pin, before it has saved any. */
#define HELPER_SLOTS 24

struct gpud_args {
	const char *socket;
	int fd; /* -1: a daemon */
	int slots;
	int threads;
	unsigned int devices[MAX_DEVICES];
	unsigned int nr_devices;
	bool status;
	bool json;
	struct ckf_gpud_group group;
	int client_requests;
	uint64_t client_bytes;
	const char *keep[MAX_KEPT];
	unsigned int nr_keep;
	uint64_t keep_bytes;
	const char *metrics;
	bool log_json;
	bool quiet;
	bool help;
};

static int take_device(const struct cli_verb *verb, const struct cli_opt *o)
{
	struct gpud_args *args = o->arg;
	int device;

	if (args->nr_devices == MAX_DEVICES)
		return cli_usage(verb, "more than %d times --device", MAX_DEVICES);
	if (cli_parse_int(optarg, 0, MAX_DEVICES - 1, &device))
		return cli_usage(verb, "--device %s: want 0 to %d", optarg, MAX_DEVICES - 1);
	args->devices[args->nr_devices++] = (unsigned int)device;
	return CKF_EXIT_OK;
}

static int take_group(const struct cli_verb *verb, const struct cli_opt *o)
{
	const struct group *group = getgrnam(optarg);
	struct ckf_gpud_group *out = o->arg;
	int gid;

	if (!group && cli_parse_int(optarg, 0, INT_MAX, &gid))
		return cli_usage(verb, "--group %s: there is no such group", optarg);
	out->gid = group ? group->gr_gid : (gid_t)gid;
	out->set = true;
	return CKF_EXIT_OK;
}

static int take_keep(const struct cli_verb *verb, const struct cli_opt *o)
{
	struct gpud_args *args = o->arg;

	if (args->nr_keep == MAX_KEPT)
		return cli_usage(verb, "more than %d times --keep", MAX_KEPT);
	args->keep[args->nr_keep++] = optarg;
	return CKF_EXIT_OK;
}

static int take_bytes(const struct cli_verb *verb, const struct cli_opt *o)
{
	uint64_t *bytes = o->arg;

	if (cli_parse_bytes(optarg, bytes) || !*bytes)
		return cli_usage(verb, "--%s %s: want bytes, with K, M or G", o->name, optarg);
	return CKF_EXIT_OK;
}

static int take_metrics(const struct cli_verb *verb, const struct cli_opt *o)
{
	const char **metrics = o->arg;

	*metrics = optarg;
	if (!ckf_gpud_export_valid(optarg))
		return cli_usage(verb, "--metrics %s: want a path with a /, or [ADDRESS:]PORT",
				 optarg);
	return CKF_EXIT_OK;
}

static int take_log(const struct cli_verb *verb, const struct cli_opt *o)
{
	bool *json = o->arg;

	*json = !strcmp(optarg, "json");
	if (!*json && strcmp(optarg, "text"))
		return cli_usage(verb, "--log %s: want text or json", optarg);
	return CKF_EXIT_OK;
}

static int parse_args(const struct cli_verb *verb, int argc, char **argv, struct gpud_args *args)
{
	const struct cli_opt opts[] = {
		{ "socket", .string = &args->socket },
		{ "fd", .number = &args->fd, .max = 1 << 20 },
		{ "slots", .number = &args->slots, .min = 1, .max = CKF_GPUD_MAX_SLOTS },
		{ "threads", .number = &args->threads, .min = 1, .max = CLI_MAX_THREADS },
		{ "device", .take = take_device, .arg = args },
		{ "group", .take = take_group, .arg = &args->group },
		{ "client-requests", .number = &args->client_requests, .min = 1,
		  .max = MAX_CLIENT_REQUESTS },
		{ "client-bytes", .take = take_bytes, .arg = &args->client_bytes },
		{ "keep", .take = take_keep, .arg = args },
		{ "keep-bytes", .take = take_bytes, .arg = &args->keep_bytes },
		{ "metrics", .take = take_metrics, .arg = &args->metrics },
		{ "log", .take = take_log, .arg = &args->log_json },
		{ "status", .flag = &args->status },
		{ "json", .flag = &args->json },
		{ "quiet", 'q', .flag = &args->quiet },
		{ 0 },
	};
	int rc;

	args->fd = -1;
	rc = cli_take_options(verb, argc, argv, opts, &args->help);
	if (rc)
		return rc;
	if (args->help)
		return CKF_EXIT_OK;
	if (optind != argc)
		return cli_usage(verb, "want options only");
	if (args->json && !args->status)
		return cli_usage(verb, "--json needs --status");
	if (args->status &&
	    (args->fd >= 0 || args->slots || args->threads || args->nr_devices || args->log_json ||
	     args->metrics || args->group.set || args->client_requests || args->client_bytes ||
	     args->nr_keep || args->keep_bytes))
		return cli_usage(verb, "--status goes only with --socket and --json");
	if (args->fd >= 0 && args->nr_keep)
		return cli_usage(verb, "--keep is for a daemon, without --fd");
	return CKF_EXIT_OK;
}

/* Memory in flight to clients is descriptors. */
static void raise_fd_limit(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r))
		return;
	r.rlim_cur = r.rlim_max;
	setrlimit(RLIMIT_NOFILE, &r);
}

/* log: NULL for none. */
static int new_gpud(const struct gpud_args *args, const struct gpud_log *log, struct ckf_gpud **g,
		    struct ckf_error *err)
{
	struct ckf_gpud_opts o = { .size = sizeof(o),
				   .nr_slots = (unsigned int)args->slots,
				   .threads = (unsigned int)args->threads,
				   .group = args->group,
				   .client_requests = (unsigned int)args->client_requests,
				   .client_bytes = args->client_bytes,
				   .keep = args->keep,
				   .nr_keep = args->nr_keep,
				   .keep_bytes = args->keep_bytes,
				   .log = log && !args->quiet ? gpud_log_event : NULL,
				   .arg = (void *)log };

	if (args->fd >= 0 && !o.nr_slots)
		o.nr_slots = HELPER_SLOTS;
	raise_fd_limit();
	return ckf_gpud_new(&o, g, err);
}

/*
 * One client. The first process ends at once, so that whoever started it has no child that ends
 * at a time of its own.
 */
static int run_helper(const struct cli_verb *verb, const struct gpud_args *args)
{
	struct ckf_error err = { 0 };
	struct ckf_gpud *g;
	pid_t pid;
	int rc;

	pid = fork();
	if (pid < 0) {
		ckf_error_set(&err, -errno, "cannot fork: %s", strerror(errno));
		return cli_fail(verb, "helper", err.code, &err);
	}
	if (pid)
		return CKF_EXIT_OK;
	/* What it cannot give up its client has, too: no reason to fail. */
	(void)ckf_gpud_drop_rights(&args->group, NULL);
	/* No file system is kept busy by a helper. */
	if (chdir("/"))
		cli_message(verb, "helper", "cannot change to /");
	rc = new_gpud(args, NULL, &g, &err);
	if (!rc)
		rc = ckf_gpud_serve(g, args->fd, &err);
	ckf_gpud_free(g);
	return rc ? cli_fail(verb, "helper", rc, &err) : CKF_EXIT_OK;
}

/* A descriptor that is readable when the daemon is to end, in place of the signals. */
static int stop_fd_open(struct ckf_error *err)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	/* Before there are threads: all inherit it. */
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC);
	return fd < 0 ? ckf_error_set(err, -errno, "cannot wait for signals: %s", strerror(errno))
		      : fd;
}

/* The clients are served, with metrics or without. */
static int serve(const struct gpud_args *args, const struct gpud_log *log, struct ckf_gpud *g,
		 int listen_fd, int stop_fd, struct ckf_error *err)
{
	struct ckf_gpud_exporter *exporter = NULL;
	struct ckf_error export_err = { 0 };
	int rc;

	if (args->metrics && ckf_gpud_export(g, args->metrics, &exporter, &export_err))
		gpud_log_warning(log, export_err.msg);
	if (!args->quiet)
		gpud_log_info(log, "ready");
	rc = ckf_gpud_run(g, listen_fd, stop_fd, err);
	ckf_gpud_export_end(exporter);
	return rc;
}

static int run_daemon(const struct cli_verb *verb, const struct gpud_args *args, const char *path)
{
	struct ckf_error err = { 0 }, rights_err = { 0 };
	struct ckf_gpud *g = NULL;
	struct ckf_gpud_listener listener;
	struct gpud_log log = { .verb = verb, .name = path, .json = args->log_json };
	int stop_fd, rc;

	if (ckf_gpud_drop_rights(&args->group, &rights_err))
		gpud_log_warning(&log, rights_err.msg);
	rc = ckf_gpud_inherit(&listener, &err);
	if (listener.fd >= 0)
		log.name = "the service manager's socket";
	stop_fd = stop_fd_open(&err);
	if (!rc)
		rc = stop_fd < 0 ? stop_fd : new_gpud(args, &log, &g, &err);
	ckf_gpud_tell("STATUS=Opening the CUDA driver");
	if (!rc)
		rc = ckf_gpud_warm(g, args->devices, args->nr_devices, &err);
	/* Only now: a client that finds no socket starts a helper and loses no time. */
	if (!rc && listener.fd < 0)
		rc = ckf_gpud_listen(path, &args->group, &listener, &err);
	if (!rc)
		rc = serve(args, &log, g, listener.fd, stop_fd, &err);
	ckf_gpud_unlisten(&listener);
	if (stop_fd >= 0)
		close(stop_fd);
	ckf_gpud_free(g);
	return rc ? gpud_log_fail(&log, rc, &err) : CKF_EXIT_OK;
}

static int run_gpud(const struct cli_verb *verb, int argc, char **argv)
{
	struct gpud_args args = { 0 };
	const char *path;
	int rc;

	rc = parse_args(verb, argc, argv, &args);
	if (rc)
		return rc;
	if (args.help)
		return cli_help(verb);
	path = args.socket ? args.socket : getenv("CKFAST_GPUD_SOCKET");
	if (!path)
		path = CKF_GPUD_SOCKET;
	if (args.status)
		return gpud_status_show(verb, path, args.json);
	return args.fd >= 0 ? run_helper(verb, &args) : run_daemon(verb, &args, path);
}

const struct cli_verb cli_verb_gpud = {
	.name = "gpud",
	.args = "",
	.summary = "Keeps GPUs ready and fills their memory for restores, as a daemon.",
	.help = "  --socket PATH        default: $CKFAST_GPUD_SOCKET, or " CKF_GPUD_SOCKET "\n"
		"  --slots N            pinned buffers of 4 MiB; default: 2 for each CPU, 8 to 64\n"
		"  --threads N          of one job at most; default: the CPUs\n"
		"  --device N           make a context on this GPU only; may be repeated\n"
		"  --fd N               serve the one client at descriptor N\n"
		"  --group NAME         serve members of this group, too\n"
		"  --client-requests N  of one user at a time at most\n"
		"  --client-bytes SIZE  of GPU memory that fills of one user make at a time\n"
		"  --keep DIR           keep this fast image in memory; may be repeated\n"
		"  --keep-bytes SIZE    of memory that kept images take; default: as it allows\n"
		"  --metrics PATH|[ADDR:]PORT\n"
		"                       metrics for Prometheus, in a file or by HTTP\n"
		"  --log text|json      lines of text, or one JSON object a line; default: text\n"
		"  -q, --quiet          no line for each job\n"
		"  --status             show contexts, slots and transfers of the running one\n"
		"  --json               with --status: as JSON\n",
	.run = run_gpud,
};
