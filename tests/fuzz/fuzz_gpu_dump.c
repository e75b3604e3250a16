/* SPDX-License-Identifier: MIT */
/*
 * ckf_gpu_dump_decode() on hostile tables, and encode on what comes out. The first byte of the
 * input says what the rest is: a table, with the checksum made right or not, or changes of a good
 * one, each an offset of two bytes and a value.
 */
#include <stdlib.h>
#include <string.h>

#include "format/ckf_codec.h"
#include "format/ckf_gpu_dump.h"
#include "format/gpu_disk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void fix(uint8_t *buf, size_t bytes)
{
	struct ckf_disk_gpu_header *h = (void *)buf;

	if (bytes < sizeof(*h))
		return;
	h->checksum = ckf_put64(0);
	h->checksum = ckf_put64(ckf_hash64(buf, bytes));
}

static uint8_t *good_table(size_t *bytes)
{
	struct ckf_gpu_device devices[2] = { { .ordinal = 1, .name = "a" }, { .name = "b" } };
	struct ckf_gpu_alloc allocs[2] = { { .addr = 4 << 20, .bytes = 2 << 20, .device = 1 },
					   { .addr = 8 << 20, .bytes = 2 << 20 } };
	struct ckf_gpu_dump d = {
		.pid = 7, .devices = devices, .nr_devices = 2, .allocs = allocs, .nr_allocs = 2
	};
	void *buf;

	if (ckf_gpu_dump_encode(&d, &buf, bytes, NULL))
		abort();
	return buf;
}

/* Of exactly its length: a sanitizer sees any access beside it. */
static uint8_t *make_table(uint8_t mode, const uint8_t *data, size_t *bytes)
{
	size_t nr = *bytes;
	uint8_t *buf;

	if (mode < 2) {
		buf = malloc(nr ? nr : 1);
		if (!buf)
			abort();
		memcpy(buf, data, nr);
		return buf;
	}
	buf = good_table(bytes);
	for (; nr >= 3; nr -= 3, data += 3)
		buf[(size_t)(data[0] | data[1] << 8) % *bytes] = data[2];
	return buf;
}

/* A table that was accepted is encoded to the same bytes, but for a minor version that is newer. */
static void use(struct ckf_gpu_dump *d, const uint8_t *buf, size_t bytes)
{
	uint64_t end = 0;
	size_t again_bytes;
	uint8_t *copy;
	void *again;

	for (uint32_t i = 0; i < d->nr_allocs; i++) {
		if (d->allocs[i].addr < end || d->allocs[i].device >= d->nr_devices)
			abort();
		end = d->allocs[i].addr + d->allocs[i].bytes;
	}
	if (ckf_gpu_dump_encode(d, &again, &again_bytes, NULL) || again_bytes != bytes)
		abort();
	copy = malloc(bytes);
	if (!copy)
		abort();
	memcpy(copy, buf, bytes);
	memset(copy + offsetof(struct ckf_disk_gpu_header, version_minor), 0, 2);
	fix(copy, bytes);
	if (memcmp(copy, again, bytes) != 0)
		abort();
	free(copy);
	free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct ckf_error err = { 0 };
	struct ckf_gpu_dump *d;
	uint8_t *buf, mode;
	int ret;

	if (!bytes)
		return 0;
	mode = *data++ % 4;
	bytes--;
	buf = make_table(mode, data, &bytes);
	if (mode)
		fix(buf, bytes);
	ret = ckf_gpu_dump_decode(buf, bytes, &d, &err);
	if (ret != err.code || (!ret) != (d != NULL))
		abort();
	if (!ret)
		use(d, buf, bytes);
	ckf_gpu_dump_free(d);
	free(buf);
	return 0;
}
