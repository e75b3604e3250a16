/* SPDX-License-Identifier: MIT */
/*
 * Changes protobuf messages field by field, so that most of them stay messages: included by fuzz
 * targets. A message is a list of fields, each a tag and a value; a value that has a length may be
 * a message itself.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PM_MAX_FIELDS 256
#define PM_MAX_BYTES 4096

size_t LLVMFuzzerMutate(uint8_t *data, size_t bytes, size_t max_bytes);

struct pm_buf {
	uint8_t data[PM_MAX_BYTES];
	size_t bytes;
};

struct pm_field {
	uint64_t tag;
	uint64_t number;     /* of wire types 0, 1 and 5 */
	const uint8_t *data; /* of wire type 2 */
	size_t bytes;
};

static uint32_t pm_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*state >> 32);
}

/* Numbers at the edges of what readers check. */
static uint64_t pm_number(uint64_t *state, uint64_t old)
{
	static const uint64_t edges[] = { 0,
					  1,
					  2,
					  4095,
					  4096,
					  4097,
					  1u << 16,
					  1u << 20,
					  1u << 31,
					  UINT32_MAX,
					  1ull << 32,
					  1ull << 47,
					  (1ull << 47) - 4096,
					  1ull << 52,
					  1ull << 63,
					  UINT64_MAX,
					  UINT64_MAX - 4095 };

	switch (pm_random(state) % 6) {
	case 0:
		return edges[pm_random(state) % (sizeof(edges) / sizeof(edges[0]))];
	case 1:
		return old + pm_random(state) % 4;
	case 2:
		return old - pm_random(state) % 4;
	case 3:
		return old ^ 1ull << pm_random(state) % 64;
	case 4:
		return old + ((uint64_t)(pm_random(state) % 16) << 12);
	default:
		return old - ((uint64_t)(pm_random(state) % 16) << 12);
	}
}

static bool pm_take_varint(const uint8_t **p, const uint8_t *end, uint64_t *v)
{
	*v = 0;
	for (unsigned int shift = 0; shift < 64 && *p < end; shift += 7) {
		uint8_t byte = *(*p)++;

		*v |= (uint64_t)(byte & 127) << shift;
		if (!(byte & 128))
			return true;
	}
	return false;
}

static bool pm_take_field(const uint8_t **p, const uint8_t *end, struct pm_field *f)
{
	size_t bytes = 0;

	*f = (struct pm_field){ 0 };
	if (!pm_take_varint(p, end, &f->tag))
		return false;
	switch (f->tag & 7) {
	case 0:
		return pm_take_varint(p, end, &f->number);
	case 1:
		bytes = 8;
		break;
	case 2:
		if (!pm_take_varint(p, end, &f->number) || f->number > (size_t)(end - *p))
			return false;
		f->data = *p;
		f->bytes = (size_t)f->number;
		*p += f->bytes;
		return true;
	case 5:
		bytes = 4;
		break;
	default:
		return false;
	}
	if ((size_t)(end - *p) < bytes)
		return false;
	memcpy(&f->number, *p, bytes);
	*p += bytes;
	return true;
}

/* The number of fields, or 0 when this is no message or has too many. */
static size_t pm_parse(const uint8_t *data, size_t bytes, struct pm_field *fields)
{
	const uint8_t *p = data, *end = data + bytes;
	size_t nr = 0;

	while (p < end) {
		if (nr == PM_MAX_FIELDS || !pm_take_field(&p, end, &fields[nr++]))
			return 0;
	}
	return nr;
}

static void pm_put(struct pm_buf *b, const void *p, size_t bytes)
{
	if (bytes > sizeof(b->data) - b->bytes)
		bytes = sizeof(b->data) - b->bytes;
	if (bytes)
		memcpy(b->data + b->bytes, p, bytes);
	b->bytes += bytes;
}

static void pm_put_varint(struct pm_buf *b, uint64_t v)
{
	uint8_t bytes[10];
	size_t n = 0;

	do {
		bytes[n] = (uint8_t)(v & 127) | (v > 127 ? 128 : 0);
		n++;
		v >>= 7;
	} while (v);
	pm_put(b, bytes, n);
}

static void pm_put_field(struct pm_buf *b, const struct pm_field *f)
{
	pm_put_varint(b, f->tag);
	switch (f->tag & 7) {
	case 0:
		pm_put_varint(b, f->number);
		break;
	case 1:
		pm_put(b, &f->number, 8);
		break;
	case 5:
		pm_put(b, &f->number, 4);
		break;
	default:
		pm_put_varint(b, f->bytes);
		pm_put(b, f->data, f->bytes);
	}
}

static void pm_mutate(struct pm_buf *out, const uint8_t *data, size_t bytes, uint64_t *state,
		      unsigned int depth);

/* Puts a changed field: with a length, its message or its bytes. */
static void pm_change_field(struct pm_buf *out, struct pm_field *f, uint64_t *state,
			    unsigned int depth)
{
	struct pm_buf *inner = calloc(1, sizeof(*inner));

	if (!inner)
		abort();
	if ((f->tag & 7) == 2) {
		pm_mutate(inner, f->data, f->bytes, state, depth + 1);
		f->data = inner->data;
		f->bytes = inner->bytes;
	} else {
		f->number = pm_number(state, f->number);
	}
	pm_put_field(out, f);
	free(inner);
}

static void pm_mutate_bytes(struct pm_buf *out, const uint8_t *data, size_t bytes)
{
	pm_put(out, data, bytes);
	out->bytes = LLVMFuzzerMutate(out->data, out->bytes, sizeof(out->data));
}

/* Copies the message at data to out, one of its fields changed, gone, there twice, or of another
 * number or kind. */
static void pm_mutate(struct pm_buf *out, const uint8_t *data, size_t bytes, uint64_t *state,
		      unsigned int depth)
{
	struct pm_field *fields = calloc(PM_MAX_FIELDS, sizeof(*fields));
	uint32_t how = pm_random(state) % 16;
	size_t nr, which;

	if (!fields)
		abort();
	nr = depth > 6 ? 0 : pm_parse(data, bytes, fields);
	if (!nr || how == 15) {
		pm_mutate_bytes(out, data, bytes);
		free(fields);
		return;
	}
	which = pm_random(state) % nr;
	for (size_t i = 0; i < nr; i++) {
		struct pm_field *f = &fields[i];

		if (i != which || how == 13) {
			pm_put_field(out, f);
			continue;
		}
		if (how == 12)
			continue; /* gone */
		if (how == 11)
			pm_put_field(out, &fields[pm_random(state) % nr]);
		if (how == 10)
			f->tag ^= 8u << pm_random(state) % 5;
		if (how == 9 && (f->tag & 7) != 2)
			f->tag = (f->tag & ~7ull) | (f->tag & 7 ? 0 : 5);
		if (how >= 9)
			pm_put_field(out, f);
		else
			pm_change_field(out, f, state, depth);
	}
	if (how == 13) {
		struct pm_field f = { .tag = (1 + pm_random(state) % 24) << 3,
				      .number = pm_number(state, 1) };

		pm_put_field(out, &f);
	}
	free(fields);
}
