/* SPDX-License-Identifier: MIT */
/* Where the pages of a target are: in the dump, in its parents, and in which order to read them. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loader/ckf_gpu_read.h"
#include "img.h"
#include "stream.h"
#include "vma.h"

/* Takes dir.fd. */
static int add_level(struct ckf_chain *c, struct ckf_dir dir, struct ckf_error *err)
{
	struct ckf_chain_level *l = &c->levels[c->nr_levels];
	struct stat st;
	int ret;

	if (fstat(dir.fd, &st)) {
		ret = ckf_error_set(err, -errno, "cannot stat a dump: %s", strerror(errno));
		goto out;
	}
	for (uint32_t i = 0; i < c->nr_levels; i++) {
		if (c->levels[i].dev == st.st_dev && c->levels[i].ino == st.st_ino) {
			ret = ckf_error_set(err, -EBADMSG, "corrupt dump: its parents form a loop");
			goto out;
		}
	}
	*l = (struct ckf_chain_level){ .dir = dir, .dev = st.st_dev, .ino = st.st_ino };
	c->nr_levels++;
	return 0;
out:
	close(dir.fd);
	return ret;
}

int ckf_chain_init(struct ckf_chain *c, const struct ckf_dir *dir, struct ckf_error *err)
{
	struct ckf_dir own = {
		.fd = fcntl(dir->fd, F_DUPFD_CLOEXEC, 0),
		.members = dir->members,
	};

	c->nr_levels = 0;
	c->dump = NULL;
	c->packings = NULL;
	if (own.fd < 0)
		return ckf_error_set(err, -errno, "cannot open the dump: %s", strerror(errno));
	if (ckf_packings_new(&c->packings)) {
		close(own.fd);
		return ckf_error_set(err, -ENOMEM, "no memory for the dump");
	}
	return add_level(c, own, err);
}

void ckf_chain_fini(struct ckf_chain *c)
{
	while (c->nr_levels)
		close(c->levels[--c->nr_levels].dir.fd);
	ckf_packings_free(c->packings);
	c->packings = NULL;
}

static int open_level(struct ckf_chain *c, uint32_t level, struct ckf_error *err)
{
	struct ckf_dir dir = { 0 };
	int ret = 0;

	while (!ret && c->nr_levels <= level) {
		if (c->nr_levels == CKF_CHAIN_MAX)
			return ckf_error_set(err, -E2BIG, "more than %u parent dumps",
					     CKF_CHAIN_MAX - 1);
		dir.fd = openat(c->levels[c->nr_levels - 1].dir.fd, "parent",
				O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dir.fd < 0)
			return ckf_error_set(err, errno == ENOENT ? -EBADMSG : -errno,
					     "cannot open parent dump %u: %s", c->nr_levels,
					     strerror(errno));
		ret = add_level(c, dir, err);
	}
	return ret;
}

const char *ckf_origin_name(const struct ckf_dump *d, const struct ckf_origin *o,
			    char buf[CKF_ORIGIN_NAME_BYTES])
{
	const struct ckf_render_table *r;
	const struct ckf_amd_table *t;

	switch (o->kind) {
	case CKF_ORIGIN_GPU:
		return ckf_gpu_pages_name(o->pages_id, buf);
	case CKF_ORIGIN_AMD:
		t = &d->amd[o->pages_id / CKF_AMD_MAX_GPUS];
		return ckf_amd_pages_name(t->file_id,
					  t->gpus[o->pages_id % CKF_AMD_MAX_GPUS].gpu_id, buf);
	case CKF_ORIGIN_RENDER:
		r = ckf_render_find_object(d->render, d->nr_render, o->pages_id);
		return ckf_render_pages_name(r, o->pages_id - r->first, buf);
	default:
		snprintf(buf, CKF_ORIGIN_NAME_BYTES, "pages-%u.img", o->pages_id);
		return buf;
	}
}

uint64_t ckf_origin_head_bytes(const struct ckf_origin *o)
{
	return o->kind == CKF_ORIGIN_AMD || o->kind == CKF_ORIGIN_RENDER ? CKF_SIZED_HEAD_BYTES : 0;
}

struct ckf_origin ckf_origin_of(const struct ckf_pagemap *pm)
{
	struct ckf_origin o = { .pages_id = pm->pages_id };

