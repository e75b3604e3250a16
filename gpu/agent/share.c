/* SPDX-License-Identifier: MIT */
/*
 * What others read of the agent from outside (ckf_agent.h): the block by which it is called, and
 * the list of memory that processes share. The process that has made such memory hands out a
 * descriptor, and all that import it keep that: it is one open file, by which others find out who
 * has the same memory. The list is read here, too, by a thread that takes no lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"

struct ckf_agent_block agent_block __attribute__((aligned(CKF_AGENT_ALIGN))) = {
	.magic = CKF_AGENT_MAGIC,
	.version = CKF_AGENT_VERSION,
	.peer_fd = -1,
};

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
