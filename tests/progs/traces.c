/* SPDX-License-Identifier: MIT */
/*
 * traces DIR KIND …: what the restore's own machinery could leave a trace in, or get in the way of.
 *
 *	plain MIB		memory, and no thread: it has no handler of libc's own signals
 *	threads MIB		three threads, and all of them change their group when it checks
 *	reserve MIB GIB		GIB GiB without access, of which a part is used
 *	maps MIB N KIB		N neighbours of KIB KiB that differ, a page written in every second
 *	tree MIB N		a child with N threads
 */
#include <dirent.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "prog.h"

#define SIGNALS_OF_LIBC 2 /* from this one on, which sigaction() refuses */
#define FIRST_OF_LIBC 32
#define THREADS 3

struct kernel_action {
	void *handler;
	unsigned long flags;
	void *restorer;
	uint64_t mask;
};

static struct kernel_action before[SIGNALS_OF_LIBC];
static struct area areas[2];
static unsigned int nr_areas;
static gid_t next_gid = 1001;

static void read_actions(struct kernel_action *a)
{
	memset(a, 0, SIGNALS_OF_LIBC * sizeof(*a));
	for (int i = 0; i < SIGNALS_OF_LIBC; i++)
		if (syscall(SYS_rt_sigaction, FIRST_OF_LIBC + i, NULL, &a[i], sizeof(a[i].mask)))
			die("sigaction");
}

static void *idle(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void start_threads(int n)
{
	pthread_attr_t attr;
	pthread_t thread;
	sigset_t all;

	/* What the test sends is for the main thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64u << 10);
	for (int i = 0; i < n; i++)
		if (pthread_create(&thread, &attr, idle, NULL))
			die("thread");
}

/* How many threads of this process have that group. */
static int threads_of_group(gid_t gid)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *e;
	char path[300], line[256];
	unsigned int got;
	int n = 0;

	if (!dir)
		die("task");
	while ((e = readdir(dir))) {
		FILE *f;

		snprintf(path, sizeof(path), "/proc/self/task/%s/status", e->d_name);
		f = e->d_name[0] == '.' ? NULL : fopen(path, "r");
		while (f && fgets(line, sizeof(line), f))
			n += sscanf(line, "Gid: %u", &got) == 1 && got == gid;
		if (f)
			fclose(f);
	}
	closedir(dir);
	return n;
}

static void check(const char *dir, bool threads)
{
	struct kernel_action now[SIGNALS_OF_LIBC];

	for (unsigned int i = 0; i < nr_areas; i++) {
		int64_t page = area_check(&areas[i]);

		if (page >= 0) {
			report(dir, "report", "BAD area %s page %lld", areas[i].name,
			       (long long)page);
			return;
		}
	}
	read_actions(now);
	if (memcmp(before, now, sizeof(now))) {
		report(dir, "report", "BAD actions of signals: handler of 33 %p, was %p",
		       now[1].handler, before[1].handler);
		return;
	}
	if (threads) {
		gid_t gid = next_gid++;

		if (setresgid(gid, gid, 0)) {
			report(dir, "report", "BAD setresgid: %s", strerror(errno));
			return;
		}
		if (threads_of_group(gid) != THREADS + 1) {
			report(dir, "report", "BAD %d threads have the new group",
			       threads_of_group(gid));
			return;
		}
	}
	report(dir, "report", "OK");
}

/* A reservation as allocators make it, with a part that is in use. */
static void reserve(uint64_t gib)
{
	const uint64_t bytes = gib << 30;
	char *p = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct area *a = &areas[nr_areas++];

	if (p == MAP_FAILED)
		die("reservation");
	*a = (struct area){ .name = "committed",
			    .addr = p + (bytes / 2),
			    .nr_pages = 4 * MIB / PAGE,
			    .seed = 5,
			    .profile = RANDOM,
			    .prot = PROT_READ | PROT_WRITE };
	if (mprotect(a->addr, a->nr_pages * PAGE, a->prot))
		die("mprotect");
	area_fill(a);
}

static void make_maps(uint64_t nr, uint64_t bytes)
{
	char *p = mmap(NULL, nr * bytes + 2 * MIB, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		die("reservation");
	p = (char *)(((uintptr_t)p + 2 * MIB - 1) & ~(uintptr_t)(2 * MIB - 1));
	for (uint64_t i = 0; i < nr; i++) {
		char *at = p + i * bytes;

		if (mmap(at, bytes, i & 1 ? PROT_READ : PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
			 0) == MAP_FAILED)
			die("mapping %llu", (unsigned long long)i);
		if (!(i & 1))
			memcpy(at, &i, sizeof(i));
	}
}

static void child_with_threads(int n)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid)
		return;
	start_threads(n);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	const char *kind = argc > 3 ? argv[2] : "";
	const uint64_t arg = argc > 4 ? strtoull(argv[4], NULL, 10) : 0;
	const bool threads = !strcmp(kind, "threads");

	if (argc < 4) {
		fprintf(stderr, "usage: traces DIR KIND MIB …\n");
		return 2;
	}
	if (!strcmp(kind, "tree"))
		child_with_threads((int)arg);
	trigger_init();
	if (threads)
		start_threads(THREADS);
	areas[nr_areas++] = area_new("plain", strtoull(argv[3], NULL, 10) * MIB / PAGE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, RANDOM);
	if (!strcmp(kind, "reserve"))
		reserve(arg);
	if (!strcmp(kind, "maps"))
		make_maps(arg, strtoull(argv[5], NULL, 10) << 10);
	read_actions(before);
	report(argv[1], "ready", "%d", (int)getpid());
	for (;;) {
		trigger_wait();
		check(argv[1], threads);
	}
}
