/* SPDX-License-Identifier: MIT */
/*
 * mixed DIR [sysv]: one process with every usual kind of memory and 8 threads.
 *
 * sysv adds System V shared memory, for which it moves into an IPC namespace of its own: CRIU
 * dumps such memory only together with its namespace.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include "prog.h"

#define NR_THREADS 8
#define MAX_AREAS 32
#define TLS_WORDS 1024
#define STACK_WORDS 8192
#define ODD_BYTES 9000 /* of a memfd that ends within a page */

struct thread {
	pthread_t id;
	unsigned int rank;
	int tid;
	_Atomic uint64_t counter;
	_Atomic unsigned int checked; /* the last round that it has checked itself in */
	_Atomic bool bad;
};

static struct area areas[MAX_AREAS];
static unsigned int nr_areas;
static int odd;
static char odd_bytes[ODD_BYTES];
static struct thread threads[NR_THREADS];
static _Atomic unsigned int round_now;
static _Atomic unsigned int nr_running;
static __thread uint64_t tls[TLS_WORDS];

static void add(struct area a)
{
	if (nr_areas == MAX_AREAS)
		abort();
	areas[nr_areas++] = a;
}

static bool words_good(const uint64_t *words, unsigned int nr, uint64_t seed)
{
	for (unsigned int i = 0; i < nr; i++) {
		if (words[i] != mix(seed + i))
			return false;
	}
	return true;
}

/* Counts for ever; when a round begins, checks its own stack, TLS and thread id. */
static void *thread_main(void *arg)
{
	struct thread *t = arg;
	uint64_t stack[STACK_WORDS];

	t->tid = (int)syscall(SYS_gettid);
	for (unsigned int i = 0; i < STACK_WORDS; i++)
		stack[i] = mix(t->rank * 1000u + i);
	for (unsigned int i = 0; i < TLS_WORDS; i++)
		tls[i] = mix(t->rank * 5000u + i);
	nr_running++;
	for (;;) {
		unsigned int round = round_now;

		t->counter++;
		if (t->checked != round) {
			if (!words_good(stack, STACK_WORDS, t->rank * 1000u) ||
			    !words_good(tls, TLS_WORDS, t->rank * 5000u) ||
			    t->tid != (int)syscall(SYS_gettid))
				t->bad = true;
			t->checked = round;
		}
		usleep(1000);
	}
	return NULL;
}

static void start_threads(void)
{
	for (unsigned int i = 0; i < NR_THREADS; i++) {
		threads[i].rank = i + 1;
		if (pthread_create(&threads[i].id, NULL, thread_main, &threads[i]))
			die("pthread_create");
	}
	while (nr_running < NR_THREADS)
		usleep(1000);
}

/* NULL, or what is wrong with the threads. */
static const char *check_threads(void)
{
	uint64_t before[NR_THREADS];

	for (unsigned int i = 0; i < NR_THREADS; i++)
		before[i] = threads[i].counter;
	round_now++;
	for (unsigned int i = 0; i < NR_THREADS; i++) {
		for (int tries = 0; threads[i].checked != round_now; tries++) {
			if (tries > 5000)
				return "a thread does not run";
			usleep(1000);
		}
		if (threads[i].bad)
			return "a thread's stack, TLS or id";
		if (threads[i].counter <= before[i])
			return "a thread's counter";
	}
	return NULL;
}

static void add_anonymous(void)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	struct area a;

	add(area_new("private", 24 * MIB / PAGE, flags, -1, MIXED));
	add(area_new("full", 16 * MIB / PAGE, flags, -1, RANDOM));
	add(area_new("shared", 8 * MIB / PAGE, MAP_SHARED | MAP_ANONYMOUS, -1, MIXED));
	add(area_new("growsdown", 256, flags | MAP_GROWSDOWN, -1, RANDOM));

	a = area_new("no access", 512, flags, -1, MIXED);
	a.prot = PROT_NONE;
	if (mprotect(a.addr, a.nr_pages * PAGE, PROT_NONE))
		die("mprotect");
	add(a);

	/* Three mappings of one area: pages that follow each other in different mappings. */
	a = area_new("split", 1500, flags, -1, RANDOM);
	if (mprotect(a.addr + 500 * PAGE, 500 * PAGE, PROT_READ) ||
	    mprotect(a.addr + 1000 * PAGE, 250 * PAGE, PROT_READ | PROT_EXEC))
		die("mprotect");
	add(a);

	a = area_new("locked", 64, flags, -1, MIXED);
	if (!mlock(a.addr, a.nr_pages * PAGE))
		a.name = "locked, really";
	add(a);
	/* Never touched. */
	if (mmap(NULL, 64 * MIB, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED)
		die("mmap");
}

