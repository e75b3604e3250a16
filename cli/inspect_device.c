/* SPDX-License-Identifier: MIT */
/* ckfast inspect: the device memory of the tasks, for people and for programs. */
#include <inttypes.h>
#include <stdio.h>

#include "base/ckf_uuid.h"
#include "ckf_inspect.h"

#define NAME_LEN 256

/* What of a task's memory is on one of its devices. */
static uint64_t device_bytes(const struct ckf_gpu_dump *d, uint32_t device, uint32_t *nr_allocs)
{
	uint64_t bytes = 0;

	*nr_allocs = 0;
	for (uint32_t i = 0; i < d->nr_allocs; i++) {
		if (d->allocs[i].device != device)
			continue;
		++*nr_allocs;
		bytes += ckf_gpu_pages_bytes(&d->allocs[i]);
	}
	return bytes;
}

/* Known only of an image: a plain dump would have to be read. */
static uint64_t zero_bytes(const struct insp *insp, const struct ckf_pagemap *pm)
{
	int64_t t = ckf_index_find_target(insp->img->idx, pm->kind, pm->id);

	return t < 0 ? 0 : insp->targets[t].zero_bytes;
}

static void print_table(const struct ckf_gpu_dump *d)
{
	char bytes[CLI_BYTES_LEN], all[CLI_BYTES_LEN], uuid[CKF_GPU_UUID_TEXT_BYTES],
		name[NAME_LEN];

	for (uint32_t i = 0; i < d->nr_devices; i++) {
		const struct ckf_gpu_device *dev = &d->devices[i];
		uint32_t nr;

		cli_bytes(device_bytes(d, i, &nr), bytes);
		if (dev->ordinal >= CKF_GPU_OTHER_ORDINAL)
			continue;
		printf("      device %u: %s, allocations: %u; %s, %s, %s\n", dev->ordinal, bytes,
		       nr, cli_escape(dev->name, name, sizeof(name)),
		       cli_bytes(dev->total_bytes, all), ckf_gpu_uuid_text(dev->uuid, uuid));
	}
}

void insp_print_devices(const struct insp *insp)
{
	char bytes[CLI_BYTES_LEN], zero[CLI_BYTES_LEN], name[NAME_LEN], label[2 * NAME_LEN];
	uint64_t all_zero = 0, nr_allocs = 0, nr = 0;

	for (uint64_t i = 0; i < insp->dump->nr_pagemaps; i++) {
		const struct ckf_pagemap *pm = &insp->dump->pagemaps[i];

		if (!pm->gpu)
			continue;
		if (!nr++)
			printf("\n%-40s %7s %11s %11s\n", "Device memory", "allocs", "bytes",
			       insp->img ? "zero" : "");
		if (insp->img)
			all_zero += zero_bytes(insp, pm);
		nr_allocs += pm->gpu->nr_allocs;
		snprintf(label, sizeof(label), "  %" PRIu64 " %s", pm->id,
			 insp_task_name(insp, pm->id, name, sizeof(name)));
		printf("%-40.40s %7u %11s %11s\n", label, pm->gpu->nr_allocs,
		       cli_bytes(pm->gpu->bytes, bytes),
		       insp->img ? cli_bytes(zero_bytes(insp, pm), zero) : "");
		print_table(pm->gpu);
	}
	if (nr > 1)
		printf("  %-38s %7" PRIu64 " %11s %11s\n", "all", nr_allocs,
		       cli_bytes(insp->device_bytes, bytes),
		       insp->img ? cli_bytes(all_zero, zero) : "");
}

static json_t *json_table(const struct ckf_gpu_dump *d)
{
	json_t *list = json_array();
	char uuid[CKF_GPU_UUID_TEXT_BYTES];

	for (uint32_t i = 0; i < d->nr_devices; i++) {
		const struct ckf_gpu_device *dev = &d->devices[i];
		uint32_t nr;
		uint64_t bytes = device_bytes(d, i, &nr);

		json_array_append_new(list,
				      json_pack("{so so ss so so so}", "ordinal",
						cli_json_u64(dev->ordinal), "name",
						cli_json_string(dev->name), "uuid",
						ckf_gpu_uuid_text(dev->uuid, uuid), "total_bytes",
						cli_json_u64(dev->total_bytes), "allocations",
						cli_json_u64(nr), "bytes", cli_json_u64(bytes)));
	}
	return list;
}

json_t *insp_json_devices(const struct insp *insp)
{
	json_t *list = json_array();

	for (uint64_t i = 0; i < insp->dump->nr_pagemaps; i++) {
		const struct ckf_pagemap *pm = &insp->dump->pagemaps[i];
		json_t *obj;

		if (!pm->gpu)
			continue;
		obj = json_pack("{so so so so}", "pid", cli_json_u64(pm->id), "allocations",
				cli_json_u64(pm->gpu->nr_allocs), "bytes",
				cli_json_u64(pm->gpu->bytes), "devices", json_table(pm->gpu));
		if (obj && insp->img)
			json_object_set_new(obj, "zero_bytes", cli_json_u64(zero_bytes(insp, pm)));
		json_array_append_new(list, obj);
	}
	return list;
}
