/* SPDX-License-Identifier: MIT */
/*
 * The gate: who is inside, closing it, and who waits at it.
 *
 * Each thread counts itself in and out in a slot of its own, so a call costs no shared cache line.
 * Whoever closes the gate first says so and then waits until all slots are empty; a thread first
 * counts itself and then looks whether the gate is closed. A thread that is inside already, in a
 * function of its own that the driver has called back, is let through: the driver waits for it.
 *
 * A thread that ends inside, by cancellation, takes its count along. One that leaves a callback by
 * longjmp() does not: as with the driver's own lock, nobody can tell that it has left.
 */
#include <dlfcn.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/ckf_threads.h"
#include "agent.h"
#include "gate.h"
#include "gate_abi.h"

#define NR_SLOTS 2048
#define NR_ENTRIES (NR_GATED + AGENT_GATE_SPARE)
#define NAME_BYTES 48
#define WORDS_UNKNOWN 16 /* of arguments on the stack: more than any function has */
#define POLL_NS 100000

struct slot {
	atomic_uint inside;
	uint32_t function; /* that was entered last */
	uint32_t tid;	   /* 0: free */
} __attribute__((aligned(64)));

struct self {
	struct slot *slot; /* NULL: none yet */
	uint32_t depth;
};

_Static_assert(offsetof(struct slot, inside) == AGENT_SLOT_INSIDE &&
		       offsetof(struct slot, function) == AGENT_SLOT_FUNCTION &&
		       offsetof(struct self, depth) == AGENT_SELF_DEPTH,
	       "entry.S has other offsets");

/* For entry.S. */
__thread struct self agent_gate_self __attribute__((tls_model("initial-exec")));
atomic_uint agent_gate_closed;
void *agent_gate_targets[NR_ENTRIES];
uint8_t agent_gate_words[NR_ENTRIES] = {
#define WORDS(name, words) words,
	AGENT_FUNCTIONS(WORDS)
#undef WORDS
};

static const char *const names[NR_GATED] = {
#define NAME(name, words) #name,
	AGENT_FUNCTIONS(NAME)
#undef NAME
};

static void *reals[NR_ENTRIES];
static const struct ckf_cuda *cuda;
static const char *entries; /* the trampolines, AGENT_GATE_ENTRY_BYTES each */
static char spare_names[AGENT_GATE_SPARE][NAME_BYTES];
static size_t nr_spare;
static pthread_mutex_t spare_lock = PTHREAD_MUTEX_INITIALIZER;
/* The first is for all threads that find no other free: counts add up. */
static struct slot slots[NR_SLOTS];
static pthread_key_t at_exit;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static CUresult missing(void)
{
	return CUDA_ERROR_NOT_SUPPORTED;
}

static CUresult no_driver(void)
{
	return CUDA_ERROR_NOT_INITIALIZED;
}

void agent_gate_resolve(void *(*lookup)(const char *name), const char *trampolines)
{
	bool any = false;

	entries = trampolines;
	for (size_t i = 0; i < NR_GATED; i++) {
		reals[i] = lookup(names[i]);
		any |= reals[i] != NULL;
	}
	for (size_t i = 0; i < NR_GATED; i++)
		agent_gate_targets[i] = reals[i] ? reals[i]
					: any	 ? (void *)missing
						 : (void *)no_driver;
}

void agent_gate_replace(enum agent_gated nr, void *fn)
{
	if (reals[nr])
		agent_gate_targets[nr] = fn;
}

void agent_gate_set_cuda(const struct ckf_cuda *cu)
{
	cuda = cu;
}

const struct ckf_cuda *agent_cuda(void)
{
	return cuda;
}

void *agent_gate_real(enum agent_gated nr)
{
	return reals[nr];
}

static void *entry(size_t nr)
{
	return (void *)(entries + nr * AGENT_GATE_ENTRY_BYTES);
}

void *agent_gate_entry(enum agent_gated nr)
{
	return entry(nr);
}

/*
 * Functions that see no memory and wait for nothing; the checkpoint calls work on other processes
 * and have a lock of their own.
 */
static bool passes(const char *name)
{
	static const char *const prefixes[] = { "cuGetError", "cuDriverGetVersion",
						"cuGetExportTable", "cuGetProcAddress",
						"cuCheckpoint" };

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++) {
		if (!strncmp(name, prefixes[i], strlen(prefixes[i])))
			return true;
	}
	return false;
}

bool agent_gate_in_driver(const void *address)
{
	Dl_info info;

	return dladdr(address, &info) && info.dli_fname && strstr(info.dli_fname, "libcuda.so");
}

