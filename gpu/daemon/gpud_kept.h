/* SPDX-License-Identifier: MIT */
/* Private to gpud_kept*.c: the list of kept images. */
#ifndef CKF_GPUD_KEPT_H
#define CKF_GPUD_KEPT_H

#include "gpud.h"

#define NS_PER_MS 1000000ull
#define RETRY_NS (10 * GPUD_NS_PER_S) /* until an image that could not be kept is tried again */

/* The memory of an image. */
struct gpud_kept_mem {
	struct gpud_kept *k;
	struct ckf_kept *kept;
	void *addr;
	uint64_t bytes;
	bool pinned;
	unsigned int users; /* fills, and the image that it is of; under the lock */
};

struct gpud_image {
	struct gpud_image *next;
	const char *path; /* of --keep; NULL: dir_fd is all that is known */
	/* Under the lock. */
	int dir_fd; /* of what was read last; -1: nothing yet. Changes only with the turn, too */
	dev_t dev;  /* of dir_fd */
	ino_t ino;
	struct gpud_kept_mem *mem; /* NULL: not there */
	uint64_t hits;
	uint64_t kept_ns; /* when it was read */
	uint64_t used_ns;
	bool wanted;	   /* the keeper is to read it, */
	uint64_t retry_ns; /* not before */
	bool gone;	   /* nobody wants it: to be removed */
	/* With the turn. */
	int told; /* the error that the log has, or 0 */
};

/* An image is being read. */
struct gpud_load {
	int (*cancelled)(void *arg);
	void *arg;
	bool may_drop; /* others, which are idle */
	_Atomic uint64_t look_ns;
	atomic_bool dropped; /* its image */
	atomic_bool is_short;
};

struct gpud_kept {
	struct ckf_gpud *g;
	pthread_t keeper;
	bool started;
	pthread_mutex_t lock; /* for all below */
	pthread_cond_t cond;
	bool turn; /* somebody has it. The list changes only with it and the lock */
	bool woken;
	struct gpud_image *images;
	const struct gpud_image *loading; /* the image that is being read, */
	struct gpud_load *load;		  /* and how */
	struct gpud_kept_counts counts;
};

/* gpud_kept_list.c */

/* -ECANCELED: cancelled(arg), which is asked meanwhile. */
int gpud_turn_take(struct gpud_kept *k, int (*cancelled)(void *arg), void *arg);
/* Also removes images that are gone. */
void gpud_turn_give(struct gpud_kept *k);
/* Nothing is left of it, and nobody waits for it. With the lock. */
bool gpud_image_is_gone(const struct gpud_image *im);
/* NULL: no memory. dir_fd becomes its own. With the turn. */
struct gpud_image *gpud_image_add(struct gpud_kept *k, const char *path, int dir_fd);
/* The image is of the directory fd now, which becomes its own. With the turn. */
void gpud_image_set_dir(struct gpud_kept *k, struct gpud_image *im, int fd);
/*
 * The memory of the image is no longer its own. With the lock; gpud_kept_put() follows without it.
 * Images of --keep are to be read again.
 */
struct gpud_kept_mem *gpud_image_take_mem(struct gpud_kept *k, struct gpud_image *im,
					  enum gpud_kept_drop why);
/* Fills that use the memory go on. */
void gpud_image_drop_mem(struct gpud_kept *k, struct gpud_image *im, enum gpud_kept_drop why);
/*
 * The one that was used least recently, of those that no fill uses; all: what they have together.
 * With the lock.
 */
struct gpud_image *gpud_image_find_idle(struct gpud_kept *k, uint64_t *all);
void gpud_image_drop_idle(struct gpud_kept *k, enum gpud_kept_drop why);

/* The keeper looks at all images. */
void gpud_keeper_wake(struct gpud_kept *k);

/* gpud_kept_load.c */

/* False where it cannot be told. */
bool gpud_memory_is_short(void);
/* Reads the image, whose memory is not there. With the turn. *bytes: of memory. */
int gpud_image_load(struct gpud_kept *k, struct gpud_image *im, struct gpud_load *l,
		    uint64_t *bytes, struct ckf_error *err);
/* Drops what has changed: what is kept of the image, in bytes; 0: nothing. With the turn. */
uint64_t gpud_image_check(struct gpud_kept *k, struct gpud_image *im);

#endif
