/* SPDX-License-Identifier: MIT */
/*
 * Decodes and checks the bases (SPEC.md 4.9): other images that chunks lie in.
 *
 * Their paths come from a file that nobody trusts, and a restore runs as root: what they may look
 * like is decided here, and the loader opens them component by component without following links.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "index.h"

#define base_bad(d, i, ...) ckf_entry_bad(d, CKF_SECTION_BASES, i, __VA_ARGS__)

/* 0: no component of a path; 1: a name; 2: "..". */
static int component_kind(const char *s, size_t len)
{
	if (len == 2 && s[0] == '.' && s[1] == '.')
		return 2;
	if (!len || len > CKF_MAX_NAME_BYTES || memchr(s, '\0', len) || (len == 1 && s[0] == '.'))
		return 0;
	return 1;
}

bool ckf_base_path_ok(const char *path, size_t len)
{
	bool named = false;
	size_t at = 0;

	if (!len || len > CKF_MAX_BASE_PATH_BYTES)
		return false;
	while (at <= len) {
		const char *slash = memchr(path + at, '/', len - at);
		size_t end = slash ? (size_t)(slash - path) : len;
		int kind = component_kind(path + at, end - at);

		if (!kind || (kind == 2 && named))
			return false;
		named |= kind == 1;
		at = end + 1;
	}
	return named;
}

static int check_base_path(const struct ckf_decoder *d, uint32_t i,
			   const struct ckf_disk_base *disk)
{
	const char *strings = ckf_decoder_part(d, CKF_SECTION_STRINGS);
	const uint64_t off = ckf_get64(disk->path_off);
	const uint16_t len = ckf_get16(disk->path_len);

	if (len < 1 || len > CKF_MAX_BASE_PATH_BYTES)
		return base_bad(d, i, "R-base: path_len, got %u, want 1 to %u", len,
				CKF_MAX_BASE_PATH_BYTES);
	if (!ckf_in_strings(d, off, len))
		return base_bad(d, i,
				"R-base: path, got %u bytes at %" PRIu64
				", want an end at most %" PRIu64,
				len, off, d->part[CKF_SECTION_STRINGS].count);
	if (!ckf_base_path_ok(strings + off, len))
		return base_bad(d, i, "R-base: path, got '%.*s', want one that a base may have",
				len, strings + off);
	return 0;
}

static int check_base(const struct ckf_decoder *d, uint32_t i, const struct ckf_disk_base *disk)
{
	const struct ckf_base *b = &d->idx->bases[i];

	if (!ckf_bytes_zero(disk->reserved, sizeof(disk->reserved)))
		return base_bad(d, i, "R-reserved: reserved bytes, got others than 0, want 0");
	if (!ckf_pack_bytes_ok(b->pack_bytes))
		return base_bad(d, i,
				"R-base: pack_bytes, got %" PRIu64
				", want a multiple of 4096, at least 4096",
				b->pack_bytes);
	if (!ckf_extent_bytes_ok(b->extent_bytes))
		return base_bad(d, i, "R-base: extent_bytes, got %u, want 4, 8 or 16 MiB",
				b->extent_bytes);
	for (uint32_t k = 0; k < i; k++) {
		if (!memcmp(d->idx->bases[k].image_id, b->image_id, sizeof(b->image_id)))
			return base_bad(d, i,
					"R-base: image_id, got that of entry %u, want another", k);
	}
	return check_base_path(d, i, disk);
}

static int copy_paths(struct ckf_decoder *d, const struct ckf_disk_base *disk)
{
	const char *strings = ckf_decoder_part(d, CKF_SECTION_STRINGS);
	struct ckf_index *idx = d->idx;
	size_t bytes = 0;
	char *to;

	for (uint32_t i = 0; i < idx->nr_bases; i++)
		bytes += ckf_get16(disk[i].path_len) + 1u;
	to = idx->base_strings = malloc(bytes);
	if (!to)
		return ckf_error_set(d->err, -ENOMEM, "no memory for %zu bytes of paths", bytes);
	for (uint32_t i = 0; i < idx->nr_bases; i++)
		idx->bases[i].path = ckf_copy_string(&to, strings + ckf_get64(disk[i].path_off),
						     ckf_get16(disk[i].path_len));
	return 0;
}

int ckf_decode_bases(struct ckf_decoder *d)
{
	const struct ckf_disk_base *disk = ckf_decoder_part(d, CKF_SECTION_BASES);
	struct ckf_index *idx = d->idx;
	int ret;

	if (!(idx->incompat & CKF_INCOMPAT_BASES))
		return 0;
	if (!d->part[CKF_SECTION_BASES].count)
		return base_bad(d, 0, "R-base: entries, got none, want 1 to %u", CKF_MAX_BASES);
	idx->bases = ckf_decoder_alloc(d, CKF_SECTION_BASES, sizeof(*idx->bases));
	if (!idx->bases)
		return -ENOMEM;
	idx->nr_bases = (uint32_t)d->part[CKF_SECTION_BASES].count;
	for (uint32_t i = 0; i < idx->nr_bases; i++) {
		idx->bases[i] = (struct ckf_base){
			.pack_bytes = ckf_get64(disk[i].pack_bytes),
			.extent_bytes = ckf_get32(disk[i].extent_bytes),
		};
		memcpy(idx->bases[i].image_id, disk[i].image_id, sizeof(disk[i].image_id));
		ret = check_base(d, i, &disk[i]);
		if (ret)
			return ret;
	}
	return copy_paths(d, disk);
}
