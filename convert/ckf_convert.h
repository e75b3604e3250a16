/* SPDX-License-Identifier: MIT */
/*
 * convert: a CRIU dump becomes a fast image; extract: the dump back; flatten: an image without
 * bases.
 *
 * All work on a temporary name beside the destination and rename at the end; when they fail, or
 * are killed, the source is as it was and nothing that looks like a finished result is left.
 */
#ifndef CKF_CONVERT_H
#define CKF_CONVERT_H

#include "base/ckf_error.h"
#include "format/ckf_index.h"

struct ckf_progress {
	uint64_t done_bytes;   /* of page data read */
	uint64_t total_bytes;  /* of page data in all */
	uint64_t stored_bytes; /* written to the pack so far */
};

#define CKF_CODEC_AUTO (-1)

struct ckf_convert_opts {
	size_t size;	       /* sizeof(struct ckf_convert_opts) */
	int codec;	       /* CKF_CODEC_AUTO, or RAW, LZ4, ZSTD, BF16 */
	int level;	       /* 0: the codec's default */
	uint32_t extent_bytes; /* 0: 16 MiB */
	unsigned int threads;  /* 0: the CPUs that may be used */
	/*
	 * What CKF_CODEC_AUTO is to choose for; bytes_per_s 0: the storage of the destination,
	 * found out where that is worth it and taken for nvme else. Only for a storage that is
	 * named here and slower than memory is a codec chosen that makes a restore from the page
	 * cache more than a tenth slower.
	 */
	struct ckf_storage storage;
	bool force;	/* replace an existing destination */
	bool no_uring;	/* plain reads and writes, as where io_uring is forbidden */
	bool no_direct; /* all through the page cache, as where O_DIRECT is refused */
	/*
	 * Directories of other fast images. convert: what they hold is not stored again. extract
	 * and flatten: where bases are that are no longer where the image says.
	 */
	const char *const *bases;
	size_t nr_bases;
	/* Called in the calling thread, a few times a second at most. May be NULL. */
	void (*progress)(void *arg, const struct ckf_progress *p);
	/* Things the user should know that are no errors. May be NULL. */
	void (*warn)(void *arg, const char *msg);
	/* Polled; non-zero ends the work with -EINTR and cleans up. May be NULL. */
	int (*stop)(void *arg);
	void *arg;
	bool smallest; /* convert, with CKF_CODEC_AUTO: the fewest bytes; storage does not matter */
	bool no_cache; /* convert: leave nothing of the pack in the page cache */
};

struct ckf_convert_stats {
	uint64_t page_bytes;   /* page data in the dump, resolved parents included */
	uint64_t zero_bytes;   /* of these: zero */
	uint64_t dup_bytes;    /* of these: stored before */
	uint64_t base_bytes;   /* of these: in bases */
	uint64_t stored_bytes; /* chunk bytes in the pack */
	uint64_t pack_bytes;
	uint64_t idx_bytes;
	uint64_t other_bytes; /* verbatim files */
	uint64_t nr_chunks;
	uint64_t nr_bases; /* that the image needs */
	uint64_t nr_tasks;
	uint64_t nr_left_out; /* entries of the dump that are not in the image: warn has told of
				 them */
	uint64_t ns;
	struct ckf_storage storage; /* what was chosen for */
};

/* dump and fast are paths of directories; fast must not exist unless force. */
int ckf_convert(const char *dump, const char *fast, const struct ckf_convert_opts *opts,
		struct ckf_convert_stats *stats, struct ckf_error *err);

/* Both use threads, force, bases, progress, warn, stop of opts. */
int ckf_extract(const char *fast, const char *dump, const struct ckf_convert_opts *opts,
		struct ckf_error *err);
/* Writes to the directory out an image that is equal to fast but has all its chunks itself. */
int ckf_flatten(const char *fast, const char *out, const struct ckf_convert_opts *opts,
		struct ckf_error *err);

#endif
