/* SPDX-License-Identifier: MIT */
/* What the small images of a dump say about its tasks: pstree, core-PID, mm-PID and pagemaps. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loader/ckf_image.h"
#include "base/ckf_table.h"
#include "img.h"
#include "core.pb-c.h"
#include "mm.pb-c.h"
#include "pstree.pb-c.h"

#define TASK_ALIVE 1 /* compel/include/uapi/task-state.h */
#define TASK_STOPPED 3

static void note_missing(struct ckf_dump *d, const char *name)
{
	if (!*d->missing)
		snprintf(d->missing, sizeof(d->missing), "%s", name);
}

/*
 * 1 when the dump has the file, 0 when it has not, or -errno: CRIU will open it, and what is no
 * regular file cannot be in an image.
 */
static int has_file(const struct ckf_dump *d, const char *name, struct ckf_error *err)
{
	struct stat st;

	if (d->dir.members)
		return ckf_members_find(d->dir.members, name) != NULL;
	if (fstatat(d->dir.fd, name, &st, 0)) {
		if (errno == ENOENT)
			return 0;
		return ckf_error_set(err, -errno, "cannot stat %s: %s", name, strerror(errno));
	}
	if (!S_ISREG(st.st_mode))
		return ckf_error_set(err, -EOPNOTSUPP, "%s is not a regular file", name);
	return 1;
}

static bool has_memory(const struct ckf_task *t)
{
	return t->state == TASK_ALIVE || t->state == TASK_STOPPED;
}

static int read_core(struct ckf_dump *d, struct ckf_task *t, struct ckf_error *err)
{
	struct ckf_img im = { 0 };
	CoreEntry *core = NULL;
	const uint8_t *rec;
	char name[32];
	size_t bytes;
	int ret;

	snprintf(name, sizeof(name), "core-%u.img", t->pid);
	ret = ckf_img_open(&im, &d->dir, name, CKF_CORE_MAGIC, err);
	if (ret == -ENOENT) {
		note_missing(d, name);
		return 0;
	}
	if (ret)
		return ret;
	ret = ckf_img_next(&im, &rec, &bytes, err);
	if (ret < 0)
		goto out;
	if (ret > 0)
		core = core_entry__unpack(&im.alloc, bytes, rec);
	if (!core) {
		ret = ckf_img_bad(&im, -EBADMSG, err, "not a core entry");
		goto out;
	}
	if (core->tc) {
		t->state = core->tc->task_state;
		snprintf(t->comm, sizeof(t->comm), "%s", core->tc->comm);
	}
	core_entry__free_unpacked(core, NULL);
	ret = 0;
out:
	ckf_img_close(&im);
	return ret;
}

static int copy_vmas(const struct ckf_img *im, struct ckf_task *t, const MmEntry *mm,
		     struct ckf_error *err)
{
	t->thp_disabled = mm->has_thp_disabled && mm->thp_disabled;
	if (!mm->n_vmas)
		return 0;
	t->vmas = calloc(mm->n_vmas, sizeof(*t->vmas));
	if (!t->vmas)
		return ckf_error_set(err, -ENOMEM, "no memory for the VMAs of %s", im->name);
	for (size_t i = 0; i < mm->n_vmas; i++) {
		const VmaEntry *e = mm->vmas[i];

		if (e->start >= e->end || (e->start | e->end) % CKF_PAGE_BYTES)
			return ckf_img_bad(im, -EBADMSG, err, "VMA %zu has a bad range %#llx-%#llx",
					   i, (unsigned long long)e->start,
					   (unsigned long long)e->end);
		t->vmas[i] = (struct ckf_vma){
			.start = e->start,
			.end = e->end,
			.pgoff = e->pgoff,
			.shmid = e->shmid,
			.prot = e->prot,
			.flags = e->flags,
			.status = e->status,
			.madv = e->has_madv ? e->madv : 0,
		};
	}
	t->nr_vmas = mm->n_vmas;
	return 0;
}

