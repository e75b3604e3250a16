/* SPDX-License-Identifier: MIT */
/*
 * ckf_index_encode(): the exact bytes of SPEC.md section 3, in the order of the section types.
 * Equal indexes give equal bytes: nothing here depends on time, addresses or the machine.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ckf_codec.h"
#include "hash.h"
#include "index.h"

struct layout {
	uint32_t nr_types; /* of sections that are required */
	uint64_t count[CKF_SECTION_END];
	uint64_t off[CKF_SECTION_END];
	uint64_t storage_off; /* 0: none */
	uint64_t idx_bytes;
};

/* With the optional one, when there is something to say in it. */
static uint32_t nr_sections(const struct ckf_index *idx, const struct layout *l)
{
	return l->nr_types + (idx->storage.bytes_per_s ? 1 : 0);
}

static uint64_t strings_bytes(const struct ckf_index *idx)
{
	uint64_t bytes = 0;

	for (uint64_t i = 0; i < idx->nr_files; i++) {
		bytes += strlen(idx->files[i].name);
		if (idx->files[i].target)
			bytes += strlen(idx->files[i].target);
	}
	for (uint32_t i = 0; i < idx->nr_bases; i++)
		bytes += strlen(idx->bases[i].path);
	return bytes;
}

/* False when the index would be longer than 2^64 bytes. */
static bool layout_sections(const struct ckf_index *idx, struct layout *l)
{
	uint64_t end;

	*l = (struct layout){
		.nr_types = (idx->nr_bases ? CKF_SECTION_END : CKF_SECTION_BASES) -
			    CKF_SECTION_STRINGS,
		.count = {
			[CKF_SECTION_STRINGS] = strings_bytes(idx),
			[CKF_SECTION_CHUNKS] = idx->nr_chunks,
			[CKF_SECTION_REFS] = idx->nr_refs,
			[CKF_SECTION_FILES] = idx->nr_files,
			[CKF_SECTION_TARGETS] = idx->nr_targets,
			[CKF_SECTION_OPS] = idx->nr_ops,
			[CKF_SECTION_LANES] = idx->nr_lanes,
			[CKF_SECTION_HUGE] = idx->nr_huge,
			[CKF_SECTION_BASES] = idx->nr_bases,
		},
	};
	end = sizeof(struct ckf_disk_header) +
	      nr_sections(idx, l) * sizeof(struct ckf_disk_section);
	for (uint32_t i = 0; i < l->nr_types; i++) {
		const uint32_t t = CKF_SECTION_STRINGS + i;
		uint64_t bytes;

		l->off[t] = ckf_align_up(end, CKF_SECTION_ALIGN);
		if (l->off[t] < end ||
		    ckf_mul_overflow(l->count[t], ckf_section_types[t].entry_bytes, &bytes) ||
		    ckf_add_overflow(l->off[t], bytes, &end))
			return false;
	}
	if (idx->storage.bytes_per_s) {
		l->storage_off = ckf_align_up(end, CKF_SECTION_ALIGN);
		if (l->storage_off < end ||
		    ckf_add_overflow(l->storage_off, sizeof(struct ckf_disk_storage), &end))
			return false;
	}
	l->idx_bytes = end;
	return true;
}

static void put_chunks(const struct ckf_index *idx, struct ckf_disk_chunk *disk)
{
	for (uint64_t i = 0; i < idx->nr_chunks; i++) {
		const struct ckf_chunk *c = &idx->chunks[i];

		disk[i] = (struct ckf_disk_chunk){
			.pack_off = ckf_put64(c->pack_off),
			.stored_bytes = ckf_put32(c->stored_bytes),
			.nr_pages = ckf_put16(c->nr_pages),
			.codec = c->codec,
			.base = c->base,
			.checksum = ckf_put64(c->checksum),
		};
	}
}

/* Names and link targets go into strings one after the other. Returns where they end. */
static uint64_t put_files(const struct ckf_index *idx, struct ckf_disk_file *disk, uint8_t *strings)
{
	uint64_t off = 0;

	for (uint64_t i = 0; i < idx->nr_files; i++) {
		const struct ckf_file *f = &idx->files[i];
		const size_t name_len = strlen(f->name);
		const size_t target_len = f->target ? strlen(f->target) : 0;

		disk[i] = (struct ckf_disk_file){
			.size_bytes = ckf_put64(f->size_bytes),
			.checksum = ckf_put64(f->checksum),
			.mtime_sec = ckf_put64((uint64_t)f->mtime_sec),
			.mtime_nsec = ckf_put32(f->mtime_nsec),
			.mode = ckf_put32(f->mode),
			.uid = ckf_put32(f->uid),
			.gid = ckf_put32(f->gid),
			.name_off = ckf_put64(off),
			.first_ref = ckf_put64(f->first_ref),
			.nr_refs = ckf_put64(f->nr_refs),
			.target_off = ckf_put64(f->target ? off + name_len : f->head),
			.name_len = ckf_put16((uint16_t)name_len),
			.target_len = ckf_put16((uint16_t)target_len),
			.kind = f->kind,
		};
		memcpy(strings + off, f->name, name_len);
		off += name_len;
		if (target_len)
			memcpy(strings + off, f->target, target_len);
		off += target_len;
	}
	return off;
}

