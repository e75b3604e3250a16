/* SPDX-License-Identifier: MIT */
/*
 * Decides which contents of render nodes' buffer objects an image takes. An object without a file,
 * or with one of another length, stays as it is: versions of CRIU differ in what they write for
 * objects that they do not copy, and in what they make of it at a restore.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ckf_io_util.h"
#include "amd.h"
#include "img.h"

struct taking {
	struct ckf_dump *d;
	struct ckf_file_list *l;
	const struct ckf_convert_opts *opts;
	struct ckf_error *err;
	uint64_t cap;
};

/* Versions of CRIU have written any number there. */
static int read_head(const struct taking *k, struct ckf_file *f)
{
	struct ckf_file_part part;
	ckf_le64 head;
	int ret = ckf_open_of_dump(&k->d->dir, f->name, &part);

	if (!ret) {
		ret = ckf_pread_all(part.fd, &head, sizeof(head), part.off);
		close(part.fd);
	}
	if (ret)
		return ckf_error_set(k->err, ret, "cannot read %s: %s", f->name, strerror(-ret));
	f->head = ckf_get64(head);
	return 0;
}

static int add_pagemap(struct taking *k, const struct ckf_render_table *t, uint32_t object)
{
	struct ckf_dump *d = k->d;
	struct ckf_run *run = calloc(1, sizeof(*run));
	char *name = strdup(t->name);

	if (!run || !name ||
	    ckf_array_grow(&d->pagemaps, d->nr_pagemaps, &k->cap, sizeof(*d->pagemaps))) {
		free(run);
		free(name);
		return ckf_error_set(k->err, -ENOMEM, "no memory for the pagemaps");
	}
	run->nr_pages = t->bytes[object] >> CKF_PAGE_SHIFT;
	d->pagemaps[d->nr_pagemaps++] = (struct ckf_pagemap){
		.kind = CKF_TARGET_DEVICE,
		.render = true,
		.id = ckf_render_target_id(t->file_id, object),
		.name = name,
		.pages_id = t->first + object,
		.runs = run,
		.nr_runs = 1,
		.nr_pages = run->nr_pages,
		.nr_local_pages = run->nr_pages,
	};
	return 0;
}

/* Takes the contents, if there are any and they are as long as the table says. */
static int take_object(struct taking *k, const struct ckf_render_table *t, uint32_t object,
		       uint32_t *nr_kept)
{
	char name[CKF_RENDER_NAME_BYTES];
	int64_t at = ckf_file_list_find(k->l, ckf_render_pages_name(t, object, name));
	struct ckf_file *f;
	int ret;

	if (ckf_file_list_has_odd(k->l, name))
		return ckf_error_set(k->err, -EOPNOTSUPP, "%s is not a regular file", name);
	if (at < 0)
		return 0;
	f = &k->l->files[at];
	if (f->kind != CKF_FILE_VERBATIM || !ckf_render_bytes_ok(t->bytes[object]) ||
	    f->size_bytes != CKF_SIZED_HEAD_BYTES + t->bytes[object]) {
		++*nr_kept;
		return 0;
	}
	ret = read_head(k, f);
	return ret ? ret : add_pagemap(k, t, object);
}

static int take_table(struct taking *k, const struct ckf_render_table *t)
{
	uint32_t nr_kept = 0;
	int ret = 0;

	if (t->err.code == -EOPNOTSUPP && ckf_file_list_find(k->l, t->name) >= 0) {
		ckf_warn(k->opts, "the buffer objects of a render node are kept as they are: %s",
			 t->err.msg);
		return 0;
	}
	if (t->err.code)
		return ckf_error_set(k->err, t->err.code, "%s", t->err.msg);
	for (uint32_t i = 0; i < t->nr_objects && !ret; i++)
		ret = take_object(k, t, i, &nr_kept);
	if (nr_kept && !ret)
		ckf_warn(k->opts,
			 "files of contents that are not as long as %s says: %u, kept as they are",
			 t->name, nr_kept);
	return ret;
}

int ckf_render_take(struct ckf_dump *d, struct ckf_file_list *l,
		    const struct ckf_convert_opts *opts, struct ckf_error *err)
{
	struct taking k = { .d = d, .l = l, .opts = opts, .err = err, .cap = d->nr_pagemaps };
	int ret = 0;

	for (uint64_t i = 0; i < d->nr_render && !ret; i++)
		ret = take_table(&k, &d->render[i]);
	/* Between those of /dev/kfd, by the numbers of the files. */
	ckf_dump_sort_pagemaps(d);
	return ret;
}
