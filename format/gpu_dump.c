/* SPDX-License-Identifier: MIT */
/* Encodes, decodes and checks the table of a process's device memory (SPEC.md section 10). */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ckf_codec.h"
#include "ckf_gpu_dump.h"
#include "gpu_disk.h"
#include "index.h"

#define header_bad(err, ...) ckf_error_rule(err, -EBADMSG, "gpu-header", -1, 0, __VA_ARGS__)
#define device_bad(err, i, ...) \
	ckf_error_rule(err, -EBADMSG, "gpu-devices", i, device_off(i), __VA_ARGS__)
#define alloc_bad(err, d, i, ...) \
	ckf_error_rule(err, -EBADMSG, "gpu-allocs", i, ckf_gpu_alloc_off(d, i), __VA_ARGS__)

/* Where things are in a table of so many devices and allocations. */
static uint64_t device_off(uint64_t i)
{
	return sizeof(struct ckf_disk_gpu_header) + i * sizeof(struct ckf_disk_gpu_device);
}

static uint64_t allocs_off(uint64_t nr_devices, uint16_t major, uint64_t i)
{
	return device_off(nr_devices) + i * (major < 2 ? sizeof(struct ckf_disk_gpu_alloc)
						       : sizeof(struct ckf_disk_gpu_shared_alloc));
}

/* Tables without shared memory stay what readers of version 1 know. */
static uint16_t version_of(const struct ckf_gpu_dump *d)
{
	for (uint32_t i = 0; i < d->nr_allocs; i++) {
		if (d->allocs[i].flags & CKF_GPU_ALLOC_SHARED)
			return 2;
	}
	return 1;
}

uint64_t ckf_gpu_alloc_off(const struct ckf_gpu_dump *d, uint64_t i)
{
	return allocs_off(d->nr_devices, d->major, i);
}

/* The checksum is taken with its own field zero: over a copy, since the table is the caller's. */
static int table_hash(const struct ckf_disk_gpu_header *h, size_t bytes, uint64_t *sum)
{
	struct ckf_disk_gpu_header *copy = malloc(bytes);

	if (!copy)
		return -ENOMEM;
	memcpy(copy, h, bytes);
	copy->checksum = ckf_put64(0);
	*sum = ckf_hash64(copy, bytes);
	free(copy);
	return 0;
}

static int check_sum(const struct ckf_disk_gpu_header *h, size_t bytes, struct ckf_error *err)
{
	uint64_t sum;

	if (table_hash(h, bytes, &sum))
		return ckf_error_set(err, -ENOMEM, "no memory for a table of device memory");
	if (ckf_get64(h->checksum) != sum)
		return header_bad(err, "R-gpu: checksum, got 0x%" PRIx64 ", want 0x%" PRIx64,
				  ckf_get64(h->checksum), sum);
	return 0;
}

