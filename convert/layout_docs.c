/* SPDX-License-Identifier: MIT */
/*
 * Reads the documents of an OCI image layout, from index.json down, and finds the layers that are
 * checkpoints.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/ckf_io_util.h"
#include "img.h"
#include "layout.h"

#define MAX_DEPTH 8u
#define MAX_DOCS 4096u
/* What the parser makes of these takes a few times as much. */
#define MAX_DOCS_BYTES (16u << 20)
#define MAX_LAYERS 1024u

int ckf_layout_open_file(const struct ckf_layout *l, const char *name, struct ckf_file_part *part)
{
	const size_t n = strlen(CKF_LAYOUT_BLOBS);
	const bool blob = !strncmp(name, CKF_LAYOUT_BLOBS, n);

	if (l->tar)
		return ckf_dir_open_member(ckf_archive_dir(l->tar), name, part);
	*part = (struct ckf_file_part){ 0 };
	part->fd = ckf_open_regular(blob ? l->sha256_fd : l->dir_fd, blob ? name + n : name,
				    O_NOFOLLOW, &part->bytes);
	return part->fd < 0 ? part->fd : 0;
}

static int bad(struct ckf_layout *l, const char *what, const char *where)
{
	return ckf_error_set(l->err, -EBADMSG, "corrupt layout: %s in %s", what,
			     *where ? where : CKF_LAYOUT_INDEX);
}

static bool is_index(const char *media)
{
	return !strcmp(media, "application/vnd.oci.image.index.v1+json") ||
	       !strcmp(media, "application/vnd.docker.distribution.manifest.list.v2+json");
}

static bool is_manifest(const char *media)
{
	return !strcmp(media, "application/vnd.oci.image.manifest.v1+json") ||
	       !strcmp(media, "application/vnd.docker.distribution.manifest.v2+json");
}

static bool is_criu_tar(const char *media)
{
	return !strcmp(media, "application/vnd.containerd.container.criu.checkpoint.criu.tar");
}

/* Which engines made it: podman, CRI-O, and checkpointctl with all newer ones. */
static bool is_checkpoint(const json_t *manifest)
{
	static const char *const prefixes[] = {
		"io.podman.annotations.checkpoint.",
		"io.kubernetes.cri-o.annotations.checkpoint.",
		"org.criu.checkpoint.",
	};
	json_t *annotations = json_object_get(manifest, "annotations"), *value;
	const char *key;

	json_object_foreach(annotations, key, value)
	{
		for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++) {
			if (!strncmp(key, prefixes[i], strlen(prefixes[i])))
				return true;
		}
	}
	return false;
}

/*
 * True for two keys that readers written in Go take for the same: case does not matter to them, and
 * that of \u017f, in UTF-8 C5 BF, is an s and that of \u212a, E2 84 AA, a k.
 */
static bool is_same_to_others(const char *key, const char *want)
{
	for (; *want; want++) {
		size_t n = 1;

		if (*want == 's' && !strncmp(key, "\xc5\xbf", 2))
			n = 2;
		else if (*want == 'k' && !strncmp(key, "\xe2\x84\xaa", 3))
			n = 3;
		else if (strncasecmp(key, want, 1) != 0)
			return false;
		key += n;
	}
	return !*key;
}

/* Readers of other languages would see another value. keys: NULL ends them. */
static int check_spelling(struct ckf_layout *l, const json_t *object, const char *what,
			  const char *const *keys)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)object, key, value)
	{
		for (const char *const *k = keys; *k; k++) {
			if (is_same_to_others(key, *k) && strcmp(key, *k) != 0)
				return ckf_error_set(
					l->err, -EBADMSG,
					"corrupt layout: %s with a key that is almost %s", what,
					*k);
		}
	}
	return 0;
}

static int check_doc_spelling(struct ckf_layout *l, const struct ckf_layout_doc *doc)
{
	static const char *const index_keys[] = { "manifests", NULL };
	static const char *const manifest_keys[] = { "config", "layers", NULL };
	static const char *const config_keys[] = { "rootfs", NULL };
	static const char *const rootfs_keys[] = { "diff_ids", NULL };
	int ret;

	switch (doc->kind) {
	case CKF_LAYOUT_DOC_INDEX:
		return check_spelling(l, doc->root, "an index", index_keys);
	case CKF_LAYOUT_DOC_MANIFEST:
		return check_spelling(l, doc->root, "a manifest", manifest_keys);
	case CKF_LAYOUT_DOC_CONFIG:
		ret = check_spelling(l, doc->root, "a configuration", config_keys);
		return ret ? ret
			   : check_spelling(l, json_object_get(doc->root, "rootfs"), "a rootfs",
					    rootfs_keys);
	case CKF_LAYOUT_DOC_MARK:
		break;
	}
	return 0;
}

