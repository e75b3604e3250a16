/* SPDX-License-Identifier: MIT */
/*
 * fault [OP [FAULT [N]]]: each op with each fault, the 1st call of its kind, the 2nd… until an op
 * ends without having met it. After the 8th some are left out, but not with CKF_LONG.
 *
 * Each time the op has to succeed with the right result, where the fault says that it may, or to
 * fail with the error that it wants and a message; and leave nothing behind: no memory, mapping,
 * descriptor, thread or ring, no file of a result that is none. AddressSanitizer sees the rest.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fault.h"

#define MAX_N 5000	/* more calls of one kind than any op makes */
#define HANG_SECONDS 20 /* a run takes milliseconds */
#define GONE_TRIES 5000 /* times 100 us, until joined threads are gone for /proc, too */
#define STACK_BYTES (2u << 20)
#define MAX_BAD 40 /* complaints, after which it gives up */

static const struct fault faults[] = {
	{ "alloc", FAULT_ALLOC, ENOMEM, ENOMEM, FAULT_MAY_PASS },
	{ "alloc-all", FAULT_ALLOC, ENOMEM, ENOMEM, FAULT_ALL | FAULT_MAY_PASS },
	{ "mmap", FAULT_MMAP, ENOMEM, ENOMEM, 0 },
	{ "madvise", FAULT_MADVISE, EINVAL, 0, 0 },
	{ "madvise-all", FAULT_MADVISE, ENOMEM, 0, FAULT_ALL },
	{ "read-error", FAULT_READ, EIO, EIO, 0 },
	{ "read-eintr", FAULT_READ, EINTR, 0, 0 },
	{ "read-half", FAULT_READ, 0, 0, FAULT_HALF },
	{ "read-half-all", FAULT_READ, 0, 0, FAULT_HALF | FAULT_ALL },
	{ "read-end", FAULT_READ_END, 0, EBADMSG, FAULT_ALL },
	{ "write-error", FAULT_WRITE, ENOSPC, ENOSPC, 0 },
	{ "write-error-all", FAULT_WRITE, ENOSPC, ENOSPC, FAULT_ALL },
	{ "write-eintr", FAULT_WRITE, EINTR, 0, 0 },
	{ "write-nothing", FAULT_WRITE, 0, EIO, FAULT_ALL },
	{ "write-half", FAULT_WRITE, 0, 0, FAULT_HALF },
	{ "write-half-all", FAULT_WRITE, 0, 0, FAULT_HALF | FAULT_ALL },
	{ "open", FAULT_OPEN, EMFILE, EMFILE, 0 },
	{ "open-direct", FAULT_OPEN_DIRECT, EINVAL, 0, 0 },
	{ "open-direct-all", FAULT_OPEN_DIRECT, EINVAL, 0, FAULT_ALL },
	{ "stat", FAULT_STAT, EIO, EIO, FAULT_MAY_PASS },
	{ "sync", FAULT_SYNC, EIO, EIO, 0 },
	{ "close", FAULT_CLOSE, EIO, EIO, FAULT_MAY_PASS },
	{ "rename", FAULT_RENAME, EIO, EIO, 0 },
	{ "rename-flags", FAULT_RENAME_FLAGS, EINVAL, EINVAL, FAULT_MAY_PASS },
	{ "mkdir", FAULT_MKDIR, EACCES, EACCES, 0 },
	{ "mkdir-exists", FAULT_MKDIR, EEXIST, 0, 0 },
	{ "truncate", FAULT_TRUNCATE, ENOSPC, ENOSPC, 0 },
	{ "chmod", FAULT_CHMOD, EPERM, EPERM, 0 },
	{ "chown", FAULT_CHOWN, EIO, EIO, 0 },
	{ "chown-forbidden", FAULT_CHOWN, EPERM, 0, FAULT_ALL },
	{ "utimes", FAULT_UTIMES, EIO, EIO, 0 },
	{ "symlink", FAULT_SYMLINK, ENOSPC, ENOSPC, 0 },
	{ "readlink", FAULT_READLINK, EIO, EIO, 0 },
	{ "opendir", FAULT_OPENDIR, ENOMEM, ENOMEM, 0 },
	{ "readdir", FAULT_READDIR, EIO, EIO, 0 },
	{ "dup", FAULT_DUP, EMFILE, EMFILE, 0 },
	{ "random", FAULT_RANDOM, ENOSYS, ENOSYS, 0 },
	{ "unlink", FAULT_UNLINK, EIO, 0, FAULT_LEAVES },
	{ "thread", FAULT_THREAD, EAGAIN, EAGAIN, FAULT_MAY_PASS },
	{ "thread-all", FAULT_THREAD, EAGAIN, EAGAIN, FAULT_ALL | FAULT_MAY_PASS },
	{ "unshare", FAULT_UNSHARE, EPERM, 0, 0 },
	{ "unshare-all", FAULT_UNSHARE, EPERM, 0, FAULT_ALL },
	{ "userfaultfd", FAULT_UFFD, ENOSYS, 0, FAULT_KERNEL },
	{ "ioctl", FAULT_IOCTL, ENOMEM, 0, FAULT_KERNEL },
	{ "ioctl-all", FAULT_IOCTL, ENOMEM, 0, FAULT_KERNEL | FAULT_ALL },
	{ "ioctl-exists", FAULT_IOCTL, EEXIST, 0, FAULT_KERNEL },
	{ "move", FAULT_MOVE, EINVAL, 0, FAULT_KERNEL },
	{ "move-all", FAULT_MOVE, ENOMEM, 0, FAULT_KERNEL | FAULT_ALL },
	{ "move-busy", FAULT_MOVE, EBUSY, 0, FAULT_KERNEL },
	{ "move-busy-all", FAULT_MOVE, EBUSY, 0, FAULT_KERNEL | FAULT_ALL },
	{ "move-half", FAULT_MOVE, 0, 0, FAULT_KERNEL | FAULT_HALF },
	{ "slow", FAULT_CLOCK, ETIME, 0, 0 },
	{ "slow-all", FAULT_CLOCK, ETIME, 0, FAULT_ALL },
	{ "ring", FAULT_RING_INIT, ENOSYS, 0, FAULT_KERNEL },
	{ "ring-old", FAULT_RING_INIT, EINVAL, 0, FAULT_KERNEL },
	{ "ring-all", FAULT_RING_INIT, EPERM, 0, FAULT_KERNEL | FAULT_ALL },
	{ "submit", FAULT_SUBMIT, EIO, EIO, FAULT_KERNEL },
	{ "submit-again", FAULT_SUBMIT, EAGAIN, 0, FAULT_KERNEL },
	{ "wait", FAULT_WAIT, EIO, EIO, FAULT_KERNEL },
	{ "wait-eintr", FAULT_WAIT, EINTR, 0, FAULT_KERNEL },
	{ "result-error", FAULT_SQE, EBADF, EBADF, FAULT_KERNEL },
	{ "result-error-all", FAULT_SQE, EBADF, EBADF, FAULT_KERNEL | FAULT_ALL },
	{ "result-again", FAULT_SQE, EAGAIN, 0, FAULT_KERNEL },
	{ "result-nothing", FAULT_SQE, 0, 0, FAULT_KERNEL },
	{ "result-half", FAULT_SQE, 0, 0, FAULT_KERNEL | FAULT_HALF },
	{ "copy", FAULT_COPY, EFAULT, EFAULT, 0 },
	{ "copy-unknown", FAULT_COPY, ENOSYS, 0, 0 },
	{ "copy-forbidden", FAULT_COPY, EPERM, 0, FAULT_ALL },
	{ "copy-half", FAULT_COPY, 0, 0, FAULT_HALF },
	{ "copy-half-all", FAULT_COPY, 0, 0, FAULT_HALF | FAULT_ALL },
};

