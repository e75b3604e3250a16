/* SPDX-License-Identifier: MIT */
/*
 * An open fast image: a directory, its decoded index, its checked pack, and those of its bases.
 *
 * Nothing in the directory is trusted: files are opened without following links and only if they
 * are regular, and bases by the rules of SPEC.md 4.9. An image may be used by several threads and
 * across fork(); the fds it holds are close-on-exec.
 */
#ifndef CKF_IMAGE_H
#define CKF_IMAGE_H

#include "format/ckf_index.h"

struct ckf_image {
	struct ckf_index *idx;
	int dir_fd;    /* owned: a duplicate of the one given */
	int *base_fds; /* per base: the directory that the caller has named, or -1; owned */
	uint8_t *
		wanted_again; /* a bit for each chunk, or NULL; see ckf_image_find_wanted_again() */
	bool *cached; /* per pack, the own one first, or NULL; see ckf_image_find_cached() */
};

struct ckf_image_opts {
	size_t size; /* sizeof(struct ckf_image_opts) */
	/* Directories of bases that are no longer where the index says; found by their ids. */
	const char *const *base_dirs;
	size_t nr_base_dirs;
	/* Does without the bases, for those who read no chunk: see ckf_image_check_base(). */
	bool no_bases;
};

/* True for the names of what CRIU restores from: *.img. */
bool ckf_is_img_name(const char *name);

/* True when the directory has a ckfast.idx, whatever is in it. */
bool ckf_image_probe(int dir_fd);

/*
 * Reads and checks ckfast.idx and the header and length of ckfast.pack. The caller keeps dir_fd.
 * -EBADMSG, -EOPNOTSUPP, -ENOENT (not a fast image, or a base is missing), -ESTALE (another image
 * in place of a base), -ENOMEM, -EIO….
 */
int ckf_image_open(int dir_fd, struct ckf_image **out, struct ckf_error *err);
/* opts may be NULL. */
int ckf_image_open_opts(int dir_fd, const struct ckf_image_opts *opts, struct ckf_image **out,
			struct ckf_error *err);
void ckf_image_close(struct ckf_image *img);

/* Checks that base n (from 1) is there, and that it is the one meant. */
int ckf_image_check_base(const struct ckf_image *img, unsigned int n, struct ckf_error *err);

/* The directory of base n, only to look at: an fd, or -errno. */
int ckf_image_open_base_dir(const struct ckf_image *img, unsigned int n, struct ckf_error *err);

/*
 * Finds the chunks that more than one lane needs, of whatever target. ckf_fill() reads them through
 * the page cache, so that they come from the disk once. -ENOMEM.
 */
int ckf_image_find_wanted_again(struct ckf_image *img, struct ckf_error *err);

/*
 * Finds out which packs are in the page cache. ckf_fill() looks at each fill otherwise, which takes
 * longer than a fill of a few pages. -ENOMEM, or why a pack cannot be opened.
 */
int ckf_image_find_cached(struct ckf_image *img, struct ckf_error *err);
/* The same of one pack, by what was found out or, before that, by looking: 0, 1 or -errno. */
int ckf_image_pack_is_cached(const struct ckf_image *img, int dir_fd, unsigned int n,
			     struct ckf_error *err);

/*
 * Opens ckfast.pack, or a verbatim file, of the directory dir_fd for reading: an fd, or -errno. The
 * size must be the one that the index names. flags: O_DIRECT or 0; -EINVAL when the file system
 * refuses O_DIRECT.
 */
int ckf_image_open_pack(const struct ckf_image *img, int dir_fd, int flags, struct ckf_error *err);
/* The same for the pack of base n; 0 is the image's own. */
int ckf_image_open_pack_of(const struct ckf_image *img, int dir_fd, unsigned int n, int flags,
			   struct ckf_error *err);
/*
 * All packs, buffered, the own one first: (*fds)[chunk.base]. 0 or -errno; *fds is NULL or to be
 * closed with ckf_image_close_packs() in any case.
 */
int ckf_image_open_packs(const struct ckf_image *img, int dir_fd, int **fds, struct ckf_error *err);
void ckf_image_close_packs(const struct ckf_image *img, int *fds);
/*
 * True when CRIU has written a newer dump into the directory: the image's pages files are there,
 * and the small images are no longer those of the index.
 */
bool ckf_image_is_stale(const struct ckf_image *img);
/* The end of a message about a file that is not the one of the index: why and what to do, or "". */
const char *ckf_image_stale_hint(const struct ckf_image *img);

int ckf_image_open_file(const struct ckf_image *img, int dir_fd, const struct ckf_file *f,
			struct ckf_error *err);

/*
 * True for a verbatim file that is no image: CRIU does not read it, but writes files with such
 * names (stats-restore, logs) into the directory that it restores from. It may have changed
 * (R-unread).
 */
bool ckf_file_is_unread(const struct ckf_file *f);
/* Checks size and checksum of every verbatim file that CRIU reads: -EBADMSG for the first wrong
 * one. */
int ckf_image_check_files(const struct ckf_image *img, struct ckf_error *err);
/*
 * The same of all others: calls changed for each that is missing or not as the index has it, which
 * is no error.
 */
int ckf_image_check_unread(const struct ckf_image *img,
			   void (*changed)(void *arg, const struct ckf_file *f), void *arg,
			   struct ckf_error *err);

/*
 * Reads one chunk through pack_fd (buffered, of the pack that it lies in), decodes it into dst
 * (nr_pages pages) and checks it. stored is scratch of at least stored_bytes bytes; may be NULL for
 * zero and raw.
 */
struct ckf_codec_ctx;
int ckf_image_read_chunk(const struct ckf_image *img, int pack_fd, uint64_t chunk,
			 struct ckf_codec_ctx *ctx, void *stored, void *dst, struct ckf_error *err);

#endif
