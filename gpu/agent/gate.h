/* SPDX-License-Identifier: MIT */
/*
 * The gate that all calls of the driver go through (entry.S). Closed, it holds threads before they
 * enter the driver: then none is in a call that could see memory which is away, or hold anything
 * that the agent's thread needs.
 */
#ifndef CKF_AGENT_GATE_H
#define CKF_AGENT_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent.h"
#include "functions.h"

enum agent_gated {
#define AGENT_GATED(name, words) GATED_##name,
	AGENT_FUNCTIONS(AGENT_GATED)
#undef AGENT_GATED
	NR_GATED,
};

/* At the first call: where each function is. lookup: NULL where the driver has none. trampolines:
 * those of entry.S, in the order of functions.h. */
void agent_gate_resolve(void *(*lookup)(const char *name), const char *trampolines);
/* What agent_cuda() gives. */
void agent_gate_set_cuda(const struct ckf_cuda *cu);
/* The agent's own function in place of a function that the driver has. */
void agent_gate_replace(enum agent_gated nr, void *fn);
/* The driver's function, or NULL. */
void *agent_gate_real(enum agent_gated nr);
/* What an application gets that has looked a function of the driver up. */
void *agent_gate_entry(enum agent_gated nr);
void *agent_gate_for(void *real, const char *name);
bool agent_gate_in_driver(const void *address);

/* For a thread that was not let in or has no slot yet: waits until the gate is open. Returns the
 * thread's slot, in which it is counted. Changes errno. */
void *agent_gate_wait(void);
/* Waits until no thread is in a call. False: one still is, and the gate is open again. */
bool agent_gate_close(uint64_t timeout_ms, char *who, size_t size);
void agent_gate_open(void);
bool agent_gate_is_closed(void);
/* In a child: only the thread that has forked is left. */
void agent_gate_after_fork(void);

#endif
