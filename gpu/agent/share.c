/* SPDX-License-Identifier: MIT */
/*
 * Memory that processes share. The one that has made it hands out a descriptor, and all that import
 * it keep that: it is one open file, by which others find out who has the same memory. The list of
 * it is read from outside (ckf_agent.h), and here by a thread that takes no lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "agent.h"

static struct ckf_agent_share shares[CKF_AGENT_MAX_SHARES];
static atomic_uint changes; /* odd while something changes */

static void change(const struct agent_alloc *a, uint32_t kind)
{
	struct ckf_agent_share *s = &shares[a->share - 1];

	atomic_fetch_add(&changes, 1);
	__atomic_store_n(&s->kind, CKF_AGENT_NO_SHARE, __ATOMIC_SEQ_CST);
	s->fd = a->fd;
	memcpy(s->secret, a->secret, sizeof(s->secret));
	__atomic_store_n(&s->kind, kind, __ATOMIC_SEQ_CST);
	atomic_fetch_add(&changes, 1);
}

static uint32_t kind_of(const struct agent_alloc *a)
{
	return a->imported ? CKF_AGENT_IMPORT : CKF_AGENT_EXPORT;
}

bool agent_share_add(struct agent_alloc *a)
{
	uint32_t i = 0;

	while (i < CKF_AGENT_MAX_SHARES && shares[i].kind)
		i++;
	if (i == CKF_AGENT_MAX_SHARES)
		return false;
	agent_block.shares = (uintptr_t)shares;
	if (agent_block.nr_shares <= i)
		agent_block.nr_shares = i + 1;
	a->share = i + 1;
	change(a, kind_of(a));
	return true;
}

void agent_share_update(const struct agent_alloc *a)
{
	if (a->share)
		change(a, kind_of(a));
}

void agent_share_remove(struct agent_alloc *a)
{
	if (a->share)
		change(a, CKF_AGENT_NO_SHARE);
	a->share = 0;
}

int agent_share_find(const uint8_t secret[16])
{
	static const uint8_t none[16];
	const unsigned int before = atomic_load(&changes);
	int fd = -ENOENT;

	if (!memcmp(secret, none, sizeof(none)))
		return -ENOENT;
	for (uint32_t i = 0; i < agent_block.nr_shares; i++) {
		if (__atomic_load_n(&shares[i].kind, __ATOMIC_SEQ_CST) != CKF_AGENT_EXPORT ||
		    memcmp(shares[i].secret, secret, sizeof(none)) != 0)
			continue;
		fd = fcntl(shares[i].fd, F_DUPFD_CLOEXEC, 0);
		fd = fd < 0 ? -EAGAIN : fd;
		break;
	}
	/* Then it may be a descriptor of something else. */
	if (before % 2 || before != atomic_load(&changes)) {
		if (fd >= 0)
			close(fd);
		return -EAGAIN;
	}
	return fd;
}

void agent_share_after_fork(void)
{
	memset(shares, 0, agent_block.nr_shares * sizeof(*shares));
	agent_block.nr_shares = 0;
	atomic_store(&changes, 0);
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
