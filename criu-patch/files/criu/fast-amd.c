// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory of AMD GPUs for CRIU's amdgpu plugin.
 *
 * A restore: a process that is started before the tasks has the GPUs open by libhsakmt. Tasks send it dma-bufs of
 * their objects and go on as soon as it has imported them; it fills them beside the tasks' own restore, a thread for
 * each target of the image at once. The criu process waits for it before any task runs. Where `ckfast gpud` serves
 * the GPUs, that process hands the dma-bufs on to it, and opens nothing.
 *
 * Where that process, or the GPUs' engines, cannot be had, the plugin copies by itself what looks to it like the file
 * of the dump.
 *
 * A dump: the criu process copies from the objects that KFD shows it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ckfast.h>
#include <ckfast_sink.h>

#include "types.h"
#include "cr_options.h"
#include "fast-amd.h"
#include "fast-image.h"
#include "fast-workers.h"
#include "fdstore.h"
#include "log.h"
#include "page.h"
#include "pstree.h"
#include "servicefd.h"
#include "util.h"
#include "xmalloc.h"

#undef LOG_PREFIX
#define LOG_PREFIX "fast-image: amd: "

/*
 * The memory of an AMD GPU, as the file that CRIU's amdgpu plugin has dumped and wants back: its length, and
 * then the contents of objects, which have places with gaps in the image. Or those of one object of a render
 * node: some versions of CRIU have written another number than the length there, but none of these reads it.
 */
struct gpu_range {
	uint64_t place;
	uint64_t off; /* in the contents */
	uint64_t bytes;
};

#define GPU_BUF_BYTES (1u << 20)

struct gpu_file {
	const struct ckf_target *t;
	char *buf; /* of stdio, in whole pages: larger reads go straight to where they are wanted */
	uint64_t pos; /* in the file */
	uint64_t bytes; /* of the contents */
	uint64_t nr_ranges;
	struct gpu_range ranges[];
};

/* Ranges of ops that touch; counts only where f is NULL. */
static uint64_t gpu_ranges(const struct ckf_target *t, struct gpu_file *f)
{
	const struct ckf_op_info *op;
	uint64_t nr = 0, end = 0;
	struct ckf_ops it;

	ckf_ops_begin(&it, fast_image_get(), t, 0);
	for (op = ckf_ops_get(&it); op; op = ckf_ops_next(&it)) {
		if (!nr || op->start != end) {
			if (f)
				f->ranges[nr] = (struct gpu_range){ op->start, f->bytes, 0 };
			nr++;
		}
		end = op->end;
		if (f) {
			f->ranges[nr - 1].bytes += op->end - op->start;
			f->bytes += op->end - op->start;
		}
	}
	return nr;
}

static struct gpu_file *gpu_file_of(const struct ckf_target *t)
{
	uint64_t nr = gpu_ranges(t, NULL);
	struct gpu_file *f = xzalloc(sizeof(*f) + nr * sizeof(f->ranges[0]));

	if (!f)
		return NULL;
	f->t = t;
	f->nr_ranges = gpu_ranges(t, f);
	return f;
}

static atomic_bool copy_failed; /* in the criu process */

/*
 * Ends the restore: the plugin does not keep the errors of its copies. A task that ends takes the restore with it.
 * The criu process, where criu-dev copies for a task without children, has to clean up: fast_amd_join() fails there.
 */
static int fail_copy(void)
{
	if (current)
		exit(1);
	atomic_store(&copy_failed, true);
	return -1;
}

/* Fills part of one range. Without workers: the plugin has a thread for each GPU. */
static int fill_gpu(const struct gpu_file *f, uint64_t place, char *buf, uint64_t bytes)
{
	const struct ckf_dest dests[] = {
		{ .start = 0, .end = place, .flags = CKF_DEST_SKIP },
		{ .start = place, .end = place + bytes, .addr = buf, .prot = PROT_READ | PROT_WRITE },
		{ .start = place + bytes, .end = 1ull << 63, .flags = CKF_DEST_SKIP },
	};
	struct ckf_fill_opts o;
	struct ckf_fill_stats stats = { .size = sizeof(stats) };
	unsigned long long start = fast_image_now();
	struct ckf_error err = {};

	fast_image_fill_opts(&o, NULL);
	o.flags |= CKF_FILL_NO_HUGE;
	if (ckf_fill(fast_image_get(), f->t, place ? dests : dests + 1, place ? 3 : 2, &o, &stats, &err)) {
		pr_err("%s\n", err.msg);
		return fail_copy();
	}
	fast_image_account(&stats, start);
	return 0;
}

