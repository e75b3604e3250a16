/* SPDX-License-Identifier: MIT */
/*
 * The decoded index: ckfast.idx as native structs.
 *
 * ckf_index_decode() is the only validator: what it returns has passed every rule of SPEC.md that
 * the index alone can show, and later code trusts it without checking again. ckf_index_encode() is
 * its inverse. Both are pure: no files, no threads, no printing. An index is read-only once
 * decoded and may be shared by threads.
 */
#ifndef CKF_INDEX_H
#define CKF_INDEX_H

#include "ckf_disk.h"
#include "base/ckf_error.h"

struct ckf_chunk {
	uint64_t pack_off;
	uint64_t checksum;
	uint32_t stored_bytes;
	uint16_t nr_pages;
	uint8_t codec; /* enum ckf_codec */
	uint8_t base;  /* 0: in the own pack; n: in that of bases[n - 1] */
};

/* Another fast image, whose pack holds some of the chunks. */
struct ckf_base {
	uint8_t image_id[CKF_ID_BYTES];
	uint64_t pack_bytes;
	uint32_t extent_bytes;
	const char *path; /* from the image directory; zero-terminated, owned by the index */
};

struct ckf_file {
	uint64_t size_bytes;
	uint64_t checksum;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	uint32_t mode; /* permission bits only */
	uint32_t uid;
	uint32_t gid;
	uint64_t first_ref;
	uint64_t nr_refs;
	uint64_t head;	    /* of CKF_FILE_HEADED_PAGES, else 0 */
	const char *name;   /* zero-terminated, owned by the index */
	const char *target; /* of a symbolic link, else NULL; owned by the index */
	uint8_t kind;	    /* enum ckf_file_kind */
};

struct ckf_target {
	uint64_t id;
	uint64_t nr_pages;
	uint64_t first_op;
	uint64_t nr_ops;
	uint32_t first_lane;
	uint32_t nr_lanes;
	uint32_t kind;	 /* enum ckf_target_kind */
	uint32_t file;	 /* of the pagemap, in files[] */
	uint32_t parent; /* 0, or 1 + position in targets[] */
};

struct ckf_op {
	uint64_t place; /* address | flags: use the accessors */
	uint32_t chunk;
	uint16_t first_page;
	uint16_t nr_pages;
};

struct ckf_lane {
	uint64_t first_op;
	uint64_t nr_ops;
	uint64_t read_bytes;
	uint64_t fill_bytes;
	uint32_t target;
};

struct ckf_huge {
	uint64_t addr;
	uint32_t nr_huge;
	uint32_t target;
};

struct ckf_index {
	uint64_t incompat;
	uint64_t compat;
	uint64_t pack_bytes;
	uint32_t extent_bytes;
	uint32_t max_chunk_pages;
	uint16_t version_major;
	uint16_t version_minor;
	bool page_sums; /* the checksums of pages files are those of the hashes of their pages */
	uint8_t image_id[CKF_ID_BYTES]; /* set by decode and by encode */
	struct ckf_storage storage;

	struct ckf_chunk *chunks;
	uint64_t nr_chunks;
	uint64_t nr_own_chunks; /* those of base 0, which come first; set by decode */
	uint32_t *refs;
	uint64_t nr_refs;
	struct ckf_file *files;
	uint64_t nr_files;
	struct ckf_target *targets;
	uint64_t nr_targets;
	struct ckf_op *ops;
	uint64_t nr_ops;
	struct ckf_lane *lanes;
	uint64_t nr_lanes;
	struct ckf_huge *huge;
	uint64_t nr_huge;
	struct ckf_base *bases;
	uint32_t nr_bases;
	char *strings;	    /* backing of the names; private to format/ for a decoded index */
	char *base_strings; /* likewise, of the paths of the bases */
	void *shared;	    /* of ckf_index_share(); private to format/ */
	uint64_t shared_bytes;
};

/* True for the files whose contents are chunks. */
static inline bool ckf_file_has_pages(const struct ckf_file *f)
{
	return f->kind == CKF_FILE_PAGES || f->kind == CKF_FILE_SIZED_PAGES ||
	       f->kind == CKF_FILE_HEADED_PAGES || f->kind == CKF_FILE_CUT_PAGES;
}

