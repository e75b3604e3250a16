/* SPDX-License-Identifier: MIT */
/* SHA-256 by nettle, which uses the instructions that the CPU has for it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nettle/sha2.h>

#include "base/ckf_io_util.h"
#include "sha256.h"
#include "user.h"

/* A few of these stay in the cache of a core. */
#define READ_BYTES ((size_t)256 << 10)

static void finish(struct sha256_ctx *ctx, char hex[CKF_SHA256_HEX + 1])
{
	uint8_t digest[SHA256_DIGEST_SIZE];

	sha256_digest(ctx, sizeof(digest), digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

void ckf_sha256_mem(const void *p, size_t bytes, char hex[CKF_SHA256_HEX + 1])
{
	struct sha256_ctx ctx;

	sha256_init(&ctx);
	sha256_update(&ctx, bytes, p);
	finish(&ctx, hex);
}

int ckf_sha256_part(const struct ckf_file_part *part, const struct ckf_convert_opts *opts,
		    char hex[CKF_SHA256_HEX + 1], struct ckf_error *err)
{
	uint8_t *buf = malloc(READ_BYTES);
	struct sha256_ctx ctx;
	int ret = 0;

	if (!buf)
		return ckf_error_set(err, -ENOMEM, "no memory for a digest");
	sha256_init(&ctx);
	for (uint64_t done = 0, n; done < part->bytes && !ret; done += n) {
		n = part->bytes - done < READ_BYTES ? part->bytes - done : READ_BYTES;
		ret = opts ? ckf_user_stop(opts, err) : 0;
		if (ret)
			break;
		ret = ckf_pread_all(part->fd, buf, (size_t)n, part->off + done);
		if (ret)
			ckf_error_set(err, ret, "cannot read a blob: %s",
				      ret == -EBADMSG ? "it became shorter" : strerror(-ret));
		sha256_update(&ctx, (size_t)n, buf);
	}
	free(buf);
	finish(&ctx, hex);
	return ret;
}
