/* SPDX-License-Identifier: MIT */
/*
 * Every rule of SPEC.md that an index shows by itself, broken on purpose.
 *
 * A case changes fields of the sample image (img_builder.c draws it), makes the checksums right
 * again, and names the exact class, place and reason that the decoder has to report.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "img_builder.h"

/* Places in an encoded index; the sections have their type numbers. */
enum place {
	HEADER = 0,
	STRINGS,
	CHUNKS,
	REFS,
	FILES,
	TARGETS,
	OPS,
	LANES,
	HUGE,
	TABLE,
};

static const struct {
	const char *name;
	uint32_t entry_bytes;
} places[] = {
	[HEADER] = { "header", 0 },   [STRINGS] = { "strings", 1 }, [CHUNKS] = { "chunks", 24 },
	[REFS] = { "refs", 4 },	      [FILES] = { "files", 88 },    [TARGETS] = { "targets", 56 },
	[OPS] = { "ops", 16 },	      [LANES] = { "lanes", 40 },    [HUGE] = { "huge", 16 },
	[TABLE] = { "sections", 32 },
};

/* One field gets another value. */
struct edit {
	enum place place;
	uint32_t i;
	size_t off;
	size_t width; /* 0: no more edits */
	uint64_t value;
};

#define SET(place, disk, i, field, value)                                                        \
	{                                                                                        \
		place, i, offsetof(struct disk, field), sizeof(((struct disk *)0)->field), value \
	}
#define HEAD(field, value) SET(HEADER, ckf_disk_header, 0, field, value)
#define SECT(i, field, value) SET(TABLE, ckf_disk_section, i, field, value)
#define CHUNK(i, field, value) SET(CHUNKS, ckf_disk_chunk, i, field, value)
#define REF(i, value)                \
	{                            \
		REFS, i, 0, 4, value \
	}
#define STRING(i, value)                \
	{                               \
		STRINGS, i, 0, 1, value \
	}
#define FILE_(i, field, value) SET(FILES, ckf_disk_file, i, field, value)
#define TARGET(i, field, value) SET(TARGETS, ckf_disk_target, i, field, value)
#define OP(i, field, value) SET(OPS, ckf_disk_op, i, field, value)
#define LANE(i, field, value) SET(LANES, ckf_disk_lane, i, field, value)
#define RANGE(i, field, value) SET(HUGE, ckf_disk_huge, i, field, value)

/* What is made right again after the edits. */
enum fix {
	FIX_ALL = 0,
	FIX_ID_AND_HEADER,
	FIX_HEADER,
	FIX_NONE,
};

struct corruption {
	struct edit edits[4];
	enum place place; /* of the error */
	int64_t i;	  /* -1: no entry */
	const char *reason;
	enum fix fix;
	bool unsupported;
};

#define BAD(place_, i_, reason_) .place = place_, .i = i_, .reason = reason_
#define UNSUPPORTED(place_, i_, reason_) BAD(place_, i_, reason_), .unsupported = true

#define MIB (1ull << 20)
#define ALL_ONES UINT64_MAX

static const struct corruption header_cases[] = {
	{ { HEAD(magic[0], 'X') }, BAD(HEADER, -1, "R-magic: magic, got XKFASTIX, want CKFASTIX") },
	{ { HEAD(version_major, 2) }, UNSUPPORTED(HEADER, -1, "R-version: version_major, got 2") },
	{ { HEAD(version_major, 2) }, UNSUPPORTED(HEADER, -1, "R-version"), .fix = FIX_NONE },
	{ { HEAD(version_major, 65535) }, UNSUPPORTED(HEADER, -1, "R-version") },
	{ { HEAD(version_major, 2), HEAD(header_bytes, 256), HEAD(nr_sections, 70) },
	  UNSUPPORTED(HEADER, -1, "R-version"),
	  .fix = FIX_NONE },
	{ { HEAD(version_major, 0) }, BAD(HEADER, -1, "R-version: version_major, got 0, want 1") },
	{ { HEAD(header_bytes, 127) },
	  BAD(HEADER, -1, "R-header: header_bytes, got 127, want 128") },
	{ { HEAD(header_bytes, 0) }, BAD(HEADER, -1, "R-header") },
	{ { HEAD(idx_bytes, 0) }, BAD(HEADER, -1, "R-length: idx_bytes, got 0") },
	{ { HEAD(idx_bytes, ALL_ONES) }, BAD(HEADER, -1, "R-length: idx_bytes, got 1844") },
	{ { HEAD(incompat, 1ull << 40 | 3) },
	  UNSUPPORTED(HEADER, -1, "R-feature: incompat, got 0x10000000003") },
	{ { HEAD(incompat, 1ull << 63 | 3) }, UNSUPPORTED(HEADER, -1, "R-feature: incompat") },
	{ { HEAD(incompat, 1ull << 40), HEAD(extent_bytes, 0), CHUNK(2, codec, 9) },
	  UNSUPPORTED(HEADER, -1, "R-feature: incompat") },
	{ { HEAD(incompat, 4 | 3) }, BAD(HEADER, -1, "R-feature: incompat, got 0x7, want 0x3") },
	{ { HEAD(incompat, 2) }, BAD(HEADER, -1, "R-feature: incompat, got 0x2, want 0x3") },
	{ { HEAD(incompat, 1) }, BAD(HEADER, -1, "R-feature: incompat, got 0x1, want 0x3") },
	{ { HEAD(incompat, 0) }, BAD(HEADER, -1, "R-feature: incompat, got 0x0, want 0x3") },
	{ { HEAD(image_id[0], 0x100) }, BAD(HEADER, -1, "R-id: image_id"), .fix = FIX_HEADER },
	{ { HEAD(image_id[15], 0x100) }, BAD(HEADER, -1, "R-id: image_id"), .fix = FIX_HEADER },
	{ { HEAD(pack_bytes, 0) }, BAD(HEADER, -1, "R-pack: pack_bytes, got 0, want a multiple") },
	{ { HEAD(pack_bytes, 4095) }, BAD(HEADER, -1, "R-pack: pack_bytes") },
	{ { HEAD(pack_bytes, 64 * MIB + 1) }, BAD(HEADER, -1, "R-pack: pack_bytes") },
	{ { HEAD(page_bytes, 8192) }, UNSUPPORTED(HEADER, -1, "R-header: page_bytes, got 8192") },
	{ { HEAD(page_bytes, 0) }, UNSUPPORTED(HEADER, -1, "R-header: page_bytes") },
	{ { HEAD(extent_bytes, 0) },
	  BAD(HEADER, -1, "R-extent: extent_bytes, got 0, want 4, 8 or") },
	{ { HEAD(extent_bytes, 2 * MIB) }, BAD(HEADER, -1, "R-extent") },
	{ { HEAD(extent_bytes, 5 * MIB) }, BAD(HEADER, -1, "R-extent") },
	{ { HEAD(extent_bytes, 12 * MIB) }, BAD(HEADER, -1, "R-extent") },
	{ { HEAD(extent_bytes, 32 * MIB) }, BAD(HEADER, -1, "R-extent") },
	{ { HEAD(nr_sections, 0) },
	  BAD(HEADER, -1, "R-sections: nr_sections, got 0, want 1 to 64") },
	{ { HEAD(nr_sections, 65) }, BAD(HEADER, -1, "R-sections: nr_sections, got 65") },
	{ { HEAD(nr_sections, UINT32_MAX) }, BAD(HEADER, -1, "R-sections: nr_sections") },
	{ { HEAD(nr_sections, 7) }, BAD(TABLE, 0, "R-padding: bytes before the section") },
	{ { HEAD(max_chunk_pages, 0) },
	  BAD(HEADER, -1, "R-chunk: max_chunk_pages, got 0, want 1 to") },
	{ { HEAD(max_chunk_pages, 1025) }, BAD(HEADER, -1, "R-chunk: max_chunk_pages, got 1025") },
	{ { HEAD(reserved[0], 1) }, BAD(HEADER, -1, "R-reserved") },
	{ { HEAD(reserved[39], 0x80) }, BAD(HEADER, -1, "R-reserved") },
	{ { HEAD(checksum, 0) },
	  BAD(HEADER, -1, "R-checksum: checksum, got 0x0, want 0x"),
	  .fix = FIX_NONE },
	{ { HEAD(compat, 1) }, BAD(HEADER, -1, "R-checksum"), .fix = FIX_NONE },
	{ { SECT(7, checksum, 0) }, BAD(HEADER, -1, "R-checksum"), .fix = FIX_NONE },
};

