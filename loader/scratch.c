/* SPDX-License-Identifier: MIT */
/* Pieces of scratch memory, mapped when the first one is needed: see scratch.h. */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/ckf_types.h"
#include "scratch.h"

/* As many as a lane has segments, at most: those of a lane may all be open at the same time. */
#define PIECES_PER_WORKER 16
/* Where the address space is limited, of all memory that is filled. */
#define LIMITED_SHARE 64
#define LIMITED_LEAST 2
#define MAX_PROTS (PROT_READ | PROT_WRITE | PROT_EXEC)

/* UFFDIO_MOVE wants the same protection on both sides. */
struct pool {
	char *map; /* as mmap() gave it */
	size_t map_bytes;
	char **free; /* a stack */
	size_t nr_free;
	bool tried;
};

struct fill_scratch {
	size_t max;	      /* pieces, of each protection */
	pthread_mutex_t lock; /* for all below */
	struct pool pools[MAX_PROTS + 1];
};

struct fill_scratch *fill_scratch_new(unsigned int workers)
{
	struct fill_scratch *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->max = (workers ? workers : 1) * (size_t)PIECES_PER_WORKER;
	pthread_mutex_init(&s->lock, NULL);
	return s;
}

/* Strict accounting: what is mapped counts, whether it is used or not. */
static bool is_overcommit_strict(void)
{
	int fd = open("/proc/sys/vm/overcommit_memory", O_RDONLY | O_CLOEXEC);
	char mode = 0;

	if (fd < 0)
		return false;
	if (read(fd, &mode, 1) != 1)
		mode = 0;
	close(fd);
	return mode == '2';
}

static bool is_limited(void)
{
	struct rlimit as, data;

	return getrlimit(RLIMIT_AS, &as) || as.rlim_cur != RLIM_INFINITY ||
	       getrlimit(RLIMIT_DATA, &data) || data.rlim_cur != RLIM_INFINITY ||
	       is_overcommit_strict();
}

void fill_scratch_limit(struct fill_scratch *s, uint64_t nr_segs)
{
	uint64_t max = nr_segs;

	if (nr_segs > LIMITED_LEAST && is_limited()) {
		max = nr_segs / LIMITED_SHARE;
		max = max < LIMITED_LEAST ? LIMITED_LEAST : max;
	}
	if (max < s->max)
		s->max = max;
}

/* As many pieces as can be had. */
static void map_pool(struct pool *p, size_t max, unsigned int prot)
{
	char *first;

	p->tried = true;
	p->free = malloc(max * sizeof(*p->free));
	for (; p->free && max; max /= 2) {
		p->map_bytes = (max + 1) * CKF_HUGE_BYTES;
		p->map = mmap(NULL, p->map_bytes, (int)prot,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (p->map != MAP_FAILED)
			break;
		p->map = NULL;
	}
	if (!p->map)
		return;
	first = (char *)ckf_align_up((uintptr_t)p->map, CKF_HUGE_BYTES);
	/* Refused where the kernel has no huge pages: small ones then are made where they belong.
	 */
	if (madvise(first, max * CKF_HUGE_BYTES, MADV_HUGEPAGE))
		return;
	while (max--)
		p->free[p->nr_free++] = first + max * CKF_HUGE_BYTES;
}

char *fill_scratch_take(struct fill_scratch *s, unsigned int prot)
{
	struct pool *p = &s->pools[prot & MAX_PROTS];
	char *piece = NULL;

	pthread_mutex_lock(&s->lock);
	if (!p->tried)
		map_pool(p, s->max, prot);
	/* The one that was given back last: what the kernel keeps of it is there, too. */
	if (p->nr_free)
		piece = p->free[--p->nr_free];
	pthread_mutex_unlock(&s->lock);
	return piece;
}

void fill_scratch_give(struct fill_scratch *s, unsigned int prot, char *piece, bool dirty)
{
	struct pool *p = &s->pools[prot & MAX_PROTS];

	/* One that cannot be emptied is not used again. */
	if (dirty && madvise(piece, CKF_HUGE_BYTES, MADV_DONTNEED))
		return;
	pthread_mutex_lock(&s->lock);
	p->free[p->nr_free++] = piece;
	pthread_mutex_unlock(&s->lock);
}

void fill_scratch_free(struct fill_scratch *s)
{
	if (!s)
		return;
	for (size_t i = 0; i <= MAX_PROTS; i++) {
		if (s->pools[i].map)
			munmap(s->pools[i].map, s->pools[i].map_bytes);
		free(s->pools[i].free);
	}
	pthread_mutex_destroy(&s->lock);
	free(s);
}
