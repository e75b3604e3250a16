/* SPDX-License-Identifier: MIT */
/*
 * Preloaded into CRIU 4.1 on Linux 6.16 and later.
 *
 * Since then SO_PASSCRED and SO_PASSSEC exist on unix sockets only. For CRIU 4.1 it is an error
 * that other sockets have no such option; later versions take it as off. So do these two functions.
 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Not there, although other sockets have it. */
static bool is_off(long ret, int level, int name)
{
	return ret == -1 && errno == EOPNOTSUPP && level == SOL_SOCKET &&
	       (name == SO_PASSCRED || name == SO_PASSSEC);
}

int getsockopt(int fd, int level, int name, void *restrict val, socklen_t *restrict len)
{
	long ret = syscall(SYS_getsockopt, fd, level, name, val, len);

	if (!is_off(ret, level, name) || *len < sizeof(int))
		return (int)ret;
	memset(val, 0, *len);
	return 0;
}

int setsockopt(int fd, int level, int name, const void *val, socklen_t len)
{
	long ret = syscall(SYS_setsockopt, fd, level, name, val, len);
	int on = 1;

	if (is_off(ret, level, name) && len >= sizeof(on)) {
		memcpy(&on, val, sizeof(on));
		if (!on)
			return 0;
	}
	return (int)ret;
}
