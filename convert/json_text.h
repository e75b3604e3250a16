/* SPDX-License-Identifier: MIT */
/*
 * Changes single values in the text of a JSON document and nothing else: its spaces, its escapes
 * and the order of its members stay, and whoever changes the values back has the document that it
 * was, with its digest.
 *
 * The document is one that a parser has accepted, with every key once in its object: what is here
 * finds places in it, and checks no grammar. Private to convert/.
 */
#ifndef CKF_CONVERT_JSON_TEXT_H
#define CKF_CONVERT_JSON_TEXT_H

#include <stddef.h>
#include <stdint.h>

/* A value in the text. */
struct ckf_json_span {
	size_t start;
	size_t end;
};

/* A text and the changes that it is to get. */
struct ckf_json_text {
	const char *p;
	size_t bytes;
	struct ckf_json_edit *edits;
	uint64_t nr_edits;
	uint64_t cap_edits;
};

void ckf_json_text_fini(struct ckf_json_text *t);

/* The value that is the document. */
struct ckf_json_span ckf_json_root(const struct ckf_json_text *t);
/* The value of a key, spelled without escapes, of an object: 0 or -ENOENT. */
int ckf_json_member(const struct ckf_json_text *t, struct ckf_json_span object, const char *key,
		    struct ckf_json_span *out);
/* The element of an array that follows v, or the first, where that is zero: 0 or -ENOENT. */
int ckf_json_next(const struct ckf_json_text *t, struct ckf_json_span array,
		  struct ckf_json_span *v);

/* The value becomes with, which is JSON. 0 or -ENOMEM. */
int ckf_json_change(struct ckf_json_text *t, struct ckf_json_span value, const char *with);
/* The text with all changes, to be freed; NULL: no memory. */
char *ckf_json_changed(struct ckf_json_text *t, size_t *bytes);

#endif
