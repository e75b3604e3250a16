/* SPDX-License-Identifier: GPL-2.0-only */
/* Tasks that are forked by several CPUs at once. */
#ifndef __CR_FAST_FORKS_H__
#define __CR_FAST_FORKS_H__

#include <stdbool.h>

struct pstree_item;

/*
 * True when a child of the current task is forked by fast_forks_now(). All else, and each child where nothing is
 * forked in parallel, the caller forks itself.
 */
extern bool fast_forks_later(struct pstree_item *child);

/* Forks them by fork_one(), which returns a negative number on failure. 0, or -1. */
extern int fast_forks_now(int (*fork_one)(struct pstree_item *));

/*
 * In a new task, which is item, before it is different from its parent: forks those of its siblings that were given
 * to it. On failure, -1, it must exit: its parent is told by SIGCHLD. It may wait for locks and workers of others, so
 * its id must be known to whoever ends a restore that fails.
 */
extern int fast_forks_siblings(struct pstree_item *item, int (*fork_one)(struct pstree_item *));

/* For the flags of clone(): a sibling is a child of one's own parent. */
extern int fast_forks_flags(void);

/*
 * Around the making of a task with a given id: lock_last_pid(), or what others may have at the same time, but not
 * beside it. The latter ends with fast_forks_made(), before the parent waits for the new task. The restorer takes the
 * mutex by itself: all tasks have been forked by then.
 */
extern void fast_forks_lock(void);
extern void fast_forks_made(void);
extern void fast_forks_unlock(void);

#endif /* __CR_FAST_FORKS_H__ */
