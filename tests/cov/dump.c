/* SPDX-License-Identifier: MIT */
/*
 * Part of the agent when it is built with D=cov: a process that a test ends by SIGUSR2 first writes
 * down which lines of the agent it has reached. Killed, it could not.
 */
#include <signal.h>
#include <unistd.h>

void __gcov_dump(void);

static void end(int sig)
{
	(void)sig;
	__gcov_dump();
	_exit(0);
}

__attribute__((constructor)) static void init(void)
{
	signal(SIGUSR2, end);
}