/* Length and checksum come after the version, and before anything that they cover. */
static int check_header(const struct ckf_disk_gpu_header *h, size_t bytes, struct ckf_error *err)
{
	uint32_t nr_devices, nr_allocs;
	uint64_t want;
	uint16_t major;

	if (bytes < sizeof(*h))
		return header_bad(err, "R-gpu: length of the file, got %zu, want at least %zu",
				  bytes, sizeof(*h));
	if (memcmp(h->magic, CKF_GPU_MAGIC, sizeof(h->magic)))
		return header_bad(err, "R-gpu: magic, got %.8s, want " CKF_GPU_MAGIC, h->magic);
	major = ckf_get16(h->version_major);
	if (major > CKF_GPU_VERSION_MAJOR)
		return ckf_error_rule(err, -EOPNOTSUPP, "gpu-header", -1, 0,
				      "R-gpu: version_major, got %u, want at most %u", major,
				      CKF_GPU_VERSION_MAJOR);
	if (!major)
		return header_bad(err, "R-gpu: version_major, got 0, want 1 to %u",
				  CKF_GPU_VERSION_MAJOR);
	if (ckf_get32(h->header_bytes) != sizeof(*h))
		return header_bad(err, "R-gpu: header_bytes, got %u, want %zu",
				  ckf_get32(h->header_bytes), sizeof(*h));
	nr_devices = ckf_get32(h->nr_devices);
	nr_allocs = ckf_get32(h->nr_allocs);
	if (nr_devices > CKF_GPU_MAX_DEVICES)
		return header_bad(err, "R-gpu: nr_devices, got %u, want at most %u", nr_devices,
				  CKF_GPU_MAX_DEVICES);
	if (nr_allocs > CKF_GPU_MAX_ALLOCS)
		return header_bad(err, "R-gpu: nr_allocs, got %u, want at most %u", nr_allocs,
				  CKF_GPU_MAX_ALLOCS);
	want = allocs_off(nr_devices, major, nr_allocs);
	if (bytes != want)
		return header_bad(err, "R-gpu: length of the file, got %zu, want %" PRIu64, bytes,
				  want);
	if (ckf_get32(h->reserved) || !ckf_bytes_zero(h->reserved2, sizeof(h->reserved2)))
		return header_bad(err, "R-reserved: reserved bytes, got others than 0, want 0");
	return check_sum(h, bytes, err);
}

static int decode_device(struct ckf_gpu_dump *d, uint32_t i, const struct ckf_disk_gpu_device *disk,
			 struct ckf_error *err)
{
	struct ckf_gpu_device *dev = &d->devices[i];
	size_t len = strnlen(disk->name, sizeof(disk->name));

	if (len == sizeof(disk->name))
		return device_bad(err, i, "R-gpu: name, got no byte 0, want one");
	if (!ckf_bytes_zero((const uint8_t *)disk->name + len, sizeof(disk->name) - len))
		return device_bad(err, i,
				  "R-padding: bytes after the name, got others than 0, want 0");
	if (ckf_get32(disk->reserved))
		return device_bad(err, i, "R-reserved: reserved field, got %u, want 0",
				  ckf_get32(disk->reserved));
	memcpy(dev->uuid, disk->uuid, sizeof(dev->uuid));
	memcpy(dev->name, disk->name, sizeof(dev->name));
	dev->total_bytes = ckf_get64(disk->total_bytes);
	dev->ordinal = ckf_get32(disk->ordinal);
	for (uint32_t k = 0; k < i; k++)
		if (d->devices[k].ordinal == dev->ordinal)
			return device_bad(err, i,
					  "R-gpu: ordinal, got %u, want another than that of "
					  "device %u",
					  dev->ordinal, k);
	return 0;
}

static int check_shared(const struct ckf_gpu_dump *d, uint32_t i, struct ckf_error *err)
{
	const struct ckf_gpu_alloc *a = &d->allocs[i];
	const uint32_t all = d->major < 2 ? CKF_GPU_ALLOC_RDMA : CKF_GPU_ALLOC_FLAGS_ALL;
	const bool shared = a->flags & CKF_GPU_ALLOC_SHARED;

	if (a->flags & ~all)
		return alloc_bad(err, d, i, "R-reserved: flags, got 0x%x, want only 0x%x", a->flags,
				 all);
	if (a->flags & CKF_GPU_ALLOC_IMPORT && !shared)
		return alloc_bad(err, d, i, "R-gpu: flags, got an import that is not shared");
	if (shared == ckf_bytes_zero(a->shared_id, sizeof(a->shared_id)))
		return alloc_bad(err, d, i, "R-gpu: shared_id, got %s, want the opposite",
				 shared ? "zero for shared memory" : "one for other memory");
	return 0;
}

/* min_addr: the end of the allocation before it, or 0. */
static int check_alloc(const struct ckf_gpu_dump *d, uint32_t i, uint64_t min_addr,
		       struct ckf_error *err)
{
	const struct ckf_gpu_alloc *a = &d->allocs[i];