static const struct corruption table_cases[] = {
	{ { SECT(7, type, 10) }, UNSUPPORTED(TABLE, 7, "R-sections: type, got 10, want 1 to 9") },
	{ { SECT(7, type, 0x7fffffff) }, UNSUPPORTED(TABLE, 7, "R-sections: type") },
	{ { SECT(0, type, 0) }, UNSUPPORTED(TABLE, 0, "R-sections: type, got 0") },
	{ { SECT(1, type, 1) }, BAD(TABLE, 1, "R-sections: type, got 1, want above 1") },
	{ { SECT(1, type, 3), SECT(2, type, 2) }, BAD(TABLE, 1, "R-sections: entry_bytes") },
	{ { SECT(2, type, 1) }, BAD(TABLE, 2, "R-sections: type, got 1, want above 2") },
	{ { SECT(7, type, 0x80000000) }, BAD(HEADER, -1, "R-sections: section huge, got none") },
	{ { SECT(0, entry_bytes, 2) }, BAD(TABLE, 0, "R-sections: entry_bytes, got 2, want 1") },
	{ { SECT(1, entry_bytes, 25) }, BAD(TABLE, 1, "R-sections: entry_bytes, got 25, want 24") },
	{ { SECT(2, entry_bytes, 0) }, BAD(TABLE, 2, "R-sections: entry_bytes, got 0, want 4") },
	{ { SECT(3, entry_bytes, 87) }, BAD(TABLE, 3, "R-sections: entry_bytes, got 87, want 88") },
	{ { SECT(4, entry_bytes, 57) }, BAD(TABLE, 4, "R-sections: entry_bytes, got 57, want 56") },
	{ { SECT(5, entry_bytes, 17) }, BAD(TABLE, 5, "R-sections: entry_bytes, got 17, want 16") },
	{ { SECT(6, entry_bytes, 41) }, BAD(TABLE, 6, "R-sections: entry_bytes, got 41, want 40") },
	{ { SECT(7, entry_bytes, 15) }, BAD(TABLE, 7, "R-sections: entry_bytes, got 15, want 16") },
	{ { SECT(0, offset, 0) }, BAD(TABLE, 0, "R-sections: offset, got 0, want 384") },
	{ { SECT(0, offset, 385) }, BAD(TABLE, 0, "R-sections: offset, got 385, want 384") },
	{ { SECT(0, offset, 448) }, BAD(TABLE, 0, "R-sections: offset, got 448, want 384") },
	{ { SECT(5, offset, ALL_ONES) }, BAD(TABLE, 5, "R-sections: offset") },
	{ { SECT(0, count, ALL_ONES) }, BAD(TABLE, 0, "R-sections: count, got 1844") },
	{ { SECT(0, count, 1ull << 40) },
	  BAD(TABLE, 0, "R-sections: count, got 1099511627776 entr") },
	{ { SECT(5, count, 1ull << 60) },
	  BAD(TABLE, 5, "R-sections: count, got 1152921504606846976") },
	{ { SECT(5, count, (1ull << 60) + 12) }, BAD(TABLE, 5, "R-sections: count") },
	{ { SECT(2, count, 1ull << 62) }, BAD(TABLE, 2, "R-sections: count") },
	{ { SECT(7, count, 4) }, BAD(TABLE, 7, "R-sections: count, got 4 entries of 16 bytes") },
	{ { SECT(1, count, 1ull << 32) },
	  BAD(TABLE, 1, "R-sections: count, got 4294967296, want at") },
	{ { SECT(3, count, 1ull << 32) },
	  BAD(TABLE, 3, "R-sections: count, got 4294967296, want at") },
	{ { SECT(4, count, 1ull << 32) },
	  BAD(TABLE, 4, "R-sections: count, got 4294967296, want at") },
	{ { SECT(6, count, 1ull << 32) },
	  BAD(TABLE, 6, "R-sections: count, got 4294967296, want at") },
	{ { SECT(1, count, UINT32_MAX) },
	  BAD(TABLE, 1, "R-sections: count, got 4294967295 entries") },
	{ { SECT(7, count, 2) }, BAD(HEADER, -1, "R-sections: end of the last section") },
	{ { SECT(2, count, 3) }, BAD(TABLE, 3, "R-padding: bytes before the section") },
	{ { SECT(0, checksum, 0) },
	  BAD(TABLE, 0, "R-checksum: checksum, got 0x0"),
	  .fix = FIX_ID_AND_HEADER },
	{ { SECT(4, checksum, 1) },
	  BAD(TABLE, 4, "R-checksum: checksum, got 0x1"),
	  .fix = FIX_ID_AND_HEADER },
	{ { CHUNK(2, checksum, 1) }, BAD(TABLE, 1, "R-checksum"), .fix = FIX_ID_AND_HEADER },
	{ { RANGE(2, target, 3) }, BAD(TABLE, 7, "R-checksum"), .fix = FIX_NONE },
};

