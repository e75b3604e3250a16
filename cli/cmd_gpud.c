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
	const char *metrics;
	bool log_json;
	bool quiet;
	bool help;
};

enum {
	OPT_SOCKET = 1,
	OPT_FD,
	OPT_SLOTS,
	OPT_THREADS,
	OPT_DEVICE,
	OPT_GROUP,
	OPT_CLIENT_REQUESTS,
	OPT_CLIENT_BYTES,
	OPT_METRICS,
	OPT_LOG,
	OPT_STATUS,
	OPT_JSON,
};

static const struct option long_opts[] = {
	{ "socket", required_argument, NULL, OPT_SOCKET },
	{ "fd", required_argument, NULL, OPT_FD },
	{ "slots", required_argument, NULL, OPT_SLOTS },
	{ "threads", required_argument, NULL, OPT_THREADS },
	{ "device", required_argument, NULL, OPT_DEVICE },
	{ "group", required_argument, NULL, OPT_GROUP },
	{ "client-requests", required_argument, NULL, OPT_CLIENT_REQUESTS },
	{ "client-bytes", required_argument, NULL, OPT_CLIENT_BYTES },
	{ "metrics", required_argument, NULL, OPT_METRICS },
	{ "log", required_argument, NULL, OPT_LOG },
	{ "status", no_argument, NULL, OPT_STATUS },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "quiet", no_argument, NULL, 'q' },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static int parse_number(const struct cli_verb *verb, const char *name, int min, int max, int *value)
{
	if (cli_parse_int(optarg, min, max, value))
		return cli_usage(verb, "--%s %s: want %d to %d", name, optarg, min, max);
	return CKF_EXIT_OK;
}

static int parse_device(const struct cli_verb *verb, struct gpud_args *args)
{
	int device, rc;

	if (args->nr_devices == MAX_DEVICES)
		return cli_usage(verb, "more than %d times --device", MAX_DEVICES);
	rc = parse_number(verb, "device", 0, MAX_DEVICES - 1, &device);
	if (!rc)
		args->devices[args->nr_devices++] = (unsigned int)device;
	return rc;
}

static int parse_group(const struct cli_verb *verb, struct gpud_args *args)
{
	const struct group *group = getgrnam(optarg);
	int gid;

	if (!group && cli_parse_int(optarg, 0, INT_MAX, &gid))
		return cli_usage(verb, "--group %s: there is no such group", optarg);
	args->group.gid = group ? group->gr_gid : (gid_t)gid;
	args->group.set = true;
	return CKF_EXIT_OK;
}

static int parse_client_bytes(const struct cli_verb *verb, struct gpud_args *args)
{
	if (cli_parse_bytes(optarg, &args->client_bytes) || !args->client_bytes)
		return cli_usage(verb, "--client-bytes %s: want bytes, with K, M or G", optarg);
	return CKF_EXIT_OK;
}

static int parse_metrics(const struct cli_verb *verb, struct gpud_args *args)
{
	args->metrics = optarg;
	if (!ckf_gpud_export_valid(optarg))
		return cli_usage(verb, "--metrics %s: want a path with a /, or [ADDRESS:]PORT",
				 optarg);
	return CKF_EXIT_OK;
}

static int parse_log(const struct cli_verb *verb, struct gpud_args *args)
{
	args->log_json = !strcmp(optarg, "json");
	if (!args->log_json && strcmp(optarg, "text"))
		return cli_usage(verb, "--log %s: want text or json", optarg);
	return CKF_EXIT_OK;
}

static int parse_option(const struct cli_verb *verb, int opt, struct gpud_args *args)
{
	switch (opt) {
	case OPT_SOCKET:
		args->socket = optarg;
		return CKF_EXIT_OK;
	case OPT_FD:
		return parse_number(verb, "fd", 0, 1 << 20, &args->fd);
	case OPT_SLOTS:
		return parse_number(verb, "slots", 1, CKF_GPUD_MAX_SLOTS, &args->slots);
	case OPT_THREADS:
		return parse_number(verb, "threads", 1, CLI_MAX_THREADS, &args->threads);
	case OPT_DEVICE:
		return parse_device(verb, args);
	case OPT_GROUP:
		return parse_group(verb, args);
	case OPT_CLIENT_REQUESTS:
		return parse_number(verb, "client-requests", 1, MAX_CLIENT_REQUESTS,
				    &args->client_requests);
	case OPT_CLIENT_BYTES:
		return parse_client_bytes(verb, args);
	case OPT_METRICS:
		return parse_metrics(verb, args);
	case OPT_LOG:
		return parse_log(verb, args);
	case OPT_STATUS:
		args->status = true;
		return CKF_EXIT_OK;
	case OPT_JSON:
		args->json = true;
		return CKF_EXIT_OK;
	case 'q':
		args->quiet = true;
		return CKF_EXIT_OK;
	case 'h':
		args->help = true;
		return CKF_EXIT_OK;
	default:
		return cli_usage(verb, "wrong options");
	}
}

static int parse_args(const struct cli_verb *verb, int argc, char **argv, struct gpud_args *args)
{
	int opt, rc;

	args->fd = -1;
	while ((opt = getopt_long(argc, argv, "qh", long_opts, NULL)) != -1) {
		rc = parse_option(verb, opt, args);
		if (rc)
			return rc;
	}
	if (args->help)
		return CKF_EXIT_OK;
	if (optind != argc)
		return cli_usage(verb, "want options only");
	if (args->json && !args->status)
		return cli_usage(verb, "--json needs --status");
	if (args->status &&
	    (args->fd >= 0 || args->slots || args->threads || args->nr_devices || args->log_json ||
	     args->metrics || args->group.set || args->client_requests || args->client_bytes))
		return cli_usage(verb, "--status goes only with --socket and --json");
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
		"  --metrics PATH|[ADDR:]PORT\n"
		"                       metrics for Prometheus, in a file or by HTTP\n"
		"  --log text|json      lines of text, or one JSON object a line; default: text\n"
		"  -q, --quiet          no line for each job\n"
		"  --status             show contexts, slots and transfers of the running one\n"
		"  --json               with --status: as JSON\n",
	.run = run_gpud,
};
