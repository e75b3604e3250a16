/* SPDX-License-Identifier: MIT */
/*
 * Devices and contexts of the fake driver, and what it says about itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "stub.h"

#define DRIVER_VERSION 13000
#define CTX_DEPTH 8
#define DEFAULT_MIB 4096
#define DEFAULT_DELAY_US 50 /* of each copy */
#define ATTRIBUTE_UNIFIED_ADDRESSING 41
#define ATTRIBUTE_COMPUTE_MAJOR 75
#define ATTRIBUTE_COMPUTE_MINOR 76

struct stub stub = { .lock = PTHREAD_MUTEX_INITIALIZER, .busy_fd = -1 };

static struct stub_hw env_hw;
static uint64_t env_delay_ns;
static uint32_t env_together;
static const char *env_id = "";
static struct stub_pool ctx_pool = { .size = sizeof(struct CUctx_st) };
static __thread struct CUctx_st *stack[CTX_DEPTH];
static __thread unsigned int depth;

static uint64_t env_number(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s && *s ? strtoull(s, NULL, 10) : otherwise;
}

__attribute__((constructor)) static void device_init(void)
{
	env_hw.nr_gpus = (uint32_t)env_number("CKF_STUB_GPUS", 1);
	if (env_hw.nr_gpus > STUB_MAX_GPUS)
		env_hw.nr_gpus = STUB_MAX_GPUS;
	env_hw.uuid_shift = (uint32_t)env_number("CKF_STUB_UUID_SHIFT", 0);
	env_hw.gpu_bytes = env_number("CKF_STUB_MIB", DEFAULT_MIB) << 20;
	env_delay_ns = env_number("CKF_STUB_DELAY_US", DEFAULT_DELAY_US) * 1000;
	env_together = (uint32_t)env_number("CKF_STUB_TOGETHER", 0);
	if (getenv("CKF_STUB_ID"))
		env_id = getenv("CKF_STUB_ID");
}

const struct stub_hw *stub_env_hw(void)
{
	return &env_hw;
}

uint64_t stub_delay_ns(void)
{
	return env_delay_ns;
}

uint32_t stub_together(void)
{
	return env_together;
}

const char *stub_env_id(void)
{
	return env_id;
}

CUuuid stub_gpu_uuid(const struct stub_hw *hw, uint32_t gpu)
{
	CUuuid uuid;

	memcpy(uuid.bytes, "ckfast stub GPU", 15);
	uuid.bytes[15] = (unsigned char)(gpu + hw->uuid_shift);
	return uuid;
}

/* CRIU cannot dump this kind of descriptor, as it cannot dump those of the real driver. */
bool stub_busy_fd_open(void)
{
	if (stub.busy_fd < 0)
		stub.busy_fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	return stub.busy_fd >= 0;
}

struct CUctx_st *stub_ctx(void)
{
	struct CUctx_st *ctx = depth ? stack[depth - 1] : NULL;

	return ctx && __atomic_load_n(&ctx->live, __ATOMIC_SEQ_CST) ? ctx : NULL;
}

static bool device_ok(int device)
{
	return device >= 0 && (uint32_t)device < stub.hw.nr_gpus;
}

static bool ctx_ok(const struct CUctx_st *ctx)
{
	for (const struct CUctx_st *c = stub.ctxs; c; c = c->next) {
		if (c == ctx)
			return c->live;
	}
	return false;
}

static struct CUctx_st *primary_of(int device)
{
	struct CUctx_st *c = stub.ctxs;

	while (c && !(c->primary && c->device == device))
		c = c->next;
	return c;
}

static CUresult ctx_revive(struct CUctx_st *ctx)
{
	CUresult res = stub_stream_new(ctx, 0, &ctx->null_stream);

	__atomic_store_n(&ctx->live, !res, __ATOMIC_SEQ_CST);
	return res;
}

