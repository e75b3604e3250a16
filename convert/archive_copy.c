/* SPDX-License-Identifier: MIT */
/* Writes an archive: members of another one as they are, and files of our own. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ckf_io_util.h"
#include "archive_copy.h"
#include "files.h"

#define COPY_BYTES ((size_t)1 << 20)
#define MAX_PREFIX_BYTES 64

int ckf_archive_copy_init(struct ckf_archive_copy *w, const struct ckf_archive *from, int fd,
			  const struct ckf_convert_opts *opts, struct ckf_error *err)
{
	*w = (struct ckf_archive_copy){ .from = from, .fd = fd, .opts = opts, .err = err };
	w->buf = malloc(COPY_BYTES);
	return w->buf ? 0 : ckf_error_set(err, -ENOMEM, "no memory to copy members");
}

void ckf_archive_copy_fini(struct ckf_archive_copy *w)
{
	free(w->buf);
	w->buf = NULL;
}

int ckf_archive_read(const struct ckf_archive *a, uint64_t off, void *buf, size_t bytes,
		     struct ckf_error *err)
{
	int ret = ckf_pread_all(a->dir.fd, buf, bytes, off);

	if (ret)
		return ckf_error_set(err, ret, "cannot read the archive: %s",
				     ret == -EBADMSG ? "it became shorter" : strerror(-ret));
	return 0;
}

int ckf_archive_copy_write(struct ckf_archive_copy *w, const void *p, size_t bytes)
{
	int ret = ckf_pwrite_all(w->fd, p, bytes, w->off);

	if (ret)
		return ckf_error_set(w->err, ret, "cannot write the archive: %s", strerror(-ret));
	w->off += bytes;
	return 0;
}

int ckf_archive_copy_range(struct ckf_archive_copy *w, uint64_t start, uint64_t end)
{
	int ret = 0;

	for (size_t n; start < end && !ret; start += n) {
		n = end - start < COPY_BYTES ? (size_t)(end - start) : COPY_BYTES;
		if (w->opts->stop && w->opts->stop(w->opts->arg))
			return ckf_error_set(w->err, -EINTR, "stopped");
		ret = ckf_archive_read(w->from, start, w->buf, n, w->err);
		if (!ret)
			ret = ckf_archive_copy_write(w, w->buf, n);
	}
	return ret;
}

int ckf_archive_copy_headers(struct ckf_archive_copy *w, const char *name, uint64_t bytes,
			     const struct ckf_access *access, uint32_t align)
{
	const struct ckf_archive *a = w->from;
	const struct ckf_member *like = &a->members.v[0];
	const char *prefix = a->prefix;
	char path[MAX_PREFIX_BYTES + CKF_MAX_NAME_BYTES];
	struct ckf_tar_file f = {
		.name = path,
		.bytes = bytes,
		.mtime_sec = like->mtime_sec,
		.mode = access->mode,
		.uid = access->uid,
		.gid = access->gid,
	};
	void *headers;
	size_t n;
	int ret;

	if (strlen(prefix) >= MAX_PREFIX_BYTES)
		prefix = a->kind == CKF_ARCHIVE_ROOT ? "" : CKF_CHECKPOINT_DIR "/";
	snprintf(path, sizeof(path), "%s%s", prefix, name);
	ret = ckf_tar_make_headers(&f, w->off, align, &headers, &n);
	if (ret)
		return ckf_error_set(w->err, ret, "no header for %s: %s", path, strerror(-ret));
	ret = ckf_archive_copy_write(w, headers, n);
	free(headers);
	return ret;
}

int ckf_archive_copy_file(struct ckf_archive_copy *w, const char *name, const void *p, size_t bytes,
			  const struct ckf_access *access)
{
	static const char zeros[CKF_TAR_BLOCK];
	int ret = ckf_archive_copy_headers(w, name, bytes, access, CKF_TAR_BLOCK);

	if (!ret)
		ret = ckf_archive_copy_write(w, p, bytes);
	if (!ret)
		ret = ckf_archive_copy_write(w, zeros,
					     (size_t)(ckf_align_up(bytes, CKF_TAR_BLOCK) - bytes));
	return ret;
}

int ckf_archive_check_unchanged(const struct ckf_archive *a, struct ckf_error *err)
{
	struct stat st;

	if (fstat(a->file_fd, &st))
		return ckf_error_set(err, -errno, "cannot stat the archive: %s", strerror(errno));
	if (st.st_size != a->st.st_size ||
	    memcmp(&st.st_mtim, &a->st.st_mtim, sizeof(st.st_mtim)) != 0)
		return ckf_error_set(err, -EBADMSG, "the archive changed while it was read");
	return 0;
}

int ckf_archive_open_output(struct ckf_output *o, const struct ckf_archive *a,
			    const struct ckf_in_place *in, const char *path, bool force,
			    struct ckf_error *err)
{
	struct stat st;
	int ret;

	if (!path)
		return ckf_output_open_file_in_place(o, in, err);
	ret = ckf_output_open_file(o, path, force, err);
	if (ret)
		return ret;
	if (!fstatat(o->parent_fd, o->name, &st, 0) && st.st_dev == a->st.st_dev &&
	    st.st_ino == a->st.st_ino)
		ret = ckf_error_set(err, -EINVAL,
				    "source and destination are the same file: --in-place "
				    "replaces it");
	if (!ret)
		ret = ckf_output_like_dir(o, a->file_fd, err);
	if (ret)
		ckf_output_close(o, NULL, NULL);
	return ret;
}
