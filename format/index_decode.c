/* SPDX-License-Identifier: MIT */
/*
 * ckf_index_decode(): header, section table, and the order in which all the rest is checked.
 *
 * The order matters to the caller: what a newer version may have changed is looked at only after
 * the field that would announce the change, so that an image from the future is reported as
 * unsupported and not as corrupt.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ckf_codec.h"
#include "hash.h"
#include "index.h"
#include "base/ckf_table.h"

#define TABLE_OFF sizeof(struct ckf_disk_header)

#define header_error(d, code, ...) ckf_error_rule((d)->err, code, "header", -1, 0, __VA_ARGS__)
#define header_bad(d, ...) header_error(d, -EBADMSG, __VA_ARGS__)
#define table_error(d, code, i, ...)                             \
	ckf_error_rule((d)->err, code, "sections", (int64_t)(i), \
		       TABLE_OFF + (i) * sizeof(struct ckf_disk_section), __VA_ARGS__)
#define table_bad(d, i, ...) table_error(d, -EBADMSG, i, __VA_ARGS__)

/* Up to the checksum: enough to know which bytes it covers. */
static int check_header_frame(const struct ckf_decoder *d, const struct ckf_disk_header *h)
{
	uint64_t table_bytes;
	uint64_t sum;
	uint32_t nr;
	uint16_t major;

	if (d->idx_bytes < sizeof(*h))
		return header_bad(
			d, "R-length: length of the file, got %" PRIu64 ", want at least %zu",
			d->idx_bytes, sizeof(*h));
	if (memcmp(h->magic, CKF_IDX_MAGIC, sizeof(h->magic)))
		return header_bad(d, "R-magic: magic, got %.8s, want " CKF_IDX_MAGIC, h->magic);
	major = ckf_get16(h->version_major);
	if (major > CKF_VERSION_MAJOR)
		return header_error(d, -EOPNOTSUPP, "R-version: version_major, got %u, want %u",
				    major, CKF_VERSION_MAJOR);
	if (major < CKF_VERSION_MAJOR)
		return header_bad(d, "R-version: version_major, got %u, want %u", major,
				  CKF_VERSION_MAJOR);
	if (ckf_get32(h->header_bytes) != sizeof(*h))
		return header_bad(d, "R-header: header_bytes, got %u, want %zu",
				  ckf_get32(h->header_bytes), sizeof(*h));
	if (ckf_get64(h->idx_bytes) != d->idx_bytes)
		return header_bad(d, "R-length: idx_bytes, got %" PRIu64 ", want %" PRIu64,
				  ckf_get64(h->idx_bytes), d->idx_bytes);
	nr = ckf_get32(h->nr_sections);
	if (nr < 1 || nr > CKF_MAX_SECTIONS)
		return header_bad(d, "R-sections: nr_sections, got %u, want 1 to %u", nr,
				  CKF_MAX_SECTIONS);
	table_bytes = nr * sizeof(struct ckf_disk_section);
	if (table_bytes > d->idx_bytes - sizeof(*h))
		return header_bad(d,
				  "R-sections: section table, got %" PRIu64
				  " bytes, want at most %" PRIu64,
				  table_bytes, d->idx_bytes - sizeof(*h));
	sum = ckf_header_hash(h, nr);
	if (ckf_get64(h->checksum) != sum)
		return header_bad(d, "R-checksum: checksum, got 0x%" PRIx64 ", want 0x%" PRIx64,
				  ckf_get64(h->checksum), sum);
	return 0;
}

static int check_header_fields(const struct ckf_decoder *d, const struct ckf_disk_header *h)
{
	const uint32_t extent = ckf_get32(h->extent_bytes);
	const uint32_t max_pages = ckf_get32(h->max_chunk_pages);
	const uint64_t pack_bytes = ckf_get64(h->pack_bytes);
	const uint64_t incompat = ckf_get64(h->incompat);
	uint8_t id[CKF_ID_BYTES];

	if (incompat & ~CKF_INCOMPAT_ALL)
		return header_error(d, -EOPNOTSUPP,
				    "R-feature: incompat, got 0x%" PRIx64 ", want only 0x%llx",
				    incompat, CKF_INCOMPAT_ALL);
	if (ckf_get32(h->page_bytes) != CKF_PAGE_BYTES)
		return header_error(d, -EOPNOTSUPP, "R-header: page_bytes, got %u, want %u",
				    ckf_get32(h->page_bytes), CKF_PAGE_BYTES);
	if (!ckf_bytes_zero(h->reserved, sizeof(h->reserved)))
		return header_bad(d, "R-reserved: reserved bytes, got others than 0, want 0");
	ckf_hash128(h + 1, ckf_get32(h->nr_sections) * sizeof(struct ckf_disk_section), id);
	if (memcmp(h->image_id, id, sizeof(id)))
		return header_bad(d, "R-id: image_id, got another, want that of the section table");
	if (!ckf_pack_bytes_ok(pack_bytes))
		return header_bad(d,
				  "R-pack: pack_bytes, got %" PRIu64
				  ", want a multiple of 4096, at least 4096",
				  pack_bytes);
	if (!ckf_extent_bytes_ok(extent))
		return header_bad(d, "R-extent: extent_bytes, got %u, want 4, 8 or 16 MiB", extent);
	if (max_pages < 1 || max_pages > CKF_MAX_CHUNK_PAGES)
		return header_bad(d, "R-chunk: max_chunk_pages, got %u, want 1 to %u", max_pages,
				  CKF_MAX_CHUNK_PAGES);
	return 0;
}

