/* SPDX-License-Identifier: MIT */
/* restore DIR PID: fills memory of its own with that of a task, and writes it out, page by page. */
#include <ckfast.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static int fill(const struct ckf_image *img, const struct ckf_target *t, struct ckf_error *err)
{
	const struct ckf_fill_opts opts = { .size = sizeof(opts), .dir_fd = -1 };
	struct ckf_target_info info = { .size = sizeof(info) };
	const struct ckf_op_info *op;
	struct ckf_dest *dests;
	struct ckf_ops it;
	size_t nr = 0;
	char *memory;
	int ret;

	ckf_target_get_info(img, t, &info);
	memory = mmap(NULL, info.nr_pages * CKF_PAGE_BYTES + 1, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	dests = malloc((info.nr_ops + 1) * sizeof(*dests));
	if (memory == MAP_FAILED || !dests)
		return ckf_error_set(err, -ENOMEM, "no memory");
	/* One behind the other, whatever their addresses were. */
	ckf_ops_begin(&it, img, t, 0);
	for (op = ckf_ops_get(&it); op; op = ckf_ops_next(&it), nr++) {
		dests[nr] = (struct ckf_dest){ op->start, op->end, memory, CKF_DEST_FRESH, 0 };
		memory += op->end - op->start;
	}
	ret = ckf_fill(img, t, dests, nr, &opts, NULL, err);
	for (size_t i = 0; i < nr && !ret; i++)
		fwrite(dests[i].addr, 1, dests[i].end - dests[i].start, stdout);
	if (!ret && (ferror(stdout) || fclose(stdout)))
		ret = ckf_error_set(err, -EIO, "cannot write all pages");
	free(dests);
	return ret;
}

int main(int argc, char **argv)
{
	int dir_fd = argc == 3 ? open(argv[1], O_RDONLY | O_DIRECTORY) : -1, ret;
	const struct ckf_target *t;
	struct ckf_error err = { 0 };
	struct ckf_image *img = NULL;

	ret = dir_fd >= 0
		      ? ckf_image_open(dir_fd, &img, &err)
		      : ckf_error_set(&err, -EINVAL, "want the directory of an image, and a pid");
	if (!ret) {
		t = ckf_image_find_target(img, CKF_TARGET_TASK, strtoull(argv[2], NULL, 10));
		ret = t ? fill(img, t, &err) : ckf_error_set(&err, -ESRCH, "no task %s", argv[2]);
	}
	ckf_image_close(img);
	if (ret)
		fprintf(stderr, "restore DIR PID: %s\n", err.msg);
	return ckf_error_exit_code(ret);
}
