/* SPDX-License-Identifier: MIT */
/*
 * madv DIR [guard]: areas with every kind of advice that changes a mapping's flags; guard adds one
 * with guard pages, where the kernel has them.
 */
#include "prog.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* Linux 6.13, include/uapi/asm-generic/mman-common.h */
#endif

#define NR_AREAS 6

static const struct {
	const char *name;
	int advice;
} kinds[NR_AREAS] = {
	{ "plain", -1 },
	{ "huge page", MADV_HUGEPAGE },
	{ "no huge page", MADV_NOHUGEPAGE },
	{ "don't fork", MADV_DONTFORK },
	{ "wipe on fork", MADV_WIPEONFORK },
	{ "don't dump", MADV_DONTDUMP },
};

static struct area areas[NR_AREAS + 1];
static unsigned int nr_areas;

static void add_guarded(void)
{
	/* 64 pages of data, then 16 guard pages, then data again that is not checked. */
	struct area a = area_new("guarded", 128, MAP_PRIVATE | MAP_ANONYMOUS, -1, RANDOM);

	if (madvise(a.addr + 64 * PAGE, 16 * PAGE, MADV_GUARD_INSTALL))
		die("no guard pages");
	a.nr_pages = 64;
	areas[nr_areas++] = a;
}

static void check(const char *dir)
{
	for (unsigned int i = 0; i < nr_areas; i++) {
		int64_t page = area_check(&areas[i]);

		if (page >= 0) {
			report(dir, "report", "BAD area %s page %lld", areas[i].name,
			       (long long)page);
			return;
		}
	}
	report(dir, "report", "OK %u areas", nr_areas);
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: madv DIR [guard]\n");
		return 2;
	}
	trigger_init();
	for (unsigned int i = 0; i < NR_AREAS; i++) {
		areas[nr_areas] = area_new(kinds[i].name, 5 * MIB / PAGE + 3,
					   MAP_PRIVATE | MAP_ANONYMOUS, -1, i % 2 ? RANDOM : MIXED);
		if (kinds[i].advice >= 0 &&
		    madvise(areas[nr_areas].addr, areas[nr_areas].nr_pages * PAGE, kinds[i].advice))
			die("madvise %s", kinds[i].name);
		nr_areas++;
	}
	if (argc > 2 && !strcmp(argv[2], "guard"))
		add_guarded();
	report(argv[1], "ready", "%d", (int)getpid());
	for (;;) {
		trigger_wait();
		check(argv[1]);
	}
}
