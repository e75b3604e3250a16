/* SPDX-License-Identifier: MIT */
/* list DIR: what a fast image holds. */
#include <ckfast.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

static void list_targets(const struct ckf_image *img, uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i++) {
		const struct ckf_target *t = ckf_image_target(img, i);
		struct ckf_target_info info = { .size = sizeof(info) };
		const struct ckf_op_info *op;
		uint64_t zero_bytes = 0;
		struct ckf_ops it;

		ckf_target_get_info(img, t, &info);
		ckf_ops_begin(&it, img, t, 0);
		for (op = ckf_ops_get(&it); op; op = ckf_ops_next(&it))
			if (op->codec == CKF_CODEC_ZERO)
				zero_bytes += op->end - op->start;
		printf("%s %" PRIu64 ": %" PRIu64 " bytes in %" PRIu64 " ops, %" PRIu64
		       " of them zero\n",
		       ckf_target_kind_name(info.kind), info.id, info.nr_pages * CKF_PAGE_BYTES,
		       info.nr_ops, zero_bytes);
	}
}

int main(int argc, char **argv)
{
	struct ckf_image_info info = { .size = sizeof(info) };
	struct ckf_error err = { 0 };
	struct ckf_image *img;
	int dir_fd, ret;

	dir_fd = argc == 2 ? open(argv[1], O_RDONLY | O_DIRECTORY) : -1;
	if (dir_fd < 0) {
		fprintf(stderr, "usage: list DIR\n");
		return CKF_EXIT_USAGE;
	}
	ret = ckf_image_open(dir_fd, &img, &err);
	if (ret) {
		fprintf(stderr, "%s\n", err.msg);
		return ckf_error_exit_code(ret);
	}
	ckf_image_get_info(img, &info);
	printf("fast image %u.%u, %" PRIu64 " files, %" PRIu64 " chunks, %" PRIu64
	       " bytes packed\n",
	       info.version_major, info.version_minor, info.nr_files, info.nr_chunks,
	       info.pack_bytes);
	list_targets(img, info.nr_targets);
	ckf_image_close(img);
	return 0;
}
