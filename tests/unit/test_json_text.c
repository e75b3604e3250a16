/* SPDX-License-Identifier: MIT */
/* Values of a JSON document are found and replaced in its text, and the rest of it stays. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "convert/json_text.h"
#include "convert/sha256.h"

static struct ckf_json_text text_of(const char *s)
{
	return (struct ckf_json_text){ .p = s, .bytes = strlen(s) };
}

static void is(const struct ckf_json_text *t, struct ckf_json_span span, const char *want)
{
	assert_int_equal(span.end - span.start, strlen(want));
	assert_memory_equal(t->p + span.start, want, strlen(want));
}

static void test_find(void **state)
{
	struct ckf_json_text t = text_of(
		" {\t\"a\" :12 , \"b\\\"\":[ ], \"c\":{\"x\":\"}]\\\\\"},\"d\": [1 "
		",[2,{}],\"]\",true] ,\r\n"
		"\"e\":null}\n");
	struct ckf_json_span v, d;

	(void)state;
	assert_int_equal(ckf_json_member(&t, ckf_json_root(&t), "a", &v), 0);
	is(&t, v, "12");
	assert_int_equal(ckf_json_member(&t, ckf_json_root(&t), "c", &v), 0);
	is(&t, v, "{\"x\":\"}]\\\\\"}");
	assert_int_equal(ckf_json_member(&t, v, "x", &v), 0);
	is(&t, v, "\"}]\\\\\"");
	assert_int_equal(ckf_json_member(&t, v, "x", &v), -ENOENT);
	assert_int_equal(ckf_json_member(&t, ckf_json_root(&t), "e", &v), 0);
	is(&t, v, "null");
	assert_int_equal(ckf_json_member(&t, ckf_json_root(&t), "d", &d), 0);
	v = (struct ckf_json_span){ 0 };
	assert_int_equal(ckf_json_next(&t, d, &v), 0);
	is(&t, v, "1");
	assert_int_equal(ckf_json_next(&t, d, &v), 0);
	is(&t, v, "[2,{}]");
	assert_int_equal(ckf_json_next(&t, d, &v), 0);
	is(&t, v, "\"]\"");
	assert_int_equal(ckf_json_next(&t, d, &v), 0);
	is(&t, v, "true");
	assert_int_equal(ckf_json_next(&t, d, &v), -ENOENT);
	is(&t, v, "true");
	/* Only a key that is spelled in full, and only of this object. */
	assert_int_equal(ckf_json_member(&t, ckf_json_root(&t), "b\"", &v), -ENOENT);
	assert_int_equal(ckf_json_member(&t, ckf_json_root(&t), "x", &v), -ENOENT);
	assert_int_equal(ckf_json_member(&t, ckf_json_root(&t), "", &v), -ENOENT);
}

static void test_empty(void **state)
{
	static const char *const texts[] = { "{}", "[]", "{ }", " [ ] ", "7", "\"s\"", "" };
	struct ckf_json_span v = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		struct ckf_json_text t = text_of(texts[i]);

		assert_int_equal(ckf_json_member(&t, ckf_json_root(&t), "a", &v), -ENOENT);
		v.end = 0;
		assert_int_equal(ckf_json_next(&t, ckf_json_root(&t), &v), -ENOENT);
	}
}

/* What no parser would accept: no answer is right, but none may lie outside of the text. */
static void test_cut(void **state)
{
	static const char whole[] = "{\"a\":[1,{\"b\":\"c\\\"d\"},[]],\"e\":{\"f\":true}}";
	struct ckf_json_span v = { 0, 0 }, e;

	(void)state;
	for (size_t n = 0; n < sizeof(whole) - 1; n++) {
		char *copy = malloc(n ? n : 1); /* for sanitizers */
		struct ckf_json_text t = { .p = copy, .bytes = n };

		assert_non_null(copy);
		memcpy(copy, whole, n);
		if (!ckf_json_member(&t, ckf_json_root(&t), "e", &v) &&
		    !ckf_json_member(&t, v, "f", &v))
			assert_true(v.end <= n);
		e = (struct ckf_json_span){ 0 };
		while (!ckf_json_member(&t, ckf_json_root(&t), "a", &v) &&
		       !ckf_json_next(&t, v, &e))
			assert_true(e.end <= n);
		free(copy);
	}
}

static void test_change(void **state)
{
	struct ckf_json_text t = text_of("{\"a\":1, \"b\" : \"two\",\"c\":[3,4]}");
	struct ckf_json_span v, e = { 0 };
	size_t bytes;
	char *s;

	(void)state;
	/* In any order. */
	assert_int_equal(ckf_json_member(&t, ckf_json_root(&t), "c", &v), 0);
	assert_int_equal(ckf_json_next(&t, v, &e), 0);
	assert_int_equal(ckf_json_next(&t, v, &e), 0);
	assert_int_equal(ckf_json_change(&t, e, "\"four\""), 0);
	assert_int_equal(ckf_json_member(&t, ckf_json_root(&t), "a", &v), 0);
	assert_int_equal(ckf_json_change(&t, v, "1000"), 0);
	assert_int_equal(ckf_json_member(&t, ckf_json_root(&t), "b", &v), 0);
	assert_int_equal(ckf_json_change(&t, v, "2"), 0);
	s = ckf_json_changed(&t, &bytes);
	assert_string_equal(s, "{\"a\":1000, \"b\" : 2,\"c\":[3,\"four\"]}");
	assert_int_equal(bytes, strlen(s));
	free(s);
	ckf_json_text_fini(&t);
	s = ckf_json_changed(&t, &bytes);
	assert_string_equal(s, t.p);
	free(s);
}

/* Of FIPS 180-2. */
static void test_sha256(void **state)
{
	char hex[CKF_SHA256_HEX + 1];

	(void)state;
	ckf_sha256_mem("abc", 3, hex);
	assert_string_equal(hex,
			    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	ckf_sha256_mem("", 0, hex);
	assert_string_equal(hex,
			    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_find),   cmocka_unit_test(test_empty),
		cmocka_unit_test(test_cut),    cmocka_unit_test(test_change),
		cmocka_unit_test(test_sha256),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
