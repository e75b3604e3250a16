/* SPDX-License-Identifier: MIT */
/* CRIU image files, record by record, with bounds on all that the file says of itself. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/ckf_io_util.h"
#include "loader/ckf_image.h"
#include "img.h"

#define IMG_SERVICE_MAGIC 0x55105940u /* the same, of what criu notes of itself */
#define IMG_COMMON_MAGIC 0x54564319u  /* before the magic of the type, since images v1.1 */
#define IMG_BUF_BYTES (64u << 10)

int ckf_open_of_dump(const struct ckf_dir *dir, const char *name, struct ckf_file_part *out)
{
	uint64_t bytes;
	int fd;

	if (dir->members)
		return ckf_dir_open_member(dir, name, out);
	fd = ckf_open_regular(dir->fd, name, ckf_is_img_name(name) ? 0 : O_NOFOLLOW, &bytes);
	if (fd < 0)
		return fd == -ELOOP ? -EOPNOTSUPP : fd;
	*out = (struct ckf_file_part){ .fd = fd, .bytes = bytes };
	return 0;
}

int ckf_open_img(const struct ckf_dir *dir, const char *name, struct ckf_file_part *out,
		 struct ckf_error *err)
{
	int ret = ckf_open_of_dump(dir, name, out);

	if (!ret || ret == -ENOENT)
		return ret;
	if (ret == -EOPNOTSUPP)
		return ckf_error_set(err, ret, "%s is not a regular file", name);
	return ckf_error_set(err, ret, "cannot open %s: %s", name, strerror(-ret));
}

static void *record_alloc(void *im, size_t bytes)
{
	void *p = malloc(bytes);

	if (!p)
		((struct ckf_img *)im)->no_memory = true;
	return p;
}

static void record_free(void *im, void *p)
{
	(void)im;
	free(p);
}

int ckf_img_bad(const struct ckf_img *im, int code, struct ckf_error *err, const char *fmt, ...)
{
	char msg[CKF_ERROR_MSG_BYTES];
	va_list ap;

	if (im->no_memory)
		return ckf_error_set(err, -ENOMEM, "no memory for a record of %s", im->name);
	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	return ckf_error_rule(err, code, im->name, im->rec, im->rec_off, "%s", msg);
}

int ckf_img_check_count(const struct ckf_img *im, const char *what, uint64_t count,
			uint64_t entries, struct ckf_error *err)
{
	if (count == entries)
		return 0;
	return ckf_img_bad(im, count > entries ? -EBADMSG : -EOPNOTSUPP, err,
			   "%s, got a count of %" PRIu64 ", want %" PRIu64, what, count, entries);
}

/* What fits into the buffer, and not what lies behind the file in an archive. */
static ssize_t read_more(const struct ckf_img *im)
{
	size_t room = im->buf_bytes - im->last;
	uint64_t left = im->part.bytes - im->read_off;

	return pread(im->part.fd, im->buf + im->last, left < room ? (size_t)left : room,
		     (off_t)(im->part.off + im->read_off));
}

/* Makes want bytes available at buf + first. 0, -EBADMSG when the file is too short, -errno. */
static int fill_buf(struct ckf_img *im, size_t want, struct ckf_error *err)
{
	uint8_t *p;
	ssize_t n;

	if (im->last - im->first >= want)
		return 0;
	if (want > im->part.bytes - im->off)
		return ckf_img_bad(im, -EBADMSG, err, "the file ends within it");
	memmove(im->buf, im->buf + im->first, im->last - im->first);
	im->last -= im->first;
	im->first = 0;
	if (want > im->buf_bytes) {
		p = realloc(im->buf, want);
		if (!p)
			return ckf_error_set(err, -ENOMEM, "no memory for a record of %s",
					     im->name);
		im->buf = p;
		im->buf_bytes = want;
	}
	while (im->last < want) {
		n = read_more(im);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return ckf_error_set(err, -errno, "cannot read %s: %s", im->name,
					     strerror(errno));
		if (n == 0)
			return ckf_img_bad(im, -EBADMSG, err, "the file ends within it");
		im->last += (size_t)n;
		im->read_off += (uint64_t)n;
	}
	return 0;
}

static int take32(struct ckf_img *im, uint32_t *v, struct ckf_error *err)
{
	ckf_le32 le;
	int ret = fill_buf(im, sizeof(le), err);

	if (ret)
		return ret;
	memcpy(&le, im->buf + im->first, sizeof(le));
	im->first += sizeof(le);
	im->off += sizeof(le);
	*v = ckf_get32(le);
	return 0;
}

static int check_magic(struct ckf_img *im, uint32_t magic, struct ckf_error *err)
{
	uint32_t got;
	int ret = take32(im, &got, err);

	if (!ret && got == IMG_COMMON_MAGIC)
		ret = take32(im, &got, err);
	if (!ret && got != magic)
		ret = ckf_img_bad(im, -EBADMSG, err, "wrong magic, got %#x, want %#x", got, magic);
	return ret;
}

