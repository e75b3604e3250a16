/* SPDX-License-Identifier: MIT */
/*
 * Writes a layout: the new layers, what has not changed, and the documents that lead to the new
 * layers. A layer gets its name when it is written, for that is its digest; in an archive, so do
 * its headers, whose length is known before.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckf_io_util.h"
#include "archive_copy.h"
#include "conversion.h"
#include "extraction.h"
#include "layout_write.h"

#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)
#define LAYER_NAME ".ckfast-layer"
#define MARK_PARTIAL_NAME CKF_LAYOUT_MARK ".partial"

struct writing {
	struct ckf_layout *l;
	const struct ckf_convert_opts *opts;
	struct ckf_convert_stats *stats; /* NULL: dumps are made */
	struct ckf_error *err;
	struct ckf_in_place in_place;
	struct ckf_output out;
	struct ckf_archive_copy copy; /* of an archive */
	uint64_t headers_off;	      /* of the layer that is written there */
	int blobs_fd;		      /* of a directory: blobs, and sha256 in it */
	int sha256_fd;
};

static void blob_name(char name[CKF_LAYOUT_BLOB_LEN], const char *hex)
{
	snprintf(name, CKF_LAYOUT_BLOB_LEN, CKF_LAYOUT_BLOBS "%s", hex);
}

/* Owner and mode of the file that a new one takes the place of. */
static int access_of(struct writing *w, const char *name, struct ckf_access *a)
{
	struct ckf_file_part part;
	int ret = ckf_layout_open_file(w->l, name, &part);

	if (!ret) {
		ret = ckf_access_get_part(&part, a);
		close(part.fd);
	}
	return ret ? ckf_error_set(w->err, ret, "cannot stat %s: %s", name, strerror(-ret)) : 0;
}

/* The file is written: it gets what the old one had. */
static int finish_file(struct writing *w, int fd, const char *name, const char *old)
{
	struct ckf_access a;
	int ret = access_of(w, old, &a);

	if (!ret)
		ret = ckf_output_set_access(&w->out, fd, name, &a, w->err);
	if (!ret)
		return ckf_output_finish_file(fd, name, w->err);
	close(fd);
	return ret;
}

/* The headers of a member of the archive that takes the place of old. */
static int put_headers(struct writing *w, const char *name, uint64_t bytes, const char *old,
		       uint32_t align)
{
	const struct ckf_member *like = ckf_members_find(ckf_archive_dir(w->l->tar)->members, old);
	struct ckf_tar_file f = { .name = name, .bytes = bytes };
	void *headers;
	size_t n;
	int ret;

	if (like) {
		f.mtime_sec = like->mtime_sec;
		f.mode = like->mode;
		f.uid = like->uid;
		f.gid = like->gid;
	}
	ret = ckf_tar_make_headers(&f, w->copy.off, align, &headers, &n);
	if (ret)
		return ckf_error_set(w->err, ret, "no header for %s: %s", name, strerror(-ret));
	ret = ckf_archive_copy_write(&w->copy, headers, n);
	free(headers);
	return ret;
}

static int put_padding(struct writing *w)
{
	static const char zeros[CKF_TAR_BLOCK];

	return ckf_archive_copy_write(
		&w->copy, zeros, (size_t)(ckf_align_up(w->copy.off, CKF_TAR_BLOCK) - w->copy.off));
}

