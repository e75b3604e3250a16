/* SPDX-License-Identifier: MIT */
/* /dev/kfd: what opening it does, and its calls. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gem.h"
#include "kfd.h"
#include "memory.h"
#include "queue.h"

#define SHOWN __attribute__((visibility("default")))
#define WITH_CONTENTS (KFD_MEM_VRAM | KFD_MEM_GTT)
#define NO_FD UINT32_MAX

/* What the driver keeps to itself, in priv_data. */
struct private_bo {
	uint64_t handle;
	uint64_t user_addr;
};
struct private_data {
	uint64_t magic;
	struct private_bo bos[];
};

static uint64_t private_bytes(uint32_t nr_bos)
{
	return sizeof(struct private_data) + nr_bos * sizeof(struct private_bo);
}

static void drop_bo(struct amd_world *w, struct amd_bo *bo)
{
	if (!bo->imported && bo->flags & WITH_CONTENTS)
		amd_memory_clear(&w->gpus[bo->gpu], bo->off, bo->bytes, bo->flags & KFD_MEM_VRAM);
}

static void drop_proc(struct amd_world *w, struct amd_proc *p)
{
	for (uint32_t i = 0; i < p->nr_bos; i++)
		drop_bo(w, &p->bos[i]);
	memset(p, 0, sizeof(*p));
}

/* The slot of a process, or else a free one; those of processes that have ended are freed. */
static int find_proc(struct amd_world *w, pid_t pid)
{
	int free_slot = -1;

	for (int i = 0; i < AMD_MAX_PROCS; i++) {
		struct amd_proc *p = &w->procs[i];

		if (p->pid && kill(p->pid, 0) && errno == ESRCH)
			drop_proc(w, p);
		if (p->pid == pid)
			return i;
		if (!p->pid && free_slot < 0)
			free_slot = i;
	}
	return free_slot;
}

static int join_proc(struct amd_world *w)
{
	static pid_t joined;
	int slot = find_proc(w, getpid());

	if (slot < 0)
		return slot;
	/* A process that had the same number once has left it. */
	if (joined != getpid())
		drop_proc(w, &w->procs[slot]);
	joined = getpid();
	w->procs[slot].pid = getpid();
	for (uint32_t i = 0; i < w->nr_gpus; i++)
		if (!w->procs[slot].user_gpu_id[i])
			w->procs[slot].user_gpu_id[i] = w->gpus[i].gpu_id;
	return slot;
}

static int open_kfd(int flags)
{
	struct amd_world *w = amd_world();
	int slot, fd = amd_raw_open(AMD_KFD, flags, 0);

	if (fd < 0 || !w)
		return fd;
	amd_lock(w);
	slot = join_proc(w);
	amd_unlock(w);
	if (slot < 0 || amd_fails("open") || lseek(fd, AMD_PROC_POS + slot, SEEK_SET) < 0) {
		close(fd);
		errno = ENOMEM;
		return -1;
	}
	return fd;
}

static int open_any(const char *path, int flags, mode_t mode)
{
	return strcmp(path, AMD_KFD) ? amd_raw_open(path, flags, mode) : open_kfd(flags);
}

#define OPEN(name, symbol)                                                 \
	SHOWN int name(const char *path, int flags, ...) __asm__(symbol);  \
	SHOWN int name(const char *path, int flags, ...)                   \
	{                                                                  \
		mode_t mode = 0;                                           \
		va_list ap;                                                \
                                                                           \
		if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) { \
			va_start(ap, flags);                               \
			mode = va_arg(ap, mode_t);                         \
			va_end(ap);                                        \
		}                                                          \
		return open_any(path, flags, mode);                        \
	}

OPEN(fake_open, "open")
OPEN(fake_open64, "open64")

/* Gives bo its place; its bytes, flags and GPU are set. */
static int place_bo(struct amd_world *w, int slot, struct amd_bo *bo)
{
	struct amd_gpu *gpu = &w->gpus[bo->gpu];

	if (!bo->bytes || bo->bytes % AMD_PAGE)
		return -EINVAL;
	if (bo->flags & KFD_MEM_VRAM) {
		if (bo->bytes > gpu->vram_bytes - gpu->used_bytes)
			return -ENOMEM;
		gpu->used_bytes += bo->bytes;
	}
	if (bo->flags & WITH_CONTENTS) {
		bo->off = gpu->next_off;
		gpu->next_off += bo->bytes;
	} else if (bo->flags & KFD_MEM_DOORBELL) {
		bo->off = AMD_DOORBELL_OFF +
			  ((uint64_t)slot * AMD_MAX_GPUS + bo->gpu) * AMD_DOORBELL_STEP;
	} else if (bo->flags & KFD_MEM_MMIO) {
		bo->off = AMD_MMIO_OFF;
	}
	return 0;
}