/* Their paths follow in strings, from off on. */
static void put_bases(const struct ckf_index *idx, struct ckf_disk_base *disk, uint8_t *strings,
		      uint64_t off)
{
	for (uint32_t i = 0; i < idx->nr_bases; i++) {
		const struct ckf_base *b = &idx->bases[i];
		const size_t path_len = strlen(b->path);

		disk[i] = (struct ckf_disk_base){
			.pack_bytes = ckf_put64(b->pack_bytes),
			.path_off = ckf_put64(off),
			.extent_bytes = ckf_put32(b->extent_bytes),
			.path_len = ckf_put16((uint16_t)path_len),
		};
		memcpy(disk[i].image_id, b->image_id, sizeof(disk[i].image_id));
		memcpy(strings + off, b->path, path_len);
		off += path_len;
	}
}

static void put_targets(const struct ckf_index *idx, struct ckf_disk_target *disk)
{
	for (uint64_t i = 0; i < idx->nr_targets; i++) {
		const struct ckf_target *t = &idx->targets[i];

		disk[i] = (struct ckf_disk_target){
			.id = ckf_put64(t->id),
			.nr_pages = ckf_put64(t->nr_pages),
			.first_op = ckf_put64(t->first_op),
			.nr_ops = ckf_put64(t->nr_ops),
			.first_lane = ckf_put32(t->first_lane),
			.nr_lanes = ckf_put32(t->nr_lanes),
			.kind = ckf_put32(t->kind),
			.file = ckf_put32(t->file),
			.parent = ckf_put32(t->parent),
		};
	}
}

static void put_ops(const struct ckf_index *idx, struct ckf_disk_op *disk)
{
	for (uint64_t i = 0; i < idx->nr_ops; i++) {
		const struct ckf_op *op = &idx->ops[i];

		disk[i] = (struct ckf_disk_op){
			.place = ckf_put64(op->place),
			.chunk = ckf_put32(op->chunk),
			.first_page = ckf_put16(op->first_page),
			.nr_pages = ckf_put16(op->nr_pages),
		};
	}
}

static void put_lanes(const struct ckf_index *idx, struct ckf_disk_lane *disk)
{
	for (uint64_t i = 0; i < idx->nr_lanes; i++) {
		const struct ckf_lane *l = &idx->lanes[i];

		disk[i] = (struct ckf_disk_lane){
			.first_op = ckf_put64(l->first_op),
			.nr_ops = ckf_put64(l->nr_ops),
			.read_bytes = ckf_put64(l->read_bytes),
			.fill_bytes = ckf_put64(l->fill_bytes),
			.target = ckf_put32(l->target),
		};
	}
}

static struct ckf_disk_section section_entry(const uint8_t *buf, uint32_t type,
					     uint32_t entry_bytes, uint64_t off, uint64_t count)
{
	return (struct ckf_disk_section){
		.type = ckf_put32(type),
		.entry_bytes = ckf_put32(entry_bytes),
		.offset = ckf_put64(off),
		.count = ckf_put64(count),
		.checksum = ckf_put64(ckf_hash64(buf + off, count * entry_bytes)),
	};
}

static void put_storage(const struct ckf_storage *s, struct ckf_disk_storage *disk)
{
	*disk = (struct ckf_disk_storage){
		.bytes_per_s = ckf_put64(s->bytes_per_s),
		.profile = ckf_put32(s->profile),
		.nr_cores = ckf_put16(s->nr_cores),
		.measured = s->measured,
	};
}

