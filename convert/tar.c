/* SPDX-License-Identifier: MIT */
/* Reads the headers of a tar archive. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckf_io_util.h"
#include "base/ckf_types.h"
#include "tar.h"
#include "tar_header.h"

#define GNU_SPARSE_OFF 482 /* a byte: more blocks with a map follow the header */
#define GNU_MORE_OFF 504   /* the same in these blocks */

/* What extended headers say of the next member; NULL and false: nothing. */
struct extended {
	char *name;
	char *link;
	uint64_t bytes;
	uint64_t uid;
	uint64_t gid;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	bool has_bytes;
	bool has_uid;
	bool has_gid;
	bool has_mtime;
	bool sparse;
};

static void extended_fini(struct extended *x)
{
	free(x->name);
	free(x->link);
}

static int bad(const struct ckf_tar *t, struct ckf_error *err, const char *what)
{
	return ckf_error_rule(err, -EBADMSG, "archive", -1, t->off, "%s", what);
}

bool ckf_tar_is_header(const void *block)
{
	const struct ckf_tar_header *h = block;
	const uint8_t *p = block;
	uint64_t want, sum = 0;
	size_t at;

	for (size_t i = 0; i < CKF_TAR_BLOCK; i++) {
		at = i - offsetof(struct ckf_tar_header, checksum);
		sum += at < sizeof(h->checksum) ? ' ' : p[i];
	}
	return !ckf_tar_get_number(h->checksum, sizeof(h->checksum), &want) && want == sum;
}

int ckf_tar_get_number(const char *field, size_t bytes, uint64_t *value)
{
	const uint8_t *p = (const uint8_t *)field;
	size_t i = 0;

	*value = 0;
	if (p[0] == 0x80) { /* base 256, not negative */
		for (i = 1; i < bytes; i++) {
			if (*value >> 56)
				return -EBADMSG;
			*value = *value << 8 | p[i];
		}
		return 0;
	}
	while (i < bytes && p[i] == ' ')
		i++;
	for (; i < bytes && p[i] >= '0' && p[i] <= '7'; i++) {
		if (*value >> 61)
			return -EBADMSG;
		*value = *value << 3 | (uint64_t)(p[i] - '0');
	}
	for (; i < bytes; i++) {
		if (p[i] != ' ' && p[i])
			return -EBADMSG;
	}
	return 0;
}

/* Decimal digits up to end. */
static int parse_decimal(const char *s, const char *end, uint64_t *value)
{
	*value = 0;
	if (s == end)
		return -EBADMSG;
	for (; s < end; s++) {
		if (*s < '0' || *s > '9' || *value > (UINT64_MAX - 9) / 10)
			return -EBADMSG;
		*value = *value * 10 + (uint64_t)(*s - '0');
	}
	return 0;
}

/* Seconds with a fraction; digits behind the ninth do not count. */
static int parse_time(const char *s, const char *end, struct extended *x)
{
	bool negative = s < end && *s == '-';
	const char *dot;
	uint64_t sec;
	uint32_t nsec = 0, unit = 100000000;

	s += negative;
	dot = memchr(s, '.', (size_t)(end - s));
	if (parse_decimal(s, dot ? dot : end, &sec) || sec > INT64_MAX / 2)
		return -EBADMSG;
	for (s = dot ? dot + 1 : end; s < end; s++, unit /= 10) {
		if (*s < '0' || *s > '9')
			return -EBADMSG;
		nsec += unit * (uint32_t)(*s - '0');
	}
	x->mtime_sec = negative ? -(int64_t)sec - (nsec != 0) : (int64_t)sec;
	x->mtime_nsec = negative && nsec ? 1000000000 - nsec : nsec;
	x->has_mtime = true;
	return 0;
}

static int take_string(char **to, const char *s, const char *end)
{
	if (s == end || memchr(s, '\0', (size_t)(end - s)))
		return -EBADMSG;
	free(*to);
	*to = strndup(s, (size_t)(end - s));
	return *to ? 0 : -ENOMEM;
}

static bool has_key(const char *key, size_t len, const char *want)
{
	return len == strlen(want) && !memcmp(key, want, len);
}

