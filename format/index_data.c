/* SPDX-License-Identifier: MIT */
/* Decodes and checks the sections that say what is stored: chunks, refs, files (SPEC.md 4.1-4.4).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ckf_codec.h"
#include "index.h"

#define chunk_bad(d, i, ...) ckf_entry_bad(d, CKF_SECTION_CHUNKS, i, __VA_ARGS__)
#define file_bad(d, i, ...) ckf_entry_bad(d, CKF_SECTION_FILES, i, __VA_ARGS__)

#define NSEC_PER_SEC 1000000000u

/* What the chunks before the current one say about it. */
struct chunk_walk {
	uint64_t pack_end;     /* of the last stored chunk of the base, or of the pack header */
	uint64_t pack_bytes;   /* of the base */
	uint32_t extent_bytes; /* of the base */
	uint64_t features;     /* incompat bits that the chunks so far ask for */
	uint16_t zero_pages;   /* of the last zero chunk */
	uint8_t base;	       /* of the last chunk */
	bool stored;	       /* there was one that is not zero */
};

static int check_zero_chunk(const struct ckf_decoder *d, uint64_t i, struct chunk_walk *w)
{
	const struct ckf_chunk *c = &d->idx->chunks[i];
	uint64_t sum;

	if (w->stored)
		return chunk_bad(d, i,
				 "R-chunk: codec, got zero after a stored chunk, want all "
				 "zero chunks first");
	if (c->base)
		return chunk_bad(d, i, "R-chunk: base of a zero chunk, got %u, want 0", c->base);
	if (c->nr_pages <= w->zero_pages)
		return chunk_bad(d, i, "R-chunk: nr_pages of a zero chunk, got %u, want above %u",
				 c->nr_pages, w->zero_pages);
	if (c->pack_off || c->stored_bytes)
		return chunk_bad(d, i,
				 "R-chunk: place of a zero chunk, got %u bytes at %" PRIu64
				 ", want 0 at 0",
				 c->stored_bytes, c->pack_off);
	sum = ckf_hash64_zeros(ckf_pages_to_bytes(c->nr_pages));
	if (c->checksum != sum)
		return chunk_bad(d, i,
				 "R-chunk: checksum of zeros, got 0x%" PRIx64 ", want 0x%" PRIx64,
				 c->checksum, sum);
	w->zero_pages = c->nr_pages;
	return 0;
}

/* A chunk of another base than the one before: every base has its turn, none is left out. */
static int next_base(const struct ckf_decoder *d, uint64_t i, struct chunk_walk *w)
{
	const struct ckf_index *idx = d->idx;
	const uint8_t base = idx->chunks[i].base;

	if (base > idx->nr_bases)
		return chunk_bad(d, i, "R-chunk: base, got %u, want at most %u", base,
				 idx->nr_bases);
	if (base < w->base)
		return chunk_bad(d, i, "R-chunk: base, got %u, want at least %u", base, w->base);
	if (base > w->base + 1u)
		return ckf_entry_bad(d, CKF_SECTION_BASES, w->base,
				     "R-base: chunks, got none, want at least one");
	w->base = base;
	w->pack_end = sizeof(struct ckf_disk_pack_header);
	w->pack_bytes = idx->bases[base - 1].pack_bytes;
	w->extent_bytes = idx->bases[base - 1].extent_bytes;
	w->features |= CKF_INCOMPAT_BASES;
	return 0;
}

