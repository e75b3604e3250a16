/* SPDX-License-Identifier: MIT */
/* Small helpers that the files of loader/ share. */
#ifndef CKF_IO_UTIL_H
#define CKF_IO_UTIL_H

#include "../format/ckf_index.h"

/* Reads exactly bytes at off: 0, -errno, or -EBADMSG when the file ends before. */
int ckf_pread_all(int fd, void *buf, size_t bytes, uint64_t off);

/*
 * The error of a chunk that does not decode (ret from ckf_decode) or whose decoded bytes have
 * the checksum got in place of the right one (ret -EBADMSG and got non-zero). Returns ret.
 */
int ckf_chunk_error(const struct ckf_index *idx, uint64_t chunk, int ret, uint64_t got,
		    struct ckf_error *err);

uint64_t ckf_now_ns(void);

#endif
