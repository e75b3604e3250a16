/* SPDX-License-Identifier: MIT */
/*
 * ckfast park and unpark: the GPU memory of live processes goes to files, by default in memory, and
 * comes back, so that several programs take turns on one GPU. In between the processes run on, and
 * wait at their next calls of CUDA. Processes that share memory go and come together.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
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
	int *pids;
	unsigned int nr;
	bool json;
	bool help;
	int dir_fd;
	int gpud;
	struct ckf_gpu_process **gpus; /* of each pid, as far as they are open */
	uint32_t *image_pids;
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
	p->nr = (unsigned int)(argc - optind);
	p->pids = calloc(p->nr + 1, sizeof(*p->pids));
	p->gpus = calloc(p->nr + 1, sizeof(*p->gpus));
	p->image_pids = calloc(p->nr + 1, sizeof(*p->image_pids));
	if (!p->pids || !p->gpus || !p->image_pids)
		return cli_usage(p->verb, "no memory for so many processes");
	for (unsigned int i = 0; i < p->nr; i++)
		if (cli_parse_int(argv[optind + (int)i], 1, INT_MAX, &p->pids[i]))
			p->nr = 0;
	if (!p->nr)
		return cli_usage(p->verb, "want the ids of processes: %s", p->verb->args);
	if (dir)
		snprintf(p->dir, sizeof(p->dir), "%s", dir);
	else
		snprintf(p->dir, sizeof(p->dir), DEFAULT_DIR, p->pids[0]);
	return CKF_EXIT_OK;
}

/* Images are named by the inner pids, so these have to differ, too. */
static int check_image_pid(struct park *p, unsigned int i)
{
	for (unsigned int k = 0; k < i; k++) {
		if (p->image_pids[k] == p->image_pids[i])
			return ckf_error_set(
				&p->err, -EINVAL,
				"processes %d and %d have the same id, each in its pid "
				"namespace: they cannot be in one directory",
				p->pids[k], p->pids[i]);
	}
	return 0;
}

static int connect_gpud(struct park *p)
{
	if (p->gpud >= 0)
		close(p->gpud);
	p->gpud = ckf_gpud_connect(p->socket, ckf_gpu_find_helper(p->helper, sizeof(p->helper)),
				   &p->err);
	return p->gpud < 0 ? p->gpud : 0;
}

static int open_processes(struct park *p)
{
	int ret = connect_gpud(p);

	for (unsigned int i = 0; i < p->nr && !ret; i++) {
		ret = ckf_gpu_process_open(p->pids[i], p->gpud, &p->gpus[i], &p->err);
		if (!ret)
			ret = ckf_gpu_image_pid(p->pids[i], &p->image_pids[i], &p->err);
		if (!ret)
			ret = check_image_pid(p, i);
	}
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
	char name[64];

	for (unsigned int i = 0; i < p->nr; i++) {
		for (size_t k = 0; k < sizeof(prefixes) / sizeof(*prefixes); k++) {
			snprintf(name, sizeof(name), "%s%u.img", prefixes[k], p->image_pids[i]);
			unlinkat(p->dir_fd, name, 0);
		}
	}
	rmdir(p->dir);
}

/* First all memory is taken, then all of it is saved, of all processes at once. */
static int take_memory(struct park *p, unsigned int *locked)
{
	int ret = 0;

	for (; *locked < p->nr && !ret; *locked += !ret)
		ret = ckf_gpu_process_lock(p->gpus[*locked], p->gpud,
					   (unsigned int)p->timeout_s * 1000, &p->err);
	if (!ret)
		ret = ckf_gpu_processes_share(p->gpus, p->nr, &p->err);
	for (unsigned int i = 0; i < p->nr && !ret; i++)
		ret = ckf_gpu_process_save(p->gpus[i], p->gpud, p->dir_fd, &p->err);
	for (unsigned int i = 0; i < p->nr && !ret; i++)
		ret = ckf_gpu_process_begin_suspend(p->gpus[i], p->gpud, p->dir_fd, &p->err);
	for (unsigned int i = 0; i < p->nr && !ret; i++) {
		ret = ckf_gpu_process_suspend(p->gpus[i], p->gpud, p->dir_fd, &p->err);
		p->bytes += ckf_gpu_process_bytes(p->gpus[i]);
	}
	return ret;
}