static int take_record(struct extended *x, const char *key, size_t len, const char *s,
		       const char *end)
{
	if (has_key(key, len, "path"))
		return take_string(&x->name, s, end);
	if (has_key(key, len, "linkpath"))
		return take_string(&x->link, s, end);
	if (has_key(key, len, "size")) {
		x->has_bytes = true;
		return parse_decimal(s, end, &x->bytes);
	}
	if (has_key(key, len, "uid")) {
		x->has_uid = true;
		return parse_decimal(s, end, &x->uid);
	}
	if (has_key(key, len, "gid")) {
		x->has_gid = true;
		return parse_decimal(s, end, &x->gid);
	}
	/* Python writes 1e-09, which no standard knows: the time of the plain header counts. */
	if (has_key(key, len, "mtime"))
		x->has_mtime = !parse_time(s, end, x);
	if (len >= 10 && !memcmp(key, "GNU.sparse", 10))
		x->sparse = true;
	return 0;
}

/* Records are "LENGTH KEY=VALUE\n", LENGTH being that of all of it. */
static int take_records(struct extended *x, const char *p, size_t bytes)
{
	const char *end = p + bytes, *space, *equals;
	uint64_t len;
	int ret;

	while (p < end) {
		space = memchr(p, ' ', (size_t)(end - p));
		if (!space || space - p > 20 || parse_decimal(p, space, &len) ||
		    len > (uint64_t)(end - p) || len < (uint64_t)(space - p) + 3 ||
		    p[len - 1] != '\n')
			return -EBADMSG;
		equals = memchr(space, '=', (size_t)(p + len - space));
		if (!equals)
			return -EBADMSG;
		ret = take_record(x, space + 1, (size_t)(equals - space - 1), equals + 1,
				  p + len - 1);
		if (ret)
			return ret;
		p += len;
	}
	return 0;
}

/* The bytes of an extended header, and a NUL behind them. */
static int read_extended(struct ckf_tar *t, uint64_t bytes, char **out, struct ckf_error *err)
{
	int ret;

	if (bytes > CKF_TAR_MAX_EXTENDED_BYTES)
		return ckf_error_rule(err, -E2BIG, "archive", -1, t->off,
				      "an extended header of %llu bytes",
				      (unsigned long long)bytes);
	*out = malloc((size_t)bytes + 1);
	if (!*out)
		return ckf_error_set(err, -ENOMEM, "no memory for an extended header");
	ret = ckf_pread_all(t->fd, *out, (size_t)bytes, t->off);
	(*out)[bytes] = '\0';
	if (!ret)
		return 0;
	free(*out);
	return ret == -EBADMSG
		       ? bad(t, err, "it ends within an extended header")
		       : ckf_error_set(err, ret, "cannot read the archive: %s", strerror(-ret));
}

/* The data of a header at t->off, and its padding, lie in the archive. */
static int check_fits(const struct ckf_tar *t, uint64_t bytes, struct ckf_error *err)
{
	if (bytes > t->bytes - t->off || ckf_align_up(bytes, CKF_TAR_BLOCK) > t->bytes - t->off)
		return bad(t, err, "it is truncated: the bytes of a member end behind it");
	return 0;
}

static int take_extended(struct ckf_tar *t, char type, uint64_t bytes, struct extended *x,
			 struct ckf_error *err)
{
	char *p = NULL;
	int ret = check_fits(t, bytes, err);

	if (!ret)
		ret = read_extended(t, bytes, &p, err);
	if (ret)
		return ret;
	if (type == 'x' || type == CKF_TAR_GLOBAL)
		ret = take_records(x, p, (size_t)bytes);
	else /* GNU: a name, ended by a NUL */
		ret = take_string(type == 'L' ? &x->name : &x->link, p, p + strlen(p));
	free(p);
	if (ret == -ENOMEM)
		return ckf_error_set(err, ret, "no memory for a name");
	if (ret)
		return bad(t, err, "an extended header that says nothing");
	t->off += ckf_align_up(bytes, CKF_TAR_BLOCK);
	return 0;
}

/* A block at t->off: 1, 0 for zeros, which end the archive, or an error. */
static int read_block(struct ckf_tar *t, void *block, struct ckf_error *err)
{
	static const char zeros[CKF_TAR_BLOCK];
	int ret;

	if (t->off == t->bytes)
		return 0;
	if (t->bytes - t->off < CKF_TAR_BLOCK)
		return bad(t, err, "it is truncated: a part of a header is left");
	ret = ckf_pread_all(t->fd, block, CKF_TAR_BLOCK, t->off);
	if (ret)
		return ckf_error_set(err, ret, "cannot read the archive: %s", strerror(-ret));
	return memcmp(block, zeros, sizeof(zeros)) != 0;
}

