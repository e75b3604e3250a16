/* SPDX-License-Identifier: MIT */
/* Small fast images for tests, see img_builder.h. */
#include "img_builder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

static void need(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "img_builder: %s\n", what);
	exit(1);
}

/* array with room for one more element than the nr it has, zeroed. Doubles: nr only ever grows. */
static void *grow(void *array, uint64_t nr, size_t elem_bytes)
{
	if (!(nr & (nr - 1)))
		array = realloc(array, (nr ? 2 * nr : 1) * elem_bytes);
	need(array, "no memory");
	memset((char *)array + nr * elem_bytes, 0, elem_bytes);
	return array;
}

static void *copy(const void *p, size_t bytes)
{
	void *c = malloc(bytes + 1);

	need(c, "no memory");
	if (bytes)
		memcpy(c, p, bytes);
	((char *)c)[bytes] = '\0';
	return c;
}

void img_init(struct img_builder *b)
{
	memset(b, 0, sizeof(*b));
	b->idx.pack_bytes = CKF_PAGE_BYTES;
	b->end = CKF_PAGE_BYTES;
	b->idx.extent_bytes = CKF_MIN_EXTENT_BYTES;
	b->idx.max_chunk_pages = 512;
	b->pack = calloc(1, CKF_PAGE_BYTES);
	need(b->pack && !ckf_codec_ctx_new(&b->codecs), "no memory");
}

void img_fini(struct img_builder *b)
{
	for (uint64_t i = 0; i < b->idx.nr_files; i++) {
		free((char *)b->idx.files[i].name);
		free((char *)b->idx.files[i].target);
		free(b->contents[i]);
	}
	free(b->contents);
	free(b->idx.chunks);
	free(b->idx.refs);
	free(b->idx.files);
	free(b->idx.targets);
	free(b->idx.ops);
	free(b->idx.lanes);
	free(b->idx.huge);
	free(b->idx.bases);
	free(b->pack);
	ckf_codec_ctx_free(b->codecs);
	memset(b, 0, sizeof(*b));
}

/* Where the next chunk goes: not over the border of an extent, and raw ones on the border of a
 * page. */
static uint64_t next_pack_off(const struct img_builder *b, uint32_t codec, uint32_t stored_bytes)
{
	const uint64_t extent = b->idx.extent_bytes;
	const uint64_t off = b->packed && codec != CKF_CODEC_RAW ? b->end : b->idx.pack_bytes;

	if (stored_bytes && off / extent != (off + stored_bytes - 1) / extent)
		return ckf_align_up(off, extent);
	return off;
}

uint32_t img_chunk_bare(struct img_builder *b, uint32_t codec, uint16_t nr_pages,
			uint32_t stored_bytes)
{
	struct ckf_chunk *c;

	b->idx.chunks = grow(b->idx.chunks, b->idx.nr_chunks, sizeof(*b->idx.chunks));
	c = &b->idx.chunks[b->idx.nr_chunks];
	c->codec = (uint8_t)codec;
	c->nr_pages = nr_pages;
	if (codec == CKF_CODEC_ZERO) {
		c->checksum = ckf_hash64_zeros(ckf_pages_to_bytes(nr_pages));
		return (uint32_t)b->idx.nr_chunks++;
	}
	c->stored_bytes = stored_bytes;
	c->pack_off = next_pack_off(b, codec, stored_bytes);
	b->end = c->pack_off + stored_bytes;
	b->idx.pack_bytes = ckf_align_up(b->end, CKF_PAGE_BYTES);
	return (uint32_t)b->idx.nr_chunks++;
}

