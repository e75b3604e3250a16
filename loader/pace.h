/* SPDX-License-Identifier: MIT */
/*
 * Huge pages or small ones: whichever costs less at the moment. Private to the loader.
 *
 * What a page costs depends on where the kernel finds it. On a virtual machine that gives free
 * memory back to its host, a huge page may take 30 times as long as ever, since it comes from a
 * block that the host has to give again, while small pages come from the remains of others; and
 * minutes or megabytes later it is the other way round. No interface tells, but time does.
 */
#ifndef CKF_PACE_H
#define CKF_PACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum fill_way {
	FILL_WAY_HUGE,
	FILL_WAY_SMALL,
	FILL_NR_WAYS
};

/* Of one fill; zeroed to begin with. Any number of threads at once, which see about the same. */
struct fill_pace {
	atomic_uint_fast64_t ns[FILL_NR_WAYS]; /* what 2 MiB cost of late; 0: not known */
	atomic_uint_fast64_t spent_ns;	       /* all that was told */
	atomic_uint_fast64_t probe_ns;	       /* what probing is expected to have cost of it */
};

/* How to make the next 2 MiB. */
enum fill_way fill_pace_choose(struct fill_pace *p);

/*
 * What making memory has cost, by ckf_cpu_ns(): threads that run in between do not count. bytes may
 * be less than 2 MiB, or more, where one copy stands for several: they are the weight.
 */
void fill_pace_tell(struct fill_pace *p, enum fill_way way, uint64_t bytes, uint64_t ns);

#endif
