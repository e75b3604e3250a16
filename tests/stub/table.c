/* SPDX-License-Identifier: MIT */
/*
 * Calls of the application: looking functions up, counting calls, and making some of them fail.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stub.h"

#define SPEC_BYTES 1024
#define HEAP_BYTES 40000
#define MEET_NS 1000000u

enum {
	LOOKUP_FOUND = 0,
	LOOKUP_NOT_FOUND = 1,
	LOOKUP_VERSION_TOO_LOW = 2,
};

/* Their types do not matter here: only their addresses are taken. */
#define DECLARE(name, version, symbol, need) extern void symbol(void);
STUB_FUNCTIONS(DECLARE)
#undef DECLARE

static const struct {
	const char *name;
	int version;
	enum stub_need need;
	void (*symbol)(void);
} fns[STUB_NR_FNS] = {
#define ENTRY(name, version, symbol, need) { name, version, need, symbol },
	STUB_FUNCTIONS(ENTRY)
#undef ENTRY
};

static uint32_t calls[STUB_NR_FNS];
/* What is to fail comes from the environment, or from a file, which counts from its appearance. */
static const char *fail_spec;
static const char *fail_path;
static const char *hit_path;
static const char *count_path;
static bool fail_once;
static const char *meet_spec;
static const char *heap_path;
static char file_seen[SPEC_BYTES];
static uint32_t calls_before[STUB_NR_FNS];

/* spec: "name:N[,name:N…]", or * for N: every call. */
static bool spec_hits(const char *spec, const char *name, uint32_t nth)
{
	size_t len = strlen(name);

	while (spec && *spec) {
		const char *end = spec + strcspn(spec, ",\n");

		if (!strncmp(spec, name, len) && spec[len] == ':' &&
		    (spec[len + 1] == '*' || strtoul(spec + len + 1, NULL, 10) == nth))
			return true;
		spec = *end ? end + 1 : end;
	}
	return false;
}

static bool file_hits(enum stub_fn fn, uint32_t nth)
{
	char spec[SPEC_BYTES] = "";
	int fd = open(fail_path, O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		if (read(fd, spec, sizeof(spec) - 1) < 0)
			spec[0] = 0;
		close(fd);
	}
	if (strcmp(spec, file_seen)) {
		memcpy(file_seen, spec, sizeof(spec));
		memcpy(calls_before, calls, sizeof(calls));
		calls_before[fn] = nth - 1;
	}
	return spec_hits(spec, fns[fn].name, nth - calls_before[fn]);
}

/* Tells the test that there was an Nth call. */
static void note_hit(enum stub_fn fn)
{
	char line[128];
	int fd = hit_path ? open(hit_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
	int len = snprintf(line, sizeof(line), "%s %d\n", fns[fn].name, (int)getpid());

	if (fd < 0)
		return;
	if (write(fd, line, (size_t)len) != len)
		abort();
	close(fd);
}

/* By whichever process. */
static bool has_failed(void)
{
	return fail_once && hit_path && !access(hit_path, F_OK);
}

/* More than malloc() has at hand without the lock of an arena. */
void stub_heap_touch(void)
{
	void *volatile p = heap_path && !access(heap_path, F_OK) ? malloc(HEAP_BYTES) : NULL;

	free(p);
}

static CUresult may_go_on(enum stub_fn fn)
{
	uint32_t nth = __atomic_add_fetch(&calls[fn], 1, __ATOMIC_SEQ_CST);

	if (((fail_spec && spec_hits(fail_spec, fns[fn].name, nth)) ||
	     (fail_path && file_hits(fn, nth))) &&
	    !has_failed()) {
		note_hit(fn);
		return CUDA_ERROR_UNKNOWN;
	}
	if (fns[fn].need >= STUB_INIT && !__atomic_load_n(&stub.init, __ATOMIC_SEQ_CST))
		return CUDA_ERROR_NOT_INITIALIZED;
	if (fns[fn].need >= STUB_CTX && !stub_ctx())
		return CUDA_ERROR_INVALID_CONTEXT;
	return CUDA_SUCCESS;
}

/* The first N calls of a function go on together. */
static void meet(enum stub_fn fn)
{
	const size_t len = strlen(fns[fn].name);
	const char *at = meet_spec ? strstr(meet_spec, fns[fn].name) : NULL;
	uint32_t nr = at && at[len] == ':' ? (uint32_t)strtoul(at + len + 1, NULL, 10) : 0;

	while (__atomic_load_n(&calls[fn], __ATOMIC_SEQ_CST) < nr)
		stub_sleep_ns(MEET_NS);
}

CUresult stub_enter(enum stub_fn fn)
{
	CUresult res;

	if (fns[fn].need != STUB_FREE)
		stub_gate_call();
	res = may_go_on(fn);
	meet(fn);
	if (res)
		stub_leave(fn);
	else
		stub_heap_touch();
	return res;
}

void stub_leave(enum stub_fn fn)
{
	if (fns[fn].need != STUB_FREE)
		stub_gate_leave();
}

static int lookup(const char *name, void **out, int version)
{
	int res = LOOKUP_NOT_FOUND, best = 0;

	*out = NULL;
	for (int i = 0; i < STUB_NR_FNS; i++) {
		if (strcmp(fns[i].name, name))
			continue;
		if (res == LOOKUP_NOT_FOUND)
			res = LOOKUP_VERSION_TOO_LOW;
		if (fns[i].version <= version && fns[i].version >= best) {
			best = fns[i].version;
			memcpy(out, &fns[i].symbol, sizeof(*out));
			res = LOOKUP_FOUND;
		}
	}
	return res;
}

CUresult stub_get_proc(const char *name, void **out, int version, int *status)
{
	int found;

	if (!name || !out)
		return CUDA_ERROR_INVALID_VALUE;
	found = lookup(name, out, version);
	if (status) {
		*status = found;
		return CUDA_SUCCESS;
	}
	return found == LOOKUP_FOUND ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

__attribute__((constructor)) static void table_init(void)
{
	fail_spec = getenv("CKF_STUB_FAIL");
	fail_path = getenv("CKF_STUB_FAIL_FILE");
	hit_path = getenv("CKF_STUB_HIT");
	count_path = getenv("CKF_STUB_COUNT");
	fail_once = getenv("CKF_STUB_FAIL_ONCE") != NULL;
	meet_spec = getenv("CKF_STUB_MEET");
	heap_path = getenv("CKF_STUB_MALLOC");
}

__attribute__((destructor)) static void table_fini(void)
{
	FILE *f = count_path ? fopen(count_path, "a") : NULL;

	if (!f)
		return;
	for (int i = 0; i < STUB_NR_FNS; i++) {
		if (calls[i])
			fprintf(f, "%s %u\n", fns[i].name, calls[i]);
	}
	fclose(f);
}
