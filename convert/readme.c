/* SPDX-License-Identifier: MIT */
/* The file that tells people what a fast image is: stock CRIU has no word for it. */
#include <string.h>
#include <unistd.h>

#include "base/ckf_io_util.h"
#include "files.h"

#ifndef CKF_VERSION
#error "the Makefile defines CKF_VERSION"
#endif

#define STR_(x) #x
#define STR(x) STR_(x)

const char ckf_readme_text[] =
	"This directory is a fast image: a dump of CRIU whose memory pages are in ckfast.pack.\n"
	"It was made by ckfast " CKF_VERSION ", in version " STR(CKF_VERSION_MAJOR) "." STR(
		CKF_VERSION_MINOR) " of the format.\n"
				   "\n"
				   "CRIU with the patches of ckfast restores it:\n"
				   "\n"
				   "    criu restore --fast-image -D THIS_DIRECTORY ...\n"
				   "\n"
				   "A CRIU without them cannot, and says \"Can't read pages data\" "
				   "or \"No such file or\n"
				   "directory\" of a pages file. This writes the plain dump, byte "
				   "for byte, that every CRIU restores:\n"
				   "\n"
				   "    ckfast extract THIS_DIRECTORY DUMP\n"
				   "\n"
				   "ckfast inspect shows what is in it, ckfast verify checks every "
				   "byte. ckfast.idx and\n"
				   "ckfast.pack belong together, and to the *.img files beside "
				   "them. Nothing reads this file.\n";

bool ckf_wants_readme(const struct ckf_index *idx)
{
	for (uint64_t i = 0; i < idx->nr_files; i++) {
		if (!strcmp(idx->files[i].name, CKF_README_NAME))
			return false;
	}
	return true;
}

int ckf_write_readme(struct ckf_output *o, const struct ckf_index *idx, struct ckf_error *err)
{
	int fd, ret;

	if (!ckf_wants_readme(idx))
		return 0;
	fd = ckf_output_create(o, CKF_README_NAME, err);
	if (fd < 0)
		return fd;
	ret = ckf_pwrite_all(fd, ckf_readme_text, sizeof(ckf_readme_text) - 1, 0);
	if (!ret)
		return ckf_finish_memory_file(o, fd, CKF_README_NAME, err);
	close(fd);
	return ckf_error_set(err, ret, "cannot write " CKF_README_NAME ": %s", strerror(-ret));
}
