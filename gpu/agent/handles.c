/* SPDX-License-Identifier: MIT */
/*
 * Memory that the application makes itself with the virtual memory API: handles of our own in place
 * of the driver's, and views, which say where the memory is mapped. So it can be taken away and
 * given back like allocations that the agent made, wherever it is mapped, if anywhere.
 *
 * The table's lock is not held while the driver is called. A call that has the driver's handle is
 * counted with the memory meanwhile, and such memory stays when the rest is taken away: a thread
 * that waits inside of the driver goes on with that handle.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "format/ckf_gpu_dump.h"
#include "agent.h"

bool agent_may_own(const CUmemAllocationProp *prop, size_t bytes, unsigned long long flags)
{
	return prop && bytes && bytes % AGENT_GRAIN == 0 && !flags &&
	       prop->type == CU_MEM_ALLOCATION_TYPE_PINNED &&
	       prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE && prop->location.id >= 0 &&
	       prop->location.id < AGENT_MAX_DEVICES &&
	       !(prop->requestedHandleTypes & ~CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) &&
	       /* Memory that is given back is made anew: compressed or for sparse arrays it is not.
		*/
	       !prop->allocFlags.compressionType && !prop->allocFlags.usage;
}

/* As long as it is there, the driver cannot restore the process. */
static bool stays_imported(const struct agent_alloc *a)
{
	return a->imported && a->own.shared;
}

/* Gives it a handle. Memory that cannot be noted is released. */
static CUresult note(const struct ckf_cuda *cu, struct agent_alloc *a,
		     CUmemGenericAllocationHandle *out)
{
	/* Work that uses it may be of any context; this is the one that most likely does. */
	if (cu->ctx_get_current(&a->ctx))
		a->ctx = NULL;
	pthread_mutex_lock(&agent_table.lock);
	a->addr = AGENT_HANDLES + agent_table.next_handle;
	agent_table.next_handle += a->bytes;
	pthread_mutex_unlock(&agent_table.lock);
	if (!agent_insert(a)) {
		agent_discard(cu, a);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	if (stays_imported(a))
		__atomic_add_fetch(&agent_block.imports, 1, __ATOMIC_RELAXED);
	*out = a->addr;
	return CUDA_SUCCESS;
}

CUresult agent_own_create(const struct ckf_cuda *cu, size_t bytes, const CUmemAllocationProp *prop,
			  CUmemGenericAllocationHandle *out)
{
	struct agent_alloc a = {
		.bytes = bytes,
		.asked = bytes,
		.device = prop->location.id,
		.flags = prop->allocFlags.gpuDirectRDMACapable ? CKF_GPU_ALLOC_RDMA : 0,
		.fd = -1,
		.held = true,
		.mapped = true,
		.own = { .prop = *prop, .refs = 1 },
	};
	CUmemAllocationProp shareable = *prop;
	CUresult res;

	shareable.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
	res = cu->mem_create(&a.handle, bytes, &shareable, 0);
	return res ? res : note(cu, &a, out);
}

CUresult agent_own_imported(const struct ckf_cuda *cu, CUmemGenericAllocationHandle real,
			    const CUmemAllocationProp *prop, int fd,
			    CUmemGenericAllocationHandle *out)
{
	struct agent_alloc a = {
		.bytes = AGENT_GRAIN, /* only the driver and the exporter know how many */
		.device = prop->location.id,
		.handle = real,
		.fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, AGENT_KEEP_FD),
		.held = true,
		.mapped = true,
		.imported = true,
		.own = { .prop = *prop, .refs = 1 },
	};

	a.own.shared = a.fd < 0 || prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE;
	return note(cu, &a, out);
}

/* With the lock held: the memory, unless the application has given its handle up. */
static struct agent_alloc *own_of(CUmemGenericAllocationHandle handle)
{
	struct agent_alloc *a = agent_at(handle);

	return a && a->own.refs ? a : NULL;
}

/* Frees it when nothing needs it any more, as the driver would. What the driver does not free stays
 * known: it has to be taken away at a dump. */