uint32_t img_chunk(struct img_builder *b, uint32_t codec, const void *pages, uint16_t nr_pages)
{
	const size_t bytes = ckf_pages_to_bytes(nr_pages);
	const uint64_t old_bytes = b->idx.pack_bytes;
	int64_t stored_bytes = (int64_t)bytes;
	void *stored = NULL;
	uint32_t i;

	if (codec == CKF_CODEC_ZERO)
		return img_chunk_bare(b, codec, nr_pages, 0);
	stored = copy(pages, bytes);
	if (codec != CKF_CODEC_RAW)
		stored_bytes = ckf_encode(b->codecs, codec, 0, pages, bytes, stored, bytes);
	need(stored_bytes > 0, "pages do not compress");
	i = img_chunk_bare(b, codec, nr_pages, (uint32_t)stored_bytes);
	b->idx.chunks[i].checksum = ckf_hash64(pages, bytes);
	if (b->idx.pack_bytes > b->pack_room) {
		b->pack_room = 2 * b->idx.pack_bytes;
		b->pack = realloc(b->pack, b->pack_room);
	}
	need(b->pack, "no memory");
	memset(b->pack + old_bytes, 0, b->idx.pack_bytes - old_bytes);
	memcpy(b->pack + b->idx.chunks[i].pack_off, stored, (size_t)stored_bytes);
	free(stored);
	return i;
}

uint32_t img_tight_chunk(struct img_builder *b, unsigned int i, uint8_t *pages, uint16_t *nr_pages)
{
	const uint16_t nr = i == IMG_TIGHT_LONGEST ? (uint16_t)b->idx.max_chunk_pages : 2;
	const size_t bytes = ckf_pages_to_bytes(nr), part = 3000;
	const bool raw = i == 7;
	uint64_t seed = i;

	for (size_t at = 0; at < bytes; at += 8) {
		uint64_t word = img_rand(&seed);

		memcpy(pages + at, &word, sizeof(word));
	}
	/* What is random is stored as it is: a part of a page, or all but a part. */
	if (i == IMG_TIGHT_LONGEST)
		memset(pages + bytes - part, 0, part);
	else if (!raw)
		memset(pages + part, 0, bytes - part);
	b->packed = true;
	*nr_pages = nr;
	return img_chunk(b, raw ? CKF_CODEC_RAW : CKF_CODEC_ZSTD, pages, nr);
}

/* A file entry with its name and some plausible metadata. */
static struct ckf_file *new_file(struct img_builder *b, const char *name, uint8_t kind)
{
	const uint64_t i = b->idx.nr_files++;
	struct ckf_file *f;

	b->idx.files = grow(b->idx.files, i, sizeof(*b->idx.files));
	b->contents = grow(b->contents, i, sizeof(*b->contents));
	f = &b->idx.files[i];
	f->name = copy(name, strlen(name));
	f->kind = kind;
	f->mode = 0644;
	f->mtime_sec = 1700000000 + (int64_t)i;
	f->mtime_nsec = 999999999;
	return f;
}

uint32_t img_file(struct img_builder *b, const char *name, const void *contents, size_t bytes)
{
	struct ckf_file *f = new_file(b, name, CKF_FILE_VERBATIM);

	f->size_bytes = bytes;
	f->checksum = ckf_hash64(contents, bytes);
	b->contents[b->idx.nr_files - 1] = copy(contents, bytes);
	return (uint32_t)b->idx.nr_files - 1;
}

/* The decoded bytes of a chunk, in order, into a running hash. */
static void hash_chunk(struct img_builder *b, const struct ckf_chunk *c, XXH3_state_t *hash)
{
	const size_t bytes = ckf_pages_to_bytes(c->nr_pages);
	uint8_t *pages = malloc(bytes);
	int ret;

	need(pages, "no memory");
	ret = ckf_decode(b->codecs, c->codec, b->pack + c->pack_off, c->stored_bytes, pages, bytes);
	need(!ret, "a chunk of a file does not decode");
	XXH3_64bits_update(hash, pages, bytes);
	free(pages);
}

uint32_t img_pages_file(struct img_builder *b, const char *name, const uint32_t *chunks,
			size_t nr_chunks)
{
	struct ckf_file *f = new_file(b, name, CKF_FILE_PAGES);
	XXH3_state_t *hash = XXH3_createState();

	need(hash, "no memory");
	XXH3_64bits_reset(hash);
	f->first_ref = b->idx.nr_refs;
	f->nr_refs = nr_chunks;
	for (size_t i = 0; i < nr_chunks; i++) {
		const struct ckf_chunk *c = &b->idx.chunks[chunks[i]];

		b->idx.refs = grow(b->idx.refs, b->idx.nr_refs, sizeof(*b->idx.refs));
		b->idx.refs[b->idx.nr_refs++] = chunks[i];
		f->size_bytes += ckf_pages_to_bytes(c->nr_pages);
		hash_chunk(b, c, hash);
	}
	f->checksum = XXH3_64bits_digest(hash);
	XXH3_freeState(hash);
	return (uint32_t)b->idx.nr_files - 1;
}

