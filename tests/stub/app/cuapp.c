/* SPDX-License-Identifier: MIT */
/*
 * cuapp DIR [devices=N] [vmm] [busy[=N]] [churn] [import] [malloc=N] [allocs=N]: a CUDA program:
 * 40, or N, allocations of mixed sizes, filled with what can be computed again, with zero ranges;
 * streams and events. vmm: some more that it makes with the virtual memory API itself (own.h).
 * busy: a thread of its own, or N, copies all the time; churn: the first makes and frees memory by
 * that API, too. import: with vmm, until the second SIGUSR1 it has memory that it imported. malloc:
 * N threads that do nothing but call malloc().
 *
 * SIGUSR1: checks all of its memory, uses its streams and events, and writes DIR/report. If
 * DIR/stop is there it then ends, with exit code 0 if all was right, ever, and 1 if not.
 *
 * Built twice: as it is, which finds the driver with dlopen(), and with LINKED.
 */
#include <pthread.h>

#include "own.h"

#define NR_ALLOCS 40u
#define MAX_DEVICES 8
#define MAX_BUSY 8
#define HEAP_PIECES 8
#define HEAP_BYTES 2000
#define STAGE_BYTES (4u << 20)
#define PITCH_WIDTH 1000u
#define PITCH_HEIGHT 1500u

struct alloc {
	CUdeviceptr addr;
	uint64_t bytes;
	int device;
};

struct device {
	CUcontext ctx;
	CUstream streams[2];
	CUevent event;
	CUdeviceptr scratch; /* STAGE_BYTES, twice */
};

static struct alloc allocs[NR_ALLOCS + NR_OWN];
static unsigned int nr_allocs;
static unsigned int nr_plain = NR_ALLOCS;
static struct device devices[MAX_DEVICES];
static int nr_devices = 1;
static char *stage; /* pinned */
static bool ever_bad;
static bool busy_bad;
static bool is_churn, is_import, busy_runs, busy_stop;
static pthread_t busy_threads[MAX_BUSY];
static int nr_busy;

static void use(int device)
{
	MUST(set_current(devices[device].ctx));
}

/* In runs of 64 pages, of which a fifth is zero: see prog.h. */
static void make_stage(unsigned int nr, uint64_t off, uint64_t bytes)
{
	char page[PAGE];

	for (uint64_t at = 0; at < bytes; at += PAGE) {
		uint64_t part = bytes - at < PAGE ? bytes - at : PAGE;

		page_make(page, MIXED, 7000 + nr, (off + at) / PAGE);
		memcpy(stage + at, page, part);
	}
}

static void fill(unsigned int nr)
{
	const struct alloc *a = &allocs[nr];
	const struct device *d = &devices[a->device];

	use(a->device);
	for (uint64_t off = 0; off < a->bytes; off += STAGE_BYTES) {
		uint64_t part = a->bytes - off < STAGE_BYTES ? a->bytes - off : STAGE_BYTES;

		make_stage(nr, off, part);
		MUST(htod_async(a->addr + off, stage, part, d->streams[nr % 2]));
		MUST(stream_sync(d->streams[nr % 2]));
	}
}

/* The first byte that is not as it was filled, or -1. */
static int64_t check_alloc(unsigned int nr)
{
	const struct alloc *a = &allocs[nr];
	static char got[STAGE_BYTES];

	use(a->device);
	for (uint64_t off = 0; off < a->bytes; off += STAGE_BYTES) {
		uint64_t part = a->bytes - off < STAGE_BYTES ? a->bytes - off : STAGE_BYTES;

		make_stage(nr, off, part);
		memset(got, 0x5a, part);
		MUST(dtoh(got, a->addr + off, part));
		for (uint64_t i = 0; i < part; i++) {
			if (got[i] != stage[i])
				return (int64_t)(off + i);
		}
	}
	return -1;
}

static void make_device(int i)
{
	struct device *d = &devices[i];

	MUST(retain(&d->ctx, i));
	use(i);
	for (int s = 0; s < 2; s++)
		MUST(stream_create(&d->streams[s], CU_STREAM_NON_BLOCKING));
	MUST(event_create(&d->event, CU_EVENT_DISABLE_TIMING));
	MUST(alloc(&d->scratch, 2 * (size_t)STAGE_BYTES));
}

static void make_alloc(unsigned int i)
{
	static const uint64_t sizes[] = { 512,	  4096, 100000, 1 << 20, 2 << 20, (3 << 20) + 4096,
					  5 << 20 };
	const unsigned int nr_sizes = sizeof(sizes) / sizeof(sizes[0]);
	struct alloc *a = &allocs[nr_allocs];
	size_t pitch;

	a->device = (int)i % nr_devices;
	use(a->device);
	if (i % (nr_sizes + 1) == nr_sizes) {
		MUST(alloc_pitch(&a->addr, &pitch, PITCH_WIDTH + 300 * (i % 16), PITCH_HEIGHT, 4));
		a->bytes = pitch * PITCH_HEIGHT;
	} else {
		a->bytes = i == NR_ALLOCS - 2 ? 20 << 20 : sizes[i % (nr_sizes + 1)];
		MUST(alloc(&a->addr, a->bytes));
	}
	fill(nr_allocs++);
}