static ssize_t read_gpu_contents(struct gpu_file *f, char *buf, size_t size)
{
	uint64_t off = f->pos - sizeof(f->bytes);

	for (uint64_t i = 0; i < f->nr_ranges; i++) {
		const struct gpu_range *r = &f->ranges[i];

		if (off >= r->off + r->bytes)
			continue;
		if (size > r->off + r->bytes - off)
			size = r->off + r->bytes - off;
		if (((uintptr_t)buf | off | size) % PAGE_SIZE) {
			pr_err("Memory of a GPU is read in pages only: KFD_MAX_BUFFER_SIZE is none of them\n");
			return fail_copy();
		}
		return fill_gpu(f, r->place + (off - r->off), buf, size) ? -1 : size;
	}
	/* The plugin reads as much as its table says. */
	pr_err("A table of buffer objects wants more than the image has: ckfast verify tells what is wrong\n");
	return fail_copy();
}

static ssize_t read_gpu_file(void *cookie, char *buf, size_t size)
{
	struct gpu_file *f = cookie;
	ssize_t n;

	if (f->pos < sizeof(f->bytes)) {
		n = size < sizeof(f->bytes) - f->pos ? size : sizeof(f->bytes) - f->pos;
		memcpy(buf, (char *)&f->bytes + f->pos, n);
	} else {
		n = read_gpu_contents(f, buf, size);
	}
	if (n > 0)
		f->pos += n;
	return n;
}

static int close_gpu_file(void *cookie)
{
	struct gpu_file *f = cookie;

	xfree(f->buf);
	xfree(f);
	return 0;
}

FILE *fast_amd_open_file(const char *name)
{
	const cookie_io_functions_t io = { .read = read_gpu_file, .close = close_gpu_file };
	const struct ckf_target *t = NULL;
	unsigned int id, nr;
	struct gpu_file *f;
	FILE *fp;

	/* The number of a GPU, or that of an object of a render node. */
	if (fast_image_on() && (sscanf(name, "amdgpu-pages-%u-%x.img", &id, &nr) == 2 ||
				sscanf(name, "amdgpu-drm-pages-%u-%*u-%x.img", &id, &nr) == 2))
		t = ckf_image_find_target(fast_image_get(), CKF_TARGET_DEVICE, (uint64_t)id << 32 | nr);
	if (!t)
		return NULL;
	f = gpu_file_of(t);
	if (!f || posix_memalign((void **)&f->buf, PAGE_SIZE, GPU_BUF_BYTES)) {
		pr_err("No memory to read %s\n", name);
		fail_copy();
		return NULL;
	}
	fp = fopencookie(f, "r", io);
	if (!fp || setvbuf(fp, f->buf, _IOFBF, GPU_BUF_BYTES)) {
		pr_perror("Can't open %s", name);
		fail_copy();
	}
	return fp;
}

/* Requests to the process that fills. Each begins with a connection of its own, over which the answer comes. */
enum request { FILL, BO, JOIN };

struct message {
	enum request what;
	uint32_t nr;	 /* FILL: objects that follow */
	uint64_t target; /* FILL */
	uint64_t start;	 /* BO: the place of an object */
	uint64_t bytes;
};

struct answer {
	int ret; /* 0; 1: not here; -1 */
	char text[sizeof(((struct ckf_error *)NULL)->msg)];
};

#define MAX_RUNNERS 32
#define MIN_SLOTS 8
#define MAX_SLOTS 64
#define FEWEST_SLOTS 2 /* where memory is scarce: one is filled while the other is copied */
#define SLOT_BYTES (4u << 20)

static pid_t filler;	     /* in the criu process */
static int requests_id = -1; /* of its socket, in the store of descriptors */
static bool by_gpud;	     /* it lets gpud fill */
static unsigned int nr_slots; /* of that process, where it fills by itself */
static int joined = -1;	     /* what the answer was; -1: not asked */

