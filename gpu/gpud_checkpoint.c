/* SPDX-License-Identifier: MIT */
/* The driver's own checkpoint calls, made for clients that have no driver. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "gpud.h"

#define MAX_PAIRS 256

int gpud_pair(struct gpud_conn *c, const struct ckf_gpud_msg *m, struct ckf_error *err)
{
	struct gpud_pairs *p = &c->pairs;
	CUcheckpointGpuPair *pairs;

	if (p->nr == MAX_PAIRS)
		return gpud_bad(c, "too many pairs of GPUs", err);
	pairs = realloc(p->pairs, (p->nr + 1) * sizeof(*pairs));
	if (!pairs)
		return ckf_error_set(err, -ENOMEM, "no memory");
	p->pairs = pairs;
	memcpy(pairs[p->nr].oldUuid.bytes, m->uuid, sizeof(m->uuid));
	memcpy(pairs[p->nr].newUuid.bytes, m->uuid2, sizeof(m->uuid2));
	p->nr++;
	return 0;
}

static CUresult resume(struct gpud_conn *c, const struct ckf_cuda *cu, int pid)
{
	CUcheckpointRestoreArgs args = { .gpuPairs = c->pairs.pairs, .gpuPairsCount = c->pairs.nr };

	return cu->checkpoint_restore(pid, c->pairs.nr ? &args : NULL);
}

/* The call for the action. *value: what DONE brings. */
static CUresult act(struct gpud_conn *c, const struct ckf_cuda *cu, const struct ckf_gpud_msg *m,
		    int *value)
{
	CUcheckpointLockArgs lock = { .timeoutMs = (unsigned int)m->arg2 };
	int pid = (int)m->pid;

	switch (m->arg) {
	case CKF_GPUD_LOCK:
		return cu->checkpoint_lock(pid, &lock);
	case CKF_GPUD_UNLOCK:
		return cu->checkpoint_unlock(pid, NULL);
	case CKF_GPUD_SUSPEND:
		return cu->checkpoint_checkpoint(pid, NULL);
	case CKF_GPUD_RESUME:
		return resume(c, cu, pid);
	case CKF_GPUD_STATE:
		return cu->checkpoint_get_state(pid, value);
	default:
		return cu->checkpoint_get_restore_tid(pid, value);
	}
}

/*
 * The driver answers a question about a process that does not use it with one of several errors.
 * Where the process is there, they mean just that.
 */
static int question_error(const struct ckf_cuda *cu, CUresult res, uint32_t pid,
			  struct ckf_error *err)
{
	int ret = ckf_cuda_error(cu, res, "cannot ask for the state of the process", err);

	switch (res) {
	case CUDA_ERROR_INVALID_VALUE:
	case CUDA_ERROR_NOT_INITIALIZED:
	case CUDA_ERROR_ILLEGAL_STATE:
	case CUDA_ERROR_NOT_FOUND:
	case CUDA_ERROR_NOT_SUPPORTED:
		return -ESRCH;
	default:
		return kill((pid_t)pid, 0) ? -ESRCH : ret;
	}
}

int gpud_checkpoint(struct gpud_conn *c, const struct ckf_gpud_msg *m, struct ckf_error *err)
{
	static const char *const names[] = {
		[CKF_GPUD_LOCK] = "cannot lock CUDA of the process",
		[CKF_GPUD_UNLOCK] = "cannot unlock CUDA of the process",
		[CKF_GPUD_SUSPEND] = "cannot suspend CUDA of the process",
		[CKF_GPUD_RESUME] = "cannot resume CUDA of the process",
	};
	struct ckf_gpud_msg answer = { .op = CKF_GPUD_DONE, .pid = m->pid };
	struct ckf_cuda_pool *pool;
	CUresult res;
	int ret, value = 0;

	if (m->arg < CKF_GPUD_LOCK || m->arg > CKF_GPUD_RESTORE_TID || !m->pid ||
	    m->pid > INT32_MAX || m->arg2 > UINT32_MAX)
		return gpud_bad(c, "wrong action, process or timeout", err);
	ret = gpud_pool(c->g, &pool, err);
	if (ret)
		return ret;
	res = act(c, pool->cu, m, &value);
	if (m->arg == CKF_GPUD_RESUME)
		c->pairs.nr = 0;
	if (res && m->arg >= CKF_GPUD_STATE)
		return question_error(pool->cu, res, m->pid, err);
	if (res)
		return ckf_cuda_error(pool->cu, res, names[m->arg], err);
	answer.arg = (uint64_t)value;
	return gpud_send(c, &answer, -1, err);
}
