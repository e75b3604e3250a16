/* SPDX-License-Identifier: MIT */
/*
 * The driver's own checkpoint calls, made for clients that have no driver.
 *
 * The driver wants the number of a process in gpud's pid namespace. A client may be in another
 * namespace, and numbers are used again, so it sends a pidfd, which is translated here, right
 * before the call. That the process was there for the whole call is found out afterwards.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpu/suspend/ckf_agent_call.h"
#include "gpud.h"

#define MAX_PAIRS 256
#define FDINFO_BYTES 1024

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

/* The numbers in /proc are those of the pid namespace that it was mounted in. */
static int check_proc(struct ckf_error *err)
{
	char self[32] = "";

	if (readlink("/proc/self", self, sizeof(self) - 1) > 0 && atoi(self) == (int)getpid())
		return 0;
	return ckf_error_set(err, -EXDEV,
			     "the /proc that gpud sees is not that of its own pid "
			     "namespace: mount one for it");
}

/* The line "Pid:" of what /proc says of a pidfd: a number, 0 or -1. */
static bool read_number(int pidfd, int *number)
{
	char path[64], buf[FDINFO_BYTES];
	const char *line;
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	len = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (len < 0)
		return false;
	buf[len] = '\0';
	line = strstr(buf, "\nPid:");
	if (!line)
		return false;
	*number = atoi(line + strlen("\nPid:"));
	return true;
}

/* Also true of one that has ended and was not waited for: its number is its own until then. */
static bool has_number(int pidfd, int pid)
{
	int number;

	return read_number(pidfd, &number) && number == pid;
}

/* The number of the process here, or -errno. */
static int translate(struct gpud_conn *c, int pidfd, struct ckf_error *err)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	int pid = 0, ret;

	ret = check_proc(err);
	if (ret)
		return ret;
	if (!read_number(pidfd, &pid))
		return gpud_bad(c, "the descriptor beside it is not one of a process", err);
	if (pid < 0 || poll(&p, 1, 0) != 0)
		return ckf_error_set(err, -ESRCH, "the process has ended");
	if (!pid)
		return ckf_error_set(err, -EXDEV,
				     "the process is in a pid namespace that gpud's does not "
				     "contain: start gpud in the namespace of the machine, or that "
				     "of the process");
	return pid;
}

/* The id of a thread in the innermost pid namespace of its process. */
static int inner_tid(int pid, int tid, int *inner, struct ckf_error *err)
{
	*inner = (int)ckf_inner_id(pid, tid);
	return *inner ? 0 : ckf_error_set(err, -ESRCH, "the driver's thread %d has ended", tid);
}

static CUresult resume(struct gpud_conn *c, const struct ckf_cuda *cu, int pid)
{
	CUcheckpointRestoreArgs args = { .gpuPairs = c->pairs.pairs, .gpuPairsCount = c->pairs.nr };

	return cu->checkpoint_restore(pid, c->pairs.nr ? &args : NULL);
}

/* The call for the action. *value: what DONE brings. */
static CUresult act(struct gpud_conn *c, const struct ckf_cuda *cu, const struct ckf_gpud_msg *m,
		    int pid, int *value)
{
	CUcheckpointLockArgs lock = { .timeoutMs = (unsigned int)m->arg2 };

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
 * The process has ended during the call, and its number may be that of another one by then. A lock
 * that hit the other one is taken off again.
 */
static int ended_meanwhile(const struct ckf_cuda *cu, uint64_t action, CUresult res, int pid,
			   struct ckf_error *err)
{
	if (!res && action == CKF_GPUD_LOCK)
		cu->checkpoint_unlock(pid, NULL);
	return ckf_error_set(err, -ESRCH, "the process has ended meanwhile");
}

/*
 * The driver answers a question about a process that does not use it with one of several errors.
 * Where the process is there, they mean just that.
 */
static int question_error(const struct ckf_cuda *cu, CUresult res, struct ckf_error *err)
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
		return ret;
	}
}

/* Makes the call for the process. *value as in act(). */
static int call(struct gpud_conn *c, const struct ckf_gpud_msg *m, int pidfd, int *value,
		struct ckf_error *err)
{
	static const char *const names[] = {
		[CKF_GPUD_LOCK] = "cannot lock CUDA of the process",
		[CKF_GPUD_UNLOCK] = "cannot unlock CUDA of the process",
		[CKF_GPUD_SUSPEND] = "cannot suspend CUDA of the process",
		[CKF_GPUD_RESUME] = "cannot resume CUDA of the process",
	};
	struct ckf_cuda_pool *pool;
	CUresult res;
	int pid, ret;

	/* First: what takes long here must not come between the translation and the call. */
	ret = gpud_pool(c->g, &pool, err);
	if (ret)
		return ret;
	pid = translate(c, pidfd, err);
	if (pid < 0)
		return pid;
	ret = gpud_client_check_process(c, pid, err);
	if (ret)
		return ret;
	res = act(c, pool->cu, m, pid, value);
	if (!has_number(pidfd, pid))
		return ended_meanwhile(pool->cu, m->arg, res, pid, err);
	if (res && m->arg >= CKF_GPUD_STATE)
		return question_error(pool->cu, res, err);
	if (res)
		return ckf_cuda_error(pool->cu, res, names[m->arg], err);
	return m->arg == CKF_GPUD_RESTORE_TID ? inner_tid(pid, *value, value, err) : 0;
}

int gpud_checkpoint(struct gpud_conn *c, const struct ckf_gpud_msg *m, int fd,
		    struct ckf_error *err)
{
	struct ckf_gpud_msg answer = { .op = CKF_GPUD_DONE };
	int ret, value = 0;

	if (m->arg < CKF_GPUD_LOCK || m->arg > CKF_GPUD_RESTORE_TID ||
	    m->arg2 > CKF_GPUD_MAX_TIMEOUT_MS)
		return gpud_bad(c, "wrong action or timeout", err);
	ret = gpud_call_start(c, err);
	if (!ret)
		ret = call(c, m, fd, &value, err);
	gpud_call_end(c, ret);
	if (m->arg == CKF_GPUD_RESUME)
		c->pairs.nr = 0;
	if (ret)
		return ret;
	answer.arg = (uint64_t)value;
	return gpud_send(c, &answer, -1, err);
}
