/* SPDX-License-Identifier: MIT */
/* Makes the checkpoint archive again that a fast one was made from. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "loader/ckf_image.h"
#include "archive_copy.h"
#include "extraction.h"
#include "removed.h"

struct remaking {
	struct ckf_extraction *x;
	struct ckf_archive *a;
	struct ckf_archive_copy w;
	struct ckf_removed_list removed;
	uint64_t next;	  /* of removed */
	uint64_t nr_kept; /* members copied */
};

static int compare_file(const void *name, const void *file)
{
	return strcmp(name, ((const struct ckf_file *)file)->name);
}

static const struct ckf_file *find_pages(const struct ckf_index *idx, const char *name)
{
	const struct ckf_file *f = NULL;

	if (idx->nr_files)
		f = bsearch(name, idx->files, (size_t)idx->nr_files, sizeof(*f), compare_file);
	return f && ckf_file_has_pages(f) ? f : NULL;
}

static int read_removed(struct remaking *r)
{
	struct ckf_file_part part;
	int ret = ckf_dir_open_member(ckf_archive_dir(r->a), CKF_REMOVED_NAME, &part);

	if (ret == -ENOENT)
		return ckf_error_set(r->x->err, -EOPNOTSUPP,
				     "there is no " CKF_REMOVED_NAME " in the archive: unpack it, "
				     "and extract its directory " CKF_CHECKPOINT_DIR);
	if (ret)
		return ckf_error_set(r->x->err, ret, "cannot open " CKF_REMOVED_NAME ": %s",
				     strerror(-ret));
	ret = ckf_removed_read(&part, &r->removed, r->x->err);
	close(part.fd);
	return ret;
}

/* Each pages file of the image is a member that was removed, and the other way round. */
static int check_removed(const struct remaking *r)
{
	const struct ckf_index *idx = r->x->img->idx;
	bool *missing = calloc((size_t)idx->nr_files + 1, sizeof(*missing));
	bool right = true;

	if (!missing)
		return ckf_error_set(r->x->err, -ENOMEM, "no memory for the members");
	for (uint64_t i = 0; i < idx->nr_files; i++)
		missing[i] = ckf_file_has_pages(&idx->files[i]);
	for (uint64_t i = 0; i < r->removed.nr && right; i++) {
		const struct ckf_file *f = find_pages(idx, r->removed.v[i].name);

		right = f && missing[f - idx->files];
		if (right)
			missing[f - idx->files] = false;
	}
	for (uint64_t i = 0; i < idx->nr_files; i++)
		right &= !missing[i];
	free(missing);
	if (right)
		return 0;
	return ckf_error_set(r->x->err, -EBADMSG,
			     "corrupt " CKF_REMOVED_NAME
			     ": its members are not the pages files of the image");
}

/* A member that convert has added. */
static bool is_added(const struct remaking *r, const struct ckf_archive_entry *e)
{
	if (!e->name)
		return false;
	return ckf_is_own_name(e->name) ||
	       (!strcmp(e->name, CKF_README_NAME) && ckf_wants_readme(r->x->img->idx));
}

/* The members that came right here. */
static int put_removed(struct remaking *r, uint64_t nr_kept)
{
	int ret = 0;

	for (; r->next < r->removed.nr && r->removed.v[r->next].before <= nr_kept && !ret;
	     r->next++) {
		const struct ckf_removed *m = &r->removed.v[r->next];
		const struct ckf_file *f = find_pages(r->x->img->idx, m->name);

		ret = ckf_archive_copy_write(&r->w, m->head, m->head_bytes);
		if (!ret)
			ret = ckf_extraction_pages(r->x, f, r->w.fd, r->w.off);
		r->w.off += f->size_bytes;
		if (!ret)
			ret = ckf_archive_copy_write(&r->w, m->tail, m->tail_bytes);
	}
	return ret;
}

static int put_members(struct remaking *r)
{
	const struct ckf_archive *a = r->a;
	int ret = put_removed(r, 0);

	for (uint64_t i = 0; i < a->nr_entries && !ret; i++) {
		if (is_added(r, &a->entries[i]))
			continue;
		ret = ckf_archive_copy_range(&r->w, a->entries[i].start, a->entries[i].end);
		if (!ret)
			ret = put_removed(r, ++r->nr_kept);
	}
	if (!ret)
		ret = put_removed(r, UINT64_MAX);
	return ret ? ret : ckf_archive_copy_range(&r->w, a->members_end, a->end);
}