static const struct corruption chunk_cases[] = {
	{ { CHUNK(2, codec, 5) }, UNSUPPORTED(CHUNKS, 2, "R-chunk: codec, got 5, want at most 4") },
	{ { CHUNK(0, codec, 255), CHUNK(0, nr_pages, 0), CHUNK(0, base, 1) },
	  UNSUPPORTED(CHUNKS, 0, "R-chunk: codec") },
	{ { CHUNK(2, base, 1) }, BAD(CHUNKS, 2, "R-chunk: base, got 1, want at most 0") },
	{ { CHUNK(1, base, 1) }, BAD(CHUNKS, 1, "R-chunk: base of a zero chunk, got 1, want 0") },
	{ { CHUNK(2, nr_pages, 0) }, BAD(CHUNKS, 2, "R-chunk: nr_pages, got 0, want 1 to 512") },
	{ { CHUNK(2, nr_pages, 513) },
	  BAD(CHUNKS, 2, "R-chunk: nr_pages, got 513, want 1 to 512") },
	{ { HEAD(max_chunk_pages, 511) },
	  BAD(CHUNKS, 5, "R-chunk: nr_pages, got 512, want 1 to 511") },
	{ { CHUNK(1, nr_pages, 1) },
	  BAD(CHUNKS, 1, "R-chunk: nr_pages of a zero chunk, got 1, want") },
	{ { CHUNK(0, nr_pages, 3) }, BAD(CHUNKS, 0, "R-chunk: checksum of zeros") },
	{ { CHUNK(0, pack_off, 4096) }, BAD(CHUNKS, 0, "R-chunk: place of a zero chunk") },
	{ { CHUNK(0, stored_bytes, 1) },
	  BAD(CHUNKS, 0, "R-chunk: place of a zero chunk, got 1 bytes") },
	{ { CHUNK(1, checksum, 0) },
	  BAD(CHUNKS, 1, "R-chunk: checksum of zeros, got 0x0, want 0x") },
	{ { CHUNK(3, codec, 0) }, BAD(CHUNKS, 3, "R-chunk: codec, got zero after a stored chunk") },
	{ { CHUNK(2, stored_bytes, 16383) },
	  BAD(CHUNKS, 2, "R-chunk: stored_bytes of a raw chunk") },
	{ { CHUNK(2, stored_bytes, 16385) },
	  BAD(CHUNKS, 2, "R-chunk: stored_bytes of a raw chunk") },
	{ { CHUNK(3, stored_bytes, 0) },
	  BAD(CHUNKS, 3, "R-chunk: stored_bytes, got 0, want 1 to") },
	{ { CHUNK(3, stored_bytes, 32768) }, BAD(CHUNKS, 3, "R-chunk: stored_bytes, got 32768") },
	{ { CHUNK(4, stored_bytes, 0) },
	  BAD(CHUNKS, 4, "R-chunk: stored_bytes, got 0, want 1 to") },
	{ { CHUNK(4, stored_bytes, UINT32_MAX) },
	  BAD(CHUNKS, 4, "R-chunk: stored_bytes, got 4294") },
	{ { CHUNK(2, pack_off, 4097) },
	  BAD(CHUNKS, 2, "R-chunk: pack_off of a raw chunk, got 4097, want a multiple") },
	{ { CHUNK(2, pack_off, 4097), HEAD(incompat, 0x23) },
	  BAD(CHUNKS, 2, "R-chunk: pack_off of a raw chunk") },
	{ { CHUNK(2, pack_off, 0) },
	  BAD(CHUNKS, 2, "R-chunk: pack_off, got 0, want at least 4096") },
	{ { CHUNK(3, pack_off, 16384) },
	  BAD(CHUNKS, 3, "R-chunk: pack_off, got 16384, want at least") },
	{ { CHUNK(3, pack_off, 20479), HEAD(incompat, 0x23) },
	  BAD(CHUNKS, 3, "R-chunk: pack_off, got 20479, want at least 20480") },
	{ { CHUNK(3, pack_off, 4095), HEAD(incompat, 0x23) },
	  BAD(CHUNKS, 3, "R-chunk: pack_off, got 4095, want at least") },
	{ { CHUNK(3, pack_off, 20481) },
	  BAD(HEADER, -1, "R-feature: incompat, got 0x3, want 0x23") },
	{ { HEAD(incompat, 0x23) }, BAD(HEADER, -1, "R-feature: incompat, got 0x23, want 0x3") },
	{ { CHUNK(3, pack_off, 3 * MIB) }, BAD(CHUNKS, 4, "R-chunk: pack_off") },
	{ { CHUNK(6, pack_off, 1ull << 40) },
	  BAD(CHUNKS, 6, "R-chunk: end, got 2097152 bytes at 1099") },
	{ { CHUNK(6, pack_off, ALL_ONES - 4095) }, BAD(CHUNKS, 6, "R-chunk: end") },
	{ { HEAD(pack_bytes, 4096) }, BAD(CHUNKS, 2, "R-chunk: end, got 16384 bytes at 4096") },
	{ { HEAD(pack_bytes, 6 * MIB - 4096) }, BAD(CHUNKS, 6, "R-chunk: end") },
	{ { CHUNK(6, pack_off, 4 * MIB - 4096) }, BAD(CHUNKS, 6, "R-chunk: place") },
	{ { CHUNK(4, codec, 2) }, BAD(HEADER, -1, "R-feature: incompat, got 0x3, want 0x1") },
	{ { CHUNK(3, codec, 3) }, BAD(HEADER, -1, "R-feature: incompat, got 0x3, want 0x2") },
	{ { REF(0, 7) }, BAD(REFS, 0, "R-ref: chunk, got 7, want below 7") },
	{ { REF(3, UINT32_MAX) }, BAD(REFS, 3, "R-ref: chunk, got 4294967295, want below 7") },
};

