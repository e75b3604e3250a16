/* SPDX-License-Identifier: MIT */
/*
 * bench_mem DIR KIND MIB [random|mixed|server|weights|text|heap|masked] [PROCS]: memory of one
 * kind, for the benchmarks. MIB may be a number of KiB, with a K behind it.
 *
 *	anon	private anonymous memory of one process
 *	frag	the same, but only every other page of twice the range, never in huge pages
 *	tasks	PROCS processes with MIB each, that each has filled itself, each elsewhere
 *	equal	the same, but what they hold is the same
 *	forked	tasks, but all at the address where the parent has its own, as it comes about when
 *		processes fork first and allocate afterwards
 *	shm	shared anonymous memory that PROCS processes have mapped
 *
 * server: half of it written with zeros, three eighths weights of 16 bits, the rest text.
 * heap: small objects with a count, a type and pointers, as interpreters have them.
 * masked: random words of 64 bits of which a mask leaves 44.
 *
 * Each process has a rank, the root 0. It creates DIR/ready.RANK with its pid, and answers signals
 * with DIR/report.RANK: "OK" or "BAD", and how many nanoseconds that took.
 *
 *	SIGUSR1	reads all of its memory and compares the checksum
 *	SIGUSR2	reads a byte of each page
 *	SIGHUP	writes to each page, without changing it
 */
#include <time.h>

#include "prog.h"

#define MAX_PROCS 1024
#define APART_BYTES (UINT64_C(1) << 40)

