/* SPDX-License-Identifier: MIT */
/* The on-disk structures of SPEC.md, byte for byte. Nothing here has padding or alignment. */
#ifndef CKF_DISK_H
#define CKF_DISK_H

#include <assert.h>

#include "base/ckf_types.h"

#define CKF_IDX_MAGIC "CKFASTIX"
#define CKF_PACK_MAGIC "CKFASTPK"
#define CKF_VERSION_MAJOR 1
#define CKF_VERSION_MINOR 7

#define CKF_INCOMPAT_LZ4 (1ull << 0)
#define CKF_INCOMPAT_ZSTD (1ull << 1)
#define CKF_INCOMPAT_BF16 (1ull << 2)
#define CKF_INCOMPAT_BASES (1ull << 3)
#define CKF_INCOMPAT_DEVICES (1ull << 4)
#define CKF_INCOMPAT_PACKED (1ull << 5)
#define CKF_INCOMPAT_PAGE_SUMS (1ull << 6)
#define CKF_INCOMPAT_SIZED_PAGES (1ull << 7)
#define CKF_INCOMPAT_HEADED_PAGES (1ull << 8)
#define CKF_INCOMPAT_CUT_PAGES (1ull << 9)
#define CKF_INCOMPAT_ALL                                                                 \
	(CKF_INCOMPAT_LZ4 | CKF_INCOMPAT_ZSTD | CKF_INCOMPAT_BF16 | CKF_INCOMPAT_BASES | \
	 CKF_INCOMPAT_DEVICES | CKF_INCOMPAT_PACKED | CKF_INCOMPAT_PAGE_SUMS |           \
	 CKF_INCOMPAT_SIZED_PAGES | CKF_INCOMPAT_HEADED_PAGES | CKF_INCOMPAT_CUT_PAGES)

/* Those that say which kinds of files there are. */
#define CKF_INCOMPAT_FILE_KINDS \
	(CKF_INCOMPAT_SIZED_PAGES | CKF_INCOMPAT_HEADED_PAGES | CKF_INCOMPAT_CUT_PAGES)

#define CKF_MAX_SECTIONS 64
#define CKF_MAX_CHUNK_PAGES 1024
#define CKF_SECTION_ALIGN 64
#define CKF_SECTION_OPTIONAL (1u << 31)
#define CKF_SECTION_STORAGE (CKF_SECTION_OPTIONAL + 1)
#define CKF_MAX_NAME_BYTES 255
#define CKF_MAX_LINK_BYTES 4095
#define CKF_MAX_BASES 255
#define CKF_MAX_BASE_PATH_BYTES 4095
#define CKF_MAX_ADDR (1ull << 63)
#define CKF_SIZED_HEAD_BYTES 8 /* before the pages of a file of kind 4 or 5 */

enum ckf_section {
	CKF_SECTION_STRINGS = 1,
	CKF_SECTION_CHUNKS = 2,
	CKF_SECTION_REFS = 3,
	CKF_SECTION_FILES = 4,
	CKF_SECTION_TARGETS = 5,
	CKF_SECTION_OPS = 6,
	CKF_SECTION_LANES = 7,
	CKF_SECTION_HUGE = 8,
	CKF_SECTION_BASES = 9, /* only with CKF_INCOMPAT_BASES */
	CKF_SECTION_END,       /* one past the last known type */
};

struct ckf_disk_header {
	uint8_t magic[8];
	ckf_le16 version_major;
	ckf_le16 version_minor;
	ckf_le32 header_bytes;
	ckf_le64 idx_bytes;
	ckf_le64 incompat;
	ckf_le64 compat;
	uint8_t image_id[CKF_ID_BYTES];
	ckf_le64 pack_bytes;
	ckf_le32 page_bytes;
	ckf_le32 extent_bytes;
	ckf_le32 nr_sections;
	ckf_le32 max_chunk_pages;
	uint8_t reserved[40];
	ckf_le64 checksum;
};

