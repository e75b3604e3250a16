/* SPDX-License-Identifier: MIT */
/*
 * bigproc DIR MIB [random|mixed]: one area of anonymous memory, for the demo and the benchmarks.
 * DIR/ready and DIR/report hold a checksum over all of it.
 */
#include "prog.h"

static uint64_t checksum(const struct area *a)
{
	const uint64_t *p = (const uint64_t *)a->addr;
	uint64_t sum = 0;

	for (uint64_t i = 0; i < a->nr_pages * (PAGE / sizeof(*p)); i++)
		sum = sum * 31 + p[i];
	return sum;
}

int main(int argc, char **argv)
{
	struct area a;
	uint64_t sum;

	if (argc < 3) {
		fprintf(stderr, "usage: bigproc DIR MIB [random|mixed]\n");
		return 2;
	}
	trigger_init();
	a = area_new("memory", strtoull(argv[2], NULL, 10) * (MIB / PAGE),
		     MAP_PRIVATE | MAP_ANONYMOUS, -1,
		     argc > 3 && !strcmp(argv[3], "mixed") ? MIXED : RANDOM);
	sum = checksum(&a);
	report(argv[1], "ready", "%016llx", (unsigned long long)sum);
	for (;;) {
		uint64_t now;

		trigger_wait();
		now = checksum(&a);
		report(argv[1], "report", "%s %016llx", now == sum ? "OK" : "BAD",
		       (unsigned long long)now);
	}
}
