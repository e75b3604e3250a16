/* SPDX-License-Identifier: MIT */
/*
 * What the test programs share: memory with contents that can be computed again, and the way a
 * test talks to them.
 *
 *	PROG DIR …	sets up, then creates DIR/ready
 *	SIGUSR1		checks all of its memory and writes DIR/report: "OK …" or "BAD …"
 *
 * No file stays open, so that one dump can be restored many times.
 */
#ifndef PROG_H
#define PROG_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096u
#define MIB (1u << 20)

static inline __attribute__((format(printf, 1, 2), noreturn)) void die(const char *fmt, ...)
{
	int error = errno;
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, ": %s\n", strerror(error));
	exit(1);
}

/* Makes procs processes of this one; the rank of each, 0 for this one. */
static inline unsigned int fork_procs(unsigned int procs)
{
	for (unsigned int rank = 1; rank < procs; rank++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (pid == 0)
			return rank;
	}
	return 0;
}

static inline uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

/* What is in the pages of an area. */
enum profile {
	RANDOM, /* nothing that compresses, repeats or is zero */
	MIXED,	/* a fifth each: zero, repeated, compressible; the rest random */
};

enum page_class {
	PAGE_ZERO,
	PAGE_REPEATED,
	PAGE_TEXT,
	PAGE_RANDOM
};

/* Runs of 64 pages have one class, as memory has. */
static inline enum page_class page_class(enum profile profile, uint64_t seed, uint64_t page)
{
	uint64_t dice = mix(seed ^ mix(page / 64)) % 5;

	if (profile == RANDOM || dice > 2)
		return PAGE_RANDOM;
	return (enum page_class)dice;
}

static inline void page_make(void *out, enum profile profile, uint64_t seed, uint64_t page)
{
	enum page_class class = page_class(profile, seed, page);
	uint64_t state = mix(seed * 31 + (class == PAGE_REPEATED ? page % 64 : page + 1000)) | 1;
	uint64_t mask = class == PAGE_TEXT ? 0x0f0f00000000000fu : ~(uint64_t)0;
	uint64_t *p = out;

	if (class == PAGE_ZERO) {
		memset(p, 0, PAGE);
		return;
	}
	for (unsigned int i = 0; i < PAGE / sizeof(*p); i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		p[i] = state & mask;
	}
}

struct area {
	const char *name;
	char *addr;
	uint64_t nr_pages;
	uint64_t seed;
	enum profile profile;
	int prot; /* that it has between checks */
	/* Every so many pages, from cow_first on, one has been written over with cow_seed's. */
	uint64_t cow_seed;
	uint64_t cow_first;
	uint64_t cow_every; /* 0: none */
};

static inline bool area_is_cow(const struct area *a, uint64_t page)
{
	return a->cow_every && page % a->cow_every == a->cow_first;
}

static inline void area_page(const struct area *a, uint64_t page, void *out)
{
	bool cow = area_is_cow(a, page);

	page_make(out, cow ? RANDOM : a->profile, cow ? a->cow_seed : a->seed, page);
}

/* Writes the pages that are the area's own copies. */
static inline void area_write_cow(const struct area *a)
{
	for (uint64_t i = 0; i < a->nr_pages; i++) {
		if (area_is_cow(a, i))
			area_page(a, i, a->addr + i * PAGE);
	}
}

/* Every third zero page is written, the others are never touched. */
static inline void area_fill(const struct area *a)
{
	for (uint64_t i = 0; i < a->nr_pages; i++) {
		if (page_class(a->profile, a->seed, i) != PAGE_ZERO || i % 3 == 0)
			page_make(a->addr + i * PAGE, a->profile, a->seed, i);
	}
	if (a->prot != (PROT_READ | PROT_WRITE) && mprotect(a->addr, a->nr_pages * PAGE, a->prot))
		die("mprotect %s", a->name);
}

/* The first page that is not as it was filled, or -1. */
static inline int64_t area_check(const struct area *a)
{
	size_t bytes = a->nr_pages * PAGE;
	uint64_t want[PAGE / sizeof(uint64_t)];
	int64_t bad = -1;

	if (!(a->prot & PROT_READ) && mprotect(a->addr, bytes, PROT_READ))
		return 0;
	for (uint64_t i = 0; i < a->nr_pages && bad < 0; i++) {
		area_page(a, i, want);
		if (memcmp(want, a->addr + i * PAGE, PAGE))
			bad = (int64_t)i;
	}
	if (!(a->prot & PROT_READ) && mprotect(a->addr, bytes, a->prot))
		return 0;
	return bad;
}

/* Maps, fills and describes an area. fd as for mmap(). */
static inline struct area area_new(const char *name, uint64_t nr_pages, int flags, int fd,
				   enum profile profile)
{
	static uint64_t seed = 20240131;
	struct area a = { .name = name,
			  .nr_pages = nr_pages,
			  .seed = seed++,
			  .profile = profile,
			  .prot = PROT_READ | PROT_WRITE };

	a.addr = mmap(NULL, nr_pages * PAGE, a.prot, flags, fd, 0);
	if (a.addr == MAP_FAILED)
		die("mmap %s", name);
	area_fill(&a);
	return a;
}

/* Writes DIR/NAME, complete or not at all. */
static inline __attribute__((format(printf, 3, 4))) void report(const char *dir, const char *name,
								const char *fmt, ...)
{
	char path[4096], tmp[4200];
	va_list ap;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	snprintf(tmp, sizeof(tmp), "%s.tmp%d", path, (int)getpid());
	f = fopen(tmp, "w");
	if (!f)
		die("%s", tmp);
	va_start(ap, fmt);
	vfprintf(f, fmt, ap);
	va_end(ap);
	fputc('\n', f);
	if (fclose(f) || rename(tmp, path))
		die("%s", path);
}

/* Call before any thread is started: the signal is taken by trigger_wait() alone. */
static inline void trigger_init(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		die("sigprocmask");
}

static inline void trigger_wait(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	while (sigwaitinfo(&set, NULL) != SIGUSR1)
		;
}

#endif
