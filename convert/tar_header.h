/* SPDX-License-Identifier: MIT */
/* The header of a member of a tar archive: POSIX.1-2001, pax, "ustar Interchange Format". */
#ifndef CKF_CONVERT_TAR_HEADER_H
#define CKF_CONVERT_TAR_HEADER_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

/* Numbers are octal digits, ended by a space or a NUL. */
struct ckf_tar_header {
	char name[100];
	char mode[8];
	char uid[8];
	char gid[8];
	char bytes[12];
	char mtime[12];
	char checksum[8]; /* the sum of all bytes, these being spaces */
	char type;
	char link[100];
	char magic[6];
	char version[2];
	char user[32];
	char group[32];
	char major[8];
	char minor[8];
	char prefix[155];
	char pad[12];
};
static_assert(sizeof(struct ckf_tar_header) == 512, "a block");
static_assert(offsetof(struct ckf_tar_header, magic) == 257, "POSIX");
static_assert(offsetof(struct ckf_tar_header, prefix) == 345, "POSIX");

/* The value of a field, octal or GNU's base 256: 0 or -EBADMSG. */
int ckf_tar_get_number(const char *field, size_t bytes, uint64_t *value);

#endif
