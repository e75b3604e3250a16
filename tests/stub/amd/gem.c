/* SPDX-License-Identifier: MIT */
/*
 * Buffer objects of an open render node, as programs make them that do without /dev/kfd, and as
 * CRIU's plugin of criu-dev lists them and makes them again. They belong to the open file: its file
 * offset says which one it is, as with /dev/kfd.
 */
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "gem.h"
#include "memory.h"

#define SHOWN __attribute__((visibility("default")))

SHOWN int drmPrimeHandleToFD(int fd, uint32_t handle, uint32_t flags, int *dmabuf);
SHOWN int drmPrimeFDToHandle(int fd, int dmabuf, uint32_t *handle);

static void drop_node(struct amd_world *w, struct amd_node *n)
{
	for (uint32_t i = 0; i < n->nr; i++)
		amd_memory_clear(&w->gpus[n->gpu], n->objects[i].off, n->objects[i].bytes,
				 n->objects[i].domains & GEM_DOMAIN_VRAM);
	memset(n, 0, sizeof(*n));
}

static struct amd_node *find_node(struct amd_world *w, int fd)
{
	off_t nr = lseek(fd, 0, SEEK_CUR) - AMD_NODE_POS;

	return nr >= 0 && nr < AMD_MAX_NODES && w->nodes[nr].pid ? &w->nodes[nr] : NULL;
}

/* The objects of a file that has none yet are those of the process that makes the first one. */
static struct amd_node *make_node(struct amd_world *w, int fd, int gpu)
{
	struct amd_node *n = find_node(w, fd);

	for (int i = 0; i < AMD_MAX_NODES && !n; i++) {
		if (w->nodes[i].pid && kill(w->nodes[i].pid, 0) && errno == ESRCH)
			drop_node(w, &w->nodes[i]);
		if (w->nodes[i].pid || lseek(fd, AMD_NODE_POS + i, SEEK_SET) < 0)
			continue;
		n = &w->nodes[i];
		n->pid = getpid();
		n->gpu = (uint32_t)gpu;
	}
	return n;
}

static struct amd_gem *find_object(struct amd_node *n, uint32_t handle)
{
	for (uint32_t i = 0; n && i < n->nr; i++)
		if (n->objects[i].handle == handle)
			return &n->objects[i];
	return NULL;
}

static int create(struct amd_world *w, int fd, int gpu, union gem_create *a)
{
	struct amd_node *n = make_node(w, fd, gpu);
	struct amd_gpu *g = &w->gpus[gpu];
	struct amd_gem *o;

	if (!a->in.bytes || a->in.bytes % AMD_PAGE)
		return -EINVAL;
	if (!n || n->nr == AMD_MAX_GEM ||
	    (a->in.domains & GEM_DOMAIN_VRAM && a->in.bytes > g->vram_bytes - g->used_bytes))
		return -ENOMEM;
	o = &n->objects[n->nr++];
	*o = (struct amd_gem){
		/* CRIU takes objects of equal numbers for one that is shared. */
		.handle = ++w->last_handle, .domains = (uint32_t)a->in.domains,
		.bytes = a->in.bytes,	    .alignment = a->in.alignment,
		.flags = a->in.flags,	    .off = g->next_off,
	};
	g->next_off += o->bytes;
	if (o->domains & GEM_DOMAIN_VRAM)
		g->used_bytes += o->bytes;
	a->out.handle = o->handle;
	return 0;
}

static int map(struct amd_gem *o, const struct gem_va *a)
{
	if (!o || a->op != GEM_VA_MAP || a->off > o->bytes || a->bytes > o->bytes - a->off)
		return -EINVAL;
	if (o->nr_mappings == AMD_MAX_MAPPINGS)
		return -ENOMEM;
	o->mappings[o->nr_mappings++] = (struct amd_mapping){ a->addr, a->bytes, a->off, a->flags };
	return 0;
}

