/* SPDX-License-Identifier: MIT */
/*
 * stub-smi [PID]: "GPU BYTES" for each GPU of the fake driver that CKF_STUB_GPUS makes: the memory
 * that is in use there, by any process in sight or by one.
 */
#include <stdio.h>
#include <stdlib.h>

#include "stub.h"

int main(int argc, char **argv)
{
	const char *gpus = getenv("CKF_STUB_GPUS"), *id = getenv("CKF_STUB_ID");
	unsigned int n = gpus ? (unsigned int)atoi(gpus) : 1;

	if (argc > 2 || (argc == 2 && atoi(argv[1]) <= 0)) {
		fprintf(stderr, "usage: stub-smi [PID]\n");
		return 2;
	}
	for (unsigned int i = 0; i < n; i++) {
		uint64_t bytes = argc == 2 ? stub_scan_used_by(atoi(argv[1]), i, id ? id : "")
					   : stub_scan_used(i, id ? id : "");

		printf("%u %llu\n", i, (unsigned long long)bytes);
	}
	return 0;
}
