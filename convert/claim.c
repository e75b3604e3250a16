/* SPDX-License-Identifier: MIT */
/* Opens a dump to convert it, and finds the pages file of each pagemap. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "loader/ckf_image.h"
#include "amd.h"
#include "conversion.h"
#include "strays.h"

static bool has_pages_file(const struct ckf_conversion *c)
{
	char name[CKF_ORIGIN_NAME_BYTES];

	for (uint64_t i = 0; i < c->dump->nr_pagemaps; i++) {
		const struct ckf_origin origin = ckf_origin_of(&c->dump->pagemaps[i]);

		if (ckf_file_list_find(&c->list, ckf_origin_name(c->dump, &origin, name)) >= 0)
			return true;
	}
	return false;
}

static bool is_readme(const void *arg, const char *name)
{
	(void)arg;
	return !strcmp(name, CKF_README_NAME);
}

/*
 * A fast image has no pages files. Where there are some, a newer dump was written into the
 * directory of an image, and what is left of that is of no use.
 */
static int check_own_files(struct ckf_conversion *c)
{
	if (c->archive || (ckf_image_probe(c->dir.fd) && !has_pages_file(c)))
		return ckf_error_set(c->err, -EINVAL,
				     "this is a fast image already; ckfast extract makes a dump of "
				     "it again");
	ckf_file_list_drop_stale(&c->list, is_readme, NULL);
	c->list.nr_left_out++;
	c->list.nr_stale++;
	ckf_warn(&c->opts,
		 "a dump was written over an older fast image here: what is left of that, "
		 "ckfast.* and " CKF_README_NAME ", is left out, and best removed");
	return 0;
}

