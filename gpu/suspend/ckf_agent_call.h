/* SPDX-License-Identifier: MIT */
/* The caller's side of ckf_agent.h: finds the agent of a process and talks to it. */
#ifndef CKF_AGENT_CALL_H
#define CKF_AGENT_CALL_H

#include "ckf_agent.h"
#include "tracee.h"

/* A conversation with an agent, from call to hang-up. */
struct ckf_agent_call {
	pid_t pid;
	uint64_t block; /* where it is in the process */
	pid_t tid;	/* here */
	uint32_t version;
	bool parked;		 /* its memory was away when it was found */
	bool kept;		 /* and it can get all of that back by itself */
	uint32_t imports;	 /* when it was found: memory of others that it cannot take away */
	uint32_t ipc;		 /* and what the driver itself shares by CUDA IPC */
	uint64_t shares;	 /* and where the list of memory is that is shared, */
	uint32_t nr_shares;	 /* and how long */
	int sock;		 /* -1: none */
	unsigned int timeout_ms; /* of each wait; 0: those that a busy device may need */
	uint64_t deadline_ns;	 /* of the request that is under way */
	struct ckf_tracee thread;
	bool stuck; /* the thread waits for one that is stopped: -EDEADLK */
};

/*
 * Finds the agent. -ENOENT: there is none, or one that has made no allocation. -EBADMSG when what
 * is there is not an agent of this version.
 */
int ckf_agent_find(pid_t pid, struct ckf_agent_call *c, struct ckf_error *err);

/*
 * The memory that the process shares, as a list for free(), of *nr. The process may run, and change
 * the list: an entry may be of memory that is no longer shared, and one be missing that is new.
 */
int ckf_agent_read_shares(const struct ckf_agent_call *c, struct ckf_agent_share **out,
			  uint32_t *nr, struct ckf_error *err);

/* The id of a thread in its own pid namespace; 0: there is no such thread. */
uint32_t ckf_inner_id(pid_t pid, pid_t tid);
/* The opposite: the id here of a thread of the process; 0: it has no such thread. */
pid_t ckf_find_thread(pid_t pid, uint32_t inner);

/* Calls it, and lets its thread run where the caller has it stopped; gets its socket. */
int ckf_agent_begin(struct ckf_agent_call *c, struct ckf_error *err);
/* The agent sleeps again and its thread is stopped if it was. Does nothing when there is no
 * conversation. */
int ckf_agent_end(struct ckf_agent_call *c, struct ckf_error *err);

/*
 * A request has a time that starts when its first message is sent, and that all messages of it and
 * of its answer share: an agent that sends for ever, or does not read, ends with -ETIMEDOUT.
 */
int ckf_agent_send(struct ckf_agent_call *c, const struct ckf_agent_msg *m, int fd,
		   struct ckf_error *err);
/* The time starts anew: something else was waited for since. */
void ckf_agent_renew(struct ckf_agent_call *c);
/*
 * ALLOC with a descriptor, the caller's to close, or DONE without one: *fd is -1. An ERROR message
 * becomes err and -EIO, all else -EPROTO. -EDEADLK as of ckf_tracee_wait(): all that is left then
 * is ckf_agent_end().
 */
int ckf_agent_recv(struct ckf_agent_call *c, struct ckf_agent_msg *m, int *fd,
		   struct ckf_error *err);
/* An answer that has nothing but DONE, and the same for a message that is sent first. */
int ckf_agent_done(struct ckf_agent_call *c, struct ckf_error *err);
int ckf_agent_ask(struct ckf_agent_call *c, struct ckf_agent_msg m, struct ckf_error *err);

#endif