static int alloc_memory(struct amd_world *w, int slot, struct kfd_alloc *a)
{
	struct amd_proc *p = &w->procs[slot];
	struct amd_bo bo = { .addr = a->addr, .bytes = a->bytes, .flags = a->flags };
	int ret, gpu = amd_find_gpu(w, p, a->gpu_id);

	if (gpu < 0)
		return -EINVAL;
	if (p->nr_bos == AMD_MAX_BOS)
		return -ENOMEM;
	bo.gpu = (uint32_t)gpu;
	bo.handle = ++p->next_handle;
	if (a->flags & KFD_MEM_USERPTR)
		bo.user_addr = a->mmap_offset;
	ret = place_bo(w, slot, &bo);
	if (ret)
		return ret;
	p->bos[p->nr_bos++] = bo;
	a->handle = bo.handle;
	a->mmap_offset = bo.off;
	return 0;
}

static int free_memory(struct amd_world *w, int slot, struct kfd_free *a)
{
	struct amd_proc *p = &w->procs[slot];

	for (uint32_t i = 0; i < p->nr_bos; i++) {
		if (p->bos[i].handle != a->handle)
			continue;
		amd_memory_drop(a->handle);
		drop_bo(w, &p->bos[i]);
		p->bos[i] = p->bos[--p->nr_bos];
		return 0;
	}
	return -EINVAL;
}

static int set_mapped(struct amd_world *w, int slot, struct kfd_map *a, bool on)
{
	const uint32_t *ids = (const uint32_t *)(uintptr_t)a->gpu_ids;
	struct amd_proc *p = &w->procs[slot];
	struct amd_bo *bo = NULL;

	for (uint32_t i = 0; i < p->nr_bos; i++)
		if (p->bos[i].handle == a->handle)
			bo = &p->bos[i];
	if (!bo)
		return -EINVAL;
	for (a->nr_done = 0; a->nr_done < a->nr; a->nr_done++) {
		int gpu = amd_find_gpu(w, p, ids[a->nr_done]);

		if (gpu < 0)
			return -EINVAL;
		if (on)
			bo->mapped |= 1u << gpu;
		else
			bo->mapped &= ~(1u << gpu);
	}
	return 0;
}

static int dmabuf_info(const struct amd_world *w, int slot, struct kfd_dmabuf_info *a)
{
	struct amd_dmabuf d;

	if (!amd_dmabuf_read(w, (int)a->fd, &d))
		return -EINVAL;
	a->bytes = d.bytes;
	a->metadata_bytes = 0;
	a->gpu_id = w->procs[slot].user_gpu_id[d.gpu];
	a->flags = KFD_MEM_VRAM;
	return 0;
}

static int import_dmabuf(struct amd_world *w, int slot, struct kfd_import *a)
{
	struct amd_proc *p = &w->procs[slot];
	struct amd_dmabuf d;

	if (!amd_dmabuf_read(w, (int)a->fd, &d) || amd_find_gpu(w, p, a->gpu_id) != (int)d.gpu)
		return -EINVAL;
	if (p->nr_bos == AMD_MAX_BOS)
		return -ENOMEM;
	p->bos[p->nr_bos++] = (struct amd_bo){
		.handle = a->handle = ++p->next_handle,
		.addr = a->addr,
		.bytes = d.bytes,
		.off = d.off,
		.gpu = d.gpu,
		.flags = KFD_MEM_VRAM,
		.imported = true,
	};
	return 0;
}

/* All of the address space of a process is the GPU's, too. */
static int apertures(const struct amd_world *w, int slot, struct kfd_apertures *a)
{
	struct kfd_aperture *list = (struct kfd_aperture *)(uintptr_t)a->list;

	for (uint32_t i = 0; i < w->nr_gpus && i < a->nr; i++)
		list[i] = (struct kfd_aperture){
			.lds_base = 1ull << 48,
			.lds_limit = (1ull << 48) + UINT32_MAX,
			.scratch_base = 1ull << 49,
			.scratch_limit = (1ull << 49) + UINT32_MAX,
			.vm_base = 1ull << 14,
			.vm_limit = (1ull << 47) - 1,
			.gpu_id = w->procs[slot].user_gpu_id[i],
		};
	a->nr = w->nr_gpus;
	return 0;
}

/* A process that was restored has its address spaces from that, by other open render nodes. */
static int acquire(const struct amd_world *w, int slot, const struct kfd_acquire *a)
{
	const struct amd_proc *p = &w->procs[slot];
	int gpu = amd_find_gpu(w, p, a->gpu_id);

	if (gpu < 0 || amd_render_gpu(w, (int)a->drm_fd) != gpu)
		return -EINVAL;
	return p->restored ? -EBUSY : 0;
}

