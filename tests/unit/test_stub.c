/* SPDX-License-Identifier: MIT */
/*
 * The fake CUDA driver behaves as ckfast needs it to, in one process: looking up, memory, streams,
 * failures on demand.
 */
#include <fcntl.h>

#include "stub_child.h"

static void lookup(void)
{
	CUresult (*get2)(const char *, void **, int, uint64_t, int *);
	CUresult (*get)(const char *, void **, int, uint64_t);
	int status, version;
	void *p;

	stub_load();
	get = stub_symbol("cuGetProcAddress");
	get2 = stub_symbol("cuGetProcAddress_v2");
	OK(cu.driver_get_version(&version));
	CHECK(version >= 12080);
	CHECK((void *)cu.mem_alloc == stub_symbol("cuMemAlloc_v2"));
	CHECK((void *)cu.device_get_uuid == stub_symbol("cuDeviceGetUuid_v2"));
	OK(get("cuDeviceGetUuid", &p, 11000, 0));
	CHECK(p == stub_symbol("cuDeviceGetUuid"));
	OK(get("cuGetProcAddress", &p, 13000, 0));
	CHECK(p == (void *)get2);
	GIVES(CUDA_ERROR_NOT_FOUND, get("cuMemAlloc", &p, 2000, 0));
	GIVES(CUDA_ERROR_NOT_FOUND, get("cuNoSuchThing", &p, 13000, 0));
	OK(get2("cuMemAlloc", &p, 2000, 0, &status));
	CHECK(!p && status == 2);
	OK(get2("cuNoSuchThing", &p, 13000, 0, &status));
	CHECK(!p && status == 1);
	OK(get2("cuMemAlloc", &p, 13000, 0, &status));
	CHECK(p == (void *)cu.mem_alloc && !status);
}

static void test_lookup(void **state)
{
	(void)state;
	in_child(NULL, lookup);
}

static void needs_context(void)
{
	CUdeviceptr ptr;
	CUcontext ctx;
	int count;

	stub_load();
	GIVES(CUDA_ERROR_NOT_INITIALIZED, cu.device_get_count(&count));
	GIVES(CUDA_ERROR_NOT_INITIALIZED, cu.mem_alloc(&ptr, 1));
	OK(cu.init(0));
	OK(cu.device_get_count(&count));
	CHECK(count == 3);
	GIVES(CUDA_ERROR_INVALID_CONTEXT, cu.mem_alloc(&ptr, 1));
	OK(cu.primary_ctx_retain(&ctx, 2));
	GIVES(CUDA_ERROR_INVALID_CONTEXT, cu.mem_alloc(&ptr, 1));
	OK(cu.ctx_set_current(ctx));
	OK(cu.ctx_get_device(&count));
	CHECK(count == 2);
	OK(cu.mem_alloc(&ptr, 1));
	OK(cu.primary_ctx_release(2));
	GIVES(CUDA_ERROR_INVALID_CONTEXT, cu.mem_alloc(&ptr, 1));
	GIVES(101, cu.primary_ctx_retain(&ctx, 3));
}

static void test_needs_context(void **state)
{
	(void)state;
	in_child("CKF_STUB_GPUS=3", needs_context);
}

static size_t used(void)
{
	size_t left, total;

	OK(cu.mem_get_info(&left, &total));
	return total - left;
}

static void plain_memory(void)
{
	CUresult (*htod)(CUdeviceptr, const void *, size_t) = NULL;
	CUresult (*dtoh)(void *, CUdeviceptr, size_t) = NULL;
	CUresult (*range)(CUdeviceptr *, size_t *, CUdeviceptr) = NULL;
	CUresult (*ipc)(CUipcMemHandle *, CUdeviceptr) = NULL;
	CUdeviceptr a, b, base;
	CUipcMemHandle handle;
	char buf[512];
	size_t bytes;

	stub_load_init();
	htod = stub_symbol("cuMemcpyHtoD_v2");
	dtoh = stub_symbol("cuMemcpyDtoH_v2");
	range = stub_symbol("cuMemGetAddressRange_v2");
	ipc = stub_symbol("cuIpcGetMemHandle");
	OK(cu.mem_alloc(&a, 512));
	OK(cu.mem_alloc(&b, 5 * MIB));
	OK(dtoh(buf, a, 512));
	CHECK(!buf[0] && !memcmp(buf, buf + 1, 511));
	memset(buf, 7, 512);
	OK(htod(b + 5 * MIB - 512, buf, 512));
	memset(buf, 0, 512);
	OK(dtoh(buf, b + 5 * MIB - 512, 512));
	CHECK(buf[0] == 7 && !memcmp(buf, buf + 1, 511));
	GIVES(CUDA_ERROR_INVALID_VALUE, htod(b + 5 * MIB - 511, buf, 512));
	GIVES(CUDA_ERROR_INVALID_VALUE, dtoh(buf, a, 513));
	OK(range(&base, &bytes, b + 17));
	CHECK(base == b && bytes == 5 * MIB);
	OK(ipc(&handle, b));
	CHECK(used() >= 5 * MIB && used() <= 6 * MIB);
	GIVES(CUDA_ERROR_OUT_OF_MEMORY, cu.mem_alloc(&base, 60 * MIB));
	GIVES(CUDA_ERROR_INVALID_VALUE, cu.mem_free(b + 1));
	OK(cu.mem_free(b));
	OK(cu.mem_alloc(&b, 60 * MIB));
	OK(cu.mem_free(a));
	CHECK(used() == 60 * MIB);
}