/* Readers do not agree on what a member behind a single block of zeros is. */
static int check_end(struct ckf_tar *t, struct ckf_error *err)
{
	struct ckf_tar second = *t;
	char block[CKF_TAR_BLOCK];
	int ret;

	if (t->off == t->bytes)
		return 0;
	second.off += CKF_TAR_BLOCK;
	ret = read_block(&second, block, err);
	return ret > 0 ? bad(t, err, "a member follows a block of zeros") : ret;
}

/* Where a GNU header of an old kind says that a map of holes follows, it is no data. */
static int skip_sparse_map(struct ckf_tar *t, const char *block, struct ckf_error *err)
{
	char more[CKF_TAR_BLOCK];
	bool follows = block[GNU_SPARSE_OFF] != 0;
	int ret;

	while (follows) {
		if (t->off == t->bytes)
			return bad(t, err, "it is truncated: a map of holes ends early");
		ret = read_block(t, more, err);
		if (ret < 0)
			return ret;
		t->off += CKF_TAR_BLOCK;
		follows = more[GNU_MORE_OFF] != 0;
	}
	return 0;
}

/* Makes the components of a path what struct ckf_tar_entry says. */
static int clean_path(const char *raw, char **out)
{
	char *to;
	size_t n;

	*out = to = malloc(strlen(raw) + 1);
	if (!to)
		return -ENOMEM;
	*to = '\0';
	if (*raw == '/')
		return -EBADMSG;
	for (; *raw; raw += n) {
		raw += strspn(raw, "/");
		n = strcspn(raw, "/");
		if (!n || (n == 1 && *raw == '.'))
			continue;
		if (n == 2 && !memcmp(raw, "..", 2))
			return -EBADMSG;
		if (to != *out)
			*to++ = '/';
		memcpy(to, raw, n);
		to += n;
		*to = '\0';
	}
	return 0;
}

/* The name of a header that no extended one has given. */
static char *header_name(const struct ckf_tar_header *h)
{
	size_t prefix = 0, n = strnlen(h->name, sizeof(h->name));
	char *s;

	/* GNU has other things in the place of the prefix. */
	if (!memcmp(h->magic, "ustar", 6))
		prefix = strnlen(h->prefix, sizeof(h->prefix));
	s = malloc(prefix + n + 2);
	if (!s)
		return NULL;
	memcpy(s, h->prefix, prefix);
	if (prefix)
		s[prefix++] = '/';
	memcpy(s + prefix, h->name, n);
	s[prefix + n] = '\0';
	return s;
}

static int take_names(const struct ckf_tar *t, const struct ckf_tar_header *h, struct extended *x,
		      struct ckf_tar_entry *e, struct ckf_error *err)
{
	char *link = NULL;
	int ret;

	e->raw_name = x->name ? x->name : header_name(h);
	x->name = NULL;
	e->link = x->link ? x->link : strndup(h->link, sizeof(h->link));
	x->link = NULL;
	if (!e->raw_name || !e->link)
		return ckf_error_set(err, -ENOMEM, "no memory for a name");
	ret = clean_path(e->raw_name, &e->name);
	if (!ret && e->type == CKF_TAR_HARDLINK) {
		ret = clean_path(e->link, &link);
		free(e->link);
		e->link = link;
	}
	if (ret == -ENOMEM)
		return ckf_error_set(err, ret, "no memory for a name");
	if (ret)
		return ckf_error_rule(err, ret, "archive", -1, t->off,
				      "%s leads out of the directory that it is unpacked in",
				      e->raw_name);
	if (e->type == CKF_TAR_FILE && (!*e->name || e->raw_name[strlen(e->raw_name) - 1] == '/'))
		return bad(t, err, "a file with the name of a directory");
	return 0;
}

static int take_numbers(const struct ckf_tar *t, const struct ckf_tar_header *h,
			const struct extended *x, struct ckf_tar_entry *e, struct ckf_error *err)
{
	uint64_t mode, uid = x->uid, gid = x->gid, mtime = 0;
	/* Times before 1970, in base 256, are of no use to anybody here. */
	bool old = (uint8_t)h->mtime[0] == 0xff;
	int ret = 0;

	ret |= ckf_tar_get_number(h->mode, sizeof(h->mode), &mode);
	if (!x->has_uid)
		ret |= ckf_tar_get_number(h->uid, sizeof(h->uid), &uid);
	if (!x->has_gid)
		ret |= ckf_tar_get_number(h->gid, sizeof(h->gid), &gid);
	if (!x->has_mtime && !old)
		ret |= ckf_tar_get_number(h->mtime, sizeof(h->mtime), &mtime);
	if (ret || uid > UINT32_MAX || gid > UINT32_MAX || mtime > INT64_MAX)
		return bad(t, err, "a header with a number that is none");
	e->mode = mode & 07777;
	e->uid = (uint32_t)uid;
	e->gid = (uint32_t)gid;
	e->mtime_sec = x->has_mtime ? x->mtime_sec : (int64_t)mtime;
	e->mtime_nsec = x->mtime_nsec;
	return 0;
}