/* In the process that fills. */
static struct {
	int sock;
	unsigned int nr_runners;
	sigset_t signals;
	pthread_mutex_t lock; /* for all below, and for the log */
	pthread_cond_t cond;
	bool opened;
	struct ckf_amd *amd; /* NULL: there is none */
	unsigned int nr_up;  /* runners whose ids are good */
	unsigned int nr_bad;
	unsigned int nr_active;
	struct answer result;
} fill = { .sock = -1, .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

static int send_message(int sock, void *msg, size_t bytes, int fd)
{
	char buf[CMSG_SPACE(sizeof(int))] = {};
	struct iovec iov = { msg, bytes };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;
	ssize_t n;

	if (fd >= 0) {
		h.msg_control = buf;
		h.msg_controllen = sizeof(buf);
		c = CMSG_FIRSTHDR(&h);
		*c = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(fd)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	do
		n = sendmsg(sock, &h, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n == bytes ? 0 : -1;
}

/* 1 at the end. *fd is -1 where there is none. */
static int recv_message(int sock, void *msg, size_t bytes, int *fd)
{
	char buf[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { msg, bytes };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = buf, .msg_controllen = sizeof(buf) };
	struct cmsghdr *c;
	ssize_t n;

	do
		n = recvmsg(sock, &h, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	*fd = -1;
	c = n >= 0 ? CMSG_FIRSTHDR(&h) : NULL;
	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(c), sizeof(*fd));
	return n == bytes ? 0 : n ? -1 : 1;
}

static void answer(int sock, int ret, const char *text)
{
	struct answer a = { .ret = ret };

	snprintf(a.text, sizeof(a.text), "%s", text);
	send_message(sock, &a, sizeof(a), -1);
}

static void open_amd(void)
{
	struct ckf_amd_opts o = {
		.size = sizeof(o),
		.flags = getenv("CKF_NO_SDMA") ? CKF_AMD_STORES : 0,
		.slot_bytes = SLOT_BYTES,
		.nr_slots = nr_slots,
		.timeout_ms = opts.fast_timeout * 1000,
	};
	struct ckf_error err = {};
	struct ckf_amd *amd;
	int ret;

	ret = ckf_amd_open(&o, &amd, &err);
	pthread_mutex_lock(&fill.lock);
	if (ret || err.code)
		pr_warn("%s\n", err.msg);
	if (!ret)
		pr_info("Memory of AMD GPUs is filled by %s\n", err.code || o.flags ? "stores" : "their engines");
	fill.amd = ret ? NULL : amd;
	fill.opened = true;
	pthread_cond_broadcast(&fill.cond);
	pthread_mutex_unlock(&fill.lock);
}

/* The objects of a request, as they come; their descriptors are open until they have been imported. */
static int take_objects(int sock, struct ckf_amd_object *objects, unsigned int nr)
{
	struct message m;
	unsigned int n = 0;
	int ret = 0;

	while (n < nr && !ret) {
		ret = recv_message(sock, &m, sizeof(m), &objects[n].dmabuf);
		objects[n].start = m.start;
		objects[n].bytes = m.bytes;
		if (!ret && objects[n].dmabuf < 0)
			ret = -1;
		n++;
	}
	for (; n < nr; n++)
		objects[n].dmabuf = -1;
	return ret;
}

/* Objects that have been imported. */
struct job {
	uint64_t target;
	struct ckf_amd_objects *objects; /* NULL: by gpud */
	int gpud;			 /* what waits for it, or -1 */
};

static int import(struct job *j, const struct ckf_amd_object *objects, unsigned int nr, struct ckf_error *err)
{
	pthread_mutex_lock(&fill.lock);
	while (!fill.opened)
		pthread_cond_wait(&fill.cond, &fill.lock);
	pthread_mutex_unlock(&fill.lock);
	if (!fill.amd)
		return ckf_error_set(err, -ENODEV, "AMD GPUs cannot be used here");
	return ckf_amd_import(fill.amd, objects, nr, &j->objects, err);
}

static int begin_job(int sock, const struct message *m, struct job *j, struct ckf_error *err)
{
	struct ckf_amd_object *objects = calloc(m->nr, sizeof(*objects));
	int ret;

	if (!objects)
		return ckf_error_set(err, -ENOMEM, "no memory");
	if (take_objects(sock, objects, m->nr)) {
		ret = ckf_error_set(err, -EIO, "a task has not sent all of its objects");
	} else if (by_gpud) {
		j->gpud = ckf_amd_gpud_fill(get_service_fd(IMG_FD_OFF), j->target, objects, m->nr, err);
		ret = j->gpud < 0 ? j->gpud : 0;
	} else {
		ret = import(j, objects, m->nr, err);
	}
	for (unsigned int i = 0; i < m->nr; i++)
		close_safe(&objects[i].dmabuf);
	free(objects);
	return ret;
}

static int wait_gpud(struct job *j, struct ckf_error *err)
{
	struct ckf_gpu_fill_stats got = { .size = sizeof(got) };
	struct ckf_fill_stats stats = { .size = sizeof(stats) };
	unsigned long long start = fast_image_now();
	struct ckf_error gpud_err = {};
	int ret;

	ret = ckf_amd_gpud_wait(j->gpud, &got, &gpud_err);
	if (ret)
		return ckf_error_set(err, ret, "gpud: %s", gpud_err.msg);
	stats.filled_bytes = got.bytes;
	stats.ns = got.ns;
	fast_image_account(&stats, start);
	pthread_mutex_lock(&fill.lock);
	pr_info("GPU %" PRIx64 ": %" PRIu64 " filled by gpud, %" PRIu64 " us\n", j->target, got.bytes, got.ns / 1000);
	pthread_mutex_unlock(&fill.lock);
	return 0;
}

static int fill_objects(const struct job *j, struct ckf_error *err)
{
	const uint64_t id = j->target;
	const struct ckf_image *img = fast_image_get();
	const struct ckf_target *t = ckf_image_find_target(img, CKF_TARGET_DEVICE, id);
	struct ckf_target_info info = { .size = sizeof(info) };
	struct ckf_fill_stats stats = { .size = sizeof(stats) };
	unsigned long long start = fast_image_now();
	struct fast_workers workers;
	struct ckf_fill_opts o;
	int ret;

	if (!t)
		return ckf_error_set(err, -EBADMSG, "the image has no such GPU");
	ckf_target_get_info(img, t, &info);
	fast_image_fill_opts(&o, &workers);
	o.threads = fast_workers_wanted(info.nr_pages * PAGE_SIZE);
	ret = ckf_amd_fill(j->objects, img, t, &o, &stats, err);
	fast_workers_end(&workers);
	if (ret)
		return ret;
	fast_image_account(&stats, start);
	pthread_mutex_lock(&fill.lock);
	pr_info("GPU %" PRIx64 ": %" PRIu64 " bytes read, %" PRIu64 " filled, %" PRIu64 " zero, %u workers, %" PRIu64
		" us\n", id, stats.read_bytes, stats.filled_bytes, stats.zero_bytes, stats.workers, stats.ns / 1000);
	pthread_mutex_unlock(&fill.lock);
	return 0;
}

/* A gpud says so for good: nobody else may then do it in its place. */
static bool is_final(int ret)
{
	return by_gpud && (ret == -EDQUOT || ret == -EPERM || ret == -EBADMSG);
}

/* The first failure is the result of all. */
static void serve_fill(int sock, const struct message *m)
{
	struct job j = { .target = m->target, .gpud = -1 };
	struct ckf_error err = {};
	int ret;

	pthread_mutex_lock(&fill.lock);
	fill.nr_active++;
	pthread_mutex_unlock(&fill.lock);
	ret = begin_job(sock, m, &j, &err);
	answer(sock, !ret ? 0 : is_final(ret) ? -1 : 1, err.msg);
	if (ret)
		ret = 0;
	else
		ret = by_gpud ? wait_gpud(&j, &err) : fill_objects(&j, &err);
	ckf_amd_release(j.objects);
	pthread_mutex_lock(&fill.lock);
	if (ret && !fill.result.ret) {
		fill.result.ret = -1;
		snprintf(fill.result.text, sizeof(fill.result.text), "%s", err.msg);
	}
	fill.nr_active--;
	pthread_cond_broadcast(&fill.cond);
	pthread_mutex_unlock(&fill.lock);
}

static void serve_join(int sock)
{
	pthread_mutex_lock(&fill.lock);
	while (fill.nr_active)
		pthread_cond_wait(&fill.cond, &fill.lock);
	answer(sock, fill.result.ret, fill.result.text);
	pthread_mutex_unlock(&fill.lock);
}

/* Runners take requests in turn, until nobody is left who could make one. */
static void *run(void *arg)
{
	struct fast_workers *w = arg;
	struct message m;
	int sock, ret;

	pthread_mutex_lock(&fill.lock);
	if (fast_workers_id_ok(w, syscall(SYS_gettid)))
		fill.nr_bad++;
	fill.nr_up++;
	pthread_cond_broadcast(&fill.cond);
	pthread_mutex_unlock(&fill.lock);
	for (;;) {
		ret = recv_message(fill.sock, &m, sizeof(m), &sock);
		if (ret)
			_exit(ret > 0 ? 0 : 1);
		if (sock >= 0 && m.what == FILL)
			serve_fill(sock, &m);
		else if (sock >= 0)
			serve_join(sock);
		close_safe(&sock);
	}
}

/* All threads that are there before the tasks: their ids are none of the image. */
static int start_runners(struct fast_workers *w)
{
	pthread_t thread;
	unsigned int n;

	for (n = 0; n < fill.nr_runners && !pthread_create(&thread, NULL, run, w); n++)
		pthread_detach(thread);
	pthread_mutex_lock(&fill.lock);
	while (fill.nr_up < n)
		pthread_cond_wait(&fill.cond, &fill.lock);
	pthread_mutex_unlock(&fill.lock);
	return n == fill.nr_runners && !fill.nr_bad ? 0 : -1;
}

static pid_t start_filler(struct fast_workers *w, const int sk[2], int up)
{
	pid_t pid = fast_workers_fork();

	if (pid)
		return pid;
	fill.sock = sk[0];
	close(sk[1]);
	if (fast_workers_id_ok(w, getpid()) || start_runners(w) || write(up, "", 1) != 1)
		_exit(1);
	close(up);
	if (!by_gpud)
		open_amd();
	for (;;)
		pause();
}

static void stop_filler(void)
{
	kill(filler, SIGKILL);
	waitpid(filler, NULL, __WCLONE);
	filler = 0;
	fast_workers_keep(0);
}

static unsigned int count_targets(void)
{
	struct ckf_image_info info = { .size = sizeof(info) };
	const struct ckf_image *img = fast_image_get();
	unsigned int nr = 0;
	char name[64];

	ckf_image_get_info(img, &info);
	for (uint64_t i = 0; i < info.nr_targets; i++) {
		struct ckf_target_info t = { .size = sizeof(t) };

		ckf_target_get_info(img, ckf_image_target(img, i), &t);
		snprintf(name, sizeof(name), "amdgpu-kfd-%u.img", (unsigned int)(t.id >> 32));
		if (t.kind == CKF_TARGET_DEVICE && !faccessat(get_service_fd(IMG_FD_OFF), name, F_OK, 0))
			nr++;
	}
	return nr;
}

/* Starts the process with ids that the image does not need; false where that is not to be had. */
static bool start(const int sk[2])
{
	/* The process itself only waits, and is one of the few that CRIU may have. */
	const struct ckf_budget all = { .workers = fast_image_budget()->workers + 1 };
	struct fast_workers w = { .budget = &all };
	unsigned int nr;
	int up[2];
	char c;

	if (pipe2(up, O_CLOEXEC))
		return false;
	nr = fast_workers_before(&w, 1 + fill.nr_runners);
	if (nr > 1) {
		fill.nr_runners = nr - 1;
		fast_workers_keep(fill.nr_runners);
		filler = start_filler(&w, sk, up[1]);
		close_safe(&up[1]);
		if (filler > 0 && read(up[0], &c, 1) != 1)
			stop_filler();
		if (filler <= 0)
			fast_workers_keep(0);
	}
	fast_workers_after(&w);
	fast_workers_end(&w);
	close_safe(&up[0]);
	close_safe(&up[1]);
	return filler > 0;
}

/* Takes slots out of the memory that the limits leave beyond that of the tasks; 0 where it is too little. */
static unsigned int take_slots(void)
{
	unsigned int nr = min_t(unsigned int, 2 * fast_image_budget()->workers, MAX_SLOTS);

	for (nr = max_t(unsigned int, nr, MIN_SLOTS); nr >= FEWEST_SLOTS; nr /= 2)
		if (fast_image_take_spare((uint64_t)nr * SLOT_BYTES))
			return nr;
	return 0;
}

static bool find_gpud(void)
{
	struct ckf_error err = {};
	int ret;

	if (getenv("CKF_NO_SDMA"))
		return false;
	ret = ckf_amd_gpud_gpus(&err);
	if (ret < 0 && ret != -ENOENT && ret != -ECONNREFUSED && ret != -ENODEV)
		pr_warn("Without gpud: %s\n", err.msg);
	return ret > 0;
}

int fast_amd_start(void)
{
	int sk[2];

	if (!fast_image_on() || getenv("CKF_NO_AMD"))
		return 0;
	fill.nr_runners = min_t(unsigned int, count_targets(), MAX_RUNNERS);
	if (!fill.nr_runners)
		return 0;
	by_gpud = find_gpud();
	if (!by_gpud)
		nr_slots = take_slots();
	if (!by_gpud && !nr_slots) {
		pr_warn("Memory is too scarce for slots: the plugin copies memory of AMD GPUs by itself\n");
		return 0;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sk)) {
		pr_perror("Can't make a socket");
		return -1;
	}
	if (start(sk)) {
		requests_id = fdstore_add(sk[1]);
		if (by_gpud)
			pr_info("Process %d lets gpud fill memory of AMD GPUs, %u at once\n", filler, fill.nr_runners);
		else
			pr_info("Process %d fills memory of AMD GPUs, %u at once, with %u slots\n", filler,
				fill.nr_runners, nr_slots);
	} else {
		pr_warn("No process to fill memory of AMD GPUs: the plugin copies by itself\n");
	}
	close(sk[0]);
	close(sk[1]);
	return filler > 0 && requests_id < 0 ? -1 : 0;
}

/* Begins a request: the connection for what belongs to it, and its answer. */
static int connect_filler(struct message *m)
{
	int sock, sk[2], ret;

	sock = fdstore_get(requests_id);
	if (sock < 0)
		return -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sk)) {
		close(sock);
		return -1;
	}
	ret = send_message(sock, m, sizeof(*m), sk[1]);
	close(sock);
	close(sk[1]);
	if (ret)
		close_safe(&sk[0]);
	return ret ? -1 : sk[0];
}