static void put_sections(const struct ckf_index *idx, const struct layout *l, uint8_t *buf)
{
	ckf_le32 *refs = (void *)(buf + l->off[CKF_SECTION_REFS]);
	struct ckf_disk_huge *huge = (void *)(buf + l->off[CKF_SECTION_HUGE]);
	uint8_t *strings = buf + l->off[CKF_SECTION_STRINGS];
	uint64_t off;

	put_chunks(idx, (void *)(buf + l->off[CKF_SECTION_CHUNKS]));
	for (uint64_t i = 0; i < idx->nr_refs; i++)
		refs[i] = ckf_put32(idx->refs[i]);
	off = put_files(idx, (void *)(buf + l->off[CKF_SECTION_FILES]), strings);
	put_bases(idx, (void *)(buf + l->off[CKF_SECTION_BASES]), strings, off);
	put_targets(idx, (void *)(buf + l->off[CKF_SECTION_TARGETS]));
	put_ops(idx, (void *)(buf + l->off[CKF_SECTION_OPS]));
	put_lanes(idx, (void *)(buf + l->off[CKF_SECTION_LANES]));
	for (uint64_t i = 0; i < idx->nr_huge; i++) {
		huge[i] = (struct ckf_disk_huge){
			.addr = ckf_put64(idx->huge[i].addr),
			.nr_huge = ckf_put32(idx->huge[i].nr_huge),
			.target = ckf_put32(idx->huge[i].target),
		};
	}
	if (l->storage_off)
		put_storage(&idx->storage, (void *)(buf + l->storage_off));
}

/* After put_sections(): the table holds their checksums. */
static void put_section_table(const struct layout *l, uint8_t *buf)
{
	struct ckf_disk_section *table = (void *)(buf + sizeof(struct ckf_disk_header));

	for (uint32_t i = 0; i < l->nr_types; i++) {
		const uint32_t t = CKF_SECTION_STRINGS + i;

		table[i] = section_entry(buf, t, ckf_section_types[t].entry_bytes, l->off[t],
					 l->count[t]);
	}
	if (l->storage_off)
		table[l->nr_types] = section_entry(buf, CKF_SECTION_STORAGE,
						   sizeof(struct ckf_disk_storage), l->storage_off,
						   1);
}

/* After put_section_table(): id and checksum cover it. */
static void put_header(struct ckf_index *idx, const struct layout *l, uint8_t *buf)
{
	struct ckf_disk_header *h = (void *)buf;

	memcpy(h->magic, CKF_IDX_MAGIC, sizeof(h->magic));
	h->version_major = ckf_put16(idx->version_major);
	h->version_minor = ckf_put16(idx->version_minor);
	h->header_bytes = ckf_put32(sizeof(*h));
	h->idx_bytes = ckf_put64(l->idx_bytes);
	h->incompat = ckf_put64(idx->incompat);
	h->compat = ckf_put64(idx->compat);
	h->pack_bytes = ckf_put64(idx->pack_bytes);
	h->page_bytes = ckf_put32(CKF_PAGE_BYTES);
	h->extent_bytes = ckf_put32(idx->extent_bytes);
	h->nr_sections = ckf_put32(nr_sections(idx, l));
	h->max_chunk_pages = ckf_put32(idx->max_chunk_pages);
	ckf_hash128(h + 1, nr_sections(idx, l) * sizeof(struct ckf_disk_section), idx->image_id);
	memcpy(h->image_id, idx->image_id, sizeof(h->image_id));
	h->checksum = ckf_put64(ckf_header_hash(h, nr_sections(idx, l)));
}

static uint64_t used_features(const struct ckf_index *idx)
{
	uint64_t features = idx->nr_bases ? CKF_INCOMPAT_BASES : 0;

	for (uint64_t i = 0; i < idx->nr_chunks; i++)
		features |= ckf_chunk_features(&idx->chunks[i]);
	for (uint64_t i = 0; i < idx->nr_targets; i++)
		if (idx->targets[i].kind == CKF_TARGET_DEVICE)
			features |= CKF_INCOMPAT_DEVICES;
	for (uint64_t i = 0; i < idx->nr_files; i++)
		features |= ckf_file_features(&idx->files[i]);
	if (idx->page_sums && ckf_has_pages_file(idx))
		features |= CKF_INCOMPAT_PAGE_SUMS;
	return features;
}

int ckf_index_encode(struct ckf_index *idx, void **buf, size_t *idx_bytes, struct ckf_error *err)
{
	struct layout l;

	*buf = NULL;
	*idx_bytes = 0;
	if (layout_sections(idx, &l))
		*buf = calloc(1, l.idx_bytes);
	if (!*buf)
		return ckf_error_set(err, -ENOMEM, "no memory for an encoded index");
	*idx_bytes = l.idx_bytes;
	idx->version_major = CKF_VERSION_MAJOR;
	idx->version_minor = CKF_VERSION_MINOR;
	idx->incompat = (idx->incompat & ~CKF_INCOMPAT_ALL) | used_features(idx);
	put_sections(idx, &l, *buf);
	put_section_table(&l, *buf);
	put_header(idx, &l, *buf);
	return 0;
}
