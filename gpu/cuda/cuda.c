/* SPDX-License-Identifier: MIT */
/*
 * Opens the CUDA driver and looks up what ckfast calls. Every function is asked for with the
 * version of the API whose signature ckf_cuda.h has, so a newer driver cannot give another one.
 */
#include "ckf_cuda.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>

#define DRIVER_HAS_CHECKPOINT 12080

/* cuGetProcAddress() itself, as it is since CUDA 12.0. */
typedef CUresult get_proc_fn(const char *name, void **out, int version, uint64_t flags,
			     int *status);

static const struct {
	const char *name;
	int version;
	size_t off; /* in struct ckf_cuda */
} functions[] = {
#define ENTRY(field, name, version, params) { name, version, offsetof(struct ckf_cuda, field) },
	CKF_CUDA_FUNCTIONS(ENTRY)
#undef ENTRY
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct ckf_cuda table; /* under lock until loaded, read-only afterwards */
static void *library;	      /* under lock */
static int loaded;	      /* under lock */

static int missing(get_proc_fn *get_proc, const char *name, struct ckf_error *err)
{
	CUresult (*get_version)(int *) = NULL;
	int version = 0;

	if (!get_proc("cuDriverGetVersion", (void **)&get_version, 2020, 0, NULL) && get_version)
		get_version(&version);
	return ckf_error_set(err, -EOPNOTSUPP, "the CUDA driver, version %d.%d, has no %s",
			     version / 1000, version % 1000 / 10, name);
}

static int lookup(get_proc_fn *get_proc, struct ckf_error *err)
{
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		void *fn = NULL;
		int status = 0;

		if (get_proc(functions[i].name, &fn, functions[i].version, 0, &status) || !fn)
			return missing(get_proc, functions[i].name, err);
		*(void **)((char *)&table + functions[i].off) = fn;
	}
	return 0;
}

/* With the lock held. */
static int load(struct ckf_error *err)
{
	get_proc_fn *get_proc;

	if (!library)
		library = dlopen(CKF_CUDA_LIBRARY, RTLD_NOW | RTLD_GLOBAL);
	if (!library)
		return ckf_error_set(err, -ENODEV, "no CUDA driver: %s", dlerror());
	*(void **)&get_proc = dlsym(library, "cuGetProcAddress_v2");
	if (!get_proc)
		return ckf_error_set(
			err, -EOPNOTSUPP, "the CUDA driver is older than version %d.%d",
			DRIVER_HAS_CHECKPOINT / 1000, DRIVER_HAS_CHECKPOINT % 1000 / 10);
	return lookup(get_proc, err);
}

int ckf_cuda_load(const struct ckf_cuda **out, struct ckf_error *err)
{
	int ret = 0;

	*out = NULL;
	pthread_mutex_lock(&lock);
	if (!loaded)
		ret = load(err);
	if (!ret) {
		loaded = 1;
		*out = &table;
	}
	pthread_mutex_unlock(&lock);
	return ret;
}

static int error_code(CUresult res)
{
	switch (res) {
	case CUDA_ERROR_OUT_OF_MEMORY:
		return -ENOMEM;
	case CUDA_ERROR_NO_DEVICE:
	case CUDA_ERROR_INVALID_DEVICE:
		return -ENODEV;
	case CUDA_ERROR_NOT_SUPPORTED:
		return -EOPNOTSUPP;
	default:
		return -EIO;
	}
}

int ckf_cuda_error(const struct ckf_cuda *cu, CUresult res, const char *what, struct ckf_error *err)
{
	const char *name = NULL;

	if (cu->get_error_name(res, &name) || !name)
		return ckf_error_set(err, error_code(res), "%s: CUDA error %d", what, res);
	return ckf_error_set(err, error_code(res), "%s: %s", what, name);
}
