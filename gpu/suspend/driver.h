/* SPDX-License-Identifier: MIT */
/* What the driver does for one process: calls of gpud, answered by a thread of that process. */
#ifndef DRIVER_H
#define DRIVER_H

#include "format/ckf_gpu_dump.h"
#include "ckf_gpud.h"
#include "tracee.h"

struct driver {
	pid_t pid;
	int pidfd; /* what gpud knows the process by: it may be in another pid namespace */
	/* A call is under way that cannot end before the process runs: all further ones for this
	 * process go by the same connection. -1: none. */
	int stuck_gpud;
	bool is_stuck; /* its answer has not come */
	/* A call on a connection of its own, whose answer nobody has waited for yet. */
	struct driver_begun {
		int sock;	 /* -1: none */
		uint32_t action; /* CKF_GPUD_SUSPEND or CKF_GPUD_RESUME */
		uint64_t end_ns;
	} begun;
	struct ckf_tracee thread;
	pid_t tid;
	bool locked;
	bool suspended;
	struct driver_pair {
		uint8_t old_uuid[16];
		uint8_t new_uuid[16];
	} pairs[CKF_GPU_MAX_DEVICES];
	unsigned int nr_pairs;
};

/* What driver_close() takes, too. */
#define DRIVER_INIT ((struct driver){ .stuck_gpud = -1, .begun = { .sock = -1 } })

/* For the process of pidfd, which stays the caller's. -ESRCH: it does not use CUDA. */
int driver_open(struct driver *d, pid_t pid, int pidfd, int gpud, struct ckf_error *err);
/* Its thread is stopped again if it was. */
void driver_close(struct driver *d);

/* Another device, with another UUID, is to take the place of one when it wakes. */
int driver_pair(struct driver *d, const uint8_t old_uuid[16], const uint8_t new_uuid[16],
		struct ckf_error *err);

/* The thread runs, whoever has stopped it; ckf_tracee_stop() stops it again if the caller had. */
int driver_run(struct driver *d, struct ckf_error *err);

/* Makes a call and waits for its answer; the thread runs. -EDEADLK as of ckf_tracee_wait(). */
int driver_call(struct driver *d, int gpud, uint32_t action, uint64_t timeout_ms, uint64_t *answer,
		struct ckf_error *err);
/* Likewise: as it is to be, in as many calls as that takes, and by what was begun. */
int driver_lock(struct driver *d, int gpud, bool on, struct ckf_error *err);
int driver_sleep(struct driver *d, int gpud, struct ckf_error *err);
int driver_wake(struct driver *d, int gpud, struct ckf_error *err);
int driver_state(struct driver *d, int gpud, uint64_t *state, struct ckf_error *err);

/* Begins the call that sleep or wake makes next, lets the thread run and returns. What cannot begin
 * now begins when it is called for. */
void driver_begin(struct driver *d, int gpud, uint32_t action);

#endif
