/* SPDX-License-Identifier: MIT */
/*
 * weights DIR MIB [TUNE [PROCS [all]]]: processes that hold the weights of a model, for the tests
 * and the benchmark of deduplication.
 *
 * The weights are bf16, normally distributed, in layers of 8 MiB, the same in each run and in each
 * process. TUNE 0 is the model itself, others are fine-tunes of it: of four layers two stay as they
 * are, in one a page of 64 is another, and in one half of the weights move to a neighbour. Beside
 * them is a heap that no other process has. The memory of each process is its own, at an address of
 * its own that is not the same modulo 2 MiB; with all, the weights are in shared memory and in a
 * memfd, too.
 *
 * Each process has a rank, the root 0. It creates DIR/ready.RANK with its pid, and answers SIGUSR1
 * with DIR/report.RANK: "OK" or "BAD", from a checksum of all of it, and how many nanoseconds that
 * took.
 */
#include <sys/random.h>
#include <time.h>

#include "bf16.h"

#define HEAP_BYTES (4u * MIB)
#define MAX_PROCS 64

struct memory {
	char *addr;
	uint64_t bytes;
	uint64_t sum;
};

static uint64_t checksum(const struct memory *m)
{
	const uint64_t *p = (const uint64_t *)m->addr;
	uint64_t sum = 0;

	for (uint64_t i = 0; i < m->bytes / sizeof(*p); i++)
		sum = sum * 31 + p[i];
	return sum;
}

/* Random pages in front, so that the weights are nowhere at the same offset. */
static struct memory weights_new(uint64_t mib, unsigned int tune, int flags, int fd)
{
	struct memory m = { .bytes = mib * MIB };
	uint64_t before, whole;
	char *all;

	if (getrandom(&before, sizeof(before), 0) != sizeof(before))
		die("getrandom");
	before = (1 + before % 400) * PAGE;
	whole = before + m.bytes;
	if (fd >= 0 && ftruncate(fd, (off_t)whole))
		die("ftruncate");
	all = mmap(NULL, whole, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (all == MAP_FAILED)
		die("mmap");
	for (uint64_t at = 0; at < before; at += PAGE)
		if (getrandom(all + at, PAGE, 0) != PAGE)
			die("getrandom");
	for (uint64_t layer = 0; layer < m.bytes / LAYER_BYTES; layer++)
		layer_fill((uint16_t *)(all + before + layer * LAYER_BYTES), layer, tune);
	m.addr = all;
	m.bytes = whole;
	m.sum = checksum(&m);
	return m;
}

static struct memory heap_new(void)
{
	struct memory m = { .bytes = HEAP_BYTES };

	m.addr = mmap(NULL, m.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m.addr == MAP_FAILED)
		die("mmap");
	for (uint64_t at = 0; at < m.bytes; at += PAGE)
		if (getrandom(m.addr + at, PAGE, 0) != PAGE)
			die("getrandom");
	m.sum = checksum(&m);
	return m;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void serve(const char *dir, unsigned int rank, const struct memory *m, unsigned int nr)
{
	char name[32];

	snprintf(name, sizeof(name), "ready.%u", rank);
	report(dir, name, "%d", (int)getpid());
	snprintf(name, sizeof(name), "report.%u", rank);
	for (;;) {
		bool ok = true;
		uint64_t start;

		trigger_wait();
		start = now_ns();
		for (unsigned int i = 0; i < nr; i++)
			ok = ok && checksum(&m[i]) == m[i].sum;
		report(dir, name, "%s %llu", ok ? "OK" : "BAD",
		       (unsigned long long)(now_ns() - start));
	}
}

int main(int argc, char **argv)
{
	const int private = MAP_PRIVATE | MAP_ANONYMOUS;
	struct memory m[4];
	unsigned int tune, procs, rank, nr = 0;
	uint64_t mib;
	int fd;

	if (argc < 3) {
		fprintf(stderr, "usage: weights DIR MIB [TUNE [PROCS [all]]]\n");
		return 2;
	}
	mib = strtoull(argv[2], NULL, 10);
	tune = argc > 3 ? (unsigned int)strtoul(argv[3], NULL, 10) : 0;
	procs = argc > 4 ? (unsigned int)strtoul(argv[4], NULL, 10) : 1;
	if (!mib || !procs || procs > MAX_PROCS) {
		fprintf(stderr, "weights: bad size or number of processes\n");
		return 2;
	}
	trigger_init();
	table_init();
	rank = fork_procs(procs);
	m[nr++] = weights_new(mib, tune, private, -1);
	m[nr++] = heap_new();
	if (argc > 5 && !rank) {
		m[nr++] = weights_new(mib, tune, MAP_SHARED | MAP_ANONYMOUS, -1);
		fd = memfd_create("weights", MFD_CLOEXEC);
		m[nr++] = weights_new(mib, tune, MAP_SHARED, fd);
		close(fd);
	}
	serve(argv[1], rank, m, nr);
	return 0;
}
