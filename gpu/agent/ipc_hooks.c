/* SPDX-License-Identifier: MIT */
/*
 * The functions of CUDA IPC. Handles of the agent's allocations are the agent's (ipc.c). Those of
 * events and of memory that is the driver's are the driver's; while there are such, the driver
 * cannot restore the process, so they are counted for those who would dump it.
 */
#include "gate.h"
#include "hooks.h"

static struct {
	pthread_mutex_t lock;
	uint64_t *keys; /* events, and addresses of memory */
	size_t nr;
	size_t cap;
} shared = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void note(uint64_t key)
{
	bool known = false;
	uint64_t *keys;

	pthread_mutex_lock(&shared.lock);
	for (size_t i = 0; i < shared.nr && !known; i++)
		known = shared.keys[i] == key;
	if (!known) {
		/* What there is no room for counts for ever. */
		__atomic_add_fetch(&agent_block.ipc, 1, __ATOMIC_SEQ_CST);
		keys = agent_grown(shared.keys, shared.nr, &shared.cap, sizeof(*keys));
		if (keys) {
			shared.keys = keys;
			shared.keys[shared.nr++] = key;
		}
	}
	pthread_mutex_unlock(&shared.lock);
}

void agent_driver_ipc_after_fork(void)
{
	pthread_mutex_init(&shared.lock, NULL);
	shared.nr = 0;
	agent_block.ipc = 0;
}

void agent_driver_ipc_end(uint64_t key)
{
	size_t i = 0;

	if (!__atomic_load_n(&agent_block.ipc, __ATOMIC_SEQ_CST))
		return;
	pthread_mutex_lock(&shared.lock);
	while (i < shared.nr && shared.keys[i] != key)
		i++;
	if (i < shared.nr) {
		shared.keys[i] = shared.keys[--shared.nr];
		__atomic_sub_fetch(&agent_block.ipc, 1, __ATOMIC_SEQ_CST);
	}
	pthread_mutex_unlock(&shared.lock);
}

CUresult agent_cuIpcGetMemHandle(CUipcMemHandle *handle, CUdeviceptr ptr)
{
	CUresult (*fn)(CUipcMemHandle *, CUdeviceptr) = agent_gate_real(GATED_cuIpcGetMemHandle);
	CUresult (*range)(CUdeviceptr *, size_t *,
			  CUdeviceptr) = agent_gate_real(GATED_cuMemGetAddressRange_v2);
	CUdeviceptr base = ptr;
	CUresult res;

	if (agent_ipc_get(agent_cuda(), handle, ptr, &res))
		return res;
	res = fn(handle, ptr);
	if (!res) {
		if (range)
			range(&base, NULL, ptr);
		note(base);
	}
	return res;
}

typedef CUresult open_fn(CUdeviceptr *, CUipcMemHandle, unsigned int);

static CUresult open_handle(open_fn *fn, CUdeviceptr *out, CUipcMemHandle handle,
			    unsigned int flags)
{
	CUresult res;

	if (agent_ipc_open(agent_cuda(), out, &handle, flags, &res))
		return res;
	res = fn(out, handle, flags);
	if (!res)
		note(*out);
	return res;
}

CUresult agent_cuIpcOpenMemHandle(CUdeviceptr *out, CUipcMemHandle handle, unsigned int flags)
{
	return open_handle(agent_gate_real(GATED_cuIpcOpenMemHandle), out, handle, flags);
}

CUresult agent_cuIpcOpenMemHandle_v2(CUdeviceptr *out, CUipcMemHandle handle, unsigned int flags)
{
	return open_handle(agent_gate_real(GATED_cuIpcOpenMemHandle_v2), out, handle, flags);
}

/* What was opened more than once counts until the address is nothing any more. */
CUresult agent_cuIpcCloseMemHandle(CUdeviceptr ptr)
{
	CUresult (*fn)(CUdeviceptr) = agent_gate_real(GATED_cuIpcCloseMemHandle);
	CUresult (*range)(CUdeviceptr *, size_t *,
			  CUdeviceptr) = agent_gate_real(GATED_cuMemGetAddressRange_v2);
	CUdeviceptr base;
	CUresult res;

	if (agent_ipc_close(agent_cuda(), ptr, &res))
		return res;
	res = fn(ptr);
	if (!res && (!range || range(&base, NULL, ptr)))
		agent_driver_ipc_end(ptr);
	return res;
}

CUresult agent_cuIpcGetEventHandle(CUipcEventHandle *handle, CUevent event)
{
	CUresult (*fn)(CUipcEventHandle *, CUevent) = agent_gate_real(GATED_cuIpcGetEventHandle);
	CUresult res = fn(handle, event);

	if (!res)
		note((uintptr_t)event);
	return res;
}

CUresult agent_cuIpcOpenEventHandle(CUevent *out, CUipcEventHandle handle)
{
	CUresult (*fn)(CUevent *, CUipcEventHandle) = agent_gate_real(GATED_cuIpcOpenEventHandle);
	CUresult res = fn(out, handle);

	if (!res)
		note((uintptr_t)*out);
	return res;
}

CUresult agent_cuEventDestroy_v2(CUevent event)
{
	CUresult (*fn)(CUevent) = agent_gate_real(GATED_cuEventDestroy_v2);
	CUresult res = fn(event);

	if (!res)
		agent_driver_ipc_end((uintptr_t)event);
	return res;
}