static int process_info(struct amd_world *w, int slot, struct kfd_criu *a)
{
	struct amd_proc *p = &w->procs[slot];

	if (p->paused)
		return -EINVAL;
	p->paused = true;
	a->pid = (uint32_t)p->pid;
	a->nr_devices = w->nr_gpus;
	a->nr_bos = p->nr_bos;
	a->nr_objects = p->nr_bos;
	a->priv_bytes = private_bytes(p->nr_bos);
	return 0;
}

static int export_bo(const struct amd_bo *bo)
{
	return amd_dmabuf_export(bo->gpu, bo->off, bo->bytes);
}

static int checkpoint(struct amd_world *w, int slot, struct kfd_criu *a)
{
	struct kfd_criu_device *devices = (void *)(uintptr_t)a->devices;
	struct kfd_criu_bo *bos = (void *)(uintptr_t)a->bos;
	struct private_data *priv = (void *)(uintptr_t)a->priv_data;
	struct amd_proc *p = &w->procs[slot];

	if (!p->paused || a->nr_devices != w->nr_gpus || a->nr_bos != p->nr_bos ||
	    a->priv_bytes != private_bytes(p->nr_bos))
		return -EINVAL;
	for (uint32_t i = 0; i < w->nr_gpus; i++)
		devices[i] = (struct kfd_criu_device){ .user_gpu_id = p->user_gpu_id[i],
						       .actual_gpu_id = w->gpus[i].gpu_id };
	priv->magic = AMD_MAGIC;
	for (uint32_t i = 0; i < p->nr_bos; i++) {
		const struct amd_bo *bo = &p->bos[i];
		int fd = bo->flags & WITH_CONTENTS ? export_bo(bo) : (int)NO_FD;

		if (fd < 0 && bo->flags & WITH_CONTENTS)
			return fd;
		bos[i] = (struct kfd_criu_bo){
			.addr = bo->addr,
			.bytes = bo->bytes,
			.offset = bo->off,
			.gpu_id = p->user_gpu_id[bo->gpu],
			.flags = bo->flags,
			.dmabuf_fd = (uint32_t)fd,
		};
		priv->bos[i] = (struct private_bo){ bo->handle, bo->user_addr };
	}
	return 0;
}

static int restore_devices(const struct amd_world *w, struct amd_proc *p, const struct kfd_criu *a)
{
	const struct kfd_criu_device *d = (void *)(uintptr_t)a->devices;

	for (uint32_t i = 0; i < a->nr_devices; i++) {
		int gpu = amd_render_gpu(w, (int)d[i].drm_fd);

		if (gpu < 0 || w->gpus[gpu].gpu_id != d[i].actual_gpu_id)
			return -EINVAL;
		p->user_gpu_id[gpu] = d[i].user_gpu_id;
	}
	return 0;
}

static int restore(struct amd_world *w, int slot, struct kfd_criu *a)
{
	struct kfd_criu_bo *bos = (void *)(uintptr_t)a->bos;
	const struct private_data *priv = (void *)(uintptr_t)a->priv_data;
	struct amd_proc *p = &w->procs[slot];
	int ret;

	if (p->nr_bos || a->nr_bos > AMD_MAX_BOS || a->nr_objects != a->nr_bos ||
	    a->priv_bytes != private_bytes(a->nr_bos) || priv->magic != AMD_MAGIC)
		return -EINVAL;
	ret = restore_devices(w, p, a);
	for (uint32_t i = 0; i < a->nr_bos && !ret; i++) {
		struct amd_bo *bo = &p->bos[i];
		int fd, gpu = amd_find_gpu(w, p, bos[i].gpu_id);

		if (gpu < 0)
			return -EINVAL;
		*bo = (struct amd_bo){
			.handle = priv->bos[i].handle,
			.addr = bos[i].addr,
			.bytes = bos[i].bytes,
			.user_addr = priv->bos[i].user_addr,
			.gpu = (uint32_t)gpu,
			.flags = bos[i].flags,
		};
		ret = place_bo(w, slot, bo);
		if (ret)
			break;
		p->nr_bos++;
		if (bo->handle > p->next_handle)
			p->next_handle = bo->handle;
		fd = bo->flags & WITH_CONTENTS ? export_bo(bo) : (int)NO_FD;
		ret = fd < 0 && bo->flags & WITH_CONTENTS ? fd : 0;
		bos[i].restored_offset = bo->off;
		bos[i].dmabuf_fd = (uint32_t)fd;
	}
	p->restored = true;
	p->paused = !ret; /* until RESUME */
	return ret;
}

