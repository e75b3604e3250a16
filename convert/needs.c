/* SPDX-License-Identifier: MIT */
/* What a dump needs of a machine: ids, CPU features, namespaces, device memory. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckf_opts.h"
#include "needs.h"
#include "core.pb-c.h"
#include "cpuinfo.pb-c.h"
#include "inventory.pb-c.h"
#include "pstree.pb-c.h"

static int no_memory(struct ckf_error *err)
{
	return ckf_error_set(err, -ENOMEM, "no memory for what the dump needs");
}

static int add_id(struct ckf_needs *n, uint32_t id, struct ckf_error *err)
{
	if (ckf_array_grow(&n->ids, n->info.nr_ids, &n->ids_cap, sizeof(*n->ids)))
		return no_memory(err);
	n->ids[n->info.nr_ids++] = id;
	return 0;
}

/* A zombie has one thread, for which CRIU writes any number. */
static int take_ids(struct ckf_needs *n, const PstreeEntry *e, struct ckf_error *err)
{
	int ret = add_id(n, e->pid, err);

	for (size_t i = 0; i < e->n_threads && e->n_threads > 1 && !ret; i++)
		if (e->threads[i] != e->pid)
			ret = add_id(n, e->threads[i], err);
	return ret;
}

static int take_process(struct ckf_needs *n, struct ckf_img *im, const uint8_t *rec, size_t bytes,
			struct ckf_error *err)
{
	PstreeEntry *e = pstree_entry__unpack(&im->alloc, bytes, rec);
	int ret;

	if (!e)
		return ckf_img_bad(im, -EBADMSG, err, "not a pstree entry");
	/* The first task is the root: all others are in its session, or in ones below. */
	if (!n->info.nr_tasks++)
		n->info.outer_session = e->sid != e->pid;
	ret = take_ids(n, e, err);
	pstree_entry__free_unpacked(e, NULL);
	return ret;
}

static int take_core(struct ckf_needs *n, struct ckf_img *im, const uint8_t *rec, size_t bytes,
		     struct ckf_error *err)
{
	CoreEntry *core = core_entry__unpack(&im->alloc, bytes, rec);

	if (!core)
		return ckf_img_bad(im, -EBADMSG, err, "not a core entry");
	if (core->thread_info && core->thread_info->fpregs->xsave)
		n->info.xstate |= core->thread_info->fpregs->xsave->xstate_bv;
	core_entry__free_unpacked(core, NULL);
	return 0;
}

static const uint32_t need_ns_flags[NEED_NS] = {
	CLONE_NEWPID, CLONE_NEWNET,  CLONE_NEWIPC,    CLONE_NEWUTS,
	CLONE_NEWNS,  CLONE_NEWUSER, CLONE_NEWCGROUP,
};

static void copy_ns(const TaskKobjIdsEntry *e, uint32_t ns[NEED_NS])
{
	const uint32_t ids[NEED_NS] = {
		e->pid_ns_id, e->net_ns_id,  e->ipc_ns_id,    e->uts_ns_id,
		e->mnt_ns_id, e->user_ns_id, e->cgroup_ns_id,
	};

	memcpy(ns, ids, sizeof(ids));
}

static int take_inventory(struct ckf_needs *n, struct ckf_img *im, const uint8_t *rec, size_t bytes,
			  struct ckf_error *err)
{
	InventoryEntry *e = inventory_entry__unpack(&im->alloc, bytes, rec);

	if (!e)
		return ckf_img_bad(im, -EBADMSG, err, "not an inventory entry");
	if (e->root_ids)
		copy_ns(e->root_ids, n->criu_ns);
	n->info.img_version = e->img_version;
	inventory_entry__free_unpacked(e, NULL);
	return 0;
}

static int take_ns(struct ckf_needs *n, struct ckf_img *im, const uint8_t *rec, size_t bytes,
		   struct ckf_error *err)
{
	TaskKobjIdsEntry *e = task_kobj_ids_entry__unpack(&im->alloc, bytes, rec);

