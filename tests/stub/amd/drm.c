/* SPDX-License-Identifier: MIT */
/*
 * The functions of libdrm_amdgpu.so.1 that CRIU's plugin calls. The types are those of its header,
 * as far as they matter here.
 *
 * Commands run at once, in the thread that submits them, as the SDMA engine would run them.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory.h"
#include "sdma.h"

#pragma GCC visibility push(default)

#define FAMILY_AI 141u /* of GPUs since Vega */
#define VA_OP_MAP 1u
#define VA_OP_UNMAP 2u
#define IMPORT_DMABUF 2u
#define IP_DMA 2u
#define MAX_VAS 256

struct device {
	struct amd_world *world;
	int fd;
	uint32_t gpu;
	pthread_mutex_t lock;
	uint64_t next_va;
	uint64_t seq_no;
	struct {
		char *cpu;
		uint64_t va;
		uint64_t bytes;
	} vas[MAX_VAS]; /* bytes 0: free */
};

struct bo {
	char *cpu;
	uint64_t bytes;
	bool mapped; /* by this library */
};

struct alloc_request {
	uint64_t bytes;
	uint64_t alignment;
	uint32_t heap;
	uint64_t flags;
};

struct import_result {
	struct bo *bo;
	uint64_t bytes;
};

struct ib_info {
	uint64_t flags;
	uint64_t va;
	uint32_t dwords;
};

struct request {
	uint64_t flags;
	unsigned int ip_type;
	unsigned int ip_instance;
	uint32_t ring;
	void *resources;
	uint32_t nr_dependencies;
	void *dependencies;
	uint32_t nr_ibs;
	struct ib_info *ibs;
	uint64_t seq_no;
};

struct fence {
	void *context;
	uint32_t ip_type;
	uint32_t ip_instance;
	uint32_t ring;
	uint64_t seq_no;
};

struct gpu_info {
	uint32_t asic_id;
	uint32_t chip_rev;
	uint32_t chip_external_rev;
	uint32_t family_id;
};

int amdgpu_device_initialize(int fd, uint32_t *major, uint32_t *minor, struct device **out);
int amdgpu_device_deinitialize(struct device *d);
int amdgpu_device_get_fd(struct device *d);
int amdgpu_query_gpu_info(struct device *d, struct gpu_info *info);
const char *amdgpu_get_marketing_name(struct device *d);
int amdgpu_bo_alloc(struct device *d, const struct alloc_request *r, struct bo **out);
int amdgpu_create_bo_from_user_mem(struct device *d, void *cpu, uint64_t bytes, struct bo **out);
int amdgpu_bo_import(struct device *d, uint32_t type, uint32_t fd, struct import_result *out);
int amdgpu_bo_free(struct bo *bo);
int amdgpu_bo_cpu_map(struct bo *bo, void **cpu);
int amdgpu_bo_cpu_unmap(struct bo *bo);
int amdgpu_bo_list_create(struct device *d, uint32_t nr, struct bo **bos, uint8_t *prios,
			  void **out);
int amdgpu_bo_list_destroy(void *list);
int amdgpu_va_range_alloc(struct device *d, uint32_t type, uint64_t bytes, uint64_t alignment,
			  uint64_t want, uint64_t *va, struct device **out, uint64_t flags);
int amdgpu_va_range_free(struct device *d);
int amdgpu_bo_va_op(struct bo *bo, uint64_t off, uint64_t bytes, uint64_t va, uint64_t flags,
		    uint32_t op);
int amdgpu_cs_ctx_create(struct device *d, struct device **out);
int amdgpu_cs_ctx_free(struct device *d);
int amdgpu_cs_submit(struct device *d, uint64_t flags, struct request *r, uint32_t nr);
int amdgpu_cs_query_fence_status(struct fence *f, uint64_t timeout, uint64_t flags,
				 uint32_t *expired);

static uint64_t whole_pages(uint64_t bytes)
{
	return (bytes + AMD_PAGE - 1) / AMD_PAGE * AMD_PAGE;
}

