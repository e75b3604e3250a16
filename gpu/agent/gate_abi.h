/* SPDX-License-Identifier: MIT */
/* What entry.S and gate.c have to agree on. */
#ifndef CKF_AGENT_GATE_ABI_H
#define CKF_AGENT_GATE_ABI_H

#define AGENT_GATE_SPARE 1536 /* trampolines for functions that functions.h does not have */
#define AGENT_GATE_ENTRY_BYTES 16
#define AGENT_SELF_DEPTH 8
#define AGENT_SLOT_INSIDE 0
#define AGENT_SLOT_FUNCTION 4

#endif
