/* SPDX-License-Identifier: MIT */
/*
 * Preloaded into criu where root lacks CAP_SYS_RESOURCE, as in many containers and sandboxes.
 *
 * A dump reads the resource limits of tasks of other users with prlimit64(), which the kernel
 * refuses without that capability although /proc/PID/limits shows them to everybody. A read that is
 * refused is answered from there. Limits are never set, and all other system calls go straight on.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

/* Lines of /proc/PID/limits: a name of this width, the soft and the hard limit, a unit. */
#define NAME_WIDTH 26

long syscall(long nr, ...);

static long raw_syscall(long nr, const long *args)
{
	register long r10 __asm__("r10") = args[3];
	register long r8 __asm__("r8") = args[4];
	register long r9 __asm__("r9") = args[5];
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(args[0]), "S"(args[1]), "d"(args[2]), "r"(r10), "r"(r8),
			   "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

static rlim64_t parse_limit(const char *word)
{
	return strcmp(word, "unlimited") ? strtoull(word, NULL, 10) : RLIM64_INFINITY;
}

/* The lines are in the order of the resources' numbers, after a headline. */
static bool limit_from_proc(int pid, int resource, struct rlimit64 *lim)
{
	char path[32], line[256], soft[24], hard[24];
	bool found = true;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/limits", pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	for (int i = 0; i < resource + 2 && found; i++)
		found = fgets(line, sizeof(line), f);
	found = found && strlen(line) > NAME_WIDTH &&
		sscanf(line + NAME_WIDTH, "%23s %23s", soft, hard) == 2;
	fclose(f);
	if (!found)
		return false;
	lim->rlim_cur = parse_limit(soft);
	lim->rlim_max = parse_limit(hard);
	return true;
}

long syscall(long nr, ...)
{
	long args[6], ret;
	va_list ap;

	va_start(ap, nr);
	for (int i = 0; i < 6; i++)
		args[i] = va_arg(ap, long);
	va_end(ap);

	ret = raw_syscall(nr, args);
	if (nr == SYS_prlimit64 && ret == -EPERM && !args[2] && args[3] &&
	    limit_from_proc((int)args[0], (int)args[1], (struct rlimit64 *)args[3]))
		return 0;
	if (ret < 0 && ret > -4096) {
		errno = (int)-ret;
		return -1;
	}
	return ret;
}