static void make_own(void)
{
	use(0);
	for (int kind = 0; kind < NR_OWN; kind++) {
		allocs[nr_allocs].addr = own_make(kind, nr_devices);
		allocs[nr_allocs].bytes = OWN_BYTES;
		fill(nr_allocs++);
	}
	own_finish();
}

/* Copies from here to there to here, across two streams, and looks at what has arrived. */
static bool check_streams(int i)
{
	const struct device *d = &devices[i];
	CUdeviceptr there = d->scratch + STAGE_BYTES;
	CUevent event;
	bool ok = true;

	use(i);
	if (cu.event_query(d->event))
		return false;
	for (uint64_t p = 0; p < STAGE_BYTES; p += PAGE)
		page_make(stage + p, RANDOM, 99, p / PAGE);
	MUST(event_create(&event, CU_EVENT_DISABLE_TIMING));
	MUST(set_async(d->scratch, 0xee, 2 * (size_t)STAGE_BYTES, d->streams[0]));
	MUST(htod_async(d->scratch, stage, STAGE_BYTES, d->streams[0]));
	MUST(event_record(event, d->streams[0]));
	MUST(stream_wait(d->streams[1], event, 0));
	MUST(dtod_async(there, d->scratch, STAGE_BYTES, d->streams[1]));
	MUST(event_record(d->event, d->streams[1]));
	MUST(event_sync(d->event));
	memset(stage, 0, STAGE_BYTES);
	MUST(dtoh_async(stage, there, STAGE_BYTES, d->streams[1]));
	MUST(stream_sync(d->streams[1]));
	for (uint64_t p = 0; p < STAGE_BYTES && ok; p += PAGE) {
		char want[PAGE];

		page_make(want, RANDOM, 99, p / PAGE);
		ok = !memcmp(want, stage + p, PAGE);
	}
	MUST(event_destroy(event));
	return ok;
}

/* New allocations after a restore: fresh, zero and elsewhere than the old ones. */
static bool check_new(void)
{
	CUdeviceptr addr, base;
	size_t bytes;
	bool ok;

	use(0);
	MUST(alloc(&addr, STAGE_BYTES));
	MUST(dtoh(stage, addr, STAGE_BYTES));
	ok = !stage[0] && !memcmp(stage, stage + 1, STAGE_BYTES - 1);
	for (unsigned int i = 0; i < nr_allocs; i++)
		ok = ok && (addr + STAGE_BYTES <= allocs[i].addr ||
			    addr >= allocs[i].addr + allocs[i].bytes);
	MUST(get_range(&base, &bytes, addr + 100));
	ok = ok && base == addr && bytes >= STAGE_BYTES;
	MUST(mem_free(addr));
	return ok;
}

static void bad(const char *dir, const char *what, long long at)
{
	ever_bad = true;
	report(dir, "report", "BAD %s %lld", what, at);
}

static void check(const char *dir)
{
	const bool own = nr_allocs > nr_plain;
	const char *wrong = NULL;
	uint64_t sum = 0;

	use(0);
	if (own)
		own_show(true);
	for (unsigned int i = 0; i < nr_allocs; i++) {
		int64_t at = check_alloc(i);

		if (at >= 0) {
			char what[64];

			snprintf(what, sizeof(what), "allocation %u byte", i);
			bad(dir, what, at);
			return;
		}
		sum += allocs[i].bytes;
	}
	use(0);
	if (own) {
		own_show(false);
		wrong = own_check(nr_devices);
	}
	if (wrong) {
		bad(dir, wrong, 0);
		return;
	}
	for (int i = 0; i < nr_devices; i++) {
		if (!check_streams(i)) {
			bad(dir, "streams of device", i);
			return;
		}
	}
	if (!check_new() || __atomic_load_n(&busy_bad, __ATOMIC_SEQ_CST))
		bad(dir, "new allocation or busy thread", 0);
	else
		report(dir, "report", "OK %u allocations, %llu bytes", nr_allocs,
		       (unsigned long long)sum);
}