static CUresult ctx_new(int device, bool primary, uint32_t flags, struct CUctx_st **out)
{
	struct CUctx_st *c = stub_pool_get(&ctx_pool);

	if (!c)
		return CUDA_ERROR_OUT_OF_MEMORY;
	c->device = device;
	c->primary = primary;
	c->flags = flags;
	c->next = stub.ctxs;
	stub.ctxs = c;
	*out = c;
	return ctx_revive(c);
}

static void ctx_end(struct CUctx_st *ctx)
{
	stub_drain_ctx(ctx);
	stub_streams_end(ctx);
	stub_mem_free_ctx(ctx);
	__atomic_store_n(&ctx->live, false, __ATOMIC_SEQ_CST);
	ctx->peers = 0;
}

static CUresult init(unsigned int flags)
{
	CUresult res = CUDA_SUCCESS;

	if (flags)
		return CUDA_ERROR_INVALID_VALUE;
	if (!env_hw.nr_gpus)
		return CUDA_ERROR_NO_DEVICE;
	if (stub.init)
		return CUDA_SUCCESS;
	stub.hw = env_hw;
	for (uint32_t i = 0; i < STUB_MAX_GPUS; i++)
		stub.gpu[i] = i;
	stub.next_id = 1;
	res = stub_ckpt_start();
	if (!res) {
		stub_busy_fd_open();
		__atomic_store_n(&stub.init, 1, __ATOMIC_SEQ_CST);
	}
	return res;
}

STUB_EXPORT CUresult cuInit(unsigned int flags)
{
	return STUB_LOCKED(cuInit, init(flags));
}

STUB_EXPORT CUresult cuDriverGetVersion(int *version)
{
	return STUB_CALL(cuDriverGetVersion, ({
				 if (version)
					 *version = DRIVER_VERSION;
				 version ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
			 }));
}