struct ckf_disk_section {
	ckf_le32 type;
	ckf_le32 entry_bytes;
	ckf_le64 offset;
	ckf_le64 count;
	ckf_le64 checksum;
};

struct ckf_disk_chunk {
	ckf_le64 pack_off;
	ckf_le32 stored_bytes;
	ckf_le16 nr_pages;
	uint8_t codec;
	uint8_t base;
	ckf_le64 checksum;
};

struct ckf_disk_file {
	ckf_le64 size_bytes;
	ckf_le64 checksum;
	ckf_le64 mtime_sec;
	ckf_le32 mtime_nsec;
	ckf_le32 mode;
	ckf_le32 uid;
	ckf_le32 gid;
	ckf_le64 name_off;
	ckf_le64 first_ref;
	ckf_le64 nr_refs;
	ckf_le64 target_off; /* kind 5: the head */
	ckf_le16 name_len;
	ckf_le16 target_len;
	uint8_t kind;
	uint8_t reserved[11];
};

struct ckf_disk_target {
	ckf_le64 id;
	ckf_le64 nr_pages;
	ckf_le64 first_op;
	ckf_le64 nr_ops;
	ckf_le32 first_lane;
	ckf_le32 nr_lanes;
	ckf_le32 kind;
	ckf_le32 file;
	ckf_le32 parent;
	ckf_le32 reserved;
};

struct ckf_disk_op {
	ckf_le64 place;
	ckf_le32 chunk;
	ckf_le16 first_page;
	ckf_le16 nr_pages;
};

struct ckf_disk_lane {
	ckf_le64 first_op;
	ckf_le64 nr_ops;
	ckf_le64 read_bytes;
	ckf_le64 fill_bytes;
	ckf_le32 target;
	ckf_le32 reserved;
};

struct ckf_disk_huge {
	ckf_le64 addr;
	ckf_le32 nr_huge;
	ckf_le32 target;
};

struct ckf_disk_base {
	uint8_t image_id[CKF_ID_BYTES];
	ckf_le64 pack_bytes;
	ckf_le64 path_off;
	ckf_le32 extent_bytes;
	ckf_le16 path_len;
	uint8_t reserved[10];
};

struct ckf_disk_storage {
	ckf_le64 bytes_per_s;
	ckf_le32 profile;
	ckf_le16 nr_cores;
	uint8_t measured;
	uint8_t reserved;
};

struct ckf_disk_pack_header {
	uint8_t magic[8];
	ckf_le16 version_major;
	ckf_le16 version_minor;
	ckf_le32 extent_bytes;
	uint8_t image_id[CKF_ID_BYTES];
	ckf_le64 pack_bytes;
	uint8_t reserved[16];
	ckf_le64 checksum;
	uint8_t padding[4032];
};

