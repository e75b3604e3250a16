/* SPDX-License-Identifier: MIT */
/*
 * Opens a fast image and reads single chunks and whole verbatim files of it.
 *
 * The index is read into private memory and decoded from there, never mapped: the file may change
 * under us, the decoded copy does not.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "format/ckf_codec.h"
#include "format/ckf_sum.h"
#include "base/ckf_opts.h"
#include "base/ckf_table.h"
#include "ckf_image.h"
#include "base/ckf_io_util.h"
#include "ckf_read.h"
#include "readers.h"

#define COPY_BYTES (1u << 20)
/* A file that can wait has so many bytes: to check less takes no longer than to start a process. */
#define FILE_WAITS_BYTES ((uint64_t)8 << 20)
#define GHOST_PREFIX "ghost-file-" /* CRIU's name for the contents of unlinked files */

int ckf_image_open_regular(int dir_fd, const char *name, int flags, uint64_t *size,
			   struct ckf_error *err)
{
	int fd = ckf_open_regular(dir_fd, name, O_NOFOLLOW | flags, size);

	/* For the caller to tell about: no such file; no direct reads here. */
	if (fd >= 0 || fd == -ENOENT || (fd == -EINVAL && (flags & O_DIRECT)))
		return fd;
	if (fd == -ELOOP)
		return ckf_error_rule(err, -EBADMSG, name, -1, 0,
				      "is a symbolic link, want a regular file");
	if (fd == -EOPNOTSUPP)
		return ckf_error_rule(err, -EBADMSG, name, -1, 0, "is not a regular file");
	return ckf_error_set(err, fd, "cannot open %s: %s", name, strerror(-fd));
}

bool ckf_is_img_name(const char *name)
{
	size_t len = strlen(name);

	return len > 4 && !strcmp(name + len - 4, ".img");
}