/* A trampoline for a function that is not in the table; the function itself when none is left. */
static void *spare_for(void *real, const char *name)
{
	size_t i, nr;

	pthread_mutex_lock(&spare_lock);
	for (i = 0; i < nr_spare && reals[NR_GATED + i] != real; i++)
		;
	nr = NR_GATED + i;
	if (i == nr_spare && nr_spare < AGENT_GATE_SPARE) {
		snprintf(spare_names[i], NAME_BYTES, "%s", name);
		agent_gate_words[nr] = WORDS_UNKNOWN;
		agent_gate_targets[nr] = real;
		reals[nr] = real;
		nr_spare++;
	}
	pthread_mutex_unlock(&spare_lock);
	return i < nr_spare ? entry(nr) : real;
}

void *agent_gate_for(void *real, const char *name)
{
	for (size_t i = 0; i < NR_GATED; i++) {
		if (reals[i] == real)
			return entry(i);
	}
	return passes(name) || !agent_gate_in_driver(real) ? real : spare_for(real, name);
}

static void futex(int op, unsigned int value)
{
	syscall(SYS_futex, &agent_gate_closed, op, value, NULL, NULL, 0);
}

static void thread_ends(void *arg)
{
	struct self *self = &agent_gate_self;

	(void)arg;
	if (!self->slot)
		return;
	atomic_fetch_sub(&self->slot->inside, self->depth);
	if (self->slot != slots)
		__atomic_store_n(&self->slot->tid, 0, __ATOMIC_RELEASE);
	self->slot = NULL;
	self->depth = 0;
}

static void make_key(void)
{
	pthread_key_create(&at_exit, thread_ends);
}

static struct slot *take_slot(void)
{
	uint32_t tid = (uint32_t)syscall(SYS_gettid);

	pthread_once(&once, make_key);
	for (size_t i = 1; i < NR_SLOTS; i++) {
		uint32_t none = 0;

		if (!slots[i].tid &&
		    __atomic_compare_exchange_n(&slots[i].tid, &none, tid, false, __ATOMIC_ACQUIRE,
						__ATOMIC_RELAXED)) {
			/* Any value will do: thread_ends() is to be called. */
			pthread_setspecific(at_exit, slots);
			return &slots[i];
		}
	}
	return slots;
}

void *agent_gate_wait(void)
{
	struct self *self = &agent_gate_self;

	if (!self->slot)
		self->slot = take_slot();
	for (;;) {
		atomic_fetch_add(&self->slot->inside, 1);
		if (self->depth || !atomic_load(&agent_gate_closed))
			break;
		atomic_fetch_sub(&self->slot->inside, 1);
		futex(FUTEX_WAIT_PRIVATE, 1);
	}
	return self->slot;
}

/* A slot with somebody inside, or NULL. */
static const struct slot *occupied(void)
{
	for (size_t i = 0; i < NR_SLOTS; i++) {
		if (atomic_load(&slots[i].inside))
			return &slots[i];
	}
	return NULL;
}

static void describe(const struct slot *s, char *who, size_t size)
{
	uint32_t nr = s->function;

	snprintf(who, size, "thread %u does not come back from %s", s->tid,
		 nr < NR_GATED ? names[nr] : spare_names[nr - NR_GATED]);
}

bool agent_gate_close(uint64_t timeout_ms, char *who, size_t size)
{
	const struct timespec pause = { .tv_nsec = POLL_NS };
	uint64_t deadline = ckf_now_ns() + timeout_ms * 1000000;
	const struct slot *s;

	atomic_store(&agent_gate_closed, 1);
	while ((s = occupied())) {
		if (ckf_now_ns() >= deadline) {
			describe(s, who, size);
			agent_gate_open();
			return false;
		}
		nanosleep(&pause, NULL);
	}
	return true;
}

void agent_gate_open(void)
{
	atomic_store(&agent_gate_closed, 0);
	futex(FUTEX_WAKE_PRIVATE, INT_MAX);
}

bool agent_gate_is_closed(void)
{
	return atomic_load(&agent_gate_closed);
}

void agent_gate_after_fork(void)
{
	struct self *self = &agent_gate_self;

	atomic_store(&agent_gate_closed, 0);
	memset(slots, 0, sizeof(slots));
	if (!self->slot)
		return;
	atomic_store(&self->slot->inside, self->depth);
	self->slot->tid = (uint32_t)syscall(SYS_gettid);
	pthread_mutex_init(&spare_lock, NULL);
}