/* t->off is behind the header. */
static int take_member(struct ckf_tar *t, const struct ckf_tar_header *h, uint64_t header_bytes,
		       struct extended *x, struct ckf_tar_entry *e, struct ckf_error *err)
{
	int ret;

	e->type = h->type == '\0' || h->type == '7' ? CKF_TAR_FILE : h->type;
	e->sparse = x->sparse || e->type == 'S';
	e->bytes = x->has_bytes ? x->bytes : header_bytes;
	if (e->type == 'M')
		return ckf_error_rule(err, -EOPNOTSUPP, "archive", -1, t->off,
				      "a part of an archive of several volumes");
	/* Some readers take what follows for data, others for the next header. */
	if (e->type >= CKF_TAR_HARDLINK && e->type <= '6' && e->bytes)
		return bad(t, err, "a link, directory or device with data");
	if (e->type == 'S') {
		ret = skip_sparse_map(t, (const char *)h, err);
		if (ret)
			return ret;
	}
	ret = check_fits(t, e->bytes, err);
	if (!ret)
		ret = take_names(t, h, x, e, err);
	if (!ret)
		ret = take_numbers(t, h, x, e, err);
	if (ret)
		return ret;
	e->data_off = t->off;
	t->off += ckf_align_up(e->bytes, CKF_TAR_BLOCK);
	e->end = t->off;
	return 1;
}

/* What it says would hold for our own members, too. */
static int take_global(struct ckf_tar *t, uint64_t bytes, struct ckf_tar_entry *e,
		       struct ckf_error *err)
{
	struct extended x = { 0 };
	int ret;

	e->type = CKF_TAR_GLOBAL;
	e->data_off = t->off;
	e->bytes = bytes;
	ret = take_extended(t, CKF_TAR_GLOBAL, bytes, &x, err);
	if (!ret && (x.name || x.link || x.has_bytes || x.sparse))
		ret = bad(t, err, "a global header that gives every member one name or size");
	extended_fini(&x);
	e->name = strdup("");
	e->raw_name = strdup("");
	if (!ret && (!e->name || !e->raw_name))
		ret = ckf_error_set(err, -ENOMEM, "no memory for a name");
	e->end = t->off;
	return ret ? ret : 1;
}

static int next(struct ckf_tar *t, struct extended *x, struct ckf_tar_entry *e,
		struct ckf_error *err)
{
	char block[CKF_TAR_BLOCK];
	const struct ckf_tar_header *h = (const void *)block;
	uint64_t bytes;
	int ret;

	e->start = t->off;
	for (;;) {
		ret = read_block(t, block, err);
		if (!ret && t->off != e->start)
			return bad(t, err, "an extended header is the last one");
		if (ret <= 0)
			return ret ? ret : check_end(t, err);
		if (!ckf_tar_is_header(block))
			return bad(t, err, "no header where one should be");
		if (ckf_tar_get_number(h->bytes, sizeof(h->bytes), &bytes))
			return bad(t, err, "a header with a size that is none");
		t->off += CKF_TAR_BLOCK;
		if (h->type == CKF_TAR_GLOBAL && t->off - CKF_TAR_BLOCK == e->start)
			return take_global(t, bytes, e, err);
		if (h->type != 'x' && h->type != 'L' && h->type != 'K')
			return take_member(t, h, bytes, x, e, err);
		ret = take_extended(t, h->type, bytes, x, err);
		if (ret)
			return ret;
	}
}

int ckf_tar_next(struct ckf_tar *t, struct ckf_tar_entry *e, struct ckf_error *err)
{
	struct extended x = { 0 };
	int ret;

	memset(e, 0, sizeof(*e));
	ret = next(t, &x, e, err);
	extended_fini(&x);
	if (ret < 0)
		ckf_tar_entry_fini(e);
	return ret;
}

void ckf_tar_entry_fini(struct ckf_tar_entry *e)
{
	free(e->name);
	free(e->raw_name);
	free(e->link);
	memset(e, 0, sizeof(*e));
}
