/* SPDX-License-Identifier: MIT */
/*
 * Options and results of other sizes than ours. The size that a caller gives bounds all accesses to
 * its struct, so an old program goes on working with a new library, and a new one with an old
 * library as long as it uses nothing that is new.
 */
#include <errno.h>
#include <string.h>

#include "ckf_opts.h"

static size_t size_of(const void *user)
{
	size_t bytes;

	memcpy(&bytes, user, sizeof(bytes));
	return bytes;
}

static bool is_zero(const char *p, size_t bytes)
{
	while (bytes && !*p) {
		p++;
		bytes--;
	}
	return !bytes;
}

int ckf_opts_check(size_t own_bytes, const void *user, size_t least_bytes, const char *what,
		   struct ckf_error *err)
{
	const size_t bytes = size_of(user);

	if (bytes < least_bytes)
		return ckf_error_set(err, -EINVAL, "struct %s: size is %zu, want at least %zu",
				     what, bytes, least_bytes);
	if (bytes > own_bytes && !is_zero((const char *)user + own_bytes, bytes - own_bytes))
		return ckf_error_set(err, -EINVAL, "struct %s: this version knows only %zu bytes",
				     what, own_bytes);
	return 0;
}

int ckf_opts_take(void *own, size_t own_bytes, const void *user, size_t least_bytes,
		  const char *what, struct ckf_error *err)
{
	const size_t bytes = size_of(user);
	int ret = ckf_opts_check(own_bytes, user, least_bytes, what, err);

	if (ret)
		return ret;
	memset(own, 0, own_bytes);
	memcpy(own, user, bytes < own_bytes ? bytes : own_bytes);
	memcpy(own, &own_bytes, sizeof(own_bytes));
	return 0;
}

int ckf_opts_give(void *user, const void *own, size_t own_bytes)
{
	const size_t bytes = size_of(user);

	if (bytes < sizeof(bytes))
		return -EINVAL;
	if (bytes > own_bytes)
		memset((char *)user + own_bytes, 0, bytes - own_bytes);
	memcpy((char *)user + sizeof(bytes), (const char *)own + sizeof(bytes),
	       (bytes < own_bytes ? bytes : own_bytes) - sizeof(bytes));
	return 0;
}
