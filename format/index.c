/* SPDX-License-Identifier: MIT */
/* What can be asked of an index, and the pack header that belongs to it. */
#include "ckf_index.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckf_table.h"
#include "ckf_codec.h"
#include "index.h"

#define SHARED_ALIGN 64 /* the line of a CPU's cache */

/* Limits: SPEC.md section 8. Strings, refs, ops and huge ranges are bounded by the file alone. */
const struct ckf_section_type ckf_section_types[CKF_SECTION_END] = {
	[CKF_SECTION_STRINGS] = { "strings", 1, UINT64_MAX },
	[CKF_SECTION_CHUNKS] = { "chunks", sizeof(struct ckf_disk_chunk), UINT32_MAX },
	[CKF_SECTION_REFS] = { "refs", sizeof(ckf_le32), UINT64_MAX },
	[CKF_SECTION_FILES] = { "files", sizeof(struct ckf_disk_file), UINT32_MAX },
	[CKF_SECTION_TARGETS] = { "targets", sizeof(struct ckf_disk_target), UINT32_MAX },
	[CKF_SECTION_OPS] = { "ops", sizeof(struct ckf_disk_op), UINT64_MAX },
	[CKF_SECTION_LANES] = { "lanes", sizeof(struct ckf_disk_lane), UINT32_MAX },
	[CKF_SECTION_HUGE] = { "huge", sizeof(struct ckf_disk_huge), UINT64_MAX },
	[CKF_SECTION_BASES] = { "bases", sizeof(struct ckf_disk_base), CKF_MAX_BASES },
};

/*
 * The large tables of an index, as bytes. Pointers are copied, since they have types of their own.
 * Targets stay where they are: callers hold pointers to them.
 */
struct table {
	void *pointer; /* where the pointer to it is */
	uint64_t bytes;
};

enum {
	NR_TABLES = 6
};

static void list_tables(struct ckf_index *idx, struct table t[NR_TABLES])
{
	const struct table all[NR_TABLES] = {
		{ &idx->chunks, idx->nr_chunks * sizeof(*idx->chunks) },
		{ &idx->refs, idx->nr_refs * sizeof(*idx->refs) },
		{ &idx->files, idx->nr_files * sizeof(*idx->files) },
		{ &idx->ops, idx->nr_ops * sizeof(*idx->ops) },
		{ &idx->lanes, idx->nr_lanes * sizeof(*idx->lanes) },
		{ &idx->huge, idx->nr_huge * sizeof(*idx->huge) },
	};

	memcpy(t, all, sizeof(all));
}

static void free_table(const struct table *t)
{
	void *p;

	memcpy(&p, t->pointer, sizeof(p));
	free(p);
}

/* Its place in shared memory; 0: it stays. Those of 2 MiB and more lie in huge pages, which are
 * few. */
static uint64_t shared_bytes(const struct table *t)
{
	return t->bytes < CKF_HUGE_BYTES ? ckf_align_up(t->bytes, SHARED_ALIGN) : 0;
}

int ckf_index_share(struct ckf_index *idx)
{
	struct table t[NR_TABLES];
	uint64_t bytes = 0;
	char *to;

	list_tables(idx, t);
	for (int i = 0; i < NR_TABLES; i++)
		bytes += shared_bytes(&t[i]);
	if (!bytes || idx->shared)
		return 0;
	to = ckf_table_alloc_shared(bytes);
	if (!to)
		return -ENOMEM;
	idx->shared = to;
	idx->shared_bytes = bytes;
	for (int i = 0; i < NR_TABLES; i++) {
		const void *from;

		if (!shared_bytes(&t[i]))
			continue;
		memcpy(&from, t[i].pointer, sizeof(from));
		memcpy(to, from, t[i].bytes);
		free_table(&t[i]);
		memcpy(t[i].pointer, &to, sizeof(to));
		to += shared_bytes(&t[i]);
	}
	return 0;
}

void ckf_index_free(struct ckf_index *idx)
{
	struct table t[NR_TABLES];

	if (!idx)
		return;
	list_tables(idx, t);
	for (int i = 0; i < NR_TABLES; i++)
		if (!idx->shared || !shared_bytes(&t[i]))
			free_table(&t[i]);
	ckf_table_free_shared(idx->shared, idx->shared_bytes);
	free(idx->targets);
	free(idx->bases);
	free(idx->strings);
	free(idx->base_strings);
	free(idx);
}

void *ckf_decoder_alloc(struct ckf_decoder *d, enum ckf_section s, size_t elem_bytes)
{
	uint64_t count = d->part[s].count ? d->part[s].count : 1;
	uint64_t bytes;
	void *p = NULL;

	if (!ckf_mul_overflow(count, elem_bytes, &bytes))
		p = ckf_table_alloc(bytes);
	if (!p)
		ckf_error_set(d->err, -ENOMEM, "no memory for %" PRIu64 " %s", count,
			      ckf_section_types[s].name);
	return p;
}