static const struct corruption file_cases[] = {
	{ { FILE_(0, kind, 0) }, BAD(FILES, 0, "R-file: kind, got 0, want 1 to 6") },
	{ { FILE_(6, kind, 7) }, BAD(FILES, 6, "R-file: kind, got 7, want 1 to 6") },
	{ { FILE_(0, reserved[0], 1) }, BAD(FILES, 0, "R-reserved") },
	{ { FILE_(6, reserved[10], 1) }, BAD(FILES, 6, "R-reserved") },
	{ { FILE_(1, mtime_nsec, 1000000000) },
	  BAD(FILES, 1, "R-file: mtime_nsec, got 1000000000") },
	{ { FILE_(1, mode, 010000) },
	  BAD(FILES, 1, "R-file: mode, got 010000, want at most 07777") },
	{ { FILE_(1, mode, 0100644) }, BAD(FILES, 1, "R-file: mode") },
	{ { FILE_(0, name_len, 0) }, BAD(FILES, 0, "R-file: name_len, got 0, want 1 to 255") },
	{ { FILE_(0, name_len, 256) }, BAD(FILES, 0, "R-file: name_len, got 256, want 1 to 255") },
	{ { FILE_(0, name_len, 255) },
	  BAD(FILES, 0, "R-file: name, got 255 bytes at 0, want an end") },
	{ { FILE_(6, name_off, 87) }, BAD(FILES, 6, "R-file: name, got 6 bytes at 87") },
	{ { FILE_(0, name_off, 1ull << 40) }, BAD(FILES, 0, "R-file: name, got 13 bytes at 1099") },
	{ { FILE_(0, name_off, ALL_ONES) }, BAD(FILES, 0, "R-file: name, got 13 bytes at 1844") },
	{ { STRING(3, '/') }, BAD(FILES, 0, "R-file: name, got 'inv/ntory.img', want one that") },
	{ { STRING(0, '/') }, BAD(FILES, 0, "R-file: name, got '/nventory.img'") },
	{ { STRING(25, 0) }, BAD(FILES, 1, "R-file: name, got 'pagemap-1.im', want one that") },
	{ { STRING(0, '.'), FILE_(0, name_len, 1) },
	  BAD(FILES, 0, "R-file: name, got '.', want one") },
	{ { STRING(0, '.'), STRING(1, '.'), FILE_(0, name_len, 2) },
	  BAD(FILES, 0, "R-file: name, got '..', want one") },
	{ { STRING(0, 'q') }, BAD(FILES, 1, "R-file: name, got 'pagemap-1.img', want above 'qnv") },
	{ { FILE_(2, name_off, 13) },
	  BAD(FILES, 2, "R-file: name, got 'pagemap-1.img', want above") },
	{ { FILE_(2, name_off, 13), FILE_(2, name_len, 12) },
	  BAD(FILES, 2, "R-file: name, got 'pagemap-1.im', want above 'pagemap-1.img'") },
	{ { STRING(0, 0x80) }, BAD(FILES, 1, "R-file: name, got 'pagemap-1.img', want above") },
	{ { FILE_(0, target_off, 1) }, BAD(FILES, 0, "R-file: link target of a regular file") },
	{ { FILE_(4, target_len, 1) },
	  BAD(FILES, 4, "R-file: link target of a regular file, got 1 b") },
	{ { FILE_(6, target_len, 0) }, BAD(FILES, 6, "R-file: target_len, got 0, want 1 to 4095") },
	{ { FILE_(6, target_len, 4096) }, BAD(FILES, 6, "R-file: target_len, got 4096") },
	{ { FILE_(6, target_len, 7) }, BAD(FILES, 6, "R-file: link target, got 7 bytes at 86") },
	{ { FILE_(6, target_off, ALL_ONES) },
	  BAD(FILES, 6, "R-file: link target, got 6 bytes at 1844") },
	{ { STRING(91, 0) }, BAD(FILES, 6, "R-file: link target, got a byte 0") },
	{ { FILE_(6, size_bytes, 5) },
	  BAD(FILES, 6, "R-file: size_bytes of a link, got 5, want 6") },
	{ { STRING(91, 'E') }, BAD(FILES, 6, "R-file: checksum of a link") },
	{ { FILE_(6, checksum, 0) }, BAD(FILES, 6, "R-file: checksum of a link, got 0x0") },
	{ { FILE_(0, first_ref, 1) },
	  BAD(FILES, 0, "R-file: refs of a file without pages, got 0 at 1") },
	{ { FILE_(6, nr_refs, 1) },
	  BAD(FILES, 6, "R-file: refs of a file without pages, got 1 at 0") },
	{ { FILE_(4, first_ref, 1) }, BAD(FILES, 4, "R-file: first_ref, got 1, want 0") },
	{ { FILE_(5, first_ref, 2) }, BAD(FILES, 5, "R-file: first_ref, got 2, want 3") },
	{ { FILE_(5, nr_refs, 2) }, BAD(FILES, 5, "R-file: nr_refs, got 2, want at most 1") },
	{ { FILE_(4, nr_refs, ALL_ONES) }, BAD(FILES, 4, "R-file: nr_refs, got 1844") },
	{ { FILE_(5, nr_refs, 0), FILE_(5, size_bytes, 0) },
	  BAD(REFS, 3, "R-file: end of the last file, got 3, want 4") },
	{ { FILE_(4, size_bytes, 0) }, BAD(FILES, 4, "R-file: size_bytes, got 0, want 61440") },
	{ { HEAD(incompat, 0x83), FILE_(4, kind, 4) },
	  BAD(FILES, 4, "R-file: size_bytes, got 61440, want 61448") },
	{ { FILE_(4, kind, 4), FILE_(4, size_bytes, 61448) },
	  BAD(HEADER, -1, "R-feature: incompat, got 0x3, want bit 7 set") },
	{ { HEAD(incompat, 0x83) },
	  BAD(HEADER, -1, "R-feature: incompat, got 0x83, want bit 7 clear") },
	{ { HEAD(incompat, 0x103), FILE_(4, kind, 5) },
	  BAD(FILES, 4, "R-file: size_bytes, got 61440, want 61448") },
	{ { HEAD(incompat, 0x103), FILE_(4, kind, 5), FILE_(4, target_len, 8) },
	  BAD(FILES, 4, "R-file: link target of a regular file, got 8 b") },
	{ { FILE_(4, kind, 5), FILE_(4, size_bytes, 61448) },
	  BAD(HEADER, -1, "R-feature: incompat, got 0x3, want bit 8 set") },
	{ { HEAD(incompat, 0x103) },
	  BAD(HEADER, -1, "R-feature: incompat, got 0x103, want bit 8 clear") },
	{ { HEAD(incompat, 0x183), FILE_(4, kind, 5), FILE_(4, size_bytes, 61448) },
	  BAD(HEADER, -1, "R-feature: incompat, got 0x183, want bit 7 clear") },
	{ { FILE_(4, kind, 6), FILE_(4, size_bytes, 61439) },
	  BAD(HEADER, -1, "R-feature: incompat, got 0x3, want bit 9 set") },
	{ { HEAD(incompat, 0x203) },
	  BAD(HEADER, -1, "R-feature: incompat, got 0x203, want bit 9 clear") },
	{ { HEAD(incompat, 0x203), FILE_(4, kind, 6), FILE_(4, size_bytes, 57344) },
	  BAD(FILES, 4, "R-file: size_bytes, got 57344, want 61440") },
	{ { HEAD(incompat, 0x203), FILE_(4, kind, 6), FILE_(4, size_bytes, 61441) },
	  BAD(FILES, 4, "R-file: size_bytes, got 61441, want 61440") },
	{ { HEAD(incompat, 0x203), FILE_(4, kind, 6), FILE_(4, target_off, 8) },
	  BAD(FILES, 4, "R-file: link target of a regular file, got 0 b") },
	{ { REF(0, 6) }, BAD(FILES, 4, "R-file: size_bytes, got 61440, want 2142208") },
};

