/* SPDX-License-Identifier: MIT */
/* Codec raw: the pages as they are. */
#include "codec.h"

#include <errno.h>
#include <string.h>

static int raw_decode(struct ckf_codec_ctx *ctx, const struct ckf_codec_io *io)
{
	(void)ctx;
	if (io->src_bytes != io->dst_bytes)
		return -EBADMSG;
	if (io->dst_bytes)
		memcpy(io->dst, io->src, io->dst_bytes);
	return 0;
}

const struct ckf_codec_type ckf_codec_raw = {
	.name = "raw",
	.decode = raw_decode,
};
