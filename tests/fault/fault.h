/* SPDX-License-Identifier: MIT */
/*
 * Fault injection: the Nth call of a kind fails, and what the library makes of it is looked at.
 *
 *	fault	a kind of call and the way in which it goes wrong
 *	op	something that the library does, on a world of tiny images and dumps
 *
 * The linker leads calls of the library to wrappers (wrap.c), which ask fault_hit() whether
 * it is their turn. Everything else of the program passes through the same wrappers, unharmed: no
 * fault is armed then.
 */
#ifndef CKF_TEST_FAULT_H
#define CKF_TEST_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/ckf_error.h"

/* The kinds of calls; wrap.c says which functions belong to each. */
enum fault_point {
	FAULT_ALLOC,
	FAULT_MMAP,
	FAULT_MADVISE,
	FAULT_READ,
	FAULT_READ_END, /* a read that would have brought something */
	FAULT_WRITE,
	FAULT_OPEN,
	FAULT_OPEN_DIRECT, /* with O_DIRECT; these are of kind FAULT_OPEN, too */
	FAULT_STAT,
	FAULT_SYNC,
	FAULT_CLOSE,
	FAULT_RENAME,
	FAULT_RENAME_FLAGS, /* renameat2() alone */
	FAULT_MKDIR,
	FAULT_TRUNCATE,
	FAULT_CHMOD,
	FAULT_CHOWN,
	FAULT_UTIMES,
	FAULT_SYMLINK,
	FAULT_READLINK,
	FAULT_OPENDIR,
	FAULT_READDIR,
	FAULT_DUP,
	FAULT_RANDOM,
	FAULT_UNLINK,
	FAULT_THREAD,
	FAULT_UNSHARE,
	FAULT_UFFD,
	FAULT_IOCTL,
	FAULT_MOVE,  /* UFFDIO_MOVE; these are of kind FAULT_IOCTL, too */
	FAULT_CLOCK, /* a thread's own time goes by faster */
	FAULT_RING_INIT,
	FAULT_SUBMIT,
	FAULT_SQE, /* what comes of a read that was submitted */
	FAULT_WAIT,
	FAULT_COPY,
};

#define FAULT_ALL (1u << 0)	 /* the Nth call and all that follow it */
#define FAULT_HALF (1u << 1)	 /* does half of what it should, and says so */
#define FAULT_MAY_PASS (1u << 2) /* there are places where it does no harm */
#define FAULT_KERNEL (1u << 4)	 /* met only where the kernel has io_uring or userfaultfd */
#define FAULT_LEAVES (1u << 3)	 /* what cannot be removed stays */

struct fault {
	const char *name;
	enum fault_point point;
	int code;	    /* errno of the call; 0: it returns 0, or does half */
	int want;	    /* what an op then returns, as an errno; 0: it succeeds */
	unsigned int flags; /* FAULT_ */
};

/* inject.c */

void fault_arm(const struct fault *f, unsigned int n);
/* True when the fault was met. */
bool fault_disarm(void);
/* Counts a call. True, with errno set, when this is one that fails. Any thread. */
bool fault_hit(enum fault_point point);
/* The same, for a call that does half of its work. */
bool fault_hit_half(enum fault_point point);
/* True when a fault of this kind is armed. */
bool fault_armed(enum fault_point point);
/* The errno of the fault that is armed. */
int fault_code(void);

/* What the process holds, but for what libc keeps to itself. */
struct fault_balance {
	long allocs;
	long maps;
	long fds;
	long tasks;
	long rings; /* mappings of io_uring */
};
void fault_balance_get(struct fault_balance *b);
void fault_count_alloc(int change);
void fault_count_map(int change);

/* big.c */

/* A large block at a page border, or NULL: then it is for others to give. */
void *fault_big_alloc(size_t bytes);
/* False when it is not a block of fault_big_alloc(). */
bool fault_big_free(void *p);
/* The block is no longer one of those. */
void fault_big_forget(void *p);

/* world.c */

struct world;

/*
 * prepare (may be NULL): what has to be there before. run: does it once, and keeps in the world
 * what came out of it; only here the fault is armed. check: looks at that, and at what is left in
 * the file system; then puts everything back. Returns NULL, or what is wrong.
 */
struct op {
	const char *name;
	uint64_t points;   /* bits of the faults that it is tried with; 0: all */
	uint64_t may_pass; /* and of those that may do it no harm */
	void (*prepare)(struct world *w);
	int (*run)(struct world *w, struct ckf_error *err);
	const char *(*check)(struct world *w, int ret, bool may_leave);
};

/* A NULL name ends them. */
extern const struct op load_ops[], sink_ops[], convert_ops[], archive_ops[];

/* Makes images and dumps in a directory of their own; without success the program ends. */
struct world *world_new(void);
void world_free(struct world *w);

#endif
