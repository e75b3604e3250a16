/* SPDX-License-Identifier: MIT */
/* Opens libhsakmt and looks up what ckfast calls. */
#include "hsakmt.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stddef.h>

static const struct {
	const char *name;
	size_t off; /* in struct hsakmt */
} functions[] = {
#define ENTRY(field, name) { #name, offsetof(struct hsakmt, field) },
	HSAKMT_FUNCTIONS(ENTRY)
#undef ENTRY
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct hsakmt table; /* under lock until loaded, read-only afterwards */
static bool loaded;	    /* under lock */

/* With the lock held. */
static int load(struct ckf_error *err)
{
	void *library = dlopen(HSAKMT_LIBRARY, RTLD_NOW);

	if (!library)
		return ckf_error_set(err, -ENODEV, "no libhsakmt: %s", dlerror());
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		void *fn = dlsym(library, functions[i].name);

		if (!fn)
			return ckf_error_set(err, -EOPNOTSUPP, "libhsakmt has no %s",
					     functions[i].name);
		*(void **)((char *)&table + functions[i].off) = fn;
	}
	return 0;
}

int hsakmt_load(const struct hsakmt **out, struct ckf_error *err)
{
	int ret = 0;

	pthread_mutex_lock(&lock);
	if (!loaded)
		ret = load(err);
	if (!ret) {
		loaded = true;
		*out = &table;
	}
	pthread_mutex_unlock(&lock);
	return ret;
}

static int error_code(HSAKMT_STATUS status)
{
	switch (status) {
	case HSAKMT_STATUS_NO_MEMORY:
	case HSAKMT_STATUS_BUFFER_TOO_SMALL:
		return -ENOMEM;
	case HSAKMT_STATUS_KERNEL_IO_CHANNEL_NOT_OPENED:
	case HSAKMT_STATUS_INVALID_NODE_UNIT:
		return -ENODEV;
	case HSAKMT_STATUS_NOT_SUPPORTED:
	case HSAKMT_STATUS_NOT_IMPLEMENTED:
	case HSAKMT_STATUS_DRIVER_MISMATCH:
		return -EOPNOTSUPP;
	default:
		return -EIO;
	}
}

int hsakmt_error(HSAKMT_STATUS status, const char *what, struct ckf_error *err)
{
	return ckf_error_set(err, error_code(status), "%s: libhsakmt error %d", what, (int)status);
}