static int unpause(struct amd_proc *p)
{
	if (!p->pid)
		return -ESRCH;
	if (!p->paused)
		return -EINVAL;
	p->paused = false;
	return 0;
}

static int criu_op(struct amd_world *w, int slot, struct kfd_criu *a)
{
	static const char *const names[] = { "process_info", "checkpoint", "unpause", "restore",
					     "resume" };

	if (a->op >= sizeof(names) / sizeof(names[0]))
		return -EINVAL;
	if (amd_fails(names[a->op]))
		return -EIO;
	switch (a->op) {
	case KFD_CRIU_PROCESS_INFO:
		return process_info(w, slot, a);
	case KFD_CRIU_CHECKPOINT:
		return checkpoint(w, slot, a);
	case KFD_CRIU_UNPAUSE:
		return unpause(&w->procs[slot]);
	case KFD_CRIU_RESTORE:
		return restore(w, slot, a);
	default:
		slot = find_proc(w, (pid_t)a->pid);
		return slot < 0 ? -ESRCH : unpause(&w->procs[slot]);
	}
}

static int kfd_ioctl(struct amd_world *w, int slot, unsigned long request, void *arg)
{
	struct kfd_version *version = arg;

	switch (request) {
	case KFD_IOC_VERSION:
		version->major = KFD_VERSION_MAJOR;
		version->minor = KFD_VERSION_MINOR;
		return amd_fails("version") ? -EIO : 0;
	case KFD_IOC_ALLOC:
		return amd_fails("alloc") ? -ENOMEM : alloc_memory(w, slot, arg);
	case KFD_IOC_FREE:
		return amd_fails("free") ? -EIO : free_memory(w, slot, arg);
	case KFD_IOC_POLICY:
		return amd_fails("policy") ? -EIO : 0;
	case KFD_IOC_APERTURES:
		return amd_fails("apertures") ? -EIO : apertures(w, slot, arg);
	case KFD_IOC_ACQUIRE:
		return amd_fails("acquire") ? -EIO : acquire(w, slot, arg);
	case KFD_IOC_MAP:
		return amd_fails("map") ? -ENOMEM : set_mapped(w, slot, arg, true);
	case KFD_IOC_UNMAP:
		return amd_fails("unmap") ? -EIO : set_mapped(w, slot, arg, false);
	case KFD_IOC_DMABUF_INFO:
		return amd_fails("dmabuf_info") ? -EIO : dmabuf_info(w, slot, arg);
	case KFD_IOC_IMPORT:
		return amd_fails("dmabuf_import") ? -ENOMEM : import_dmabuf(w, slot, arg);
	case KFD_IOC_CRIU:
		return criu_op(w, slot, arg);
	default:
		return -ENOTTY;
	}
}

/* Queues take the lock themselves, in their threads. */
static int locked_ioctl(struct amd_world *w, int slot, unsigned long request, void *arg)
{
	int ret;

	if (request == KFD_IOC_QUEUE)
		return amd_fails("queue") ? -ENOMEM : amd_queue_create(w, slot, arg);
	if (request == KFD_IOC_QUEUE_END)
		return amd_queue_destroy(((const struct kfd_queue_id *)arg)->queue_id);
	amd_lock(w);
	ret = kfd_ioctl(w, slot, request, arg);
	amd_unlock(w);
	return ret;
}

SHOWN int ioctl(int fd, unsigned long request, ...)
{
	struct amd_world *w;
	off_t slot;
	va_list ap;
	void *arg;
	int ret, gpu;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	w = _IOC_TYPE(request) == GEM_IOC_TYPE ? amd_world() : NULL;
	gpu = w ? amd_render_gpu(w, fd) : -1;
	if (gpu >= 0) {
		ret = amd_gem_ioctl(w, fd, gpu, request, arg);
		if (ret)
			errno = -ret;
		return ret ? -1 : 0;
	}
	w = _IOC_TYPE(request) == KFD_IOC_TYPE ? amd_world() : NULL;
	slot = w ? lseek(fd, 0, SEEK_CUR) - AMD_PROC_POS : -1;
	if (slot < 0 || slot >= AMD_MAX_PROCS)
		return (int)syscall(SYS_ioctl, fd, request, arg);
	ret = locked_ioctl(w, (int)slot, request, arg);
	/* It takes its time here, and not that of an engine. */
	if (!ret && request == KFD_IOC_MAP)
		amd_memory_map(w, (int)slot, ((struct kfd_map *)arg)->handle);
	if (!ret)
		return 0;
	errno = -ret;
	return -1;
}
