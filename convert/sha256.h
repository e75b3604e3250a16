/* SPDX-License-Identifier: MIT */
/* Digests of SHA-256, as images of containers name their blobs by. Private to convert/. */
#ifndef CKF_CONVERT_SHA256_H
#define CKF_CONVERT_SHA256_H

#include "base/ckf_dir.h"
#include "ckfast.h"

#define CKF_SHA256_HEX 64u

void ckf_sha256_mem(const void *p, size_t bytes, char hex[CKF_SHA256_HEX + 1]);
/* All of a part of a file; opts, which may be NULL, is asked whether to stop. */
int ckf_sha256_part(const struct ckf_file_part *part, const struct ckf_convert_opts *opts,
		    char hex[CKF_SHA256_HEX + 1], struct ckf_error *err);

#endif
