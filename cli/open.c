/* SPDX-License-Identifier: MIT */
/* Directories, and this program itself. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "ckf_cli.h"

int cli_open_dir(const char *path, struct ckf_error *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd >= 0 ? fd : ckf_error_set(err, -errno, "cannot open: %s", strerror(errno));
}

const char *cli_own_program(char buf[CLI_OWN_BYTES])
{
	/* Started by a dynamic loader that was named, /proc/self/exe is that. */
	if (ckf_gpu_find_own("bin/ckfast", buf, CLI_OWN_BYTES, NULL))
		snprintf(buf, CLI_OWN_BYTES, "/proc/self/exe");
	return buf;
}

/* Packages have it in a folder of ckfast's own: it is no library to link with. */
int cli_find_agent(char buf[CLI_OWN_BYTES], struct ckf_error *err)
{
	if (!ckf_gpu_find_own("lib/ckfast/" CKF_AGENT_LIBRARY, buf, CLI_OWN_BYTES, NULL))
		return 0;
	return ckf_gpu_find_own("lib/" CKF_AGENT_LIBRARY, buf, CLI_OWN_BYTES, err);
}
