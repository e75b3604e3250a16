/* SPDX-License-Identifier: MIT */
/*
 * The gate that all calls and all threads of streams go through, and futexes.
 *
 * One word holds the number of threads that are inside, and whether the gate is closed. A thread
 * that finds it closed sleeps outside and holds nothing.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "stub.h"

#define CLOSED (1u << 31)
#define MS 1000000u

static uint32_t gate;

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

void stub_gate_enter(void)
{
	uint32_t v = __atomic_load_n(&gate, __ATOMIC_SEQ_CST);

	for (;;) {
		if (v & CLOSED) {
			stub_futex_wait(&gate, v, 0);
			v = __atomic_load_n(&gate, __ATOMIC_SEQ_CST);
		} else if (__atomic_compare_exchange_n(&gate, &v, v + 1, false, __ATOMIC_SEQ_CST,
						       __ATOMIC_SEQ_CST)) {
			return;
		}
	}
}

void stub_gate_leave(void)
{
	__atomic_sub_fetch(&gate, 1, __ATOMIC_SEQ_CST);
}

bool stub_gate_close(uint64_t deadline_ns)
{
	__atomic_or_fetch(&gate, CLOSED, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&gate, __ATOMIC_SEQ_CST) != CLOSED) {
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
	__atomic_and_fetch(&gate, ~CLOSED, __ATOMIC_SEQ_CST);
	stub_futex_wake(&gate);
}