static int await_answer(int sock, struct answer *a)
{
	int fd, ret = recv_message(sock, a, sizeof(*a), &fd);

	close_safe(&fd);
	a->text[sizeof(a->text) - 1] = 0;
	return ret;
}

/* The objects at their places of the image, one for each range of it. */
static int send_objects(int sock, const struct gpu_file *f, const struct fast_amd_bo *bos)
{
	for (unsigned int i = 0; i < f->nr_ranges; i++) {
		struct message m = { .what = BO, .start = f->ranges[i].place, .bytes = bos[i].bytes };

		if (send_message(sock, &m, sizeof(m), bos[i].dmabuf))
			return -1;
	}
	return 0;
}

static bool same_objects(const struct gpu_file *f, const struct fast_amd_bo *bos, unsigned int nr)
{
	if (f->nr_ranges != nr)
		return false;
	for (unsigned int i = 0; i < nr; i++)
		if (f->ranges[i].bytes != bos[i].bytes)
			return false;
	return true;
}

static int request_fill(const struct gpu_file *f, uint64_t id, const struct fast_amd_bo *bos)
{
	struct message m = { .what = FILL, .nr = f->nr_ranges, .target = id };
	struct answer a;
	int sock, ret;

	sock = connect_filler(&m);
	ret = sock < 0 ? -1 : send_objects(sock, f, bos);
	if (!ret)
		ret = await_answer(sock, &a);
	close_safe(&sock);
	if (!ret && !a.ret)
		return 0;
	if (!ret && a.ret < 0) {
		pr_err("Memory of GPU %" PRIx64 " is not filled: gpud: %s\n", id, a.text);
		return -1;
	}
	pr_warn("The plugin copies the memory of GPU %" PRIx64 " by itself: %s\n", id,
		ret ? "the process that fills is gone" : a.text);
	return 1;
}