static int check_stored_chunk(const struct ckf_decoder *d, uint64_t i, struct chunk_walk *w)
{
	const struct ckf_chunk *c = &d->idx->chunks[i];
	const uint64_t bytes = ckf_pages_to_bytes(c->nr_pages);
	uint64_t end;
	int ret;

	if (c->base != w->base) {
		ret = next_base(d, i, w);
		if (ret)
			return ret;
	}
	if (c->codec == CKF_CODEC_RAW && c->stored_bytes != bytes)
		return chunk_bad(d, i,
				 "R-chunk: stored_bytes of a raw chunk, got %u, want %" PRIu64,
				 c->stored_bytes, bytes);
	if (c->codec != CKF_CODEC_RAW && (!c->stored_bytes || c->stored_bytes >= bytes))
		return chunk_bad(d, i, "R-chunk: stored_bytes, got %u, want 1 to %" PRIu64,
				 c->stored_bytes, bytes - 1);
	if (c->codec == CKF_CODEC_RAW && c->pack_off % CKF_PAGE_BYTES)
		return chunk_bad(d, i,
				 "R-chunk: pack_off of a raw chunk, got %" PRIu64
				 ", want a multiple of 4096",
				 c->pack_off);
	if (c->pack_off < w->pack_end)
		return chunk_bad(d, i, "R-chunk: pack_off, got %" PRIu64 ", want at least %" PRIu64,
				 c->pack_off, w->pack_end);
	if (ckf_add_overflow(c->pack_off, c->stored_bytes, &end) || end > w->pack_bytes)
		return chunk_bad(d, i,
				 "R-chunk: end, got %u bytes at %" PRIu64
				 ", want an end at most %" PRIu64,
				 c->stored_bytes, c->pack_off, w->pack_bytes);
	if (c->pack_off / w->extent_bytes != (end - 1) / w->extent_bytes)
		return chunk_bad(d, i,
				 "R-chunk: place, got %u bytes at %" PRIu64
				 " over the border of an extent, want one extent",
				 c->stored_bytes, c->pack_off);
	w->pack_end = end;
	w->stored = true;
	w->features |= ckf_chunk_features(c);
	return 0;
}

static int check_chunk(const struct ckf_decoder *d, uint64_t i, struct chunk_walk *w)
{
	const struct ckf_chunk *c = &d->idx->chunks[i];

	if (c->codec >= CKF_CODEC_END)
		return ckf_entry_error(d, -EOPNOTSUPP, CKF_SECTION_CHUNKS, i,
				       "R-chunk: codec, got %u, want at most %u", c->codec,
				       CKF_CODEC_END - 1);
	if (c->nr_pages < 1 || c->nr_pages > d->idx->max_chunk_pages)
		return chunk_bad(d, i, "R-chunk: nr_pages, got %u, want 1 to %u", c->nr_pages,
				 d->idx->max_chunk_pages);
	if (c->codec == CKF_CODEC_ZERO)
		return check_zero_chunk(d, i, w);
	return check_stored_chunk(d, i, w);
}

int ckf_decode_chunks(struct ckf_decoder *d)
{
	const struct ckf_disk_chunk *disk = ckf_decoder_part(d, CKF_SECTION_CHUNKS);
	struct ckf_index *idx = d->idx;
	struct chunk_walk w = {
		.pack_end = sizeof(struct ckf_disk_pack_header),
		.pack_bytes = idx->pack_bytes,
		.extent_bytes = idx->extent_bytes,
	};
	int ret;

	idx->chunks = ckf_decoder_alloc(d, CKF_SECTION_CHUNKS, sizeof(*idx->chunks));
	if (!idx->chunks)
		return -ENOMEM;
	idx->nr_chunks = d->part[CKF_SECTION_CHUNKS].count;
	for (uint64_t i = 0; i < idx->nr_chunks; i++) {
		idx->chunks[i] = (struct ckf_chunk){
			.pack_off = ckf_get64(disk[i].pack_off),
			.checksum = ckf_get64(disk[i].checksum),
			.stored_bytes = ckf_get32(disk[i].stored_bytes),
			.nr_pages = ckf_get16(disk[i].nr_pages),
			.codec = disk[i].codec,
			.base = disk[i].base,
		};
		ret = check_chunk(d, i, &w);
		if (ret)
			return ret;
		if (!w.base)
			idx->nr_own_chunks++;
	}
	if (w.base != idx->nr_bases)
		return ckf_entry_bad(d, CKF_SECTION_BASES, w.base,
				     "R-base: chunks, got none, want at least one");
	/* Those of device targets and of files are checked with them. */
	w.features |= idx->incompat &
		      (CKF_INCOMPAT_DEVICES | CKF_INCOMPAT_PAGE_SUMS | CKF_INCOMPAT_FILE_KINDS);
	if ((idx->incompat & CKF_INCOMPAT_ALL) != w.features)
		return ckf_error_rule(d->err, -EBADMSG, "header", -1, 0,
				      "R-feature: incompat, got 0x%" PRIx64 ", want 0x%" PRIx64,
				      idx->incompat, w.features);
	return 0;
}