	if (!e)
		return ckf_img_bad(im, -EBADMSG, err, "not an entry of ids");
	copy_ns(e, n->root_ns);
	task_kobj_ids_entry__free_unpacked(e, NULL);
	return 0;
}

/* Namespaces are new where the root task is in another one than criu was. */
static int read_namespaces(struct ckf_needs *n, int dir_fd, struct ckf_error *err)
{
	char name[32];
	int ret;

	snprintf(name, sizeof(name), "ids-%u.img", n->ids[0]);
	ret = needs_each_record(n, dir_fd, "inventory.img", CKF_INVENTORY_MAGIC, take_inventory,
				err);
	if (!ret)
		ret = needs_each_record(n, dir_fd, name, CKF_IDS_MAGIC, take_ns, err);
	for (size_t i = 0; i < NEED_NS && !ret; i++)
		if (n->criu_ns[i] && n->root_ns[i] && n->criu_ns[i] != n->root_ns[i])
			n->info.own_ns |= need_ns_flags[i];
	return ret;
}

static int add_cpu(struct ckf_needs *n, const CpuinfoX86Entry *e, struct ckf_error *err)
{
	struct need_cpu *cpu;

	if (ckf_array_grow(&n->cpus, n->info.nr_cpus, &n->cpus_cap, sizeof(*n->cpus)))
		return no_memory(err);
	cpu = &n->cpus[n->info.nr_cpus++];
	*cpu = (struct need_cpu){
		.info = { .size = sizeof(cpu->info), .family = e->cpu_family, .model = e->model }
	};
	for (size_t i = 0; i < e->n_capability && i < CKF_CPU_WORDS; i++)
		cpu->info.words[cpu->info.nr_words++] = e->capability[i];
	snprintf(cpu->name, sizeof(cpu->name), "%s", e->model_id ? e->model_id : "");
	return 0;
}

static int take_cpus(struct ckf_needs *n, struct ckf_img *im, const uint8_t *rec, size_t bytes,
		     struct ckf_error *err)
{
	CpuinfoEntry *e = cpuinfo_entry__unpack(&im->alloc, bytes, rec);
	int ret = 0;

	if (!e)
		return ckf_img_bad(im, -EBADMSG, err, "not a cpuinfo entry");
	for (size_t i = 0; i < e->n_x86_entry && !ret; i++)
		ret = add_cpu(n, e->x86_entry[i], err);
	cpuinfo_entry__free_unpacked(e, NULL);
	return ret;
}

static int add_device(struct ckf_needs *n, const struct ckf_gpu_dump *gpu, uint32_t device,
		      struct ckf_error *err)
{
	const struct ckf_gpu_device *from = &gpu->devices[device];
	struct need_device *dev;

	if (ckf_array_grow(&n->devices, n->info.nr_devices, &n->devices_cap, sizeof(*n->devices)))
		return no_memory(err);
	dev = &n->devices[n->info.nr_devices++];
	*dev = (struct need_device){ .info = { .size = sizeof(dev->info),
					       .total_bytes = from->total_bytes,
					       .pid = gpu->pid } };
	memcpy(dev->info.uuid, from->uuid, sizeof(dev->info.uuid));
	memcpy(dev->name, from->name, sizeof(dev->name));
	for (uint32_t i = 0; i < gpu->nr_allocs; i++)
		if (gpu->allocs[i].device == device)
			dev->info.bytes += ckf_gpu_pages_bytes(&gpu->allocs[i]);
	return 0;
}

static int read_devices(struct ckf_needs *n, const struct ckf_dump *dump, struct ckf_error *err)
{
	int ret = 0;

	for (uint64_t i = 0; i < dump->nr_pagemaps; i++) {
		const struct ckf_gpu_dump *gpu = dump->pagemaps[i].gpu;

		for (uint32_t k = 0; gpu && k < gpu->nr_devices && !ret; k++)
			ret = add_device(n, gpu, k, err);
	}
	return ret;
}

