/* SPDX-License-Identifier: MIT */
/*
 * ghost DIR MIB FILE_MIB: private memory, and a file that was unlinked and is mapped. CRIU keeps
 * the contents of such a file in an image of its own.
 */
#include "prog.h"

static int unlinked_file(const char *dir, uint64_t bytes)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/unlinked", dir);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0 || unlink(path) || ftruncate(fd, (off_t)bytes))
		die("%s", path);
	return fd;
}

int main(int argc, char **argv)
{
	struct area areas[2];
	uint64_t file_mib;
	int fd;

	if (argc != 4) {
		fprintf(stderr, "usage: ghost DIR MIB FILE_MIB\n");
		return 2;
	}
	trigger_init();
	file_mib = strtoull(argv[3], NULL, 10);
	fd = unlinked_file(argv[1], file_mib * MIB);
	areas[0] = area_new("memory", strtoull(argv[2], NULL, 10) * (MIB / PAGE),
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, RANDOM);
	areas[1] = area_new("file", file_mib * (MIB / PAGE), MAP_SHARED, fd, RANDOM);
	report(argv[1], "ready", "%d", (int)getpid());
	for (;;) {
		const char *bad = NULL;

		trigger_wait();
		for (unsigned int i = 0; i < 2; i++)
			if (area_check(&areas[i]) >= 0)
				bad = areas[i].name;
		report(argv[1], "report", "%s %s", bad ? "BAD" : "OK", bad ? bad : "");
	}
}