static int read_mm(struct ckf_dump *d, struct ckf_task *t, struct ckf_error *err)
{
	struct ckf_img im = { 0 };
	MmEntry *mm = NULL;
	const uint8_t *rec;
	char name[32];
	size_t bytes;
	int ret;

	snprintf(name, sizeof(name), "mm-%u.img", t->pid);
	ret = ckf_img_open(&im, &d->dir, name, CKF_MM_MAGIC, err);
	if (ret == -ENOENT) {
		if (has_memory(t))
			note_missing(d, name);
		return 0;
	}
	if (ret)
		return ret;
	ret = ckf_img_next(&im, &rec, &bytes, err);
	if (ret < 0)
		goto out;
	if (ret > 0)
		mm = mm_entry__unpack(&im.alloc, bytes, rec);
	if (!mm) {
		ret = ckf_img_bad(&im, -EBADMSG, err, "not an mm entry");
		goto out;
	}
	ret = copy_vmas(&im, t, mm, err);
	mm_entry__free_unpacked(mm, NULL);
out:
	ckf_img_close(&im);
	return ret;
}

static int compare_task(const void *a, const void *b)
{
	const struct ckf_task *const *x = a, *const *y = b;

	return ((*x)->pid > (*y)->pid) - ((*x)->pid < (*y)->pid);
}

static int sort_tasks(struct ckf_dump *d, struct ckf_error *err)
{
	if (!d->nr_tasks)
		return 0;
	d->by_pid = calloc((size_t)d->nr_tasks, sizeof(struct ckf_task *));
	if (!d->by_pid)
		return ckf_error_set(err, -ENOMEM, "no memory for the process tree");
	for (uint64_t i = 0; i < d->nr_tasks; i++)
		d->by_pid[i] = &d->tasks[i];
	qsort(d->by_pid, (size_t)d->nr_tasks, sizeof(*d->by_pid), compare_task);
	for (uint64_t i = 1; i < d->nr_tasks; i++) {
		if (d->by_pid[i]->pid == d->by_pid[i - 1]->pid)
			return ckf_error_rule(err, -EBADMSG, "pstree.img", -1, 0,
					      "pid %u is there twice", d->by_pid[i]->pid);
	}
	return 0;
}

/* The core of a task itself is read later. CRIU writes any number for the one thread of a zombie.
 */
static int check_threads(struct ckf_dump *d, const PstreeEntry *e, struct ckf_error *err)
{
	char name[CKF_DUMP_MISSING_BYTES];
	int ret;

	if (e->n_threads < 2)
		return 0;
	for (size_t i = 0; i < e->n_threads && !*d->missing; i++) {
		if (e->threads[i] == e->pid)
			continue;
		snprintf(name, sizeof(name), "core-%u.img", e->threads[i]);
		ret = has_file(d, name, err);
		if (ret < 0)
			return ret;
		if (!ret)
			note_missing(d, name);
	}
	return 0;
}

static int add_task(struct ckf_dump *d, uint64_t *cap, const PstreeEntry *e, struct ckf_error *err)
{
	struct ckf_task *t;
	int ret = ckf_array_grow(&d->tasks, d->nr_tasks, cap, sizeof(*d->tasks));

	if (ret)
		return ckf_error_set(err, ret, "no memory for the process tree");
	t = &d->tasks[d->nr_tasks++];
	memset(t, 0, sizeof(*t));
	t->pid = e->pid;
	t->ppid = e->ppid;
	t->nr_threads = (uint32_t)e->n_threads;
	return check_threads(d, e, err);
}

static int read_pstree(struct ckf_dump *d, struct ckf_error *err)
{
	struct ckf_img im = { 0 };
	const uint8_t *rec;
	uint64_t cap = 0;
	PstreeEntry *e;
	size_t bytes;
	int ret;

	ret = ckf_img_open(&im, &d->dir, "pstree.img", CKF_PSTREE_MAGIC, err);
	if (ret)
		return ret == -ENOENT ? 0 : ret;
	while ((ret = ckf_img_next(&im, &rec, &bytes, err)) > 0) {
		e = pstree_entry__unpack(&im.alloc, bytes, rec);
		if (!e) {
			ret = ckf_img_bad(&im, -EBADMSG, err, "not a pstree entry");
			break;
		}
		ret = add_task(d, &cap, e, err);
		pstree_entry__free_unpacked(e, NULL);
		if (ret)
			break;
	}
	ckf_img_close(&im);
	return ret ? ret : sort_tasks(d, err);
}