/* Where a layer will be, until its name is known. */
static int begin_layer(struct writing *w, const char *old, struct ckf_layer_place *at)
{
	int ret;

	if (w->l->tar) {
		w->headers_off = w->copy.off;
		ret = put_headers(w, old, 0, old, CKF_PAGE_BYTES);
		*at = (struct ckf_layer_place){ .fd = w->out.file_fd, .start = w->copy.off };
		return ret;
	}
	*at = (struct ckf_layer_place){ 0 };
	at->fd = openat(w->sha256_fd, LAYER_NAME,
			O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (at->fd < 0)
		return ckf_error_set(w->err, -errno, "cannot create a layer: %s", strerror(errno));
	return 0;
}

/* Another one has become the same blob. */
static int drop_layer(struct writing *w)
{
	if (ftruncate(w->out.file_fd, (off_t)w->copy.off))
		return ckf_error_set(w->err, -errno, "cannot write the archive: %s",
				     strerror(errno));
	return 0;
}

static int name_layer(struct writing *w, const char *old, const char *name,
		      const struct ckf_layer_place *at)
{
	int ret;

	if (w->l->tar) {
		w->copy.off = w->headers_off;
		if (ckf_layout_is_new(w->l, name + strlen(CKF_LAYOUT_BLOBS)))
			return drop_layer(w);
		ret = put_headers(w, name, at->end - at->start, old, CKF_PAGE_BYTES);
		if (!ret && w->copy.off != at->start)
			ret = ckf_error_set(w->err, -EIO, "the headers of %s do not fit", name);
		w->copy.off = at->end;
		return ret ? ret : put_padding(w);
	}
	ret = finish_file(w, at->fd, name, old);
	if (!ret &&
	    renameat(w->sha256_fd, LAYER_NAME, w->sha256_fd, name + strlen(CKF_LAYOUT_BLOBS)))
		ret = ckf_error_set(w->err, -errno, "cannot name %s: %s", name, strerror(errno));
	return ret;
}

/* Takes a. */
static int make_layer(struct writing *w, struct ckf_archive *a, struct ckf_layer_place *at)
{
	struct ckf_extraction *x;
	int ret;

	if (w->stats)
		return ckf_convert_layer(a, w->opts, &w->out, at, w->stats, w->err);
	x = calloc(1, sizeof(*x));
	if (!x) {
		ckf_archive_close(a);
		return ckf_error_set(w->err, -ENOMEM, "no memory to extract");
	}
	x->err = w->err;
	x->opts = *w->opts;
	ret = ckf_extraction_layer(x, a, at);
	free(x);
	return ret;
}

/* The layer of that digest, and also that of its contents, is another one now. */
static int note_layer(struct writing *w, const struct ckf_layout_layer *layer,
		      const struct ckf_layer_place *at, const char *hex)
{
	struct ckf_layout_change c = { .bytes = at->end - at->start, .is_layer = true };
	int ret;

	memcpy(c.to, hex, sizeof(c.to));
	memcpy(c.from, layer->ref.hex, sizeof(c.from));
	ret = ckf_layout_add_change(w->l, &c);
	if (ret || !strcmp(layer->diff_hex, layer->ref.hex))
		return ret;
	memcpy(c.from, layer->diff_hex, sizeof(c.from));
	return ckf_layout_add_change(w->l, &c);
}

static int put_layer(struct writing *w, struct ckf_layout_layer *layer, struct ckf_archive *a)
{
	char old[CKF_LAYOUT_BLOB_LEN], name[CKF_LAYOUT_BLOB_LEN], hex[CKF_SHA256_HEX + 1];
	struct ckf_file_part part;
	struct ckf_layer_place at;
	int ret;

	blob_name(old, layer->ref.hex);
	ret = begin_layer(w, old, &at);
	if (ret) {
		ckf_archive_close(a);
		return ret;
	}
	ret = make_layer(w, a, &at);
	part = (struct ckf_file_part){
		.fd = at.fd,
		.off = at.start,
		.bytes = at.end - at.start,
	};
	if (!ret)
		ret = ckf_sha256_part(&part, w->opts, hex, w->err);
	if (ret) {
		if (!w->l->tar)
			close(at.fd);
		return ret;
	}
	blob_name(name, hex);
	ret = name_layer(w, old, name, &at);
	return ret ? ret : note_layer(w, layer, &at, hex);
}

static int put_layers(struct writing *w)
{
	uint64_t nr = 0;
	int ret = 0;

	for (uint64_t i = 0; i < w->l->nr_layers && !ret; i++) {
		struct ckf_layout_layer *layer = &w->l->layers[i];
		struct ckf_archive *a;

		ret = ckf_layout_open_layer(w->l, layer, w->opts, &a);
		if (ret)
			break;
		if (layer->fast == (w->stats != NULL)) {
			ckf_archive_close(a);
			continue;
		}
		ret = put_layer(w, layer, a);
		nr++;
	}
	if (!ret && !nr)
		ret = ckf_error_set(
			w->err, -EINVAL,
			w->stats ? "all checkpoints of the layout are fast images already; "
				   "ckfast extract makes dumps of them again"
				 : "no checkpoint of the layout is a fast image");
	return ret;
}

/* A blob that has become another one, or is what another one has become. */
static bool is_replaced_blob(const struct writing *w, const char *hex)
{
	return ckf_layout_find_change(w->l, hex) || ckf_layout_is_new(w->l, hex);
}

/* True for a file that is not copied: another one takes its place. */
static bool is_replaced(const struct writing *w, const char *name)
{
	const size_t n = strlen(CKF_LAYOUT_BLOBS);

	if (!strncmp(name, CKF_LAYOUT_BLOBS, n))
		return is_replaced_blob(w, name + n);
	return !strcmp(name, CKF_LAYOUT_INDEX) || !strcmp(name, CKF_LAYOUT_DOCKER);
}

/* A whole new file: in a directory, or as a member. */
static int put_file(struct writing *w, const char *name, const char *old, const void *p,
		    size_t bytes)
{
	const size_t n = strlen(CKF_LAYOUT_BLOBS);
	const bool blob = !strncmp(name, CKF_LAYOUT_BLOBS, n);
	int fd, ret;

	if (w->l->tar) {
		ret = put_headers(w, name, bytes, old, CKF_TAR_BLOCK);
		if (!ret)
			ret = ckf_archive_copy_write(&w->copy, p, bytes);
		return ret ? ret : put_padding(w);
	}
	fd = openat(blob ? w->sha256_fd : w->out.dir_fd, blob ? name + n : name,
		    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return ckf_error_set(w->err, -errno, "cannot create %s: %s", name, strerror(errno));
	ret = ckf_pwrite_all(fd, p, bytes, 0);
	if (ret) {
		close(fd);
		return ckf_error_set(w->err, ret, "cannot write %s: %s", name, strerror(-ret));
	}
	return finish_file(w, fd, name, old);
}

/* docker load reads this one instead of index.json. */
static int put_docker(struct writing *w)
{
	struct ckf_file_part part;
	char *text = NULL, *changed = NULL;
	int ret = ckf_layout_open_file(w->l, CKF_LAYOUT_DOCKER, &part);

	if (ret == -ENOENT)
		return 0;
	if (ret)
		return ckf_error_set(w->err, ret, "cannot open " CKF_LAYOUT_DOCKER ": %s",
				     strerror(-ret));
	ret = ckf_layout_read_text(w->l, CKF_LAYOUT_DOCKER, &part, &text);
	if (!ret) {
		changed = ckf_layout_new_digests(w->l, text, (size_t)part.bytes);
		if (!changed)
			ret = ckf_error_set(w->err, -ENOMEM, "no memory for " CKF_LAYOUT_DOCKER);
	}
	if (!ret)
		ret = put_file(w, CKF_LAYOUT_DOCKER, CKF_LAYOUT_DOCKER, changed,
			       (size_t)part.bytes);
	close(part.fd);
	free(text);
	free(changed);
	return ret;
}

static int put_docs(struct writing *w)
{
	char old[CKF_LAYOUT_BLOB_LEN], name[CKF_LAYOUT_BLOB_LEN];
	int ret = put_docker(w);

	for (uint64_t i = 0; i < w->l->nr_docs && !ret; i++) {
		const struct ckf_layout_doc *doc = w->l->docs[i];

		if (!doc->new_text || doc->again)
			continue;
		if (*doc->hex) {
			blob_name(old, doc->hex);
			blob_name(name, ckf_layout_find_change(w->l, doc->hex)->to);
		} else {
			snprintf(old, sizeof(old), CKF_LAYOUT_INDEX);
			snprintf(name, sizeof(name), CKF_LAYOUT_INDEX);
		}
		ret = put_file(w, name, old, doc->new_text, doc->new_bytes);
	}
	return ret;
}

/* One directory of the source and what is copied of it. */
struct source {
	struct writing *w;
	int from_fd;
	int to_fd;
	const char *prefix;
};

static int copy_file(const struct source *s, const char *name, const char *to)
{
	struct ckf_copy copy = { .name = name };
	struct writing *w = s->w;
	struct ckf_access a;
	uint64_t checksum;
	int ret;

	copy.src.fd = ckf_open_regular(s->from_fd, name, O_NOFOLLOW, &copy.src.bytes);
	if (copy.src.fd < 0)
		return ckf_error_set(w->err, copy.src.fd, "cannot open %s%s: %s", s->prefix, name,
				     strerror(-copy.src.fd));
	copy.want_bytes = copy.src.bytes;
	copy.dst_fd = openat(s->to_fd, to, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			     0600);
	ret = copy.dst_fd < 0 ? -errno : 0;
	if (ret)
		ckf_error_set(w->err, ret, "cannot create %s%s: %s", s->prefix, name,
			      strerror(-ret));
	if (!ret)
		ret = ckf_copy_file(&copy, w->opts, &checksum, w->err);
	if (!ret && ckf_access_get(copy.src.fd, &a))
		ret = ckf_error_set(w->err, -errno, "cannot stat %s%s", s->prefix, name);
	if (!ret)
		ret = ckf_output_set_access(&w->out, copy.dst_fd, name, &a, w->err);
	close(copy.src.fd);
	if (!ret)
		return ckf_output_finish_file(copy.dst_fd, name, w->err);
	if (copy.dst_fd >= 0)
		close(copy.dst_fd);
	return ret;
}

static int copy_blob(void *arg, const char *name)
{
	const struct source *s = arg;

	return is_replaced_blob(s->w, name) ? 0 : copy_file(s, name, name);
}

/* The last file that gets its name is oci-layout: without it, the directory is nothing. */
static int copy_top(void *arg, const char *name)
{
	const struct source *s = arg;

	if (!strcmp(name, "blobs") || is_replaced(s->w, name))
		return 0;
	return copy_file(s, name, strcmp(name, CKF_LAYOUT_MARK) ? name : MARK_PARTIAL_NAME);
}

/* Blobs of other digests than SHA-256 would be lost. */
static int refuse_other_blobs(void *arg, const char *name)
{
	const struct source *s = arg;
	struct writing *w = s->w;

	if (!strcmp(name, "sha256"))
		return 0;
	return ckf_error_set(w->err, -EOPNOTSUPP, "blobs/%s is not a directory of SHA-256 blobs",
			     name);
}

static int copy_dirs(struct writing *w)
{
	struct source s = { w, w->l->sha256_fd, w->sha256_fd, CKF_LAYOUT_BLOBS };
	int ret = ckf_dir_each(CKF_DIR(s.from_fd), copy_blob, &s);

	if (!ret)
		ret = ckf_dir_each(CKF_DIR(w->l->blobs_fd), refuse_other_blobs, &s);
	if (!ret) {
		s = (struct source){ w, w->l->dir_fd, w->out.dir_fd, "" };
		ret = ckf_dir_each(CKF_DIR(s.from_fd), copy_top, &s);
	}
	return ret ? ckf_error_set(w->err, ret, "cannot copy the layout: %s", strerror(-ret)) : 0;
}

static int copy_members(struct writing *w)
{
	const struct ckf_archive *a = w->l->tar;
	int ret = 0;

	for (uint64_t i = 0; i < a->nr_entries && !ret; i++) {
		const struct ckf_archive_entry *e = &a->entries[i];

		if (!e->name || !is_replaced(w, e->name))
			ret = ckf_archive_copy_range(&w->copy, e->start, e->end);
	}
	return ret;
}

/* A directory of blobs is complete: it gets owner and mode of the source's, and goes to the disk.
 */
static int finish_dir(struct writing *w, int fd, int from_fd, const char *name)
{
	struct ckf_access a;
	int ret = ckf_access_get(from_fd, &a);

	if (ret)
		return ckf_error_set(w->err, ret, "cannot stat %s: %s", name, strerror(-ret));
	ret = ckf_output_set_access(&w->out, fd, name, &a, w->err);
	if (!ret && fsync(fd))
		ret = ckf_error_set(w->err, -errno, "cannot write %s: %s", name, strerror(errno));
	return ret;
}

static int finish(struct writing *w)
{
	const struct ckf_archive *tar = w->l->tar;
	int ret;

	if (tar) {
		ret = ckf_archive_copy_range(&w->copy, tar->members_end, tar->end);
		if (!ret)
			ret = ckf_archive_check_unchanged(tar, w->err);
		return ret ? ret : ckf_output_seal(&w->out, NULL, NULL, w->err);
	}
	ret = finish_dir(w, w->sha256_fd, w->l->sha256_fd, "blobs/sha256");
	if (!ret)
		ret = finish_dir(w, w->blobs_fd, w->l->blobs_fd, "blobs");
	return ret ? ret : ckf_output_seal(&w->out, MARK_PARTIAL_NAME, CKF_LAYOUT_MARK, w->err);
}

/* Each checkpoint is there, as what it has become. */
static int check_layers(const struct writing *w, const struct ckf_layout *new,
			struct ckf_error *err)
{
	for (uint64_t i = 0; i < w->l->nr_layers; i++) {
		const char *hex = w->l->layers[i].ref.hex;
		const struct ckf_layout_change *c = ckf_layout_find_change(w->l, hex);
		uint64_t want = c ? c->bytes : w->l->layers[i].ref.bytes, at = 0;

		hex = c ? c->to : hex;
		while (at < new->nr_layers && strcmp(new->layers[at].ref.hex, hex) != 0)
			at++;
		if (at == new->nr_layers || new->layers[at].ref.bytes != want)
			return ckf_error_set(err, -EBADMSG, "no document names the checkpoint %s",
					     hex);
	}
	return 0;
}

/* Reads the documents of the new layout, as others will: what they say may come from anybody. */
static int check_written(struct writing *w)
{
	const struct ckf_file_part part = { .fd = w->out.file_fd, .bytes = w->copy.off };
	struct ckf_archive *tar = NULL;
	struct ckf_layout *new = NULL;
	struct ckf_error err = { 0 };
	int ret = 0;

	if (w->l->tar)
		ret = ckf_archive_open_part(&part, NULL, &tar, &err);
	if (!ret)
		ret = ckf_layout_open_at(w->out.dir_fd, ".", tar, NULL, &new, &err);
	if (!ret)
		ret = check_layers(w, new, &err);
	ckf_layout_close(new);
	return ret ? ckf_error_set(w->err, ret, "the new layout cannot be read: %s", err.msg) : 0;
}

static int make_dirs(struct writing *w)
{
	if (mkdirat(w->out.dir_fd, "blobs", 0700))
		return ckf_error_set(w->err, -errno, "cannot make blobs: %s", strerror(errno));
	w->blobs_fd = openat(w->out.dir_fd, "blobs", DIR_FLAGS);
	if (w->blobs_fd >= 0 && !mkdirat(w->blobs_fd, "sha256", 0700))
		w->sha256_fd = openat(w->blobs_fd, "sha256", DIR_FLAGS);
	if (w->sha256_fd < 0)
		return ckf_error_set(w->err, -errno, "cannot make blobs/sha256: %s",
				     strerror(errno));
	return 0;
}

static int open_dir_output(struct writing *w, const char *from, const char *to)
{
	int ret;

	if (to) {
		ret = ckf_output_open_tree(&w->out, to, CKF_LAYOUT_MARK, w->opts->force, w->err);
		if (ret)
			return ret;
		ret = ckf_output_check_outside(&w->out, w->l->dir_fd, w->err);
		if (!ret)
			ret = ckf_output_like_dir(&w->out, w->l->dir_fd, w->err);
	} else {
		ret = ckf_in_place_init(&w->in_place, from, w->l->dir_fd, CKF_LAYOUT_MARK, w->err);
		if (!ret)
			ret = ckf_output_open_tree_in_place(&w->out, &w->in_place, w->err);
		if (ret)
			return ret;
	}
	if (!ret)
		ret = make_dirs(w);
	if (ret)
		ckf_output_close(&w->out, NULL, NULL);
	return ret;
}

static int open_tar_output(struct writing *w, const char *from, const char *to)
{
	int ret = ckf_in_place_init(&w->in_place, from, w->l->tar->file_fd, NULL, w->err);

	if (!ret)
		ret = ckf_archive_open_output(&w->out, w->l->tar, &w->in_place, to, w->opts->force,
					      w->err);
	return ret;
}

static int write_layout(struct writing *w)
{
	int ret = ckf_archive_copy_init(&w->copy, w->l->tar, w->out.file_fd, w->opts, w->err);

	if (!ret)
		ret = put_layers(w);
	if (!ret)
		ret = ckf_layout_rewrite(w->l);
	if (!ret)
		ret = w->l->tar ? copy_members(w) : copy_dirs(w);
	if (!ret)
		ret = put_docs(w);
	if (!ret)
		ret = finish(w);
	if (!ret)
		ret = check_written(w);
	ckf_archive_copy_fini(&w->copy);
	return ret;
}

static int make(struct writing *w, const char *from, const char *to)
{
	int ret = w->l->tar ? open_tar_output(w, from, to) : open_dir_output(w, from, to);

	if (!ret) {
		ret = write_layout(w);
		ret = ckf_finish_output(&w->out, ret, w->opts, w->err);
	}
	if (w->sha256_fd >= 0)
		close(w->sha256_fd);
	if (w->blobs_fd >= 0)
		close(w->blobs_fd);
	return ret;
}

int ckf_layout_convert(struct ckf_layout *l, const char *from, const char *to,
		       const struct ckf_convert_opts *opts, struct ckf_convert_stats *stats)
{
	struct writing w = {
		.l = l,
		.opts = opts,
		.stats = stats,
		.err = l->err,
		.blobs_fd = -1,
		.sha256_fd = -1,
	};

	return make(&w, from, to);
}

int ckf_layout_extract(struct ckf_layout *l, const char *from, const char *to,
		       const struct ckf_convert_opts *opts)
{
	struct writing w = {
		.l = l,
		.opts = opts,
		.err = l->err,
		.blobs_fd = -1,
		.sha256_fd = -1,
	};

	return make(&w, from, to);
}
