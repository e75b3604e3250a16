/* SPDX-License-Identifier: MIT */
/*
 * ckfast park and unpark: the GPU memory of a live process goes to files, by default in memory, and
 * comes back, so that several programs take turns on one GPU. In between the process runs on, and
 * waits at its next call of CUDA.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ckf_cli.h"

#define DEFAULT_TIMEOUT_S 10
#define MAX_TIMEOUT_S 86400
#define DEFAULT_DIR "/dev/shm/ckfast-park-%d"

struct park {
	const struct cli_verb *verb;
	const char *socket;
	char helper[PATH_MAX];
	char dir[PATH_MAX];
	int timeout_s;
	int pid;
	bool json;
	bool help;
	int dir_fd;
	int gpud;
	struct ckf_gpu_process *gpu;
	uint64_t bytes; /* that were moved */
	struct ckf_error err;
	uint64_t start_ns;
};

static int take_timeout(const struct cli_verb *verb, const struct cli_opt *o)
{
	if (cli_parse_int(optarg, 1, MAX_TIMEOUT_S, o->arg))
		return cli_usage(verb, "--timeout %s: want 1 to %d seconds", optarg, MAX_TIMEOUT_S);
	return CKF_EXIT_OK;
}

static int parse_args(struct park *p, int argc, char **argv)
{
	const char *dir = NULL;
	const struct cli_opt opts[] = {
		{ "socket", .string = &p->socket },
		{ "dir", .string = &dir },
		{ "timeout", .take = take_timeout, .arg = &p->timeout_s },
		{ "json", .flag = &p->json },
		{ 0 },
	};
	int rc;

	p->timeout_s = DEFAULT_TIMEOUT_S;
	rc = cli_take_options(p->verb, argc, argv, opts, &p->help);
	if (rc || p->help)
		return rc;
	if (argc - optind != 1 || cli_parse_int(argv[optind], 1, INT_MAX, &p->pid))
		return cli_usage(p->verb, "want the id of a process: %s", p->verb->args);
	if (dir)
		snprintf(p->dir, sizeof(p->dir), "%s", dir);
	else
		snprintf(p->dir, sizeof(p->dir), DEFAULT_DIR, p->pid);
	return CKF_EXIT_OK;
}

static int open_process(struct park *p)
{
	int ret;

	p->gpud = ret = ckf_gpud_connect(
		p->socket, ckf_gpu_find_helper(p->helper, sizeof(p->helper)), &p->err);
	if (ret >= 0)
		ret = ckf_gpu_process_open(p->pid, p->gpud, &p->gpu, &p->err);
	return ret;
}

/* The directory is in a place that all may write to: it has to be one of ours. */
static int open_dir(struct park *p)
{
	struct stat st;

	p->dir_fd = open(p->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (p->dir_fd < 0)
		return ckf_error_set(&p->err, -errno, "cannot open %s: %s", p->dir,
				     strerror(errno));
	if (fstat(p->dir_fd, &st) || st.st_uid != geteuid() || (st.st_mode & 022))
		return ckf_error_set(&p->err, -EPERM,
				     "%s belongs to another user, or others may write to it",
				     p->dir);
	return 0;
}

static int make_dir(struct park *p)
{
	if (mkdir(p->dir, 0700))
		return ckf_error_set(&p->err, -errno, "cannot make %s: %s", p->dir,
				     strerror(errno));
	return open_dir(p);
}

/* Whatever was written goes with the directory. */
static void remove_dir(struct park *p)
{
	static const char *const prefixes[] = { CKF_GPU_PREFIX, CKF_GPU_PAGES_PREFIX };
	uint32_t image_pid;
	char name[64];

	if (ckf_gpu_image_pid(p->pid, &image_pid, NULL))
		image_pid = (uint32_t)p->pid;
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++) {
		snprintf(name, sizeof(name), "%s%u.img", prefixes[i], image_pid);
		unlinkat(p->dir_fd, name, 0);
	}
	rmdir(p->dir);
}

static int park(struct park *p)
{
	int ret;

	ret = open_process(p);
	if (!ret)
		ret = make_dir(p);
	if (!ret)
		ret = ckf_gpu_process_lock(p->gpu, p->gpud, (unsigned int)p->timeout_s * 1000,
					   &p->err);
	if (!ret) {
		ret = ckf_gpu_process_suspend(p->gpu, p->gpud, p->dir_fd, &p->err);
		p->bytes = ckf_gpu_process_bytes(p->gpu);
		if (ret)
			ckf_gpu_process_resume(p->gpu, p->gpud, NULL);
	}
	if (ret && p->dir_fd >= 0)
		remove_dir(p);
	return ret;
}

