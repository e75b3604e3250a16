/* SPDX-License-Identifier: MIT */
/*
 * The agent, libckfast-cuda.so, as others see it: how to find it in a process and what is said to
 * it.
 *
 * The agent is preloaded into an application. Device allocations of 2 MiB and more are made by it
 * with the driver's virtual memory API, so that their memory can be taken away and given back while
 * their addresses stay; memory that the application makes so itself is known by a name in place of
 * an address. All calls of the driver go through its gate, which can be closed: then no thread is
 * inside of the driver and none gets there.
 *
 * It has one thread, which sleeps until it is called: by the word wake and a signal, or, where the
 * process is stopped by ptrace, by letting this thread run. It then talks over one end of a
 * socketpair of its own making, of which the caller takes the other end by pidfd_getfd(). Between
 * calls it has no socket; descriptors of memory that was given to it, and which it cannot export a
 * second time, are all that it keeps, and of memory that is away and not saved yet: should the
 * caller die, the memory is not lost. When the conversation ends, also by the caller's death, the
 * gate is closed only if the memory is away.
 *
 * What the caller reads from the process is hostile: the block is checked before it is used.
 */
#ifndef CKF_AGENT_H
#define CKF_AGENT_H

#include <stdint.h>

#include "ckfast.h"

#define CKF_AGENT_MAGIC "ckfast agent\n\x1a\0" /* 16 bytes with the final zero */
/* 1 had no gate: what was dumped with it is restored, but cannot be dumped again. 2 has no SAVED,
 * and nothing after parked in its block. 3 has nothing after imports, which it cannot give back. */
#define CKF_AGENT_VERSION 4
/* The thread waits for it, and has it blocked: that of the C library for cancelling threads, which
 * no application can send or block. Never sent to version 1. */
#define CKF_AGENT_SIGNAL 32
#define CKF_AGENT_ALIGN 64 /* of the block in the library's writable data */

/* In the agent's data; found by its magic in the writable mapping of the library. */
struct ckf_agent_block {
	char magic[16];
	uint32_t version;
	uint32_t tid;	  /* of the agent's thread in its own pid namespace; 0: there is none */
	uint32_t wake;	  /* the caller writes 1, then signals the thread or lets it run */
	int32_t peer_fd;  /* the caller's end of the socketpair; -1: not there yet */
	uint32_t parked;  /* 1: the memory is away */
	uint32_t kept;	  /* 1: the agent can get back all that is away by itself */
	uint32_t imports; /* pieces of imported memory that the agent cannot take away */
	uint32_t ipc; /* things that the driver itself shares by CUDA IPC: events, small memory */
	uint64_t shares;    /* where an array of struct ckf_agent_share is */
	uint32_t nr_shares; /* of it that may be in use */
	uint32_t reserved;
};

#define CKF_AGENT_MAX_SHARES 16384

enum ckf_agent_share_kind {
	CKF_AGENT_NO_SHARE = 0,
	CKF_AGENT_EXPORT = 1, /* memory of the process, which others may have imported */
	CKF_AGENT_IMPORT = 2,
};

/*
 * Memory that processes share. All that have it hold a descriptor of one open file (kcmp(2)), the
 * one that the exporter has made. Written before kind, and kind is cleared before it changes.
 */
struct ckf_agent_share {
	uint32_t kind;
	int32_t fd;	    /* -1 while the memory is away and saved */
	uint8_t secret[16]; /* of the handle of CUDA IPC; zero: none */
};

/* One message of the socketpair (SOCK_SEQPACKET); a descriptor comes beside it where it says so. */
enum ckf_agent_op {
	/*
	 * Caller, the gate closed: answers one ALLOC per allocation, each with a descriptor of its
	 * memory, then DONE. Nothing has changed until RELEASE.
	 */
	CKF_AGENT_PARK = 1,
	CKF_AGENT_RELEASE = 2, /* caller: unmaps and releases all; answers DONE */
	/* Caller: MAP per allocation, with a descriptor, then COMMIT; answered by DONE, with the
	 * gate open. MAP is not needed for what the agent has a descriptor of, which it uses. */
	CKF_AGENT_UNPARK = 3,
	CKF_AGENT_MAP = 4,
	CKF_AGENT_COMMIT = 5,
	CKF_AGENT_QUIT = 6, /* caller: the agent closes its socket and sleeps again */
	/* Caller: closes the gate within so many milliseconds (bytes); answers DONE, or ERROR with
	 * the gate open. */
	CKF_AGENT_CLOSE = 7,
	/* Caller, while the memory is away: it is in images. The agent closes its descriptors of
	 * it; answers DONE. */
	CKF_AGENT_SAVED = 8,
	CKF_AGENT_ALLOC = 16,
	CKF_AGENT_DONE = 17,
	CKF_AGENT_ERROR = 18, /* text says what; RELEASE and UNPARK may be half done then, and be
				 tried again */
};

struct ckf_agent_msg {
	uint32_t op;
	uint32_t flags;	 /* ALLOC: CKF_GPU_ALLOC_ of the image; shared: others may have it, too */
	uint64_t addr;	 /* ALLOC, MAP: device address, or a name */
	uint64_t bytes;	 /* ALLOC, MAP: length of the memory, a multiple of 2 MiB */
	uint32_t device; /* ALLOC: ordinal in the process */
	uint32_t reserved;
	uint8_t uuid[16]; /* ALLOC: of the device */
	char text[128];	  /* ERROR: zero-terminated */
};

#endif
