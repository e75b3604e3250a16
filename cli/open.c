/* SPDX-License-Identifier: MIT */
/* Directories. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "ckf_cli.h"

int cli_open_dir(const char *path, struct ckf_error *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd >= 0 ? fd : ckf_error_set(err, -errno, "cannot open: %s", strerror(errno));
}
