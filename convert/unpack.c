/* SPDX-License-Identifier: MIT */
/*
 * Blocks that follow each other in the file are read at once, and decoded straight to where their
 * pages are wanted. A block that only some pages are wanted of is decoded aside and remembered:
 * pages of parent dumps are often wanted one by one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckf_io_util.h"
#include "format/ckf_codec.h"
#include "unpack.h"

#define READ_BYTES (256u << 10)

void ckf_unpack_init(struct ckf_unpack *u, const struct ckf_packing *p,
		     const struct ckf_file_part *file, const char *name)
{
	*u = (struct ckf_unpack){ .packing = p, .file = *file, .name = name, .page = UINT64_MAX };
}

void ckf_unpack_fini(struct ckf_unpack *u)
{
	free(u->stored);
	free(u->block);
	u->stored = NULL;
	u->block = NULL;
}

static uint64_t block_limit(const struct ckf_unpack *u)
{
	return ckf_pages_to_bytes(u->packing->max_block_pages);
}

static uint64_t read_limit(const struct ckf_unpack *u)
{
	return block_limit(u) > READ_BYTES ? block_limit(u) : READ_BYTES;
}

static int need(uint8_t **buf, uint64_t bytes, struct ckf_error *err)
{
	if (!*buf)
		*buf = malloc((size_t)bytes);
	return *buf ? 0 : ckf_error_set(err, -ENOMEM, "no memory to decode pages");
}

static int read_at(const struct ckf_unpack *u, uint64_t off, uint64_t bytes, uint8_t *dst,
		   struct ckf_error *err)
{
	int ret = -EBADMSG;

	if (!bytes)
		return 0;
	/* Behind it, there may be another file of an archive. */
	if (off + bytes <= u->file.bytes)
		ret = ckf_pread_all(u->file.fd, dst, (size_t)bytes, u->file.off + off);
	if (ret == -EBADMSG)
		return ckf_error_rule(err, ret, u->name, -1, off,
				      "the file ends before the pages of its pagemap do");
	return ret ? ckf_error_set(err, ret, "cannot read %s: %s", u->name, strerror(-ret)) : 0;
}

static int decode(const struct ckf_unpack *u, const struct ckf_packed *b, const uint8_t *src,
		  uint8_t *dst, struct ckf_error *err)
{
	uint64_t bytes = ckf_pages_to_bytes(b->nr_pages);

	if (!b->bytes)
		memset(dst, 0, (size_t)bytes);
	else if (b->bytes == bytes)
		memcpy(dst, src, (size_t)bytes);
	else if (ckf_decode(NULL, CKF_CODEC_LZ4, src, (size_t)b->bytes, dst, (size_t)bytes))
		return ckf_error_rule(err, -EBADMSG, u->name, -1, b->off,
				      "%llu bytes of LZ4 do not decode to exactly %llu pages",
				      (unsigned long long)b->bytes,
				      (unsigned long long)b->nr_pages);
	return 0;
}

/* The pages from page to end that the block has, which were read to src; returns how many. */
static int64_t take(struct ckf_unpack *u, const struct ckf_packed *b, const uint8_t *src,
		    uint64_t page, uint64_t end, uint8_t *dst, struct ckf_error *err)
{
	uint64_t last = b->page + b->nr_pages;
	uint64_t nr = (last < end ? last : end) - page;
	int ret;

	if (nr == b->nr_pages && u->page != b->page) {
		ret = decode(u, b, src, dst, err);
		return ret ? ret : (int64_t)nr;
	}
	if (u->page != b->page) {
		u->page = UINT64_MAX;
		ret = need(&u->block, block_limit(u), err);
		if (!ret)
			ret = decode(u, b, src, u->block, err);
		if (ret)
			return ret;
		u->page = b->page;
	}
	memcpy(dst, u->block + ckf_pages_to_bytes(page - b->page), (size_t)ckf_pages_to_bytes(nr));
	return (int64_t)nr;
}

/* How many bytes from b on can be read at once, as far as the end page. */
static uint64_t span_bytes(const struct ckf_unpack *u, const struct ckf_packed *b, uint64_t end)
{
	struct ckf_packed at = *b;
	uint64_t bytes = at.bytes;

	while (ckf_packing_next(u->packing, &at) && at.part == b->part && at.page < end &&
	       bytes + at.bytes <= read_limit(u))
		bytes += at.bytes;
	return bytes;
}

static int read_plain(struct ckf_unpack *u, const struct ckf_packed *b, uint64_t page,
		      uint64_t nr_pages, uint8_t *dst, struct ckf_error *err)
{
	return read_at(u, b->off + ckf_pages_to_bytes(page - b->page), ckf_pages_to_bytes(nr_pages),
		       dst, err);
}

int ckf_unpack_read(struct ckf_unpack *u, uint64_t page, uint64_t nr_pages, uint8_t *dst,
		    struct ckf_error *err)
{
	uint64_t end = page + nr_pages, from = 0, to = 0; /* what of the file is in u->stored */
	struct ckf_packed b;
	int ret = 0;

	if (end > u->packing->nr_pages)
		return ckf_error_set(err, -EBADMSG, "%s has no page %llu", u->name,
				     (unsigned long long)(end - 1));
	if (nr_pages)
		ckf_packing_find(u->packing, page, &b);
	while (page < end) {
		int64_t n =
			(int64_t)((b.page + b.nr_pages < end ? b.page + b.nr_pages : end) - page);

		if (b.plain) {
			ret = read_plain(u, &b, page, (uint64_t)n, dst, err);
		} else if (b.page != u->page && (b.off < from || b.off + b.bytes > to)) {
			from = b.off;
			to = from + span_bytes(u, &b, end);
			ret = need(&u->stored, read_limit(u), err);
			if (!ret)
				ret = read_at(u, from, to - from, u->stored, err);
		}
		if (!ret && !b.plain) {
			/* A block that is remembered, or is all zeros, has no place there. */
			const uint8_t *src = b.off >= from && b.off <= to && u->stored
						     ? u->stored + (b.off - from)
						     : NULL;

			n = take(u, &b, src, page, end, dst, err);
			ret = n < 0 ? (int)n : 0;
		}
		if (ret)
			return ret;
		page += (uint64_t)n;
		dst += ckf_pages_to_bytes((uint64_t)n);
		if (page < end)
			ckf_packing_next(u->packing, &b);
	}
	return 0;
}