/* Where the pages begin in such a file, and how many bytes they have: one that is cut has more. */
static inline uint64_t ckf_file_head_bytes(const struct ckf_file *f)
{
	return f->kind == CKF_FILE_SIZED_PAGES || f->kind == CKF_FILE_HEADED_PAGES
		       ? CKF_SIZED_HEAD_BYTES
		       : 0;
}

static inline uint64_t ckf_file_page_bytes(const struct ckf_file *f)
{
	return ckf_align_up(f->size_bytes - ckf_file_head_bytes(f), CKF_PAGE_BYTES);
}

/* What these files begin with: a number that is the length of the pages, or any. */
static inline uint64_t ckf_file_head(const struct ckf_file *f)
{
	return f->kind == CKF_FILE_HEADED_PAGES ? f->head : ckf_file_page_bytes(f);
}

static inline uint64_t ckf_op_addr(const struct ckf_op *op)
{
	return op->place & ~(uint64_t)(CKF_PAGE_BYTES - 1);
}

static inline uint32_t ckf_op_flags(const struct ckf_op *op)
{
	return (uint32_t)(op->place & (CKF_PAGE_BYTES - 1));
}

static inline uint64_t ckf_op_end(const struct ckf_op *op)
{
	return ckf_op_addr(op) + ckf_pages_to_bytes(op->nr_pages);
}

/*
 * Checks and decodes the idx_bytes at buf, which the caller keeps and may free afterwards. On
 * success *out is to be freed with ckf_index_free(). -EBADMSG, -EOPNOTSUPP or -ENOMEM.
 */
int ckf_index_decode(const void *buf, size_t idx_bytes, struct ckf_index **out,
		     struct ckf_error *err);
void ckf_index_free(struct ckf_index *idx);

/*
 * Moves the tables of a decoded index, but for targets, into memory that fork() does not copy:
 * every page and every mapping of a process makes each of its forks longer. Before any other thread
 * or process has the index. -ENOMEM, and nothing has changed.
 */
int ckf_index_share(struct ckf_index *idx);

/*
 * Encodes idx, sets idx->image_id, and hands over a malloc()ed buffer. Sets the incompat bits by
 * the chunks and targets that there are. The caller has filled in every array by the rules of
 * SPEC.md; encode does not validate (tests use it to make broken images). nr_targets etc. may be 0
 * and the arrays then NULL. -ENOMEM.
 */
int ckf_index_encode(struct ckf_index *idx, void **buf, size_t *idx_bytes, struct ckf_error *err);

/*
 * The pack header for idx (after encode set its id), and the check of one read from a file.
 * ckf_base_header_check() is for the pack of a base: -ESTALE when it is that of another image.
 */
void ckf_pack_header_encode(const struct ckf_index *idx, struct ckf_disk_pack_header *out);
int ckf_pack_header_check(const struct ckf_index *idx, const struct ckf_disk_pack_header *h,
			  struct ckf_error *err);
int ckf_base_header_check(const struct ckf_base *base, const struct ckf_disk_pack_header *h,
			  struct ckf_error *err);

/* Position in targets[], or -ENOENT. */
int64_t ckf_index_find_target(const struct ckf_index *idx, uint32_t kind, uint64_t id);

/* Position of the first op of t that ends above addr, or t->first_op + t->nr_ops. */
uint64_t ckf_index_find_op(const struct ckf_index *idx, const struct ckf_target *t, uint64_t addr);

/* What the ops of a target fill of a range of 2 MiB. */
struct ckf_huge_part {
	uint64_t addr; /* of the range */
	uint32_t nr_pages;
	uint32_t flags; /* of any of these ops */
};
/* fn for each range that ops of t fill a page of, ascending, until it returns other than 0. */
int ckf_index_each_huge(const struct ckf_index *idx, const struct ckf_target *t,
			int (*fn)(void *arg, const struct ckf_huge_part *part), void *arg);

/* True when name is fit for an entry of section files (SPEC.md 4.4). */
bool ckf_name_ok(const char *name, size_t len);

/* True when path is one that a base may have (SPEC.md 4.9). */
bool ckf_base_path_ok(const char *path, size_t len);

#define CKF_ID_HEX_BYTES (2 * CKF_ID_BYTES + 1)
/* An image id in hexadecimal. Returns buf. */
const char *ckf_id_hex(const uint8_t id[CKF_ID_BYTES], char buf[CKF_ID_HEX_BYTES]);

#endif