static const struct corruption target_cases[] = {
	{ { TARGET(3, kind, 4) }, UNSUPPORTED(TARGETS, 3, "R-target: kind, got 4, want 1 to 3") },
	{ { TARGET(3, kind, 3) }, BAD(HEADER, -1, "R-feature: incompat, got 0x3, want bit 4 set") },
	{ { HEAD(incompat, 0x13) },
	  BAD(HEADER, -1, "R-feature: incompat, got 0x13, want bit 4 clear") },
	{ { HEAD(incompat, 0x13), TARGET(3, kind, 3), TARGET(3, parent, 1) },
	  BAD(TARGETS, 3, "R-target: parent of a device target, got 1") },
	{ { TARGET(0, kind, 0), TARGET(0, reserved, 1) },
	  UNSUPPORTED(TARGETS, 0, "R-target: kind, got 0") },
	{ { TARGET(0, reserved, 1) },
	  BAD(TARGETS, 0, "R-reserved: reserved field, got 1, want 0") },
	{ { TARGET(1, id, 1) }, BAD(TARGETS, 1, "R-target: kind and id, got 1 1, want above 1 1") },
	{ { TARGET(1, id, 0) }, BAD(TARGETS, 1, "R-target: kind and id, got 1 0, want above 1 1") },
	{ { TARGET(2, kind, 2), TARGET(2, id, 5), TARGET(2, parent, 0) },
	  BAD(TARGETS, 3, "R-target: kind and id, got 2 5, want above 2 5") },
	{ { TARGET(1, kind, 2), TARGET(1, parent, 0) },
	  BAD(TARGETS, 2, "R-target: kind and id, got 1 3, want above 2 2") },
	{ { TARGET(0, first_op, 1) }, BAD(TARGETS, 0, "R-target: first_op, got 1, want 0") },
	{ { TARGET(1, first_op, 5) }, BAD(TARGETS, 1, "R-target: first_op, got 5, want 6") },
	{ { TARGET(3, nr_ops, 3) }, BAD(TARGETS, 3, "R-target: nr_ops, got 3, want at most 2") },
	{ { TARGET(0, nr_ops, ALL_ONES) }, BAD(TARGETS, 0, "R-target: nr_ops, got 1844") },
	{ { TARGET(3, nr_ops, 1) },
	  BAD(OPS, 11, "R-target: end of the last target, got 11, want 12") },
	{ { TARGET(1, first_lane, 1) }, BAD(TARGETS, 1, "R-target: first_lane, got 1, want 2") },
	{ { TARGET(2, nr_lanes, 1) }, BAD(TARGETS, 3, "R-target: first_lane, got 3, want 4") },
	{ { TARGET(3, nr_lanes, 2) },
	  BAD(TARGETS, 3, "R-target: nr_lanes, got 2, want at most 1") },
	{ { TARGET(3, nr_lanes, UINT32_MAX) }, BAD(TARGETS, 3, "R-target: nr_lanes") },
	{ { TARGET(3, nr_lanes, 0) },
	  BAD(LANES, 3, "R-target: end of the last target, got 3, want 4") },
	{ { TARGET(0, file, 7) }, BAD(TARGETS, 0, "R-target: file, got 7, want below 7") },
	{ { TARGET(0, file, 4) }, BAD(TARGETS, 0, "R-target: kind of the file, got 2, want 1") },
	{ { TARGET(3, file, 6) }, BAD(TARGETS, 3, "R-target: kind of the file, got 3, want 1") },
	{ { TARGET(3, parent, 1) }, BAD(TARGETS, 3, "R-target: parent of a shmem target, got 1") },
	{ { TARGET(0, parent, 5) }, BAD(TARGETS, 0, "R-target: parent, got 5, want at most 4") },
	{ { TARGET(0, parent, UINT32_MAX) }, BAD(TARGETS, 0, "R-target: parent, got 4294967295") },
	{ { TARGET(0, parent, 1) }, BAD(TARGETS, 0, "R-target: parent, got the target itself") },
	{ { TARGET(0, parent, 2) }, BAD(TARGETS, 0, "R-target: parent, got a circle of parents") },
	{ { TARGET(0, parent, 4) },
	  BAD(TARGETS, 0, "R-target: kind of the parent, got 2, want 1") },
	{ { TARGET(0, nr_pages, 0) }, BAD(TARGETS, 0, "R-target: nr_pages, got 0, want 1545") },
	{ { TARGET(2, nr_pages, 1) }, BAD(TARGETS, 2, "R-target: nr_pages, got 1, want 0") },
};

