/* SPDX-License-Identifier: MIT */
/* ckf_extract(): the dump that a fast image was made from, byte for byte. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loader/ckf_image.h"
#include "ckf_archive.h"
#include "extraction.h"
#include "layout_write.h"

#define DUMP_MARK "inventory.img" /* what CRIU opens first */

static void file_times(const struct ckf_file *f, struct timespec t[2])
{
	t[0] = (struct timespec){ .tv_nsec = UTIME_OMIT };
	t[1] = (struct timespec){ .tv_sec = f->mtime_sec, .tv_nsec = f->mtime_nsec };
}

/* The time after all writing. */
static int finish_file(struct ckf_extraction *x, const struct ckf_file *f, int fd)
{
	struct ckf_access a = ckf_file_access(f);
	struct timespec times[2];
	int ret = ckf_output_set_access(&x->out, fd, f->name, &a, x->err);

	file_times(f, times);
	if (!ret && futimens(fd, times))
		ret = ckf_error_set(x->err, -errno, "cannot set the time of %s: %s", f->name,
				    strerror(errno));
	if (ret) {
		close(fd);
		return ret;
	}
	return ckf_output_finish_file(fd, f->name, x->err);
}

static int extract_verbatim(struct ckf_extraction *x, const struct ckf_file *f)
{
	int fd = ckf_copy_verbatim(x->img, &x->out, f, &x->opts, x->err);

	if (fd == CKF_LEFT_OUT)
		return 0;
	return fd < 0 ? fd : finish_file(x, f, fd);
}

static int extract_link(struct ckf_extraction *x, const struct ckf_file *f)
{
	struct timespec times[2];
	int ret;

	ret = ckf_check_sum(x->img, f, ckf_hash64(f->target, strlen(f->target)), x->err);
	if (ret)
		return ret;
	if (symlinkat(f->target, x->out.dir_fd, f->name))
		return ckf_error_set(x->err, -errno, "cannot make link %s: %s", f->name,
				     strerror(errno));
	if (fchownat(x->out.dir_fd, f->name, f->uid, f->gid, AT_SYMLINK_NOFOLLOW)) {
		if (!ckf_access_is_refusal(errno))
			return ckf_error_set(x->err, -errno, "cannot set the owner of %s: %s",
					     f->name, strerror(errno));
		x->out.own = true;
	}
	file_times(f, times);
	if (utimensat(x->out.dir_fd, f->name, times, AT_SYMLINK_NOFOLLOW))
		ret = ckf_error_set(x->err, -errno, "cannot set the time of %s: %s", f->name,
				    strerror(errno));
	return ret;
}

static int extract_pages(struct ckf_extraction *x, const struct ckf_file *f)
{
	int fd, ret;

	fd = ckf_output_create(&x->out, f->name, x->err);
	if (fd < 0)
		return fd;
	ret = ckf_extraction_pages(x, f, fd, 0);
	if (ret) {
		close(fd);
		return ret;
	}
	return finish_file(x, f, fd);
}

static int extract_files(struct ckf_extraction *x)
{
	const struct ckf_index *idx = x->img->idx;
	int ret = ckf_extraction_start(x);

	for (uint64_t i = 0; i < idx->nr_files && !ret; i++) {
		const struct ckf_file *f = &idx->files[i];

		ret = ckf_extraction_check_user(x);
		if (ret)
			break;
		if (f->kind == CKF_FILE_VERBATIM)
			ret = extract_verbatim(x, f);
		else if (ckf_file_has_pages(f))
			ret = extract_pages(x, f);
		else
			ret = extract_link(x, f);
	}
	return ret;
}

static void extract_free(struct ckf_extraction *x)
{
	ckf_extraction_fini(x);
	ckf_image_close(x->img);
	free(x);
}

static int open_output(struct ckf_extraction *x, const char *dump)
{
	int ret = ckf_output_open(&x->out, dump, DUMP_MARK, x->opts.force, x->err);

	if (!ret)
		ret = ckf_check_outside(x->img, &x->out, x->err);
	if (!ret)
		ret = ckf_output_like_dir(&x->out, x->img->dir_fd, x->err);
	return ret;
}

/* Files of the image itself, and those that extract makes. */
static bool is_replaced(void *arg, const char *name)
{
	const struct ckf_index *idx = ((struct ckf_extraction *)arg)->img->idx;

	for (uint64_t i = 0; i < idx->nr_files; i++) {
		if (!strcmp(idx->files[i].name, name))
			return true;
	}
	return ckf_is_own_name(name) || !strcmp(name, CKF_README_NAME);
}

/* CRIU writes logs into the directory that it restores from: they stay. */
static int open_in_place(struct ckf_extraction *x, const char *fast)
{
	int ret = ckf_in_place_init(&x->in_place, fast, x->img->dir_fd, CKF_IDX_NAME, x->err);

	/* What changes after this is noticed at the end. */
	if (!ret && ckf_image_is_stale(x->img))
		ret = ckf_error_set(x->err, -EBADMSG, "%s is not as it was made%s", fast,
				    ckf_image_stale_hint(x->img));
	if (!ret)
		ret = ckf_output_open_in_place(&x->out, &x->in_place, DUMP_MARK, x->err);
	if (!ret)
		ret = ckf_output_keep_others(&x->out, is_replaced, x, x->err);
	return ret;
}

static int extract_dir(struct ckf_extraction *x, const char *fast, const char *dump)
{
	int ret = ckf_open_source(fast, &x->opts, &x->img, x->err);

	if (ret)
		return ret;
	ret = dump ? open_output(x, dump) : open_in_place(x, fast);
	if (!ret)
		ret = extract_files(x);
	if (!ret)
		ret = ckf_output_seal(&x->out, NULL, NULL, x->err);
	return ckf_finish_output(&x->out, ret, &x->opts, x->err);
}

/* tar: the archive that it is in, or NULL. */
static int extract_layout(struct ckf_extraction *x, struct ckf_archive *tar, const char *fast,
			  const char *dump)
{
	struct ckf_layout *l = NULL;
	int ret = ckf_layout_open(fast, tar, dump, &l, x->err);

	if (!ret)
		ret = ckf_layout_extract(l, fast, dump, &x->opts);
	ckf_layout_close(l);
	return ret;
}

static int extract_file(struct ckf_extraction *x, const char *fast, const char *dump)
{
	struct ckf_archive *a = NULL;
	int ret = ckf_archive_open(fast, dump, &a, x->err);

	if (!ret && a->kind == CKF_ARCHIVE_LAYOUT)
		return extract_layout(x, a, fast, dump);
	return ret ? ret : ckf_extraction_archive(x, a, fast, dump);
}

static int extract_any(struct ckf_extraction *x, const char *fast, const char *dump)
{
	if (ckf_layout_probe(fast))
		return extract_layout(x, NULL, fast, dump);
	return ckf_archive_probe(fast) ? extract_file(x, fast, dump) : extract_dir(x, fast, dump);
}

int ckf_extract(const char *fast, const char *dump, const struct ckf_convert_opts *opts,
		struct ckf_error *err)
{
	struct ckf_extraction *x = calloc(1, sizeof(*x));
	int ret;

	if (!x)
		return ckf_error_set(err, -ENOMEM, "no memory to extract");
	x->err = err;
	ret = ckf_opts_get(opts, &x->opts, err);
	if (!ret)
		ret = extract_any(x, fast, dump);
	extract_free(x);
	return ret;
}
