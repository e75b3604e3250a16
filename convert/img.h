/* SPDX-License-Identifier: MIT */
/*
 * CRIU image files: a magic, then records of a 32-bit length and a protobuf message.
 *
 * Private to convert/. A reader holds one file and one record at a time, whatever their size, and
 * belongs to one thread.
 */
#ifndef CKF_CONVERT_IMG_H
#define CKF_CONVERT_IMG_H

#include <protobuf-c/protobuf-c.h>

#include "base/ckf_array.h"
#include "ckf_dump.h"
#include "packing.h"

#define CKF_PAGEMAP_MAGIC 0x56084025u /* criu/include/magic.h */
#define CKF_PSTREE_MAGIC 0x50273030u
#define CKF_CORE_MAGIC 0x55053847u
#define CKF_MM_MAGIC 0x57492820u
#define CKF_INVENTORY_MAGIC 0x58313116u
#define CKF_IDS_MAGIC 0x54432030u
#define CKF_FS_MAGIC 0x51403912u
#define CKF_FILES_MAGIC 0x56303138u
#define CKF_REMAP_MAGIC 0x59133954u
#define CKF_MNTS_MAGIC 0x55563928u
#define CKF_TTY_INFO_MAGIC 0x59453036u
#define CKF_FILE_LOCKS_MAGIC 0x54323616u
#define CKF_CPUINFO_MAGIC 0x61404013u
#define CKF_MEMFD_INODE_MAGIC 0x48453499u
#define CKF_IPCNS_SHM_MAGIC 0x46283044u

/* A record of more bytes is refused: the largest real one is an mm with its VMAs. */
#define CKF_IMG_MAX_RECORD_BYTES (64u << 20)

struct ckf_img {
	struct ckf_file_part part;
	char *name;
	uint64_t read_off; /* of the next byte to read into buf */
	uint64_t off;	   /* of the next byte to take out of buf */
	uint64_t rec_off;  /* of the record that was taken last */
	int64_t rec;	   /* its number, from 0; -1 before the first */
	uint8_t *buf;
	size_t buf_bytes;
	size_t first; /* part of buf that was read and not taken */
	size_t last;
	/*
	 * To unpack records with. protobuf-c gives one answer to a message that is corrupt and to a
	 * lack of memory: this one remembers the latter, for ckf_img_bad().
	 */
	ProtobufCAllocator alloc;
	bool no_memory;
};

/*
 * Opens a regular file and checks its magic. -ENOENT leaves err alone, so that the caller may go
 * on without the file. ckf_img_close() takes a zeroed or failed struct.
 */
int ckf_img_open(struct ckf_img *im, const struct ckf_dir *dir, const char *name, uint32_t magic,
		 struct ckf_error *err);
void ckf_img_close(struct ckf_img *im);
/* Whether a file is an image of CRIU, by its name and its first bytes. */
bool ckf_img_is_criu(const struct ckf_dir *dir, const char *name);
/* Takes the one record of a file. What it says of it is said by ckf_img_bad(). */
typedef int ckf_img_take_fn(struct ckf_img *im, void *arg, const uint8_t *record, size_t bytes,
			    struct ckf_error *err);
/*
 * Reads a file of another form: 8 bytes that say how long its one record is, and the record. What
 * follows is not read. 0 also when something is wrong with it, which *bad tells of: a record of
 * more than most bytes, and a link that leads nowhere, are unsupported. -ENOMEM, -EIO….
 */
int ckf_img_read_sized(const struct ckf_dir *dir, const char *name, uint64_t most,
		       ckf_img_take_fn *take, void *arg, struct ckf_error *bad,
		       struct ckf_error *err);

/* 1 with the next record, valid until the next call; 0 at the end; -errno. */
int ckf_img_next(struct ckf_img *im, const uint8_t **record, size_t *bytes, struct ckf_error *err);

/*
 * Says that the record that was taken last is corrupt (or, by code, unsupported); or, when memory
 * was lacking while it was unpacked, that: -ENOMEM.
 */
int ckf_img_bad(const struct ckf_img *im, int code, struct ckf_error *err, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/*
 * A count that a message gives of its own entries. Who trusts one that is too large reads beyond
 * them, which is corrupt; one that is too small is unsupported.
 */
int ckf_img_check_count(const struct ckf_img *im, const char *what, uint64_t count,
			uint64_t entries, struct ckf_error *err);

/*
 * Opens a regular file of a dump for reading: 0 or -errno. Links are followed
 * where CRIU follows them: from the names of images.
 */
int ckf_open_of_dump(const struct ckf_dir *dir, const char *name, struct ckf_file_part *out);
/* The same with err set; -ENOENT leaves it alone. */
int ckf_open_img(const struct ckf_dir *dir, const char *name, struct ckf_file_part *out,
		 struct ckf_error *err);

/* Decimal digits without leading zeros, up to ".img" at the end of the name. */
bool ckf_img_id_parse(const char *s, uint64_t max, uint64_t *id);

/* The entries of one pagemap file, one after the other. */
struct ckf_pagemap_reader {
	struct ckf_img img;
	uint32_t pages_id;
	uint64_t prev_end;
	/* Of the entries so far, and who wants it sets it to NULL; none in an image. */
	struct ckf_packing *packing;
};

/* -ENOENT leaves err alone. */
int ckf_pagemap_reader_open(struct ckf_pagemap_reader *r, const struct ckf_dir *dir,
			    const char *name, bool in_image, struct ckf_error *err);
void ckf_pagemap_reader_close(struct ckf_pagemap_reader *r);
/* 1 with the next run (never empty, in ascending order), 0 at the end, -errno. */
int ckf_pagemap_reader_next(struct ckf_pagemap_reader *r, struct ckf_run *run,
			    struct ckf_error *err);

/* Finds the shared memory of a dump whose tasks have been read. */
int ckf_dump_read_shmids(struct ckf_dump *d, struct ckf_error *err);
/* False when the pagemap of this shared memory is left of an older dump. */
bool ckf_dump_has_shmem(const struct ckf_dump *d, uint64_t shmid);

/* True when name is that of a pagemap file; kind and id say of what. */
bool ckf_pagemap_name_parse(const char *name, uint32_t *kind, uint64_t *id);

#endif