int fast_amd_fill(unsigned int id, unsigned int gpu_id, const struct fast_amd_bo *bos, unsigned int nr)
{
	const uint64_t target = (uint64_t)id << 32 | gpu_id;
	const struct ckf_target *t = NULL;
	struct gpu_file *f;
	int ret;

	if (requests_id >= 0)
		t = ckf_image_find_target(fast_image_get(), CKF_TARGET_DEVICE, target);
	if (!t)
		return 1;
	f = gpu_file_of(t);
	if (!f)
		return -1;
	if (same_objects(f, bos, nr)) {
		ret = nr ? request_fill(f, target, bos) : 0;
	} else {
		pr_err("GPU %" PRIx64 " has %u objects, which are not those of the image\n", target, nr);
		ret = -1;
	}
	xfree(f);
	return ret;
}

int fast_amd_join(void)
{
	struct message m = { .what = JOIN };
	struct answer a = { .ret = -1, .text = "the process that fills is gone" };
	int sock;

	if (atomic_load(&copy_failed)) {
		if (filler > 0)
			stop_filler();
		return -1;
	}
	if (filler <= 0)
		return joined > 0 ? -1 : 0;
	sock = connect_filler(&m);
	if (sock >= 0)
		await_answer(sock, &a);
	close_safe(&sock);
	if (a.ret)
		pr_err("Memory of AMD GPUs was not restored: %s\n", a.text);
	joined = a.ret ? 1 : 0;
	stop_filler();
	return joined ? -1 : 0;
}