/* If it is gpud that has failed, another one asks the driver how far it had come. */
static bool gets_back(struct park *p, struct ckf_gpu_process *gpu)
{
	int ret = ckf_gpu_process_resume(gpu, p->gpud, NULL);

	if (ret && !connect_gpud(p)) {
		ret = ckf_gpu_process_adopt(gpu, p->gpud, NULL);
		/* Neither locked nor without memory: all was done. */
		if (ret == -EINVAL)
			return true;
		if (!ret)
			ret = ckf_gpu_process_resume(gpu, p->gpud, NULL);
	}
	return !ret;
}

/* What was taken. The images stay if they are all that is left of the memory of a process. */
static void undo(struct park *p, unsigned int locked)
{
	unsigned int left = 0;

	/* Of the one that could not be locked there is memory here if gpud ended meanwhile. */
	for (unsigned int i = 0; i < p->nr && i <= locked; i++)
		if (i < locked || ckf_gpu_process_bytes(p->gpus[i]))
			left += !gets_back(p, p->gpus[i]);
	if (!left)
		remove_dir(p);
	else
		fprintf(stderr,
			"ckfast park: %u of the processes have not got their memory back: "
			"ckfast unpark --dir %s, with all processes, tries again\n",
			left, p->dir);
}

static int park(struct park *p)
{
	unsigned int locked = 0;
	int ret;

	ret = open_processes(p);
	if (!ret)
		ret = ckf_gpu_check_shared(p->pids, p->nr, &p->err);
	if (!ret)
		ret = make_dir(p);
	if (!ret)
		ret = take_memory(p, &locked);
	if (ret && p->dir_fd >= 0)
		undo(p, locked);
	return ret;
}

static int give_memory(struct park *p, struct ckf_gpu_fill *fill)
{
	int ret = ckf_gpu_fill_check_shared(fill, p->image_pids, p->nr, &p->err);

	for (unsigned int i = 0; i < p->nr && !ret; i++)
		ret = ckf_gpu_fill_memory(fill, p->image_pids[i], p->gpus[i], &p->err);
	for (unsigned int i = 0; i < p->nr && !ret; i++)
		ret = ckf_gpu_fill_wait(fill, p->image_pids[i], NULL, &p->err);
	return ret;
}

/* Of all processes at once. What has failed is tried once more: processes that share memory with
 * one that runs cannot get it later. */
static int resume_all(struct park *p)
{
	int ret = 0, one;

	for (unsigned int i = 0; i < p->nr; i++)
		ckf_gpu_process_begin_resume(p->gpus[i]);
	for (unsigned int i = 0; i < p->nr; i++) {
		p->bytes += ckf_gpu_process_bytes(p->gpus[i]);
		one = ckf_gpu_process_resume(p->gpus[i], p->gpud, NULL);
		if (one)
			one = ckf_gpu_process_resume(p->gpus[i], p->gpud, &p->err);
		ret = ret ? ret : one;
	}
	return ret;
}

/* Wakes the driver while memory is filled. If that fails, all stay parked. */
static int wake(struct park *p, struct ckf_gpu_fill *fill)
{
	int ret = 0;

	for (unsigned int i = 0; i < p->nr; i++)
		ckf_gpu_process_begin_wake(p->gpus[i], p->gpud);
	for (unsigned int i = 0; i < p->nr && !ret; i++)
		ret = ckf_gpu_process_wake(p->gpus[i], p->gpud, &p->err);
	if (!ret && fill)
		ret = give_memory(p, fill);
	if (!ret)
		return resume_all(p);
	for (unsigned int i = 0; i < p->nr; i++)
		ckf_gpu_process_sleep(p->gpus[i], p->gpud, NULL);
	return ret;
}