struct memory {
	char *addr;
	uint64_t nr_pages;
	uint64_t step_bytes; /* from a page to the next one that is used */
	uint64_t sum;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Four sums side by side: as fast as memory can be read. */
static uint64_t checksum(const struct memory *m)
{
	uint64_t sum[4] = { 1, 2, 3, 4 };

	for (uint64_t i = 0; i < m->nr_pages; i++) {
		const uint64_t *p = (const uint64_t *)(m->addr + i * m->step_bytes);

		for (unsigned int k = 0; k < PAGE / sizeof(*p); k += 4) {
			for (unsigned int n = 0; n < 4; n++)
				sum[n] = sum[n] * 31 + p[k + n];
		}
	}
	return mix(sum[0]) ^ mix(sum[1] + 1) ^ mix(sum[2] + 2) ^ mix(sum[3] + 3);
}

static void read_touch(const struct memory *m)
{
	for (uint64_t i = 0; i < m->nr_pages; i++)
		(void)*(volatile char *)(m->addr + i * m->step_bytes);
}

/* A single access that writes: a load before it would take a fault of its own. */
static void write_touch(const struct memory *m)
{
	for (uint64_t i = 0; i < m->nr_pages; i++)
		__atomic_fetch_or(m->addr + i * m->step_bytes, 0, __ATOMIC_RELAXED);
}

static void map(struct memory *m, void *hint, int flags)
{
	m->addr = mmap(hint, m->nr_pages * m->step_bytes, PROT_READ | PROT_WRITE,
		       flags | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->addr == MAP_FAILED)
		die("mmap");
	if (m->step_bytes > PAGE && madvise(m->addr, m->nr_pages * m->step_bytes, MADV_NOHUGEPAGE))
		die("madvise");
}

/* Normal, near enough: a sum of four, as bf16. */
static void make_weights(uint16_t *p, uint64_t seed)
{
	for (unsigned int i = 0; i < PAGE / sizeof(*p); i++) {
		uint64_t v = mix(seed * PAGE + i);
		int32_t sum = (int32_t)(v & 0xffff) + (int32_t)(v >> 16 & 0xffff) +
			      (int32_t)(v >> 32 & 0xffff) + (int32_t)(v >> 48) - 2 * 0xffff;
		float f = (float)sum * (0.02f / 37837);
		uint32_t bits;

		memcpy(&bits, &f, sizeof(bits));
		p[i] = (uint16_t)(bits >> 16);
	}
}

/* Words of a few hundred, and a random byte now and then. */
static void make_text(char *p, uint64_t seed)
{
	uint64_t v = mix(seed);

	for (unsigned int i = 0; i < PAGE; i++) {
		if (i % 8 == 0)
			v = mix(v);
		p[i] = (char)('a' + ((v >> 56) % 200 * 7 + i % 8 * 5) % 26);
		if (i % 8 == 7)
			p[i] = v % 16 ? ' ' : (char)(v >> 8);
	}
}

/* Objects of 64 bytes: count of references, type, size, three pointers, and room to spare. */
static void make_heap(uint64_t *p, uint64_t seed)
{
	const uint64_t heap = UINT64_C(0x7f5a10000000);

	for (unsigned int i = 0; i < PAGE / 64; i++, p += 8) {
		uint64_t v = mix(seed * PAGE + i);

		p[0] = 1 + (v % 16 == 0 ? v >> 60 : 0);
		p[1] = heap + (v >> 8) % 12 * 408;
		p[2] = (v >> 16) % 40;
		for (unsigned int k = 3; k < 6; k++)
			p[k] = v >> k & 1 ? heap + (seed * 64 + (v >> 8 * (k - 2)) % 512) * 64 : 0;
		p[6] = 0;
		p[7] = 0;
	}
}

static void make_masked(uint64_t *p, uint64_t seed)
{
	for (unsigned int i = 0; i < PAGE / sizeof(*p); i++)
		p[i] = mix(seed * PAGE + i) & UINT64_C(0x00ff00ff0fffffff);
}

static void make_server(char *page, uint64_t i, uint64_t nr_pages, uint64_t seed)
{
	if (i < nr_pages / 2)
		memset(page, 0, PAGE);
	else if (i < nr_pages / 8 * 7)
		make_weights((uint16_t *)page, seed);
	else
		make_text(page, seed);
}

/* False where the data is not one of these. */
static bool fill_alike(struct memory *m, const char *data, uint64_t seed)
{
	for (uint64_t i = 0; i < m->nr_pages; i++) {
		char *page = m->addr + i * m->step_bytes;

		if (!strcmp(data, "weights"))
			make_weights((uint16_t *)page, seed + i);
		else if (!strcmp(data, "text"))
			make_text(page, seed + i);
		else if (!strcmp(data, "heap"))
			make_heap((uint64_t *)page, seed + i);
		else if (!strcmp(data, "masked"))
			make_masked((uint64_t *)page, seed + i);
		else if (!strcmp(data, "server"))
			make_server(page, i, m->nr_pages, seed + i);
		else
			return false;
	}
	m->sum = checksum(m);
	return true;
}

/* Two thirds of the zero pages are never touched. */
static void fill(struct memory *m, const char *data, uint64_t seed)
{
	enum profile profile = strcmp(data, "mixed") ? RANDOM : MIXED;

	if (fill_alike(m, data, seed))
		return;
	for (uint64_t i = 0; i < m->nr_pages; i++) {
		if (page_class(profile, seed, i) != PAGE_ZERO || i % 3 == 0)
			page_make(m->addr + i * m->step_bytes, profile, seed, i);
	}
	m->sum = checksum(m);
}

static void serve(const char *dir, unsigned int rank, const struct memory *m)
{
	char name[32];
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		die("sigprocmask");
	snprintf(name, sizeof(name), "ready.%u", rank);
	report(dir, name, "%d", (int)getpid());
	snprintf(name, sizeof(name), "report.%u", rank);
	for (;;) {
		int sig = sigwaitinfo(&set, NULL);
		uint64_t start = now_ns();
		bool ok = true;

		if (sig == SIGUSR1)
			ok = checksum(m) == m->sum;
		else if (sig == SIGUSR2)
			read_touch(m);
		else if (sig == SIGHUP)
			write_touch(m);
		else
			continue;
		report(dir, name, "%s %llu", ok ? "OK" : "BAD",
		       (unsigned long long)(now_ns() - start));
	}
}

int main(int argc, char **argv)
{
	struct memory m = { .step_bytes = PAGE };
	unsigned int procs, rank;
	const char *kind, *data;
	char *unit;

	if (argc < 4) {
		fprintf(stderr, "usage: bench_mem DIR anon|frag|tasks|equal|forked|shm MIB "
				"[random|mixed|server|weights|text|heap|masked] [PROCS]\n");
		return 2;
	}
	kind = argv[2];
	m.nr_pages = strtoull(argv[3], &unit, 10);
	m.nr_pages = m.nr_pages * (*unit == 'K' ? 1024 : MIB) / PAGE;
	data = argc > 4 ? argv[4] : "random";
	procs = argc > 5 ? (unsigned int)strtoul(argv[5], NULL, 10) : 1;
	if (!m.nr_pages || !procs || procs > MAX_PROCS) {
		fprintf(stderr, "bench_mem: bad size or number of processes\n");
		return 2;
	}
	if (!strcmp(kind, "frag"))
		m.step_bytes = 2 * PAGE;
	if (!strcmp(kind, "tasks") || !strcmp(kind, "equal") || !strcmp(kind, "forked")) {
		uint64_t apart;

		rank = fork_procs(procs);
		apart = strcmp(kind, "forked") ? (rank + 1) * APART_BYTES : 0;
		map(&m, (void *)(uintptr_t)apart, MAP_PRIVATE);
		/* No page alike, or all of them. */
		fill(&m, data, (uint64_t)(strcmp(kind, "equal") ? rank + 1 : 1) << 40);
	} else {
		map(&m, NULL, strcmp(kind, "shm") ? MAP_PRIVATE : MAP_SHARED);
		fill(&m, data, 1);
		rank = strcmp(kind, "shm") ? 0 : fork_procs(procs);
	}
	serve(argv[1], rank, &m);
	return 0;
}
