/* SPDX-License-Identifier: MIT */
/*
 * cuda-checkpoint --pid PID --action lock|checkpoint|restore|unlock|state|tid [--timeout MS]
 *	[--device-map OLD=NEW[,…]]
 *
 * What NVIDIA's program of that name does, with whatever libcuda.so.1 is found: for tests with the
 * fake driver, and for comparing with the stock CRIU where that program is missing. CRIU's own
 * plugin can run it: it understands --get-state and --get-restore-tid, too. OLD and NEW are UUIDs
 * of 32 hexadecimal digits.
 */
#include <dlfcn.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/cuda/ckf_cuda_abi.h"

#define MAX_PAIRS 8

static CUcheckpointGpuPair pairs[MAX_PAIRS];
static unsigned int nr_pairs;

static void *entry(const char *name)
{
	void *lib = dlopen(CKF_CUDA_LIBRARY, RTLD_NOW);
	void *fn = lib ? dlsym(lib, name) : NULL;

	if (!fn) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
	return fn;
}

static void parse_uuid(const char *s, CUuuid *out)
{
	for (int i = 0; i < 16; i++) {
		unsigned int byte = 0;

		if (sscanf(s + 2 * i, "%2x", &byte) != 1) {
			fprintf(stderr, "bad UUID %s\n", s);
			exit(2);
		}
		out->bytes[i] = (unsigned char)byte;
	}
}

static void parse_map(char *s)
{
	for (char *one = strtok(s, ","); one && nr_pairs < MAX_PAIRS; one = strtok(NULL, ",")) {
		if (strlen(one) != 65 || one[32] != '=') {
			fprintf(stderr, "bad pair %s\n", one);
			exit(2);
		}
		parse_uuid(one, &pairs[nr_pairs].oldUuid);
		parse_uuid(one + 33, &pairs[nr_pairs].newUuid);
		nr_pairs++;
	}
}

static CUresult print_state(int pid)
{
	static const char *const names[] = { "running", "locked", "checkpointed", "failed" };
	CUresult (*fn)(int, int *) = entry("cuCheckpointProcessGetState");
	int state = 0;
	CUresult res = fn(pid, &state);

	if (!res)
		puts(names[state & 3]);
	return res;
}

static CUresult print_tid(int pid)
{
	CUresult (*fn)(int, int *) = entry("cuCheckpointProcessGetRestoreThreadId");
	int tid = 0;
	CUresult res = fn(pid, &tid);

	if (!res)
		printf("%d\n", tid);
	return res;
}

static CUresult act(int pid, const char *action, unsigned int timeout_ms)
{
	CUcheckpointLockArgs lock = { .timeoutMs = timeout_ms };
	CUcheckpointRestoreArgs restore = { .gpuPairs = pairs, .gpuPairsCount = nr_pairs };
	CUresult (*fn)(int, const void *);

	if (!strcmp(action, "state"))
		return print_state(pid);
	if (!strcmp(action, "tid"))
		return print_tid(pid);
	if (!strcmp(action, "lock")) {
		fn = entry("cuCheckpointProcessLock");
		return fn(pid, &lock);
	}
	if (!strcmp(action, "restore")) {
		fn = entry("cuCheckpointProcessRestore");
		return fn(pid, nr_pairs ? &restore : NULL);
	}
	if (strcmp(action, "checkpoint") && strcmp(action, "unlock")) {
		fprintf(stderr, "no action %s\n", action);
		exit(2);
	}
	fn = entry(*action == 'c' ? "cuCheckpointProcessCheckpoint" : "cuCheckpointProcessUnlock");
	return fn(pid, NULL);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "pid", required_argument, NULL, 'p' },
		{ "action", required_argument, NULL, 'a' },
		{ "timeout", required_argument, NULL, 't' },
		{ "device-map", required_argument, NULL, 'd' },
		{ "get-state", no_argument, NULL, 's' },
		{ "get-restore-tid", no_argument, NULL, 'r' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	CUresult (*error_name)(CUresult, const char **) = entry("cuGetErrorName");
	CUresult (*init)(unsigned int) = entry("cuInit");
	const char *action = NULL, *text = "?";
	unsigned int timeout_ms = 0;
	int pid = 0, c;
	CUresult res;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (c == 'p')
			pid = atoi(optarg);
		else if (c == 'a')
			action = optarg;
		else if (c == 't')
			timeout_ms = (unsigned int)atoi(optarg);
		else if (c == 'd')
			parse_map(optarg);
		else if (c == 's')
			action = "state";
		else if (c == 'r')
			action = "tid";
		else
			action = NULL;
		if (c == 'h' || c == '?')
			break;
	}
	if (!action) {
		printf("usage: cuda-checkpoint --pid PID --action "
		       "lock|checkpoint|restore|unlock|state|tid\n");
		return c == 'h' ? 0 : 2;
	}
	res = init(0);
	if (!res)
		res = act(pid, action, timeout_ms);
	if (res) {
		error_name(res, &text);
		fprintf(stderr, "%s of process %d: %s (%d)\n", action, pid, text, res);
	}
	return res != CUDA_SUCCESS;
}