static int compare_pagemap(const void *a, const void *b)
{
	const struct ckf_pagemap *x = a, *y = b;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

const struct ckf_pagemap *ckf_dump_find_pagemap(const struct ckf_dump *d, uint32_t kind,
						uint64_t id)
{
	uint64_t lo = 0;
	uint64_t hi = d->nr_pagemaps;

	while (lo < hi) {
		uint64_t mid = lo + (hi - lo) / 2;
		const struct ckf_pagemap *pm = &d->pagemaps[mid];

		if (pm->kind == kind && pm->id == id)
			return pm;
		if (pm->kind < kind || (pm->kind == kind && pm->id < id))
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

const struct ckf_task *ckf_dump_find_task(const struct ckf_dump *d, uint64_t pid)
{
	const struct ckf_task key = { .pid = (uint32_t)pid }, *key_at = &key;
	const struct ckf_task **at;

	if (!d->nr_tasks || pid > UINT32_MAX)
		return NULL;
	at = bsearch(&key_at, d->by_pid, (size_t)d->nr_tasks, sizeof(*d->by_pid), compare_task);
	return at ? *at : NULL;
}

bool ckf_dump_has_target(const struct ckf_dump *d, uint32_t kind, uint64_t id)
{
	const struct ckf_task *t;

	if (kind == CKF_TARGET_SHMEM)
		return ckf_dump_has_shmem(d, id);
	if (kind != CKF_TARGET_TASK || !d->nr_tasks)
		return true;
	t = ckf_dump_find_task(d, id);
	return t && !ckf_task_is_dead(t);
}

/* What is wrong with a pagemap that CRIU does not open is not in its way. */
static int read_pagemap(const struct ckf_dump *d, const char *name, struct ckf_pagemap *out,
			struct ckf_error *err)
{
	struct ckf_error read_err = { 0 };
	int ret = ckf_pagemap_read(&d->dir, name, d->in_image, out, &read_err);

	if (!ret)
		return 0;
	ckf_pagemap_name_parse(name, &out->kind, &out->id);
	if ((ret != -EBADMSG && ret != -EOPNOTSUPP) || ckf_dump_has_target(d, out->kind, out->id))
		return ckf_error_set(err, ret, "%s", read_err.msg);
	out->unreadable = true;
	out->name = strdup(name);
	return out->name ? 0 : ckf_error_set(err, -ENOMEM, "no memory for the pagemaps");
}

struct name_walk {
	struct ckf_dump *d;
	uint64_t cap;
	uint64_t cap_amd;
	uint64_t cap_render;
	struct ckf_error *err;
};

static int add_pagemap(struct name_walk *w, const char *name)
{
	struct ckf_dump *d = w->d;
	int ret;

	if (ckf_array_grow(&d->pagemaps, d->nr_pagemaps, &w->cap, sizeof(*d->pagemaps)))
		return ckf_error_set(w->err, -ENOMEM, "no memory for the pagemaps");
	ret = read_pagemap(d, name, &d->pagemaps[d->nr_pagemaps], w->err);
	if (!ret)
		d->nr_pagemaps++;
	return ret;
}

static int add_amd_table(struct name_walk *w, const char *name)
{
	struct ckf_dump *d = w->d;

	if (ckf_array_grow(&d->amd, d->nr_amd, &w->cap_amd, sizeof(*d->amd)))
		return ckf_error_set(w->err, -ENOMEM, "no memory for the tables of GPU memory");
	return ckf_amd_table_read(&d->dir, name, &d->amd[d->nr_amd++], w->err);
}

static int add_render_table(struct name_walk *w, const char *name)
{
	struct ckf_dump *d = w->d;

	if (ckf_array_grow(&d->render, d->nr_render, &w->cap_render, sizeof(*d->render)))
		return ckf_error_set(w->err, -ENOMEM, "no memory for the tables of render nodes");
	return ckf_render_table_read(&d->dir, name, &d->render[d->nr_render++], w->err);
}

static int visit_name(void *arg, const char *name)
{
	struct name_walk *w = arg;
	uint32_t kind, file_id;
	uint64_t id;

	w->d->has_cores |= !strncmp(name, "core-", 5) && ckf_is_img_name(name);
	if (ckf_pagemap_name_parse(name, &kind, &id))
		return add_pagemap(w, name);
	if (ckf_amd_name_parse(name, &file_id))
		return add_amd_table(w, name);
	return ckf_render_name_parse(name, &file_id) ? add_render_table(w, name) : 0;
}

static int compare_amd(const void *a, const void *b)
{
	const struct ckf_amd_table *x = a, *y = b;

	return x->file_id < y->file_id ? -1 : x->file_id > y->file_id;
}

static int compare_render(const void *a, const void *b)
{
	const struct ckf_render_table *x = a, *y = b;

	return x->file_id < y->file_id ? -1 : x->file_id > y->file_id;
}

/* What no table can say of itself. CRIU takes a file for /dev/kfd where it has either table. */
static void check_render_tables(struct ckf_dump *d)
{
	uint32_t next = 0;
	uint64_t k = 0;

	for (uint64_t i = 0; i < d->nr_render; i++) {
		struct ckf_render_table *t = &d->render[i];

		while (k < d->nr_amd && d->amd[k].file_id < t->file_id)
			k++;
		if (k < d->nr_amd && d->amd[k].file_id == t->file_id)
			ckf_error_set(&t->err, -EOPNOTSUPP,
				      "unsupported %s: file %u is /dev/kfd, too", t->name,
				      t->file_id);
		if (t->nr_objects > UINT32_MAX - next) {
			ckf_error_set(&t->err, -EOPNOTSUPP, "unsupported %s: too many objects",
				      t->name);
			t->nr_objects = 0;
		}
		t->first = next;
		next += t->nr_objects;
	}
}

void ckf_dump_sort_pagemaps(struct ckf_dump *d)
{
	if (d->nr_pagemaps)
		qsort(d->pagemaps, (size_t)d->nr_pagemaps, sizeof(*d->pagemaps), compare_pagemap);
}

static int read_pagemaps(struct ckf_dump *d, struct ckf_error *err)
{
	struct name_walk w = { .d = d, .err = err };
	int ret = ckf_dir_each(&d->dir, visit_name, &w);

	if (ret)
		return ckf_error_set(err, ret, "cannot read the directory: %s", strerror(-ret));
	ckf_dump_sort_pagemaps(d);
	if (d->nr_amd)
		qsort(d->amd, (size_t)d->nr_amd, sizeof(*d->amd), compare_amd);
	if (d->nr_render)
		qsort(d->render, (size_t)d->nr_render, sizeof(*d->render), compare_render);
	check_render_tables(d);
	return 0;
}

/* Shared device memory has its contents in one of the tables. */
static int check_tables(const struct ckf_dump *d, struct ckf_error *err)
{
	struct ckf_gpu_dump **dumps = calloc((size_t)d->nr_pagemaps + 1,
					     sizeof(struct ckf_gpu_dump *));
	struct ckf_gpu_owners owners;
	int ret;

	if (!dumps)
		return ckf_error_set(err, -ENOMEM, "no memory for the tables of device memory");
	for (uint64_t i = 0; i < d->nr_pagemaps; i++)
		dumps[i] = d->pagemaps[i].gpu;
	ret = ckf_gpu_owners_new(dumps, (size_t)d->nr_pagemaps, &owners, err);
	ckf_gpu_owners_free(&owners);
	free(dumps);
	return ret;
}

/* Tasks with memory have a pagemap each. */
static void check_pagemaps(struct ckf_dump *d)
{
	char name[CKF_DUMP_MISSING_BYTES];

	for (uint64_t i = 0; i < d->nr_tasks && !*d->missing; i++) {
		const struct ckf_pagemap key = {
			.kind = CKF_TARGET_TASK,
			.id = d->tasks[i].pid,
		};

		if (!has_memory(&d->tasks[i]) ||
		    (d->nr_pagemaps && bsearch(&key, d->pagemaps, (size_t)d->nr_pagemaps,
					       sizeof(key), compare_pagemap)))
			continue;
		snprintf(name, sizeof(name), "pagemap-%u.img", d->tasks[i].pid);
		note_missing(d, name);
	}
}

static int read_all(struct ckf_dump *d, struct ckf_error *err)
{
	struct stat st;
	int ret;

	d->has_parent = !d->dir.members && !fstatat(d->dir.fd, "parent", &st, AT_SYMLINK_NOFOLLOW);
	ret = has_file(d, "inventory.img", err);
	if (ret < 0)
		return ret;
	d->has_inventory = ret;
	ret = read_pstree(d, err);
	for (uint64_t i = 0; i < d->nr_tasks && !ret; i++) {
		ret = read_core(d, &d->tasks[i], err);
		if (!ret)
			ret = read_mm(d, &d->tasks[i], err);
	}
	if (!ret)
		ret = ckf_dump_read_shmids(d, err);
	if (!ret)
		ret = read_pagemaps(d, err);
	if (!ret)
		ret = check_tables(d, err);
	if (!ret)
		check_pagemaps(d);
	return ret;
}

static int say_incomplete(const char *name, struct ckf_error *err)
{
	return ckf_error_set(err, -EBADMSG,
			     "incomplete dump: there is no %s; if criu dump failed, its log says "
			     "why, and the process has to be dumped again",
			     name);
}

static int is_of_dump(void *arg, const char *name)
{
	const struct ckf_dir *const *dir = arg;

	return !strcmp(name, "dump.log") || ckf_img_is_criu(*dir, name);
}

/* What a criu dump leaves that failed at its beginning. */
static bool has_remains(const struct ckf_dump *d)
{
	const struct ckf_dir *dir = &d->dir;

	return ckf_dir_each(dir, is_of_dump, &dir) > 0;
}

int ckf_dump_check(const struct ckf_dump *d, struct ckf_error *err)
{
	if (!d->has_inventory && !d->has_cores && !d->nr_tasks && !d->nr_pagemaps) {
		if (has_remains(d))
			return say_incomplete("inventory.img", err);
		return ckf_error_set(err, -ENOENT,
				     "not a CRIU dump: there is neither inventory.img nor a "
				     "pagemap");
	}
	if (*d->missing)
		return say_incomplete(d->missing, err);
	if (!d->nr_tasks && d->has_cores)
		return say_incomplete("pstree.img", err);
	if (!d->nr_pagemaps)
		return say_incomplete("pagemap-*.img", err);
	if (!d->has_inventory)
		return say_incomplete("inventory.img", err);
	return 0;
}

/* Takes dir.fd, which it closes when it fails. */
static int open_owned(struct ckf_dir dir, bool in_image, struct ckf_dump **out,
		      struct ckf_error *err)
{
	struct ckf_dump *d = calloc(1, sizeof(*d));
	int ret;

	if (!d) {
		close(dir.fd);
		return ckf_error_set(err, -ENOMEM, "no memory for a dump");
	}
	d->dir = dir;
	d->in_image = in_image;
	ret = read_all(d, err);
	if (ret)
		ckf_dump_close(d);
	else
		*out = d;
	return ret;
}

int ckf_dump_openat(int dir_fd, const char *path, struct ckf_dump **out, struct ckf_error *err)
{
	struct ckf_dir dir = { .fd = openat(dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) };

	if (dir.fd < 0)
		return ckf_error_set(err, -errno, "cannot open directory %s: %s", path,
				     strerror(errno));
	return open_owned(dir, false, out, err);
}

int ckf_dump_open_dir(const struct ckf_dir *dir, bool in_image, struct ckf_dump **out,
		      struct ckf_error *err)
{
	struct ckf_dir own = {
		.fd = fcntl(dir->fd, F_DUPFD_CLOEXEC, 0),
		.members = dir->members,
	};

	if (own.fd < 0)
		return ckf_error_set(err, -errno, "cannot open the dump: %s", strerror(errno));
	return open_owned(own, in_image, out, err);
}

int ckf_dump_open(const char *path, struct ckf_dump **out, struct ckf_error *err)
{
	return ckf_dump_openat(AT_FDCWD, path, out, err);
}

void ckf_dump_close(struct ckf_dump *d)
{
	if (!d)
		return;
	for (uint64_t i = 0; i < d->nr_tasks; i++)
		free(d->tasks[i].vmas);
	for (uint64_t i = 0; i < d->nr_pagemaps; i++)
		ckf_pagemap_fini(&d->pagemaps[i]);
	for (uint64_t i = 0; i < d->nr_amd; i++)
		ckf_amd_table_fini(&d->amd[i]);
	for (uint64_t i = 0; i < d->nr_render; i++)
		ckf_render_table_fini(&d->render[i]);
	free(d->by_pid);
	free(d->tasks);
	free(d->pagemaps);
	free(d->amd);
	free(d->render);
	free(d->shmids);
	close(d->dir.fd);
	free(d);
}
