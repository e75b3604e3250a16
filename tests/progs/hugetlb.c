/* SPDX-License-Identifier: MIT */
/*
 * hugetlb DIR [MIB]: private, shared and memfd memory in pages of 2 MiB beside plain memory: 6 of
 * them, or, with MIB MiB of private memory, as many more.
 */
#include "prog.h"

static struct area areas[4];

static void check(const char *dir)
{
	for (unsigned int i = 0; i < 4; i++) {
		int64_t page = area_check(&areas[i]);

		if (page >= 0) {
			report(dir, "report", "BAD area %s page %lld", areas[i].name,
			       (long long)page);
			return;
		}
	}
	report(dir, "report", "OK");
}

int main(int argc, char **argv)
{
	const uint64_t pages = 4 * MIB / PAGE;
	uint64_t private_pages = pages;
	int fd;

	if (argc < 2) {
		fprintf(stderr, "usage: hugetlb DIR [MIB]\n");
		return 2;
	}
	if (argc > 2)
		private_pages = strtoull(argv[2], NULL, 10) * MIB / PAGE;
	trigger_init();
	fd = memfd_create("hugetlb", MFD_HUGETLB);
	if (fd < 0 || ftruncate(fd, 4 * MIB))
		die("memfd");
	areas[0] = area_new("plain", pages, MAP_PRIVATE | MAP_ANONYMOUS, -1, MIXED);
	areas[1] = area_new("private", private_pages, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1,
			    RANDOM);
	areas[2] = area_new("shared", pages, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, RANDOM);
	areas[3] = area_new("memfd", pages, MAP_SHARED, fd, RANDOM);
	report(argv[1], "ready", "%d", (int)getpid());
	for (;;) {
		trigger_wait();
		check(argv[1]);
	}
}
