/* SPDX-License-Identifier: MIT */
/* Writes a layout whose checkpoints have become others. Private to convert/. */
#ifndef CKF_CONVERT_LAYOUT_WRITE_H
#define CKF_CONVERT_LAYOUT_WRITE_H

#include "layout.h"
#include "output.h"

/*
 * Makes the layout at path to out of the layout l, which lies at path from; NULL: in place. The
 * first converts the checkpoints that are dumps, the second makes dumps of fast images; -EINVAL
 * when there are none. Those that are so already stay. stats: only sums.
 */
int ckf_layout_convert(struct ckf_layout *l, const char *from, const char *to,
		       const struct ckf_convert_opts *opts, struct ckf_convert_stats *stats);
int ckf_layout_extract(struct ckf_layout *l, const char *from, const char *to,
		       const struct ckf_convert_opts *opts);

#endif
