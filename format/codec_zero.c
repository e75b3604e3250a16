/* SPDX-License-Identifier: MIT */
/* Codec zero: nothing is stored, all bytes are zero. */
#include "codec.h"

#include <errno.h>
#include <string.h>

static int zero_decode(struct ckf_codec_ctx *ctx, const struct ckf_codec_io *io)
{
	(void)ctx;
	if (io->src_bytes)
		return -EBADMSG;
	if (io->dst_bytes)
		memset(io->dst, 0, io->dst_bytes);
	return 0;
}

const struct ckf_codec_type ckf_codec_zero = {
	.name = "zero",
	.decode = zero_decode,
};