static int read_all(struct ckf_needs *n, int dir_fd, const struct ckf_dump *dump,
		    struct ckf_error *err)
{
	char name[32];
	int ret;

	ret = needs_each_record(n, dir_fd, "pstree.img", CKF_PSTREE_MAGIC, take_process, err);
	if (!ret && !n->info.nr_ids)
		ret = ckf_error_set(err, -ENOENT, "no pstree.img, or no task in it");
	for (uint64_t i = 0; i < n->info.nr_ids && !ret; i++) {
		snprintf(name, sizeof(name), "core-%u.img", n->ids[i]);
		ret = needs_each_record(n, dir_fd, name, CKF_CORE_MAGIC, take_core, err);
	}
	if (!ret)
		ret = read_namespaces(n, dir_fd, err);
	if (!ret)
		ret = needs_each_record(n, dir_fd, "cpuinfo.img", CKF_CPUINFO_MAGIC, take_cpus,
					err);
	if (!ret)
		ret = read_devices(n, dump, err);
	if (!ret)
		ret = needs_read_files(n, dir_fd, dump, err);
	if (!ret)
		ret = needs_read_ttys(n, dir_fd, err);
	return ret;
}

int ckf_needs_read(int dir_fd, struct ckf_needs **out, struct ckf_error *err)
{
	struct ckf_needs *n = calloc(1, sizeof(*n));
	struct ckf_dump *dump = NULL;
	int ret;

	if (!n)
		return no_memory(err);
	n->info.size = sizeof(n->info);
	ret = ckf_dump_openat(dir_fd, ".", &dump, err);
	if (!ret)
		ret = read_all(n, dump->dir.fd, dump, err);
	ckf_dump_close(dump);
	if (ret) {
		ckf_needs_free(n);
		return ret;
	}
	*out = n;
	return 0;
}

void ckf_needs_free(struct ckf_needs *n)
{
	if (!n)
		return;
	for (uint64_t i = 0; i < n->info.nr_paths; i++)
		free(n->paths[i].path);
	free(n->paths);
	free(n->ids);
	free(n->devices);
	free(n->cpus);
	free(n->ttys);
	free(n);
}

int ckf_needs_get_info(const struct ckf_needs *n, struct ckf_needs_info *out)
{
	return ckf_opts_give(out, &n->info, sizeof(n->info));
}

int ckf_needs_get_id(const struct ckf_needs *n, uint64_t nr, uint32_t *id)
{
	if (nr >= n->info.nr_ids)
		return -EINVAL;
	*id = n->ids[nr];
	return 0;
}

int ckf_needs_get_path(const struct ckf_needs *n, uint64_t nr, struct ckf_path_info *out)
{
	const struct need_path *p = nr < n->info.nr_paths ? &n->paths[nr] : NULL;
	struct ckf_path_info info = { .size = sizeof(info) };

	if (!p)
		return -EINVAL;
	info.path = p->path;
	info.bytes = p->bytes;
	info.mode = p->mode;
	info.pid = p->pid;
	info.kind = p->kind;
	info.external = p->external;
	return ckf_opts_give(out, &info, sizeof(info));
}

int ckf_needs_get_device(const struct ckf_needs *n, uint64_t nr, struct ckf_device_need *out)
{
	struct ckf_device_need info;

	if (nr >= n->info.nr_devices)
		return -EINVAL;
	info = n->devices[nr].info;
	info.name = n->devices[nr].name;
	return ckf_opts_give(out, &info, sizeof(info));
}

int ckf_needs_get_cpu(const struct ckf_needs *n, uint64_t nr, struct ckf_cpu_need *out)
{
	struct ckf_cpu_need info;

	if (nr >= n->info.nr_cpus)
		return -EINVAL;
	info = n->cpus[nr].info;
	info.name = n->cpus[nr].name;
	return ckf_opts_give(out, &info, sizeof(info));
}
