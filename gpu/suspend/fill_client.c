/* SPDX-License-Identifier: MIT */
/* The client's side of CKF_GPUD_FILL. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "format/ckf_gpu_dump.h"
#include "base/ckf_array.h"
#include "base/ckf_opts.h"
#include "ckf_process.h"
#include "ckf_gpud_msg.h"

#define REFUSAL_MS 50 /* a running daemon has said by then whether GPU and image fit */

struct item {
	uint32_t pid;
	struct ckf_gpu_memory mem;
};

struct ready {
	uint32_t pid;
	struct ckf_gpu_fill_stats stats;
};

struct ckf_gpu_fill {
	int sock;
	struct item *items;
	size_t nr;
	uint64_t cap;
	struct ready *ready;
	size_t nr_ready;
	struct ckf_gpud_msg pairs[CKF_GPU_MAX_DEVICES];
	unsigned int nr_pairs;
	bool accepted;
	bool made;
	bool done;
	int ret; /* of the whole, once it has failed */
	struct ckf_error err;
};

bool ckf_gpu_images_probe(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	bool found = false;
	struct dirent *de;

	if (!dir && fd >= 0)
		close(fd);
	while (dir && !found && (de = readdir(dir)))
		found = !strncmp(de->d_name, CKF_GPU_PREFIX, sizeof(CKF_GPU_PREFIX) - 1);
	if (dir)
		closedir(dir);
	return found;
}

static int add_item(struct ckf_gpu_fill *f, const struct ckf_gpud_msg *m, int fd)
{
	if (ckf_array_grow(&f->items, f->nr, &f->cap, sizeof(*f->items)))
		return -ENOMEM;
	f->items[f->nr].pid = m->pid;
	f->items[f->nr++].mem = (struct ckf_gpu_memory){
		.addr = m->addr,
		.bytes = m->bytes,
		.flags = m->flags,
		.fd = fd,
	};
	memcpy(f->items[f->nr - 1].mem.shared_id, m->uuid2, sizeof(m->uuid2));
	return 0;
}

static int add_ready(struct ckf_gpu_fill *f, const struct ckf_gpud_msg *m)
{
	struct ready *more = realloc(f->ready, (f->nr_ready + 1) * sizeof(*more));

	if (!more)
		return -ENOMEM;
	f->ready = more;
	f->ready[f->nr_ready++] = (struct ready){
		.pid = m->pid,
		.stats = { .bytes = m->arg, .ns = m->arg2 },
	};
	return 0;
}

/* Takes one message. Errors are kept: everything that is waited for has failed then. */
static void take_message(struct ckf_gpu_fill *f)
{
	struct ckf_gpud_msg m;
	int fd = -1, ret;

	ret = ckf_gpud_recv(f->sock, &m, &fd, &f->err);
	if (!ret && m.op == CKF_GPUD_MEMORY && fd >= 0) {
		ret = add_item(f, &m, fd);
		if (!ret)
			fd = -1;
	} else if (!ret && m.op == CKF_GPUD_READY) {
		ret = add_ready(f, &m);
	} else if (!ret && m.op == CKF_GPUD_PAIR && f->nr_pairs < CKF_GPU_MAX_DEVICES) {
		f->pairs[f->nr_pairs++] = m;
	} else if (!ret && m.op == CKF_GPUD_ACCEPTED) {
		f->accepted = true;
	} else if (!ret && m.op == CKF_GPUD_MADE) {
		f->made = true;
	} else if (!ret && m.op == CKF_GPUD_DONE) {
		f->done = true;
	} else if (!ret && m.op == CKF_GPUD_ERROR) {
		ret = gpud_answered_error(&m, &f->err);
	} else if (!ret) {
		ret = ckf_error_set(&f->err, -EPROTO, "gpud says %u", m.op);
	}
	if (ret == -ENOMEM && !f->err.code)
		ckf_error_set(&f->err, ret, "no memory for a list of memory");
	if (fd >= 0)
		close(fd);
	f->ret = ret;
}

static const struct ready *find_ready(const struct ckf_gpu_fill *f, uint32_t pid)
{
	for (size_t i = 0; i < f->nr_ready; i++) {
		if (f->ready[i].pid == pid)
			return &f->ready[i];
	}
	return NULL;
}

int ckf_gpu_fill_start(int gpud, int dir_fd, struct ckf_gpu_fill **out, struct ckf_error *err)
{
	struct ckf_gpud_msg m = { .op = CKF_GPUD_FILL };
	struct ckf_gpu_fill *f = calloc(1, sizeof(*f));
	struct pollfd p = { .events = POLLIN };
	int ret;

	if (!f)
		return ckf_error_set(err, -ENOMEM, "no memory for a fill");
	f->sock = ret = ckf_gpud_join(gpud, err);
	if (ret >= 0)
		ret = ckf_gpud_send(f->sock, &m, dir_fd, err);
	p.fd = f->sock;
	if (!ret && poll(&p, 1, REFUSAL_MS) == 1) {
		take_message(f);
		ret = f->ret;
		if (ret)
			ckf_error_set(err, ret, "%s", f->err.msg);
	}
	if (ret < 0) {
		ckf_gpu_fill_close(f);
		return ret;
	}
	*out = f;
	return 0;
}