/* ALGORITHM:HEX, of letters and digits: never a path. */
static bool is_digest(const char *s)
{
	static const char word[] = "abcdefghijklmnopqrstuvwxyz0123456789+._-";
	const char *colon = strchr(s, ':');

	if (!colon || colon == s || strspn(s, word) != (size_t)(colon - s))
		return false;
	if (!strncmp(s, "sha256:", 7))
		return strlen(colon + 1) == CKF_SHA256_HEX &&
		       strspn(colon + 1, "0123456789abcdef") == CKF_SHA256_HEX;
	return colon[1] && !strchr(colon + 1, '/') && !strchr(colon + 1, '.');
}

int ckf_layout_get_ref(struct ckf_layout *l, const json_t *descriptor, struct ckf_layout_ref *ref)
{
	static const char *const keys[] = { "mediaType", "digest", "size", "data", NULL };
	const json_t *size = json_object_get(descriptor, "size");
	const char *digest = json_string_value(json_object_get(descriptor, "digest"));
	const char *media = json_string_value(json_object_get(descriptor, "mediaType"));
	int ret;

	*ref = (struct ckf_layout_ref){
		.media = media ? media : "",
		.has_data = json_object_get(descriptor, "data") != NULL,
	};
	if (!json_is_object(descriptor))
		return ckf_error_set(l->err, -EBADMSG,
				     "corrupt layout: a descriptor that is no object");
	ret = check_spelling(l, descriptor, "a descriptor", keys);
	if (ret)
		return ret;
	if (!digest || !is_digest(digest))
		return ckf_error_set(l->err, -EBADMSG,
				     "corrupt layout: a descriptor with a digest that is none");
	if (!json_is_integer(size) || json_integer_value(size) < 0)
		return ckf_error_set(l->err, -EBADMSG,
				     "corrupt layout: a descriptor with a size that is none");
	ref->bytes = (uint64_t)json_integer_value(size);
	if (!strncmp(digest, "sha256:", 7))
		memcpy(ref->hex, digest + 7, CKF_SHA256_HEX);
	return 0;
}

struct ckf_layout_doc *ckf_layout_find_doc(const struct ckf_layout *l, const char *hex)
{
	for (uint64_t i = 0; i < l->nr_docs; i++) {
		if (!strcmp(l->docs[i]->hex, hex))
			return l->docs[i];
	}
	return NULL;
}

int ckf_layout_read_text(struct ckf_layout *l, const char *name, const struct ckf_file_part *part,
			 char **out)
{
	char *text;
	int ret;

	l->doc_bytes += part->bytes;
	if (part->bytes > CKF_LAYOUT_MAX_DOC_BYTES || l->doc_bytes > MAX_DOCS_BYTES)
		return ckf_error_set(l->err, -E2BIG, "%s: more than %u MiB of JSON", name,
				     part->bytes > CKF_LAYOUT_MAX_DOC_BYTES
					     ? CKF_LAYOUT_MAX_DOC_BYTES >> 20
					     : MAX_DOCS_BYTES >> 20);
	text = malloc((size_t)part->bytes + 1);
	if (!text)
		return ckf_error_set(l->err, -ENOMEM, "no memory for %s", name);
	ret = ckf_pread_all(part->fd, text, (size_t)part->bytes, part->off);
	if (ret) {
		free(text);
		return ckf_error_set(l->err, ret, "cannot read %s: %s", name,
				     ret == -EBADMSG ? "it became shorter" : strerror(-ret));
	}
	text[part->bytes] = '\0';
	*out = text;
	return 0;
}

static int read_doc(struct ckf_layout *l, const char *name, struct ckf_layout_doc *doc)
{
	struct ckf_file_part part;
	int ret = ckf_layout_open_file(l, name, &part);

	if (ret)
		return ckf_error_set(l->err, ret, "cannot open %s: %s", name, strerror(-ret));
	doc->bytes = (size_t)part.bytes;
	ret = ckf_layout_read_text(l, name, &part, &doc->text);
	close(part.fd);
	return ret;
}