int ckf_decode_refs(struct ckf_decoder *d)
{
	const ckf_le32 *disk = ckf_decoder_part(d, CKF_SECTION_REFS);
	struct ckf_index *idx = d->idx;

	idx->refs = ckf_decoder_alloc(d, CKF_SECTION_REFS, sizeof(*idx->refs));
	if (!idx->refs)
		return -ENOMEM;
	idx->nr_refs = d->part[CKF_SECTION_REFS].count;
	for (uint64_t i = 0; i < idx->nr_refs; i++) {
		idx->refs[i] = ckf_get32(disk[i]);
		if (idx->refs[i] >= idx->nr_chunks)
			return ckf_entry_bad(d, CKF_SECTION_REFS, i,
					     "R-ref: chunk, got %u, want below %" PRIu64,
					     idx->refs[i], idx->nr_chunks);
	}
	return 0;
}

/* What the files before the current one say about it. */
struct file_walk {
	const char *strings; /* the section, on disk */
	const char *prev;    /* name of the file before, in strings; NULL: none */
	size_t prev_len;
	uint64_t next_ref;
	uint64_t names_bytes; /* all names and link targets, with terminators */
	uint64_t features;    /* of the kinds of files so far */
};

bool ckf_in_strings(const struct ckf_decoder *d, uint64_t off, uint64_t len)
{
	const uint64_t count = d->part[CKF_SECTION_STRINGS].count;

	return off <= count && len <= count - off;
}

static int check_file_name(const struct ckf_decoder *d, uint64_t i,
			   const struct ckf_disk_file *disk, struct file_walk *w)
{
	const uint64_t off = ckf_get64(disk->name_off);
	const uint16_t len = ckf_get16(disk->name_len);
	const char *name;
	int cmp;

	if (len < 1 || len > CKF_MAX_NAME_BYTES)
		return file_bad(d, i, "R-file: name_len, got %u, want 1 to %u", len,
				CKF_MAX_NAME_BYTES);
	if (!ckf_in_strings(d, off, len))
		return file_bad(d, i,
				"R-file: name, got %u bytes at %" PRIu64
				", want an end at most %" PRIu64,
				len, off, d->part[CKF_SECTION_STRINGS].count);
	name = w->strings + off;
	if (!ckf_name_ok(name, len))
		return file_bad(d, i, "R-file: name, got '%.*s', want one that a file may have",
				len, name);
	if (w->prev) {
		cmp = memcmp(w->prev, name, len < w->prev_len ? len : w->prev_len);
		if (cmp > 0 || (!cmp && w->prev_len >= len))
			return file_bad(d, i, "R-file: name, got '%.*s', want above '%.*s'", len,
					name, (int)w->prev_len, w->prev);
	}
	w->prev = name;
	w->prev_len = len;
	w->names_bytes += len + 1u;
	return 0;
}