static int list_mappings(const struct amd_gem *o, struct gem_op *a)
{
	if (!o || a->op != GEM_OP_GET_MAPPINGS)
		return -EINVAL;
	static_assert(sizeof(struct gem_mapping) == sizeof(struct amd_mapping), "the same fields");
	if (a->nr >= o->nr_mappings)
		memcpy((void *)(uintptr_t)a->list, o->mappings,
		       o->nr_mappings * sizeof(o->mappings[0]));
	a->nr = o->nr_mappings;
	return 0;
}

static int list_objects(const struct amd_node *n, struct gem_list *a)
{
	struct gem_info *list = (void *)(uintptr_t)a->list;
	const uint32_t nr = n ? n->nr : 0;

	for (uint32_t i = 0; i < nr && nr <= a->nr; i++)
		list[i] = (struct gem_info){
			.handle = n->objects[i].handle,
			.bytes = n->objects[i].bytes,
			.domains = n->objects[i].domains,
			.alloc_flags = n->objects[i].flags,
			.alignment = n->objects[i].alignment,
		};
	a->nr = nr;
	return 0;
}

static int change_handle(struct amd_node *n, const struct gem_change *a)
{
	struct amd_gem *o = find_object(n, a->handle);

	if (!o)
		return -ENOENT;
	if (a->handle != a->new_handle && find_object(n, a->new_handle))
		return -EINVAL;
	o->handle = a->new_handle;
	return 0;
}

static int call(struct amd_world *w, int fd, int gpu, unsigned int nr, void *arg)
{
	struct amd_node *n = find_node(w, fd);
	union gem_mmap *m = arg;
	struct amd_gem *o;

	switch (nr) {
	case _IOC_NR(GEM_IOC_CREATE):
		return amd_fails("gem_create") ? -ENOMEM : create(w, fd, gpu, arg);
	case _IOC_NR(GEM_IOC_MMAP):
		o = find_object(n, m->handle);
		if (o)
			m->offset = o->off;
		return o ? 0 : -ENOENT;
	case _IOC_NR(GEM_IOC_VA):
		return map(find_object(n, ((struct gem_va *)arg)->handle), arg);
	case _IOC_NR(GEM_IOC_OP):
		return list_mappings(find_object(n, ((struct gem_op *)arg)->handle), arg);
	case _IOC_NR(GEM_IOC_LIST):
		return amd_fails("gem_list") ? -EIO : list_objects(n, arg);
	case _IOC_NR(GEM_IOC_CHANGE):
		return amd_fails("gem_change") ? -EINVAL : change_handle(n, arg);
	default:
		return -ENOTTY;
	}
}

int amd_gem_ioctl(struct amd_world *w, int fd, int gpu, unsigned long request, void *arg)
{
	int ret;

	amd_lock(w);
	ret = call(w, fd, gpu, _IOC_NR(request), arg);
	amd_unlock(w);
	return ret;
}

/* Of libdrm, as that plugin calls them. */
int drmPrimeHandleToFD(int fd, uint32_t handle, uint32_t flags, int *dmabuf)
{
	struct amd_world *w = amd_world();
	struct amd_gem o = { 0 }, *found;
	uint32_t gpu = 0;

	(void)flags;
	if (!w)
		return -ENODEV;
	amd_lock(w);
	found = find_object(find_node(w, fd), handle);
	if (found) {
		o = *found;
		gpu = find_node(w, fd)->gpu;
	}
	amd_unlock(w);
	*dmabuf = found ? amd_dmabuf_export(gpu, o.off, o.bytes) : -ENOENT;
	return *dmabuf < 0 ? *dmabuf : 0;
}

/* Nothing is imported: only what the file already has gets its handle back. */
int drmPrimeFDToHandle(int fd, int dmabuf, uint32_t *handle)
{
	struct amd_world *w = amd_world();
	struct amd_dmabuf d;
	struct amd_node *n;
	int ret = -EINVAL;

	if (!w || !amd_dmabuf_read(w, dmabuf, &d))
		return -EINVAL;
	amd_lock(w);
	n = find_node(w, fd);
	for (uint32_t i = 0; n && i < n->nr; i++) {
		if (n->gpu != d.gpu || n->objects[i].off != d.off)
			continue;
		*handle = n->objects[i].handle;
		ret = 0;
	}
	amd_unlock(w);
	return ret;
}
