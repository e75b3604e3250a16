/* SPDX-License-Identifier: MIT */
/*
 * The gate that all calls and all threads of streams go through, and futexes.
 *
 * One word holds the number of threads that are inside, the number of calls that wait, and whether
 * the gate is closed. Who finds it closed sleeps outside and holds nothing.
 *
 * When it opens, the calls that waited are inside: at once, whether their threads run or are
 * stopped. So a process that is unlocked while its threads are stopped cannot be locked again
 * before they run, as with the real driver.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "stub.h"

#define INSIDE 1ull
#define WAITING (1ull << 24)
#define OPENED (1ull << 48) /* counts how often it was opened */
#define CLOSED (1ull << 63)
#define FIELD (WAITING - 1)
#define MS 1000000u

static uint64_t gate;
static uint32_t opened; /* futex: changes whenever the gate has been opened */

uint64_t stub_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void stub_sleep_ns(uint64_t ns)
{
	struct timespec t = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };

	while (nanosleep(&t, &t) && errno == EINTR)
		;
}

void stub_futex_wait(uint32_t *word, uint32_t value, uint64_t timeout_ns)
{
	struct timespec t = { (time_t)(timeout_ns / 1000000000u),
			      (long)(timeout_ns % 1000000000u) };

	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, timeout_ns ? &t : NULL, NULL, 0);
}

void stub_futex_wake(uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static uint64_t load(void)
{
	return __atomic_load_n(&gate, __ATOMIC_SEQ_CST);
}

static bool change(uint64_t from, uint64_t to)
{
	return __atomic_compare_exchange_n(&gate, &from, to, false, __ATOMIC_SEQ_CST,
					   __ATOMIC_SEQ_CST);
}

static uint64_t times_opened(uint64_t v)
{
	return (v & ~CLOSED) / OPENED;
}

/* Until the gate has been opened since it was v. */
static void wait_opened(uint64_t v)
{
	for (;;) {
		uint32_t seen = __atomic_load_n(&opened, __ATOMIC_SEQ_CST);

		if (times_opened(load()) != times_opened(v))
			return;
		stub_futex_wait(&opened, seen, 0);
	}
}

void stub_gate_enter(void)
{
	for (;;) {
		uint64_t v = load();

		if (v & CLOSED)
			wait_opened(v);
		else if (change(v, v + INSIDE))
			return;
	}
}

void stub_gate_call(void)
{
	for (;;) {
		uint64_t v = load();

		if (!(v & CLOSED)) {
			if (change(v, v + INSIDE))
				return;
		} else if (change(v, v + WAITING)) {
			wait_opened(v);
			return;
		}
	}
}

void stub_gate_leave(void)
{
	__atomic_sub_fetch(&gate, INSIDE, __ATOMIC_SEQ_CST);
}

bool stub_gate_close(uint64_t deadline_ns)
{
	__atomic_or_fetch(&gate, CLOSED, __ATOMIC_SEQ_CST);
	while (load() & FIELD) {
		if (stub_now_ns() >= deadline_ns) {
			stub_gate_open();
			return false;
		}
		stub_sleep_ns(MS / 10);
	}
	return true;
}

void stub_gate_open(void)
{
	uint64_t v, waiting;

	do {
		v = load();
		waiting = v / WAITING & FIELD;
	} while (!change(v, ((v - waiting * WAITING + waiting * INSIDE) & ~CLOSED) + OPENED));
	__atomic_add_fetch(&opened, 1, __ATOMIC_SEQ_CST);
	stub_futex_wake(&opened);
}