static int decode_header(struct ckf_decoder *d)
{
	const struct ckf_disk_header *h = (const void *)d->buf;
	struct ckf_index *idx = d->idx;
	int ret;

	ret = check_header_frame(d, h);
	if (!ret)
		ret = check_header_fields(d, h);
	if (ret)
		return ret;
	idx->incompat = ckf_get64(h->incompat);
	idx->page_sums = idx->incompat & CKF_INCOMPAT_PAGE_SUMS;
	idx->compat = ckf_get64(h->compat);
	idx->pack_bytes = ckf_get64(h->pack_bytes);
	idx->extent_bytes = ckf_get32(h->extent_bytes);
	idx->max_chunk_pages = ckf_get32(h->max_chunk_pages);
	idx->version_major = ckf_get16(h->version_major);
	idx->version_minor = ckf_get16(h->version_minor);
	memcpy(idx->image_id, h->image_id, sizeof(idx->image_id));
	return 0;
}

/* The type of entry i of the table, which comes after one of type prev (0: there is none). */
static int check_section_type(const struct ckf_decoder *d, uint64_t i,
			      const struct ckf_disk_section *s, uint32_t prev)
{
	const uint32_t type = ckf_get32(s->type);
	const uint64_t count = ckf_get64(s->count);

	if (i && type <= prev)
		return table_bad(d, i, "R-sections: type, got %u, want above %u", type, prev);
	if (type >= CKF_SECTION_OPTIONAL)
		return 0;
	if (type < CKF_SECTION_STRINGS || type >= CKF_SECTION_END)
		return table_error(d, -EOPNOTSUPP, i, "R-sections: type, got %u, want 1 to %u",
				   type, CKF_SECTION_END - 1);
	if (ckf_get32(s->entry_bytes) != ckf_section_types[type].entry_bytes)
		return table_bad(d, i, "R-sections: entry_bytes, got %u, want %u",
				 ckf_get32(s->entry_bytes), ckf_section_types[type].entry_bytes);
	if (count > ckf_section_types[type].max_count)
		return table_bad(d, i, "R-sections: count, got %" PRIu64 ", want at most %" PRIu64,
				 count, ckf_section_types[type].max_count);
	return 0;
}

/*
 * Place, padding before it and checksum of section i of the table. *end is where the one before it
 * (or the table) ends, and is moved to the end of this one.
 */
static int check_section_bytes(const struct ckf_decoder *d, uint64_t i,
			       const struct ckf_disk_section *s, uint64_t *end)
{
	const uint64_t off = ckf_get64(s->offset);
	const uint64_t want_off = ckf_align_up(*end, CKF_SECTION_ALIGN);
	uint64_t bytes;
	uint64_t sum;

	if (off != want_off)
		return table_bad(d, i, "R-sections: offset, got %" PRIu64 ", want %" PRIu64, off,
				 want_off);
	if (ckf_mul_overflow(ckf_get64(s->count), ckf_get32(s->entry_bytes), &bytes) ||
	    off > d->idx_bytes || bytes > d->idx_bytes - off)
		return table_bad(d, i,
				 "R-sections: count, got %" PRIu64
				 " entries of %u bytes at %" PRIu64
				 ", want an end at most %" PRIu64,
				 ckf_get64(s->count), ckf_get32(s->entry_bytes), off, d->idx_bytes);
	if (!ckf_bytes_zero(d->buf + *end, off - *end))
		return table_bad(d, i,
				 "R-padding: bytes before the section, got others than 0, "
				 "want 0");
	sum = ckf_hash64(d->buf + off, bytes);
	if (ckf_get64(s->checksum) != sum)
		return table_bad(d, i, "R-checksum: checksum, got 0x%" PRIx64 ", want 0x%" PRIx64,
				 ckf_get64(s->checksum), sum);
	*end = off + bytes;
	return 0;
}

