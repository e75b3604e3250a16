/* SPDX-License-Identifier: MIT */
/* What an older dump has left in the directory of a newer one. Private to convert/. */
#ifndef CKF_CONVERT_STRAYS_H
#define CKF_CONVERT_STRAYS_H

#include "ckfast.h"
#include "ckf_dump.h"
#include "files.h"

/*
 * Takes pagemaps of tasks and of shared memory that the dump does not have, and that cannot be read
 * or whose pages are gone, from the dump and from the list, and tells of each. 0 or -ENOMEM.
 */
int ckf_drop_strays(struct ckf_dump *d, struct ckf_file_list *l,
		    const struct ckf_convert_opts *opts, struct ckf_error *err);

#endif
