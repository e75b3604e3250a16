/* SPDX-License-Identifier: MIT */
/*
 * Huge pages or small ones: estimates of what each way costs, and the choice.
 *
 * Costs come in streaks, a few tens of megabytes each, and differ by a factor of 30 rather than by
 * a few percent. So the last sample counts most, and the way that is not in use is tried again now
 * and then: as often as that costs a few percent of all at most.
 */
#include "base/ckf_types.h"
#include "pace.h"

/* Below this, huge pages are as good as they get, and small ones are not even tried. */
#define CHEAP_NS 256000
#define PROBE_SHARE 32	 /* probing may cost this part of all */
#define HUGE_GAIN 16	 /* huge pages may cost this part more: who uses them later gains */
#define WEIGHT_OF_NEWS 4 /* the old estimate keeps one part of so many */

/* The other way at whiles, which costs so much more. */
static bool may_probe(struct fill_pace *p, uint64_t more_ns)
{
	uint64_t probes = atomic_load(&p->probe_ns);

	if (atomic_load(&p->spent_ns) / PROBE_SHARE < probes + more_ns)
		return false;
	/* Of several threads only one. */
	return atomic_compare_exchange_strong(&p->probe_ns, &probes, probes + more_ns);
}

enum fill_way fill_pace_choose(struct fill_pace *p)
{
	const uint64_t huge = atomic_load(&p->ns[FILL_WAY_HUGE]);
	const uint64_t small = atomic_load(&p->ns[FILL_WAY_SMALL]);
	uint64_t more_ns;

	if (huge <= CHEAP_NS) /* also where it is not known */
		return FILL_WAY_HUGE;
	if (!small)
		return FILL_WAY_SMALL;
	if (huge <= small + small / HUGE_GAIN) {
		more_ns = huge < small / 4 * 3 ? small - huge : small / 4;
		return may_probe(p, more_ns) ? FILL_WAY_SMALL : FILL_WAY_HUGE;
	}
	return may_probe(p, huge - small) ? FILL_WAY_HUGE : FILL_WAY_SMALL;
}

void fill_pace_tell(struct fill_pace *p, enum fill_way way, uint64_t bytes, uint64_t ns)
{
	const uint64_t old = atomic_load(&p->ns[way]);
	const uint64_t weight = bytes < CKF_HUGE_BYTES ? bytes : CKF_HUGE_BYTES;
	uint64_t now;

	if (!bytes)
		return;
	now = ns * CKF_HUGE_BYTES / bytes;
	if (old && now > old)
		now = old +
		      (now - old) / WEIGHT_OF_NEWS * (WEIGHT_OF_NEWS - 1) * weight / CKF_HUGE_BYTES;
	else if (old)
		now = old -
		      (old - now) / WEIGHT_OF_NEWS * (WEIGHT_OF_NEWS - 1) * weight / CKF_HUGE_BYTES;
	atomic_store(&p->ns[way], now ? now : 1);
	atomic_fetch_add(&p->spent_ns, ns);
}
