/* SPDX-License-Identifier: MIT */
/*
 * OCI image layouts: a directory, or a tar archive of one, with oci-layout, index.json and blobs
 * that are named by their digests. index.json leads to indexes and manifests, these to the layers.
 *
 * Layers that are checkpoints are archives (archive.h). containerd names such a blob in an index,
 * by its media type. podman, CRI-O and checkpointctl make an image with one layer, and say so in
 * annotations of its manifest. Everything else in a layout is copied as it is.
 *
 * Every byte is hostile: a document counts only when its size and its digest are those by which
 * another one names it. Private to convert/.
 */
#ifndef CKF_CONVERT_LAYOUT_H
#define CKF_CONVERT_LAYOUT_H

#include <jansson.h>

#include "archive.h"
#include "json_text.h"
#include "sha256.h"

#define CKF_LAYOUT_MARK "oci-layout"
#define CKF_LAYOUT_INDEX "index.json"
#define CKF_LAYOUT_DOCKER "manifest.json" /* what docker load reads instead */
#define CKF_LAYOUT_BLOBS "blobs/sha256/"
#define CKF_LAYOUT_BLOB_LEN (sizeof(CKF_LAYOUT_BLOBS) + CKF_SHA256_HEX)
/* Registries take manifests of as much. */
#define CKF_LAYOUT_MAX_DOC_BYTES (4u << 20)

/* Another blob, as a document names it. hex: "" where the digest is not one of SHA-256. */
struct ckf_layout_ref {
	const char *media; /* of the document; "" where it says nothing */
	char hex[CKF_SHA256_HEX + 1];
	uint64_t bytes;
	bool has_data; /* the descriptor holds the blob itself, too */
};

enum ckf_layout_doc_kind {
	CKF_LAYOUT_DOC_INDEX,
	CKF_LAYOUT_DOC_MANIFEST,
	CKF_LAYOUT_DOC_CONFIG,
	CKF_LAYOUT_DOC_MARK,
};

struct ckf_layout_doc {
	char hex[CKF_SHA256_HEX + 1]; /* "" for index.json and oci-layout */
	enum ckf_layout_doc_kind kind;
	char *text;
	size_t bytes;
	json_t *root;
	/* Of ckf_layout_rewrite(). */
	bool done;
	bool again;	/* another one has become the same */
	char *new_text; /* NULL: it stays */
	size_t new_bytes;
};

/* A layer that is a checkpoint. */
struct ckf_layout_layer {
	struct ckf_layout_ref ref; /* media stays the document's */
	bool fast;
	char diff_hex[CKF_SHA256_HEX + 1]; /* of what it is when it is not compressed */
};

/* What has become of a blob. */
struct ckf_layout_change {
	char from[CKF_SHA256_HEX + 1];
	char to[CKF_SHA256_HEX + 1];
	uint64_t bytes;
	bool is_layer; /* which is not compressed, whatever it was before */
};

struct ckf_layout {
	struct ckf_archive *tar; /* NULL: a directory */
	int dir_fd;		 /* that directory, or -1 */
	int blobs_fd;		 /* blobs in it */
	int sha256_fd;		 /* and sha256 in that one */
	char *tmp_dir;		 /* for what is in compressed layers */
	struct ckf_layout_doc **docs;
	uint64_t nr_docs;
	uint64_t cap_docs;
	uint64_t doc_bytes;
	struct ckf_layout_layer *layers;
	uint64_t nr_layers;
	uint64_t cap_layers;
	struct ckf_layout_change *changes;
	uint64_t nr_changes;
	uint64_t cap_changes;
	struct ckf_error *err;
};

/* True for the path of a directory that is a layout. */
bool ckf_layout_probe(const char *path);
/*
 * Opens the layout in the directory at path, or in an archive of the kind CKF_ARCHIVE_LAYOUT, which
 * it takes, and reads its documents. beside: where the result will be, or NULL.
 */
int ckf_layout_open(const char *path, struct ckf_archive *tar, const char *beside,
		    struct ckf_layout **out, struct ckf_error *err);
/* The same with a path that begins at the directory dir_fd. */
int ckf_layout_open_at(int dir_fd, const char *path, struct ckf_archive *tar, const char *beside,
		       struct ckf_layout **out, struct ckf_error *err);
void ckf_layout_close(struct ckf_layout *l);

/* Opens a file by its name in the layout: 0, -ENOENT or -errno. */
int ckf_layout_open_file(const struct ckf_layout *l, const char *name, struct ckf_file_part *part);
/* Checks size and digest of a layer, and opens the archive that it is. */
int ckf_layout_open_layer(struct ckf_layout *l, struct ckf_layout_layer *layer,
			  const struct ckf_convert_opts *opts, struct ckf_archive **out);

/* layout_rewrite.c: every document that leads to a changed blob becomes a changed blob, too. */
int ckf_layout_rewrite(struct ckf_layout *l);
/* The blob of that digest, which it had, is another one now. */
int ckf_layout_add_change(struct ckf_layout *l, const struct ckf_layout_change *change);
const struct ckf_layout_change *ckf_layout_find_change(const struct ckf_layout *l, const char *hex);
/* True for the digest of what a blob has become. */
bool ckf_layout_is_new(const struct ckf_layout *l, const char *hex);
/* The text with the digests of all blobs that have changed, to be freed; NULL: no memory. */
char *ckf_layout_new_digests(const struct ckf_layout *l, const char *text, size_t bytes);

/* layout_docs.c. Reads a small file that is open, to be freed; a zero byte follows its text. */
int ckf_layout_read_text(struct ckf_layout *l, const char *name, const struct ckf_file_part *part,
			 char **out);
int ckf_layout_read_docs(struct ckf_layout *l);
/* The document that ref names, read once. */
int ckf_layout_get_doc(struct ckf_layout *l, const struct ckf_layout_ref *ref,
		       enum ckf_layout_doc_kind kind, struct ckf_layout_doc **out);
struct ckf_layout_doc *ckf_layout_find_doc(const struct ckf_layout *l, const char *hex);
/* What a descriptor says. */
int ckf_layout_get_ref(struct ckf_layout *l, const json_t *descriptor, struct ckf_layout_ref *ref);

#endif
