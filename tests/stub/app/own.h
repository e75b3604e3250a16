/* SPDX-License-Identifier: MIT */
/*
 * For cuapp: memory that a program makes with the virtual memory API itself, in the ways that there
 * are: mapped once, its handle kept or given up; mapped twice; not mapped; not for writing.
 */
#ifndef STUB_APP_OWN_H
#define STUB_APP_OWN_H

#include "cuda.h"

#define OWN_BYTES (6ull << 20)

enum own_kind {
	OWN_KEPT,
	OWN_RELEASED,
	OWN_TWICE,
	OWN_UNMAPPED,
	OWN_READ_ONLY,
	NR_OWN
};

static struct own {
	CUdeviceptr addr; /* two ranges, one after the other */
	CUmemGenericAllocationHandle handle;
} owns[NR_OWN];

static const CUmemAllocationProp own_prop = {
	.type = CU_MEM_ALLOCATION_TYPE_PINNED,
	.location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
};

static void own_map(CUdeviceptr addr, CUmemGenericAllocationHandle handle, int nr_devices)
{
	CUmemAccessDesc access = { .location = own_prop.location,
				   .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE };

	MUST(map(addr, OWN_BYTES, 0, handle, 0));
	for (int i = 0; i < nr_devices; i++) {
		access.location.id = i;
		MUST(set_access(addr, OWN_BYTES, &access, 1));
	}
}

/* Readable and writable as long as it is to be filled. */
static CUdeviceptr own_make(enum own_kind kind, int nr_devices)
{
	struct own *o = &owns[kind];

	MUST(reserve(&o->addr, 2 * OWN_BYTES, 0, 0, 0));
	MUST(create(&o->handle, OWN_BYTES, &own_prop, 0));
	own_map(o->addr, o->handle, nr_devices);
	if (kind == OWN_TWICE)
		own_map(o->addr + OWN_BYTES, o->handle, 1);
	if (kind == OWN_RELEASED)
		MUST(mem_release(o->handle));
	return o->addr;
}

/* When they are filled. */
static void own_finish(void)
{
	const CUmemAccessDesc access = { .location = own_prop.location,
					 .flags = CU_MEM_ACCESS_FLAGS_PROT_READ };

	MUST(unmap(owns[OWN_UNMAPPED].addr, OWN_BYTES));
	MUST(set_access(owns[OWN_READ_ONLY].addr, OWN_BYTES, &access, 1));
}

/* Before contents are looked at, and afterwards. */
static void own_show(bool on)
{
	const struct own *o = &owns[OWN_UNMAPPED];

	if (on)
		own_map(o->addr, o->handle, 1);
	else
		MUST(unmap(o->addr, OWN_BYTES));
}

static unsigned long long own_access(CUdeviceptr addr, int device)
{
	const CUmemLocation where = { CU_MEM_LOCATION_TYPE_DEVICE, device };
	unsigned long long flags = 99;

	MUST(get_access(&flags, &where, addr));
	return flags;
}

/* Handles and mappings answer as the driver's do. NULL, or what is wrong. */
static const char *own_check(int nr_devices)
{
	const struct own *kept = &owns[OWN_KEPT], *twice = &owns[OWN_TWICE];
	CUmemGenericAllocationHandle handle;
	CUmemAllocationProp prop;
	unsigned long long types = 99;
	char a[PAGE], b[PAGE];
	int fd;

	MUST(dtoh(a, twice->addr + OWN_BYTES - PAGE, PAGE));
	MUST(dtoh(b, twice->addr + 2 * OWN_BYTES - PAGE, PAGE));
	if (memcmp(a, b, PAGE))
		return "second mapping";
	for (int i = 0; i < nr_devices; i++) {
		if (own_access(kept->addr, i) != CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
			return "access of device";
	}
	if (own_access(owns[OWN_READ_ONLY].addr, 0) != CU_MEM_ACCESS_FLAGS_PROT_READ)
		return "access for reading";
	MUST(retain_handle(&handle, (void *)(uintptr_t)(kept->addr + PAGE)));
	MUST(mem_release(handle));
	if (handle != kept->handle)
		return "retained handle";
	MUST(get_prop(&prop, kept->handle));
	MUST(get_attribute(&types, CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES, kept->addr));
	if (prop.requestedHandleTypes || prop.location.id || types)
		return "properties";
	if (!cu.mem_export(&fd, kept->handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0))
		return "export of what is not to be shared";
	MUST(retain_handle(&handle, (void *)(uintptr_t)owns[OWN_RELEASED].addr));
	own_map(owns[OWN_RELEASED].addr + OWN_BYTES, handle, 1);
	MUST(unmap(owns[OWN_RELEASED].addr + OWN_BYTES, OWN_BYTES));
	MUST(mem_release(handle));
	return cu.mem_release(handle + 1) ? NULL : "release of what there is not";
}

/* Made, mapped, and gone again, while other threads do other things. */
static void own_churn(CUdeviceptr addr, const void *page, CUstream stream)
{
	CUmemGenericAllocationHandle handle;

	MUST(create(&handle, OWN_BYTES, &own_prop, 0));
	own_map(addr, handle, 1);
	MUST(htod_async(addr, page, PAGE, stream));
	MUST(stream_sync(stream));
	MUST(mem_release(handle));
	MUST(unmap(addr, OWN_BYTES));
}

/* What it has imported, as from another process; gone: it gives that up. */
static void own_import(bool gone)
{
	static CUmemGenericAllocationHandle mine, imported;
	CUmemAllocationProp prop = own_prop;
	int fd;

	if (gone) {
		MUST(unmap(owns[OWN_KEPT].addr + OWN_BYTES, OWN_BYTES));
		MUST(mem_release(mine));
		return;
	}
	prop.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
	MUST(create(&mine, OWN_BYTES, &prop, 0));
	MUST(mem_export(&fd, mine, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
	MUST(mem_import(&imported, (void *)(intptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
	close(fd);
	own_map(owns[OWN_KEPT].addr + OWN_BYTES, imported, 1);
	MUST(mem_release(imported)); /* it is there as long as it is mapped */
}

static void own_end(void)
{
	MUST(unmap(owns[OWN_TWICE].addr, 2 * OWN_BYTES));
	for (int i = 0; i < NR_OWN; i++) {
		if (i != OWN_TWICE && i != OWN_UNMAPPED)
			MUST(unmap(owns[i].addr, OWN_BYTES));
		if (i != OWN_RELEASED)
			MUST(mem_release(owns[i].handle));
	}
}

#endif
