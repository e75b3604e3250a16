/* SPDX-License-Identifier: MIT */
/*
 * Makes the checksums of changed bytes right again, so that tests and fuzzers get past them. Needs
 * nothing of the builder.
 */
#ifndef CKF_TEST_IMG_FIX_H
#define CKF_TEST_IMG_FIX_H

#include <string.h>

#include <xxhash.h>

#include "format/ckf_disk.h"

/* The entries of the section table, 0 unless all of it lies in the buffer. */
static inline uint32_t img_nr_sections(const uint8_t *buf, size_t bytes)
{
	const struct ckf_disk_header *h = (const void *)buf;
	uint32_t nr;

	if (bytes < sizeof(*h))
		return 0;
	nr = ckf_get32(h->nr_sections);
	if (nr > CKF_MAX_SECTIONS || nr * sizeof(struct ckf_disk_section) > bytes - sizeof(*h))
		return 0;
	return nr;
}

static inline void img_fix_sections(uint8_t *buf, size_t bytes)
{
	struct ckf_disk_section *table = (void *)(buf + sizeof(struct ckf_disk_header));
	const uint32_t nr = img_nr_sections(buf, bytes);

	for (uint32_t i = 0; i < nr; i++) {
		const uint64_t off = ckf_get64(table[i].offset);
		uint64_t len;

		if (ckf_mul_overflow(ckf_get64(table[i].count), ckf_get32(table[i].entry_bytes),
				     &len) ||
		    off > bytes || len > bytes - off)
			continue;
		table[i].checksum = ckf_put64(XXH3_64bits(buf + off, len));
	}
}

static inline void img_fix_id(uint8_t *buf, size_t bytes)
{
	struct ckf_disk_header *h = (void *)buf;
	const uint32_t nr = img_nr_sections(buf, bytes);
	XXH128_hash_t id;
	ckf_le64 half;

	if (!nr)
		return;
	id = XXH3_128bits(h + 1, nr * sizeof(struct ckf_disk_section));
	half = ckf_put64(id.low64);
	memcpy(h->image_id, &half, sizeof(half));
	half = ckf_put64(id.high64);
	memcpy(h->image_id + sizeof(half), &half, sizeof(half));
}

static inline void img_fix_header(uint8_t *buf, size_t bytes)
{
	const size_t head_bytes = offsetof(struct ckf_disk_header, checksum);
	const size_t table_bytes = img_nr_sections(buf, bytes) * sizeof(struct ckf_disk_section);
	struct ckf_disk_header *h = (void *)buf;
	uint8_t hashed[sizeof(*h) + CKF_MAX_SECTIONS * sizeof(struct ckf_disk_section)];

	if (!table_bytes)
		return;
	memcpy(hashed, h, head_bytes);
	memcpy(hashed + head_bytes, h + 1, table_bytes);
	h->checksum = ckf_put64(XXH3_64bits(hashed, head_bytes + table_bytes));
}

/*
 * Sets the section checksums, the image id and the header checksum of an encoded index to what its
 * bytes ask for, as far as they lie in the buffer. Takes any bytes.
 */
static inline void img_fix_checksums(uint8_t *buf, size_t bytes)
{
	img_fix_sections(buf, bytes);
	img_fix_id(buf, bytes);
	img_fix_header(buf, bytes);
}

static inline void img_fix_pack_header(struct ckf_disk_pack_header *h)
{
	h->checksum = ckf_put64(XXH3_64bits(h, offsetof(struct ckf_disk_pack_header, checksum)));
}

#endif