int ckf_conversion_open(struct ckf_conversion *c)
{
	int ret;

	c->dir.fd = open(c->dump_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (c->dir.fd < 0)
		return ckf_error_set(c->err, -errno, "cannot open: %s", strerror(errno));
	ret = ckf_in_place_init(&c->in_place, c->dump_path, c->dir.fd, "inventory.img", c->err);
	return ret ? ret : ckf_conversion_read(c);
}

int ckf_conversion_read(struct ckf_conversion *c)
{
	int ret = ckf_file_list_read(&c->dir, &c->list, c->err);

	if (!ret)
		ret = ckf_dump_open_dir(&c->dir, false, &c->dump, c->err);
	if (!ret && c->list.has_own)
		ret = check_own_files(c);
	if (!ret)
		ret = ckf_dump_check(c->dump, c->err);
	if (!ret)
		ret = ckf_chain_init(&c->chain, &c->dir, c->err);
	c->chain.dump = c->dump;
	if (!ret && !c->dump->nr_tasks)
		ckf_warn(&c->opts, "no pstree.img: it may be a pre-dump, which cannot be restored");
	return ret;
}

/*
 * Another LZ4 may compress the same pages in another way, so the bytes of a compressed pages file
 * go into the pack, too, and its pages like those that come from a parent dump.
 */
static int claim_packed(struct ckf_conversion *c, struct ckf_pagemap *pm, struct ckf_file *f)
{
	const struct ckf_origin origin = ckf_origin_of(pm);
	struct ckf_packing *p = pm->packing;

	if (!ckf_pagemap_fits(pm, f->size_bytes))
		return ckf_error_rule(c->err, -EBADMSG, f->name, -1, f->size_bytes,
				      "%s than %s says, got %llu bytes, want %llu",
				      f->size_bytes < p->min_bytes ? "shorter" : "longer", pm->name,
				      (unsigned long long)f->size_bytes,
				      (unsigned long long)p->file_bytes);
	f->kind = CKF_FILE_CUT_PAGES;
	c->stats.page_bytes += ckf_pages_to_bytes(pm->nr_local_pages);
	c->stats.compressed_bytes += f->size_bytes;
	c->stats.nr_compressed++;
	pm->packing = NULL;
	if (ckf_packings_add(c->chain.packings, &origin, p))
		return ckf_error_set(c->err, -ENOMEM, "no memory for the pagemaps");
	return 0;
}

/* Finds and checks the pages file of one pagemap. */
static int claim_pages_file(struct ckf_conversion *c, uint64_t i)
{
	struct ckf_pagemap *pm = &c->dump->pagemaps[i];
	const struct ckf_origin origin = ckf_origin_of(pm);
	char name[CKF_ORIGIN_NAME_BYTES];
	struct ckf_file *f;
	uint64_t tail;
	int64_t at;

	at = ckf_file_list_find(&c->list, ckf_origin_name(c->dump, &origin, name));
	c->pages_file[i] = at;
	if (ckf_file_list_has_odd(&c->list, name))
		return ckf_error_set(c->err, -EOPNOTSUPP, "%s is not a regular file", name);
	if (at < 0) {
		c->pages_file[i] = CKF_NO_FILE;
		if (!pm->nr_local_pages)
			return 0;
		return ckf_error_set(c->err, -EBADMSG,
				     "corrupt dump: there is no %s, which %s names", name,
				     pm->name);
	}
	f = &c->list.files[at];
	if (ckf_file_has_pages(f))
		return ckf_error_set(c->err, -EBADMSG,
				     "corrupt dump: %s is named by %s and another pagemap", name,
				     pm->name);
	if (f->kind != CKF_FILE_VERBATIM)
		return ckf_error_set(c->err, -EOPNOTSUPP, "%s is not a regular file", name);
	c->pagemap_of[at] = i;
	if (pm->packing)
		return claim_packed(c, pm, f);
	/* ckf_amd_take() and ckf_render_take() have checked these. */
	if (origin.kind == CKF_ORIGIN_AMD || origin.kind == CKF_ORIGIN_RENDER) {
		f->kind = origin.kind == CKF_ORIGIN_AMD ? CKF_FILE_SIZED_PAGES
							: CKF_FILE_HEADED_PAGES;
		c->stats.page_bytes += ckf_file_page_bytes(f);
		return 0;
	}
	tail = f->size_bytes % CKF_PAGE_BYTES;
	if (origin.kind == CKF_ORIGIN_GPU && tail)
		return ckf_error_rule(c->err, -EBADMSG, name, -1, f->size_bytes,
				      "the length is not one of pages");
	if (f->size_bytes / CKF_PAGE_BYTES < pm->nr_local_pages)
		return ckf_error_rule(c->err, -EBADMSG, name, -1, f->size_bytes,
				      "shorter than %s says, got %llu pages, want %llu", pm->name,
				      (unsigned long long)(f->size_bytes / CKF_PAGE_BYTES),
				      (unsigned long long)pm->nr_local_pages);
	if (origin.kind == CKF_ORIGIN_GPU && f->size_bytes / CKF_PAGE_BYTES > pm->nr_local_pages)
		return ckf_error_rule(c->err, -EBADMSG, name, -1, f->size_bytes,
				      "longer than %s says, got %llu pages, want %llu", pm->name,
				      (unsigned long long)(f->size_bytes / CKF_PAGE_BYTES),
				      (unsigned long long)pm->nr_local_pages);
	/* CRIU never reads so far. An archive keeps them with the headers. */
	c->has_tails |= tail != 0;
	if (tail && !c->archive)
		ckf_warn(&c->opts, "%s ends in %llu bytes that are no page: left out", name,
			 (unsigned long long)tail);
	f->size_bytes -= tail;
	f->kind = CKF_FILE_PAGES;
	c->stats.page_bytes += f->size_bytes;
	return 0;
}

/* Contents of device memory without the table that says what they are. */
static int check_orphans(const struct ckf_conversion *c)
{
	static const char prefix[] = CKF_GPU_PAGES_PREFIX;

	for (uint64_t i = 0; i < c->list.nr_files; i++) {
		const struct ckf_file *f = &c->list.files[i];

		if (f->kind == CKF_FILE_VERBATIM && !strncmp(f->name, prefix, sizeof(prefix) - 1))
			return ckf_error_set(c->err, -EBADMSG,
					     "corrupt dump: there is no " CKF_GPU_PREFIX
					     "%s for %s",
					     f->name + sizeof(prefix) - 1, f->name);
	}
	return 0;
}

int ckf_conversion_claim(struct ckf_conversion *c)
{
	size_t n;
	int ret = ckf_drop_strays(c->dump, &c->list, &c->opts, c->err);

	if (!ret && c->opts.amd)
		ret = ckf_amd_take(c->dump, &c->list, &c->opts, c->err);
	if (!ret && c->opts.amd)
		ret = ckf_render_take(c->dump, &c->list, &c->opts, c->err);
	if (ret)
		return ret;
	n = (size_t)c->dump->nr_pagemaps;
	if (!n)
		return check_orphans(c);
	c->pages_file = calloc(n, sizeof(*c->pages_file));
	c->pagemap_of = calloc((size_t)c->list.nr_files, sizeof(*c->pagemap_of));
	c->open_streams = calloc(n, sizeof(*c->open_streams));
	if (!c->pages_file || !c->pagemap_of || !c->open_streams)
		return ckf_error_set(c->err, -ENOMEM, "no memory for the pagemaps");
	for (uint64_t i = 0; i < n && !ret; i++) {
		const struct ckf_pagemap *pm = &c->dump->pagemaps[i];

		ret = claim_pages_file(c, i);
		c->stats.page_bytes += ckf_pages_to_bytes(pm->nr_pages - pm->nr_local_pages);
	}
	return ret ? ret : check_orphans(c);
}