uint32_t img_link(struct img_builder *b, const char *name, const char *target)
{
	struct ckf_file *f = new_file(b, name, CKF_FILE_SYMLINK);

	f->mode = 0777;
	f->target = copy(target, strlen(target));
	f->size_bytes = strlen(target);
	f->checksum = ckf_hash64(target, strlen(target));
	return (uint32_t)b->idx.nr_files - 1;
}

uint32_t img_target(struct img_builder *b, uint32_t kind, uint64_t id, uint32_t file,
		    uint32_t parent)
{
	b->idx.targets = grow(b->idx.targets, b->idx.nr_targets, sizeof(*b->idx.targets));
	b->idx.targets[b->idx.nr_targets] = (struct ckf_target){
		.id = id,
		.first_op = b->idx.nr_ops,
		.first_lane = (uint32_t)b->idx.nr_lanes,
		.kind = kind,
		.file = file,
		.parent = parent,
	};
	return (uint32_t)b->idx.nr_targets++;
}

void img_op(struct img_builder *b, uint64_t place, uint32_t chunk, uint16_t first_page,
	    uint16_t nr_pages)
{
	struct ckf_target *t = &b->idx.targets[b->idx.nr_targets - 1];

	b->idx.ops = grow(b->idx.ops, b->idx.nr_ops, sizeof(*b->idx.ops));
	b->idx.ops[b->idx.nr_ops++] = (struct ckf_op){ place, chunk, first_page, nr_pages };
	t->nr_ops++;
	t->nr_pages += nr_pages;
}

/* Whether one of the ops [first, op) is of the same chunk as op. */
static bool chunk_seen(const struct ckf_index *idx, uint64_t first, uint64_t op)
{
	for (uint64_t i = first; i < op; i++) {
		if (idx->ops[i].chunk == idx->ops[op].chunk)
			return true;
	}
	return false;
}

void img_lanes(struct img_builder *b, uint64_t max_ops)
{
	struct ckf_index *idx = &b->idx;
	struct ckf_target *t = &idx->targets[idx->nr_targets - 1];
	uint64_t o = t->first_op;

	if (t->nr_lanes)
		o = idx->lanes[idx->nr_lanes - 1].first_op + idx->lanes[idx->nr_lanes - 1].nr_ops;
	while (o < idx->nr_ops) {
		struct ckf_lane *l;

		idx->lanes = grow(idx->lanes, idx->nr_lanes, sizeof(*idx->lanes));
		l = &idx->lanes[idx->nr_lanes++];
		l->target = (uint32_t)idx->nr_targets - 1;
		l->first_op = o;
		t->nr_lanes++;
		for (; o < idx->nr_ops && (!max_ops || l->nr_ops < max_ops); o++) {
			l->nr_ops++;
			l->fill_bytes += ckf_pages_to_bytes(idx->ops[o].nr_pages);
			if (!chunk_seen(idx, l->first_op, o))
				l->read_bytes += idx->chunks[idx->ops[o].chunk].stored_bytes;
		}
	}
}

void img_huge(struct img_builder *b, uint32_t target, uint64_t addr, uint32_t nr_huge)
{
	b->idx.huge = grow(b->idx.huge, b->idx.nr_huge, sizeof(*b->idx.huge));
	b->idx.huge[b->idx.nr_huge++] = (struct ckf_huge){ addr, nr_huge, target };
}

uint8_t *img_encode(struct img_builder *b, size_t *idx_bytes)
{
	struct ckf_error err = { 0 };
	void *buf;

	need(!ckf_index_encode(&b->idx, &buf, idx_bytes, &err), err.msg);
	ckf_pack_header_encode(&b->idx, (void *)b->pack);
	return buf;
}

