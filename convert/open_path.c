/* SPDX-License-Identifier: MIT */
/* ckf_image_open_path(): an image that lies in a directory, in an archive or in a layout. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "loader/ckf_image.h"
#include "ckfast.h"
#include "ckf_archive.h"

static void close_archive(void *owner)
{
	ckf_archive_close(owner);
}

static int open_in_archive(const char *path, const struct ckf_image_opts *opts,
			   struct ckf_image **out, struct ckf_error *err)
{
	struct ckf_archive *a = NULL;
	int ret = ckf_checkpoint_open(path, &a, err);

	if (!ret)
		ret = ckf_image_open_dir(ckf_archive_dir(a), opts, out, err);
	if (ret) {
		ckf_archive_close(a);
		return ret;
	}
	(*out)->release = close_archive;
	(*out)->owner = a;
	return 0;
}

int ckf_image_open_path(const char *path, const struct ckf_image_opts *opts, struct ckf_image **out,
			struct ckf_error *err)
{
	int fd, ret;

	if (ckf_checkpoint_probe(path))
		return open_in_archive(path, opts, out, err);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return ckf_error_set(err, -errno, "cannot open: %s", strerror(errno));
	ret = ckf_image_open_opts(fd, opts, out, err);
	close(fd);
	return ret;
}
