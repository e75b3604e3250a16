/* SPDX-License-Identifier: MIT */
/*
 * Makes the documents of a layout right again whose blobs have changed: a document that names a
 * changed blob changes itself, and so do those that name it, up to index.json.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "img.h"
#include "layout.h"

#define MEDIA_NAME_MAX 127u /* RFC 6838 */

int ckf_layout_add_change(struct ckf_layout *l, const struct ckf_layout_change *change)
{
	if (ckf_array_grow(&l->changes, l->nr_changes, &l->cap_changes, sizeof(*l->changes)))
		return ckf_error_set(l->err, -ENOMEM, "no memory for changed blobs");
	l->changes[l->nr_changes++] = *change;
	return 0;
}

const struct ckf_layout_change *ckf_layout_find_change(const struct ckf_layout *l, const char *hex)
{
	for (uint64_t i = 0; i < l->nr_changes; i++) {
		if (!strcmp(l->changes[i].from, hex))
			return &l->changes[i];
	}
	return NULL;
}

bool ckf_layout_is_new(const struct ckf_layout *l, const char *hex)
{
	for (uint64_t i = 0; i < l->nr_changes; i++) {
		if (!strcmp(l->changes[i].to, hex))
			return true;
	}
	return false;
}

/* The value at a key, which the parser has found; with escapes in the key, its place is unknown. */
static int change_member(struct ckf_layout *l, struct ckf_json_text *t, struct ckf_json_span object,
			 const char *key, const char *with)
{
	struct ckf_json_span value;

	if (ckf_json_member(t, object, key, &value))
		return ckf_error_set(l->err, -EOPNOTSUPP,
				     "a document of the layout spells %s with escapes", key);
	if (ckf_json_change(t, value, with))
		return ckf_error_set(l->err, -ENOMEM, "no memory for a document");
	return 0;
}