CUresult agent_own_put(const struct ckf_cuda *cu, CUdeviceptr handle)
{
	CUresult res = CUDA_SUCCESS;
	struct agent_alloc *a, old;
	bool gone;

	pthread_mutex_lock(&agent_table.lock);
	a = agent_at(handle);
	gone = a && !a->own.refs && !a->own.views && !a->own.calls;
	if (gone) {
		old = *a;
		agent_remove(a);
	}
	pthread_mutex_unlock(&agent_table.lock);
	if (gone)
		res = agent_discard(cu, &old);
	if (res) {
		old.mapped = old.held;
		agent_insert(&old);
	} else if (gone && stays_imported(&old)) {
		__atomic_sub_fetch(&agent_block.imports, 1, __ATOMIC_RELAXED);
	}
	return res;
}

CUresult agent_own_release(const struct ckf_cuda *cu, CUmemGenericAllocationHandle handle)
{
	struct agent_alloc *a;
	CUresult res;

	pthread_mutex_lock(&agent_table.lock);
	a = own_of(handle);
	if (a)
		a->own.refs--;
	pthread_mutex_unlock(&agent_table.lock);
	if (!a)
		return CUDA_ERROR_INVALID_VALUE;
	res = agent_own_put(cu, handle);
	if (!res)
		return CUDA_SUCCESS;
	pthread_mutex_lock(&agent_table.lock);
	a = agent_at(handle);
	if (a)
		a->own.refs++;
	pthread_mutex_unlock(&agent_table.lock);
	return res;
}

static CUdeviceptr view_end(size_t i)
{
	return agent_table.views[i].addr + agent_table.views[i].bytes;
}

static size_t lower_bound(CUdeviceptr addr)
{
	return agent_lower_bound(agent_table.nr_views, view_end, addr);
}

/* With the lock held. False when there is no memory for it. */
static bool add_view(const struct agent_view *v)
{
	struct agent_view *views = agent_grown(agent_table.views, agent_table.nr_views,
					       &agent_table.cap_views, sizeof(*v));
	size_t i;

	if (!views)
		return false;
	agent_table.views = views;
	i = lower_bound(v->addr + v->bytes);
	memmove(&views[i + 1], &views[i], (agent_table.nr_views - i) * sizeof(*v));
	views[i] = *v;
	agent_table.nr_views++;
	return true;
}

CUresult agent_own_map(const struct ckf_cuda *cu, CUdeviceptr addr, size_t bytes,
		       CUmemGenericAllocationHandle handle)
{
	struct agent_view v = { .addr = addr, .bytes = bytes, .handle = handle, .mapped = true };
	CUmemGenericAllocationHandle real = 0;
	struct agent_alloc *a;
	CUresult res;
	bool noted;

	pthread_mutex_lock(&agent_table.lock);
	a = own_of(handle);
	if (a) {
		a->own.calls++;
		real = a->handle;
	}
	pthread_mutex_unlock(&agent_table.lock);
	res = a ? cu->mem_map(addr, bytes, 0, real, 0) : CUDA_ERROR_INVALID_VALUE;
	if (!a)
		return res;
	pthread_mutex_lock(&agent_table.lock);
	a = agent_at(handle);
	noted = !res && add_view(&v);
	a->own.calls--;
	a->own.views += noted;
	pthread_mutex_unlock(&agent_table.lock);
	if (!res && !noted) {
		cu->mem_unmap(addr, bytes);
		res = CUDA_ERROR_OUT_OF_MEMORY;
	}
	agent_own_put(cu, handle);
	return res;
}

/* With the lock held: views of a range, one after the other; they count as calls meanwhile. */
static void begin_unmap(CUdeviceptr addr, size_t bytes)
{
	for (size_t i = lower_bound(addr); i < agent_table.nr_views; i++) {
		struct agent_view *v = &agent_table.views[i];

		if (v->addr >= addr + bytes)
			break;
		if (v->going)
			continue;
		v->going = true;
		agent_at(v->handle)->own.calls++;
	}
}

/* False when there is none left. *handle: of the memory that it was of. */
static bool end_unmap_one(CUdeviceptr addr, size_t bytes, bool gone, CUdeviceptr *handle)
{
	struct agent_view *v = NULL;
	struct agent_alloc *a;
	size_t i;

	pthread_mutex_lock(&agent_table.lock);
	for (i = lower_bound(addr); i < agent_table.nr_views; i++) {
		if (agent_table.views[i].addr >= addr + bytes)
			break;
		if (!agent_table.views[i].going)
			continue;
		v = &agent_table.views[i];
		*handle = v->handle;
		a = agent_at(v->handle);
		a->own.calls--;
		a->own.views -= gone;
		v->going = false;
		if (gone)
			memmove(v, v + 1, (--agent_table.nr_views - i) * sizeof(*v));
		break;
	}
	pthread_mutex_unlock(&agent_table.lock);
	return v != NULL;
}

