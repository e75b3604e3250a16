/* SPDX-License-Identifier: MIT */
/* Makes the headers of a member of a tar archive. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckf_types.h"
#include "tar.h"
#include "tar_header.h"

#define PAX_NAME "PaxHeaders/%.80s"
#define MAX_OCTAL_BYTES 077777777777ull

static void put_octal(char *field, size_t bytes, uint64_t value)
{
	for (size_t i = bytes - 1; i-- > 0; value >>= 3)
		field[i] = (char)('0' + (value & 7));
	field[bytes - 1] = '\0';
}

/* GNU's base 256, which all readers know, where the digits do not suffice. */
static void put_number(char *field, size_t bytes, uint64_t value)
{
	if (bytes >= 12 ? value <= MAX_OCTAL_BYTES : value < 1u << 21) {
		put_octal(field, bytes, value);
		return;
	}
	for (size_t i = bytes; i-- > 1; value >>= 8)
		field[i] = (char)(value & 0xff);
	field[0] = (char)0x80;
}

static void put_header(struct ckf_tar_header *h, const struct ckf_tar_file *f, char type,
		       uint64_t bytes)
{
	const uint8_t *p = (const uint8_t *)h;
	uint32_t sum = 0;

	put_octal(h->mode, sizeof(h->mode), f->mode);
	put_number(h->uid, sizeof(h->uid), f->uid);
	put_number(h->gid, sizeof(h->gid), f->gid);
	put_number(h->bytes, sizeof(h->bytes), bytes);
	put_octal(h->mtime, sizeof(h->mtime), f->mtime_sec > 0 ? (uint64_t)f->mtime_sec : 0);
	h->type = type;
	memcpy(h->magic, "ustar", 6);
	memcpy(h->version, "00", 2);
	memset(h->checksum, ' ', sizeof(h->checksum));
	for (size_t i = 0; i < sizeof(*h); i++)
		sum += p[i];
	snprintf(h->checksum, sizeof(h->checksum) - 1, "%06o", sum);
	h->checksum[6] = '\0';
	h->checksum[7] = ' ';
}

/* One record of bytes bytes in all. */
static void put_comment(char *p, size_t bytes)
{
	int n = sprintf(p, "%zu comment=", bytes);

	memset(p + n, ' ', bytes - (size_t)n - 1);
	p[bytes - 1] = '\n';
}

int ckf_tar_make_headers(const struct ckf_tar_file *f, uint64_t off, uint32_t align, void **headers,
			 size_t *bytes)
{
	/* With a pax header, there are at least three blocks. */
	size_t pad = (size_t)(ckf_align_up(off + 3 * CKF_TAR_BLOCK, align) - off) -
		     2 * CKF_TAR_BLOCK;
	bool aligned = !((off + CKF_TAR_BLOCK) % align);
	struct ckf_tar_header *h;
	char *p;

	if (strlen(f->name) > sizeof(h->name))
		return -E2BIG;
	*bytes = CKF_TAR_BLOCK + (aligned ? 0 : CKF_TAR_BLOCK + pad);
	*headers = p = calloc(1, *bytes);
	if (!p)
		return -ENOMEM;
	if (!aligned) {
		h = (struct ckf_tar_header *)p;
		snprintf(h->name, sizeof(h->name), PAX_NAME, f->name);
		put_header(h, f, 'x', pad);
		put_comment(p + CKF_TAR_BLOCK, pad);
		p += CKF_TAR_BLOCK + pad;
	}
	h = (struct ckf_tar_header *)p;
	memcpy(h->name, f->name, strlen(f->name));
	put_header(h, f, CKF_TAR_FILE, f->bytes);
	return 0;
}