	if (pm->render)
		o.kind = CKF_ORIGIN_RENDER;
	else if (pm->kind == CKF_TARGET_DEVICE)
		o.kind = ckf_amd_is_target_id(pm->id) ? CKF_ORIGIN_AMD : CKF_ORIGIN_GPU;
	return o;
}

int ckf_chain_open_pages(const struct ckf_chain *c, const struct ckf_origin *o,
			 struct ckf_file_part *out, struct ckf_error *err)
{
	const struct ckf_dir *dir = &c->levels[o->level].dir;
	char name[CKF_ORIGIN_NAME_BYTES], where[32] = "";
	int ret;

	ckf_origin_name(c->dump, o, name);
	if (o->level)
		snprintf(where, sizeof(where), " of parent dump %u", o->level);
	ret = ckf_open_of_dump(dir, name, out);
	if (!ret)
		return 0;
	if (ret == -ENOENT && !dir->members &&
	    !faccessat(dir->fd, CKF_IDX_NAME, F_OK, AT_SYMLINK_NOFOLLOW))
		return ckf_error_set(err, -EOPNOTSUPP,
				     "parent dump %u is a fast image: extract it first", o->level);
	if (ret == -ENOENT)
		return ckf_error_set(err, -EBADMSG, "corrupt dump: there is no %s%s", name, where);
	if (ret == -EOPNOTSUPP)
		return ckf_error_set(err, ret, "%s%s is not a regular file", name, where);
	return ckf_error_set(err, ret, "cannot open %s%s: %s", name, where, strerror(-ret));
}

