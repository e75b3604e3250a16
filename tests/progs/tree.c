/* SPDX-License-Identifier: MIT */
/*
 * tree DIR: five processes (a root, two children, a child of each) that share memory copied on
 * write, and shared memory. Each has written some pages of its own over the common ones, and has
 * moved, unmapped and added memory. Each creates DIR/ready.RANK and writes DIR/report.RANK.
 */
#include "prog.h"

#define NR_RANKS 5

static struct area common, shared, moved, holed, own;

/* A page without access at the end: the kernel would make one mapping of neighbours. */
static struct area area_apart(const char *name, uint64_t nr_pages, enum profile profile)
{
	struct area a = area_new(name, nr_pages + 1, MAP_PRIVATE | MAP_ANONYMOUS, -1, profile);

	a.nr_pages--;
	if (mprotect(a.addr + nr_pages * PAGE, PAGE, PROT_NONE))
		die("mprotect");
	return a;
}

/* What sets this process apart from its parent. */
static void diverge(unsigned int rank)
{
	char *to;

	own = area_apart("own", 2 * MIB / PAGE, MIXED);
	/* area_apart() counts seeds on alike in siblings: make the contents differ. */
	own.seed += 100u * rank;
	memset(own.addr, 0, own.nr_pages * PAGE);
	area_fill(&own);
	if (!rank)
		return;
	/* Over what the parent has: a sixteenth, other pages than the other ranks. */
	if (!common.cow_every) {
		common.cow_every = 16;
		common.cow_first = rank;
		common.cow_seed = 900u + rank;
		area_write_cow(&common);
	}
	to = mmap(NULL, moved.nr_pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (to == MAP_FAILED)
		die("mmap");
	if (rank % 2 && mremap(moved.addr, moved.nr_pages * PAGE, moved.nr_pages * PAGE,
			       MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED)
		die("mremap");
	if (rank % 2)
		moved.addr = to;
	/* Mappings that end elsewhere than the parent's. */
	holed.nr_pages -= 64;
	if (munmap(holed.addr + holed.nr_pages * PAGE, 64 * PAGE))
		die("munmap");
}

static void check(const char *dir, const char *name)
{
	const struct area *all[] = { &common, &shared, &moved, &holed, &own };

	for (unsigned int i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		int64_t page = area_check(all[i]);

		if (page >= 0) {
			report(dir, name, "BAD area %s page %lld", all[i]->name, (long long)page);
			return;
		}
	}
	report(dir, name, "OK");
}

/* Rank 0 forks 1 and 2; 1 forks 3; 2 forks 4. */
static unsigned int fork_ranks(void)
{
	unsigned int rank = 0;

	diverge(0);
	for (unsigned int child = 1; child < NR_RANKS; child++) {
		unsigned int parent = child <= 2 ? 0 : child - 2;
		pid_t pid;

		if (parent != rank)
			continue;
		pid = fork();
		if (pid < 0)
			die("fork");
		if (pid == 0) {
			rank = child;
			diverge(rank);
		}
	}
	return rank;
}

int main(int argc, char **argv)
{
	char name[64];
	unsigned int rank;

	if (argc < 2) {
		fprintf(stderr, "usage: tree DIR\n");
		return 2;
	}
	trigger_init();
	common = area_apart("common", 32 * MIB / PAGE, MIXED);
	moved = area_apart("moved", 2 * MIB / PAGE, RANDOM);
	holed = area_apart("holed", 2 * MIB / PAGE, MIXED);
	shared = area_new("shared", 4 * MIB / PAGE, MAP_SHARED | MAP_ANONYMOUS, -1, MIXED);
	rank = fork_ranks();
	snprintf(name, sizeof(name), "ready.%u", rank);
	report(argv[1], name, "%d", (int)getpid());
	snprintf(name, sizeof(name), "report.%u", rank);
	for (;;) {
		trigger_wait();
		check(argv[1], name);
	}
}
