/* SPDX-License-Identifier: MIT */
/*
 * What is said to `ckfast gpud`, the process that holds warm CUDA contexts and pinned slots, and
 * makes all CUDA calls on behalf of CRIU's plugin and of `ckfast park`: neither has the driver
 * loaded.
 *
 * The same program serves one client when it is started for one restore (--fd). Messages go over a
 * unix SOCK_SEQPACKET socket; descriptors come beside them. The first request of a connection is
 * HELLO. One connection has one job at a time, answered in order; a client that has more to do at
 * once opens more of them (JOIN). Memory that was made for a connection and not fetched is freed
 * when the connection ends, however it ends. A client that closes its end stops its job. A request
 * that cannot be done is answered by ERROR; after one that breaks these rules the connection is
 * closed, too.
 *
 * Client and gpud may be in different pid namespaces, so a number never names a running process or
 * one of its threads: a process comes as a pidfd, which also stays with that process when its
 * number is used again, and a thread as its id in the innermost pid namespace of its process. Pids
 * of images are those in the names of the images.
 */
#ifndef CKF_GPUD_H
#define CKF_GPUD_H

#include <stdint.h>

#include "ckfast.h"

#define CKF_GPUD_VERSION 5
#define CKF_GPUD_ANSWER_S 300 /* the driver alone may take a minute for a full GPU */
#define CKF_GPUD_MOVES_S 60   /* between two MOVES */

#define CKF_GPUD_MAX_TIMEOUT_MS 86400000u

enum ckf_gpud_op {
	/* Requests. */
	CKF_GPUD_HELLO = 1,  /* arg: version. Answer: DONE, arg: version; ERROR EOPNOTSUPP */
	CKF_GPUD_STATUS = 2, /* Answer: TEXT messages (JSON, in pieces), then DONE */
	/*
	 * Beside it a pidfd; arg: enum ckf_gpud_action, arg2: timeout in ms, at most
	 * CKF_GPUD_MAX_TIMEOUT_MS. DONE, arg; ERROR ESRCH when the process has ended, EXDEV when
	 * gpud's pid namespace does not have it.
	 */
	CKF_GPUD_CHECKPOINT = 3,
	/*
	 * Beside it a descriptor of an image directory: a fast image, or a dump. Fills memory for
	 * each device target of it; ERROR ENOENT: it has none. Answers: where a device of the image
	 * is not in this machine and another one takes its place, a PAIR for each device of the
	 * image, also for those without memory, as far as there are devices to take their places;
	 * ACCEPTED, after milliseconds where the driver is open: the devices are there and
	 * have room; when all memory is made, MEMORY per allocation with pid, addr, bytes, the uuid
	 * of the device that it is on now and a descriptor, and MADE after the last one. Shared
	 * memory is made once, and the descriptors of its allocations are of one open file. Per
	 * process, when its memory is filled and checked, also what it imports, READY with pid,
	 * arg: bytes, arg2: ns since the request, before or after MADE. Before READY the memory has
	 * any part of its contents. After all of them DONE with arg: bytes filled, arg2: ns; or
	 * ERROR at any time.
	 */
	CKF_GPUD_FILL = 4,
	/*
	 * Beside it a descriptor of the directory of a dump; pid: as in the names of the images.
	 * Then one MEMORY per allocation with a descriptor, ascending by addr, then COMMIT. Of an
	 * import (flags), the contents are left to the process that owns the memory. Writes
	 * ckfast-gpu-PID.img and ckfast-gpu-pages-PID.img (SPEC.md) and syncs neither. DONE, arg:
	 * bytes that are not zero, arg2: ns, or ERROR and neither file is there.
	 */
	CKF_GPUD_SAVE = 5,
	CKF_GPUD_MEMORY = 6,
	CKF_GPUD_COMMIT = 7,
	/*
	 * uuid: of a device in the image, uuid2: of the one that takes its place. As a request: for
	 * the next RESUME of this connection. The driver wants all or none of the devices that were
	 * in the machine, whatever the process saw of them. Has no answer of its own.
	 */
	CKF_GPUD_PAIR = 8,
	/* DONE with a socket beside it: another connection to the same process, past HELLO. */
	CKF_GPUD_JOIN = 9,
	/*
	 * Beside it a descriptor of the directory of a fast image, which is kept in memory from
	 * then on; others may be dropped for it. DONE, arg: bytes of memory that it takes, arg2:
	 * ns; ERROR EPERM for members of a group, EDQUOT or ENOMEM: too large.
	 */
	CKF_GPUD_KEEP = 10,
	/*
	 * Beside it the same descriptor, or none: all. DONE, arg: how many images are no longer
	 * kept; ERROR EPERM likewise, ENOENT: it was not kept.
	 */
	CKF_GPUD_DROP = 11,
	/* DONE, arg: how many AMD GPUs are served. */
	CKF_GPUD_AMD_GPUS = 12,
	/*
	 * Beside it a descriptor of the directory of a fast image; arg: the id of the target in it
	 * that is the memory of an AMD GPU, arg2: how many objects it is. Then each object, as
	 * MEMORY with addr: its place in the target, bytes, and its dma-buf, ascending by addr.
	 * ACCEPTED when all are imported, and are as large as those of the image. Then COMMIT, and
	 * not before that anything is written to them; DONE with arg: bytes filled and checked,
	 * arg2: ns. ERROR at any time: ENODEV when no AMD GPUs are served.
	 */
	CKF_GPUD_FILL_AMD = 13,
	/* Answers. */
	CKF_GPUD_DONE = 16,
	CKF_GPUD_READY = 17,
	CKF_GPUD_ERROR = 18, /* arg: errno, text: what */
	CKF_GPUD_TEXT = 19,
	CKF_GPUD_ACCEPTED = 20,
	CKF_GPUD_MADE = 21,
	/* At any time of a FILL, FILL_AMD, SAVE or KEEP that gets on, but takes long. */
	CKF_GPUD_MOVES = 22,
};