/* Open while a dump is made. */
static pthread_mutex_t save_lock = PTHREAD_MUTEX_INITIALIZER;
static struct ckf_amd *save_amd;
static bool save_tried;

static struct ckf_amd *open_to_save(void)
{
	const struct ckf_amd_opts o = { .size = sizeof(o) };
	struct ckf_error err = {};

	pthread_mutex_lock(&save_lock);
	if (!save_tried && !getenv("CKF_NO_AMD")) {
		if (ckf_amd_open(&o, &save_amd, &err) || err.code)
			pr_warn("%s\n", err.msg);
		/* Loads through the BAR are far slower than what the plugin does. */
		if (err.code) {
			ckf_amd_close(save_amd);
			save_amd = NULL;
		}
	}
	save_tried = true;
	pthread_mutex_unlock(&save_lock);
	return save_amd;
}

/* Where what f has ends, in its file; -1: nowhere, or it has not got there. *ret is then what to answer. */
static off_t written_end(FILE *f, int *ret)
{
	off_t off;

	if (fflush(f)) {
		pr_perror("Can't write what comes before memory of AMD GPUs");
		*ret = -1;
		return -1;
	}
	off = lseek(fileno(f), 0, SEEK_CUR);
	if (off < 0) {
		/* A stream has no places to write to. */
		pr_pwarn("The plugin copies memory of AMD GPUs by itself: no place in its file");
		*ret = 1;
	}
	return off;
}