static int parse(struct ckf_layout *l, const char *name, struct ckf_layout_doc *doc)
{
	json_error_t e;

	doc->root = json_loadb(doc->text, doc->bytes, JSON_REJECT_DUPLICATES, &e);
	if (!doc->root && json_error_code(&e) == json_error_out_of_memory)
		return ckf_error_set(l->err, -ENOMEM, "no memory for %s", name);
	if (!doc->root)
		return ckf_error_set(l->err, -EBADMSG, "corrupt layout: %s, line %d: %s", name,
				     e.line, e.text);
	if (!json_is_object(doc->root))
		return ckf_error_set(l->err, -EBADMSG, "corrupt layout: %s is no object", name);
	return 0;
}

/* ref: what names it; NULL for index.json and oci-layout. */
static int add_doc(struct ckf_layout *l, const char *name, const struct ckf_layout_ref *ref,
		   enum ckf_layout_doc_kind kind, struct ckf_layout_doc **out)
{
	struct ckf_layout_doc *doc = calloc(1, sizeof(*doc));
	char hex[CKF_SHA256_HEX + 1];
	int ret;

	if (!doc || ckf_array_grow(&l->docs, l->nr_docs, &l->cap_docs, sizeof(*l->docs))) {
		free(doc);
		return ckf_error_set(l->err, -ENOMEM, "no memory for %s", name);
	}
	l->docs[l->nr_docs++] = doc;
	doc->kind = kind;
	*out = doc;
	if (l->nr_docs > MAX_DOCS)
		return ckf_error_set(l->err, -E2BIG, "more than %u documents in the layout",
				     MAX_DOCS);
	ret = read_doc(l, name, doc);
	if (!ret && ref) {
		memcpy(doc->hex, ref->hex, sizeof(doc->hex));
		ckf_sha256_mem(doc->text, doc->bytes, hex);
		if (doc->bytes != ref->bytes)
			ret = bad(l, "a size that is not the one by which it is named", name);
		else if (strcmp(hex, ref->hex) != 0)
			ret = bad(l, "a digest that is not the one by which it is named", name);
	}
	if (!ret)
		ret = parse(l, name, doc);
	return ret ? ret : check_doc_spelling(l, doc);
}

int ckf_layout_get_doc(struct ckf_layout *l, const struct ckf_layout_ref *ref,
		       enum ckf_layout_doc_kind kind, struct ckf_layout_doc **out)
{
	char name[CKF_LAYOUT_BLOB_LEN];

	if (!*ref->hex)
		return ckf_error_set(l->err, -EOPNOTSUPP,
				     "a checkpoint image with a digest other than SHA-256");
	snprintf(name, sizeof(name), CKF_LAYOUT_BLOBS "%s", ref->hex);
	*out = ckf_layout_find_doc(l, ref->hex);
	if (!*out)
		return add_doc(l, name, ref, kind, out);
	if ((*out)->kind != kind || (*out)->bytes != ref->bytes)
		return bad(l, "a document that two others describe differently", name);
	return 0;
}

static int add_layer(struct ckf_layout *l, const struct ckf_layout_ref *ref)
{
	for (uint64_t i = 0; i < l->nr_layers; i++) {
		if (!strcmp(l->layers[i].ref.hex, ref->hex))
			return 0;
	}
	if (!*ref->hex)
		return ckf_error_set(l->err, -EOPNOTSUPP,
				     "a checkpoint with a digest other than SHA-256");
	if (l->nr_layers == MAX_LAYERS)
		return ckf_error_set(l->err, -E2BIG, "more than %u checkpoints in the layout",
				     MAX_LAYERS);
	if (ckf_array_grow(&l->layers, l->nr_layers, &l->cap_layers, sizeof(*l->layers)))
		return ckf_error_set(l->err, -ENOMEM, "no memory for layers");
	l->layers[l->nr_layers++] = (struct ckf_layout_layer){ .ref = *ref };
	return 0;
}

