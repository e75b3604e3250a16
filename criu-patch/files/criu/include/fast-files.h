/* SPDX-License-Identifier: GPL-2.0-only */
/* Checking the images of a fast image that are CRIU's own. */
#ifndef __CR_FAST_FILES_H__
#define __CR_FAST_FILES_H__

struct ckf_image;

/* Checks all images but large ones with the contents of unlinked files. img stays open. */
extern int fast_files_open(const struct ckf_image *img);

/* Checks what is left at once, in this process. */
extern int fast_files_check_now(void);

/* Begins to check what is left, beside the restore: in the criu process, before there are tasks. */
extern int fast_files_begin(void);

/* Waits until that is done. -1: no task may run. */
extern int fast_files_end(void);

#endif /* __CR_FAST_FILES_H__ */
