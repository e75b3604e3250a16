/* SPDX-License-Identifier: MIT */
/*
 * What it costs this machine to make a process, by making some: most of what criu restore does
 * besides filling memory is that, and page faults in new processes.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/ckf_threads.h"
#include "base/ckf_types.h"
#include "ckf_inspect.h"

#define TRIES 25
#define HALF_PAGES (CKF_MODEL_PROCESS_PAGES / 2)
#define STRIDE (2 * CKF_PAGE_BYTES) /* so that no page fault makes two pages */
#define HALF_BYTES (HALF_PAGES * STRIDE)

static void touch(char *half)
{
	for (size_t off = 0; off < HALF_BYTES; off += STRIDE)
		*(volatile char *)(half + off) = 1;
}

bool insp_child_did(pid_t pid)
{
	pid_t ret = -1;
	int status;

	while (pid > 0 && (ret = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
		;
	return pid > 0 && ret == pid && !status;
}

/* A process that writes to what it has from its parent, and to what nobody had yet. -1: there can
 * be none. */
static double make_one(char *mem)
{
	const uint64_t start_ns = ckf_now_ns();
	const pid_t pid = fork();

	if (!pid) {
		touch(mem);
		touch(mem + HALF_BYTES);
		quick_exit(0);
	}
	if (!insp_child_did(pid))
		return -1;
	return (double)(ckf_now_ns() - start_ns) / 1e9;
}

static int compare(const void *pa, const void *pb)
{
	const double *a = pa, *b = pb;

	return (*a > *b) - (*a < *b);
}

double insp_process_s(void)
{
	double took[TRIES], median = CKF_MODEL_PROCESS_S;
	char *mem = mmap(NULL, 2 * HALF_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (mem == MAP_FAILED)
		return median;
	(void)madvise(mem, 2 * HALF_BYTES, MADV_NOHUGEPAGE);
	touch(mem);
	for (unsigned int i = 0; i < TRIES; i++)
		took[i] = make_one(mem);
	qsort(took, TRIES, sizeof(*took), compare);
	if (took[0] > 0)
		median = took[TRIES / 2];
	munmap(mem, 2 * HALF_BYTES);
	return median;
}
