// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who forks the children of a task.
 *
 * CRIU has each task fork its children one after the other, and each fork copies all mappings and page tables of the
 * criu process: of a thousand small tasks that is a third of a restore, by one CPU. Here a task gives half of its
 * children to the first one that it forks, half of the rest to the next, and so on, for as many as there are CPUs,
 * unless these are few. Who has been given siblings forks them, with CLONE_PARENT, before it does anything else, so it
 * is until then a copy of its parent, and so are they: they have the parent that they had, and share its memory as
 * ever.
 *
 * Ids are given to clone3(), so that forks need no lock against each other. What takes whatever id is next must not
 * run beside them, since that could be the id of a task that is yet to be forked: it has the lock for the last pid
 * alone.
 */
#include <sched.h>
#include <stdint.h>

#include "types.h"
#include "cr_options.h"
#include "fast-forks.h"
#include "fast-image.h"
#include "fast-workers.h"
#include "kerndat.h"
#include "log.h"
#include "pstree.h"
#include "rst_info.h"
#include "xmalloc.h"

#undef LOG_PREFIX
#define LOG_PREFIX "fast-image: "

/*
 * With so few CPUs the tasks that have been forked keep all of them busy, and concurrent forks would only wait for each
 * other's locks on the memory that they share.
 */
#define FEW_CPUS 2

/* Tasks that one process forks, and among how many processes it may divide them, itself counted. */
struct share {
	struct pstree_item **items;
	unsigned int nr;
	unsigned int ways;
};

static struct share later; /* of the current task */
static struct share given; /* to the task that is forked next */
static bool as_sibling;
static enum { LOCK_NONE, LOCK_ALONE, LOCK_SHARED } held;

/* With a shadow stack of its own, CRIU waits for each task that it forks, as for those that have one. */
static bool in_parallel(void)
{
	return fast_image_on() && kdat.has_clone3_set_tid && !kdat.has_shstk;
}

/* New namespaces, and what is shared with the parent, are between these two. */
bool fast_forks_later(struct pstree_item *child)
{
	struct pstree_item **items;

	if (!in_parallel() || rsti(child)->clone_flags)
		return false;
	items = xrealloc(later.items, (later.nr + 1) * sizeof(*items));
	if (!items)
		return false;
	items[later.nr++] = child;
	later.items = items;
	return true;
}

static int fork_share(struct share s, int (*fork_one)(struct pstree_item *))
{
	while (s.nr && !atomic_read(&task_entries->failed)) {
		struct pstree_item *item = *s.items++;

		s.nr--;
		given.items = s.items;
		given.ways = s.ways / 2;
		given.nr = (uint64_t)s.nr * given.ways / s.ways;
		if (fork_one(item) < 0)
			return -1;
		s.items += given.nr;
		s.nr -= given.nr;
		s.ways -= given.ways;
	}
	return s.nr ? -1 : 0;
}

int fast_forks_now(int (*fork_one)(struct pstree_item *))
{
	int ret;

	if (!later.nr)
		return 0;
	later.ways = fast_workers_wanted(UINT64_MAX);
	if (!opts.fast_threads && later.ways <= FEW_CPUS)
		later.ways = 1;
	ret = fork_share(later, fork_one);
	xfree(later.items);
	later = given = (struct share){};
	return ret;
}

int fast_forks_siblings(struct pstree_item *item, int (*fork_one)(struct pstree_item *))
{
	int ret;

	if (given.nr)
		pr_debug("%d forks %u siblings, beginning with %d\n", vpid(item), given.nr, vpid(given.items[0]));
	as_sibling = true;
	ret = fork_share(given, fork_one);
	as_sibling = false;
	/* What its parent has collected is not for its own children. To free it would write to memory that is shared. */
	later = given = (struct share){};
	return ret;
}

int fast_forks_flags(void)
{
	return as_sibling ? CLONE_PARENT : 0;
}

void fast_forks_lock(void)
{
	if (!in_parallel()) {
		lock_last_pid();
		held = LOCK_ALONE;
		return;
	}
	mutex_lock(&task_entries->last_pid_mutex);
	futex_inc(&task_entries->fast_forks);
	mutex_unlock(&task_entries->last_pid_mutex);
	held = LOCK_SHARED;
}

void fast_forks_made(void)
{
	if (held == LOCK_SHARED)
		fast_forks_unlock();
}

void fast_forks_unlock(void)
{
	if (held == LOCK_SHARED)
		futex_dec_and_wake(&task_entries->fast_forks);
	else if (held == LOCK_ALONE)
		unlock_last_pid();
	held = LOCK_NONE;
}