static const struct corruption op_cases[] = {
	{ { OP(0, chunk, 7) }, BAD(OPS, 0, "R-op: chunk, got 7, want below 7") },
	{ { OP(11, chunk, UINT32_MAX) },
	  BAD(OPS, 11, "R-op: chunk, got 4294967295, want below 7") },
	{ { OP(0, nr_pages, 0) }, BAD(OPS, 0, "R-op: nr_pages, got 0, want at least 1") },
	{ { OP(0, nr_pages, 5) }, BAD(OPS, 0, "R-op: end in the chunk, got 5, want at most 4") },
	{ { OP(0, first_page, 1) }, BAD(OPS, 0, "R-op: end in the chunk, got 5, want at most 4") },
	{ { OP(0, first_page, 65535), OP(0, nr_pages, 65535) },
	  BAD(OPS, 0, "R-op: end in the chunk, got 131070") },
	{ { OP(0, place, 0x10004) }, BAD(OPS, 0, "R-reserved: flags, got 0x4, want only 0x3") },
	{ { OP(0, place, 0x10800) }, BAD(OPS, 0, "R-reserved: flags, got 0x800") },
	{ { OP(1, place, 0x14002) },
	  BAD(OPS, 1, "R-op: codec with flag direct, got 2, want 0 or 1") },
	{ { HEAD(incompat, 0x13), TARGET(3, kind, 3), OP(11, place, 0x9002) },
	  BAD(OPS, 11, "R-gpu: flags of device memory, got 0x2, want 0") },
	{ { OP(10, place, 0x2) },
	  BAD(OPS, 10, "R-op: codec with flag direct, got 3, want 0 or 1") },
	{ { OP(0, place, 0x10001) },
	  BAD(OPS, 0, "R-op: flag inherit, got a target without parent") },
	{ { OP(10, place, 1) }, BAD(OPS, 10, "R-op: flag inherit, got a target without parent") },
	{ { OP(1, place, 0x13000) },
	  BAD(OPS, 1, "R-op: address, got 0x13000, want at least 0x14000") },
	{ { OP(1, place, 0) }, BAD(OPS, 1, "R-op: address, got 0x0, want at least 0x14000") },
	{ { OP(5, place, 0x7fffffffffe01000) },
	  BAD(OPS, 5, "R-op: address, got 512 pages at 0x7fff") },
	{ { OP(5, place, 1ull << 63) }, BAD(OPS, 5, "R-op: address, got 512 pages at 0x8000") },
	{ { OP(5, place, ALL_ONES << 12) }, BAD(OPS, 5, "R-op: address, got 512 pages at 0xffff") },
	{ { OP(6, first_page, 1) },
	  BAD(OPS, 6,
	      "R-op: flag inherit, got a parent with other pages at "
	      "0x10000, want the same") },
	{ { OP(6, chunk, 6) }, BAD(OPS, 6, "R-op: flag inherit, got a parent with other pages") },
	{ { OP(6, place, 0xf001) },
	  BAD(OPS, 6,
	      "R-op: flag inherit, got a parent with other pages at "
	      "0xf000") },
	{ { OP(8, place, 0x16001) },
	  BAD(OPS, 8, "R-op: flag inherit, got a parent with other pages") },
	{ { OP(8, nr_pages, 5), TARGET(1, nr_pages, 521) },
	  BAD(OPS, 8, "R-op: flag inherit, got a parent with other pages at 0x19000") },
	{ { OP(2, first_page, 5) },
	  BAD(OPS, 8,
	      "R-op: flag inherit, got a parent with other pages at "
	      "0x17000") },
	{ { OP(9, place, 0x200001) },
	  BAD(OPS, 9, "R-op: flag inherit, got a parent with other pages") },
	{ { OP(9, place, 0x7ffff001) },
	  BAD(OPS, 9, "R-op: flag inherit, got a parent with other") },
	/* The parent has no ops at all. */
	{ { TARGET(1, parent, 3) },
	  BAD(OPS, 6, "R-op: flag inherit, got a parent with other pages") },
};

