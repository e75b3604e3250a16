/* SPDX-License-Identifier: MIT */
/*
 * For LD_PRELOAD: a program is killed before the call number CKF_TEST_KILL_AT, from 1, of those
 * that change what a directory has, or see to it that it is on the disk; or right after a write
 * that has CKF_TEST_KILL_SAYS in it, as a line of its log.
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
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

ssize_t write(int fd, const void *data, size_t size)
{
	ssize_t (*real)(int, const void *,
			size_t) = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
	const char *word = getenv("CKF_TEST_KILL_SAYS");
	ssize_t written = real(fd, data, size);

	if (word && memmem(data, size, word, strlen(word)))
		kill(getpid(), SIGKILL);
	return written;
}
