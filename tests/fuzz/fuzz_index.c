/* SPDX-License-Identifier: MIT */
/*
 * ckf_index_decode() on hostile bytes. The first byte of the input says what the rest is:
 *
 *	0	an index as it is
 *	1	an index, whose checksums are made right
 *	2	edits of the sample image: two bytes offset, one byte value, each
 *	3	sections: 9 counts of two bytes, then the bytes of all; the header is put before
 *		them, and says whether there is a ninth
 *	4	edits, as above, of the sample with a base
 *	5	the same, of the sample with two chunks on one page
 *
 * What is accepted has to encode again to something that is accepted, and to be safe to search.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Fuzz targets are linked without the helpers of the unit tests. */
#include "tests/unit/img_builder.c"

#define NR_SECTIONS 9

static const uint32_t entry_bytes[NR_SECTIONS] = { 1, 24, 4, 88, 56, 16, 40, 16, 48 };
static struct {
	uint8_t *buf;
	size_t bytes;
} sample, based, packed;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct img_builder b;

	(void)argc;
	(void)argv;
	img_sample(&b);
	sample.buf = img_encode(&b, &sample.bytes);
	img_to_base(&b, -1, "../base");
	based.buf = img_encode(&b, &based.bytes);
	img_fini(&b);
	img_sample(&b);
	b.idx.chunks[4].pack_off = b.idx.chunks[3].pack_off + b.idx.chunks[3].stored_bytes;
	packed.buf = img_encode(&b, &packed.bytes);
	img_fini(&b);
	return 0;
}

/* malloc()ed, of exactly the length of the index. */
static uint8_t *edited(const uint8_t *whole, size_t whole_bytes, const uint8_t *data, size_t bytes)
{
	uint8_t *buf = copy(whole, whole_bytes);

	for (; bytes >= 3; data += 3, bytes -= 3)
		buf[((size_t)data[0] | (size_t)data[1] << 8) % whole_bytes] = data[2];
	return buf;
}

static uint8_t *joined_sections(const uint8_t *data, size_t bytes, size_t *idx_bytes)
{
	struct img_section sections[NR_SECTIONS];
	uint8_t header[sizeof(struct ckf_disk_header)];
	const uint8_t *rest = data + 2 * NR_SECTIONS;
	uint64_t features;

	if (bytes < 2 * NR_SECTIONS)
		return NULL;
	bytes -= 2 * NR_SECTIONS;
	for (uint32_t i = 0; i < NR_SECTIONS; i++) {
		uint64_t count = (uint64_t)data[2 * i] | (uint64_t)data[2 * i + 1] << 8;

		if (count > bytes / entry_bytes[i])
			count = bytes / entry_bytes[i];
		sections[i] = (struct img_section){ i + 1, entry_bytes[i], count, rest };
		rest += count * entry_bytes[i];
		bytes -= count * entry_bytes[i];
	}
	memcpy(header, sample.buf, sizeof(header));
	/* The bits of codecs and bases, so that all kinds of image come up. */
	features = bytes ? rest[0] & CKF_INCOMPAT_ALL : 0;
	((struct ckf_disk_header *)(void *)header)->incompat = ckf_put64(features);
	return img_join_sections(header, sections, NR_SECTIONS - !(features & CKF_INCOMPAT_BASES),
				 idx_bytes);
}

static void use(struct ckf_index *idx)
{
	struct ckf_index *again;
	size_t bytes;
	void *buf;

	for (uint64_t i = 0; i < idx->nr_targets; i++) {
		const struct ckf_target *t = &idx->targets[i];

		if (ckf_index_find_target(idx, t->kind, t->id) != (int64_t)i)
			abort();
		for (uint64_t o = t->first_op; o < t->first_op + t->nr_ops; o++) {
			if (ckf_index_find_op(idx, t, ckf_op_addr(&idx->ops[o])) != o)
				abort();
		}
	}
	if (ckf_index_encode(idx, &buf, &bytes, NULL) || ckf_index_decode(buf, bytes, &again, NULL))
		abort();
	ckf_index_free(again);
	free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct ckf_error err = { 0 };
	struct ckf_index *idx;
	size_t idx_bytes;
	uint8_t *buf;
	uint8_t mode;
	int ret;

	if (!bytes)
		return 0;
	mode = *data++ % 6;
	idx_bytes = --bytes;
	if (mode == 2) {
		buf = edited(sample.buf, sample.bytes, data, bytes);
		idx_bytes = sample.bytes;
	} else if (mode == 4) {
		buf = edited(based.buf, based.bytes, data, bytes);
		idx_bytes = based.bytes;
	} else if (mode == 5) {
		buf = edited(packed.buf, packed.bytes, data, bytes);
		idx_bytes = packed.bytes;
	} else if (mode == 3) {
		buf = joined_sections(data, bytes, &idx_bytes);
	} else {
		buf = malloc(bytes ? bytes : 1);
		if (buf)
			memcpy(buf, data, bytes);
	}
	if (!buf)
		return 0;
	if (mode)
		img_fix_checksums(buf, idx_bytes);
	ret = ckf_index_decode(buf, idx_bytes, &idx, &err);
	if (ret != err.code)
		abort();
	if (!ret)
		use(idx);
	if (!ret)
		ckf_index_free(idx);
	free(buf);
	return 0;
}