static int write_file(int dir_fd, const char *name, const void *p, size_t bytes)
{
	int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
	int ret = 0;

	if (fd < 0)
		return -errno;
	while (bytes && !ret) {
		ssize_t n = write(fd, p, bytes);

		if (n < 0) {
			ret = -errno;
			break;
		}
		p = (const char *)p + n;
		bytes -= (size_t)n;
	}
	close(fd);
	return ret;
}

int img_write(struct img_builder *b, int dir_fd)
{
	size_t idx_bytes;
	uint8_t *buf = img_encode(b, &idx_bytes);
	int ret;

	ret = write_file(dir_fd, CKF_PACK_NAME, b->pack, b->idx.pack_bytes);
	for (uint64_t i = 0; !ret && i < b->idx.nr_files; i++) {
		const struct ckf_file *f = &b->idx.files[i];

		if (f->kind == CKF_FILE_VERBATIM)
			ret = write_file(dir_fd, f->name, b->contents[i], f->size_bytes);
	}
	if (!ret)
		ret = write_file(dir_fd, CKF_IDX_NAME, buf, idx_bytes);
	free(buf);
	return ret;
}

/* Chunk i of b leaves its pack for that of base, where it has the same place. */
static void move_chunk(struct img_builder *b, struct img_builder *base, uint64_t i)
{
	struct ckf_chunk *c = &b->idx.chunks[i];

	base->idx.chunks = grow(base->idx.chunks, base->idx.nr_chunks, sizeof(*c));
	base->idx.chunks[base->idx.nr_chunks++] = *c;
	memcpy(base->pack + c->pack_off, b->pack + c->pack_off, c->stored_bytes);
	memset(b->pack + c->pack_off, 0, c->stored_bytes);
	c->base = 1;
}

void img_to_base(struct img_builder *b, int dir_fd, const char *path)
{
	uint32_t *number = calloc(b->idx.nr_chunks, sizeof(*number));
	struct ckf_chunk *chunks = calloc(b->idx.nr_chunks, sizeof(*chunks));
	struct img_builder base;
	uint32_t n = 0;
	size_t bytes;

	need(number && chunks, "no memory");
	img_init(&base);
	free(base.pack);
	base.pack = calloc(1, b->idx.pack_bytes);
	need(base.pack, "no memory");
	base.idx.pack_bytes = b->idx.pack_bytes;
	base.idx.extent_bytes = b->idx.extent_bytes;
	for (uint64_t i = 1; i < b->idx.nr_chunks; i += 2)
		if (b->idx.chunks[i].codec != CKF_CODEC_ZERO)
			move_chunk(b, &base, i);
	for (uint8_t which = 0; which < 2; which++)
		for (uint64_t i = 0; i < b->idx.nr_chunks; i++)
			if (b->idx.chunks[i].base == which) {
				chunks[n] = b->idx.chunks[i];
				number[i] = n++;
			}
	free(b->idx.chunks);
	b->idx.chunks = chunks;
	for (uint64_t i = 0; i < b->idx.nr_ops; i++)
		b->idx.ops[i].chunk = number[b->idx.ops[i].chunk];
	for (uint64_t i = 0; i < b->idx.nr_refs; i++)
		b->idx.refs[i] = number[b->idx.refs[i]];
	free(number);
	if (dir_fd < 0)
		free(img_encode(&base, &bytes));
	else
		need(!img_write(&base, dir_fd), "cannot write the base");
	b->idx.bases = calloc(1, sizeof(*b->idx.bases));
	need(b->idx.bases, "no memory");
	b->idx.nr_bases = 1;
	b->idx.bases[0].pack_bytes = base.idx.pack_bytes;
	b->idx.bases[0].extent_bytes = base.idx.extent_bytes;
	b->idx.bases[0].path = path;
	memcpy(b->idx.bases[0].image_id, base.idx.image_id, CKF_ID_BYTES);
	img_fini(&base);
}

