/* SPDX-License-Identifier: MIT */
/* Reads pages of a dump from where they are in it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/ckf_io_util.h"
#include "source.h"
#include "unpack.h"

int ckf_origin_read_error(const struct ckf_chain *chain, const struct ckf_origin *o, int ret,
			  uint64_t off, struct ckf_error *err)
{
	char name[CKF_ORIGIN_NAME_BYTES];

	ckf_origin_name(chain->dump, o, name);
	if (ret == -EBADMSG)
		return ckf_error_rule(err, -EBADMSG, name, -1, off,
				      "the file ends before the pages of its pagemap do");
	return ckf_error_set(err, ret, "cannot read %s: %s", name, strerror(-ret));
}

static int read_extent(const struct ckf_chain *chain, const struct ckf_place *at,
		       const struct ckf_file_part *part, const struct ckf_extent *x, uint8_t *dst,
		       struct ckf_error *err)
{
	const struct ckf_origin *o = &at->origin;
	uint64_t off = ckf_origin_head_bytes(o) + ckf_pages_to_bytes(x->page);
	uint64_t bytes = ckf_pages_to_bytes(x->nr_pages);
	int ret = 0;

	/* Large parts of device memory were never written. */
	if (o->kind != CKF_ORIGIN_PAGES && ckf_is_hole(part->fd, part->off + off, bytes)) {
		memset(dst, 0, (size_t)bytes);
		return 0;
	}
	/* The last page of these is filled up. */
	if (o->kind == CKF_ORIGIN_BYTES && off + bytes > part->bytes &&
	    off + bytes - part->bytes < CKF_PAGE_BYTES) {
		size_t more = (size_t)(off + bytes - part->bytes);

		bytes -= more;
		memset(dst + bytes, 0, more);
	}
	/* Behind it, there may be another file of an archive. */
	if (off + bytes > part->bytes)
		ret = -EBADMSG;
	if (!ret)
		ret = ckf_pread_all(part->fd, dst, (size_t)bytes, part->off + off);
	return ret ? ckf_origin_read_error(chain, o, ret, off, err) : 0;
}

/* A file has at most CKF_MAX_FILE_PAGES, a place fewer than 2^16. */
static struct ckf_extent extent(uint64_t page, uint32_t nr_pages)
{
	return (struct ckf_extent){ .page = page & CKF_MAX_FILE_PAGES,
				    .nr_pages = (uint16_t)nr_pages };
}

uint32_t ckf_cursor_extents(struct ckf_cursor *cur, uint32_t nr_pages, struct ckf_extent *x)
{
	struct ckf_span span;
	uint32_t nr = 0;

	while (nr_pages) {
		ckf_cursor_next(cur, nr_pages, &span);
		nr_pages -= span.nr_pages;
		if (nr && x[nr - 1].page + x[nr - 1].nr_pages == span.file_page)
			x[nr - 1] = extent(x[nr - 1].page, x[nr - 1].nr_pages + span.nr_pages);
		else
			x[nr++] = extent(span.file_page, span.nr_pages);
	}
	return nr;
}

static int read_packed(const struct ckf_chain *chain, const struct ckf_place *at,
		       const struct ckf_file_part *part, const struct ckf_packing *p, uint8_t *dst,
		       struct ckf_error *err)
{
	char name[CKF_ORIGIN_NAME_BYTES], where[sizeof(name) + 32];
	struct ckf_unpack u;
	int ret = 0;

	ckf_origin_name(chain->dump, &at->origin, name);
	if (at->origin.level)
		snprintf(where, sizeof(where), "%s of parent dump %u", name, at->origin.level);
	ckf_unpack_init(&u, p, part, at->origin.level ? where : name);
	for (uint32_t i = 0; i < at->nr && !ret; i++) {
		ret = ckf_unpack_read(&u, at->extents[i].page, at->extents[i].nr_pages, dst, err);
		dst += ckf_pages_to_bytes(at->extents[i].nr_pages);
	}
	ckf_unpack_fini(&u);
	return ret;
}

int ckf_place_read(const struct ckf_chain *chain, const struct ckf_place *at, uint8_t *dst,
		   struct ckf_error *err)
{
	const struct ckf_packing *packing;
	struct ckf_file_part part;
	int ret;

	if (!at->nr)
		return 0;
	packing = ckf_packings_find(chain->packings, &at->origin);
	ret = ckf_chain_open_pages(chain, &at->origin, &part, err);
	if (ret)
		return ret;
	if (packing)
		ret = read_packed(chain, at, &part, packing, dst, err);
	for (uint32_t i = 0; i < at->nr && !packing && !ret; i++) {
		ret = read_extent(chain, at, &part, &at->extents[i], dst, err);
		dst += ckf_pages_to_bytes(at->extents[i].nr_pages);
	}
	close(part.fd);
	return ret;
}
