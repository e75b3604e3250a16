/* SPDX-License-Identifier: MIT */
/*
 * Writes the pack of an image, from any number of threads.
 *
 * Where the file system and the kernel let it, the pack goes to the disk directly and by io_uring,
 * several writes in flight: what threads put is gathered in windows, for chunks begin at any byte
 * and direct writes are of whole pages. Elsewhere it is written plainly (base/ckf_out_file.h).
 */
#ifndef CKF_CONVERT_PACK_WRITER_H
#define CKF_CONVERT_PACK_WRITER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/ckf_error.h"

struct ckf_pack_writer;

/*
 * fd, open for reading and writing and empty from start on, which is a multiple of the page size
 * and where the pack begins, stays the caller's; but nobody else writes to it before
 * ckf_pack_writer_finish(). max_bytes: as for ckf_out_file_init(). direct: try to write directly.
 */
int ckf_pack_writer_open(struct ckf_pack_writer **out, int fd, uint64_t start, uint64_t max_bytes,
			 bool direct, struct ckf_error *err);

/*
 * The pack has iov, which is used up, at off, and zeros from the given place up to off. Each byte
 * of the pack is put once, from 0 on: whoever puts what begins at from waits for those that put
 * what lies before, so these must have begun, and must not stop half-way without
 * ckf_pack_writer_fail(). 0 or -errno, also of a write before.
 */
int ckf_pack_writer_put(struct ckf_pack_writer *w, uint64_t from, struct iovec *iov,
			unsigned int nr, uint64_t off);
/* Tells that a put failed. Returns ret. */
int ckf_pack_writer_error(int ret, struct ckf_error *err);
/* Nothing more will be put by the caller: all others get this, if they have to wait. */
void ckf_pack_writer_fail(struct ckf_pack_writer *w, int ret);

/* All has been put: writes what is left and waits for it. 0 or -errno of the first that failed. */
int ckf_pack_writer_finish(struct ckf_pack_writer *w, struct ckf_error *err);
/* Takes NULL. No thread may be putting. */
void ckf_pack_writer_free(struct ckf_pack_writer *w);

#endif
