/* SPDX-License-Identifier: MIT */
/*
 * Archives that are compressed. What is in them is read at many places and more than once, so it
 * becomes a file, which has no name and is gone with its descriptor, however the program ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/ckf_io_util.h"
#include "format/ckf_codec.h"
#include "archive.h"

#define IN_BYTES ((size_t)256 << 10)
#define OUT_BYTES ((size_t)1 << 20)
#define GZIP_WINDOW (MAX_WBITS + 16) /* zlib: with the header of gzip, and no other */
#define ZSTD_MAX_WINDOW_LOG 27	     /* 128 MiB: the limit of the zstd command */

struct stream {
	int in_fd;
	int out_fd;
	uint64_t in_off;
	uint64_t in_end;
	uint64_t out_off;
	uint8_t *in;
	uint8_t *out;
	size_t in_bytes; /* that were read last; 0: the end */
};

const char *ckf_compression_name(uint32_t compression)
{
	static const char *const names[] = { "", "gzip", "zstd" };

	return compression < sizeof(names) / sizeof(*names) ? names[compression] : "";
}

static int read_in(struct stream *s)
{
	uint64_t left = s->in_end - s->in_off;
	ssize_t n;

	do
		n = pread(s->in_fd, s->in, left < IN_BYTES ? (size_t)left : IN_BYTES,
			  (off_t)s->in_off);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	s->in_bytes = (size_t)n;
	s->in_off += (uint64_t)n;
	return 0;
}

/* Blocks of zeros stay holes: a small archive cannot fill the disk with them. */
static int write_out(struct stream *s, size_t bytes)
{
	int ret = 0;

	if (bytes % 64 || !ckf_is_zero(s->out, bytes))
		ret = ckf_pwrite_all(s->out_fd, s->out, bytes, s->out_off);
	s->out_off += bytes;
	return ret;
}

static int zlib_error(int code)
{
	return code == Z_MEM_ERROR ? -ENOMEM : -EBADMSG;
}

/* A file may have several streams, one after the other. */
static int inflate_stream(struct stream *s, z_stream *z)
{
	bool ended = false;
	int code, ret = 0;

	while (!ret) {
		if (!z->avail_in) {
			ret = read_in(s);
			z->next_in = s->in;
			z->avail_in = (uInt)s->in_bytes;
		}
		if (ret || (!z->avail_in && ended))
			break;
		if (!z->avail_in)
			return -EBADMSG;
		if (ended && inflateReset(z) != Z_OK)
			return -EBADMSG;
		z->next_out = s->out;
		z->avail_out = OUT_BYTES;
		code = inflate(z, Z_NO_FLUSH);
		if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
			return zlib_error(code);
		ended = code == Z_STREAM_END;
		ret = write_out(s, OUT_BYTES - z->avail_out);
	}
	return ret;
}

static int inflate_all(struct stream *s)
{
	z_stream z = { 0 };
	int ret = inflateInit2(&z, GZIP_WINDOW);

	if (ret != Z_OK)
		return zlib_error(ret);
	ret = inflate_stream(s, &z);
	inflateEnd(&z);
	return ret;
}

static int unzstd_stream(struct stream *s, ZSTD_DStream *d)
{
	size_t left = 0;
	int ret;

	for (;;) {
		ZSTD_inBuffer in = { .src = s->in };
		ZSTD_outBuffer out;

		ret = read_in(s);
		if (ret || !s->in_bytes)
			return ret || !left ? ret : -EBADMSG;
		in.size = s->in_bytes;
		do {
			out = (ZSTD_outBuffer){ .dst = s->out, .size = OUT_BYTES };
			left = ZSTD_decompressStream(d, &out, &in);
			if (ZSTD_isError(left))
				return -EBADMSG;
			ret = write_out(s, out.pos);
			if (ret)
				return ret;
		} while (in.pos < in.size || out.pos == out.size);
	}
}

static int unzstd_all(struct stream *s)
{
	ZSTD_DStream *d = ZSTD_createDStream();
	int ret = -ENOMEM;

	if (d && !ZSTD_isError(ZSTD_DCtx_setParameter(d, ZSTD_d_windowLogMax, ZSTD_MAX_WINDOW_LOG)))
		ret = unzstd_stream(s, d);
	ZSTD_freeDStream(d);
	return ret;
}

static int decompress_to(struct stream *s, uint32_t compression, const char *tmp_dir,
			 struct ckf_error *err)
{
	const char *name = ckf_compression_name(compression);
	int ret;

	s->out_fd = open(tmp_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (s->out_fd < 0)
		return ckf_error_set(err, -errno,
				     "cannot make a file without a name in %s, for what is in the "
				     "%s archive: %s",
				     tmp_dir, name, strerror(errno));
	s->in = malloc(IN_BYTES);
	s->out = aligned_alloc(64, OUT_BYTES);
	if (!s->in || !s->out)
		return ckf_error_set(err, -ENOMEM, "no memory to decompress");
	ret = compression == CKF_COMPRESSION_GZIP ? inflate_all(s) : unzstd_all(s);
	if (!ret && ftruncate(s->out_fd, (off_t)s->out_off))
		ret = -errno;
	if (ret == -EBADMSG)
		return ckf_error_rule(err, ret, "archive", -1, s->in_off,
				      "damaged or truncated %s data", name);
	if (ret)
		return ckf_error_set(err, ret,
				     "cannot decompress the archive, of which %llu bytes were "
				     "written to %s: %s",
				     (unsigned long long)s->out_off, tmp_dir, strerror(-ret));
	return 0;
}

int ckf_decompress(const struct ckf_file_part *in, const char *tmp_dir, uint32_t *compression,
		   int *plain_fd, struct ckf_error *err)
{
	struct stream s = { .in_fd = in->fd, .in_off = in->off, .out_fd = -1 };
	uint8_t magic[6] = { 0 };
	int ret;

	*plain_fd = -1;
	*compression = CKF_COMPRESSION_NONE;
	s.in_end = in->off + in->bytes;
	if (in->bytes < sizeof(magic))
		return 0;
	ret = ckf_pread_all(in->fd, magic, sizeof(magic), in->off);
	if (ret)
		return ckf_error_set(err, ret, "cannot read the archive: %s", strerror(-ret));
	if (magic[0] == 0x1f && magic[1] == 0x8b)
		*compression = CKF_COMPRESSION_GZIP;
	else if (!memcmp(magic, "\x28\xb5\x2f\xfd", 4))
		*compression = CKF_COMPRESSION_ZSTD;
	else if (!memcmp(magic,
			 "\xfd"
			 "7zXZ",
			 5) ||
		 !memcmp(magic, "BZh", 3))
		return ckf_error_set(err, -EOPNOTSUPP,
				     "an archive of xz or bzip2: decompress it first");
	if (*compression)
		ret = decompress_to(&s, *compression, tmp_dir, err);
	free(s.in);
	free(s.out);
	if (ret && s.out_fd >= 0)
		close(s.out_fd);
	else
		*plain_fd = s.out_fd;
	return ret;
}
