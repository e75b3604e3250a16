/* SPDX-License-Identifier: MIT */
/*
 * Builds small fast images in memory, for tests.
 *
 * Things are added in the order that SPEC.md wants them in (zero chunks by length, then the others;
 * files by name; targets by kind and id; the ops of a target by address). Nothing is checked:
 *broken images are made by adding broken things. Lack of memory ends the program.
 *
 *	struct img_builder b;
 *
 *	img_init(&b);
 *	raw = img_chunk(&b, CKF_CODEC_RAW, pages, 4);
 *	file = img_file(&b, "pagemap-1.img", "x", 1);
 *	img_target(&b, CKF_TARGET_TASK, 1, file, 0);
 *	img_op(&b, 0x10000, raw, 0, 4);
 *	img_lanes(&b, 0);
 *	img_write(&b, dir_fd);
 *	img_fini(&b);
 */
#ifndef CKF_TEST_IMG_BUILDER_H
#define CKF_TEST_IMG_BUILDER_H

#include "format/ckf_codec.h"
#include "format/ckf_index.h"
#include "img_fix.h"

struct img_builder {
	struct ckf_index idx; /* may be changed at will between the calls */
	uint8_t *pack;	      /* idx.pack_bytes of them, header included once encoded */
	uint64_t pack_room;   /* doubles: realloc() may copy all each time */
	void **contents;      /* of each verbatim file */
	struct ckf_codec_ctx *codecs;
	uint64_t end; /* of the last chunk in the pack */
	bool packed;  /* chunks that are not raw follow it without a gap; else on a page */
};

/* 4 MiB extents, chunks of up to 512 pages. */
void img_init(struct img_builder *b);
void img_fini(struct img_builder *b);

/*
 * Adds a chunk with the given pages (NULL for codec zero), which have to compress for lz4 and
 * zstd, and puts it into the pack. Returns its number.
 */
uint32_t img_chunk(struct img_builder *b, uint32_t codec, const void *pages, uint16_t nr_pages);

/* The same without contents in the pack, for tests that need nothing but an index. */
uint32_t img_chunk_bare(struct img_builder *b, uint32_t codec, uint16_t nr_pages,
			uint32_t stored_bytes);

/*
 * Adds chunk i of those that share pages: several on one page, a raw one between them, and one that
 * is as long as a chunk may be and begins and ends within a page, so that it lies on a page more
 * than it decodes to. *nr_pages: its length; pages must have room for the longest, and gets it.
 */
#define IMG_TIGHT_CHUNKS 11
#define IMG_TIGHT_LONGEST 9
uint32_t img_tight_chunk(struct img_builder *b, unsigned int i, uint8_t *pages, uint16_t *nr_pages);

/* Adds a verbatim file, a file of chunks, a symbolic link; returns its position. */
uint32_t img_file(struct img_builder *b, const char *name, const void *contents, size_t bytes);
uint32_t img_pages_file(struct img_builder *b, const char *name, const uint32_t *chunks,
			size_t nr_chunks);
uint32_t img_link(struct img_builder *b, const char *name, const char *target);

/* Adds a target; the ops added next are its. parent: 0, or 1 + position. Returns its position. */
uint32_t img_target(struct img_builder *b, uint32_t kind, uint64_t id, uint32_t file,
		    uint32_t parent);
void img_op(struct img_builder *b, uint64_t place, uint32_t chunk, uint16_t first_page,
	    uint16_t nr_pages);
/* Cuts the ops that the last target has got since its last lane into lanes of up to max_ops (0: one
 * lane). */
void img_lanes(struct img_builder *b, uint64_t max_ops);
void img_huge(struct img_builder *b, uint32_t target, uint64_t addr, uint32_t nr_huge);

/* Encodes the index into a malloc()ed buffer and puts the header into b->pack. */
uint8_t *img_encode(struct img_builder *b, size_t *idx_bytes);

/* Encodes, and writes the whole image into a directory. 0 or -errno. */
int img_write(struct img_builder *b, int dir_fd);

/*
 * The sample: every kind of entry that SPEC.md knows, few of each; img_builder.c draws it. Tests
 * rely on the positions given there.
 */
void img_sample(struct img_builder *b);

/* A valid index with random contents and nothing in its pack. */
void img_random(struct img_builder *b, uint64_t seed);

/*
 * Moves every second stored chunk into an image of its own, made in dir_fd (-1: nowhere), which
 * becomes a base of b at path. Chunks get other numbers, and all that name them follow.
 */
void img_to_base(struct img_builder *b, int dir_fd, const char *path);

/* A step of a small generator with a visible seed. */
uint64_t img_rand(uint64_t *state);

/* nr_pages pages that compress but differ from each other; free() them. */
uint8_t *img_pages(uint64_t seed, size_t nr_pages);

/* A section of an encoded index by itself. */
struct img_section {
	uint32_t type;
	uint32_t entry_bytes;
	uint64_t count;
	const void *bytes;
};

/*
 * Puts header (128 bytes, of another index) and sections together by the layout of SPEC.md 3.2,
 * with idx_bytes, nr_sections and checksums set. malloc()ed.
 */
uint8_t *img_join_sections(const uint8_t *header, const struct img_section *sections, uint32_t nr,
			   size_t *idx_bytes);
/* The sections of a valid index, in order; at most CKF_MAX_SECTIONS. Returns their number. */
uint32_t img_split_sections(const uint8_t *idx, struct img_section *sections);

#endif