static const struct {
	CUresult code;
	const char *name;
	const char *text;
} errors[] = {
	{ CUDA_SUCCESS, "CUDA_SUCCESS", "no error" },
	{ CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument" },
	{ CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory" },
	{ CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error" },
	{ CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected" },
	{ STUB_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal" },
	{ CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context" },
	{ STUB_ERROR_ALREADY_MAPPED, "CUDA_ERROR_ALREADY_MAPPED", "already mapped" },
	{ STUB_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle" },
	{ CUDA_ERROR_ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE", "not in the right state" },
	{ CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found" },
	{ CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready" },
	{ STUB_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "illegal memory access" },
	{ STUB_ERROR_PEER_ALREADY, "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED", "peer access" },
	{ STUB_ERROR_HOST_ALREADY, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "registered" },
	{ STUB_ERROR_HOST_NOT, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "not registered" },
	{ CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported" },
	{ CUDA_ERROR_UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error" },
};

static CUresult error_text(CUresult error, const char **out, bool name)
{
	if (!out)
		return CUDA_ERROR_INVALID_VALUE;
	*out = NULL;
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		if (errors[i].code == error)
			*out = name ? errors[i].name : errors[i].text;
	}
	return *out ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

STUB_EXPORT CUresult cuGetErrorName(CUresult error, const char **out)
{
	return STUB_CALL(cuGetErrorName, error_text(error, out, true));
}

STUB_EXPORT CUresult cuGetErrorString(CUresult error, const char **out)
{
	return STUB_CALL(cuGetErrorString, error_text(error, out, false));
}

STUB_EXPORT CUresult cuGetProcAddress(const char *name, void **out, int version, uint64_t flags)
{
	(void)flags;
	return STUB_CALL(cuGetProcAddress, stub_get_proc(name, out, version, NULL));
}

STUB_EXPORT CUresult cuGetProcAddress_v2(const char *name, void **out, int version, uint64_t flags,
					 int *status)
{
	(void)flags;
	return STUB_CALL(cuGetProcAddress_v2, stub_get_proc(name, out, version, status));
}

STUB_EXPORT CUresult cuDeviceGetCount(int *count)
{
	return STUB_CALL(cuDeviceGetCount, ({
				 *count = (int)stub.hw.nr_gpus;
				 CUDA_SUCCESS;
			 }));
}

STUB_EXPORT CUresult cuDeviceGet(CUdevice *dev, int ordinal)
{
	return STUB_CALL(cuDeviceGet, ({
				 *dev = ordinal;
				 device_ok(ordinal) ? CUDA_SUCCESS : STUB_ERROR_INVALID_DEVICE;
			 }));
}

STUB_EXPORT CUresult cuDeviceGetName(char *name, int len, CUdevice dev)
{
	return STUB_CALL(cuDeviceGetName, ({
				 if (len > 0)
					 snprintf(name, (size_t)len, "ckfast stub GPU");
				 device_ok(dev) ? CUDA_SUCCESS : STUB_ERROR_INVALID_DEVICE;
			 }));
}

static CUresult get_uuid(CUuuid *uuid, CUdevice dev)
{
	if (!device_ok(dev))
		return STUB_ERROR_INVALID_DEVICE;
	*uuid = stub_gpu_uuid(&stub.hw, stub.gpu[dev]);
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice dev)
{
	return STUB_CALL(cuDeviceGetUuid, get_uuid(uuid, dev));
}

STUB_EXPORT CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice dev)
{
	return STUB_CALL(cuDeviceGetUuid_v2, get_uuid(uuid, dev));
}

static CUresult get_attribute(int *value, int attribute, CUdevice dev)
{
	if (!device_ok(dev))
		return STUB_ERROR_INVALID_DEVICE;
	switch (attribute) {
	case ATTRIBUTE_UNIFIED_ADDRESSING:
	case CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED:
	case CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED:
		*value = 1;
		break;
	case ATTRIBUTE_COMPUTE_MAJOR:
		*value = 9;
		break;
	default:
		*value = 0;
	}
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice dev)
{
	return STUB_CALL(cuDeviceGetAttribute, get_attribute(value, attribute, dev));
}

STUB_EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev)
{
	return STUB_CALL(cuDeviceTotalMem_v2, ({
				 *bytes = stub.hw.gpu_bytes;
				 device_ok(dev) ? CUDA_SUCCESS : STUB_ERROR_INVALID_DEVICE;
			 }));
}

STUB_EXPORT CUresult cuDeviceCanAccessPeer(int *can, CUdevice dev, CUdevice peer)
{
	return STUB_CALL(cuDeviceCanAccessPeer, ({
				 *can = dev != peer;
				 device_ok(dev) && device_ok(peer) ? CUDA_SUCCESS
								   : STUB_ERROR_INVALID_DEVICE;
			 }));
}

static CUresult primary_retain(CUcontext *out, CUdevice dev)
{
	struct CUctx_st *c;
	CUresult res = CUDA_SUCCESS;

	if (!device_ok(dev))
		return STUB_ERROR_INVALID_DEVICE;
	c = primary_of(dev);
	if (!c)
		res = ctx_new(dev, true, 0, &c);
	else if (!c->live)
		res = ctx_revive(c);
	if (res)
		return res;
	c->users++;
	*out = c;
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice dev)
{
	return STUB_LOCKED(cuDevicePrimaryCtxRetain, primary_retain(out, dev));
}

static CUresult primary_release(CUdevice dev)
{
	struct CUctx_st *c = device_ok(dev) ? primary_of(dev) : NULL;

	if (!c || !c->users)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (!--c->users)
		ctx_end(c);
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
	return STUB_LOCKED(cuDevicePrimaryCtxRelease_v2, primary_release(dev));
}

static CUresult primary_state(CUdevice dev, unsigned int *flags, int *active)
{
	struct CUctx_st *c = device_ok(dev) ? primary_of(dev) : NULL;

	*flags = c ? c->flags : 0;
	*active = c && c->live;
	return device_ok(dev) ? CUDA_SUCCESS : STUB_ERROR_INVALID_DEVICE;
}

STUB_EXPORT CUresult cuDevicePrimaryCtxGetState(CUdevice dev, unsigned int *flags, int *active)
{
	return STUB_LOCKED(cuDevicePrimaryCtxGetState, primary_state(dev, flags, active));
}

static CUresult set_current(CUcontext ctx)
{
	if (ctx && !ctx_ok(ctx))
		return CUDA_ERROR_INVALID_CONTEXT;
	if (!depth)
		depth = 1;
	stack[depth - 1] = ctx;
	return CUDA_SUCCESS;
}

static CUresult push_current(CUcontext ctx)
{
	if (!ctx_ok(ctx) || depth == CTX_DEPTH)
		return CUDA_ERROR_INVALID_CONTEXT;
	stack[depth++] = ctx;
	return CUDA_SUCCESS;
}

static CUresult pop_current(CUcontext *ctx)
{
	if (!depth)
		return CUDA_ERROR_INVALID_CONTEXT;
	depth--;
	if (ctx)
		*ctx = stack[depth];
	return CUDA_SUCCESS;
}

static CUresult ctx_create(CUcontext *out, unsigned int flags, CUdevice dev)
{
	CUresult res;

	if (!device_ok(dev))
		return STUB_ERROR_INVALID_DEVICE;
	res = ctx_new(dev, false, flags, out);
	return res ? res : push_current(*out);
}

STUB_EXPORT CUresult cuCtxCreate_v2(CUcontext *out, unsigned int flags, CUdevice dev)
{
	return STUB_LOCKED(cuCtxCreate_v2, ctx_create(out, flags, dev));
}

static CUresult ctx_destroy(CUcontext ctx)
{
	if (!ctx_ok(ctx) || ctx->primary)
		return CUDA_ERROR_INVALID_CONTEXT;
	if (depth && stack[depth - 1] == ctx)
		depth--;
	ctx_end(ctx);
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuCtxDestroy_v2(CUcontext ctx)
{
	return STUB_LOCKED(cuCtxDestroy_v2, ctx_destroy(ctx));
}

STUB_EXPORT CUresult cuCtxSetCurrent(CUcontext ctx)
{
	return STUB_LOCKED(cuCtxSetCurrent, set_current(ctx));
}

STUB_EXPORT CUresult cuCtxGetCurrent(CUcontext *ctx)
{
	return STUB_CALL(cuCtxGetCurrent, ({
				 *ctx = stub_ctx();
				 CUDA_SUCCESS;
			 }));
}

STUB_EXPORT CUresult cuCtxPushCurrent_v2(CUcontext ctx)
{
	return STUB_LOCKED(cuCtxPushCurrent_v2, push_current(ctx));
}

STUB_EXPORT CUresult cuCtxPopCurrent_v2(CUcontext *ctx)
{
	return STUB_LOCKED(cuCtxPopCurrent_v2, pop_current(ctx));
}

STUB_EXPORT CUresult cuCtxGetDevice(CUdevice *dev)
{
	return STUB_CALL(cuCtxGetDevice, ({
				 *dev = stub_ctx()->device;
				 CUDA_SUCCESS;
			 }));
}

static CUresult peer_access(CUcontext peer, bool enable)
{
	struct CUctx_st *ctx = stub_ctx();
	uint32_t bit;

	if (!ctx_ok(peer) || peer == ctx)
		return CUDA_ERROR_INVALID_CONTEXT;
	bit = 1u << peer->device;
	if (enable && ctx->peers & bit)
		return STUB_ERROR_PEER_ALREADY;
	ctx->peers = enable ? ctx->peers | bit : ctx->peers & ~bit;
	return CUDA_SUCCESS;
}

STUB_EXPORT CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags)
{
	(void)flags;
	return STUB_LOCKED(cuCtxEnablePeerAccess, peer_access(peer, true));
}

STUB_EXPORT CUresult cuCtxDisablePeerAccess(CUcontext peer)
{
	return STUB_LOCKED(cuCtxDisablePeerAccess, peer_access(peer, false));
}