static int compare_range(const void *a, const void *b)
{
	const struct ckf_range *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* The ranges of the task that are verbatim; those that touch or overlap become one. */
static int find_verbatim(struct ckf_stream *s, const struct ckf_task *task)
{
	struct ckf_range *r;
	uint64_t n = 0, last = 0;

	for (uint64_t i = 0; task && i < task->nr_vmas; i++)
		n += ckf_vma_is_verbatim(&task->vmas[i]);
	if (!n)
		return 0;
	r = calloc((size_t)n, sizeof(*r));
	if (!r)
		return -ENOMEM;
	n = 0;
	for (uint64_t i = 0; i < task->nr_vmas; i++) {
		if (ckf_vma_is_verbatim(&task->vmas[i]))
			r[n++] = (struct ckf_range){ task->vmas[i].start, task->vmas[i].end };
	}
	qsort(r, (size_t)n, sizeof(*r), compare_range);
	for (uint64_t i = 1; i < n; i++) {
		if (r[i].start > r[last].end)
			r[++last] = r[i];
		else if (r[i].end > r[last].end)
			r[last].end = r[i].end;
	}
	s->verbatim = r;
	s->nr_verbatim = last + 1;
	return 0;
}

static int stream_new(struct ckf_stream **out, const struct ckf_task *task, struct ckf_error *err)
{
	struct ckf_stream *s = calloc(1, sizeof(*s));

	if (!s || find_verbatim(s, task)) {
		free(s);
		return ckf_error_set(err, -ENOMEM, "no memory for a stream of pages");
	}
	*out = s;
	return 0;
}

void ckf_stream_free(struct ckf_stream *s)
{
	if (!s)
		return;
	free(s->pieces);
	free(s->verbatim);
	free(s);
}

int ckf_stream_local(const struct ckf_pagemap *pm, uint64_t file_pages, const struct ckf_task *task,
		     struct ckf_stream **out, struct ckf_error *err)
{
	int ret;

	if (file_pages > CKF_MAX_FILE_PAGES)
		return ckf_error_set(err, -E2BIG, "the pages file of %s is too long", pm->name);
	ret = stream_new(out, task, err);
	if (ret)
		return ret;
	(*out)->origin = ckf_origin_of(pm);
	(*out)->nr_pages = file_pages;
	(*out)->is_file = true;
	(*out)->runs = pm->runs;
	(*out)->nr_runs = pm->nr_runs;
	return 0;
}

int ckf_stream_bytes(const struct ckf_pagemap *pm, uint64_t file_bytes, struct ckf_stream **out,
		     struct ckf_error *err)
{
	int ret = stream_new(out, NULL, err);

	if (ret)
		return ret;
	(*out)->origin = (struct ckf_origin){ .pages_id = pm->pages_id, .kind = CKF_ORIGIN_BYTES };
	(*out)->nr_pages = ckf_align_up(file_bytes, CKF_PAGE_BYTES) / CKF_PAGE_BYTES;
	(*out)->is_file = true;
	return 0;
}

/* The state of looking up pages in one parent. */
struct lookup {
	const struct ckf_parent_query *q;
	struct ckf_pagemap_reader reader;
	struct ckf_run run;  /* of the parent; nr_pages 0 before the first */
	uint64_t file_pages; /* of the parent's pages file, before run */
	struct ckf_stream *stream;
	uint64_t cap_pieces;
	struct ckf_leftover left;
	uint64_t cap_left;
};

static uint64_t run_end(const struct ckf_run *r)
{
	return r->vaddr + ckf_pages_to_bytes(r->nr_pages);
}

/* Goes on to the parent's run that ends above addr, and checks that it has addr. */
static int seek_run(struct lookup *l, uint64_t addr, struct ckf_error *err)
{
	int ret = 1;

	while (ret > 0 && run_end(&l->run) <= addr) {
		if (!l->run.in_parent)
			l->file_pages += l->run.nr_pages;
		ret = ckf_pagemap_reader_next(&l->reader, &l->run, err);
	}
	if (ret < 0)
		return ret;
	if (!ret || l->run.vaddr > addr)
		return ckf_error_rule(err, -EBADMSG, l->q->pm->name, -1, 0,
				      "page %#llx is missing in the pagemap of parent dump %u",
				      (unsigned long long)addr, l->q->level);
	return 0;
}

static int add_left(struct lookup *l, uint64_t addr, uint64_t nr_pages)
{
	struct ckf_leftover *left = &l->left;
	struct ckf_run *last = left->nr_runs ? &left->runs[left->nr_runs - 1] : NULL;

	if (last && run_end(last) == addr) {
		last->nr_pages += nr_pages;
		return 0;
	}
	if (ckf_array_grow(&left->runs, left->nr_runs, &l->cap_left, sizeof(*left->runs)))
		return -ENOMEM;
	left->runs[left->nr_runs++] = (struct ckf_run){ addr, nr_pages, 1 };
	return 0;
}

static int add_piece(struct lookup *l, uint64_t addr, uint64_t file_page, uint64_t nr_pages)
{
	struct ckf_stream *s = l->stream;
	struct ckf_piece *last = s->nr_pieces ? &s->pieces[s->nr_pieces - 1] : NULL;

	s->nr_pages += nr_pages;
	if (last && last->vaddr + ckf_pages_to_bytes(last->nr_pages) == addr &&
	    last->file_page + last->nr_pages == file_page) {
		last->nr_pages += nr_pages;
		return 0;
	}
	if (ckf_array_grow(&s->pieces, s->nr_pieces, &l->cap_pieces, sizeof(*s->pieces)))
		return -ENOMEM;
	s->pieces[s->nr_pieces++] = (struct ckf_piece){ addr, file_page, nr_pages };
	return 0;
}

static int look_up(struct lookup *l, const struct ckf_run *want, struct ckf_error *err)
{
	uint64_t addr = want->vaddr, end = run_end(want);
	int ret = 0;

	while (!ret && addr < end) {
		uint64_t to, n, page;

		ret = seek_run(l, addr, err);
		if (ret)
			break;
		to = run_end(&l->run) < end ? run_end(&l->run) : end;
		n = (to - addr) >> CKF_PAGE_SHIFT;
		page = l->file_pages + ((addr - l->run.vaddr) >> CKF_PAGE_SHIFT);
		if (l->run.in_parent)
			ret = add_left(l, addr, n);
		else if (page + n > CKF_MAX_FILE_PAGES)
			ret = ckf_error_set(err, -E2BIG,
					    "%s of parent dump %u names too many pages",
					    l->q->pm->name, l->q->level);
		else
			ret = add_piece(l, addr, page, n);
		if (ret)
			ckf_error_set(err, ret, "no memory for the pages of parent dumps");
		addr = to;
	}
	return ret;
}

/* Pages of the parent's file are read by what its pagemap has said so far. */
static int add_packing(struct lookup *l, struct ckf_error *err)
{
	struct ckf_packing *p = l->reader.packing;
	int ret;

	l->reader.packing = NULL;
	if (!p->packed) {
		ckf_packing_free(p);
		p = NULL;
	}
	ret = ckf_packings_add(l->q->chain->packings, &l->stream->origin, p);
	if (ret == -EEXIST)
		return ckf_error_set(err, -EBADMSG,
				     "corrupt dump: pages-%u.img of parent dump %u is named by %s "
				     "and another pagemap",
				     l->stream->origin.pages_id, l->q->level, l->q->pm->name);
	return ret ? ckf_error_set(err, ret, "no memory for the pages of parent dumps") : 0;
}

int ckf_stream_parent(const struct ckf_parent_query *q, struct ckf_stream **out,
		      struct ckf_leftover *left, struct ckf_error *err)
{
	struct lookup l = { .q = q };
	int ret = open_level(q->chain, q->level, err);

	if (ret)
		return ret;
	ret = ckf_pagemap_reader_open(&l.reader, &q->chain->levels[q->level].dir, q->pm->name,
				      false, err);
	if (ret == -ENOENT)
		return ckf_error_rule(err, -EBADMSG, q->pm->name, -1, 0,
				      "parent dump %u has no such file", q->level);
	if (ret)
		return ret;
	ret = stream_new(&l.stream, q->task, err);
	if (ret)
		goto out;
	l.stream->origin = (struct ckf_origin){ .level = q->level, .pages_id = l.reader.pages_id };
	for (uint64_t i = 0; i < q->nr_runs && !ret; i++) {
		if (q->runs[i].in_parent)
			ret = look_up(&l, &q->runs[i], err);
	}
	if (!ret)
		ret = add_packing(&l, err);
out:
	ckf_pagemap_reader_close(&l.reader);
	if (ret) {
		ckf_stream_free(l.stream);
		free(l.left.runs);
		return ret;
	}
	*out = l.stream;
	*left = l.left;
	return 0;
}

void ckf_cursor_init(struct ckf_cursor *c, const struct ckf_stream *s)
{
	*c = (struct ckf_cursor){ .stream = s };
}

/* The rest of the item that the cursor is in, without regard to verbatim ranges: its pages. */
static uint64_t current_item(struct ckf_cursor *c, struct ckf_span *span)
{
	const struct ckf_stream *s = c->stream;

	if (s->origin.level) {
		const struct ckf_piece *p = &s->pieces[c->item];

		span->vaddr = p->vaddr + ckf_pages_to_bytes(c->done);
		span->file_page = p->file_page + c->done;
		span->mapped = true;
		return p->nr_pages - c->done;
	}
	while (c->item < s->nr_runs && s->runs[c->item].in_parent)
		c->item++;
	span->file_page = c->page;
	span->mapped = c->item < s->nr_runs;
	if (span->mapped) {
		span->vaddr = s->runs[c->item].vaddr + ckf_pages_to_bytes(c->done);
		return s->runs[c->item].nr_pages - c->done;
	}
	span->vaddr = 0;
	return s->nr_pages - c->page;
}

/* Whether the span is verbatim, and how many of its pages come before that changes. */
static uint64_t clip_verbatim(struct ckf_cursor *c, struct ckf_span *span, uint64_t nr_pages)
{
	const struct ckf_stream *s = c->stream;
	uint64_t border;

	span->verbatim = false;
	while (c->range < s->nr_verbatim && s->verbatim[c->range].end <= span->vaddr)
		c->range++;
	if (!span->mapped || c->range == s->nr_verbatim)
		return nr_pages;
	span->verbatim = s->verbatim[c->range].start <= span->vaddr;
	border = span->verbatim ? s->verbatim[c->range].end : s->verbatim[c->range].start;
	border = (border - span->vaddr) >> CKF_PAGE_SHIFT;
	return nr_pages < border ? nr_pages : border;
}

void ckf_cursor_next(struct ckf_cursor *c, uint32_t max_pages, struct ckf_span *span)
{
	uint64_t item_pages = current_item(c, span);
	uint64_t nr_pages = clip_verbatim(c, span, item_pages);

	span->nr_pages = nr_pages < max_pages ? (uint32_t)nr_pages : max_pages;
	c->page += span->nr_pages;
	c->done += span->nr_pages;
	if (span->nr_pages == item_pages) {
		c->item++;
		c->done = 0;
	}
}
