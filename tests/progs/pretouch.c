/* SPDX-License-Identifier: MIT */
/*
 * pretouch MIB: touches so much free memory and gives it back.
 *
 * On a virtual machine, memory that was free for some seconds may have gone back to the host, and
 * touching it is slow until the host has given it again. Measurements start with this, so that
 * each finds memory in the same state.
 */
#include "prog.h"

int main(int argc, char **argv)
{
	size_t bytes = argc > 1 ? strtoull(argv[1], NULL, 10) * MIB : 0;
	char *p;

	if (!bytes) {
		fprintf(stderr, "usage: pretouch MIB\n");
		return 2;
	}
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		die("mmap");
	madvise(p, bytes, MADV_HUGEPAGE); /* faster; no matter where there are none */
	for (size_t i = 0; i < bytes; i += PAGE)
		((volatile char *)p)[i] = 1;
	return 0;
}