static const struct corruption lane_cases[] = {
	{ { LANE(3, reserved, 1) }, BAD(LANES, 3, "R-reserved: reserved field, got 1, want 0") },
	{ { LANE(0, target, 1) }, BAD(LANES, 0, "R-lane: target, got 1, want 0") },
	{ { LANE(3, target, UINT32_MAX) },
	  BAD(LANES, 3, "R-lane: target, got 4294967295, want 3") },
	{ { LANE(0, first_op, 1) }, BAD(LANES, 0, "R-lane: first_op, got 1, want 0") },
	{ { LANE(1, first_op, 2) }, BAD(LANES, 1, "R-lane: first_op, got 2, want 3") },
	{ { LANE(0, nr_ops, 0) }, BAD(LANES, 0, "R-lane: nr_ops, got 0, want 1 to 6") },
	{ { LANE(0, nr_ops, 7) }, BAD(LANES, 0, "R-lane: nr_ops, got 7, want 1 to 6") },
	{ { LANE(1, nr_ops, 4) }, BAD(LANES, 1, "R-lane: nr_ops, got 4, want 1 to 3") },
	{ { LANE(3, nr_ops, ALL_ONES) }, BAD(LANES, 3, "R-lane: nr_ops, got 1844") },
	{ { LANE(1, nr_ops, 2), LANE(1, fill_bytes, 4 * MIB), LANE(1, read_bytes, 2 * MIB) },
	  BAD(TARGETS, 0, "R-lane: end of the last lane, got 5, want 6") },
	{ { LANE(1, read_bytes, 6 * MIB) },
	  BAD(LANES, 1, "R-lane: read_bytes, got 6291456, want 4194") },
	{ { LANE(3, read_bytes, 0) }, BAD(LANES, 3, "R-lane: read_bytes, got 0") },
	{ { LANE(1, fill_bytes, 4 * MIB) },
	  BAD(LANES, 1, "R-lane: fill_bytes, got 4194304, want 6291") },
};

static const struct corruption huge_cases[] = {
	{ { RANGE(0, target, 4) }, BAD(HUGE, 0, "R-huge: target, got 4, want below 4") },
	{ { RANGE(2, target, 3) }, BAD(HUGE, 2, "R-huge: kind of the target, got 2, want 1") },
	{ { RANGE(0, nr_huge, 0) }, BAD(HUGE, 0, "R-huge: nr_huge, got 0, want at least 1") },
	{ { RANGE(0, addr, 0x201000) },
	  BAD(HUGE, 0, "R-huge: address, got 0x201000, want a multiple") },
	{ { RANGE(0, addr, 1) },
	  BAD(HUGE, 0, "R-huge: address, got 0x1, want a multiple of 2 MiB") },
	{ { RANGE(1, addr, 1ull << 63) },
	  BAD(HUGE, 1, "R-huge: address, got 1 huge pages at 0x8000") },
	{ { RANGE(1, addr, ALL_ONES << 21) },
	  BAD(HUGE, 1, "R-huge: address, got 1 huge pages at 0xf") },
	{ { RANGE(2, target, 0) },
	  BAD(HUGE, 2, "R-huge: address, got 0x200000, want above 0xa00000") },
	{ { RANGE(0, target, 1), RANGE(0, nr_huge, 1) },
	  BAD(HUGE, 1, "R-huge: target, got 0, want at least 1") },
	{ { RANGE(0, nr_huge, 1), RANGE(1, addr, 0x400000) },
	  BAD(HUGE, 1, "R-huge: address, got 0x400000, want above 0x400000") },
	{ { RANGE(1, addr, 0x400000) },
	  BAD(HUGE, 1, "R-huge: address, got 0x400000, want above 0x6") },
	{ { RANGE(0, nr_huge, 3) }, BAD(HUGE, 0, "R-huge: range, got no op for 0x600000") },
	{ { RANGE(0, nr_huge, UINT32_MAX) },
	  BAD(HUGE, 0, "R-huge: range, got no op for 0x600000") },
	{ { RANGE(0, addr, 0) }, BAD(HUGE, 0, "R-huge: range, got no op for 0x0") },
	{ { RANGE(1, addr, 0xa00000) }, BAD(HUGE, 1, "R-huge: range, got no op for 0xa00000") },
	{ { RANGE(2, target, 2) }, BAD(HUGE, 2, "R-huge: range, got no op for 0x200000") },
	/* One page short at the end. */
	{ { OP(9, nr_pages, 511), TARGET(1, nr_pages, 519), LANE(2, fill_bytes, 519 * 4096) },
	  BAD(HUGE, 2, "R-huge: range, got no op for 0x3ff000") },
	/* One page short in the middle. */
	{ { OP(3, nr_pages, 511), TARGET(0, nr_pages, 1544), LANE(1, fill_bytes, 6 * MIB - 4096) },
	  BAD(HUGE, 0, "R-huge: range, got no op for 0x3ff000") },
};

struct sample {
	uint8_t *buf;
	size_t bytes;
	size_t place_off[TABLE + 1];
};

static int setup(void **state)
{
	static struct sample s;
	const struct ckf_disk_section *table;
	struct img_builder b;

	img_sample(&b);
	s.buf = img_encode(&b, &s.bytes);
	img_fini(&b);
	table = (const void *)(s.buf + 128);
	for (int p = STRINGS; p <= HUGE; p++)
		s.place_off[p] = ckf_get64(table[p - STRINGS].offset);
	s.place_off[TABLE] = 128;
	*state = &s;
	return 0;
}

static int teardown(void **state)
{
	struct sample *s = *state;

	free(s->buf);
	return 0;
}

/* A copy in memory of its own, so that a sanitizer sees a read behind the end. */
static uint8_t *copy_of(const uint8_t *buf, size_t bytes)
{
	uint8_t *copy = malloc(bytes ? bytes : 1);

	assert_non_null(copy);
	memcpy(copy, buf, bytes);
	return copy;
}

static size_t entry_off(const struct sample *s, enum place place, int64_t i)
{
	return s->place_off[place] + (size_t)(i < 0 ? 0 : i) * places[place].entry_bytes;
}

/* Values above the width of a byte flip it: for fields whose old value is not known. */
static void apply(const struct sample *s, uint8_t *buf, const struct edit *e)
{
	uint8_t *at = buf + entry_off(s, e->place, e->i) + e->off;

	if (e->width == 1 && e->value > 0xff) {
		*at ^= 0xff;
		return;
	}
	for (size_t i = 0; i < e->width; i++)
		at[i] = (uint8_t)(e->value >> (8 * i));
}

static void fix(uint8_t *buf, size_t bytes, enum fix fix)
{
	if (fix <= FIX_ALL)
		img_fix_sections(buf, bytes);
	if (fix <= FIX_ID_AND_HEADER)
		img_fix_id(buf, bytes);
	if (fix <= FIX_HEADER)
		img_fix_header(buf, bytes);
}