#define CKF_AT(type, field, off) \
	static_assert(offsetof(struct type, field) == (off), #type "." #field)
#define CKF_SIZE(type, size) static_assert(sizeof(struct type) == (size), #type)

CKF_SIZE(ckf_disk_header, 128);
CKF_AT(ckf_disk_header, version_major, 8);
CKF_AT(ckf_disk_header, version_minor, 10);
CKF_AT(ckf_disk_header, header_bytes, 12);
CKF_AT(ckf_disk_header, idx_bytes, 16);
CKF_AT(ckf_disk_header, incompat, 24);
CKF_AT(ckf_disk_header, compat, 32);
CKF_AT(ckf_disk_header, image_id, 40);
CKF_AT(ckf_disk_header, pack_bytes, 56);
CKF_AT(ckf_disk_header, page_bytes, 64);
CKF_AT(ckf_disk_header, extent_bytes, 68);
CKF_AT(ckf_disk_header, nr_sections, 72);
CKF_AT(ckf_disk_header, max_chunk_pages, 76);
CKF_AT(ckf_disk_header, reserved, 80);
CKF_AT(ckf_disk_header, checksum, 120);
CKF_SIZE(ckf_disk_section, 32);
CKF_AT(ckf_disk_section, entry_bytes, 4);
CKF_AT(ckf_disk_section, offset, 8);
CKF_AT(ckf_disk_section, count, 16);
CKF_AT(ckf_disk_section, checksum, 24);
CKF_SIZE(ckf_disk_chunk, 24);
CKF_AT(ckf_disk_chunk, stored_bytes, 8);
CKF_AT(ckf_disk_chunk, nr_pages, 12);
CKF_AT(ckf_disk_chunk, codec, 14);
CKF_AT(ckf_disk_chunk, base, 15);
CKF_AT(ckf_disk_chunk, checksum, 16);
CKF_SIZE(ckf_disk_file, 88);
CKF_AT(ckf_disk_file, checksum, 8);
CKF_AT(ckf_disk_file, mtime_sec, 16);
CKF_AT(ckf_disk_file, mtime_nsec, 24);
CKF_AT(ckf_disk_file, mode, 28);
CKF_AT(ckf_disk_file, uid, 32);
CKF_AT(ckf_disk_file, gid, 36);
CKF_AT(ckf_disk_file, name_off, 40);
CKF_AT(ckf_disk_file, first_ref, 48);
CKF_AT(ckf_disk_file, nr_refs, 56);
CKF_AT(ckf_disk_file, target_off, 64);
CKF_AT(ckf_disk_file, name_len, 72);
CKF_AT(ckf_disk_file, target_len, 74);
CKF_AT(ckf_disk_file, kind, 76);
CKF_AT(ckf_disk_file, reserved, 77);
CKF_SIZE(ckf_disk_target, 56);
CKF_AT(ckf_disk_target, nr_pages, 8);
CKF_AT(ckf_disk_target, first_op, 16);
CKF_AT(ckf_disk_target, nr_ops, 24);
CKF_AT(ckf_disk_target, first_lane, 32);
CKF_AT(ckf_disk_target, nr_lanes, 36);
CKF_AT(ckf_disk_target, kind, 40);
CKF_AT(ckf_disk_target, file, 44);
CKF_AT(ckf_disk_target, parent, 48);
CKF_SIZE(ckf_disk_op, 16);
CKF_AT(ckf_disk_op, chunk, 8);
CKF_AT(ckf_disk_op, first_page, 12);
CKF_AT(ckf_disk_op, nr_pages, 14);
CKF_SIZE(ckf_disk_lane, 40);
CKF_AT(ckf_disk_lane, nr_ops, 8);
CKF_AT(ckf_disk_lane, read_bytes, 16);
CKF_AT(ckf_disk_lane, fill_bytes, 24);
CKF_AT(ckf_disk_lane, target, 32);
CKF_SIZE(ckf_disk_huge, 16);
CKF_AT(ckf_disk_huge, nr_huge, 8);
CKF_AT(ckf_disk_huge, target, 12);
CKF_SIZE(ckf_disk_base, 48);
CKF_AT(ckf_disk_base, pack_bytes, 16);
CKF_AT(ckf_disk_base, path_off, 24);
CKF_AT(ckf_disk_base, extent_bytes, 32);
CKF_AT(ckf_disk_base, path_len, 36);
CKF_AT(ckf_disk_base, reserved, 38);
CKF_SIZE(ckf_disk_storage, 16);
CKF_AT(ckf_disk_storage, profile, 8);
CKF_AT(ckf_disk_storage, nr_cores, 12);
CKF_AT(ckf_disk_storage, measured, 14);
CKF_SIZE(ckf_disk_pack_header, 4096);
CKF_AT(ckf_disk_pack_header, version_major, 8);
CKF_AT(ckf_disk_pack_header, version_minor, 10);
CKF_AT(ckf_disk_pack_header, extent_bytes, 12);
CKF_AT(ckf_disk_pack_header, image_id, 16);
CKF_AT(ckf_disk_pack_header, pack_bytes, 32);
CKF_AT(ckf_disk_pack_header, checksum, 56);
CKF_AT(ckf_disk_pack_header, padding, 64);

#undef CKF_AT
#undef CKF_SIZE

#endif