/* splitmix64 */
uint64_t img_rand(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

uint8_t *img_pages(uint64_t seed, size_t nr_pages)
{
	const size_t bytes = ckf_pages_to_bytes(nr_pages);
	uint8_t *p = malloc(bytes);
	uint64_t word = 0;

	need(p, "no memory");
	for (size_t i = 0; i < bytes; i += sizeof(word)) {
		if (i % 64 == 0)
			word = img_rand(&seed);
		memcpy(p + i, &word, sizeof(word));
	}
	return p;
}

/*
 * chunks	0 zero 1	1 zero 3	2 raw 4		3 lz4 8		4 zstd 8
 *		5 raw 512	6 raw 512, in the second extent
 * files	0 inventory.img	1 pagemap-1.img	2 pagemap-2.img	3 pagemap-shmem-5.img
 *		4 pages-1.img	5 pages-2.img	6 parent
 * targets	0 task 1	1 task 2, child of task 1	2 task 3, no ops	3 shmem 5
 * ops		0-5 of task 1	6-9 of task 2			10-11 of shmem 5
 * lanes	0 ops 0-2	1 ops 3-5	2 ops 6-9	3 ops 10-11
 * huge		0 task 1 2-6M	1 task 1 8-10M	2 task 2 2-4M
 */
void img_sample(struct img_builder *b)
{
	static const uint32_t pages_1[] = { 2, 3, 1 };
	static const uint32_t pages_2[] = { 4 };
	static const struct {
		uint32_t codec;
		uint16_t nr_pages;
	} chunks[] = {
		{ CKF_CODEC_ZERO, 1 },	{ CKF_CODEC_ZERO, 3 }, { CKF_CODEC_RAW, 4 },
		{ CKF_CODEC_LZ4, 8 },	{ CKF_CODEC_ZSTD, 8 }, { CKF_CODEC_RAW, 512 },
		{ CKF_CODEC_RAW, 512 },
	};

	img_init(b);
	for (uint32_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
		uint8_t *pages = img_pages(i, chunks[i].nr_pages);

		img_chunk(b, chunks[i].codec, pages, chunks[i].nr_pages);
		free(pages);
	}
	img_file(b, "inventory.img", "inventory", 9);
	img_file(b, "pagemap-1.img", "one", 3);
	img_file(b, "pagemap-2.img", "two", 3);
	img_file(b, "pagemap-shmem-5.img", "", 0);
	img_pages_file(b, "pages-1.img", pages_1, 3);
	img_pages_file(b, "pages-2.img", pages_2, 1);
	img_link(b, "parent", "../pre");

	img_target(b, CKF_TARGET_TASK, 1, 1, 0);
	img_op(b, 0x10000 | CKF_OP_DIRECT, 2, 0, 4);
	img_op(b, 0x14000, 3, 1, 3);
	img_op(b, 0x17000, 3, 4, 2);
	img_lanes(b, 0);
	img_op(b, 0x200000, 5, 0, 512);
	img_op(b, 0x400000, 5, 0, 512);
	img_op(b, 0x800000, 6, 0, 512);
	img_lanes(b, 0);
	img_target(b, CKF_TARGET_TASK, 2, 2, 1);
	img_op(b, 0x10000 | CKF_OP_INHERIT | CKF_OP_DIRECT, 2, 0, 2);
	img_op(b, 0x12000, 1, 1, 2);
	img_op(b, 0x15000 | CKF_OP_INHERIT, 3, 2, 4);
	img_op(b, 0x200000, 6, 0, 512);
	img_lanes(b, 0);
	img_target(b, CKF_TARGET_TASK, 3, 2, 1);
	img_target(b, CKF_TARGET_SHMEM, 5, 3, 0);
	img_op(b, 0, 4, 0, 8);
	img_op(b, 0x9000, 0, 0, 1);
	img_lanes(b, 0);
	img_huge(b, 0, 0x200000, 2);
	img_huge(b, 0, 0x800000, 1);
	img_huge(b, 1, 0x200000, 1);
}

static uint64_t rand_below(uint64_t *state, uint64_t n)
{
	return img_rand(state) % n;
}

static void random_chunks(struct img_builder *b, uint64_t *s)
{
	const uint64_t nr_zero = rand_below(s, 4);
	const uint64_t nr_stored = 1 + rand_below(s, 40);
	uint16_t nr_pages = 0;

	for (uint64_t i = 0; i < nr_zero; i++) {
		nr_pages = (uint16_t)(nr_pages + 1 + rand_below(s, 30));
		img_chunk_bare(b, CKF_CODEC_ZERO, nr_pages, 0);
	}
	for (uint64_t i = 0; i < nr_stored; i++) {
		const uint32_t codec = CKF_CODEC_RAW + (uint32_t)rand_below(s, 3);
		uint32_t stored_bytes;

		nr_pages = (uint16_t)(rand_below(s, 4) ? 1 + rand_below(s, 511) : 512);
		stored_bytes = (uint32_t)ckf_pages_to_bytes(nr_pages);
		if (codec != CKF_CODEC_RAW)
			stored_bytes = 1 + (uint32_t)rand_below(s, stored_bytes - 1);
		img_chunk_bare(b, codec, nr_pages, stored_bytes);
		b->idx.chunks[b->idx.nr_chunks - 1].checksum = img_rand(s);
	}
}

/* File 0 is verbatim: targets need one. */
static void random_files(struct img_builder *b, uint64_t *s)
{
	const uint64_t nr_files = 1 + rand_below(s, 30);
	bool pages = false;

	for (uint64_t i = 0; i < nr_files; i++) {
		const uint64_t kind = i ? 1 + rand_below(s, 3) : 1;
		char name[32];
		struct ckf_file *f;

		snprintf(name, sizeof(name), "f%03u%.*s", (unsigned int)i, (int)rand_below(s, 16),
			 "\x01\xff name.img-~+=");
		if (kind == CKF_FILE_SYMLINK) {
			img_link(b, name, name);
			continue;
		}
		f = new_file(b, name, (uint8_t)kind);
		f->mtime_sec = (int64_t)img_rand(s);
		f->mtime_nsec = (uint32_t)rand_below(s, 1000000000);
		f->mode = (uint32_t)rand_below(s, 010000);
		f->uid = (uint32_t)img_rand(s);
		f->gid = (uint32_t)img_rand(s);
		f->checksum = img_rand(s);
		if (kind == CKF_FILE_VERBATIM) {
			f->size_bytes = img_rand(s);
			continue;
		}
		pages = true;
		f->first_ref = b->idx.nr_refs;
		f->nr_refs = rand_below(s, 10);
		for (uint64_t r = 0; r < f->nr_refs; r++) {
			const uint32_t chunk = (uint32_t)rand_below(s, b->idx.nr_chunks);

			b->idx.refs = grow(b->idx.refs, b->idx.nr_refs, sizeof(*b->idx.refs));
			b->idx.refs[b->idx.nr_refs++] = chunk;
			f->size_bytes += ckf_pages_to_bytes(b->idx.chunks[chunk].nr_pages);
		}
	}
	b->idx.page_sums = pages && rand_below(s, 2);
}

/* A part of the pages of op o, at the same addresses, for a child of its target. */
static void random_inherit(struct img_builder *b, uint64_t o, uint64_t *s)
{
	const struct ckf_op op = b->idx.ops[o];
	const uint16_t skip = (uint16_t)rand_below(s, op.nr_pages);
	const uint16_t nr_pages = (uint16_t)(1 + rand_below(s, (uint64_t)op.nr_pages - skip));

	img_op(b, (ckf_op_addr(&op) + ckf_pages_to_bytes(skip)) | CKF_OP_INHERIT, op.chunk,
	       (uint16_t)(op.first_page + skip), nr_pages);
}

static void random_ops(struct img_builder *b, uint64_t *s)
{
	const uint64_t nr_ops = rand_below(s, 50);
	uint64_t addr = 0;

	for (uint64_t i = 0; i < nr_ops; i++) {
		const uint32_t chunk = (uint32_t)rand_below(s, b->idx.nr_chunks);
		const struct ckf_chunk *c = &b->idx.chunks[chunk];
		const uint16_t first = (uint16_t)rand_below(s, c->nr_pages);
		const uint16_t nr = (uint16_t)(1 + rand_below(s, (uint64_t)c->nr_pages - first));
		uint32_t flags = 0;

		if (c->codec <= CKF_CODEC_RAW && !rand_below(s, 3))
			flags = CKF_OP_DIRECT;
		if (rand_below(s, 2))
			addr += ckf_pages_to_bytes(rand_below(s, 1000));
		img_op(b, addr | flags, chunk, first, nr);
		addr += ckf_pages_to_bytes(nr);
	}
}

/* A huge range over one op of the target that fills 2 MiB. */
static void random_huge(struct img_builder *b, uint32_t chunk)
{
	const uint64_t addr = 1ull << 40;

	img_op(b, addr, chunk, 0, 512);
	img_op(b, addr + CKF_HUGE_BYTES, chunk, 0, 512);
	img_huge(b, (uint32_t)b->idx.nr_targets - 1, addr, 2);
}

void img_random(struct img_builder *b, uint64_t seed)
{
	uint64_t s = seed;
	uint64_t nr_tasks;
	uint64_t nr_shmem;

	img_init(b);
	b->packed = seed % 2;
	random_chunks(b, &s);
	random_files(b, &s);
	nr_tasks = rand_below(&s, 5);
	nr_shmem = rand_below(&s, 3);
	for (uint64_t i = 0; i < nr_tasks; i++) {
		const uint32_t t = img_target(b, CKF_TARGET_TASK, 10 * i, 0,
					      (uint32_t)rand_below(&s, i + 1));
		const struct ckf_target *parent = NULL;
		const uint32_t last = (uint32_t)b->idx.nr_chunks - 1;

		if (b->idx.targets[t].parent)
			parent = &b->idx.targets[b->idx.targets[t].parent - 1];
		for (uint64_t o = 0; parent && o < parent->nr_ops; o++)
			random_inherit(b, parent->first_op + o, &s);
		if (!parent)
			random_ops(b, &s);
		if (!parent && b->idx.chunks[last].nr_pages == 512)
			random_huge(b, last);
		img_lanes(b, rand_below(&s, 10));
	}
	for (uint64_t i = 0; i < nr_shmem; i++) {
		img_target(b, CKF_TARGET_SHMEM, i, 0, 0);
		random_ops(b, &s);
		img_lanes(b, rand_below(&s, 10));
	}
}

uint8_t *img_join_sections(const uint8_t *header, const struct img_section *sections, uint32_t nr,
			   size_t *idx_bytes)
{
	size_t end = sizeof(struct ckf_disk_header) + nr * sizeof(struct ckf_disk_section);
	struct ckf_disk_header *h;
	struct ckf_disk_section *table;
	uint8_t *buf;

	for (uint32_t i = 0; i < nr; i++)
		end = ckf_align_up(end, 64) + sections[i].count * sections[i].entry_bytes;
	buf = calloc(1, end);
	need(buf, "no memory");
	memcpy(buf, header, sizeof(*h));
	h = (void *)buf;
	h->idx_bytes = ckf_put64(end);
	h->nr_sections = ckf_put32(nr);
	table = (void *)(h + 1);
	*idx_bytes = end;
	end = sizeof(*h) + nr * sizeof(*table);
	for (uint32_t i = 0; i < nr; i++) {
		const uint64_t bytes = sections[i].count * sections[i].entry_bytes;

		end = ckf_align_up(end, 64);
		table[i].type = ckf_put32(sections[i].type);
		table[i].entry_bytes = ckf_put32(sections[i].entry_bytes);
		table[i].offset = ckf_put64(end);
		table[i].count = ckf_put64(sections[i].count);
		if (bytes)
			memcpy(buf + end, sections[i].bytes, bytes);
		end += bytes;
	}
	img_fix_checksums(buf, *idx_bytes);
	return buf;
}

uint32_t img_split_sections(const uint8_t *idx, struct img_section *sections)
{
	const struct ckf_disk_header *h = (const void *)idx;
	const struct ckf_disk_section *table = (const void *)(h + 1);
	const uint32_t nr = ckf_get32(h->nr_sections);

	for (uint32_t i = 0; i < nr; i++) {
		sections[i] = (struct img_section){
			.type = ckf_get32(table[i].type),
			.entry_bytes = ckf_get32(table[i].entry_bytes),
			.count = ckf_get64(table[i].count),
			.bytes = idx + ckf_get64(table[i].offset),
		};
	}
	return nr;
}