const char *ckf_id_hex(const uint8_t id[CKF_ID_BYTES], char buf[CKF_ID_HEX_BYTES])
{
	for (size_t i = 0; i < CKF_ID_BYTES; i++)
		snprintf(buf + 2 * i, 3, "%02x", id[i]);
	return buf;
}

int64_t ckf_index_find_target(const struct ckf_index *idx, uint32_t kind, uint64_t id)
{
	uint64_t lo = 0;
	uint64_t hi = idx->nr_targets;

	while (lo < hi) {
		uint64_t mid = lo + (hi - lo) / 2;
		const struct ckf_target *t = &idx->targets[mid];

		if (t->kind == kind && t->id == id)
			return (int64_t)mid;
		if (t->kind < kind || (t->kind == kind && t->id < id))
			lo = mid + 1;
		else
			hi = mid;
	}
	return -ENOENT;
}

uint64_t ckf_index_find_op(const struct ckf_index *idx, const struct ckf_target *t, uint64_t addr)
{
	uint64_t lo = t->first_op;
	uint64_t hi = t->first_op + t->nr_ops;

	while (lo < hi) {
		uint64_t mid = lo + (hi - lo) / 2;

		if (ckf_op_end(&idx->ops[mid]) > addr)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

int ckf_index_each_huge(const struct ckf_index *idx, const struct ckf_target *t,
			int (*fn)(void *arg, const struct ckf_huge_part *part), void *arg)
{
	struct ckf_huge_part part = { 0 };
	int ret = 0;

	for (uint64_t i = t->first_op; i < t->first_op + t->nr_ops && !ret; i++) {
		const struct ckf_op *op = &idx->ops[i];
		uint64_t at = ckf_op_addr(op), end = ckf_op_end(op), to;

		for (; at < end && !ret; at = to) {
			uint64_t addr = at - at % CKF_HUGE_BYTES;

			if (addr != part.addr) {
				if (part.nr_pages)
					ret = fn(arg, &part);
				part = (struct ckf_huge_part){ .addr = addr };
			}
			to = addr + CKF_HUGE_BYTES < end ? addr + CKF_HUGE_BYTES : end;
			part.nr_pages += (uint32_t)((to - at) >> CKF_PAGE_SHIFT);
			part.flags |= ckf_op_flags(op);
		}
	}
	return !ret && part.nr_pages ? fn(arg, &part) : ret;
}

const char *ckf_target_kind_name(uint32_t kind)
{
	switch (kind) {
	case CKF_TARGET_TASK:
		return "task";
	case CKF_TARGET_SHMEM:
		return "shmem";
	case CKF_TARGET_DEVICE:
		return "device";
	default:
		return "?";
	}
}

bool ckf_name_ok(const char *name, size_t len)
{
	static const char *const taken[] = { ".", "..", CKF_IDX_NAME, CKF_PACK_NAME };

	if (!len || len > CKF_MAX_NAME_BYTES || memchr(name, '\0', len) || memchr(name, '/', len))
		return false;
	for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
		if (len == strlen(taken[i]) && !memcmp(name, taken[i], len))
			return false;
	}
	return true;
}

bool ckf_bytes_zero(const uint8_t *p, size_t bytes)
{
	uint8_t any = 0;

	for (size_t i = 0; i < bytes; i++)
		any |= p[i];
	return !any;
}

bool ckf_pack_bytes_ok(uint64_t pack_bytes)
{
	return pack_bytes >= sizeof(struct ckf_disk_pack_header) && !(pack_bytes % CKF_PAGE_BYTES);
}

bool ckf_extent_bytes_ok(uint32_t extent_bytes)
{
	return extent_bytes >= CKF_MIN_EXTENT_BYTES && extent_bytes <= CKF_MAX_EXTENT_BYTES &&
	       !(extent_bytes & (extent_bytes - 1));
}

uint64_t ckf_header_hash(const struct ckf_disk_header *h, uint32_t nr_sections)
{
	const size_t head_bytes = offsetof(struct ckf_disk_header, checksum);
	const size_t table_bytes = nr_sections * sizeof(struct ckf_disk_section);
	uint8_t hashed[sizeof(*h) + CKF_MAX_SECTIONS * sizeof(struct ckf_disk_section)];

	memcpy(hashed, h, head_bytes);
	memcpy(hashed + head_bytes, h + 1, table_bytes);
	return ckf_hash64(hashed, head_bytes + table_bytes);
}

bool ckf_has_pages_file(const struct ckf_index *idx)
{
	for (uint64_t i = 0; i < idx->nr_files; i++)
		if (ckf_file_has_pages(&idx->files[i]))
			return true;
	return false;
}

uint64_t ckf_chunk_features(const struct ckf_chunk *c)
{
	const uint64_t packed = c->pack_off % CKF_PAGE_BYTES ? CKF_INCOMPAT_PACKED : 0;

	switch (c->codec) {
	case CKF_CODEC_LZ4:
		return packed | CKF_INCOMPAT_LZ4;
	case CKF_CODEC_ZSTD:
		return packed | CKF_INCOMPAT_ZSTD;
	case CKF_CODEC_BF16:
		return packed | CKF_INCOMPAT_BF16;
	default:
		return packed;
	}
}

uint64_t ckf_file_features(const struct ckf_file *f)
{
	switch (f->kind) {
	case CKF_FILE_SIZED_PAGES:
		return CKF_INCOMPAT_SIZED_PAGES;
	case CKF_FILE_HEADED_PAGES:
		return CKF_INCOMPAT_HEADED_PAGES;
	case CKF_FILE_CUT_PAGES:
		return CKF_INCOMPAT_CUT_PAGES;
	default:
		return 0;
	}
}

void ckf_pack_header_encode(const struct ckf_index *idx, struct ckf_disk_pack_header *out)
{
	memset(out, 0, sizeof(*out));
	memcpy(out->magic, CKF_PACK_MAGIC, sizeof(out->magic));
	out->version_major = ckf_put16(CKF_VERSION_MAJOR);
	out->version_minor = ckf_put16(CKF_VERSION_MINOR);
	out->extent_bytes = ckf_put32(idx->extent_bytes);
	memcpy(out->image_id, idx->image_id, sizeof(out->image_id));
	out->pack_bytes = ckf_put64(idx->pack_bytes);
	out->checksum = ckf_put64(ckf_hash64(out, offsetof(struct ckf_disk_pack_header, checksum)));
}

#define pack_bad(err, ...) ckf_error_rule(err, -EBADMSG, "pack", -1, 0, __VA_ARGS__)

/* Order as in the header of the index: what a newer version may change comes after its version. */
static int check_pack_frame(const struct ckf_disk_pack_header *h, struct ckf_error *err)
{
	const uint64_t sum = ckf_hash64(h, offsetof(struct ckf_disk_pack_header, checksum));
	const uint16_t major = ckf_get16(h->version_major);

	if (memcmp(h->magic, CKF_PACK_MAGIC, sizeof(h->magic)))
		return pack_bad(err, "R-magic: magic, got %.8s, want " CKF_PACK_MAGIC, h->magic);
	if (major > CKF_VERSION_MAJOR)
		return ckf_error_rule(err, -EOPNOTSUPP, "pack", -1, 0,
				      "R-version: version_major, got %u, want %u", major,
				      CKF_VERSION_MAJOR);
	if (major < CKF_VERSION_MAJOR)
		return pack_bad(err, "R-version: version_major, got %u, want %u", major,
				CKF_VERSION_MAJOR);
	if (ckf_get64(h->checksum) != sum)
		return pack_bad(err, "R-checksum: checksum, got 0x%" PRIx64 ", want 0x%" PRIx64,
				ckf_get64(h->checksum), sum);
	return 0;
}

static int check_pack_rest(const struct ckf_disk_pack_header *h, uint64_t pack_bytes,
			   uint32_t extent_bytes, struct ckf_error *err)
{
	if (ckf_get64(h->pack_bytes) != pack_bytes)
		return pack_bad(err, "R-pack: pack_bytes, got %" PRIu64 ", want %" PRIu64,
				ckf_get64(h->pack_bytes), pack_bytes);
	if (ckf_get32(h->extent_bytes) != extent_bytes)
		return pack_bad(err, "R-extent: extent_bytes, got %u, want %u",
				ckf_get32(h->extent_bytes), extent_bytes);
	if (!ckf_bytes_zero(h->reserved, sizeof(h->reserved)))
		return pack_bad(err, "R-reserved: reserved bytes, got others than 0, want 0");
	if (!ckf_bytes_zero(h->padding, sizeof(h->padding)))
		return pack_bad(err, "R-padding: padding, got others than 0, want 0");
	return 0;
}

int ckf_pack_header_check(const struct ckf_index *idx, const struct ckf_disk_pack_header *h,
			  struct ckf_error *err)
{
	int ret = check_pack_frame(h, err);

	if (ret)
		return ret;
	if (memcmp(h->image_id, idx->image_id, sizeof(h->image_id)))
		return pack_bad(
			err,
			"R-packid: image_id, got that of another image, want that of the index");
	return check_pack_rest(h, idx->pack_bytes, idx->extent_bytes, err);
}

int ckf_base_header_check(const struct ckf_base *base, const struct ckf_disk_pack_header *h,
			  struct ckf_error *err)
{
	char got[CKF_ID_HEX_BYTES];
	int ret = check_pack_frame(h, err);

	if (ret)
		return ret;
	if (memcmp(h->image_id, base->image_id, sizeof(h->image_id)))
		return ckf_error_set(err, -ESTALE, "there is another image, %s",
				     ckf_id_hex(h->image_id, got));
	return check_pack_rest(h, base->pack_bytes, base->extent_bytes, err);
}