#define storage_bad(d, off, ...) ckf_error_rule((d)->err, -EBADMSG, "storage", 0, off, __VA_ARGS__)

/* An optional section that this version knows. Its place and checksum have been checked. */
static int decode_storage(struct ckf_decoder *d, uint64_t i, const struct ckf_disk_section *s)
{
	const uint64_t off = ckf_get64(s->offset);
	const struct ckf_disk_storage *disk = (const void *)(d->buf + off);
	struct ckf_storage *out = &d->idx->storage;

	if (ckf_get32(s->entry_bytes) != sizeof(*disk))
		return table_bad(d, i, "R-sections: entry_bytes, got %u, want %zu",
				 ckf_get32(s->entry_bytes), sizeof(*disk));
	if (ckf_get64(s->count) != 1)
		return table_bad(d, i, "R-storage: count, got %" PRIu64 ", want 1",
				 ckf_get64(s->count));
	out->bytes_per_s = ckf_get64(disk->bytes_per_s);
	out->profile = ckf_get32(disk->profile);
	out->nr_cores = ckf_get16(disk->nr_cores);
	out->measured = disk->measured;
	if (!out->bytes_per_s || !out->nr_cores)
		return storage_bad(d, off,
				   "R-storage: speed and cores, got %" PRIu64
				   " and %u, want at least 1",
				   out->bytes_per_s, out->nr_cores);
	if (disk->measured > 1)
		return storage_bad(d, off, "R-storage: measured, got %u, want 0 or 1",
				   disk->measured);
	if (disk->reserved)
		return storage_bad(d, off, "R-reserved: reserved byte, got %u, want 0",
				   disk->reserved);
	return 0;
}

static int decode_section_table(struct ckf_decoder *d)
{
	const struct ckf_disk_header *h = (const void *)d->buf;
	const struct ckf_disk_section *table = (const void *)(h + 1);
	const uint32_t nr = ckf_get32(h->nr_sections);
	bool seen[CKF_SECTION_END] = { false };
	uint64_t end = sizeof(*h) + nr * sizeof(*table);
	uint32_t type = 0;
	int ret;

	for (uint32_t i = 0; i < nr; i++) {
		ret = check_section_type(d, i, &table[i], type);
		if (!ret)
			ret = check_section_bytes(d, i, &table[i], &end);
		if (ret)
			return ret;
		type = ckf_get32(table[i].type);
		if (type == CKF_SECTION_STORAGE)
			ret = decode_storage(d, i, &table[i]);
		if (ret)
			return ret;
		if (type >= CKF_SECTION_OPTIONAL)
			continue;
		d->part[type].off = ckf_get64(table[i].offset);
		d->part[type].count = ckf_get64(table[i].count);
		seen[type] = true;
	}
	if (end != d->idx_bytes)
		return header_bad(
			d, "R-sections: end of the last section, got %" PRIu64 ", want %" PRIu64,
			end, d->idx_bytes);
	for (uint32_t t = CKF_SECTION_STRINGS; t < CKF_SECTION_END; t++) {
		bool want = t != CKF_SECTION_BASES || (d->idx->incompat & CKF_INCOMPAT_BASES);

		if (seen[t] != want)
			return header_bad(d, "R-sections: section %s, got %s, want %s",
					  ckf_section_types[t].name, seen[t] ? "one" : "none",
					  want ? "one" : "none");
	}
	return 0;
}

int ckf_index_decode(const void *buf, size_t idx_bytes, struct ckf_index **out,
		     struct ckf_error *err)
{
	static int (*const steps[])(struct ckf_decoder * d) = {
		decode_header,	  decode_section_table, ckf_decode_bases,   ckf_decode_chunks,
		ckf_decode_refs,  ckf_decode_files,	ckf_decode_targets, ckf_decode_ops,
		ckf_decode_lanes, ckf_decode_huge,
	};
	struct ckf_decoder d = { .buf = buf, .idx_bytes = idx_bytes, .err = err };
	int ret = 0;

	*out = NULL;
	d.idx = calloc(1, sizeof(*d.idx));
	if (!d.idx)
		return ckf_error_set(err, -ENOMEM, "no memory for an index");
	for (size_t i = 0; !ret && i < sizeof(steps) / sizeof(steps[0]); i++)
		ret = steps[i](&d);
	if (ret)
		ckf_index_free(d.idx);
	else
		*out = d.idx;
	return ret;
}