static int check_file_link(const struct ckf_decoder *d, uint64_t i,
			   const struct ckf_disk_file *disk, struct file_walk *w)
{
	const struct ckf_file *f = &d->idx->files[i];
	const uint64_t off = ckf_get64(disk->target_off);
	const uint16_t len = ckf_get16(disk->target_len);
	uint64_t sum;

	if (f->kind != CKF_FILE_SYMLINK) {
		if ((off && f->kind != CKF_FILE_HEADED_PAGES) || len)
			return file_bad(d, i,
					"R-file: link target of a regular file, got %u bytes "
					"at %" PRIu64 ", want 0 at 0",
					len, off);
		return 0;
	}
	if (len < 1 || len > CKF_MAX_LINK_BYTES)
		return file_bad(d, i, "R-file: target_len, got %u, want 1 to %u", len,
				CKF_MAX_LINK_BYTES);
	if (!ckf_in_strings(d, off, len))
		return file_bad(d, i,
				"R-file: link target, got %u bytes at %" PRIu64
				", want an end at most %" PRIu64,
				len, off, d->part[CKF_SECTION_STRINGS].count);
	if (memchr(w->strings + off, '\0', len))
		return file_bad(d, i, "R-file: link target, got a byte 0, want none");
	if (f->size_bytes != len)
		return file_bad(d, i, "R-file: size_bytes of a link, got %" PRIu64 ", want %u",
				f->size_bytes, len);
	sum = ckf_hash64(w->strings + off, len);
	if (f->checksum != sum)
		return file_bad(d, i,
				"R-file: checksum of a link, got 0x%" PRIx64 ", want 0x%" PRIx64,
				f->checksum, sum);
	w->names_bytes += len + 1u;
	return 0;
}

static int check_file_refs(const struct ckf_decoder *d, uint64_t i, struct file_walk *w)
{
	const struct ckf_index *idx = d->idx;
	const struct ckf_file *f = &idx->files[i];
	uint64_t bytes = ckf_file_head_bytes(f);

	if (!ckf_file_has_pages(f)) {
		if (f->first_ref || f->nr_refs)
			return file_bad(d, i,
					"R-file: refs of a file without pages, got %" PRIu64
					" at %" PRIu64 ", want 0 at 0",
					f->nr_refs, f->first_ref);
		return 0;
	}
	if (f->first_ref != w->next_ref)
		return file_bad(d, i, "R-file: first_ref, got %" PRIu64 ", want %" PRIu64,
				f->first_ref, w->next_ref);
	if (f->nr_refs > idx->nr_refs - w->next_ref)
		return file_bad(d, i, "R-file: nr_refs, got %" PRIu64 ", want at most %" PRIu64,
				f->nr_refs, idx->nr_refs - w->next_ref);
	w->next_ref += f->nr_refs;
	for (uint64_t r = f->first_ref; r < w->next_ref; r++) {
		const uint16_t nr_pages = idx->chunks[idx->refs[r]].nr_pages;

		if (ckf_add_overflow(bytes, ckf_pages_to_bytes(nr_pages), &bytes))
			return file_bad(d, i,
					"R-file: sum of the chunks, got above 2^64, want less");
	}
	if (f->kind == CKF_FILE_CUT_PAGES && f->size_bytes <= bytes &&
	    bytes - f->size_bytes < CKF_PAGE_BYTES)
		return 0;
	if (f->size_bytes != bytes)
		return file_bad(d, i, "R-file: size_bytes, got %" PRIu64 ", want %" PRIu64,
				f->size_bytes, bytes);
	return 0;
}

static int check_file(const struct ckf_decoder *d, uint64_t i, const struct ckf_disk_file *disk,
		      struct file_walk *w)
{
	const struct ckf_file *f = &d->idx->files[i];
	int ret;

	if (f->kind < CKF_FILE_VERBATIM || f->kind > CKF_FILE_CUT_PAGES)
		return file_bad(d, i, "R-file: kind, got %u, want 1 to %u", f->kind,
				CKF_FILE_CUT_PAGES);
	w->features |= ckf_file_features(f);
	if (!ckf_bytes_zero(disk->reserved, sizeof(disk->reserved)))
		return file_bad(d, i, "R-reserved: reserved bytes, got others than 0, want 0");
	if (f->mtime_nsec >= NSEC_PER_SEC)
		return file_bad(d, i, "R-file: mtime_nsec, got %u, want below %u", f->mtime_nsec,
				NSEC_PER_SEC);
	if (f->mode > 07777)
		return file_bad(d, i, "R-file: mode, got 0%o, want at most 07777", f->mode);
	ret = check_file_name(d, i, disk, w);
	if (!ret)
		ret = check_file_link(d, i, disk, w);
	if (!ret)
		ret = check_file_refs(d, i, w);
	return ret;
}

