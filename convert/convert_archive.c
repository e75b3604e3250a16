/* SPDX-License-Identifier: MIT */
/*
 * Converts a checkpoint archive. The members stay as they are and in their order, but for the pages
 * files, which are read where they lie; the files of the image follow the last member. So the pack
 * can grow until all pages are in it, and nothing is written twice.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "loader/ckf_image.h"
#include "archive_copy.h"
#include "conversion.h"
#include "removed.h"

struct making {
	struct ckf_conversion *c;
	struct ckf_archive_copy w;
	struct ckf_removed_list removed;
	uint64_t nr_kept;
	uint64_t pack_headers_off;
	void *idx; /* encoded, which gives the image its id */
	size_t idx_bytes;
};

int ckf_conversion_enter_archive(struct ckf_conversion *c)
{
	const struct ckf_dir *dir = ckf_archive_dir(c->archive);

	if (c->opts.nr_bases)
		return ckf_error_set(c->err, -EINVAL,
				     "an image in an archive cannot have bases: nobody would find "
				     "them from there");
	c->dir = (struct ckf_dir){
		.fd = fcntl(dir->fd, F_DUPFD_CLOEXEC, 0),
		.members = dir->members,
	};
	if (c->dir.fd < 0)
		return ckf_error_set(c->err, -errno, "cannot open the archive: %s",
				     strerror(errno));
	return ckf_conversion_read(c);
}

static int sum_files(struct ckf_conversion *c)
{
	int ret = 0;

	for (uint64_t i = 0; i < c->list.nr_files && !ret; i++) {
		struct ckf_file *f = &c->list.files[i];
		struct ckf_copy copy = {
			.dst_fd = -1,
			.name = f->name,
			.want_bytes = f->size_bytes,
		};

		if (f->kind != CKF_FILE_VERBATIM)
			continue;
		ret = ckf_dir_open_member(&c->dir, f->name, &copy.src);
		if (ret)
			return ckf_error_set(c->err, ret, "cannot open %s: %s", f->name,
					     strerror(-ret));
		ret = ckf_copy_file(&copy, &c->opts, &f->checksum, c->err);
		close(copy.src.fd);
		c->stats.other_bytes += f->size_bytes;
	}
	return ret;
}

/* The pages file that a member is, or NULL. */
static const struct ckf_file *pages_of(const struct ckf_conversion *c,
				       const struct ckf_archive_entry *e)
{
	int64_t at = e->name ? ckf_file_list_find(&c->list, e->name) : -1;

	return at >= 0 && ckf_file_has_pages(&c->list.files[at]) ? &c->list.files[at] : NULL;
}

static int read_bytes(struct making *m, uint64_t start, uint64_t end, void *to)
{
	void *p = malloc((size_t)(end - start) + 1);
	int ret;

	if (!p)
		return ckf_error_set(m->c->err, -ENOMEM, "no memory for headers");
	ret = ckf_archive_read(m->c->archive, start, p, (size_t)(end - start), m->c->err);
	if (ret)
		free(p);
	else
		memcpy(to, &p, sizeof(p));
	return ret;
}

static int remove_member(struct making *m, const struct ckf_archive_entry *e,
			 const struct ckf_file *f)
{
	const uint64_t tail = e->data_off + f->size_bytes;
	struct ckf_removed r = {
		.before = m->nr_kept,
		.name = strdup(f->name),
		.head_bytes = (uint32_t)(e->data_off - e->start),
		.tail_bytes = (uint32_t)(e->end - tail),
	};
	int ret = 0;

	if (!r.name)
		ret = ckf_error_set(m->c->err, -ENOMEM, "no memory for headers");
	if (!ret)
		ret = read_bytes(m, e->start, e->data_off, &r.head);
	if (!ret)
		ret = read_bytes(m, tail, e->end, &r.tail);
	if (!ret && ckf_removed_add(&m->removed, &r))
		ret = ckf_error_set(m->c->err, -ENOMEM, "no memory for headers");
	if (ret) {
		free(r.name);
		free(r.head);
		free(r.tail);
	}
	return ret;
}

static int copy_members(struct making *m)
{
	const struct ckf_archive *a = m->c->archive;
	int ret = 0;

	for (uint64_t i = 0; i < a->nr_entries && !ret; i++) {
		const struct ckf_archive_entry *e = &a->entries[i];
		const struct ckf_file *f = pages_of(m->c, e);

		if (f) {
			ret = remove_member(m, e, f);
			continue;
		}
		ret = ckf_archive_copy_range(&m->w, e->start, e->end);
		m->nr_kept++;
	}
	return ret;
}

