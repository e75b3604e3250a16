/* SPDX-License-Identifier: MIT */
/* Decodes and checks chunks, and says which one is broken. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ckf_read.h"

const char *ckf_pack_name(const struct ckf_index *idx, unsigned int base,
			  char buf[CKF_PACK_NAME_BYTES])
{
	if (!base)
		return CKF_PACK_NAME;
	snprintf(buf, CKF_PACK_NAME_BYTES, CKF_PACK_NAME " of base %u (%s)", base,
		 idx->bases[base - 1].path);
	return buf;
}

int ckf_chunk_decode(const struct ckf_index *idx, uint64_t chunk, struct ckf_codec_ctx *ctx,
		     const char *stored, char *dst, struct ckf_error *err)
{
	const struct ckf_chunk *c = &idx->chunks[chunk];
	char name[CKF_PACK_NAME_BYTES];
	int ret;

	ret = ckf_decode(ctx, c->codec, stored, c->stored_bytes, dst,
			 ckf_pages_to_bytes(c->nr_pages));
	if (!ret)
		return 0;
	if (ret != -EBADMSG && ret != -EOPNOTSUPP)
		return ckf_error_set(err, ret, "cannot decode chunk %llu: %s",
				     (unsigned long long)chunk, strerror(-ret));
	return ckf_error_rule(err, ret, "chunks", (int64_t)chunk, c->pack_off,
			      "%s data at this offset of %s does not decode to %u pages",
			      ckf_codec_name(c->codec), ckf_pack_name(idx, c->base, name),
			      c->nr_pages);
}

int ckf_chunk_check(const struct ckf_index *idx, uint64_t chunk, uint64_t hash,
		    struct ckf_error *err)
{
	const struct ckf_chunk *c = &idx->chunks[chunk];
	char name[CKF_PACK_NAME_BYTES];

	if (hash == c->checksum)
		return 0;
	return ckf_error_rule(err, -EBADMSG, "chunks", (int64_t)chunk, c->pack_off,
			      "wrong checksum of the %s data at this offset of %s, got %016llx, "
			      "want %016llx",
			      ckf_codec_name(c->codec), ckf_pack_name(idx, c->base, name),
			      (unsigned long long)hash, (unsigned long long)c->checksum);
}
