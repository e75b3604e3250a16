/* SPDX-License-Identifier: MIT */
/* ckf_convert(): from the directory of a dump to the directory of a fast image. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format/ckf_codec.h"
#include "loader/ckf_image.h"
#include "base/ckf_opts.h"
#include "base/ckf_threads.h"
#include "conversion.h"
#include "img.h"
#include "layout_write.h"
#include "user.h"

/* A chunk that does not fit into the rest of an extent leaves it empty: large ones waste less. */
#define DEFAULT_EXTENT_BYTES CKF_MAX_EXTENT_BYTES

static int check_opts(const struct ckf_conversion *c)
{
	const struct ckf_convert_opts *o = &c->opts;
	int min = 0, max = 0;

	if (o->codec != CKF_CODEC_AUTO && (o->codec <= CKF_CODEC_ZERO || o->codec >= CKF_CODEC_END))
		return ckf_error_set(c->err, -EINVAL, "unknown codec %d", o->codec);
	if (o->codec != CKF_CODEC_AUTO)
		ckf_codec_levels((uint32_t)o->codec, &min, &max);
	if (o->smallest && o->codec != CKF_CODEC_AUTO)
		return ckf_error_set(c->err, -EINVAL, "the smallest image is not one of one codec");
	if (o->level && (o->level < min || o->level > max))
		return ckf_error_set(c->err, -EINVAL,
				     "level %d is not one of this codec (%d to %d)", o->level, min,
				     max);
	if (o->storage.bytes_per_s && !o->storage.nr_cores)
		return ckf_error_set(c->err, -EINVAL, "no core is there to decode");
	if (o->extent_bytes != CKF_MIN_EXTENT_BYTES && o->extent_bytes != 8u << 20 &&
	    o->extent_bytes != CKF_MAX_EXTENT_BYTES)
		return ckf_error_set(c->err, -EINVAL, "an extent has 4, 8 or 16 MiB, not %u bytes",
				     o->extent_bytes);
	return 0;
}

static int copy_verbatim(struct ckf_conversion *c, struct ckf_file *f)
{
	struct ckf_copy copy = { .name = f->name, .want_bytes = f->size_bytes };
	int ret;

	ret = ckf_open_of_dump(&c->dir, f->name, &copy.src);
	if (ret)
		return ckf_error_set(c->err, ret, "cannot open %s: %s", f->name, strerror(-ret));
	copy.dst_fd = ckf_output_create(&c->out, f->name, c->err);
	if (copy.dst_fd < 0) {
		close(copy.src.fd);
		return copy.dst_fd;
	}
	if (ckf_access_has_acl(copy.src.fd))
		f->mode &= ~(uint32_t)S_IRWXG;
	ret = ckf_copy_file(&copy, &c->opts, &f->checksum, c->err);
	close(copy.src.fd);
	if (ret)
		close(copy.dst_fd);
	else
		ret = ckf_finish_image_file(&c->out, copy.dst_fd, f, c->err);
	c->stats.other_bytes += f->size_bytes;
	return ret;
}

static int copy_files(struct ckf_conversion *c)
{
	int ret = 0;

	for (uint64_t i = 0; i < c->list.nr_files && !ret; i++) {
		struct ckf_file *f = &c->list.files[i];

		if (f->kind == CKF_FILE_VERBATIM)
			ret = copy_verbatim(c, f);
		else if (f->kind == CKF_FILE_SYMLINK)
			f->checksum = ckf_hash64(f->target, strlen(f->target));
	}
	return ret;
}

/* In place, what is left out would be lost. Of what is stale, nobody can restore anything. */
static int check_complete(const struct ckf_conversion *c)
{
	if (c->list.nr_left_out == c->list.nr_stale && !c->has_tails)
		return 0;
	return ckf_error_set(c->err, -EINVAL,
			     "some of it cannot be in a fast image: convert it to another "
			     "directory, or remove what the warnings name");
}

/* fast NULL: in place. */
static int open_output(struct ckf_conversion *c, const char *fast)
{
	int ret;

	if (!fast)
		return ckf_output_open_in_place(&c->out, &c->in_place, CKF_IDX_NAME, c->err);
	ret = ckf_output_open(&c->out, fast, CKF_IDX_NAME, c->opts.force, c->err);
	if (ret)
		return ret;
	ret = ckf_output_check_outside(&c->out, c->dir.fd, c->err);
	if (!ret)
		ret = ckf_output_like_dir(&c->out, c->dir.fd, c->err);
	return ret;
}

/* Reads the image before it takes the place of what it is made from. */
static int check_in_place(struct ckf_conversion *c)
{
	const struct ckf_verify_opts v = { .size = sizeof(v), .threads = c->opts.threads };
	const struct ckf_image_opts o = {
		.size = sizeof(o),
		.base_dirs = c->opts.bases,
		.nr_base_dirs = c->opts.nr_bases,
	};
	struct ckf_image *img = NULL;
	int ret = ckf_image_open_opts(c->out.dir_fd, &o, &img, c->err);

	if (!ret)
		ret = ckf_verify(img, &v, NULL, c->err);
	if (!ret)
		ret = ckf_verify_plan(img, NULL, c->err);
	ckf_image_close(img);
	for (uint64_t i = 0; i < c->list.nr_files && !ret; i++) {
		if (c->list.files[i].kind == CKF_FILE_VERBATIM)
			ret = ckf_conversion_check_unchanged(c, &c->list.files[i]);
	}
	return ret;
}

