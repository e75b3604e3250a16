/* SPDX-License-Identifier: MIT */
/* ckfast gpud: keeps GPUs ready and fills their memory; and its status. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "gpu/daemon/ckf_gpud_server.h"
#include "ckf_cli.h"

#define MAX_DEVICES 64
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

static int parse_args(const struct cli_verb *verb, int argc, char **argv, struct gpud_args *args)
{
	const struct cli_opt opts[] = {
		{ "socket", .string = &args->socket },
		{ "fd", .number = &args->fd, .max = 1 << 20 },
		{ "slots", .number = &args->slots, .min = 1, .max = CKF_GPUD_MAX_SLOTS },
		{ "threads", .number = &args->threads, .min = 1, .max = CLI_MAX_THREADS },
		{ "device", .take = take_device, .arg = args },
		{ "status", .flag = &args->status },
		{ "json", .flag = &args->json },
		{ "quiet", 'q', .flag = &args->quiet },
		{ 0 },
	};
	int rc;

	args->fd = -1;
	rc = cli_take_options(verb, argc, argv, opts, &args->help);
	if (rc || args->help)
		return rc;
	if (optind != argc)
		return cli_usage(verb, "want options only");
	if (args->json && !args->status)
		return cli_usage(verb, "--json needs --status");
	if (args->status && (args->fd >= 0 || args->slots || args->threads || args->nr_devices))
		return cli_usage(verb, "--status goes only with --socket and --json");
	return CKF_EXIT_OK;
}

/* Called from any thread: one write per line. */
static void on_log(void *arg, const char *line)
{
	const struct cli_verb *verb = arg;

	fprintf(stderr, "ckfast %s: %s\n", verb->name, line);
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

static int new_gpud(const struct cli_verb *verb, const struct gpud_args *args, struct ckf_gpud **g,
		    struct ckf_error *err)
{
	struct ckf_gpud_opts o = { .size = sizeof(o),
				   .nr_slots = (unsigned int)args->slots,
				   .threads = (unsigned int)args->threads,
				   .log = args->quiet || args->fd >= 0 ? NULL : on_log,
				   .arg = (void *)verb };

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
	/* No file system is kept busy by a helper. */
	if (chdir("/"))
		cli_message(verb, "helper", "cannot change to /");
	rc = new_gpud(verb, args, &g, &err);
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

static int run_daemon(const struct cli_verb *verb, const struct gpud_args *args, const char *path)
{
	struct ckf_error err = { 0 };
	struct ckf_gpud *g = NULL;
	struct ckf_gpud_listener listener = { .fd = -1 };
	int stop_fd, rc;

	stop_fd = stop_fd_open(&err);
	rc = stop_fd < 0 ? stop_fd : new_gpud(verb, args, &g, &err);
	if (!rc)
		rc = ckf_gpud_warm(g, args->devices, args->nr_devices, &err);
	/* Only now: a client that finds no socket starts a helper and loses no time. */
	if (!rc)
		rc = ckf_gpud_listen(path, &listener, &err);
	if (!rc) {
		if (!args->quiet)
			cli_message(verb, path, "ready");
		rc = ckf_gpud_run(g, listener.fd, stop_fd, &err);
	}
	ckf_gpud_unlisten(&listener);
	if (stop_fd >= 0)
		close(stop_fd);
	ckf_gpud_free(g);
	return rc ? cli_fail(verb, path, rc, &err) : CKF_EXIT_OK;
}

static int receive_status(int sock, json_t **out, struct ckf_error *err)
{
	char *text;
	int rc = ckf_gpud_status(sock, &text, err);

	if (rc)
		return rc;
	*out = json_loads(text, 0, NULL);
	free(text);
	return *out ? 0 : ckf_error_set(err, -EBADMSG, "gpud answered with something else");
}

static uint64_t number(json_t *obj, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(obj, key));
}

static const char *string(json_t *obj, const char *key, char *buf, size_t bytes)
{
	const char *s = json_string_value(json_object_get(obj, key));

	return cli_escape(s ? s : "?", buf, bytes);
}

static void print_jobs(json_t *jobs, const char *kind)
{
	json_t *j = json_object_get(jobs, kind);
	char a[CLI_BYTES_LEN], b[CLI_BYTES_LEN];

	printf("%ss      %" PRIu64 ", %" PRIu64 " failed, %s", kind, number(j, "count"),
	       number(j, "failed"), cli_bytes(number(j, "bytes"), a));
	if (number(j, "last_ns"))
		printf("; the last one %s in %.3f s, %.1f GB/s",
		       cli_bytes(number(j, "last_bytes"), b), (double)number(j, "last_ns") / 1e9,
		       json_number_value(json_object_get(j, "last_gb_s")));
	printf("\n");
}

static void print_status(json_t *obj)
{
	json_t *slots = json_object_get(obj, "slots"), *d;
	char a[CLI_BYTES_LEN], b[CLI_BYTES_LEN], name[64], uuid[40];
	size_t i;

	json_array_foreach(json_object_get(obj, "devices"), i, d)
	{
		printf("GPU %-5" PRIu64 " %s, %s, %s", number(d, "ordinal"),
		       string(d, "name", name, sizeof(name)), string(d, "uuid", uuid, sizeof(uuid)),
		       cli_bytes(number(d, "total_bytes"), a));
		if (json_is_true(json_object_get(d, "warm")))
			printf(", %s free\n", cli_bytes(number(d, "free_bytes"), b));
		else
			printf(", no context\n");
	}
	printf("slots     %" PRIu64 " of %s, %" PRIu64 " in use\n", number(slots, "total"),
	       cli_bytes(number(slots, "slot_bytes"), a), number(slots, "in_use"));
	print_jobs(json_object_get(obj, "jobs"), "fill");
	print_jobs(json_object_get(obj, "jobs"), "save");
	json_array_foreach(json_object_get(obj, "transfers"), i, d) printf(
		"now       %s for process %" PRIu64 ": %s of %s, %.1f GB/s\n",
		string(d, "kind", name, sizeof(name)), number(d, "peer"),
		cli_bytes(number(d, "done_bytes"), a), cli_bytes(number(d, "total_bytes"), b),
		json_number_value(json_object_get(d, "gb_s")));
}

static int run_status(const struct cli_verb *verb, const struct gpud_args *args, const char *path)
{
	struct ckf_error err = { 0 };
	json_t *obj = NULL;
	int sock, rc;

	sock = ckf_gpud_connect(path, NULL, &err);
	if (sock < 0)
		return cli_fail(verb, path, sock, &err);
	rc = receive_status(sock, &obj, &err);
	close(sock);
	if (rc)
		return cli_fail(verb, path, rc, &err);
	if (args->json)
		return cli_json_print(verb, obj);
	print_status(obj);
	json_decref(obj);
	return CKF_EXIT_OK;
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
		return run_status(verb, &args, path);
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
		"  -q, --quiet          no line for each job\n"
		"  --status             show contexts, slots and transfers of the running one\n"
		"  --json               with --status: as JSON\n",
	.run = run_gpud,
};