/* Its length comes into its header when it is known. */
static int make_pack(struct making *m)
{
	const struct ckf_access nobody = { .mode = 0 };
	struct ckf_conversion *c = m->c;
	int ret;

	m->pack_headers_off = m->w.off;
	ret = ckf_archive_copy_headers(&m->w, CKF_PACK_NAME, 0, &nobody, CKF_PAGE_BYTES);
	if (ret)
		return ret;
	c->pack_fd = m->w.fd;
	c->pack_start = m->w.off;
	ret = ckf_conversion_make(c);
	if (!ret && !c->out.memory.known)
		ckf_access_narrow(&c->out.memory, &c->out.dir);
	if (!ret)
		ret = ckf_index_encode(&c->idx, &m->idx, &m->idx_bytes, c->err);
	if (!ret)
		ret = ckf_finish_pack(c->pack_fd, c->pack_start, &c->idx, c->err);
	m->w.off = m->pack_headers_off;
	if (!ret)
		ret = ckf_archive_copy_headers(&m->w, CKF_PACK_NAME, c->idx.pack_bytes,
					       &c->out.memory, CKF_PAGE_BYTES);
	m->w.off = c->pack_start + c->idx.pack_bytes;
	return ret;
}

static int make_small_files(struct making *m)
{
	const struct ckf_access *access = &m->c->out.memory;
	void *removed = NULL;
	size_t removed_bytes;
	int ret = ckf_archive_copy_file(&m->w, CKF_IDX_NAME, m->idx, m->idx_bytes, access);

	if (!ret && ckf_wants_readme(&m->c->idx))
		ret = ckf_archive_copy_file(&m->w, CKF_README_NAME, ckf_readme_text,
					    strlen(ckf_readme_text), access);
	if (!ret) {
		m->removed.compression = m->c->archive->compression;
		ret = ckf_removed_encode(&m->removed, &removed, &removed_bytes);
		if (ret)
			ckf_error_set(m->c->err, ret, "cannot describe the pages files: %s",
				      strerror(-ret));
	}
	if (!ret)
		ret = ckf_archive_copy_file(&m->w, CKF_REMOVED_NAME, removed, removed_bytes,
					    access);
	if (!ret)
		m->c->stats.idx_bytes = m->idx_bytes;
	free(removed);
	return ret;
}

/* Reads what was written: all of it where it takes the place of the source. */
static int check(struct ckf_conversion *c, bool all)
{
	const struct ckf_verify_opts v = { .size = sizeof(v), .threads = c->opts.threads };
	const struct ckf_file_part part = {
		.fd = c->out.file_fd,
		.off = c->out_start,
		.bytes = c->out_end - c->out_start,
	};
	struct ckf_archive *made = NULL;
	struct ckf_image *img = NULL;
	int ret = ckf_archive_open_part(&part, NULL, &made, c->err);

	if (!ret)
		ret = ckf_image_open_dir(ckf_archive_dir(made), NULL, &img, c->err);
	if (!ret && all)
		ret = ckf_verify(img, &v, NULL, c->err);
	if (!ret && all)
		ret = ckf_verify_plan(img, NULL, c->err);
	ckf_image_close(img);
	ckf_archive_close(made);
	return ret;
}

static int make_archive(struct ckf_conversion *c)
{
	const struct ckf_archive *a = c->archive;
	struct making m = { .c = c };
	int ret = ckf_archive_copy_init(&m.w, a, c->out.file_fd, &c->opts, c->err);

	m.w.off = c->out_start;
	if (!ret)
		ret = sum_files(c);
	if (!ret)
		ret = copy_members(&m);
	if (!ret)
		ret = make_pack(&m);
	if (!ret)
		ret = make_small_files(&m);
	if (!ret)
		ret = ckf_archive_copy_range(&m.w, a->members_end, a->end);
	if (!ret)
		ret = ckf_archive_check_unchanged(a, c->err);
	c->out_end = m.w.off;
	ckf_archive_copy_fini(&m.w);
	ckf_removed_fini(&m.removed);
	free(m.idx);
	c->pack_fd = -1;
	return ret;
}

int ckf_conversion_into_archive(struct ckf_conversion *c, const char *fast)
{
	int ret = ckf_in_place_init(&c->in_place, c->dump_path, c->archive->file_fd, NULL, c->err);

	if (!ret)
		ret = ckf_archive_open_output(&c->out, c->archive, &c->in_place, fast,
					      c->opts.force, c->err);
	if (ret)
		return ret;
	ret = make_archive(c);
	if (!ret)
		ret = ckf_output_seal(&c->out, NULL, NULL, c->err);
	if (!ret)
		ret = check(c, c->out.in_place);
	return ckf_finish_output(&c->out, ret, &c->opts, c->err);
}

int ckf_conversion_into_layer(struct ckf_conversion *c, const struct ckf_output *o,
			      struct ckf_layer_place *at)
{
	int ret;

	c->out = (struct ckf_output){
		.parent_fd = o->parent_fd,
		.dir_fd = -1,
		.file_fd = at->fd,
		.dir = o->dir,
	};
	c->out_start = at->start;
	ret = make_archive(c);
	if (!ret)
		ret = check(c, o->in_place);
	at->end = c->out_end;
	return ret;
}