/* The headers of the removed members are as hostile as all else: what was made has to make sense.
 */
static int check_made(const struct remaking *r, const struct ckf_layer_place *at)
{
	const struct ckf_file_part part = {
		.fd = at->fd,
		.off = at->start,
		.bytes = at->end - at->start,
	};
	const struct ckf_index *idx = r->x->img->idx;
	struct ckf_archive *made = NULL;
	int ret = ckf_archive_open_part(&part, NULL, &made, r->x->err);

	for (uint64_t i = 0; i < idx->nr_files && !ret; i++) {
		const struct ckf_file *f = &idx->files[i];
		const struct ckf_member *m = ckf_members_find(&made->members, f->name);

		if (!m || m->bytes < f->size_bytes ||
		    m->bytes - f->size_bytes >= (f->kind == CKF_FILE_PAGES ? CKF_PAGE_BYTES : 1))
			ret = ckf_error_set(r->x->err, -EBADMSG,
					    "corrupt archive: it does not give %s", f->name);
	}
	ckf_archive_close(made);
	return ret;
}

static int remake(struct remaking *r, struct ckf_layer_place *at)
{
	int ret = ckf_extraction_start(r->x);

	if (!ret)
		ret = ckf_image_check_files(r->x->img, CKF_FILES_ALL, r->x->err);
	if (!ret)
		ret = ckf_archive_copy_init(&r->w, r->a, at->fd, &r->x->opts, r->x->err);
	r->w.off = at->start;
	if (!ret)
		ret = put_members(r);
	at->end = r->w.off;
	if (!ret)
		ret = check_made(r, at);
	if (!ret)
		ret = ckf_archive_check_unchanged(r->a, r->x->err);
	ckf_archive_copy_fini(&r->w);
	return ret;
}

/* Takes a. */
static int enter(struct remaking *r, struct ckf_archive *a)
{
	int ret;

	r->a = a;
	ret = ckf_image_open_dir(ckf_archive_dir(a), NULL, &r->x->img, r->x->err);
	if (!ret)
		ret = read_removed(r);
	if (!ret)
		ret = check_removed(r);
	return ret;
}

/* What reads the archive ends before it is closed. */
static void leave(struct remaking *r)
{
	ckf_extraction_fini(r->x);
	ckf_removed_fini(&r->removed);
	ckf_image_close(r->x->img);
	r->x->img = NULL;
	ckf_archive_close(r->a);
}

static void warn_compression(const struct remaking *r)
{
	if (r->removed.compression)
		ckf_warn(&r->x->opts,
			 "the archive was compressed with %s: this one is not, and equal "
			 "but for that",
			 ckf_compression_name(r->removed.compression));
}

int ckf_extraction_layer(struct ckf_extraction *x, struct ckf_archive *a,
			 struct ckf_layer_place *at)
{
	struct remaking r = { .x = x };
	int ret = enter(&r, a);

	if (!ret)
		ret = remake(&r, at);
	if (!ret)
		warn_compression(&r);
	leave(&r);
	return ret;
}

static int remake_file(struct remaking *r, const char *fast, const char *out)
{
	struct ckf_extraction *x = r->x;
	struct ckf_layer_place at = { 0 };
	int ret = ckf_in_place_init(&x->in_place, fast, r->a->file_fd, NULL, x->err);

	if (!ret)
		ret = ckf_archive_open_output(&x->out, r->a, &x->in_place, out, x->opts.force,
					      x->err);
	if (ret)
		return ret;
	at.fd = x->out.file_fd;
	ret = remake(r, &at);
	if (!ret)
		ret = ckf_output_seal(&x->out, NULL, NULL, x->err);
	return ckf_finish_output(&x->out, ret, &x->opts, x->err);
}

int ckf_extraction_archive(struct ckf_extraction *x, struct ckf_archive *a, const char *fast,
			   const char *out)
{
	struct remaking r = { .x = x };
	int ret = enter(&r, a);

	if (!ret)
		ret = remake_file(&r, fast, out);
	if (!ret)
		warn_compression(&r);
	leave(&r);
	return ret;
}