static int seal(struct ckf_conversion *c)
{
	int ret = ckf_user_stop(&c->opts, c->err);

	if (!ret)
		ret = ckf_output_seal(&c->out, CKF_IDX_PARTIAL_NAME, CKF_IDX_NAME, c->err);
	if (!ret && c->out.in_place)
		ret = check_in_place(c);
	return ret;
}

static int convert_into(struct ckf_conversion *c, const char *fast)
{
	int ret = open_output(c, fast);

	if (!ret && c->bases)
		ret = ckf_bases_check_outside(c->bases, &c->out, c->err);
	if (!ret)
		ret = copy_files(c);
	if (!ret) {
		c->pack_fd = ckf_output_create(&c->out, CKF_PACK_NAME, c->err);
		if (c->pack_fd < 0)
			ret = c->pack_fd;
	}
	if (!ret)
		ret = ckf_conversion_make(c);
	if (!ret && !c->out.memory.known)
		ckf_access_narrow_by_dir(&c->out.memory, &c->out.dir);
	if (!ret)
		ret = ckf_write_index(&c->out, &c->idx, c->pack_fd, &c->stats.idx_bytes, c->err);
	if (!ret) {
		ret = ckf_finish_memory_file(&c->out, c->pack_fd, CKF_PACK_NAME, c->err);
		c->pack_fd = -1;
	}
	if (!ret)
		ret = ckf_write_readme(&c->out, &c->idx, c->err);
	if (!ret)
		ret = seal(c);
	if (c->pack_fd >= 0)
		close(c->pack_fd);
	return ckf_finish_output(&c->out, ret, &c->opts, c->err);
}

static int convert_dir(struct ckf_conversion *c, const char *fast)
{
	int ret = ckf_conversion_open(c);

	if (!ret)
		ret = ckf_conversion_take(c);
	if (!ret && !fast)
		ret = check_complete(c);
	if (!ret && c->opts.nr_bases)
		ret = ckf_bases_open(c->opts.bases, c->opts.nr_bases, &c->bases, c->err);
	if (!ret)
		ret = convert_into(c, fast);
	if (!ret)
		ckf_conversion_fill_stats(c);
	return ret;
}

/* An archive that is a layout has checkpoints, but is none. */
static int convert_layout(struct ckf_conversion *c, const char *fast)
{
	struct ckf_archive *tar = c->archive;
	struct ckf_layout *l = NULL;
	int ret;

	c->archive = NULL;
	ret = ckf_layout_open(c->dump_path, tar, fast, &l, c->err);
	if (!ret)
		ret = ckf_layout_convert(l, c->dump_path, fast, &c->opts, &c->stats);
	ckf_layout_close(l);
	return ret;
}

static int convert_archive(struct ckf_conversion *c, const char *fast)
{
	int ret = ckf_archive_open(c->dump_path, fast, &c->archive, c->err);

	if (!ret && c->archive->kind == CKF_ARCHIVE_LAYOUT)
		return convert_layout(c, fast);
	if (!ret)
		ret = ckf_conversion_enter_archive(c);
	if (!ret)
		ret = ckf_conversion_take(c);
	if (!ret)
		ret = ckf_conversion_into_archive(c, fast);
	if (!ret)
		ckf_conversion_fill_stats(c);
	return ret;
}

static int convert_any(struct ckf_conversion *c, const char *fast)
{
	if (ckf_layout_probe(c->dump_path))
		return convert_layout(c, fast);
	return ckf_archive_probe(c->dump_path) ? convert_archive(c, fast) : convert_dir(c, fast);
}

int ckf_convert(const char *dump, const char *fast, const struct ckf_convert_opts *opts,
		struct ckf_convert_stats *stats, struct ckf_error *err)
{
	struct ckf_convert_opts own;
	struct ckf_conversion *c = NULL;
	uint64_t start = ckf_now_ns();
	int ret = ckf_opts_get(opts, &own, err);

	if (!ret && stats)
		ret = CKF_OPTS_CHECK(ckf_convert_stats, stats, err);
	if (!own.extent_bytes)
		own.extent_bytes = DEFAULT_EXTENT_BYTES;
	if (!ret)
		ret = ckf_conversion_new(&own, err, &c);
	if (ret)
		return ret;
	c->dump_path = dump;
	ret = check_opts(c);
	if (!ret)
		ret = convert_any(c, fast);
	c->stats.ns = ckf_now_ns() - start;
	if (!ret && stats)
		ckf_opts_give(stats, &c->stats, sizeof(c->stats));
	ckf_conversion_free(c);
	return ret;
}