bool ckf_image_probe(int dir_fd)
{
	return faccessat(dir_fd, CKF_IDX_NAME, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Opens a file of the image; -ENOENT, and -EINVAL for refused O_DIRECT, leave err alone. */
static int open_part(const struct ckf_dir *dir, const char *name, int flags,
		     struct ckf_file_part *out, struct ckf_error *err)
{
	int ret;

	if (dir->members) {
		ret = ckf_dir_open_member(dir, name, out);
		return ret && ret != -ENOENT
			       ? ckf_error_set(err, ret, "cannot open %s: %s", name, strerror(-ret))
			       : ret;
	}
	*out = (struct ckf_file_part){ 0 };
	out->fd = ckf_image_open_regular(dir->fd, name, flags, &out->bytes, err);
	return out->fd < 0 ? out->fd : 0;
}

/* Says which file the offset in a message of the decoder is one of. */
static int index_error(int ret, const struct ckf_error *why, struct ckf_error *err)
{
	if (!err || err->code)
		return ret;
	ckf_error_set(err, ret, CKF_IDX_NAME "%s: %s", ret == -EBADMSG ? " is damaged" : "",
		      why->msg);
	err->off = why->off;
	return ret;
}

static int read_index(const struct ckf_dir *dir, struct ckf_index **out, struct ckf_error *err)
{
	struct ckf_error why = { 0 };
	struct ckf_file_part part;
	void *buf = NULL;
	uint64_t size;
	int ret = open_part(dir, CKF_IDX_NAME, 0, &part, err);

	if (ret == -ENOENT)
		return ckf_error_set(err, ret,
				     "not a fast image: there is no " CKF_IDX_NAME
				     "; ckfast convert makes a fast image of a dump");
	if (ret)
		return ret;
	size = part.bytes;
	if (size < sizeof(struct ckf_disk_header)) {
		ret = ckf_error_rule(&why, -EBADMSG, "header", -1, 0,
				     "file too short, got %llu bytes, want at least %zu",
				     (unsigned long long)size, sizeof(struct ckf_disk_header));
		goto out;
	}
	buf = ckf_table_alloc(size);
	if (!buf) {
		ret = ckf_error_set(err, -ENOMEM, "no memory for %s of %llu bytes", CKF_IDX_NAME,
				    (unsigned long long)size);
		goto out;
	}
	ret = ckf_pread_all(part.fd, buf, size, part.off);
	if (ret) {
		ckf_error_set(err, ret, "cannot read %s: %s", CKF_IDX_NAME, strerror(-ret));
		goto out;
	}
	ret = ckf_index_decode(buf, size, out, &why);
out:
	if (why.code)
		index_error(ret, &why, err);
	free(buf);
	close(part.fd);
	return ret;
}

/* The directory of base n: through every component of its path, and through no link. */
static int open_base_dir(const struct ckf_image *img, int dir_fd, unsigned int n)
{
	const char *at = img->idx->bases[n - 1].path;
	char name[CKF_MAX_NAME_BYTES + 1];
	int fd = dir_fd, next;

	if (img->base_fds && img->base_fds[n - 1] >= 0)
		return fcntl(img->base_fds[n - 1], F_DUPFD_CLOEXEC, 0);
	while (*at) {
		size_t len = strcspn(at, "/");

		memcpy(name, at, len);
		name[len] = '\0';
		next = openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd != dir_fd)
			close(fd);
		if (next < 0)
			return -1;
		fd = next;
		at += len + (at[len] == '/');
	}
	return fd;
}

static int base_error(const struct ckf_image *img, unsigned int n, int ret, const char *why,
		      struct ckf_error *err)
{
	const struct ckf_base *b = &img->idx->bases[n - 1];
	bool named = img->base_fds && img->base_fds[n - 1] >= 0;
	char id[CKF_ID_HEX_BYTES];

	return ckf_error_set(err, ret,
			     "base %u, image %s, at %s%s: %s; put that image there, or make this "
			     "one whole with ckfast flatten --base DIR",
			     n, ckf_id_hex(b->image_id, id), b->path,
			     named ? " (another directory was named)" : "", why);
}

int ckf_image_open_base_dir(const struct ckf_image *img, unsigned int n, struct ckf_error *err)
{
	int dir = open_base_dir(img, img->dir_fd, n);

	return dir < 0 ? base_error(img, n, -errno, strerror(errno), err) : dir;
}

/* The pack of base n, of any length: *size. */
static int open_base_pack(const struct ckf_image *img, int dir_fd, unsigned int n, int flags,
			  uint64_t *size, struct ckf_error *err)
{
	struct ckf_error inner = { 0 };
	int dir, fd;

	dir = open_base_dir(img, dir_fd, n);
	if (dir < 0)
		return base_error(img, n, -errno, strerror(errno), err);
	fd = ckf_image_open_regular(dir, CKF_PACK_NAME, flags, size, &inner);
	close(dir);
	if (fd >= 0 || (fd == -EINVAL && (flags & O_DIRECT)))
		return fd;
	return base_error(img, n, fd, inner.code ? inner.msg : "there is no " CKF_PACK_NAME, err);
}

static int read_base_header(const struct ckf_base *b, int fd, struct ckf_error *err)
{
	struct ckf_disk_pack_header h;
	int ret;

	ret = ckf_pread_all(fd, &h, sizeof(h), 0);
	if (ret)
		return ckf_error_set(err, ret, "cannot read " CKF_PACK_NAME ": %s",
				     ret == -EBADMSG ? "it is too short" : strerror(-ret));
	return ckf_base_header_check(b, &h, err);
}

int ckf_image_check_base(const struct ckf_image *img, unsigned int n, struct ckf_error *err)
{
	const struct ckf_base *b = &img->idx->bases[n - 1];
	struct ckf_error inner = { 0 };
	uint64_t size;
	int fd, ret;

	fd = open_base_pack(img, img->dir_fd, n, 0, &size, err);
	if (fd < 0)
		return fd;
	ret = read_base_header(b, fd, &inner);
	close(fd);
	if (!ret && size != b->pack_bytes)
		ret = ckf_error_set(&inner, -EBADMSG,
				    "wrong length of " CKF_PACK_NAME ", got %llu, want %llu",
				    (unsigned long long)size, (unsigned long long)b->pack_bytes);
	return ret ? base_error(img, n, ret, inner.msg, err) : 0;
}

/* The base whose pack is at fd: its position, -ESTALE when it is none, or -errno. */
static int which_base(const struct ckf_index *idx, int fd, struct ckf_error *err)
{
	int ret = -ESTALE;

	for (unsigned int i = 0; i < idx->nr_bases && ret == -ESTALE; i++) {
		struct ckf_error inner = { 0 };

		ret = read_base_header(&idx->bases[i], fd, &inner);
		if (!ret)
			return (int)i;
		if (ret != -ESTALE)
			return ckf_error_set(err, ret, "%s", inner.msg);
	}
	return ckf_error_set(err, ret, "it is none of the bases of the image");
}

/* A directory that the caller has named, for the base that it is. */
static int take_base_dir(struct ckf_image *img, const char *path, struct ckf_error *err)
{
	struct ckf_error inner = { 0 };
	uint64_t size;
	int dir, fd, ret;

	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return ckf_error_set(err, -errno, "cannot open base %s: %s", path, strerror(errno));
	fd = ckf_image_open_regular(dir, CKF_PACK_NAME, 0, &size, &inner);
	ret = fd;
	if (fd >= 0) {
		ret = which_base(img->idx, fd, &inner);
		close(fd);
	}
	if (ret >= 0 && img->base_fds[ret] < 0) {
		img->base_fds[ret] = dir;
		return 0;
	}
	close(dir);
	if (ret >= 0)
		return 0;
	return ckf_error_set(err, ret, "base %s: %s", path,
			     inner.code ? inner.msg : "there is no " CKF_PACK_NAME);
}

static int find_bases(struct ckf_image *img, const struct ckf_image_opts *opts,
		      struct ckf_error *err)
{
	const unsigned int nr = img->idx->nr_bases;
	int ret = 0;

	if (!nr)
		return 0;
	img->base_fds = malloc(nr * sizeof(*img->base_fds));
	if (!img->base_fds)
		return ckf_error_set(err, -ENOMEM, "no memory for the bases");
	for (unsigned int i = 0; i < nr; i++)
		img->base_fds[i] = -1;
	for (size_t i = 0; i < opts->nr_base_dirs && !ret; i++)
		ret = take_base_dir(img, opts->base_dirs[i], err);
	for (unsigned int n = 1; n <= nr && !ret && !opts->no_bases; n++)
		ret = ckf_image_check_base(img, n, err);
	return ret;
}

static int check_pack(const struct ckf_image *img, struct ckf_error *err)
{
	struct ckf_disk_pack_header h;
	int fd, ret;

	fd = ckf_image_open_pack(img, img->dir_fd, 0, err);
	if (fd < 0)
		return fd;
	ret = ckf_pread_all(fd, &h, sizeof(h), img->pack_start);
	if (ret)
		ckf_error_set(err, ret, "cannot read %s: %s", CKF_PACK_NAME, strerror(-ret));
	else
		ret = ckf_pack_header_check(img->idx, &h, err);
	close(fd);
	return ret;
}

int ckf_image_open(int dir_fd, struct ckf_image **out, struct ckf_error *err)
{
	return ckf_image_open_opts(dir_fd, NULL, out, err);
}

int ckf_image_open_opts(int dir_fd, const struct ckf_image_opts *opts, struct ckf_image **out,
			struct ckf_error *err)
{
	return ckf_image_open_dir(CKF_DIR(dir_fd), opts, out, err);
}

/* The place of the pack is known; the way to a base begins at a directory. */
static int enter_archive(struct ckf_image *img, struct ckf_error *err)
{
	const struct ckf_member *m = ckf_members_find(img->members, CKF_PACK_NAME);

	if (img->idx->nr_bases)
		return ckf_error_set(err, -EOPNOTSUPP, "an image with bases in an archive");
	img->pack_start = m ? m->off : 0;
	return 0;
}

int ckf_image_open_dir(const struct ckf_dir *dir, const struct ckf_image_opts *opts,
		       struct ckf_image **out, struct ckf_error *err)
{
	struct ckf_image_opts o = { .size = sizeof(o) };
	struct ckf_image *img;
	int ret;

	ret = opts ? CKF_OPTS_TAKE(ckf_image_opts, &o, opts, size, err) : 0;
	if (ret)
		return ret;
	img = calloc(1, sizeof(*img));
	if (!img)
		return ckf_error_set(err, -ENOMEM, "no memory");
	img->members = dir->members;
	img->dir_fd = fcntl(dir->fd, F_DUPFD_CLOEXEC, 0);
	if (img->dir_fd < 0) {
		ret = ckf_error_set(err, -errno, "cannot duplicate fd: %s", strerror(errno));
		goto fail;
	}
	ret = read_index(dir, &img->idx, err);
	if (!ret && img->members)
		ret = enter_archive(img, err);
	if (!ret)
		ret = check_pack(img, err);
	if (!ret)
		ret = find_bases(img, &o, err);
	if (ret)
		goto fail;
	*out = img;
	return 0;
fail:
	ckf_image_close(img);
	return ret;
}

void ckf_image_close(struct ckf_image *img)
{
	if (!img)
		return;
	if (img->dir_fd >= 0)
		close(img->dir_fd);
	if (img->release)
		img->release(img->owner);
	for (unsigned int i = 0; img->base_fds && i < img->idx->nr_bases; i++)
		if (img->base_fds[i] >= 0)
			close(img->base_fds[i]);
	free(img->base_fds);
	ckf_index_free(img->idx);
	free(img->shared_chunks);
	free(img->cached);
	free(img);
}

int ckf_image_find_shared_chunks(struct ckf_image *img, struct ckf_error *err)
{
	const struct ckf_index *idx = img->idx;
	uint32_t *by; /* for each chunk, 1 + the lane that was the first to need it */
	uint8_t *shared;

	by = calloc(idx->nr_chunks + 1, sizeof(*by));
	shared = calloc(idx->nr_chunks / 8 + 1, 1);
	if (!by || !shared) {
		free(by);
		free(shared);
		return ckf_error_set(err, -ENOMEM, "no memory for the plan");
	}
	for (uint64_t l = 0; l < idx->nr_lanes; l++) {
		const struct ckf_lane *lane = &idx->lanes[l];

		for (uint64_t i = lane->first_op; i < lane->first_op + lane->nr_ops; i++) {
			uint32_t c = idx->ops[i].chunk;

			/* What a parent has is not read for its child. */
			if (ckf_op_flags(&idx->ops[i]) & CKF_OP_INHERIT)
				continue;
			if (by[c] && by[c] != (uint32_t)l + 1)
				shared[c / 8] |= (uint8_t)(1u << c % 8);
			by[c] = (uint32_t)l + 1;
		}
	}
	free(by);
	free(img->shared_chunks);
	img->shared_chunks = shared;
	return 0;
}

int ckf_image_open_pack(const struct ckf_image *img, int dir_fd, int flags, struct ckf_error *err)
{
	const struct ckf_dir dir = { .fd = dir_fd, .members = img->members };
	struct ckf_file_part part;
	int ret = open_part(&dir, CKF_PACK_NAME, flags, &part, err);

	if (ret == -ENOENT)
		return ckf_error_rule(err, -EBADMSG, "pack", -1, 0, CKF_PACK_NAME " is missing");
	if (ret)
		return ret;
	if (part.bytes != img->idx->pack_bytes) {
		close(part.fd);
		return ckf_error_rule(err, -EBADMSG, "pack", -1, 0,
				      "wrong length of " CKF_PACK_NAME ", got %llu, want %llu",
				      (unsigned long long)part.bytes,
				      (unsigned long long)img->idx->pack_bytes);
	}
	return part.fd;
}

int ckf_image_open_pack_of(const struct ckf_image *img, int dir_fd, unsigned int n, int flags,
			   struct ckf_error *err)
{
	uint64_t size;
	int fd;

	if (!n)
		return ckf_image_open_pack(img, dir_fd, flags, err);
	fd = open_base_pack(img, dir_fd, n, flags, &size, err);
	if (fd >= 0 && size != img->idx->bases[n - 1].pack_bytes) {
		close(fd);
		return base_error(img, n, -EBADMSG, "wrong length of " CKF_PACK_NAME, err);
	}
	return fd;
}

int ckf_image_pack_is_cached(const struct ckf_image *img, int dir_fd, unsigned int n,
			     struct ckf_error *err)
{
	uint64_t bytes = n ? img->idx->bases[n - 1].pack_bytes : img->idx->pack_bytes;
	int fd, ret;

	if (img->cached)
		return img->cached[n];
	fd = ckf_image_open_pack_of(img, dir_fd, n, 0, err);
	if (fd < 0)
		return fd;
	ret = ckf_fd_is_cached(fd, bytes);
	close(fd);
	return ret;
}

int ckf_image_find_cached(struct ckf_image *img, struct ckf_error *err)
{
	const unsigned int nr = img->idx->nr_bases + 1;
	bool *cached;
	int ret = 0;

	cached = calloc(nr, sizeof(*cached));
	if (!cached)
		return ckf_error_set(err, -ENOMEM, "no memory for the packs");
	free(img->cached);
	img->cached = NULL;
	for (unsigned int n = 0; n < nr && ret >= 0; n++) {
		ret = ckf_image_pack_is_cached(img, img->dir_fd, n, err);
		cached[n] = ret > 0;
	}
	if (ret < 0) {
		free(cached);
		return ret;
	}
	img->cached = cached;
	return 0;
}

/* A tree is forked with the index in it; one task is forked once, and copying costs more. */
static bool is_tree(const struct ckf_index *idx)
{
	uint64_t tasks = 0;

	for (uint64_t i = 0; i < idx->nr_targets; i++)
		tasks += idx->targets[i].kind == CKF_TARGET_TASK;
	return tasks > 1;
}

int ckf_image_prepare(struct ckf_image *img, struct ckf_error *err)
{
	int ret = ckf_image_find_shared_chunks(img, err);

	if (!ret)
		ret = ckf_image_find_cached(img, err);
	img->many_readers = ckf_many_readers(img->idx);
	if (!ret && is_tree(img->idx) && ckf_index_share(img->idx))
		ret = ckf_error_set(err, -ENOMEM, "no memory for the index");
	return ret;
}

int ckf_image_open_packs(const struct ckf_image *img, int dir_fd, int **fds, struct ckf_error *err)
{
	const unsigned int nr = img->idx->nr_bases + 1;

	*fds = malloc(nr * sizeof(**fds));
	if (!*fds)
		return ckf_error_set(err, -ENOMEM, "no memory for the packs");
	for (unsigned int n = 0; n < nr; n++)
		(*fds)[n] = -1;
	for (unsigned int n = 0; n < nr; n++) {
		(*fds)[n] = ckf_image_open_pack_of(img, dir_fd, n, 0, err);
		if ((*fds)[n] < 0)
			return (*fds)[n];
	}
	return 0;
}

void ckf_image_close_packs(const struct ckf_image *img, int *fds)
{
	for (unsigned int n = 0; fds && n <= img->idx->nr_bases; n++)
		if (fds[n] >= 0)
			close(fds[n]);
	free(fds);
}

bool ckf_image_is_stale(const struct ckf_image *img)
{
	for (uint64_t i = 0; i < img->idx->nr_files; i++) {
		const struct ckf_file *f = &img->idx->files[i];

		if (!ckf_file_has_pages(f))
			continue;
		if (img->members ? ckf_members_find(img->members, f->name) != NULL
				 : !faccessat(img->dir_fd, f->name, F_OK, 0))
			return true;
	}
	return false;
}

const char *ckf_image_stale_hint(const struct ckf_image *img)
{
	if (!ckf_image_is_stale(img))
		return "";
	return "; a newer dump was written into this directory: remove ckfast.idx, ckfast.pack "
	       "and " CKF_README_NAME
	       " to restore that as it is, or convert it to another directory";
}

int ckf_image_open_file(const struct ckf_image *img, const struct ckf_file *f,
			struct ckf_file_part *out, struct ckf_error *err)
{
	const struct ckf_dir dir = { .fd = img->dir_fd, .members = img->members };
	int ret = open_part(&dir, f->name, 0, out, err);

	if (ret == -ENOENT)
		return ckf_error_rule(err, -EBADMSG, "files", f - img->idx->files, 0,
				      "%s is missing%s", f->name, ckf_image_stale_hint(img));
	if (ret)
		return ret;
	if (out->bytes == f->size_bytes)
		return 0;
	close(out->fd);
	return ckf_error_rule(err, -EBADMSG, "files", f - img->idx->files, 0,
			      "wrong length of %s, got %llu, want %llu%s", f->name,
			      (unsigned long long)out->bytes, (unsigned long long)f->size_bytes,
			      ckf_image_stale_hint(img));
}

static int hash_file(const struct ckf_file_part *part, void *buf, struct ckf_sum *state,
		     uint64_t *hash)
{
	const uint64_t size = part->bytes;
	uint64_t off;
	size_t len;
	int ret;

	ckf_sum_reset(state);
	for (off = 0; off < size; off += len) {
		len = size - off < COPY_BYTES ? (size_t)(size - off) : COPY_BYTES;
		ret = ckf_pread_all(part->fd, buf, len, part->off + off);
		if (ret)
			return ret;
		ckf_sum_update(state, buf, len);
	}
	*hash = ckf_sum_value(state);
	return 0;
}

static int check_file(const struct ckf_image *img, const struct ckf_file *f, void *buf,
		      struct ckf_sum *state, struct ckf_error *err)
{
	struct ckf_file_part part;
	uint64_t hash;
	int ret = ckf_image_open_file(img, f, &part, err);

	if (ret)
		return ret;
	ret = hash_file(&part, buf, state, &hash);
	if (ret)
		ckf_error_set(err, ret, "cannot read %s: %s", f->name, strerror(-ret));
	else if (hash != f->checksum)
		ret = ckf_error_rule(err, -EBADMSG, "files", f - img->idx->files, 0,
				     "wrong checksum of %s, got %016llx, want %016llx%s", f->name,
				     (unsigned long long)hash, (unsigned long long)f->checksum,
				     ckf_image_stale_hint(img));
	close(part.fd);
	return ret;
}

bool ckf_file_is_unread(const struct ckf_file *f)
{
	return f->kind == CKF_FILE_VERBATIM && !ckf_is_img_name(f->name);
}

static bool is_read(const struct ckf_file *f)
{
	return f->kind == CKF_FILE_VERBATIM && ckf_is_img_name(f->name);
}

static bool can_wait(const struct ckf_file *f)
{
	return is_read(f) && f->size_bytes >= FILE_WAITS_BYTES &&
	       !strncmp(f->name, GHOST_PREFIX, strlen(GHOST_PREFIX));
}

static bool cannot_wait(const struct ckf_file *f)
{
	return is_read(f) && !can_wait(f);
}

/* Checks the files that are wanted. With changed, one that differs is told to it and no error. */
static int check_files(const struct ckf_image *img, bool (*wanted)(const struct ckf_file *f),
		       void (*changed)(void *arg, const char *name), void *arg,
		       struct ckf_error *err)
{
	const struct ckf_index *idx = img->idx;
	struct ckf_sum *state;
	int ret = 0;
	void *buf;

	buf = malloc(COPY_BYTES);
	state = ckf_sum_new();
	if (!buf || !state) {
		ret = ckf_error_set(err, -ENOMEM, "no memory");
		goto out;
	}
	for (uint64_t i = 0; i < idx->nr_files && !ret; i++) {
		const struct ckf_file *f = &idx->files[i];
		struct ckf_error why = { 0 };

		if (!wanted(f))
			continue;
		ret = check_file(img, f, buf, state, &why);
		if (ret == -EBADMSG && changed) {
			changed(arg, f->name);
			ret = 0;
		} else if (ret && err && !err->code) {
			*err = why;
		}
	}
out:
	ckf_sum_free(state);
	free(buf);
	return ret;
}

int ckf_image_check_files(const struct ckf_image *img, enum ckf_files which, struct ckf_error *err)
{
	static bool (*const wanted[])(const struct ckf_file *f) = {
		[CKF_FILES_ALL] = is_read,
		[CKF_FILES_FIRST] = cannot_wait,
		[CKF_FILES_LATER] = can_wait,
	};

	return check_files(img, wanted[which], NULL, NULL, err);
}

bool ckf_image_has_later_files(const struct ckf_image *img)
{
	for (uint64_t i = 0; i < img->idx->nr_files; i++)
		if (can_wait(&img->idx->files[i]))
			return true;
	return false;
}

int ckf_image_check_unread(const struct ckf_image *img,
			   void (*changed)(void *arg, const char *name), void *arg,
			   struct ckf_error *err)
{
	return check_files(img, ckf_file_is_unread, changed, arg, err);
}

int ckf_image_read_chunk(const struct ckf_image *img, int pack_fd, uint64_t chunk,
			 struct ckf_codec_ctx *ctx, void *stored, void *dst, struct ckf_error *err)
{
	const struct ckf_chunk *c = &img->idx->chunks[chunk];
	size_t bytes = ckf_pages_to_bytes(c->nr_pages);
	void *src = c->codec == CKF_CODEC_RAW ? dst : stored;
	int ret;

	if (c->codec != CKF_CODEC_ZERO) {
		ret = ckf_pread_all(pack_fd, src, c->stored_bytes,
				    c->pack_off + (c->base ? 0 : img->pack_start));
		if (ret)
			return ckf_error_set(err, ret, "cannot read " CKF_PACK_NAME " at %llu: %s",
					     (unsigned long long)c->pack_off, strerror(-ret));
	}
	if (c->codec != CKF_CODEC_RAW) {
		ret = ckf_chunk_decode(img->idx, chunk, ctx, src, dst, err);
		if (ret)
			return ret;
	}
	return ckf_chunk_check(img->idx, chunk, ckf_hash64(dst, bytes), err);
}