enum ckf_gpud_action {
	CKF_GPUD_LOCK = 1,
	CKF_GPUD_UNLOCK = 2,
	CKF_GPUD_SUSPEND = 3, /* cuCheckpointProcessCheckpoint() */
	CKF_GPUD_RESUME = 4,  /* cuCheckpointProcessRestore() */
	CKF_GPUD_STATE = 5, /* DONE, arg: CU_PROCESS_STATE_; ERROR ESRCH: no CUDA in this process */
	CKF_GPUD_RESTORE_TID = 6, /* DONE, arg: id of the thread as above; ERROR ESRCH likewise */
};

struct ckf_gpud_msg {
	uint32_t op;
	uint32_t pid; /* FILL's answers and SAVE: as in the image; otherwise 0 */
	uint64_t arg;
	uint64_t arg2;
	uint64_t addr;
	uint64_t bytes;
	uint32_t device; /* MEMORY of SAVE: ordinal in the process */
	uint32_t flags;
	uint8_t uuid[16];
	uint8_t uuid2[16]; /* of MEMORY: shared_id of the image */
	char text[432];
};

/* The client's side, for one thread, after ckf_gpud_connect(). */

/* Another connection to the process at the other end of sock. A socket, or -errno. */
int ckf_gpud_join(int sock, struct ckf_error *err);

/*
 * Send and receive one message, each within CKF_GPUD_ANSWER_S, or else -ETIMEDOUT; *fd is -1 or a
 * descriptor, which is the receiver's to close. MOVES are not received: each gives the answer that
 * is waited for as much time again.
 */
int ckf_gpud_send(int sock, const struct ckf_gpud_msg *m, int fd, struct ckf_error *err);
int ckf_gpud_recv(int sock, struct ckf_gpud_msg *m, int *fd, struct ckf_error *err);

/*
 * A request, beside it fd, which stays the caller's, or -1, and its answer; an ERROR answer becomes
 * err and -errno.
 */
int ckf_gpud_call(int sock, struct ckf_gpud_msg *m, int fd, struct ckf_error *err);

#endif
