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

#include "base/ckf_dir.h"
#include "format/ckf_index.h"

struct ckf_image {
	struct ckf_index *idx;
	int dir_fd; /* owned: a duplicate of the one given */
	/* The image lies in an archive, which is dir_fd, and is read but not filled from. Or NULL.
	 */
	const struct ckf_members *members;
	uint64_t pack_start;	      /* of the own pack, in what ckf_image_open_pack() opens */
	void (*release)(void *owner); /* called with owner when the image is closed; or NULL */
	void *owner;		      /* of members */
	int *base_fds; /* per base: the directory that the caller has named, or -1; owned */
	/* A bit for each chunk that several lanes need, or NULL; see
	 * ckf_image_find_shared_chunks().
	 */
	uint8_t *shared_chunks;
	bool many_readers; /* see ckf_many_readers(); false until ckf_image_prepare() */
	bool *cached;	   /* per pack, the own one first, or NULL; see ckf_image_find_cached() */
};

/* As ckf_image_open_opts(), of an image that may lie in an archive, whose members live longer. */
int ckf_image_open_dir(const struct ckf_dir *dir, const struct ckf_image_opts *opts,
		       struct ckf_image **out, struct ckf_error *err);

/* True for the names of what CRIU restores from: *.img. */
bool ckf_is_img_name(const char *name);

/* The directory of base n, only to look at: an fd, or -errno. */
int ckf_image_open_base_dir(const struct ckf_image *img, unsigned int n, struct ckf_error *err);

/*
 * What ckf_image_prepare() does. Finds the chunks that more than one lane needs, of whatever
 * target. ckf_fill() reads them through the page cache, so that they come from the disk once.
 * -ENOMEM.
 */
int ckf_image_find_shared_chunks(struct ckf_image *img, struct ckf_error *err);

/*
 * Finds out which packs are in the page cache. ckf_fill() looks at each fill otherwise, which takes
 * longer than a fill of a few pages. -ENOMEM, or why a pack cannot be opened.
 */
int ckf_image_find_cached(struct ckf_image *img, struct ckf_error *err);
/* The same of one pack, by what was found out or, before that, by looking: 0, 1 or -errno. */
int ckf_image_pack_is_cached(const struct ckf_image *img, int dir_fd, unsigned int n,
			     struct ckf_error *err);

/*
 * As ckf_image_open_pack(), for the pack of base n; 0 is the image's own. The size must be the one
 * that the index names. flags: O_DIRECT or 0; -EINVAL when the file system refuses O_DIRECT.
 */
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

/* Opens a verbatim file of the length that the index says. */
int ckf_image_open_file(const struct ckf_image *img, const struct ckf_file *f,
			struct ckf_file_part *out, struct ckf_error *err);

/*
 * True for a verbatim file that is no image: CRIU does not read it, but writes files with such
 * names (stats-restore, logs) into the directory that it restores from. It may have changed
 * (R-unread).
 */
bool ckf_file_is_unread(const struct ckf_file *f);
/*
 * Reads one chunk through pack_fd (buffered, of the pack that it lies in), decodes it into dst
 * (nr_pages pages) and checks it. stored is scratch of at least stored_bytes bytes; may be NULL for
 * zero and raw.
 */
struct ckf_codec_ctx;
int ckf_image_read_chunk(const struct ckf_image *img, int pack_fd, uint64_t chunk,
			 struct ckf_codec_ctx *ctx, void *stored, void *dst, struct ckf_error *err);

#endif