const char *ckf_copy_string(char **to, const char *from, size_t len)
{
	char *s = *to;

	memcpy(s, from, len);
	s[len] = '\0';
	*to += len + 1;
	return s;
}

/* Names get their terminators: parts of section strings may overlap, so they are copied. */
static int copy_names(struct ckf_decoder *d, const struct ckf_disk_file *disk,
		      const struct file_walk *w)
{
	struct ckf_index *idx = d->idx;
	char *to;

	idx->strings = malloc(w->names_bytes + 1);
	if (!idx->strings)
		return ckf_error_set(d->err, -ENOMEM, "no memory for %" PRIu64 " bytes of names",
				     w->names_bytes);
	to = idx->strings;
	for (uint64_t i = 0; i < idx->nr_files; i++) {
		struct ckf_file *f = &idx->files[i];

		f->name = ckf_copy_string(&to, w->strings + ckf_get64(disk[i].name_off),
					  ckf_get16(disk[i].name_len));
		if (f->kind == CKF_FILE_SYMLINK)
			f->target = ckf_copy_string(&to, w->strings + ckf_get64(disk[i].target_off),
						    ckf_get16(disk[i].target_len));
	}
	return 0;
}

static int check_file_features(const struct ckf_decoder *d, const struct file_walk *w)
{
	const uint64_t wrong = (d->idx->incompat ^ w->features) & CKF_INCOMPAT_FILE_KINDS;

	if (wrong) {
		int bit = __builtin_ctzll(wrong);

		return ckf_error_rule(d->err, -EBADMSG, "header", -1, 0,
				      "R-feature: incompat, got 0x%" PRIx64 ", want bit %d %s",
				      d->idx->incompat, bit,
				      w->features >> bit & 1 ? "set" : "clear");
	}
	if (!d->idx->page_sums || ckf_has_pages_file(d->idx))
		return 0;
	return ckf_error_rule(d->err, -EBADMSG, "header", -1, 0,
			      "R-feature: incompat, got 0x%" PRIx64 ", want bit 6 clear",
			      d->idx->incompat);
}

int ckf_decode_files(struct ckf_decoder *d)
{
	const struct ckf_disk_file *disk = ckf_decoder_part(d, CKF_SECTION_FILES);
	struct file_walk w = { .strings = ckf_decoder_part(d, CKF_SECTION_STRINGS) };
	struct ckf_index *idx = d->idx;
	int ret;

	idx->files = ckf_decoder_alloc(d, CKF_SECTION_FILES, sizeof(*idx->files));
	if (!idx->files)
		return -ENOMEM;
	idx->nr_files = d->part[CKF_SECTION_FILES].count;
	for (uint64_t i = 0; i < idx->nr_files; i++) {
		idx->files[i] = (struct ckf_file){
			.size_bytes = ckf_get64(disk[i].size_bytes),
			.checksum = ckf_get64(disk[i].checksum),
			.mtime_sec = (int64_t)ckf_get64(disk[i].mtime_sec),
			.mtime_nsec = ckf_get32(disk[i].mtime_nsec),
			.mode = ckf_get32(disk[i].mode),
			.uid = ckf_get32(disk[i].uid),
			.gid = ckf_get32(disk[i].gid),
			.first_ref = ckf_get64(disk[i].first_ref),
			.nr_refs = ckf_get64(disk[i].nr_refs),
			.kind = disk[i].kind,
		};
		if (disk[i].kind == CKF_FILE_HEADED_PAGES)
			idx->files[i].head = ckf_get64(disk[i].target_off);
		ret = check_file(d, i, &disk[i], &w);
		if (ret)
			return ret;
	}
	if (w.next_ref != idx->nr_refs)
		return ckf_entry_bad(d, CKF_SECTION_REFS, w.next_ref,
				     "R-file: end of the last file, got %" PRIu64 ", want %" PRIu64,
				     w.next_ref, idx->nr_refs);
	ret = check_file_features(d, &w);
	return ret ? ret : copy_names(d, disk, &w);
}
