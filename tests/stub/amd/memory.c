/* SPDX-License-Identifier: MIT */
/*
 * How memory of the fake is reached: by an address of the GPU, for the engines, and by mmap() of a
 * dma-buf, as for programs on a machine whose BAR shows all memory (AMD_BAR=0: it does not).
 */
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kfd.h"

#define SHOWN __attribute__((visibility("default")))

/* The objects of this process that engines have reached. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	uint64_t handle; /* 0: free */
	char *addr;
	uint64_t bytes;
} maps[AMD_MAX_BOS];

bool amd_dmabuf_read(const struct amd_world *w, int fd, struct amd_dmabuf *out)
{
	return pread(fd, out, sizeof(*out), 0) == sizeof(*out) && out->magic == AMD_DMABUF_MAGIC &&
	       out->gpu < w->nr_gpus;
}

void amd_memory_clear(struct amd_gpu *gpu, uint64_t off, uint64_t bytes, bool vram)
{
	char path[64];
	int fd;

	if (vram)
		gpu->used_bytes -= bytes;
	snprintf(path, sizeof(path), AMD_RENDER "%u", gpu->minor);
	fd = amd_raw_open(path, O_RDWR | O_CLOEXEC, 0);
	if (fd < 0)
		return;
	(void)fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)bytes);
	close(fd);
}

int amd_dmabuf_export(uint32_t gpu, uint64_t off, uint64_t bytes)
{
	const struct amd_dmabuf d = {
		.magic = AMD_DMABUF_MAGIC, .gpu = gpu, .off = off, .bytes = bytes
	};
	int fd = memfd_create("dmabuf", MFD_CLOEXEC);

	if (fd >= 0 && !amd_fails("export") && write(fd, &d, sizeof(d)) == sizeof(d))
		return fd;
	if (fd >= 0)
		close(fd);
	return -EMFILE;
}

static char *map_node(const struct amd_gpu *gpu, uint64_t off, uint64_t bytes, int flags)
{
	char path[64];
	void *addr;
	int fd;

	snprintf(path, sizeof(path), AMD_RENDER "%u", gpu->minor);
	fd = amd_raw_open(path, O_RDWR | O_CLOEXEC, 0);
	if (fd < 0)
		return NULL;
	addr = (void *)syscall(SYS_mmap, NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | flags,
			       fd, off);
	close(fd);
	return addr == MAP_FAILED ? NULL : addr;
}

static char *map_bo(const struct amd_world *w, const struct amd_bo *bo)
{
	char *addr = NULL;
	int i, free_nr = -1;

	pthread_mutex_lock(&lock);
	for (i = 0; i < AMD_MAX_BOS && maps[i].handle != bo->handle; i++)
		if (!maps[i].handle && free_nr < 0)
			free_nr = i;
	if (i < AMD_MAX_BOS) {
		addr = maps[i].addr;
	} else if (free_nr >= 0) {
		/* An engine has no page faults that take its time. */
		addr = map_node(&w->gpus[bo->gpu], bo->off, bo->bytes, MAP_POPULATE);
		if (addr) {
			maps[free_nr].handle = bo->handle;
			maps[free_nr].addr = addr;
			maps[free_nr].bytes = bo->bytes;
		}
	}
	pthread_mutex_unlock(&lock);
	return addr;
}

void amd_memory_drop(uint64_t handle)
{
	pthread_mutex_lock(&lock);
	for (int i = 0; i < AMD_MAX_BOS; i++) {
		if (maps[i].handle != handle)
			continue;
		munmap(maps[i].addr, maps[i].bytes);
		maps[i].handle = 0;
		break;
	}
	pthread_mutex_unlock(&lock);
}

char *amd_memory_at(struct amd_world *w, int slot, uint32_t gpu, uint64_t va, uint64_t bytes)
{
	const struct amd_proc *p = &w->procs[slot];
	struct amd_bo bo = { 0 };
	char *base;

	amd_lock(w);
	for (uint32_t i = 0; i < p->nr_bos; i++) {
		const struct amd_bo *b = &p->bos[i];

		if (b->mapped & 1u << gpu && va >= b->addr && va - b->addr <= b->bytes &&
		    bytes <= b->bytes - (va - b->addr))
			bo = *b;
	}
	amd_unlock(w);
	if (!bo.bytes)
		return NULL;
	base = bo.flags & KFD_MEM_USERPTR ? (char *)(uintptr_t)bo.user_addr : map_bo(w, &bo);
	return base ? base + (va - bo.addr) : NULL;
}

void amd_memory_map(struct amd_world *w, int slot, uint64_t handle)
{
	const struct amd_proc *p = &w->procs[slot];
	struct amd_bo bo = { 0 };

	amd_lock(w);
	for (uint32_t i = 0; i < p->nr_bos; i++)
		if (p->bos[i].handle == handle)
			bo = p->bos[i];
	amd_unlock(w);
	if (bo.bytes && bo.flags & (KFD_MEM_VRAM | KFD_MEM_GTT))
		map_bo(w, &bo);
}

/* A dma-buf shows the memory of its object, and all others what they are. */
static void *map_any(void *addr, size_t bytes, int prot, int flags, int fd, off_t off)
{
	const char *bar = getenv("AMD_BAR");
	struct amd_world *w = fd >= 0 && flags & MAP_SHARED ? amd_world() : NULL;
	struct amd_dmabuf d;
	int saved = errno;
	void *ret;

	if (!w || !amd_dmabuf_read(w, fd, &d)) {
		errno = saved;
		return (void *)syscall(SYS_mmap, addr, bytes, prot, flags, fd, off);
	}
	if ((bar && !atoi(bar)) || amd_fails("dmabuf_map")) {
		errno = EPERM;
		return MAP_FAILED;
	}
	ret = off || bytes > d.bytes ? NULL : map_node(&w->gpus[d.gpu], d.off, bytes, 0);
	if (ret)
		return ret;
	errno = EINVAL;
	return MAP_FAILED;
}

#define MMAP(name, symbol)                                                                 \
	SHOWN void *name(void *addr, size_t bytes, int prot, int flags, int fd,            \
			 off_t off) __asm__(symbol);                                       \
	SHOWN void *name(void *addr, size_t bytes, int prot, int flags, int fd, off_t off) \
	{                                                                                  \
		return map_any(addr, bytes, prot, flags, fd, off);                         \
	}

MMAP(fake_mmap, "mmap")
MMAP(fake_mmap64, "mmap64")