static bool needs_memory(const struct park *p)
{
	for (unsigned int i = 0; i < p->nr; i++)
		if (ckf_gpu_process_needs_memory(p->gpus[i]))
			return true;
	return false;
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
		ret = open_processes(p);
	for (unsigned int i = 0; i < p->nr && !ret; i++)
		ret = ckf_gpu_process_adopt(p->gpus[i], p->gpud, &p->err);
	if (!dir_ret || (!ret && !needs_memory(p)))
		return ret;
	p->err = dir_err;
	return dir_ret;
}

static int unpark(struct park *p)
{
	struct ckf_gpu_fill *fill = NULL;
	int ret;

	ret = adopt(p);
	if (!ret && p->dir_fd >= 0 && needs_memory(p) && ckf_gpu_images_probe(p->dir_fd))
		ret = ckf_gpu_fill_start(p->gpud, p->dir_fd, &fill, &p->err);
	for (unsigned int i = 0; i < p->nr && fill && !ret; i++)
		ret = ckf_gpu_fill_accepted(fill, p->gpus[i], &p->err);
	if (!ret)
		ret = wake(p, fill);
	ckf_gpu_fill_close(fill);
	if (!ret && p->dir_fd >= 0)
		remove_dir(p);
	return ret;
}

static int report(const struct park *p)
{
	double ms = (double)(cli_now_ns() - p->start_ns) / 1e6;
	char buf[CLI_BYTES_LEN];
	json_t *pids;

	if (p->json) {
		pids = json_array();
		for (unsigned int i = 0; i < p->nr; i++)
			json_array_append_new(pids, json_integer(p->pids[i]));
		return cli_json_print(p->verb, json_pack("{s:i, s:i, s:o, s:s, s:I, s:f}",
							 "version", CLI_JSON_VERSION, "pid",
							 p->pids[0], "pids", pids, "dir", p->dir,
							 "bytes", (json_int_t)p->bytes, "ms", ms));
	}
	printf("process%s", p->nr > 1 ? "es" : "");
	for (unsigned int i = 0; i < p->nr; i++)
		printf(" %d", p->pids[i]);
	printf(": %s of GPU memory in %.0f ms, %s\n", cli_bytes(p->bytes, buf), ms, p->dir);
	return CKF_EXIT_OK;
}

static void close_all(struct park *p)
{
	for (unsigned int i = 0; i < p->nr; i++)
		ckf_gpu_process_close(p->gpus[i]);
	if (p->gpud >= 0)
		close(p->gpud);
	if (p->dir_fd >= 0)
		close(p->dir_fd);
	free(p->pids);
	free(p->gpus);
	free(p->image_pids);
}

static int run(const struct cli_verb *verb, int argc, char **argv, int (*what)(struct park *p))
{
	struct park p = { .verb = verb, .dir_fd = -1, .gpud = -1, .start_ns = cli_now_ns() };
	int ret, rc;

	rc = parse_args(&p, argc, argv);
	if (!rc && p.help) {
		rc = cli_help(verb);
	} else if (!rc) {
		ret = what(&p);
		rc = ret ? cli_fail(verb, argv[optind], ret, &p.err) : report(&p);
	}
	close_all(&p);
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
	"  --dir DIR            default: /dev/shm/ckfast-park-PID, of the first\n"               \
	"  --socket PATH        of gpud; default: $CKFAST_GPUD_SOCKET, or " CKF_GPUD_SOCKET "\n" \
	"  --json               print what was done as JSON\n"

const struct cli_verb cli_verb_park = {
	.name = "park",
	.args = "PID…",
	.summary = "Frees the GPU memory of processes, which wait at their next calls of CUDA.",
	.help = PARK_HELP "  --timeout SECONDS    for calls of CUDA to end; default: 10\n",
	.run = run_park,
};

const struct cli_verb cli_verb_unpark = {
	.name = "unpark",
	.args = "PID…",
	.summary = "Gives parked processes their GPU memory back.",
	.help = PARK_HELP,
	.run = run_unpark,
};