#define NR_FAULTS (sizeof(faults) / sizeof(faults[0]))

/* Large blocks come and go all the time: not each time with new shadow memory. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "clear_shadow_mmap_threshold=100000000";
}

static struct {
	unsigned int tried;
	unsigned int passed; /* of these, the op succeeded */
	unsigned int most;   /* the largest N that was met */
} sums[NR_FAULTS];

static char now[128]; /* what is being tried */
static unsigned int nr_bad;

static void complain(const char *what, const char *more)
{
	nr_bad++;
	printf("FAIL: %s: %s%s%s\n", now, what, *more ? ": " : "", more);
}

static void on_alarm(int sig)
{
	static const char text[] = "FAIL: hangs: ";

	(void)sig;
	if (write(STDOUT_FILENO, text, sizeof(text) - 1) < 0 ||
	    write(STDOUT_FILENO, now, strlen(now)) < 0 || write(STDOUT_FILENO, "\n", 1) < 0)
		_exit(2);
	_exit(1);
}

static void check_balance(const struct fault_balance *before)
{
	struct fault_balance b;
	char text[128];

	/* A thread that was joined is seen in /proc for a moment longer. */
	for (int i = 0; i < GONE_TRIES; i++) {
		fault_balance_get(&b);
		if (b.tasks <= before->tasks && b.fds <= before->fds && b.rings <= before->rings)
			break;
		usleep(100);
	}
	/* And so may be one of what ran before, when it was counted. */
	if (b.tasks < before->tasks)
		b.tasks = before->tasks;
	if (!memcmp(&b, before, sizeof(b)))
		return;
	snprintf(text, sizeof(text),
		 "%+ld allocations, %+ld mappings, %+ld fds, %+ld threads, "
		 "%+ld ring mappings",
		 b.allocs - before->allocs, b.maps - before->maps, b.fds - before->fds,
		 b.tasks - before->tasks, b.rings - before->rings);
	complain("leaves behind", text);
}