	if (a->addr % CKF_HUGE_BYTES)
		return alloc_bad(err, d, i,
				 "R-gpu: address, got 0x%" PRIx64 ", want a multiple of 2 MiB",
				 a->addr);
	if (!a->bytes || a->bytes % CKF_HUGE_BYTES)
		return alloc_bad(err, d, i,
				 "R-gpu: bytes, got %" PRIu64
				 ", want a multiple of 2 MiB, at least one",
				 a->bytes);
	if (a->addr < min_addr)
		return alloc_bad(err, d, i,
				 "R-gpu: address, got 0x%" PRIx64 ", want at least 0x%" PRIx64,
				 a->addr, min_addr);
	if (a->addr > CKF_MAX_ADDR || a->bytes > CKF_MAX_ADDR - a->addr)
		return alloc_bad(err, d, i,
				 "R-gpu: address, got %" PRIu64 " bytes at 0x%" PRIx64
				 ", want an end at most 0x%llx",
				 a->bytes, a->addr, CKF_MAX_ADDR);
	if (a->device >= d->nr_devices)
		return alloc_bad(err, d, i, "R-gpu: device, got %u, want below %u", a->device,
				 d->nr_devices);
	return check_shared(d, i, err);
}

static int decode_alloc(struct ckf_gpu_dump *d, uint32_t i, uint64_t min_addr, const uint8_t *buf,
			struct ckf_error *err)
{
	const struct ckf_disk_gpu_shared_alloc *disk =
		(const void *)(buf + ckf_gpu_alloc_off(d, i));
	struct ckf_gpu_alloc *a = &d->allocs[i];
	int ret;

	*a = (struct ckf_gpu_alloc){
		.addr = ckf_get64(disk->alloc.addr),
		.bytes = ckf_get64(disk->alloc.bytes),
		.device = ckf_get32(disk->alloc.device),
		.flags = ckf_get32(disk->alloc.flags),
	};
	if (d->major >= 2)
		memcpy(a->shared_id, disk->shared_id, sizeof(a->shared_id));
	ret = check_alloc(d, i, min_addr, err);
	if (!ret && ckf_get64(disk->alloc.reserved))
		ret = alloc_bad(err, d, i, "R-reserved: reserved field, got %" PRIu64 ", want 0",
				ckf_get64(disk->alloc.reserved));
	return ret;
}

static int decode_allocs(struct ckf_gpu_dump *d, const uint8_t *buf, struct ckf_error *err)
{
	uint64_t end = 0;
	int ret = 0;

	for (uint32_t i = 0; i < d->nr_allocs && !ret; i++) {
		ret = decode_alloc(d, i, end, buf, err);
		end = d->allocs[i].addr + d->allocs[i].bytes;
		/* No overflow: they are apart and below 2^63. */
		d->bytes += ckf_gpu_pages_bytes(&d->allocs[i]);
	}
	return ret;
}

static int decode(const uint8_t *buf, struct ckf_gpu_dump *d, struct ckf_error *err)
{
	const struct ckf_disk_gpu_header *h = (const void *)buf;
	int ret = 0;

	d->major = ckf_get16(h->version_major);
	d->pid = ckf_get32(h->pid);
	d->nr_devices = ckf_get32(h->nr_devices);
	d->nr_allocs = ckf_get32(h->nr_allocs);
	d->devices = calloc((size_t)d->nr_devices + 1, sizeof(*d->devices));
	d->allocs = calloc((size_t)d->nr_allocs + 1, sizeof(*d->allocs));
	if (!d->devices || !d->allocs)
		return ckf_error_set(err, -ENOMEM, "no memory for a table of device memory");
	for (uint32_t i = 0; i < d->nr_devices && !ret; i++)
		ret = decode_device(d, i, (const void *)(buf + device_off(i)), err);
	if (!ret)
		ret = decode_allocs(d, buf, err);
	if (!ret && d->major != version_of(d))
		ret = header_bad(err, "R-gpu: version_major, got %u, want 1 without shared memory",
				 d->major);
	if (!ret && ckf_get64(h->pages_bytes) != d->bytes)
		ret = header_bad(err, "R-gpu: pages_bytes, got %" PRIu64 ", want %" PRIu64,
				 ckf_get64(h->pages_bytes), d->bytes);
	return ret;
}