static int save_objects(struct ckf_amd *amd, FILE *f, const struct fast_amd_bo *bos, unsigned int nr)
{
	struct ckf_amd_object *objects = xzalloc(nr * sizeof(*objects));
	struct ckf_amd_objects *set = NULL;
	struct ckf_error err = {};
	off_t off;
	int ret = 0;

	if (!objects)
		return -1;
	off = written_end(f, &ret);
	for (unsigned int i = 0; i < nr; i++) {
		objects[i] = (struct ckf_amd_object){ .start = off, .bytes = bos[i].bytes, .dmabuf = bos[i].dmabuf };
		off += bos[i].bytes;
	}
	if (!ret && ckf_amd_import(amd, objects, nr, &set, &err)) {
		pr_warn("The plugin copies memory of AMD GPUs by itself: %s\n", err.msg);
		ret = 1;
	} else if (!ret && ckf_amd_save(set, fileno(f), 0, &err)) {
		pr_err("%s\n", err.msg);
		ret = -1;
	} else if (!ret && fseeko(f, off, SEEK_SET)) {
		pr_perror("Can't go behind memory of AMD GPUs in its file");
		ret = -1;
	}
	ckf_amd_release(set);
	xfree(objects);
	return ret;
}

int fast_amd_save(FILE *f, const struct fast_amd_bo *bos, unsigned int nr)
{
	struct ckf_amd *amd = nr && !opts.stream ? open_to_save() : NULL;

	return amd ? save_objects(amd, f, bos, nr) : 1;
}

void fast_amd_save_end(void)
{
	ckf_amd_close(save_amd);
	save_amd = NULL;
	save_tried = false;
}