/* amdgpu_bo_va_op() is not told the device: objects of a thread are those of its last device. */
static __thread struct device *current;

int amdgpu_device_initialize(int fd, uint32_t *major, uint32_t *minor, struct device **out)
{
	struct amd_world *w = amd_world();
	int gpu = w ? amd_render_gpu(w, fd) : -1;
	struct device *d;

	if (gpu < 0 || amd_fails("device"))
		return -ENODEV;
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->world = w;
	d->fd = fd;
	d->gpu = (uint32_t)gpu;
	d->next_va = 1ull << 32;
	pthread_mutex_init(&d->lock, NULL);
	*major = 3;
	*minor = 49;
	*out = current = d;
	return 0;
}

int amdgpu_device_deinitialize(struct device *d)
{
	pthread_mutex_destroy(&d->lock);
	free(d);
	return 0;
}

int amdgpu_device_get_fd(struct device *d)
{
	return d->fd;
}

int amdgpu_query_gpu_info(struct device *d, struct gpu_info *info)
{
	(void)d;
	info->family_id = FAMILY_AI;
	return amd_fails("info") ? -EIO : 0;
}

/* For libhsakmt. */
const char *amdgpu_get_marketing_name(struct device *d)
{
	(void)d;
	return "Fake";
}

static int new_bo(void *cpu, uint64_t bytes, bool mapped, struct bo **out)
{
	struct bo *bo = malloc(sizeof(*bo));

	if (!bo)
		return -ENOMEM;
	*bo = (struct bo){ cpu, bytes, mapped };
	*out = bo;
	return 0;
}

