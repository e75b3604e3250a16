/* SPDX-License-Identifier: MIT */
/* The list of members that a fast archive has no more. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckf_io_util.h"
#include "format/ckf_codec.h"
#include "files.h"
#include "img.h"
#include "removed.h"

#define HEADER_BYTES sizeof(struct ckf_disk_removed_header)

int ckf_removed_add(struct ckf_removed_list *l, const struct ckf_removed *r)
{
	int ret = ckf_array_grow(&l->v, l->nr, &l->cap, sizeof(*l->v));

	if (!ret)
		l->v[l->nr++] = *r;
	return ret;
}

static void removed_free(struct ckf_removed *r)
{
	free(r->name);
	free(r->head);
	free(r->tail);
}

void ckf_removed_fini(struct ckf_removed_list *l)
{
	for (uint64_t i = 0; i < l->nr; i++)
		removed_free(&l->v[i]);
	free(l->v);
	memset(l, 0, sizeof(*l));
}

static uint8_t *put(uint8_t *p, const void *data, size_t bytes)
{
	if (bytes)
		memcpy(p, data, bytes);
	return p + bytes;
}

int ckf_removed_encode(const struct ckf_removed_list *l, void **buf, size_t *bytes)
{
	struct ckf_disk_removed_header h = {
		.magic = CKF_REMOVED_MAGIC,
		.version = ckf_put32(CKF_REMOVED_VERSION),
		.compression = ckf_put32(l->compression),
		.nr = ckf_put32((uint32_t)l->nr),
	};
	uint64_t size = HEADER_BYTES;
	uint8_t *p;

	for (uint64_t i = 0; i < l->nr; i++)
		size += sizeof(struct ckf_disk_removed) + strlen(l->v[i].name) +
			l->v[i].head_bytes + l->v[i].tail_bytes;
	if (size > CKF_REMOVED_MAX_BYTES)
		return -E2BIG;
	*buf = p = malloc((size_t)size);
	if (!p)
		return -ENOMEM;
	*bytes = (size_t)size;
	p += HEADER_BYTES;
	for (uint64_t i = 0; i < l->nr; i++) {
		const struct ckf_removed *r = &l->v[i];
		const struct ckf_disk_removed d = {
			.before = ckf_put64(r->before),
			.name_bytes = ckf_put32((uint32_t)strlen(r->name)),
			.head_bytes = ckf_put32(r->head_bytes),
			.tail_bytes = ckf_put32(r->tail_bytes),
		};

		p = put(p, &d, sizeof(d));
		p = put(p, r->name, strlen(r->name));
		p = put(p, r->head, r->head_bytes);
		p = put(p, r->tail, r->tail_bytes);
	}
	p = *buf;
	h.checksum = ckf_put64(ckf_hash64(p + HEADER_BYTES, *bytes - HEADER_BYTES));
	memcpy(p, &h, HEADER_BYTES);
	return 0;
}

/* What is left to decode. */
struct cursor {
	const uint8_t *p;
	size_t left;
};

static int take(struct cursor *c, void *to, size_t bytes)
{
	if (bytes > c->left)
		return -EBADMSG;
	memcpy(to, c->p, bytes);
	c->p += bytes;
	c->left -= bytes;
	return 0;
}

/* A copy, with a NUL behind it. */
static int take_copy(struct cursor *c, uint32_t bytes, void *to)
{
	char *p;

	if (bytes > c->left)
		return -EBADMSG;
	p = malloc((size_t)bytes + 1);
	if (!p)
		return -ENOMEM;
	p[bytes] = '\0';
	memcpy(to, &p, sizeof(p));
	return take(c, p, bytes);
}

static int take_one(struct cursor *c, struct ckf_removed_list *l)
{
	struct ckf_removed r = { 0 };
	struct ckf_disk_removed d;
	int ret = take(c, &d, sizeof(d));

	if (ret)
		return ret;
	r.before = ckf_get64(d.before);
	r.head_bytes = ckf_get32(d.head_bytes);
	r.tail_bytes = ckf_get32(d.tail_bytes);
	if (ckf_get32(d.reserved) || (l->nr && r.before < l->v[l->nr - 1].before))
		return -EBADMSG;
	ret = take_copy(c, ckf_get32(d.name_bytes), &r.name);
	if (!ret && !ckf_name_ok(r.name, ckf_get32(d.name_bytes)))
		ret = -EBADMSG;
	if (!ret)
		ret = take_copy(c, r.head_bytes, &r.head);
	if (!ret)
		ret = take_copy(c, r.tail_bytes, &r.tail);
	if (!ret)
		ret = ckf_removed_add(l, &r);
	if (ret)
		removed_free(&r);
	return ret;
}

static int decode(const void *buf, size_t bytes, struct ckf_removed_list *l)
{
	struct cursor c = { .p = buf, .left = bytes };
	struct ckf_disk_removed_header h;
	int ret = take(&c, &h, sizeof(h));

	if (ret || memcmp(h.magic, CKF_REMOVED_MAGIC, sizeof(h.magic)) != 0)
		return -EBADMSG;
	if (ckf_get32(h.version) != CKF_REMOVED_VERSION)
		return -EOPNOTSUPP;
	if (ckf_get32(h.reserved) || ckf_get64(h.checksum) != ckf_hash64(c.p, c.left))
		return -EBADMSG;
	l->compression = ckf_get32(h.compression);
	for (uint32_t i = 0; i < ckf_get32(h.nr) && !ret; i++)
		ret = take_one(&c, l);
	return !ret && c.left ? -EBADMSG : ret;
}

int ckf_removed_read(const struct ckf_file_part *part, struct ckf_removed_list *l,
		     struct ckf_error *err)
{
	void *buf;
	int ret;

	memset(l, 0, sizeof(*l));
	if (part->bytes > CKF_REMOVED_MAX_BYTES)
		return ckf_error_set(err, -E2BIG, CKF_REMOVED_NAME " of %llu bytes",
				     (unsigned long long)part->bytes);
	buf = malloc((size_t)part->bytes + 1);
	if (!buf)
		return ckf_error_set(err, -ENOMEM, "no memory for " CKF_REMOVED_NAME);
	ret = ckf_pread_all(part->fd, buf, (size_t)part->bytes, part->off);
	if (!ret)
		ret = decode(buf, (size_t)part->bytes, l);
	free(buf);
	if (!ret)
		return 0;
	ckf_removed_fini(l);
	return ckf_error_set(err, ret, CKF_REMOVED_NAME ": %s",
			     ret == -EBADMSG	  ? "corrupt"
			     : ret == -EOPNOTSUPP ? "of a later version of ckfast"
						  : strerror(-ret));
}