/* A page goes round and round, changed each time. */
static void *busy(void *arg)
{
	CUdeviceptr addr, range;
	uint64_t *page;
	CUstream stream;

	use(0);
	MUST(reserve(&range, OWN_BYTES, 0, 0, 0));
	MUST(alloc(&addr, 2 * PAGE));
	MUST(host_alloc((void **)&page, PAGE, 0));
	MUST(stream_create(&stream, CU_STREAM_NON_BLOCKING));
	for (uint64_t i = 0; !__atomic_load_n(&busy_stop, __ATOMIC_SEQ_CST); i++) {
		for (unsigned int k = 0; k < PAGE / sizeof(*page); k++)
			page[k] = mix(i + k);
		MUST(htod_async(addr, page, PAGE, stream));
		MUST(dtod_async(addr + PAGE, addr, PAGE, stream));
		MUST(stream_sync(stream));
		if (is_churn && !arg)
			own_churn(range, page, stream);
		__atomic_store_n(&busy_runs, true, __ATOMIC_SEQ_CST);
		memset(page, 0, PAGE);
		MUST(dtoh_async(page, addr + PAGE, PAGE, stream));
		MUST(stream_sync(stream));
		for (unsigned int k = 0; k < PAGE / sizeof(*page); k++) {
			if (page[k] != mix(i + k))
				__atomic_store_n(&busy_bad, true, __ATOMIC_SEQ_CST);
		}
	}
	MUST(stream_destroy(stream));
	MUST(free_host(page));
	MUST(mem_free(addr));
	return NULL;
}

static void start_busy(void)
{
	for (intptr_t i = 0; i < nr_busy && i < MAX_BUSY; i++)
		if (pthread_create(&busy_threads[i], NULL, busy, (void *)i))
			die("pthread_create");
	while (nr_busy && !__atomic_load_n(&busy_runs, __ATOMIC_SEQ_CST))
		usleep(1000);
}

static void *allocate(void *arg)
{
	for (;;) {
		void *volatile p[HEAP_PIECES];

		for (int i = 0; i < HEAP_PIECES; i++)
			p[i] = malloc(HEAP_BYTES + (size_t)i * HEAP_BYTES);
		for (int i = 0; i < HEAP_PIECES; i++)
			free(p[i]);
	}
	return arg;
}

static void start_allocating(int nr)
{
	pthread_t thread;

	for (int i = 0; i < nr; i++)
		if (pthread_create(&thread, NULL, allocate, NULL))
			die("pthread_create");
}

static void end(void)
{
	__atomic_store_n(&busy_stop, true, __ATOMIC_SEQ_CST);
	for (int i = 0; i < nr_busy && i < MAX_BUSY; i++)
		if (pthread_join(busy_threads[i], NULL))
			die("pthread_join");
	for (int i = 0; i < nr_devices; i++) {
		use(i);
		MUST(synchronize());
		for (int s = 0; s < 2; s++)
			MUST(stream_destroy(devices[i].streams[s]));
	}
	for (unsigned int i = 0; i < nr_plain; i++)
		MUST(mem_free(allocs[i].addr));
	if (nr_allocs > nr_plain)
		own_end();
	for (int i = 0; i < nr_devices; i++)
		MUST(release(i));
	exit(ever_bad);
}

int main(int argc, char **argv)
{
	bool vmm = false;
	int nr_malloc = 0;
	char stop[4096];

	if (argc < 2) {
		fprintf(stderr, "usage: cuapp DIR [devices=N] [vmm] [busy[=N]] [churn] [import] "
				"[malloc=N] [allocs=N]\n");
		return 2;
	}
	for (int i = 2; i < argc; i++) {
		if (!strncmp(argv[i], "devices=", 8))
			nr_devices = atoi(argv[i] + 8);
		vmm |= !strcmp(argv[i], "vmm");
		if (!strcmp(argv[i], "busy"))
			nr_busy = 1;
		if (!strncmp(argv[i], "busy=", 5))
			nr_busy = atoi(argv[i] + 5);
		if (!strncmp(argv[i], "allocs=", 7) && atoi(argv[i] + 7) <= (int)NR_ALLOCS)
			nr_plain = (unsigned int)atoi(argv[i] + 7);
		if (!strncmp(argv[i], "malloc=", 7))
			nr_malloc = atoi(argv[i] + 7);
		is_churn |= !strcmp(argv[i], "churn");
		is_import |= !strcmp(argv[i], "import");
	}
	trigger_init();
	cuda_load();
	MUST(init(0));
	for (int i = 0; i < nr_devices && i < MAX_DEVICES; i++)
		make_device(i);
	use(0);
	MUST(host_alloc((void **)&stage, STAGE_BYTES, 0));
	for (unsigned int i = 0; i < nr_plain; i++)
		make_alloc(i);
	if (vmm)
		make_own();
	if (is_import)
		own_import(false);
	start_busy();
	start_allocating(nr_malloc);
	report(argv[1], "ready", "%d", (int)getpid());
	snprintf(stop, sizeof(stop), "%s/stop", argv[1]);
	for (int nr = 1;; nr++) {
		trigger_wait();
		if (is_import && nr == 2)
			own_import(true);
		check(argv[1]);
		if (!access(stop, F_OK))
			end();
	}
}