static bool expected(const struct sample *s, const struct corruption *c, int ret,
		     const struct ckf_error *err)
{
	const size_t off = entry_off(s, c->place, c->i);
	const char *class = c->unsupported ? "unsupported" : "corrupt";
	char entry[32] = "";
	char start[128];

	if (c->i >= 0)
		snprintf(entry, sizeof(entry), "[%lld]", (long long)c->i);
	snprintf(start, sizeof(start), "%s %s%s at %zu: ", class, places[c->place].name, entry,
		 off);
	return ret == (c->unsupported ? -EOPNOTSUPP : -EBADMSG) && err->code == ret &&
	       err->off == off && !strncmp(err->msg, start, strlen(start)) &&
	       !strncmp(err->msg + strlen(start), c->reason, strlen(c->reason));
}

static void check_cases(const struct sample *s, const struct corruption *cases, size_t nr)
{
	unsigned int failures = 0;

	for (size_t i = 0; i < nr; i++) {
		const struct corruption *c = &cases[i];
		struct ckf_index *idx = (void *)&failures;
		uint8_t *buf = copy_of(s->buf, s->bytes);
		struct ckf_error err = { 0 };
		int ret;

		for (size_t e = 0; e < 4 && c->edits[e].width; e++)
			apply(s, buf, &c->edits[e]);
		assert_memory_not_equal(buf, s->buf, s->bytes);
		fix(buf, s->bytes, c->fix);
		ret = ckf_index_decode(buf, s->bytes, &idx, &err);
		if (!expected(s, c, ret, &err)) {
			print_error("case %zu: want '%s[%lld] … %s', got %d '%s'\n", i,
				    places[c->place].name, (long long)c->i, c->reason, ret,
				    err.msg);
			failures++;
		}
		if (!ret)
			ckf_index_free(idx);
		else
			assert_null(idx);
		/* Without anyone who wants the message, too. */
		if (ret)
			assert_int_equal(ckf_index_decode(buf, s->bytes, &idx, NULL), ret);
		free(buf);
	}
	assert_int_equal(failures, 0);
}

#define CASES_TEST(name)                                                                           \
	static void test_##name(void **state)                                                      \
	{                                                                                          \
		check_cases(*state, name##_cases, sizeof(name##_cases) / sizeof(name##_cases[0])); \
	}

CASES_TEST(header)
CASES_TEST(table)
CASES_TEST(chunk)
CASES_TEST(file)
CASES_TEST(target)
CASES_TEST(op)
CASES_TEST(lane)
CASES_TEST(huge)

/* The image that all cases start from is a good one. */
static void test_sample_is_valid(void **state)
{
	const struct sample *s = *state;
	struct ckf_error err = { 0 };
	struct ckf_index *idx;
	uint8_t *buf = copy_of(s->buf, s->bytes);

	assert_int_equal(ckf_index_decode(buf, s->bytes, &idx, &err), 0);
	assert_int_equal(err.code, 0);
	ckf_index_free(idx);
	img_fix_checksums(buf, s->bytes);
	assert_memory_equal(buf, s->buf, s->bytes);
	free(buf);
}

#define PACK(field, value, reason_, ...)                                                       \
	{                                                                                      \
		.edit = SET(HEADER, ckf_disk_pack_header, 0, field, value), .reason = reason_, \
		##__VA_ARGS__                                                                  \
	}

static void test_pack_header_rules(void **state)
{
	static const struct {
		struct edit edit;
		const char *reason;
		bool keep_checksum;
		bool unsupported;
	} cases[] = {
		PACK(magic[7], 'X', "R-magic: magic, got CKFASTPX, want CKFASTPK"),
		PACK(version_major, 2, "R-version: version_major, got 2", .keep_checksum = true,
		     .unsupported = true),
		PACK(version_major, 2, "R-version: version_major, got 2", .unsupported = true),
		PACK(version_major, 0, "R-version: version_major, got 0, want 1"),
		PACK(extent_bytes, 8 * MIB, "R-extent: extent_bytes, got 8388608, want 4194304"),
		PACK(image_id[0], 0x100, "R-packid: image_id"),
		PACK(image_id[15], 0x100, "R-packid: image_id"),
		PACK(pack_bytes, 4096, "R-pack: pack_bytes, got 4096, want "),
		PACK(reserved[0], 1, "R-reserved: "),
		PACK(reserved[15], 1, "R-reserved: "),
		PACK(checksum, 0, "R-checksum: checksum, got 0x0", .keep_checksum = true),
		PACK(version_minor, UINT16_MAX, "R-checksum: ", .keep_checksum = true),
		PACK(padding[0], 1, "R-padding: "),
		PACK(padding[4031], 1, "R-padding: "),
	};
	struct ckf_disk_pack_header good;
	const struct sample *s = *state;
	struct ckf_index *idx;

	assert_int_equal(ckf_index_decode(s->buf, s->bytes, &idx, NULL), 0);
	ckf_pack_header_encode(idx, &good);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ckf_disk_pack_header h = good;
		struct ckf_error err = { 0 };
		char start[128];
		int ret;

		apply(s, (void *)&h, &cases[i].edit);
		assert_memory_not_equal(&h, &good, sizeof(h));
		if (!cases[i].keep_checksum)
			img_fix_pack_header(&h);
		ret = ckf_pack_header_check(idx, &h, &err);
		assert_int_equal(ret, cases[i].unsupported ? -EOPNOTSUPP : -EBADMSG);
		snprintf(start, sizeof(start), "%s pack at 0: %s",
			 cases[i].unsupported ? "unsupported" : "corrupt", cases[i].reason);
		assert_int_equal(strncmp(err.msg, start, strlen(start)), 0);
	}
	good.version_minor = ckf_put16(UINT16_MAX);
	img_fix_pack_header(&good);
	assert_int_equal(ckf_pack_header_check(idx, &good, NULL), 0);
	ckf_index_free(idx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sample_is_valid),
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_chunk),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_target),
		cmocka_unit_test(test_op),
		cmocka_unit_test(test_lane),
		cmocka_unit_test(test_huge),
		cmocka_unit_test(test_pack_header_rules),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