int ckf_gpu_dump_decode(const void *buf, size_t bytes, struct ckf_gpu_dump **out,
			struct ckf_error *err)
{
	struct ckf_gpu_dump *d;
	int ret;

	*out = NULL;
	ret = check_header(buf, bytes, err);
	if (ret)
		return ret;
	d = calloc(1, sizeof(*d));
	if (!d)
		return ckf_error_set(err, -ENOMEM, "no memory for a table of device memory");
	ret = decode(buf, d, err);
	if (ret)
		ckf_gpu_dump_free(d);
	else
		*out = d;
	return ret;
}

void ckf_gpu_dump_free(struct ckf_gpu_dump *d)
{
	if (!d)
		return;
	free(d->devices);
	free(d->allocs);
	free(d);
}

static int compare_alloc(const void *a, const void *b)
{
	const struct ckf_gpu_alloc *x = a, *y = b;

	return (x->addr > y->addr) - (x->addr < y->addr);
}

static void put_tables(const struct ckf_gpu_dump *d, uint8_t *buf)
{
	struct ckf_disk_gpu_device *dev = (void *)(buf + device_off(0));

	for (uint32_t i = 0; i < d->nr_devices; i++) {
		const struct ckf_gpu_device *s = &d->devices[i];

		memcpy(dev[i].uuid, s->uuid, sizeof(dev[i].uuid));
		memcpy(dev[i].name, s->name, strnlen(s->name, sizeof(s->name) - 1));
		dev[i].total_bytes = ckf_put64(s->total_bytes);
		dev[i].ordinal = ckf_put32(s->ordinal);
	}
	for (uint32_t i = 0; i < d->nr_allocs; i++) {
		struct ckf_disk_gpu_shared_alloc *alloc = (void *)(buf + ckf_gpu_alloc_off(d, i));
		const struct ckf_gpu_alloc *a = &d->allocs[i];

		alloc->alloc.addr = ckf_put64(a->addr);
		alloc->alloc.bytes = ckf_put64(a->bytes);
		alloc->alloc.device = ckf_put32(a->device);
		alloc->alloc.flags = ckf_put32(a->flags);
		if (d->major >= 2)
			memcpy(alloc->shared_id, a->shared_id, sizeof(alloc->shared_id));
	}
}

int ckf_gpu_dump_encode(struct ckf_gpu_dump *d, void **buf, size_t *bytes, struct ckf_error *err)
{
	struct ckf_disk_gpu_header *h;

	if (d->nr_allocs)
		qsort(d->allocs, d->nr_allocs, sizeof(*d->allocs), compare_alloc);
	d->bytes = 0;
	for (uint32_t i = 0; i < d->nr_allocs; i++)
		d->bytes += ckf_gpu_pages_bytes(&d->allocs[i]);
	d->major = version_of(d);
	*bytes = ckf_gpu_alloc_off(d, d->nr_allocs);
	*buf = h = calloc(1, *bytes);
	if (!h)
		return ckf_error_set(err, -ENOMEM, "no memory for a table of device memory");
	memcpy(h->magic, CKF_GPU_MAGIC, sizeof(h->magic));
	h->version_major = ckf_put16(d->major);
	h->version_minor = ckf_put16(CKF_GPU_VERSION_MINOR);
	h->header_bytes = ckf_put32(sizeof(*h));
	h->pid = ckf_put32(d->pid);
	h->nr_devices = ckf_put32(d->nr_devices);
	h->nr_allocs = ckf_put32(d->nr_allocs);
	h->pages_bytes = ckf_put64(d->bytes);
	put_tables(d, *buf);
	h->checksum = ckf_put64(ckf_hash64(h, *bytes));
	return 0;
}