bool ckf_img_is_criu(const struct ckf_dir *dir, const char *name)
{
	struct ckf_file_part part;
	ckf_le32 magic;
	bool is = false;

	if (!ckf_is_img_name(name) || ckf_open_img(dir, name, &part, NULL))
		return false;
	if (part.bytes >= sizeof(magic) && !ckf_pread_all(part.fd, &magic, sizeof(magic), part.off))
		is = ckf_get32(magic) == IMG_COMMON_MAGIC || ckf_get32(magic) == IMG_SERVICE_MAGIC;
	close(part.fd);
	return is;
}

static int open_file(struct ckf_img *im, const struct ckf_dir *dir, const char *name,
		     struct ckf_error *err)
{
	int ret;

	memset(im, 0, sizeof(*im));
	im->rec = -1;
	im->alloc = (ProtobufCAllocator){ record_alloc, record_free, im };
	im->part.fd = -1;
	ret = ckf_open_img(dir, name, &im->part, err);
	if (ret)
		return ret;
	im->name = strdup(name);
	im->buf = malloc(IMG_BUF_BYTES);
	im->buf_bytes = IMG_BUF_BYTES;
	if (!im->name || !im->buf)
		return ckf_error_set(err, -ENOMEM, "no memory to read %s", name);
	return 0;
}

int ckf_img_open(struct ckf_img *im, const struct ckf_dir *dir, const char *name, uint32_t magic,
		 struct ckf_error *err)
{
	int ret = open_file(im, dir, name, err);

	if (!ret)
		ret = check_magic(im, magic, err);
	if (ret)
		ckf_img_close(im);
	return ret;
}

static int take_sized(struct ckf_img *im, uint64_t most, const uint8_t **record, size_t *bytes,
		      struct ckf_error *err)
{
	uint32_t low, high;
	uint64_t len;
	int ret = take32(im, &low, err);

	if (!ret)
		ret = take32(im, &high, err);
	if (ret)
		return ret;
	len = (uint64_t)high << 32 | low;
	if (len > im->part.bytes - im->off)
		return ckf_img_bad(im, -EBADMSG, err, "its length of %llu reaches beyond the file",
				   (unsigned long long)len);
	if (len > most)
		return ckf_img_bad(im, -EOPNOTSUPP, err, "a record of %llu bytes",
				   (unsigned long long)len);
	ret = fill_buf(im, (size_t)len, err);
	if (ret)
		return ret;
	*record = im->buf + im->first;
	*bytes = (size_t)len;
	return 0;
}

void ckf_img_close(struct ckf_img *im)
{
	/* A zeroed struct has fd 0, but never with a name. */
	if (im->part.fd > 0 || (!im->part.fd && im->name))
		close(im->part.fd);
	free(im->name);
	free(im->buf);
	memset(im, 0, sizeof(*im));
}

int ckf_img_read_sized(const struct ckf_dir *dir, const char *name, uint64_t most,
		       ckf_img_take_fn *take, void *arg, struct ckf_error *bad,
		       struct ckf_error *err)
{
	struct ckf_error why = { 0 };
	struct ckf_img im = { 0 };
	const uint8_t *rec = NULL;
	size_t bytes = 0;
	int ret = open_file(&im, dir, name, &why);

	if (ret == -ENOENT)
		ret = ckf_error_set(&why, -EOPNOTSUPP, "%s is a link that leads nowhere", name);
	if (!ret)
		ret = take_sized(&im, most, &rec, &bytes, &why);
	if (!ret)
		ret = take(&im, arg, rec, bytes, &why);
	ckf_img_close(&im);
	if (ret == -EBADMSG || ret == -EOPNOTSUPP) {
		*bad = why;
		return 0;
	}
	if (ret == -ENOMEM)
		return ckf_error_set(err, ret, "no memory for the objects of %s", name);
	return ret ? ckf_error_set(err, ret, "%s", why.msg) : 0;
}

int ckf_img_next(struct ckf_img *im, const uint8_t **record, size_t *bytes, struct ckf_error *err)
{
	uint32_t len;
	int ret;

	if (im->off == im->part.bytes)
		return 0;
	im->rec++;
	im->rec_off = im->off;
	ret = take32(im, &len, err);
	if (ret)
		return ret;
	if (len > im->part.bytes - im->off)
		return ckf_img_bad(im, -EBADMSG, err, "its length of %u reaches beyond the file",
				   len);
	if (len > CKF_IMG_MAX_RECORD_BYTES)
		return ckf_img_bad(im, -E2BIG, err, "a record of %u bytes", len);
	ret = fill_buf(im, len, err);
	if (ret)
		return ret;
	*record = im->buf + im->first;
	*bytes = len;
	im->first += len;
	im->off += len;
	return 1;
}
