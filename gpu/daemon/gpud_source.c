/* SPDX-License-Identifier: MIT */
/* Opens what gpud fills memory from: a fast image or a plain dump. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ckf_dir.h"
#include "loader/ckf_gpu_read.h"
#include "loader/ckf_read.h"
#include "gpud.h"

#define MAX_PARTS 4096 /* processes of one image that use GPUs */

static int add_part(struct gpud_source *src, int dir_fd, uint32_t pid, struct ckf_error *err)
{
	struct gpud_part *p;
	char name[CKF_GPU_NAME_BYTES];
	int ret;

	if (src->nr == MAX_PARTS)
		return ckf_error_set(err, -E2BIG, "more than %u processes with GPU memory",
				     MAX_PARTS);
	p = realloc(src->parts, (src->nr + 1) * sizeof(*p));
	if (!p)
		return ckf_error_set(err, -ENOMEM, "no memory");
	src->parts = p;
	p += src->nr;
	memset(p, 0, sizeof(*p));
	p->pages_fd = -1;
	ret = ckf_gpu_dump_read(dir_fd, pid, &p->dump, err);
	if (ret == -ENOENT)
		return ckf_error_set(err, -EBADMSG, "%s is missing", ckf_gpu_name(pid, name));
	if (!ret)
		src->nr++;
	return ret;
}

/* "ckfast-gpu-PID.img" and nothing else. */
static bool parse_name(const char *name, uint32_t *pid)
{
	char again[CKF_GPU_NAME_BYTES];
	unsigned long v;

	if (strncmp(name, CKF_GPU_PREFIX, strlen(CKF_GPU_PREFIX)))
		return false;
	v = strtoul(name + strlen(CKF_GPU_PREFIX), NULL, 10);
	if (v > UINT32_MAX)
		return false;
	*pid = (uint32_t)v;
	return !strcmp(name, ckf_gpu_name(*pid, again));
}

struct listing {
	struct gpud_source *src;
	int dir_fd;
	struct ckf_error *err;
};

static int add_named(void *arg, const char *name)
{
	const struct listing *l = arg;
	uint32_t pid;

	return parse_name(name, &pid) ? add_part(l->src, l->dir_fd, pid, l->err) : 0;
}

int gpud_source_tables(int dir_fd, struct gpud_source *src, struct ckf_error *err)
{
	struct listing l = { src, dir_fd, err };
	int ret;

	memset(src, 0, sizeof(*src));
	ret = ckf_dir_each(CKF_DIR(dir_fd), add_named, &l);
	/* Of an error in a table, err tells already: the first one wins. */
	if (ret)
		return ckf_error_set(err, ret, "cannot read the directory: %s", strerror(-ret));
	if (!src->nr)
		ret = ckf_error_set(err, -ENOENT, "there is no GPU memory in this image");
	return ret;
}

static struct gpud_part *find_part(struct gpud_source *src, uint64_t pid)
{
	for (unsigned int i = 0; i < src->nr; i++) {
		if (src->parts[i].dump->pid == pid)
			return &src->parts[i];
	}
	return NULL;
}

/* With as many pages as the table has, none overlapping and all in it, the plan leaves nothing out.
 */
static int match_target(struct gpud_source *src, const struct ckf_target *t, struct ckf_error *err)
{
	struct ckf_target_info info = { .size = sizeof(info) };
	struct gpud_part *p;

	ckf_target_get_info(src->img, t, &info);
	/* Higher ids are those of AMD GPUs, which are not CUDA's. */
	if (info.kind != CKF_TARGET_DEVICE || info.id > UINT32_MAX)
		return 0;
	p = find_part(src, info.id);
	if (!p)
		return ckf_error_set(err, -EBADMSG, CKF_GPU_PREFIX "%llu.img is missing",
				     (unsigned long long)info.id);
	p->target = t;
	if (ckf_pages_to_bytes(info.nr_pages) == p->dump->bytes)
		return 0;
	return ckf_error_set(err, -EBADMSG,
			     "the plan for GPU memory of process %u has %llu bytes, its table %llu",
			     p->dump->pid, (unsigned long long)ckf_pages_to_bytes(info.nr_pages),
			     (unsigned long long)p->dump->bytes);
}

static int open_plan(int dir_fd, struct gpud_source *src, struct ckf_error *err)
{
	const struct ckf_target *t;
	int ret;

	ret = ckf_image_open(dir_fd, &src->img, err);
	for (uint64_t i = 0; !ret && (t = ckf_image_target(src->img, i)); i++)
		ret = match_target(src, t, err);
	for (unsigned int i = 0; i < src->nr && !ret; i++) {
		if (!src->parts[i].target)
			ret = ckf_error_set(err, -EBADMSG,
					    "the plan has no GPU memory of process %u, the image "
					    "has a table of it",
					    src->parts[i].dump->pid);
	}
	return ret;
}

static int open_pages(int dir_fd, struct gpud_part *p, struct ckf_error *err)
{
	char name[CKF_GPU_NAME_BYTES];
	uint64_t size;

	if (!p->dump->bytes)
		return 0;
	ckf_gpu_pages_name(p->dump->pid, name);
	p->pages_fd = ckf_image_open_regular(dir_fd, name, 0, &size, err);
	if (p->pages_fd == -ENOENT)
		return ckf_error_set(err, -EBADMSG, "%s is missing", name);
	return p->pages_fd < 0 ? p->pages_fd : 0;
}

int gpud_source_contents(int dir_fd, struct gpud_source *src, struct ckf_error *err)
{
	int ret = 0;

	if (ckf_image_probe(dir_fd))
		return open_plan(dir_fd, src, err);
	for (unsigned int i = 0; i < src->nr && !ret; i++)
		ret = open_pages(dir_fd, &src->parts[i], err);
	return ret;
}

void gpud_source_close(struct gpud_source *src)
{
	for (unsigned int i = 0; i < src->nr; i++) {
		ckf_gpu_dump_free(src->parts[i].dump);
		if (src->parts[i].pages_fd >= 0)
			close(src->parts[i].pages_fd);
	}
	free(src->parts);
	ckf_image_close(src->img);
	memset(src, 0, sizeof(*src));
}