/* One of the two names of a media type, as RFC 6838 has them: none of it needs an escape. */
static bool is_media_name(const char *s, size_t len)
{
	static const char letters[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&-^_.+";

	return len && len <= MEDIA_NAME_MAX && strspn(s, letters) >= len;
}

static bool is_media(const char *s)
{
	const char *slash = strchr(s, '/');

	return slash && is_media_name(s, (size_t)(slash - s)) &&
	       is_media_name(slash + 1, strlen(slash + 1));
}

/* How much of a media type is left without the compression at its end: 0 where it names none. */
static size_t plain_media(const char *media)
{
	static const char *const endings[] = { "+gzip", "+zstd", ".gzip", ".zstd" };
	size_t n = strlen(media);

	for (size_t i = 0; i < sizeof(endings) / sizeof(*endings); i++) {
		size_t len = strlen(endings[i]);

		if (n > len && !strcmp(media + n - len, endings[i]))
			return n - len;
	}
	return 0;
}

/* The new layer is not compressed. The type goes into the document as it is. */
static int change_media(struct ckf_layout *l, struct ckf_json_text *t, struct ckf_json_span object,
			const char *media)
{
	char plain[2 * MEDIA_NAME_MAX + sizeof("\"/\"")];
	const size_t n = plain_media(media);

	if (!n)
		return 0;
	if (!is_media(media))
		return ckf_error_set(l->err, -EBADMSG,
				     "corrupt layout: a layer with a media type that is none");
	snprintf(plain, sizeof(plain), "\"%.*s\"", (int)n, media);
	return change_member(l, t, object, "mediaType", plain);
}

static int change_descriptor(struct ckf_layout *l, struct ckf_json_text *t,
			     struct ckf_json_span object, const struct ckf_layout_ref *ref,
			     const struct ckf_layout_change *c)
{
	char digest[CKF_SHA256_HEX + 16], size[24];
	int ret;

	snprintf(digest, sizeof(digest), "\"sha256:%s\"", c->to);
	snprintf(size, sizeof(size), "%" PRIu64, c->bytes);
	ret = change_member(l, t, object, "digest", digest);
	if (!ret)
		ret = change_member(l, t, object, "size", size);
	if (!ret && ref->has_data)
		ret = ckf_error_set(l->err, -EOPNOTSUPP,
				    "a descriptor of the layout that holds the blob itself");
	return ret || !c->is_layer ? ret : change_media(l, t, object, ref->media);
}

/* Takes the changes of doc into account, if there are any. Another one may have become the same. */
static int finish_doc(struct ckf_layout *l, struct ckf_layout_doc *doc, struct ckf_json_text *t)
{
	struct ckf_layout_change c = { 0 };

	doc->done = true;
	if (!t->nr_edits)
		return 0;
	doc->new_text = ckf_json_changed(t, &doc->new_bytes);
	if (!doc->new_text)
		return ckf_error_set(l->err, -ENOMEM, "no memory for a document");
	memcpy(c.from, doc->hex, sizeof(c.from));
	ckf_sha256_mem(doc->new_text, doc->new_bytes, c.to);
	doc->again = *doc->hex && ckf_layout_is_new(l, c.to);
	c.bytes = doc->new_bytes;
	return *doc->hex ? ckf_layout_add_change(l, &c) : 0;
}

/* The configuration has the digest of each layer as it is when it is not compressed. */
static int rewrite_config(struct ckf_layout *l, struct ckf_layout_doc *manifest)
{
	json_t *layers = json_object_get(manifest->root, "layers"), *ids;
	struct ckf_json_span rootfs, diff_ids, id = { 0 };
	struct ckf_json_text t = { 0 };
	const struct ckf_layout_change *c;
	struct ckf_layout_doc *doc;
	struct ckf_layout_ref ref;
	char digest[CKF_SHA256_HEX + 16];
	int ret = ckf_layout_get_ref(l, json_object_get(manifest->root, "config"), &ref);

	if (!ret)
		ret = ckf_layout_get_doc(l, &ref, CKF_LAYOUT_DOC_CONFIG, &doc);
	if (ret || doc->done)
		return ret;
	t = (struct ckf_json_text){ .p = doc->text, .bytes = doc->bytes };
	ids = json_object_get(json_object_get(doc->root, "rootfs"), "diff_ids");
	if (json_array_size(ids) != json_array_size(layers) ||
	    ckf_json_member(&t, ckf_json_root(&t), "rootfs", &rootfs) ||
	    ckf_json_member(&t, rootfs, "diff_ids", &diff_ids))
		return ckf_error_set(l->err, -EBADMSG,
				     "corrupt layout: configuration %s has not one of diff_ids for "
				     "each layer",
				     doc->hex);
	for (size_t i = 0; i < json_array_size(ids) && !ret; i++) {
		const char *s = json_string_value(json_array_get(ids, i));

		if (ckf_json_next(&t, diff_ids, &id))
			break;
		c = s && !strncmp(s, "sha256:", 7) ? ckf_layout_find_change(l, s + 7) : NULL;
		if (!c)
			continue;
		snprintf(digest, sizeof(digest), "\"sha256:%s\"", c->to);
		if (ckf_json_change(&t, id, digest))
			ret = ckf_error_set(l->err, -ENOMEM, "no memory for a document");
	}
	if (!ret && !t.nr_edits)
		ret = ckf_error_set(
			l->err, -EBADMSG,
			"corrupt layout: the diff_ids of configuration %s are not those "
			"of its layers",
			doc->hex);
	if (!ret)
		ret = finish_doc(l, doc, &t);
	ckf_json_text_fini(&t);
	return ret;
}

static int rewrite_doc(struct ckf_layout *l, struct ckf_layout_doc *doc);

/* One that the document names. */
static int rewrite_ref(struct ckf_layout *l, struct ckf_json_text *t, struct ckf_json_span object,
		       const json_t *descriptor)
{
	const struct ckf_layout_change *c;
	struct ckf_layout_doc *child;
	struct ckf_layout_ref ref;
	int ret = ckf_layout_get_ref(l, descriptor, &ref);

	if (ret || !*ref.hex)
		return ret;
	child = ckf_layout_find_doc(l, ref.hex);
	if (child)
		ret = rewrite_doc(l, child);
	c = ckf_layout_find_change(l, ref.hex);
	return ret || !c ? ret : change_descriptor(l, t, object, &ref, c);
}

static int rewrite_list(struct ckf_layout *l, struct ckf_layout_doc *doc, struct ckf_json_text *t,
			const char *key)
{
	json_t *list = json_object_get(doc->root, key), *descriptor;
	struct ckf_json_span array, object = { 0 };
	size_t i;
	int ret = 0;

	if (!json_array_size(list))
		return 0;
	if (ckf_json_member(t, ckf_json_root(t), key, &array))
		return ckf_error_set(l->err, -EOPNOTSUPP,
				     "a document of the layout spells %s with escapes", key);
	json_array_foreach(list, i, descriptor)
	{
		if (!ret && ckf_json_next(t, array, &object))
			ret = ckf_error_set(l->err, -EBADMSG, "corrupt layout: %s in %s", key,
					    doc->hex);
		if (!ret)
			ret = rewrite_ref(l, t, object, descriptor);
	}
	return ret;
}

/* What it names comes first. No document can name one that names it: digests see to that. */
static int rewrite_doc(struct ckf_layout *l, struct ckf_layout_doc *doc)
{
	struct ckf_json_text t = { .p = doc->text, .bytes = doc->bytes };
	struct ckf_json_span config;
	int ret;

	if (doc->done || doc->kind > CKF_LAYOUT_DOC_MANIFEST)
		return 0;
	ret = rewrite_list(l, doc, &t, doc->kind == CKF_LAYOUT_DOC_INDEX ? "manifests" : "layers");
	if (!ret && doc->kind == CKF_LAYOUT_DOC_MANIFEST && t.nr_edits) {
		ret = rewrite_config(l, doc);
		if (!ret && ckf_json_member(&t, ckf_json_root(&t), "config", &config))
			ret = ckf_error_set(l->err, -EOPNOTSUPP,
					    "a manifest spells config with escapes");
		if (!ret)
			ret = rewrite_ref(l, &t, config, json_object_get(doc->root, "config"));
	}
	if (!ret)
		ret = finish_doc(l, doc, &t);
	ckf_json_text_fini(&t);
	return ret;
}

int ckf_layout_rewrite(struct ckf_layout *l)
{
	int ret = 0;

	/* More may be read meanwhile: configurations. */
	for (uint64_t i = 0; i < l->nr_docs && !ret; i++)
		ret = rewrite_doc(l, l->docs[i]);
	return ret;
}

char *ckf_layout_new_digests(const struct ckf_layout *l, const char *text, size_t bytes)
{
	char *copy = malloc(bytes + 1), hex[CKF_SHA256_HEX + 1];
	const struct ckf_layout_change *c;
	size_t n;

	if (!copy)
		return NULL;
	memcpy(copy, text, bytes);
	copy[bytes] = '\0';
	for (size_t at = 0; at < bytes; at += n ? n : 1) {
		n = strspn(copy + at, "0123456789abcdef");
		if (n != CKF_SHA256_HEX)
			continue;
		snprintf(hex, sizeof(hex), "%s", copy + at);
		c = ckf_layout_find_change(l, hex);
		if (c)
			memcpy(copy + at, c->to, CKF_SHA256_HEX);
	}
	return copy;
}
