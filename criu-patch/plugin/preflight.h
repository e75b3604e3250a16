// SPDX-License-Identifier: GPL-2.0-only
/* Whether CRIU will dump the tree that it has stopped, as far as that can be known beforehand. */
#ifndef CKF_PREFLIGHT_H
#define CKF_PREFLIGHT_H

#include <stdbool.h>

/* Whether a file whose path holds name is mapped. */
bool preflight_maps(int pid, const char *name);

/*
 * Whether the tree below pid, which may run, shares device memory with nobody else: asked before
 * memory is taken from the first of its processes. As preflight_tree().
 */
int preflight_shared(int pid);

/*
 * Looks at each task of the tree, all of them stopped, and says in the log what CRIU or the
 * driver's restore will fail on, and what to change. 0, or -1 when there is such a thing. With
 * CKFAST_NO_PREFLIGHT in the environment these are warnings.
 */
int preflight_tree(void);

#endif
