/* SPDX-License-Identifier: MIT */
/* The contents of AMD GPUs' memory on their way into an image. Private to convert/. */
#ifndef CKF_CONVERT_AMD_H
#define CKF_CONVERT_AMD_H

#include "ckfast.h"
#include "ckf_dump.h"
#include "files.h"

/*
 * Adds a pagemap for each GPU whose contents the image is to take, and says of the others why not.
 * -EBADMSG for a table or a file of contents that CRIU cannot restore either.
 */
int ckf_amd_take(struct ckf_dump *d, const struct ckf_file_list *l,
		 const struct ckf_convert_opts *opts, struct ckf_error *err);
/*
 * The same for buffer objects of render nodes, a pagemap for each; their files in the list get
 * their heads. -EBADMSG for a table that CRIU cannot restore either.
 */
int ckf_render_take(struct ckf_dump *d, struct ckf_file_list *l,
		    const struct ckf_convert_opts *opts, struct ckf_error *err);

#endif
