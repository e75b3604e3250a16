/* SPDX-License-Identifier: MIT */
/*
 * For LD_PRELOAD: a program is killed before the call number CKF_TEST_KILL_AT, from 1, of those
 * that change what a directory has, or see to it that it is on the disk.
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

static void count(void)
{
	static atomic_ulong calls;
	const char *at = getenv("CKF_TEST_KILL_AT");

	if (at && atomic_fetch_add(&calls, 1) + 1 == strtoul(at, NULL, 10))
		kill(getpid(), SIGKILL);
}

#define COUNTED(name, params, args)                                         \
	int name params                                                     \
	{                                                                   \
		int(*real) params = (int(*) params)dlsym(RTLD_NEXT, #name); \
                                                                            \
		count();                                                    \
		return real args;                                           \
	}

COUNTED(fsync, (int fd), (fd))
COUNTED(mkdirat, (int dir, const char *name, unsigned int mode), (dir, name, mode))
COUNTED(renameat, (int from, const char *a, int to, const char *b), (from, a, to, b))
COUNTED(renameat2, (int from, const char *a, int to, const char *b, unsigned int flags),
	(from, a, to, b, flags))
COUNTED(unlinkat, (int dir, const char *name, int flags), (dir, name, flags))