/* A private mapping of the file that holds area of, every third page of it written. */
static void add_private_copy(const char *name, const struct area *of, int fd)
{
	struct area a = *of;

	a.name = name;
	a.cow_seed = of->seed + 1000;
	a.cow_every = 3;
	a.addr = mmap(NULL, a.nr_pages * PAGE, a.prot, MAP_PRIVATE, fd, 0);
	if (a.addr == MAP_FAILED)
		die("mmap %s", name);
	area_write_cow(&a);
	add(a);
}

static void add_files(const char *dir)
{
	char path[4096];
	struct area a;
	int fd;

	fd = memfd_create("mixed", 0);
	if (fd < 0 || ftruncate(fd, 6 * MIB))
		die("memfd");
	a = area_new("memfd", 4 * MIB / PAGE, MAP_SHARED, fd, MIXED);
	add(a);
	add_private_copy("private memfd", &a, fd);
	odd = memfd_create("odd", 0);
	memset(odd_bytes, 'o', ODD_BYTES);
	if (odd < 0 || write(odd, odd_bytes, ODD_BYTES) != ODD_BYTES ||
	    mmap(NULL, ODD_BYTES, PROT_READ, MAP_SHARED, odd, 0) == MAP_FAILED)
		die("memfd");

	snprintf(path, sizeof(path), "%s/mapped", dir);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || ftruncate(fd, 2 * MIB))
		die("%s", path);
	a = area_new("file", 2 * MIB / PAGE, MAP_SHARED, fd, MIXED);
	add(a);
	add_private_copy("private file", &a, fd);
	if (fsync(fd) || close(fd))
		die("%s", path);
}

static void add_sysv(void)
{
	struct area a = { .name = "sysv",
			  .nr_pages = 1024,
			  .seed = 77,
			  .profile = MIXED,
			  .prot = PROT_READ | PROT_WRITE };
	int id = shmget(IPC_PRIVATE, a.nr_pages * PAGE, IPC_CREAT | 0600);

	if (id < 0)
		die("shmget");
	a.addr = shmat(id, NULL, 0);
	if (a.addr == (void *)-1)
		die("shmat");
	area_fill(&a);
	add(a);
}

static const char *check_odd(void)
{
	static char now[ODD_BYTES + 1];

	if (pread(odd, now, sizeof(now), 0) != ODD_BYTES || memcmp(now, odd_bytes, ODD_BYTES) != 0)
		return "a memfd has another end";
	return NULL;
}

static void check(const char *dir)
{
	const char *problem = check_threads();

	if (!problem)
		problem = check_odd();

	if (problem) {
		report(dir, "report", "BAD %s", problem);
		return;
	}
	for (unsigned int i = 0; i < nr_areas; i++) {
		int64_t page = area_check(&areas[i]);

		if (page >= 0) {
			report(dir, "report", "BAD area %s page %lld of %llu", areas[i].name,
			       (long long)page, (unsigned long long)areas[i].nr_pages);
			return;
		}
	}
	report(dir, "report", "OK %u areas, %u threads", nr_areas, NR_THREADS);
}

int main(int argc, char **argv)
{
	bool sysv = argc > 2 && !strcmp(argv[2], "sysv");

	if (argc < 2) {
		fprintf(stderr, "usage: mixed DIR [sysv]\n");
		return 2;
	}
	trigger_init();
	if (sysv && unshare(CLONE_NEWIPC))
		die("no IPC namespace");
	add_anonymous();
	add_files(argv[1]);
	if (sysv)
		add_sysv();
	start_threads();
	report(argv[1], "ready", "%d", (int)getpid());
	for (;;) {
		trigger_wait();
		check(argv[1]);
	}
}