static void check_error(const struct op *op, const struct fault *f, int ret,
			const struct ckf_error *err)
{
	const bool may_pass = f->flags & FAULT_MAY_PASS || op->may_pass & 1ull << f->point;
	char text[640];

	snprintf(text, sizeof(text), "got %d (%s), want %d; message \"%s\"", ret, strerror(-ret),
		 -f->want, err->msg);
	if (!ret && f->want && !may_pass)
		complain("the error is not seen", text);
	else if (ret && ret != -f->want)
		complain("another error than expected", text);
	else if (ret && (err->code != ret || !err->msg[0]))
		complain("the message does not fit the error", text);
	else if (!ret && err->code)
		complain("success, but with a message", text);
}

/* True when the fault was met. */
static bool try_once(struct world *w, const struct op *op, size_t fault, unsigned int n)
{
	const struct fault *f = &faults[fault];
	struct fault_balance before;
	struct ckf_error err = { 0 };
	const char *bad;
	bool met;
	int ret;

	snprintf(now, sizeof(now), "%s %s %u", op->name, f->name, n);
	alarm(HANG_SECONDS);
	if (op->prepare)
		op->prepare(w);
	fault_balance_get(&before);
	fault_arm(f, n);
	ret = op->run(w, &err);
	met = fault_disarm();
	bad = op->check(w, ret, f->flags & FAULT_LEAVES);
	if (bad)
		complain(bad, err.msg);
	check_balance(&before);
	if (!met) {
		if (ret)
			complain("fails without a fault", err.msg);
		return false;
	}
	check_error(op, f, ret, &err);
	sums[fault].tried++;
	sums[fault].passed += !ret;
	if (sums[fault].most < n)
		sums[fault].most = n;
	return true;
}

/* With CKF_LONG all; otherwise the first ones, and then fewer and fewer. */
static unsigned int next_n(unsigned int n)
{
	return n + 1 + (getenv("CKF_LONG") ? 0 : n / 4);
}

static void try_op(struct world *w, const struct op *op, const char *only, unsigned int only_n)
{
	for (size_t f = 0; f < NR_FAULTS; f++) {
		unsigned int n = only_n ? only_n : 1;

		if (op->points && !(op->points & 1ull << faults[f].point))
			continue;
		if (only && strcmp(only, faults[f].name) != 0)
			continue;
		while (nr_bad < MAX_BAD && try_once(w, op, f, n) && !only_n) {
			n = next_n(n);
			if (n > MAX_N) {
				complain("no end of calls", "");
				break;
			}
		}
	}
}

/* all: each fault has to have been met. */
static void print_sums(bool all)
{
	unsigned int tried = 0;

	printf("%-16s %6s %6s %10s\n", "fault", "tried", "passed", "largest N");
	for (size_t f = 0; f < NR_FAULTS; f++) {
		tried += sums[f].tried;
		if (sums[f].tried || all)
			printf("%-16s %6u %6u %10u\n", faults[f].name, sums[f].tried,
			       sums[f].passed, sums[f].most);
		snprintf(now, sizeof(now), "%s", faults[f].name);
		if (all && !sums[f].tried && !(faults[f].flags & FAULT_KERNEL))
			complain("no op has met it", "");
	}
	printf("%u faults injected, %u complaints\n", tried, nr_bad);
}

/* AddressSanitizer clears the whole stack of each new thread. */
static void small_stacks(void)
{
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	pthread_setattr_default_np(&attr);
	pthread_attr_destroy(&attr);
}

int main(int argc, char **argv)
{
	static const struct op *const lists[] = { load_ops, sink_ops, convert_ops, archive_ops };
	const char *only_op = argc > 1 ? argv[1] : NULL;
	const char *only_fault = argc > 2 ? argv[2] : NULL;
	struct world *w;

	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGALRM, on_alarm);
	small_stacks();
	w = world_new();
	for (size_t l = 0; l < sizeof(lists) / sizeof(lists[0]); l++) {
		for (const struct op *op = lists[l]; op->name; op++) {
			if (!only_op || !strcmp(only_op, op->name))
				try_op(w, op, only_fault,
				       argc > 3 ? (unsigned int)atoi(argv[3]) : 0);
		}
	}
	alarm(0);
	world_free(w);
	print_sums(!only_op);
	return nr_bad ? 1 : 0;
}
