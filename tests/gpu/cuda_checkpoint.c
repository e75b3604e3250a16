/* SPDX-License-Identifier: MIT */
/*
 * A stand-in for NVIDIA's cuda-checkpoint, which CRIU's own plugin starts: the same options and
 * words, by the driver's API. Only for comparing with the stock CRIU where that program is missing.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../gpu/ckf_cuda.h"

static const struct option long_opts[] = {
	{ "action", required_argument, NULL, 'a' },
	{ "get-state", no_argument, NULL, 's' },
	{ "get-restore-tid", no_argument, NULL, 'r' },
	{ "pid", required_argument, NULL, 'p' },
	{ "timeout", required_argument, NULL, 't' },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static const char *const states[] = { "running", "locked", "checkpointed", "failed" };

static CUresult act(const struct ckf_cuda *cu, const char *action, int pid, unsigned int timeout_ms)
{
	CUcheckpointLockArgs lock = { .timeoutMs = timeout_ms };

	if (!strcmp(action, "lock"))
		return cu->checkpoint_lock(pid, &lock);
	if (!strcmp(action, "checkpoint"))
		return cu->checkpoint_checkpoint(pid, NULL);
	if (!strcmp(action, "restore"))
		return cu->checkpoint_restore(pid, NULL);
	if (!strcmp(action, "unlock"))
		return cu->checkpoint_unlock(pid, NULL);
	return CUDA_ERROR_INVALID_VALUE;
}

int main(int argc, char **argv)
{
	const struct ckf_cuda *cu;
	struct ckf_error err = { 0 };
	const char *action = NULL, *name = "?";
	unsigned int timeout_ms = 0;
	int opt, what = 0, pid = 0, value = 0;
	CUresult res;

	while ((opt = getopt_long(argc, argv, "h", long_opts, NULL)) != -1) {
		if (opt == 'a')
			action = optarg;
		else if (opt == 'p')
			pid = atoi(optarg);
		else if (opt == 't')
			timeout_ms = (unsigned int)atoi(optarg);
		else
			what = opt;
	}
	if (what == 'h') {
		puts("--action lock|checkpoint|restore|unlock, --get-state, --get-restore-tid, "
		     "--pid PID, "
		     "--timeout MS");
		return 0;
	}
	if (ckf_cuda_load(&cu, &err)) {
		puts(err.msg);
		return 1;
	}
	res = cu->init(0);
	if (!res && action)
		res = act(cu, action, pid, timeout_ms);
	else if (!res && what == 's')
		res = cu->checkpoint_get_state(pid, &value);
	else if (!res)
		res = cu->checkpoint_get_restore_tid(pid, &value);
	if (res) {
		cu->get_error_name(res, &name);
		puts(name);
		return 1;
	}
	if (what == 's')
		puts(states[value & 3]);
	else if (what == 'r')
		printf("%d\n", value);
	return 0;
}
