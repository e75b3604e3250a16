/* SPDX-License-Identifier: MIT */
/*
 * Questions about GPUs, in a process of its own: a driver can hang. No context is made, which takes
 * memory of the device and a while; what is free tells NVML, where it is.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpu/cuda/ckf_cuda.h"
#include "base/ckf_uuid.h"
#include "doctor.h"

#define MAX_NAME 128
#define NVML_LIBRARY "libnvidia-ml.so.1"

/* What is called of NVML, as it is documented. All return 0 when well. */
struct nvml {
	int (*init)(void);
	int (*by_uuid)(const char *uuid, void **device);
	int (*memory)(void *device, unsigned long long total_free_used[3]);
};

static bool load_nvml(struct nvml *nvml)
{
	void *lib = dlopen(NVML_LIBRARY, RTLD_NOW | RTLD_LOCAL);

	if (!lib)
		return false;
	*(void **)&nvml->init = dlsym(lib, "nvmlInit_v2");
	*(void **)&nvml->by_uuid = dlsym(lib, "nvmlDeviceGetHandleByUUID");
	*(void **)&nvml->memory = dlsym(lib, "nvmlDeviceGetMemoryInfo");
	return nvml->init && nvml->by_uuid && nvml->memory && !nvml->init();
}

static json_t *ask_device(const struct ckf_cuda *cu, int ordinal, const struct nvml *nvml)
{
	unsigned long long memory[3];
	char name[MAX_NAME] = "", text[CKF_GPU_UUID_TEXT_BYTES];
	size_t total = 0;
	void *handle;
	CUdevice dev;
	CUuuid uuid;
	json_t *obj;

	if (cu->device_get(&dev, ordinal) || cu->device_get_name(name, sizeof(name) - 1, dev) ||
	    cu->device_get_uuid(&uuid, dev) || cu->device_total_mem(&total, dev))
		return NULL;
	ckf_gpu_uuid_text((const uint8_t *)uuid.bytes, text);
	obj = json_pack("{so ss so}", "name", cli_json_string(name), "uuid", text, "total_bytes",
			cli_json_u64(total));
	if (nvml && !nvml->by_uuid(text, &handle) && !nvml->memory(handle, memory))
		json_object_set_new(obj, "free_bytes", cli_json_u64(memory[1]));
	return obj;
}

static json_t *say_error(const struct ckf_error *err)
{
	return json_pack("{si so}", "errno", -err->code, "message", cli_json_string(err->msg));
}

json_t *doctor_ask_cuda(void)
{
	struct ckf_error err = { 0 };
	const struct ckf_cuda *cu;
	struct nvml nvml = { 0 };
	json_t *list, *obj;
	int ret, count = 0, version = 0;
	bool has_nvml;

	if (ckf_cuda_load(&cu, &err))
		return say_error(&err);
	ret = cu->init(0);
	if (!ret)
		ret = cu->device_get_count(&count);
	if (ret) {
		ckf_cuda_error(cu, ret, "cuInit", &err);
		return say_error(&err);
	}
	cu->driver_get_version(&version);
	has_nvml = load_nvml(&nvml);
	list = json_array();
	for (int i = 0; i < count; i++) {
		obj = ask_device(cu, i, has_nvml ? &nvml : NULL);
		if (obj)
			json_array_append_new(list, obj);
	}
	return json_pack("{si si so}", "errno", 0, "cuda_version", version, "devices", list);
}

json_t *doctor_ask_gpud(void)
{
	struct ckf_error err = { 0 };
	json_t *status;
	char *text;
	int sock, ret;

	sock = ckf_gpud_connect(NULL, NULL, &err);
	if (sock < 0)
		return say_error(&err);
	ret = ckf_gpud_status(sock, &text, &err);
	close(sock);
	if (ret)
		return say_error(&err);
	status = json_loads(text, 0, NULL);
	free(text);
	return json_pack("{si so*}", "errno", 0, "status", status);
}
