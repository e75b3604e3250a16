/* SPDX-License-Identifier: MIT */
/* The records of an image, one after the other, for what gathers the needs of a dump. */
#include <errno.h>

#include "needs.h"

int needs_each_record(struct ckf_needs *n, int dir_fd, const char *name, uint32_t magic,
		      int (*take)(struct ckf_needs *n, struct ckf_img *im, const uint8_t *rec,
				  size_t bytes, struct ckf_error *err),
		      struct ckf_error *err)
{
	struct ckf_img im = { .part.fd = -1 };
	const uint8_t *rec;
	size_t bytes;
	int ret = ckf_img_open(&im, CKF_DIR(dir_fd), name, magic, err);

	if (ret)
		return ret == -ENOENT ? 0 : ret;
	while ((ret = ckf_img_next(&im, &rec, &bytes, err)) > 0) {
		ret = take(n, &im, rec, bytes, err);
		if (ret)
			break;
	}
	ckf_img_close(&im);
	return ret;
}
