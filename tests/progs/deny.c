/* SPDX-License-Identifier: MIT */
/*
 * deny ERRNO NR,… COMMAND…: runs COMMAND with a filter that answers these system calls with ERRNO,
 * or with "kill" in its place kills who makes them.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>

#include "prog.h"

#define MAX_FILTER 128

int main(int argc, char **argv)
{
	struct sock_filter filter[MAX_FILTER];
	struct sock_fprog prog = { .filter = filter };
	unsigned short n = 0;
	uint32_t answer;

	if (argc < 4) {
		fprintf(stderr, "usage: deny ERRNO|kill NR,… COMMAND…\n");
		return 2;
	}
	answer = strcmp(argv[1], "kill") ? SECCOMP_RET_ERRNO | (uint32_t)atoi(argv[1])
					 : SECCOMP_RET_KILL_PROCESS;
	filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						   offsetof(struct seccomp_data, nr));
	for (char *nr = strtok(argv[2], ","); nr && n < MAX_FILTER - 3; nr = strtok(NULL, ",")) {
		filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
							   (uint32_t)atoi(nr), 0, 1);
		filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, answer);
	}
	filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	prog.len = n;
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		die("seccomp");
	execvp(argv[3], argv + 3);
	die("%s", argv[3]);
}
