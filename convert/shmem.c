/* SPDX-License-Identifier: MIT */
/*
 * Which shared memory a dump has: CRIU opens pagemap-shmem-ID.img for a VMA of shared anonymous
 * memory (System V's included) of a task, for a memfd, and for a segment of an IPC namespace.
 *
 * Segments may be of a form that is too old for pagemaps. Then all shared memory counts: a pagemap
 * that CRIU would open must not be taken for one of an older dump.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "img.h"
#include "core.pb-c.h"
#include "ipc-shm.pb-c.h"
#include "memfd.pb-c.h"
#include "vma.h"

#define IPC_SHM_PREFIX "ipcns-shm-"

/* Growing lists of numbers, sorted when they are complete. */
struct id_list {
	uint64_t *ids;
	uint64_t nr;
	uint64_t cap;
};

struct shmem_walk {
	const struct ckf_dump *d;
	struct id_list shmids;
	struct id_list ipc_ns; /* of the tasks; empty: not known */
	bool all;	       /* all of it counts */
	struct ckf_error *err;
};

static int add_id(struct id_list *l, uint64_t id)
{
	if (l->nr && l->ids[l->nr - 1] == id)
		return 0;
	if (ckf_array_grow(&l->ids, l->nr, &l->cap, sizeof(*l->ids)))
		return -ENOMEM;
	l->ids[l->nr++] = id;
	return 0;
}

static int compare_id(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void sort_ids(struct id_list *l)
{
	if (l->nr)
		qsort(l->ids, (size_t)l->nr, sizeof(*l->ids), compare_id);
}

static bool has_id(const uint64_t *ids, uint64_t nr, uint64_t id)
{
	return nr && bsearch(&id, ids, (size_t)nr, sizeof(*ids), compare_id);
}

typedef int take_record(struct shmem_walk *w, struct ckf_img *im, const uint8_t *rec, size_t bytes);

/* Until take() returns something. No file has no records. */
static int each_record(struct shmem_walk *w, const char *name, uint32_t magic, take_record *take)
{
	struct ckf_img im = { .part.fd = -1 };
	struct ckf_error err = { 0 };
	const uint8_t *rec;
	size_t bytes;
	int ret = ckf_img_open(&im, &w->d->dir, name, magic, &err);

	if (ret)
		return ret == -ENOENT ? 0 : ckf_error_set(w->err, ret, "%s", err.msg);
	while (!ret && (ret = ckf_img_next(&im, &rec, &bytes, w->err)) > 0)
		ret = take(w, &im, rec, bytes);
	ckf_img_close(&im);
	return ret < 0 ? ret : 0;
}

static int add_named(struct shmem_walk *w, struct id_list *l, uint64_t id)
{
	return add_id(l, id) ? ckf_error_set(w->err, -ENOMEM, "no memory for shared memory") : 0;
}

static int take_memfd(struct shmem_walk *w, struct ckf_img *im, const uint8_t *rec, size_t bytes)
{
	MemfdInodeEntry *e = memfd_inode_entry__unpack(&im->alloc, bytes, rec);
	int ret;

	if (!e)
		return ckf_img_bad(im, -EBADMSG, w->err, "not a memfd entry");
	ret = add_named(w, &w->shmids, e->shmid);
	memfd_inode_entry__free_unpacked(e, NULL);
	return ret;
}

/* Before CRIU had pagemaps of segments, their bytes followed the record: there is no next one. */
static int take_segment(struct shmem_walk *w, struct ckf_img *im, const uint8_t *rec, size_t bytes)
{
	IpcShmEntry *e = ipc_shm_entry__unpack(&im->alloc, bytes, rec);
	int ret;

	if (!e)
		return ckf_img_bad(im, -EBADMSG, w->err, "not a segment");
	w->all |= !e->has_in_pagemaps || !e->in_pagemaps;
	ret = w->all ? 1 : add_named(w, &w->shmids, e->desc->id);
	ipc_shm_entry__free_unpacked(e, NULL);
	return ret;
}

static int take_task_ids(struct shmem_walk *w, struct ckf_img *im, const uint8_t *rec, size_t bytes)
{
	TaskKobjIdsEntry *e = task_kobj_ids_entry__unpack(&im->alloc, bytes, rec);
	int ret = 0;

	if (!e)
		return ckf_img_bad(im, -EBADMSG, w->err, "not an entry of ids");
	if (e->has_ipc_ns_id)
		ret = add_named(w, &w->ipc_ns, e->ipc_ns_id);
	task_kobj_ids_entry__free_unpacked(e, NULL);
	return ret;
}

static int read_task(struct shmem_walk *w, const struct ckf_task *t)
{
	char name[32];
	int ret = 0;

	for (uint64_t i = 0; i < t->nr_vmas && !ret; i++) {
		if (t->vmas[i].status & CKF_VMA_ANON_SHARED)
			ret = add_named(w, &w->shmids, t->vmas[i].shmid);
	}
	snprintf(name, sizeof(name), "ids-%u.img", t->pid);
	return ret ? ret : each_record(w, name, CKF_IDS_MAGIC, take_task_ids);
}

/* CRIU looks for the namespaces of the tasks only: another one is of an older dump. */
static int visit_name(void *arg, const char *name)
{
	struct shmem_walk *w = arg;
	uint64_t ns;

	if (strncmp(name, IPC_SHM_PREFIX, strlen(IPC_SHM_PREFIX)) != 0 ||
	    !ckf_img_id_parse(name + strlen(IPC_SHM_PREFIX), UINT32_MAX, &ns))
		return 0;
	if (w->ipc_ns.nr && !has_id(w->ipc_ns.ids, w->ipc_ns.nr, ns))
		return 0;
	return each_record(w, name, CKF_IPCNS_SHM_MAGIC, take_segment);
}

int ckf_dump_read_shmids(struct ckf_dump *d, struct ckf_error *err)
{
	struct shmem_walk w = { .d = d, .err = err };
	int ret = each_record(&w, "memfd.img", CKF_MEMFD_INODE_MAGIC, take_memfd);

	for (uint64_t i = 0; i < d->nr_tasks && !ret; i++) {
		if (!ckf_task_is_dead(&d->tasks[i]))
			ret = read_task(&w, &d->tasks[i]);
	}
	sort_ids(&w.ipc_ns);
	if (!ret) {
		ret = ckf_dir_each(&d->dir, visit_name, &w);
		if (ret)
			ckf_error_set(err, ret, "cannot read the directory: %s", strerror(-ret));
	}
	free(w.ipc_ns.ids);
	sort_ids(&w.shmids);
	d->shmids = w.shmids.ids;
	d->nr_shmids = w.shmids.nr;
	d->knows_shmids = d->nr_tasks && !w.all;
	return ret;
}

bool ckf_dump_has_shmem(const struct ckf_dump *d, uint64_t shmid)
{
	return !d->knows_shmids || has_id(d->shmids, d->nr_shmids, shmid);
}