/* Wakes the driver while memory is filled. A process that cannot have its memory stays parked. */
static int wake(struct park *p, struct ckf_gpu_fill *fill, uint32_t image_pid)
{
	int ret = ckf_gpu_process_wake(p->gpu, p->gpud, &p->err);

	if (ret)
		return ret;
	if (fill)
		ret = ckf_gpu_fill_memory(fill, image_pid, p->gpu, &p->err);
	if (!ret && fill)
		ret = ckf_gpu_fill_wait(fill, image_pid, NULL, &p->err);
	if (!ret) {
		p->bytes = ckf_gpu_process_bytes(p->gpu);
		return ckf_gpu_process_resume(p->gpu, p->gpud, &p->err);
	}
	ckf_gpu_process_sleep(p->gpu, p->gpud, NULL);
	return ret;
}

/* A process whose CUDA is locked, but whose memory is in place, needs no directory. */
static int adopt(struct park *p)
{
	struct ckf_error dir_err = { 0 };
	int ret = open_dir(p), dir_ret = 0;

	if (ret == -ENOENT) {
		dir_ret = ret;
		dir_err = p->err;
		ret = 0;
	}
	if (!ret)
		ret = open_process(p);
	if (!ret)
		ret = ckf_gpu_process_adopt(p->gpu, p->gpud, &p->err);
	if (!dir_ret || (!ret && !ckf_gpu_process_needs_memory(p->gpu)))
		return ret;
	p->err = dir_err;
	return dir_ret;
}

static int unpark(struct park *p)
{
	struct ckf_gpu_fill *fill = NULL;
	uint32_t image_pid;
	int ret;

	ret = adopt(p);
	if (!ret)
		ret = ckf_gpu_image_pid(p->pid, &image_pid, &p->err);
	if (!ret && p->dir_fd >= 0 && ckf_gpu_process_needs_memory(p->gpu) &&
	    ckf_gpu_images_probe(p->dir_fd))
		ret = ckf_gpu_fill_start(p->gpud, p->dir_fd, &fill, &p->err);
	if (!ret && fill)
		ret = ckf_gpu_fill_accepted(fill, p->gpu, &p->err);
	if (!ret)
		ret = wake(p, fill, image_pid);
	ckf_gpu_fill_close(fill);
	if (!ret && p->dir_fd >= 0)
		remove_dir(p);
	return ret;
}

static int report(const struct park *p)
{
	double ms = (double)(cli_now_ns() - p->start_ns) / 1e6;
	char buf[CLI_BYTES_LEN];

	if (p->json)
		return cli_json_print(p->verb,
				      json_pack("{s:i, s:i, s:s, s:I, s:f}", "version",
						CLI_JSON_VERSION, "pid", p->pid, "dir", p->dir,
						"bytes", (json_int_t)p->bytes, "ms", ms));
	printf("process %d: %s of GPU memory in %.0f ms, %s\n", p->pid, cli_bytes(p->bytes, buf),
	       ms, p->dir);
	return CKF_EXIT_OK;
}

static int run(const struct cli_verb *verb, int argc, char **argv, int (*what)(struct park *p))
{
	struct park p = { .verb = verb, .dir_fd = -1, .gpud = -1, .start_ns = cli_now_ns() };
	int ret, rc;

	rc = parse_args(&p, argc, argv);
	if (rc)
		return rc;
	if (p.help)
		return cli_help(verb);
	ret = what(&p);
	rc = ret ? cli_fail(verb, argv[optind], ret, &p.err) : report(&p);
	ckf_gpu_process_close(p.gpu);
	if (p.gpud >= 0)
		close(p.gpud);
	if (p.dir_fd >= 0)
		close(p.dir_fd);
	return rc;
}

static int run_park(const struct cli_verb *verb, int argc, char **argv)
{
	return run(verb, argc, argv, park);
}

static int run_unpark(const struct cli_verb *verb, int argc, char **argv)
{
	return run(verb, argc, argv, unpark);
}

#define PARK_HELP                                                                                \
	"  --dir DIR            default: /dev/shm/ckfast-park-PID\n"                             \
	"  --socket PATH        of gpud; default: $CKFAST_GPUD_SOCKET, or " CKF_GPUD_SOCKET "\n" \
	"  --json               print what was done as JSON\n"

const struct cli_verb cli_verb_park = {
	.name = "park",
	.args = "PID",
	.summary = "Frees the GPU memory of a process, which waits at its next call of CUDA.",
	.help = PARK_HELP "  --timeout SECONDS    for calls of CUDA to end; default: 10\n",
	.run = run_park,
};

const struct cli_verb cli_verb_unpark = {
	.name = "unpark",
	.args = "PID",
	.summary = "Gives a parked process its GPU memory back.",
	.help = PARK_HELP,
	.run = run_unpark,
};