static int read_manifest(struct ckf_layout *l, const struct ckf_layout_ref *ref)
{
	struct ckf_layout_ref layer, config;
	struct ckf_layout_doc *doc, *config_doc;
	json_t *layers;
	int ret = ckf_layout_get_doc(l, ref, CKF_LAYOUT_DOC_MANIFEST, &doc);

	if (ret || !is_checkpoint(doc->root))
		return ret;
	layers = json_object_get(doc->root, "layers");
	if (json_array_size(layers) != 1)
		return ckf_error_set(l->err, -EOPNOTSUPP,
				     "the checkpoint image %s has %zu layers, not one", ref->hex,
				     json_array_size(layers));
	ret = ckf_layout_get_ref(l, json_array_get(layers, 0), &layer);
	if (!ret)
		ret = ckf_layout_get_ref(l, json_object_get(doc->root, "config"), &config);
	if (!ret)
		ret = ckf_layout_get_doc(l, &config, CKF_LAYOUT_DOC_CONFIG, &config_doc);
	return ret ? ret : add_layer(l, &layer);
}

static int read_index(struct ckf_layout *l, struct ckf_layout_doc *doc, unsigned int depth);

/* 1, or 0: images of other platforms may be described, and not be there. */
static int is_there(struct ckf_layout *l, const struct ckf_layout_ref *ref)
{
	char name[CKF_LAYOUT_BLOB_LEN];
	struct ckf_file_part part;
	int ret;

	snprintf(name, sizeof(name), CKF_LAYOUT_BLOBS "%s", ref->hex);
	ret = ckf_layout_open_file(l, name, &part);
	if (ret)
		return ret == -ENOENT ? 0
				      : ckf_error_set(l->err, ret, "cannot open %s: %s", name,
						      strerror(-ret));
	close(part.fd);
	return 1;
}

static int follow(struct ckf_layout *l, const struct ckf_layout_ref *ref, unsigned int depth)
{
	struct ckf_layout_doc *doc;
	int ret;

	if (is_criu_tar(ref->media))
		return add_layer(l, ref);
	if (!*ref->hex || (!is_index(ref->media) && !is_manifest(ref->media)))
		return 0;
	ret = is_there(l, ref);
	if (ret <= 0)
		return ret;
	if (is_manifest(ref->media))
		return read_manifest(l, ref);
	/* Once is enough. */
	if (ckf_layout_find_doc(l, ref->hex))
		return 0;
	ret = ckf_layout_get_doc(l, ref, CKF_LAYOUT_DOC_INDEX, &doc);
	return ret ? ret : read_index(l, doc, depth + 1);
}

static int read_index(struct ckf_layout *l, struct ckf_layout_doc *doc, unsigned int depth)
{
	json_t *manifests = json_object_get(doc->root, "manifests"), *descriptor;
	struct ckf_layout_ref ref;
	size_t i;
	int ret = 0;

	if (depth > MAX_DEPTH)
		return ckf_error_set(l->err, -E2BIG, "indexes are nested more than %u deep",
				     MAX_DEPTH);
	if (!json_is_array(manifests))
		return bad(l, "no manifests", doc->hex);
	json_array_foreach(manifests, i, descriptor)
	{
		ret = ckf_layout_get_ref(l, descriptor, &ref);
		if (!ret)
			ret = follow(l, &ref, depth);
		if (ret)
			break;
	}
	return ret;
}

/* The version of what there is to read: a later one may mean something else. */
static int check_mark(struct ckf_layout *l)
{
	struct ckf_layout_doc *doc;
	const char *version;
	int ret = add_doc(l, CKF_LAYOUT_MARK, NULL, CKF_LAYOUT_DOC_MARK, &doc);

	if (ret)
		return ret;
	version = json_string_value(json_object_get(doc->root, "imageLayoutVersion"));
	if (!version)
		return bad(l, "no imageLayoutVersion", CKF_LAYOUT_MARK);
	if (strncmp(version, "1.", 2) != 0)
		return ckf_error_set(l->err, -EOPNOTSUPP,
				     "an image layout of a version other than 1");
	return 0;
}

int ckf_layout_read_docs(struct ckf_layout *l)
{
	struct ckf_layout_doc *doc;
	int ret = check_mark(l);

	if (!ret)
		ret = add_doc(l, CKF_LAYOUT_INDEX, NULL, CKF_LAYOUT_DOC_INDEX, &doc);
	if (!ret)
		ret = read_index(l, doc, 0);
	if (!ret && !l->nr_layers)
		ret = ckf_error_set(
			l->err, -ENOENT,
			"no checkpoint in the layout: no index has one of containerd, and "
			"no manifest has annotations of one");
	return ret;
}