CUresult agent_own_unmap(const struct ckf_cuda *cu, CUdeviceptr addr, size_t bytes)
{
	CUdeviceptr handle;
	CUresult res;

	pthread_mutex_lock(&agent_table.lock);
	begin_unmap(addr, bytes);
	pthread_mutex_unlock(&agent_table.lock);
	res = cu->mem_unmap(addr, bytes);
	while (end_unmap_one(addr, bytes, !res, &handle))
		agent_own_put(cu, handle);
	return res;
}

CUresult agent_own_lend(CUmemGenericAllocationHandle handle, CUmemGenericAllocationHandle *out)
{
	struct agent_alloc *a;

	pthread_mutex_lock(&agent_table.lock);
	a = own_of(handle);
	if (a) {
		if (a->imported && !a->own.shared)
			__atomic_add_fetch(&agent_block.imports, 1, __ATOMIC_RELAXED);
		a->own.shared = true;
		*out = a->handle;
	}
	pthread_mutex_unlock(&agent_table.lock);
	return a ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* With the lock held, and the memory's descriptor there. */
static CUresult note_export(struct agent_alloc *a, uint8_t secret[16])
{
	static const uint8_t none[16];

	if (secret && !memcmp(a->secret, none, sizeof(none)) &&
	    getrandom(a->secret, sizeof(a->secret), 0) != sizeof(a->secret))
		return CUDA_ERROR_UNKNOWN;
	a->exported = true;
	if (!a->share && !agent_share_add(a))
		return CUDA_ERROR_OUT_OF_MEMORY;
	agent_share_update(a);
	if (secret)
		memcpy(secret, a->secret, sizeof(a->secret));
	return CUDA_SUCCESS;
}

static CUresult take_copy(CUdeviceptr addr, int made, int *fd, uint8_t secret[16])
{
	CUresult res = CUDA_ERROR_INVALID_VALUE;
	struct agent_alloc *a;

	pthread_mutex_lock(&agent_table.lock);
	a = agent_at(addr);
	if (a && a->fd < 0) {
		a->fd = made;
		made = -1;
	}
	if (a && a->fd >= 0)
		res = note_export(a, secret);
	if (!res && fd) {
		*fd = fcntl(a->fd, F_DUPFD_CLOEXEC, 0);
		res = *fd < 0 ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
	}
	pthread_mutex_unlock(&agent_table.lock);
	if (made >= 0)
		close(made);
	return res;
}

/* Counts a call that has the driver's handle: agent_own_put() frees memory that goes meanwhile. */
static bool begin_call(CUdeviceptr addr, CUmemGenericAllocationHandle *real, bool *has_fd)
{
	struct agent_alloc *a;

	pthread_mutex_lock(&agent_table.lock);
	a = agent_at(addr);
	if (a) {
		a->own.calls++;
		*real = a->handle;
		*has_fd = a->fd >= 0;
	}
	pthread_mutex_unlock(&agent_table.lock);
	return a != NULL;
}

static void end_call(const struct ckf_cuda *cu, CUdeviceptr addr)
{
	struct agent_alloc *a;

	pthread_mutex_lock(&agent_table.lock);
	a = agent_at(addr);
	if (a)
		a->own.calls--;
	pthread_mutex_unlock(&agent_table.lock);
	if (agent_is_handle(addr))
		agent_own_put(cu, addr);
}

/* The driver exports it once: another time it would be another open file. */
CUresult agent_export(const struct ckf_cuda *cu, CUdeviceptr addr, int *fd, uint8_t secret[16])
{
	CUmemGenericAllocationHandle real;
	CUresult res = CUDA_SUCCESS;
	bool has_fd;
	int made = -1;

	if (!begin_call(addr, &real, &has_fd))
		return CUDA_ERROR_INVALID_VALUE;
	if (!has_fd)
		res = cu->mem_export(&made, real, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
	if (!res)
		res = take_copy(addr, made < 0 ? -1 : agent_keep_fd(made), fd, secret);
	end_call(cu, addr);
	return res;
}

/* What was imported is not exported again, as the driver has it. */
CUresult agent_own_export(const struct ckf_cuda *cu, CUmemGenericAllocationHandle handle, int type,
			  int *fd)
{
	struct agent_alloc a;

	if (!agent_find(handle, &a) || a.addr != handle || !a.own.refs || a.imported ||
	    type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR ||
	    a.own.prop.requestedHandleTypes != type)
		return CUDA_ERROR_INVALID_VALUE;
	return agent_export(cu, handle, fd, NULL);
}

CUresult agent_own_properties(CUmemGenericAllocationHandle handle, CUmemAllocationProp *out)
{
	struct agent_alloc *a;

	pthread_mutex_lock(&agent_table.lock);
	a = own_of(handle);
	if (a)
		*out = a->own.prop;
	pthread_mutex_unlock(&agent_table.lock);
	return a ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

bool agent_own_at(CUdeviceptr addr, CUmemGenericAllocationHandle *out, CUmemAllocationProp *prop)
{
	bool found = false;

	pthread_mutex_lock(&agent_table.lock);
	for (size_t i = lower_bound(addr); i < agent_table.nr_views && !found; i++) {
		const struct agent_view *v = &agent_table.views[i];

		if (v->addr > addr)
			break;
		if (v->going)
			continue;
		*out = v->handle;
		*prop = agent_at(v->handle)->own.prop;
		found = true;
	}
	pthread_mutex_unlock(&agent_table.lock);
	return found;
}

CUresult agent_own_retain(CUmemGenericAllocationHandle handle)
{
	struct agent_alloc *a;

	pthread_mutex_lock(&agent_table.lock);
	a = agent_at(handle);
	if (a)
		a->own.refs++;
	pthread_mutex_unlock(&agent_table.lock);
	return a ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* Who may access it, by asking the driver: nobody else knows for sure. */
static CUresult note_access(const struct ckf_cuda *cu, struct agent_view *v)
{
	CUmemLocation where = { .type = CU_MEM_LOCATION_TYPE_DEVICE };
	int nr = 0;
	CUresult res = cu->device_get_count(&nr);

	v->readers = v->writers = 0;
	for (int dev = 0; dev < nr && dev < AGENT_MAX_DEVICES && !res; dev++) {
		unsigned long long flags = 0;

		where.id = dev;
		res = cu->mem_get_access(&flags, &where, v->addr);
		if (flags == CU_MEM_ACCESS_FLAGS_PROT_READ)
			v->readers |= 1ull << dev;
		if (flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
			v->writers |= 1ull << dev;
	}
	return res;
}

CUresult agent_unmap_views(const struct ckf_cuda *cu)
{
	CUresult res = CUDA_SUCCESS;

	for (size_t i = 0; i < agent_table.nr_views && !res; i++) {
		struct agent_view *v = &agent_table.views[i];

		if (!v->mapped || agent_stays(agent_at(v->handle)))
			continue;
		res = note_access(cu, v);
		if (!res)
			res = cu->mem_unmap(v->addr, v->bytes);
		if (!res)
			v->mapped = false;
	}
	return res;
}

static CUresult allow(const struct ckf_cuda *cu, const struct agent_view *v)
{
	CUmemAccessDesc access[AGENT_MAX_DEVICES];
	size_t nr = 0;

	for (int dev = 0; dev < AGENT_MAX_DEVICES; dev++) {
		if (!((v->readers | v->writers) >> dev & 1))
			continue;
		access[nr].location.type = CU_MEM_LOCATION_TYPE_DEVICE;
		access[nr].location.id = dev;
		access[nr++].flags = v->writers >> dev & 1 ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
							   : CU_MEM_ACCESS_FLAGS_PROT_READ;
	}
	return nr ? cu->mem_set_access(v->addr, v->bytes, access, nr) : CUDA_SUCCESS;
}

CUresult agent_map_views(const struct ckf_cuda *cu)
{
	CUresult res = CUDA_SUCCESS;

	for (size_t i = 0; i < agent_table.nr_views && !res; i++) {
		struct agent_view *v = &agent_table.views[i];
		const struct agent_alloc *a = agent_at(v->handle);

		if (v->mapped || !a->held)
			continue;
		res = a->ctx ? cu->ctx_set_current(a->ctx) : CUDA_SUCCESS;
		if (!res)
			res = cu->mem_map(v->addr, v->bytes, 0, a->handle, 0);
		if (res)
			break;
		res = allow(cu, v);
		if (res)
			cu->mem_unmap(v->addr, v->bytes);
		else
			v->mapped = true;
	}
	return res;
}