int ckf_gpu_fill_accepted(struct ckf_gpu_fill *f, struct ckf_gpu_process *p, struct ckf_error *err)
{
	int ret = 0;

	while (!f->accepted && !f->ret)
		take_message(f);
	if (f->ret)
		return ckf_error_set(err, f->ret, "%s", f->err.msg);
	for (unsigned int i = 0; i < f->nr_pairs && !ret; i++)
		ret = ckf_gpu_process_pair(p, f->pairs[i].uuid, f->pairs[i].uuid2, err);
	return ret;
}

int ckf_gpu_fill_memory(struct ckf_gpu_fill *f, uint32_t image_pid, struct ckf_gpu_process *p,
			struct ckf_error *err)
{
	int ret = 0;

	while (!f->made && !f->ret)
		take_message(f);
	if (f->ret)
		return ckf_error_set(err, f->ret, "%s", f->err.msg);
	for (size_t i = 0; i < f->nr && !ret; i++) {
		if (f->items[i].pid != image_pid || f->items[i].mem.fd < 0)
			continue;
		ret = ckf_gpu_process_give(p, &f->items[i].mem, err);
		if (!ret)
			f->items[i].mem.fd = -1;
	}
	return ret;
}

static bool in_list(uint32_t pid, const uint32_t *pids, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		if (pids[i] == pid)
			return true;
	return false;
}

/* Memory of a process that is not in the list, which shares what mem is. */
static const struct item *find_sharer(const struct ckf_gpu_fill *f,
				      const struct ckf_gpu_memory *mem, const uint32_t *pids,
				      size_t nr)
{
	for (size_t i = 0; i < f->nr; i++) {
		const struct item *it = &f->items[i];

		if (it->mem.flags & CKF_GPU_ALLOC_SHARED && !in_list(it->pid, pids, nr) &&
		    !memcmp(it->mem.shared_id, mem->shared_id, sizeof(mem->shared_id)))
			return it;
	}
	return NULL;
}

int ckf_gpu_fill_check_shared(struct ckf_gpu_fill *f, const uint32_t *image_pids, size_t nr,
			      struct ckf_error *err)
{
	const struct item *other;

	while (!f->made && !f->ret)
		take_message(f);
	if (f->ret)
		return ckf_error_set(err, f->ret, "%s", f->err.msg);
	for (size_t i = 0; i < f->nr; i++) {
		const struct item *it = &f->items[i];

		if (!(it->mem.flags & CKF_GPU_ALLOC_SHARED) || !in_list(it->pid, image_pids, nr))
			continue;
		other = find_sharer(f, &it->mem, image_pids, nr);
		if (other)
			return ckf_error_set(err, -EBUSY,
					     "process %u of the image shares device memory with "
					     "process %u of it: both have to get it together",
					     it->pid, other->pid);
	}
	return 0;
}

int ckf_gpu_fill_wait(struct ckf_gpu_fill *f, uint32_t image_pid, struct ckf_gpu_fill_stats *stats,
		      struct ckf_error *err)
{
	const struct ready *ready;

	while (!(ready = find_ready(f, image_pid)) && !f->done && !f->ret)
		take_message(f);
	if (!ready && f->ret)
		return ckf_error_set(err, f->ret, "%s", f->err.msg);
	if (ready && stats)
		return ckf_opts_give(stats, &ready->stats, sizeof(ready->stats));
	return 0;
}

void ckf_gpu_fill_close(struct ckf_gpu_fill *f)
{
	if (!f)
		return;
	for (size_t i = 0; i < f->nr; i++) {
		if (f->items[i].mem.fd >= 0)
			close(f->items[i].mem.fd);
	}
	if (f->sock >= 0)
		close(f->sock);
	free(f->items);
	free(f->ready);
	free(f);
}

int ckf_gpu_find_own(const char *name, char *buf, size_t bytes, struct ckf_error *err)
{
	char exe[PATH_MAX] = "the program";
	ssize_t len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	char *slash;

	for (int up = 0; up < 2 && len > 0; up++) {
		exe[len] = 0;
		slash = strrchr(exe, '/');
		len = slash ? slash - exe : 0;
	}
	if (len <= 0 || (size_t)snprintf(buf, bytes, "%.*s/%s", (int)len, exe, name) >= bytes ||
	    access(buf, R_OK))
		return ckf_error_set(err, -ENOENT, "cannot find %s beside %s", name, exe);
	return 0;
}

const char *ckf_gpu_find_helper(char *buf, size_t bytes)
{
	const char *env = getenv("CKFAST_GPUD_HELPER");

	if (env)
		return env;
	return ckf_gpu_find_own("bin/ckfast", buf, bytes, NULL) ? NULL : buf;
}
