/* SPDX-License-Identifier: MIT */
/* Opens an OCI image layout and the checkpoints in it. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckf_io_util.h"
#include "loader/ckf_image.h"
#include "layout.h"

#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_CLOEXEC)

static bool has_file(const char *dir, const char *name)
{
	char path[PATH_MAX];
	struct stat st;
	int n = snprintf(path, sizeof(path), "%s/%s", dir, name);

	return n > 0 && (size_t)n < sizeof(path) && !stat(path, &st) && S_ISREG(st.st_mode);
}

/* An image, or a dump, is meant where the directory has one itself. */
bool ckf_layout_probe(const char *path)
{
	return has_file(path, CKF_LAYOUT_MARK) && !has_file(path, CKF_IDX_NAME) &&
	       !has_file(path, "inventory.img");
}

static int open_dirs(struct ckf_layout *l, int dir_fd, const char *path)
{
	l->dir_fd = openat(dir_fd, path, DIR_FLAGS);
	if (l->dir_fd < 0)
		return ckf_error_set(l->err, -errno, "cannot open %s: %s", path, strerror(errno));
	l->blobs_fd = openat(l->dir_fd, "blobs", DIR_FLAGS | O_NOFOLLOW);
	if (l->blobs_fd >= 0)
		l->sha256_fd = openat(l->blobs_fd, "sha256", DIR_FLAGS | O_NOFOLLOW);
	if (l->sha256_fd < 0)
		return ckf_error_set(l->err, -errno, "cannot open blobs/sha256: %s",
				     strerror(errno));
	return 0;
}

int ckf_layout_open_at(int dir_fd, const char *path, struct ckf_archive *tar, const char *beside,
		       struct ckf_layout **out, struct ckf_error *err)
{
	struct ckf_layout *l = calloc(1, sizeof(*l));
	int ret = 0;

	if (!l) {
		ckf_archive_close(tar);
		return ckf_error_set(err, -ENOMEM, "no memory for a layout");
	}
	l->tar = tar;
	l->dir_fd = -1;
	l->blobs_fd = -1;
	l->sha256_fd = -1;
	l->err = err;
	l->tmp_dir = beside || tar ? ckf_archive_dir_of(beside ? beside : path) : strdup(path);
	if (!l->tmp_dir)
		ret = ckf_error_set(err, -ENOMEM, "no memory for a path");
	if (!ret && !tar)
		ret = open_dirs(l, dir_fd, path);
	if (!ret)
		ret = ckf_layout_read_docs(l);
	if (ret)
		ckf_layout_close(l);
	else
		*out = l;
	return ret;
}

int ckf_layout_open(const char *path, struct ckf_archive *tar, const char *beside,
		    struct ckf_layout **out, struct ckf_error *err)
{
	return ckf_layout_open_at(AT_FDCWD, path, tar, beside, out, err);
}

void ckf_layout_close(struct ckf_layout *l)
{
	if (!l)
		return;
	for (uint64_t i = 0; i < l->nr_docs; i++) {
		json_decref(l->docs[i]->root);
		free(l->docs[i]->text);
		free(l->docs[i]->new_text);
		free(l->docs[i]);
	}
	free(l->docs);
	free(l->layers);
	free(l->changes);
	free(l->tmp_dir);
	if (l->sha256_fd >= 0)
		close(l->sha256_fd);
	if (l->blobs_fd >= 0)
		close(l->blobs_fd);
	if (l->dir_fd >= 0)
		close(l->dir_fd);
	ckf_archive_close(l->tar);
	free(l);
}

static int check_layer(struct ckf_layout *l, const struct ckf_layout_layer *layer,
		       const struct ckf_file_part *part, const struct ckf_convert_opts *opts)
{
	char hex[CKF_SHA256_HEX + 1];
	int ret;

	if (part->bytes != layer->ref.bytes)
		return ckf_error_set(l->err, -EBADMSG,
				     "corrupt layout: blob %s has %llu bytes, not %llu",
				     layer->ref.hex, (unsigned long long)part->bytes,
				     (unsigned long long)layer->ref.bytes);
	ret = ckf_sha256_part(part, opts, hex, l->err);
	if (!ret && strcmp(hex, layer->ref.hex) != 0)
		ret = ckf_error_set(l->err, -EBADMSG, "corrupt layout: blob %s has the digest %s",
				    layer->ref.hex, hex);
	return ret;
}

/* What the layer is when nothing is compressed: the configuration of an image has its digest. */
static int sum_plain(struct ckf_layout *l, struct ckf_layout_layer *layer,
		     const struct ckf_archive *a, const struct ckf_convert_opts *opts)
{
	const struct ckf_file_part plain = {
		.fd = a->dir.fd,
		.off = a->start,
		.bytes = a->end - a->start,
	};

	if (a->compression)
		return ckf_sha256_part(&plain, opts, layer->diff_hex, l->err);
	memcpy(layer->diff_hex, layer->ref.hex, sizeof(layer->diff_hex));
	return 0;
}

int ckf_layout_open_layer(struct ckf_layout *l, struct ckf_layout_layer *layer,
			  const struct ckf_convert_opts *opts, struct ckf_archive **out)
{
	char name[CKF_LAYOUT_BLOB_LEN];
	struct ckf_archive *a = NULL;
	struct ckf_file_part part;
	int ret;

	snprintf(name, sizeof(name), CKF_LAYOUT_BLOBS "%s", layer->ref.hex);
	ret = ckf_layout_open_file(l, name, &part);
	if (ret)
		return ckf_error_set(l->err, ret, "cannot open %s: %s", name, strerror(-ret));
	ret = check_layer(l, layer, &part, opts);
	if (!ret)
		ret = ckf_archive_open_part(&part, l->tmp_dir, &a, l->err);
	close(part.fd);
	if (!ret && a->kind == CKF_ARCHIVE_LAYOUT)
		ret = ckf_error_set(l->err, -EBADMSG,
				    "corrupt layout: the checkpoint %s is a layout itself",
				    layer->ref.hex);
	if (!ret)
		ret = sum_plain(l, layer, a, opts);
	if (ret) {
		ckf_archive_close(a);
		return ret;
	}
	layer->fast = ckf_archive_is_fast(a);
	*out = a;
	return 0;
}

bool ckf_checkpoint_probe(const char *path)
{
	return ckf_archive_probe(path) || ckf_layout_probe(path);
}

int ckf_checkpoint_open(const char *path, struct ckf_archive **out, struct ckf_error *err)
{
	struct ckf_archive *a = NULL;
	struct ckf_layout *l = NULL;
	int ret = 0;

	if (ckf_archive_probe(path))
		ret = ckf_archive_open(path, NULL, &a, err);
	if (ret || (a && a->kind != CKF_ARCHIVE_LAYOUT)) {
		*out = a;
		return ret;
	}
	ret = ckf_layout_open(path, a, NULL, &l, err);
	if (!ret && l->nr_layers > 1)
		ret = ckf_error_set(err, -EINVAL,
				    "the layout has %llu checkpoints: name the blob of one, such "
				    "as " CKF_LAYOUT_BLOBS "%s",
				    (unsigned long long)l->nr_layers, l->layers[0].ref.hex);
	if (!ret)
		ret = ckf_layout_open_layer(l, &l->layers[0], NULL, out);
	ckf_layout_close(l);
	return ret;
}
