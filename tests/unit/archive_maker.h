/* SPDX-License-Identifier: MIT */
/*
 * Makes checkpoint archives for tests, member by member, and converts them. What fails ends the
 * test.
 */
#ifndef CKF_TEST_ARCHIVE_MAKER_H
#define CKF_TEST_ARCHIVE_MAKER_H

#include <stddef.h>
#include <stdint.h>

#include "convert/tar_header.h"
#include "ckfast.h"

#define AM_BASE 0x7f0000000000ull
#define AM_BLOCK 512u
#define AM_PAGES 3u /* of each of the two tasks */
#define AM_NR_NAMES 10u

struct am_tar {
	uint8_t *p;
	size_t bytes;
};

/* A directory with a dump, and the paths of archives in it. tar is what is made of the dump. */
struct am_env {
	char base[64];
	char dump[96];
	char in[96];
	char fast[96];
	char back[96];
	int dir; /* the dump */
	struct am_tar tar;
};

extern const char *const am_names[AM_NR_NAMES]; /* the files of the dump */
extern const struct ckf_convert_opts am_one_thread;

/* More zeros at the end; where they are. */
void *am_extend(struct am_tar *t, size_t bytes);
/* Puts the checksum of a header right. */
void am_fix_sum(void *block);
/* A header that says that so many bytes follow. */
struct ckf_tar_header *am_add_header(struct am_tar *t, const char *name, char type, uint64_t bytes);
void am_add_data(struct am_tar *t, const void *p, size_t bytes);
void am_add(struct am_tar *t, const char *name, char type, const void *p, size_t bytes);
void am_add_text(struct am_tar *t, const char *name, char type, const char *s);
void am_add_link(struct am_tar *t, const char *name, char type, const char *target);
/* A pax header of one record for the next member. */
void am_add_pax(struct am_tar *t, char type, const char *key, const char *value);
/* A file of the dump, in checkpoint/ as prefix spells it. */
void am_add_file(const struct am_env *e, struct am_tar *t, const char *prefix, const char *name);
void am_add_dump(const struct am_env *e, struct am_tar *t, const char *prefix);
void am_add_end(struct am_tar *t);
/* Compresses it; how long it is then. */
size_t am_gzip(const struct am_tar *t, uint8_t *to, size_t room);
void am_write_file(const char *path, const void *p, size_t bytes);
void am_read_file(const char *path, struct am_tar *t);
/* Writes the archive to in. */
void am_save(const struct am_env *e);
/* For cmocka. */
int am_setup(void **state);
int am_teardown(void **state);
/* in to fast, and fast to back. */
int am_convert(const struct am_env *e, struct ckf_error *err);
int am_extract(const struct am_env *e, struct ckf_error *err);
/* The directory base has that many entries, hidden ones too. */
void am_has_entries(const struct am_env *e, unsigned int want);
/* What is at back is the archive. */
void am_same_back(const struct am_env *e);
/* Where the bytes of a file of checkpoint/ are, in what was read of fast. */
uint8_t *am_find(const struct am_env *e, struct am_tar *t, const char *name, uint64_t *bytes);
/* Makes a fast archive of the dump, and reads it. */
void am_make_fast(struct am_env *e, struct am_tar *fast);

#endif