int amdgpu_bo_alloc(struct device *d, const struct alloc_request *r, struct bo **out)
{
	void *cpu;

	(void)d;
	if (amd_fails("bo"))
		return -ENOMEM;
	cpu = mmap(NULL, r->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return cpu == MAP_FAILED ? -ENOMEM : new_bo(cpu, r->bytes, true, out);
}

int amdgpu_create_bo_from_user_mem(struct device *d, void *cpu, uint64_t bytes, struct bo **out)
{
	(void)d;
	return amd_fails("userptr") ? -EFAULT : new_bo(cpu, bytes, false, out);
}

int amdgpu_bo_import(struct device *d, uint32_t type, uint32_t fd, struct import_result *out)
{
	struct amd_dmabuf buf;
	char path[64];
	void *cpu;
	int node;

	if (type != IMPORT_DMABUF || amd_fails("import") ||
	    !amd_dmabuf_read(d->world, (int)fd, &buf))
		return -EINVAL;
	snprintf(path, sizeof(path), AMD_RENDER "%u", d->world->gpus[buf.gpu].minor);
	node = amd_raw_open(path, O_RDWR | O_CLOEXEC, 0);
	if (node < 0)
		return -errno;
	cpu = mmap(NULL, buf.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, node, (off_t)buf.off);
	close(node);
	if (cpu == MAP_FAILED)
		return -ENOMEM;
	out->bytes = buf.bytes;
	return new_bo(cpu, buf.bytes, true, &out->bo);
}

int amdgpu_bo_free(struct bo *bo)
{
	if (bo->mapped)
		munmap(bo->cpu, bo->bytes);
	free(bo);
	return 0;
}

int amdgpu_bo_cpu_map(struct bo *bo, void **cpu)
{
	*cpu = bo->cpu;
	return amd_fails("cpu_map") ? -ENOMEM : 0;
}

int amdgpu_bo_cpu_unmap(struct bo *bo)
{
	(void)bo;
	return 0;
}

int amdgpu_bo_list_create(struct device *d, uint32_t nr, struct bo **bos, uint8_t *prios,
			  void **out)
{
	(void)nr;
	(void)bos;
	(void)prios;
	*out = d;
	return amd_fails("list") ? -ENOMEM : 0;
}

int amdgpu_bo_list_destroy(void *list)
{
	(void)list;
	return 0;
}

int amdgpu_va_range_alloc(struct device *d, uint32_t type, uint64_t bytes, uint64_t alignment,
			  uint64_t want, uint64_t *va, struct device **out, uint64_t flags)
{
	(void)type;
	(void)alignment;
	(void)want;
	(void)flags;
	if (amd_fails("va"))
		return -ENOMEM;
	pthread_mutex_lock(&d->lock);
	*va = d->next_va;
	/* What is beyond an object is mapped to nothing. */
	d->next_va += whole_pages(bytes) + AMD_PAGE;
	pthread_mutex_unlock(&d->lock);
	*out = current = d;
	return 0;
}

int amdgpu_va_range_free(struct device *d)
{
	(void)d;
	return 0;
}

int amdgpu_bo_va_op(struct bo *bo, uint64_t off, uint64_t bytes, uint64_t va, uint64_t flags,
		    uint32_t op)
{
	struct device *d = current;
	int ret = -EINVAL;

	(void)flags;
	/* GPUs map whole pages: the plugin lets its commands end in the rest of one. */
	bytes = whole_pages(bytes);
	if (op == VA_OP_MAP && (amd_fails("va_map") || off + bytes > whole_pages(bo->bytes)))
		return -EINVAL;
	pthread_mutex_lock(&d->lock);
	for (int i = 0; i < MAX_VAS && ret; i++) {
		if (op == VA_OP_MAP && !d->vas[i].bytes) {
			d->vas[i].cpu = bo->cpu + off;
			d->vas[i].va = va;
			d->vas[i].bytes = bytes;
			ret = 0;
		} else if (op == VA_OP_UNMAP && d->vas[i].bytes && d->vas[i].va == va) {
			d->vas[i].bytes = 0;
			ret = 0;
		}
	}
	pthread_mutex_unlock(&d->lock);
	return ret;
}

int amdgpu_cs_ctx_create(struct device *d, struct device **out)
{
	*out = d;
	return amd_fails("ctx") ? -ENOMEM : 0;
}

int amdgpu_cs_ctx_free(struct device *d)
{
	(void)d;
	return 0;
}

/* The memory behind an address, or NULL where not all of it is mapped. */
static char *at(void *arg, uint64_t va, uint64_t bytes)
{
	struct device *d = arg;

	for (int i = 0; i < MAX_VAS; i++)
		if (d->vas[i].bytes && va >= d->vas[i].va &&
		    va - d->vas[i].va + bytes <= d->vas[i].bytes)
			return d->vas[i].cpu + (va - d->vas[i].va);
	return NULL;
}

static int run_ib(struct device *d, const struct ib_info *ib)
{
	struct amd_sdma s = { .at = at, .arg = d, .gpu = &d->world->gpus[d->gpu] };
	const uint32_t *p = (const uint32_t *)at(d, ib->va, 4ull * ib->dwords);
	int n = p ? 0 : -EFAULT;

	amd_sdma_wake(&s);
	for (uint32_t i = 0; i < ib->dwords && n >= 0; i += (uint32_t)n)
		n = amd_sdma_packet(&s, p + i, ib->dwords - i);
	return n < 0 ? n : 0;
}

int amdgpu_cs_submit(struct device *d, uint64_t flags, struct request *r, uint32_t nr)
{
	int ret = 0;

	(void)flags;
	if (nr != 1 || r->ip_type != IP_DMA || amd_fails("submit"))
		return -EINVAL;
	pthread_mutex_lock(&d->lock);
	for (uint32_t i = 0; i < r->nr_ibs && !ret; i++)
		ret = run_ib(d, &r->ibs[i]);
	r->seq_no = ++d->seq_no;
	pthread_mutex_unlock(&d->lock);
	return ret;
}

int amdgpu_cs_query_fence_status(struct fence *f, uint64_t timeout, uint64_t flags,
				 uint32_t *expired)
{
	(void)f;
	(void)timeout;
	(void)flags;
	*expired = !amd_fails("fence");
	return 0;
}