static void test_plain_memory(void **state)
{
	(void)state;
	in_child("CKF_STUB_MIB=64", plain_memory);
}

static void virtual_memory(void)
{
	const size_t bytes = 4 * MIB;
	const CUmemAccessDesc access = { .location = { CU_MEM_LOCATION_TYPE_DEVICE, 0 },
					 .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
	CUmemGenericAllocationHandle h, imported;
	CUdeviceptr a, b, again;
	CUipcMemHandle ipc;
	char buf[64] = "";
	int fd, fd2;
	CUresult (*get_ipc)(CUipcMemHandle *, CUdeviceptr);

	stub_load_init();
	get_ipc = stub_symbol("cuIpcGetMemHandle");
	OK(cu.mem_create(&h, bytes, stub_prop(0), 0));
	GIVES(CUDA_ERROR_INVALID_VALUE, cu.mem_create(&imported, bytes + 1, stub_prop(0), 0));
	OK(cu.mem_address_reserve(&a, 2 * bytes, 0, 0, 0));
	CHECK(a % (2 * MIB) == 0);
	OK(cu.mem_map(a, bytes, 0, h, 0));
	GIVES(CUDA_ERROR_INVALID_VALUE, cu.memset_d8_async(a, 1, 1, NULL));
	OK(cu.mem_set_access(a, bytes, &access, 1));
	OK(cu.memset_d8_async(a + 100, 9, sizeof(buf), NULL));
	OK(cu.ctx_synchronize());
	GIVES(CUDA_ERROR_INVALID_VALUE, cu.memset_d8_async(a + bytes - 1, 9, 2, NULL));
	GIVES(CUDA_ERROR_INVALID_VALUE, get_ipc(&ipc, a));
	GIVES(CUDA_ERROR_INVALID_VALUE, cu.mem_address_free(a, 2 * bytes));
	OK(cu.mem_export(&fd, h, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));

	/* The descriptor keeps the memory, and its contents. */
	GIVES(CUDA_ERROR_INVALID_VALUE, cu.mem_unmap(a, bytes / 2));
	OK(cu.mem_unmap(a, bytes));
	OK(cu.mem_release(h));
	GIVES(CUDA_ERROR_INVALID_VALUE, cu.mem_release(h));
	CHECK(used() == bytes);
	OK(cu.mem_import(&imported, (void *)(intptr_t)fd,
			 CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
	close(fd);
	GIVES(CUDA_ERROR_INVALID_VALUE,
	      cu.mem_export(&fd2, imported, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
	b = stub_map(imported, bytes, 0);
	OK(cu.memcpy_dtoh_async(buf, b + 100, sizeof(buf), NULL));
	OK(cu.ctx_synchronize());
	CHECK(buf[0] == 9 && !memcmp(buf, buf + 1, sizeof(buf) - 1));
	OK(cu.mem_release(imported));
	CHECK(used() == bytes);
	OK(cu.mem_unmap(b, bytes));
	CHECK(used() == 0);

	/* The addresses stay until they are freed, and can be had again then. */
	OK(cu.mem_address_reserve(&again, 2 * bytes, 0, a, 0));
	CHECK(again != a);
	OK(cu.mem_address_free(a, 2 * bytes));
	OK(cu.mem_address_reserve(&again, 2 * bytes, 0, a, 0));
	CHECK(again == a);
	/* Not a descriptor of device memory. */
	fd = open("/dev/null", O_RDONLY);
	GIVES(CUDA_ERROR_INVALID_VALUE, cu.mem_import(&imported, (void *)(intptr_t)fd,
						      CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
}

static void test_virtual_memory(void **state)
{
	(void)state;
	in_child(NULL, virtual_memory);
}

/* Copies come late: who does not wait sees it. */
static void streams(void)
{
	CUresult (*wait_event)(CUstream, CUevent, unsigned int);
	static char buf[4096];
	CUstream s, t;
	CUdeviceptr a;
	CUevent e;

	stub_load_init();
	wait_event = stub_symbol("cuStreamWaitEvent");
	OK(cu.mem_alloc(&a, sizeof(buf)));
	OK(cu.stream_create(&s, CU_STREAM_NON_BLOCKING));
	OK(cu.stream_create(&t, CU_STREAM_NON_BLOCKING));
	OK(cu.event_create(&e, CU_EVENT_DISABLE_TIMING));
	OK(cu.event_query(e));
	OK(cu.memset_d8_async(a, 5, sizeof(buf), s));
	OK(cu.event_record(e, s));
	GIVES(CUDA_ERROR_NOT_READY, cu.event_query(e));
	/* t has to wait for s, or it would copy zeros. */
	OK(wait_event(t, e, 0));
	OK(cu.memcpy_dtoh_async(buf, a, sizeof(buf), t));
	CHECK(!buf[0]);
	OK(cu.stream_synchronize(t));
	CHECK(buf[0] == 5 && buf[sizeof(buf) - 1] == 5);
	OK(cu.event_query(e));

	/* The stream's own thread gets there, too. */
	OK(cu.memset_d8_async(a, 6, sizeof(buf), s));
	OK(cu.memcpy_dtoh_async(buf, a, sizeof(buf), s));
	for (int i = 0; i < 1000 && __atomic_load_n(buf, __ATOMIC_SEQ_CST) != 6; i++)
		usleep(10000);
	CHECK(buf[0] == 6);
	OK(cu.stream_destroy(t));

	/* The null stream waits for streams that do not say no, and they for it. */
	OK(cu.stream_create(&t, 0));
	OK(cu.memset_d8_async(a, 7, sizeof(buf), t));
	OK(cu.memcpy_dtoh_async(buf, a, sizeof(buf), NULL));
	OK(cu.stream_synchronize(NULL));
	CHECK(buf[0] == 7);
	OK(cu.memset_d8_async(a, 8, sizeof(buf), NULL));
	OK(cu.memcpy_dtoh_async(buf, a, sizeof(buf), t));
	OK(cu.stream_synchronize(t));
	CHECK(buf[0] == 8);
	OK(cu.stream_destroy(t));
	GIVES(400, cu.stream_synchronize(t));
}

static void test_streams(void **state)
{
	(void)state;
	in_child("CKF_STUB_DELAY_US=100000", streams);
}

/* Memory that is taken away before a copy has come to it. */
static void late_copy(void)
{
	CUmemGenericAllocationHandle h;
	CUdeviceptr a;
	CUstream s;

	stub_load_init();
	OK(cu.mem_create(&h, 2 * MIB, stub_prop(0), 0));
	a = stub_map(h, 2 * MIB, 0);
	OK(cu.stream_create(&s, CU_STREAM_NON_BLOCKING));
	OK(cu.memset_d8_async(a, 1, 2 * MIB, s));
	OK(cu.mem_unmap(a, 2 * MIB));
	GIVES(700, cu.stream_synchronize(s));
	GIVES(700, cu.ctx_synchronize());
}

static void test_late_copy(void **state)
{
	(void)state;
	in_child("CKF_STUB_DELAY_US=100000", late_copy);
}

/* Lines of a file, which is then removed. */
static int take_lines(const char *path)
{
	char line[256];
	int n = 0;
	FILE *f = fopen(path, "r");

	CHECK(f);
	while (fgets(line, sizeof(line), f))
		n++;
	fclose(f);
	unlink(path);
	return n;
}

static void fail_nth(void)
{
	CUdeviceptr a;
	int fd;

	unlink("build/stub-fail");
	unlink("build/stub-hit");
	stub_load_init();
	OK(cu.mem_alloc(&a, 512));
	GIVES(CUDA_ERROR_UNKNOWN, cu.mem_alloc(&a, 512));
	OK(cu.mem_alloc(&a, 512));
	GIVES(CUDA_ERROR_UNKNOWN, cu.mem_free(a));
	OK(cu.mem_free(a));

	/* A file counts anew. */
	fd = open("build/stub-fail", O_WRONLY | O_CREAT | O_TRUNC, 0600);
	CHECK(fd >= 0 && write(fd, "cuMemFree:9,cuMemAlloc:2\n", 25) == 25);
	OK(cu.mem_alloc(&a, 512));
	GIVES(CUDA_ERROR_UNKNOWN, cu.mem_alloc(&a, 512));
	OK(cu.mem_alloc(&a, 512));
	CHECK(pwrite(fd, "cuCtxSynchronize:*      \n", 25, 0) == 25);
	GIVES(CUDA_ERROR_UNKNOWN, cu.ctx_synchronize());
	GIVES(CUDA_ERROR_UNKNOWN, cu.ctx_synchronize());
	unlink("build/stub-fail");
	OK(cu.ctx_synchronize());
	CHECK(used() == 3 * 4096);
	CHECK(take_lines("build/stub-hit") == 5);
}

static void fail_nth_env(void)
{
	setenv("CKF_STUB_FAIL_FILE", "build/stub-fail", 1);
	setenv("CKF_STUB_HIT", "build/stub-hit", 1);
	fail_nth();
}

static void test_fail_nth(void **state)
{
	(void)state;
	in_child("CKF_STUB_FAIL=cuMemAlloc:2,cuMemFree:1", fail_nth_env);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lookup),	     cmocka_unit_test(test_needs_context),
		cmocka_unit_test(test_plain_memory), cmocka_unit_test(test_virtual_memory),
		cmocka_unit_test(test_streams),	     cmocka_unit_test(test_late_copy),
		cmocka_unit_test(test_fail_nth),
	};

	stub_set_id();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
