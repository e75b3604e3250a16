/* SPDX-License-Identifier: MIT */
/*
 * What the files of the index decoder share.
 *
 * index_decode.c checks header and section table and drives the rest; index_data.c takes the
 * sections that say what is stored (chunks, refs, files), index_bases.c the one that says what is
 * stored elsewhere, index_plan.c those that say where it goes (targets, ops, lanes, huge). Each
 * section is checked where it is decoded.
 */
#ifndef CKF_INDEX_PRIVATE_H
#define CKF_INDEX_PRIVATE_H

#include "ckf_index.h"

/* SPEC.md section 3.2; the order of the table is that of enum ckf_section. */
struct ckf_section_type {
	const char *name;
	uint32_t entry_bytes;
	uint64_t max_count;
};

extern const struct ckf_section_type ckf_section_types[CKF_SECTION_END];

struct ckf_decoder {
	const uint8_t *buf;
	uint64_t idx_bytes;
	struct ckf_index *idx; /* filled in as the sections are checked */
	struct ckf_error *err;
	struct {
		uint64_t off; /* in buf; off + count × entry_bytes ≤ idx_bytes */
		uint64_t count;
	} part[CKF_SECTION_END];
};

/* Entry i of section s breaks a rule: the arguments after i are printf's. */
#define ckf_entry_error(d, code, s, i, ...)                                               \
	ckf_error_rule((d)->err, code, ckf_section_types[s].name, (int64_t)(i),           \
		       (d)->part[s].off + (uint64_t)(i)*ckf_section_types[s].entry_bytes, \
		       __VA_ARGS__)
#define ckf_entry_bad(d, s, i, ...) ckf_entry_error(d, -EBADMSG, s, i, __VA_ARGS__)

/* The first entry of a section, on disk. */
static inline const void *ckf_decoder_part(const struct ckf_decoder *d, enum ckf_section s)
{
	return d->buf + d->part[s].off;
}

/*
 * An array with one element of elem_bytes for each entry of s; never NULL but for lack of memory,
 * which is recorded. The section table has bounded the count by the length of the file.
 */
void *ckf_decoder_alloc(struct ckf_decoder *d, enum ckf_section s, size_t elem_bytes);

/* True when len bytes at off lie in section strings. */
bool ckf_in_strings(const struct ckf_decoder *d, uint64_t off, uint64_t len);

/* Copies len bytes to *to with a terminator, and moves *to behind it. */
const char *ckf_copy_string(char **to, const char *from, size_t len);

/* Each needs those before it in this list to have succeeded. */
int ckf_decode_bases(struct ckf_decoder *d);
int ckf_decode_chunks(struct ckf_decoder *d);
int ckf_decode_refs(struct ckf_decoder *d);
int ckf_decode_files(struct ckf_decoder *d);
int ckf_decode_targets(struct ckf_decoder *d);
int ckf_decode_ops(struct ckf_decoder *d);
int ckf_decode_lanes(struct ckf_decoder *d);
int ckf_decode_huge(struct ckf_decoder *d);

bool ckf_bytes_zero(const uint8_t *p, size_t bytes);

/* R-pack and R-extent, which hold for the own pack and for those of bases. */
bool ckf_pack_bytes_ok(uint64_t pack_bytes);
bool ckf_extent_bytes_ok(uint32_t extent_bytes);

/* The header checksum: of the header up to it, and of the nr_sections entries that follow h. */
uint64_t ckf_header_hash(const struct ckf_disk_header *h, uint32_t nr_sections);

bool ckf_has_pages_file(const struct ckf_index *idx);

/* The incompat bits that a stored chunk asks for, by its codec and its place. */
uint64_t ckf_chunk_features(const struct ckf_chunk *c);
/* The same for its kind. */
uint64_t ckf_file_features(const struct ckf_file *f);

#endif
